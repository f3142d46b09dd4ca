"""The set-up: what a machine lacks is named, and it happens once, also where its first run was interrupted."""

import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import pytest

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.installation.packages import requirement_name
from Testing import run


@pytest.fixture
def venv_folder(tmp_path, monkeypatch):
    """An environment that is not there yet; making one is only noted."""
    folder, made = tmp_path / ".venv", []
    monkeypatch.setattr(run, "VENV", folder)
    monkeypatch.setattr(run, "PYTHON", folder / "bin" / "python")
    monkeypatch.setattr(run, "STAMP", folder / "stamp")
    monkeypatch.setattr(run, "OPTIONAL_STAMP", folder / "optional-stamp")

    def create(path, **options):
        made.append(options)
        (path / "bin").mkdir(parents=True, exist_ok=True)
        (path / "bin" / "python").symlink_to(sys.executable)

    monkeypatch.setattr(run.venv, "create", create)
    return SimpleNamespace(folder=folder, made=made)


@pytest.mark.parametrize("version", [(3, 9, 6), (3, 10, 13), (3, 14, 0)])
def test_other_pythons_are_refused(monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    assert run.check_machine().startswith("run.py: Python 3.11 to 3.13 is needed; this is ")


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 13, 9)])
def test_these_pythons_will_do(monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(run, "can_be_loaded", lambda library: True)
    assert run.check_machine() is None


def test_what_is_missing_is_named_with_the_line_that_installs_it(monkeypatch, venv_folder):
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        assert "apt-get install -y python3-venv" in run.check_machine()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(run, "can_be_loaded", lambda library: False)
    assert "apt-get install -y libegl1 libgl1-mesa-dri" in run.check_machine()


@pytest.fixture
def commands(monkeypatch):
    """What would be run; pip is there from the first ensurepip on."""
    seen = []

    def note(command, **options):
        seen.append(" ".join(map(str, command[2:4])))
        return SimpleNamespace(returncode=int(seen[-1] == "pip --version" and "ensurepip --upgrade" not in seen))

    monkeypatch.setattr(subprocess, "run", note)
    return seen


def test_the_set_up_happens_once(commands, venv_folder):
    for _ in range(2):
        run.set_up()
    assert venv_folder.made == [{"with_pip": True}]
    assert commands == ["pip install"]


def test_a_set_up_that_was_interrupted_is_taken_up(commands, venv_folder):
    run.venv.create(venv_folder.folder)
    assert not run.has_pip()
    run.set_up()
    assert len(venv_folder.made) == 1
    assert commands == ["pip --version", "pip --version", "ensurepip --upgrade", "pip install"]
    assert run.has_pip()


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_the_launcher_works_from_any_folder(commands, venv_folder, tmp_path, monkeypatch):
    run.set_up()
    monkeypatch.undo()
    launcher = venv_folder.folder / "bin" / "foundationseg"
    version = subprocess.run((launcher, "--version"), cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert version.startswith("FoundationSeg ")


def test_the_demos_files_are_named_from_where_the_user_is(monkeypatch, tmp_path):
    calls = []
    (tmp_path / "ct.nrrd").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "check_machine", lambda: None)
    monkeypatch.setattr(run, "set_up", lambda: None)
    monkeypatch.setattr(run, "run", lambda *arguments: calls.append(arguments) or 0)
    assert run.main(["demo", "--volume", "ct.nrrd"]) == 0
    assert calls == [("-m", "Testing.demo", "--volume", str(tmp_path / "ct.nrrd"))]


def test_the_full_run_adds_the_packages_of_single_models_and_holds_what_is_there(monkeypatch, venv_folder):
    seen = []

    def note(command, **options):
        seen.append([str(part) for part in command[2:]])
        return SimpleNamespace(returncode=0, stdout="torch==2.14.1\n-e git+x#egg=y\nnumpy==2.4.6\n")

    monkeypatch.setattr(subprocess, "run", note)
    monkeypatch.setattr(run, "check_machine", lambda: None)
    monkeypatch.setattr(run, "run", lambda *arguments: 0)
    for arguments in (["test"], ["test", "--full"], ["test", "--full", "-k", "x"]):
        assert run.main(arguments) == 0
    base, freeze, optional = seen
    assert base[:2] == ["pip", "install"] and str(run.OPTIONAL) not in base
    assert freeze[-1] == "freeze"
    constraints = venv_folder.folder / "foundationseg-constraints.txt"
    assert optional[-4:] == ["-r", str(run.OPTIONAL), "-c", str(constraints)]
    assert constraints.read_text() == "torch==2.14.1\nnumpy==2.4.6\n"


def test_every_package_of_a_card_is_in_a_requirements_file():
    """So that the full run has what every model needs; with the card's own range where it is optional."""
    optional = run.OPTIONAL.read_text().split("\n")
    base = {requirement_name(line) for line in run.REQUIREMENTS[0].read_text().split("\n") if line[:1].isalpha()}
    base |= {"safetensors", "pillow"}  # transformers and torchvision bring them
    asked = {package for card in read_catalogue().values() for package in card.packages}
    assert {package for package in asked if requirement_name(package) not in base} == {
        line for line in optional if line[:1].isalpha()
    }
