"""The private folder, with a pip that can be stopped anywhere; the real one fills it in ``worker/test_tasks.py``."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from FoundationSegLib.errors import Cancelled, FoundationSegError, InputError, PackageError
from FoundationSegLib.folders import locked
from FoundationSegLib.installation.inspection import inspect_python
from FoundationSegLib.installation.packages import PackagePlan, PlannedPackage
from FoundationSegLib.installation.private_environment import (
    TORCH_INDEX_VARIABLE,
    PrivateFolder,
    packages_root,
    python_tag,
    require_short,
    search_path,
    torch_build,
)
from FoundationSegLib.progress import CancelToken, Progress
from Testing.unit.worker.conftest import until


@dataclass(frozen=True, slots=True)
class FakePip:
    """One version of everything, 1.0 or what the mode says; PyTorch's own index has its build for a driver."""

    rig: "Rig"
    options: tuple[str, ...] = ()
    temporary: Path | None = None
    extra_index: str = ""
    is_alone: bool = False

    def report(self, requirements, constraints, progress):
        progress.check()
        self.rig.calls.append((self.options, self.extra_index, self.is_alone, tuple(requirements)))
        names = [re.split("[=<>]", text)[0] for text in requirements]
        versions = {name: "2.8.0+cu126" if name == "torch" else self.rig.version for name in names}
        entries = [{"metadata": {"name": n, "version": v}, "download_info": {"url": ""}} for n, v in versions.items()]
        return {"install": entries}

    def install(self, requirements, constraints, progress):
        self.rig.calls.append((self.options, self.extra_index, self.is_alone, tuple(requirements)))
        if self.rig.mode == "full":
            raise PackageError("the packages cannot be installed (pip: No space left on device; make room on the disk)")
        target = Path(self.options[self.options.index("--target") + 1])
        (target / "shared").mkdir(parents=True)
        for name, version in (text.split("==") for text in requirements):
            (target / "shared" / f"{name}_{version}.py").touch()
            record = target / f"{name}-{version}.dist-info"
            record.mkdir()
            (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            files = (f"shared/{name}_{version}.py", "../../bin/x", f"{record.name}/METADATA", f"{record.name}/RECORD")
            (record / "RECORD").write_text("".join(f"{file},,\n" for file in files))
            if self.rig.mode == "hangs":
                (self.rig.root / "hangs").touch()
                time.sleep(60)


class Rig:
    """A folder behind blanks and umlauts, and the pip that fills it."""

    def __init__(self, folder: Path, mode: str = "works") -> None:
        self.root, self.mode, self.version = folder / "Ärztin Müller" / "F Seg", mode, "1.0"
        self.private, self.calls = PrivateFolder(self.root), []

    def install(self, *requirements: str, driver: str = "", progress: Progress | None = None) -> list[str]:
        """The names and versions that were installed."""
        progress = progress or Progress()
        with self.private.open(progress):
            pip = self.private.tool(FakePip(self), lambda: driver)
            plan = self.private.plan(requirements, pip, progress)
            self.private.install(plan, pip, progress)
        return [f"{package.name}=={package.version}" for package in plan.packages]

    def files(self) -> set[str]:
        return {path.name for path in (self.private.packages / "shared").iterdir()}


@pytest.fixture
def rig(tmp_path, monkeypatch):
    monkeypatch.delenv(TORCH_INDEX_VARIABLE, raising=False)
    return Rig(tmp_path)


def test_what_is_missing_comes_once_and_stays(rig):
    assert not rig.private.has_packages and rig.private.requirements() == ()
    assert rig.install("alpha>=1") == ["packaging==1.0", "alpha==1.0"]
    assert rig.install("alpha>=1") == [] and rig.private.has_packages
    assert rig.install("beta") == ["beta==1.0"], "what shares a folder with it stays"
    assert rig.files() == {"packaging_1.0.py", "alpha_1.0.py", "beta_1.0.py"}
    assert rig.private.requirements() == ("packaging", "alpha>=1", "beta")
    assert {path.name for path in rig.root.iterdir()} == {python_tag(), f"{python_tag()}.json"}
    assert "--no-deps" in rig.calls[-1][0] and rig.calls[-1][3] == ("beta==1.0",)
    assert inspect_python(["alpha", "numpy"], rig.root).packages == {"alpha": "1.0", "numpy": ""}
    other = replace(rig.private, tag="cp399-x86_64")
    assert not other.has_packages and other.packages.parent == rig.root, "another Python has a folder of its own"


def test_a_version_that_is_not_allowed_any_more_is_replaced(rig):
    rig.install("alpha", "beta")
    rig.version = "2.0"
    assert rig.install("alpha>=2") == ["packaging==2.0", "alpha==2.0", "beta==2.0"]
    constraints = rig.private.plan(("gamma",), rig.private.tool(FakePip(rig), str), Progress()).constraints
    assert "alpha==2.0" in constraints and "torch!=2.9.*" in constraints and "timm>=1.0.17,<1.0.23" in constraints
    assert rig.files() == {"packaging_2.0.py", "alpha_2.0.py", "beta_2.0.py"}


def test_torch_comes_from_the_index_for_the_driver_and_its_build_is_kept(rig):
    rig.install("torch>=2.4", "alpha", driver="535.104.05, 8.6")
    index = "https://download.pytorch.org/whl/cu126"
    first, rest, last = rig.calls
    assert first == (("--ignore-installed",), index, True, ("torch>=2.4", "torchvision")), "of this index alone"
    assert rest[1:3] == last[1:3] == (index, False)
    assert rig.private.versions()["torch"] == "2.8.0+cu126"
    rig.install("beta", driver="580.65.06, 8.6")
    assert all(extra == index and not is_alone for _, extra, is_alone, _ in rig.calls[3:])


def test_without_a_network_a_folder_of_wheels_is_enough(rig, tmp_path):
    rig.private = replace(rig.private, wheels=tmp_path / "wheels")
    rig.install("torch>=2.4", driver="580.65.06, 8.6")
    assert len(rig.calls) == 2
    for options, extra, *_ in rig.calls:
        assert options[:3] == ("--no-index", "--find-links", str(tmp_path / "wheels")) and extra == ""


@pytest.mark.parametrize("damage", ["file", "record", "metadata"])
def test_repair_brings_back_what_was_lost_and_nothing_else(rig, damage):
    rig.install("alpha", "beta")
    record = rig.private.packages / "alpha-1.0.dist-info"
    lost = {"file": record.parent / "shared/alpha_1.0.py", "record": record / "RECORD", "metadata": record / "METADATA"}
    lost[damage].unlink()
    assert rig.install() == ["alpha==1.0"] and rig.install() == []
    assert set(rig.private.versions()) == {"packaging", "alpha", "beta"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals between processes")
def test_one_that_is_killed_leaves_nothing_behind(rig):
    rig.install("alpha")
    code = "import sys\nfrom Testing.unit.installation.test_private_environment import *\n"
    code += f"Rig(Path({str(rig.root.parents[1])!r}), 'hangs').install('beta')"
    process = subprocess.Popen((sys.executable, "-c", code), start_new_session=True)
    until((rig.root / "hangs").exists)
    token = CancelToken(cancelled=True)
    with pytest.raises(Cancelled):  # a second one waits for the first
        rig.install("gamma", progress=Progress(token=token))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert set(rig.private.versions()) == {"packaging", "alpha"}
    (rig.root / "hangs").unlink()
    assert rig.install("beta") == ["beta==1.0"]
    assert {path.name for path in rig.root.iterdir()} == {python_tag(), f"{python_tag()}.json"}


def test_one_that_is_stopped_while_files_are_moved_does_not_count(rig):
    rig.install("alpha")
    obstacle = rig.private.packages / "shared" / "beta_1.0.py"
    obstacle.mkdir()
    with pytest.raises(PackageError, match="cannot be written"):
        rig.install("beta")
    assert "beta" not in rig.private.versions() and "alpha" in rig.private.versions()
    obstacle.rmdir()
    assert rig.install("beta") == ["beta==1.0"]


def test_a_full_disk_and_a_folder_that_cannot_be_written(rig, tmp_path):
    rig.install("alpha")
    rig.mode = "full"
    with pytest.raises(PackageError, match="No space left on device; make room"):
        rig.install("beta")
    large = PackagePlan((), (), (PlannedPackage("large", "1", "", 10**16),))
    with pytest.raises(PackageError, match=r"need about .* are free; make room"):
        rig.private.install(large, FakePip(rig), Progress())
    assert set(rig.private.versions()) == {"packaging", "alpha"}
    (tmp_path / "file").touch()
    blocked = PrivateFolder(tmp_path / "file" / "x")
    with pytest.raises(PackageError, match=r"cannot be written: Not a directory"), blocked.open(Progress()):
        pass


def test_all_of_it_can_be_removed(rig):
    assert rig.private.remove(Progress()) == 0
    rig.install("alpha")
    with locked(rig.root / f"{python_tag()}.lock"), pytest.raises(Cancelled):
        rig.private.remove(Progress(token=CancelToken(cancelled=True)))
    assert rig.private.remove(Progress()) > 0
    assert list(rig.root.iterdir()) == [] and not rig.private.has_packages
    assert rig.install("alpha") == ["packaging==1.0", "alpha==1.0"]


@pytest.mark.parametrize(
    ("driver", "build"),
    [
        ("", "cpu"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "cpu"),
        ("470.223.02, 8.6\n", "cpu"),
        ("525.60.13, 8.6\n", "cu126"),
        ("531.14, 8.9\r\n", "cu126"),
        ("570.86.10, 9.0\n", "cu128"),
        ("580.65.06, 12.0\n580.65.06, 12.0\n", "cu130"),
        ("580.65.06, 6.1\n", "cu126"),
        ("580.65.06, 12.0\n580.65.06, 7.0\n", "cu126"),
        ("| NVIDIA-SMI 535.104.05    Driver Version: 535.104.05    CUDA Version: 12.2 |", "cu126"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  575.57.08  Sat May 24 2025", "cu128"),
    ],
)
def test_the_build_of_torch_goes_with_the_driver(driver, build):
    assert torch_build(driver) == build


def test_paths_are_short_enough_for_windows():
    root = "C:\\Users\\a.name.of.20.letters\\AppData\\Local\\FSeg"
    require_short(Path(root), "win32")
    require_short(Path("x" * 300), "linux")
    with pytest.raises(InputError, match=r"21 characters too long for Windows; choose a shorter one, such as C:\\FSeg"):
        require_short(Path("x" * 90), "win32")
    assert packages_root().name == "FSeg" and python_tag().startswith(f"cp3{sys.version_info.minor}")
    assert issubclass(PackageError, FoundationSegError)


def test_nothing_else_that_is_installed_is_on_the_search_path():
    path = ["/library", "/usr/lib/python3.12", "/usr/lib/python3.12/site-packages", "/usr/lib/python3/dist-packages"]
    user = str(Path.home() / ".local/lib/python3.12/site-packages")
    assert search_path(Path("/f/cp312-x86_64"), [*path, user]) == ["/library", "/f/cp312-x86_64", path[1]]
    assert search_path(Path("/f"), []) == ["/f"]
