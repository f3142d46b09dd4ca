"""Packages inside Slicer; its installer and the PyTorch extension are stand-ins with the real names and arguments."""

import subprocess
from pathlib import Path

import pytest

from FoundationSegLib.core.errors import PackageError
from FoundationSegLib.core.progress import Progress
from FoundationSegLib.mrml.packages import SlicerTool


class Packaging:
    """``slicer.packaging``, as of Slicer 5.12."""

    def __init__(self, error=None):
        self.error, self.calls = error, []

    def pip_install(self, requirements, constraints=None, requester=None):
        self.calls.append((requirements, Path(constraints).read_text(), requester))
        if self.error:
            raise self.error


class TorchLogic:
    def __init__(self, *, installed, agrees=True):
        self.installed, self.agrees, self.asked = installed, agrees, 0

    def torchInstalled(self):
        return self.installed

    def installTorch(self, askConfirmation=False):
        self.asked += 1
        return object() if askConfirmation and self.agrees else None


class Looks:
    def report(self, requirements, constraints, progress):
        return {"install": [], "asked": (requirements, constraints)}

    def install(self, requirements, constraints, progress):
        raise AssertionError("it only looks")


def test_slicer_installs_all_but_torch():
    packaging = Packaging()
    tool = SlicerTool(packaging, TorchLogic(installed=True), Looks())
    wanted, kept = ("torch>=2.4", "torchvision", "timm>=1.0"), ("torch==2.13.0", "numpy==2.4.6")
    assert tool.report(wanted, kept, Progress())["asked"] == (["timm>=1.0"], kept)
    tool.install(wanted, kept, Progress())
    assert packaging.calls == [(["timm>=1.0"], "torch==2.13.0\nnumpy==2.4.6\n", "FoundationSeg")]


def test_torch_comes_first_and_from_its_extension():
    logic = TorchLogic(installed=False)
    tool = SlicerTool(Packaging(), logic, Looks())
    with pytest.raises(PackageError, match="PyTorch has to be installed first"):
        tool.report(("torch", "timm"), ("numpy==2.4.6",), Progress())
    tool.install_torch()
    assert logic.asked == 1
    logic.installed = True
    tool.install_torch()
    assert logic.asked == 1


def test_what_can_go_wrong_is_told():
    with pytest.raises(PackageError, match="Extensions Manager"):
        SlicerTool(Packaging(), None, Looks()).install_torch()
    with pytest.raises(PackageError, match="was not installed"):
        SlicerTool(Packaging(), TorchLogic(installed=False, agrees=False), Looks()).install_torch()
    for error in (RuntimeError("declined"), subprocess.CalledProcessError(1, "pip")):
        with pytest.raises(PackageError, match="Python console"):
            SlicerTool(Packaging(error), TorchLogic(installed=True), Looks()).install(("timm",), (), Progress())
