"""PyTorch inside Slicer; its extension's module is a stand-in with the real names and arguments."""

import subprocess
import sys
import types

import pytest

from FoundationSegLib.errors import PackageError
from FoundationSegLib.mrml.packages import find_torch_logic, install_torch


class TorchLogic:
    """``PyTorchUtilsLogic``; ``outcome`` is what it returns, or raises."""

    def __init__(self, outcome=None):
        self.outcome, self.asked = outcome, []

    def installTorch(
        self,
        askConfirmation=False,
        forceComputationBackend=None,
        torchVersionRequirement=None,
        torchvisionVersionRequirement=None,
    ):
        self.asked.append((askConfirmation, torchVersionRequirement, torchvisionVersionRequirement))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def test_the_extension_is_told_which_versions_will_do_and_asks_nobody_again():
    logic = TorchLogic(object())
    install_torch(logic, ("torch>=2.4,!=2.9.*", "timm>=1.0"))
    install_torch(logic, ("torch", "torchvision>=0.19"))
    assert logic.asked == [(False, ">=2.4,!=2.9.*", None), (False, "", ">=0.19")]


@pytest.mark.parametrize(
    "outcome", [None, RuntimeError("x"), subprocess.CalledProcessError(1, "pip"), ValueError(), ImportError("torch")]
)
def test_what_can_go_wrong_is_told(outcome):
    with pytest.raises(PackageError, match="Python console"):
        install_torch(TorchLogic(outcome), ("torch",))


def test_the_logic_is_that_of_the_extension(monkeypatch):
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    with pytest.raises(PackageError, match="Extensions Manager"):
        find_torch_logic()
    monkeypatch.setitem(sys.modules, "PyTorchUtils", types.SimpleNamespace(PyTorchUtilsLogic=TorchLogic))
    assert isinstance(find_torch_logic(), TorchLogic)
