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
    folder, made = tmp_path / "a folder" / ".venv", []
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
    launcher = run.PYTHON.with_name("foundationseg")
    monkeypatch.undo()
    version = subprocess.run((launcher, "--version"), cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert version.startswith("FoundationSeg ")


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch's ordinary build is large on Linux alone")
@pytest.mark.parametrize("is_reachable", [True, False])
def test_a_machine_without_a_graphics_card_takes_the_small_build_or_says_why_not(
    venv_folder, monkeypatch, capsys, is_reachable
):
    seen = []

    def note(command, **options):
        seen.append([str(part) for part in command[4:]])
        if run.PYTORCH_CPU in command and not is_reachable:
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", note)
    monkeypatch.setattr(run, "check_machine", lambda: None)
    monkeypatch.setattr(run, "run", lambda *arguments: seen.append(arguments) or 0)
    assert run.main(["bench", "--cpu", "session"]) == 0
    torch, everything, benchmark = seen
    assert run.PYTORCH_CPU in torch and torch[-2:] == ["torch!=2.9.*", "torchvision"]
    assert run.PYTORCH_CPU not in everything and str(run.REQUIREMENTS[0]) in everything
    assert benchmark[-2:] == ("Testing.benchmarks", "session")
    told = capsys.readouterr().err
    assert "about 3 GB" in told and ("it cannot be had: the ordinary build" in told) is not is_reachable
    assert [line[:3] for line in told.splitlines() if line[1:2] == "/"] == ["1/3", "2/3", "3/3"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_pip_shows_packages_and_sizes_on_a_terminal_and_is_quiet_in_logs(
    commands, venv_folder, monkeypatch, is_terminal
):
    quiet = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: quiet.append("--quiet" in command))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    run.set_up()
    assert quiet == [not is_terminal]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_crash_is_told_with_its_signal(monkeypatch, capsys):
    monkeypatch.setattr(run, "PYTHON", sys.executable)
    assert run.run("-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)") == 128 + 11
    assert "was ended by signal 11 (Segmentation fault)" in capsys.readouterr().err
    assert run.run("-c", "raise SystemExit(3)") == 3


def test_the_demos_files_are_named_from_where_the_user_is(monkeypatch, tmp_path):
    calls = []
    (tmp_path / "ct.nrrd").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "check_machine", lambda: None)
    monkeypatch.setattr(run, "set_up", lambda **_: None)
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
