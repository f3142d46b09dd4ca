import shlex
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.errors import Cancelled, PackageError, PackageMissingError
from FoundationSegLib.installation.packages import (
    PackagePlan,
    PipTool,
    PlannedPackage,
    canonical,
    file_bytes,
    has_all_files,
    install_packages,
    is_satisfied,
    missing_packages,
    noted_installation,
    pip_command,
    plan_packages,
    repair_installation,
    requirement_name,
    requirements_of,
    shipped_requirements,
    unusable_package,
)
from FoundationSegLib.progress import CancelToken, Progress

INSTALLED = {"torch": "2.13.0+cpu", "numpy": "2.4.6", "SimpleITK": "2.5.3", "timm": "1.0.17"}


def version_of(name):
    return INSTALLED.get(name, "")


def entry(name, version, url="https://example.org/x.whl"):
    return {"metadata": {"name": name, "version": version}, "download_info": {"url": url}}


class Recorded:
    """A tool that says what it is told to, and remembers what it is asked."""

    def __init__(self, *entries):
        self.document, self.asked, self.installed = {"install": list(entries)}, [], []

    def report(self, requirements, constraints, progress):
        self.asked.append((tuple(requirements), tuple(constraints)))
        return self.document

    def install(self, requirements, constraints, progress):
        self.installed.append((tuple(requirements), tuple(constraints)))


def plan(tool, *requirements):
    return plan_packages(requirements, tool, Progress(), version_of, lambda url: 5_000_000)


def test_what_is_typed_by_hand_keeps_its_version_ranges():
    command = pip_command(("transformers>=4.57,<6", "torch>=2.4,!=2.9.*", "timm"))
    assert shlex.split(command) == ["pip", "install", "transformers>=4.57,<6", "torch>=2.4,!=2.9.*", "timm"]
    assert '"transformers>=4.57,<6"' in command, "Windows knows no other quotes"


def test_what_is_installed_is_held_and_the_plan_says_what_comes():
    tool = Recorded(entry("open_clip_torch", "3.3.0"), entry("timm", "1.0.22"))
    made = plan(tool, "open_clip_torch>=3.0", "timm")
    constraints = ("torch==2.13.0+cpu", "numpy==2.4.6", "SimpleITK==2.5.3")
    assert tool.asked == [(("open_clip_torch>=3.0", "timm"), constraints)]
    assert [(p.name, p.version, p.installed, p.bytes) for p in made.packages] == [
        ("open_clip_torch", "3.3.0", "", 5_000_000),
        ("timm", "1.0.22", "1.0.17", 5_000_000),
    ]
    assert made.harms == ()
    install_packages(made, tool, Progress())
    assert tool.installed == [(("open_clip_torch>=3.0", "timm"), constraints)]


@pytest.mark.parametrize("name", ["torch", "numpy", "SimpleITK", "simpleitk"])
def test_a_plan_that_would_replace_what_has_to_stay_is_refused(name):
    INSTALLED["simpleitk"] = "2.5.3"
    tool = Recorded(entry(name, "9.9"), entry("voxtell", "0.1.2"))
    made = plan(tool, "voxtell")
    assert [package.name for package in made.harms] == [name]
    with pytest.raises(PackageError, match=f"would replace what is installed \\({name} .* -> 9.9"):
        install_packages(made, tool, Progress())
    assert tool.installed == []


def test_nothing_to_do_asks_nobody():
    tool = Recorded()
    install_packages(plan(tool, "timm"), tool, Progress())
    assert tool.installed == []


@pytest.mark.parametrize(
    "document", [None, [], {}, {"install": [3]}, {"install": None}, {"install": [{"metadata": {}}]}]
)
def test_a_report_that_makes_no_sense(document):
    tool = Recorded()
    tool.document = document
    with pytest.raises(PackageError, match="update pip"):
        plan(tool, "timm")


@pytest.mark.parametrize("requirement", ["--index-url=http://evil", "-r file", "", " ", "../here"])
def test_an_option_in_a_card_is_no_package(requirement):
    tool = Recorded()
    with pytest.raises(PackageError, match="names no package"):
        plan(tool, requirement)
    assert tool.asked == []


def wheel(folder, name, version, requires=()):
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def local_index(tmp_path, monkeypatch):
    """pip finds packages in a folder alone."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return tmp_path


def test_the_real_pip_finds_no_way_around_what_has_to_stay(local_index):
    wheel(local_index, "foundationseg_sample", "1.0", ["numpy<0.1"])
    wheel(local_index, "numpy", "0.0.1")
    with pytest.raises(PackageError, match="cannot be installed"):
        plan_packages(("foundationseg_sample",), PipTool(), Progress())


def test_pip_can_be_stopped():
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        PipTool().report(("x",), (), Progress(token=token))


@pytest.mark.skipif(sys.platform == "win32", reason="the Python of this test is a script")
def test_a_pip_with_a_folder_and_an_index_of_its_own(tmp_path, monkeypatch):
    """An environment without pip, as uv makes it; what the user has configured holds, but not where to install."""
    program, log = tmp_path / "python", tmp_path / "log"
    program.write_text(
        f"""#!/bin/sh
if [ "$1" = -m ]; then echo "No module named pip"; exit 1; fi
echo "$*|$PIP_INDEX_URL|$PIP_EXTRA_INDEX_URL|$PIP_TARGET|$TMPDIR" >>{log}
"""
    )
    program.chmod(0o755)
    without = tmp_path / "without"
    without.write_text("#!/bin/sh\necho No module named pip; exit 1\n")
    without.chmod(0o755)
    with pytest.raises(PackageError, match="this Python has no pip"):
        PipTool(str(without)).install(("x",), (), Progress())
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    PipTool(str(program)).install(("x",), (), Progress())
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://mine")
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    private = PipTool(str(program), (), tmp_path, "https://torch/cpu")
    private.install(("x",), (), Progress())
    replace(private, is_alone=True).install(("x",), (), Progress())
    usual, private, alone = (line.split("|") for line in log.read_text().splitlines())
    assert ".whl/pip install" in usual[0] and "_bundled" in usual[0] and usual[3] == "/elsewhere"
    assert "--extra-index-url https://torch/cpu" in private[0] and private[1:] == [
        "",
        "https://mine",
        "",
        str(tmp_path),
    ]
    assert "--extra-index-url" not in alone[0] and alone[1:3] == ["https://torch/cpu"] * 2


def test_sizes_of_files_that_nobody_serves():
    assert file_bytes("file:///etc/passwd") == 0
    assert file_bytes("http://127.0.0.1:1/x.whl") == 0


def test_the_packages_of_all_models_come_on_top_of_what_is_there(full, tmp_path, bar):
    """All at once, as after trying every model: torch, torchvision and numpy stay as they are."""
    if not full:
        pytest.skip("the package index is asked in the full run only")
    small = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(tmp_path), "yacs")
    if subprocess.run(small, capture_output=True).returncode:
        pytest.skip("the package index cannot be reached")
    wanted = tuple(dict.fromkeys(text for card in read_catalogue().values() for text in card.packages))
    assert {requirement_name(text) for text in wanted} >= {"nnInteractive", "voxtell", "monai", "transformers"}
    made = plan_packages(wanted, PipTool(), Progress(), size_of=lambda url: 0)
    coming = {canonical(package.name) for package in made.packages}
    bar("packages that all models bring", len(coming), "torch, torchvision and numpy untouched")
    assert made.harms == ()
    assert not coming & {"torch", "torchvision", "numpy"}
    assert {line.partition("==")[0] for line in made.constraints} >= {"torch", "torchvision", "numpy"}
    with pytest.raises(PackageError):  # another torch is none that goes with what is there
        plan_packages((*wanted, "torch<2.5"), PipTool(), Progress(), size_of=lambda url: 0)


def test_what_cannot_be_imported_is_absent_too_old_or_broken():
    absent = unusable_package("M", ModuleNotFoundError("No module named 'x.y'", name="x.y"), ["numpy", "x>=2"])
    assert isinstance(absent, PackageMissingError)
    assert str(absent) == 'M needs the Python package x.y; install it with: pip install "x>=2"'
    old = unusable_package("M", ImportError("cannot import name 'new'", name="numpy"), ["numpy>=999"])
    assert isinstance(old, PackageMissingError) and str(old).endswith('pip install "numpy>=999"')
    broken = unusable_package("M", ImportError("libx.so: cannot open", name="numpy"), ["numpy"])
    assert not isinstance(broken, PackageMissingError)
    assert str(broken) == "M cannot use the Python package numpy (libx.so: cannot open); install it again"


def test_what_is_broken_is_installed_again_and_nothing_else(tmp_path):
    note, asked = tmp_path / "notes" / "note.json", []
    packages = (
        PlannedPackage("NumPy", "9", "2", 0),
        PlannedPackage("gone", "3", "2", 0),
        PlannedPackage("new", "1", "", 0),
    )
    planned = PackagePlan((), (), packages)

    def repair(reinstall=lambda broken, progress: asked.append(broken)):
        return repair_installation(note, reinstall, Progress())

    def fail(*_):
        raise PackageError("no network")

    assert repair() == ()
    with pytest.raises(Cancelled), noted_installation(note, planned):
        raise Cancelled
    with pytest.raises(PackageError):
        repair(fail)
    assert repair() == ("gone==3",)
    assert asked == [("gone==3",)] and repair() == (), "it is repaired once"
    with pytest.raises(PackageError), noted_installation(note, planned):
        raise PackageError("pip was killed")
    assert repair() == ("gone==3",) and not note.exists()
    with noted_installation(note, planned):
        pass
    assert not note.exists()
    note.write_text("[half")
    assert repair() == () and not note.exists()


def test_a_package_is_whole_with_all_its_files(tmp_path, monkeypatch):
    info = tmp_path / "sample-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sample\nVersion: 1\n")
    (info / "RECORD").write_text("sample.py,,\n__pycache__/sample.pyc,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not has_all_files("sample")
    (tmp_path / "sample.py").touch()
    assert has_all_files("sample")
    assert not has_all_files("no-such-package")


@pytest.mark.parametrize(
    ("requirement", "version", "expected"),
    [
        ("torch>=2.4,!=2.9.*", "2.8.0+cu128", True),
        ("torch>=2.4,!=2.9.*", "2.9.1+cpu", False),
        ("torch>=2.4,!=2.9.*", "2.2.2", False),
        ("transformers>=4.57,<6", "5.23.0", True),
        ("transformers>=4.57,<6", "6.0.0", False),
        ("pillow", "0.1", True),
        ("pillow", "", False),
        ("pillow>=10", "unknown", False),
        ("light[extra]>=1.0", "1.2rc1", True),
    ],
)
def test_what_cards_ask_for(requirement, version, expected):
    assert is_satisfied(requirement, version) is expected


def test_pips_copy_of_packaging_will_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    is_satisfied.cache_clear()
    assert is_satisfied("torch>=2.4,!=2.9.*", "2.8.0+cu128") and not is_satisfied("torch>=2.4", "2.2.2")


def test_what_is_missing_is_told_by_its_whole_requirement():
    versions = {"torch": "2.2.2", "timm": "1.0.17"}
    asked = ("torch>=2.4", "timm>=1.0.17,<1.0.23", "scipy>=1.10")
    assert missing_packages(asked, lambda name: versions.get(name, "")) == ["torch>=2.4", "scipy>=1.10"]


def test_a_download_from_the_hub_needs_its_client_and_a_wheel_does_not():
    catalogue = read_catalogue()
    hub, wheel = catalogue["sam2.1-hiera-tiny"], catalogue["lite-medsam"]
    client = next(line for line in shipped_requirements() if line.startswith("huggingface_hub"))
    numpy = next(line for line in shipped_requirements() if line.startswith("numpy"))
    assert requirements_of(hub, to_download=True) == (*hub.packages, numpy, client)
    assert requirements_of(hub, to_download=False) == (*hub.packages, numpy)
    assert requirements_of(wheel, to_download=True) == (*wheel.packages, numpy)
