"""The set-up: what a machine lacks is named, and it happens once, also where its first run was interrupted."""

import ctypes
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.installation.packages import requirement_name

ROOT = Path(__file__).resolve().parents[2]
FILES = (
    "Testing/run.py",
    "Testing/requirements.txt",
    "Resources/requirements.txt",
    "Resources/requirements-optional.txt",
)


@pytest.fixture
def run(tmp_path):
    """The script in a project of its own, which has no environment yet."""
    for name in FILES:
        path = tmp_path / "a project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, path)
    spec = importlib.util.spec_from_file_location("run_of_a_project", tmp_path / "a project/Testing/run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def environments(run, monkeypatch):
    """The options of each environment that is made; nothing is in it but this Python."""
    made = []

    def create(path, **options):
        made.append(options)
        (path / "bin").mkdir(parents=True, exist_ok=True)
        (path / "bin" / "python").symlink_to(sys.executable)

    monkeypatch.setattr(run.venv, "create", create)
    return made


@pytest.fixture
def commands(monkeypatch):
    """The commands that would be run, and what ``answer`` says to each; pip is there from the first ensurepip on."""

    def answer(command):
        is_there = any("ensurepip" in earlier for earlier in noted.seen)
        return SimpleNamespace(returncode=int(command[2:4] == ["pip", "--version"] and not is_there), stdout="")

    def note(command, **options):
        noted.seen.append(list(map(str, command)))
        return noted.answer(noted.seen[-1])

    noted = SimpleNamespace(seen=[], answer=answer)
    monkeypatch.setattr(subprocess, "run", note)
    return noted


@pytest.fixture
def programs(monkeypatch):
    """The arguments of each program that would be started; all end well."""
    seen = []

    def start(command, **options):
        seen.append(tuple(map(str, command[1:])))
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(subprocess, "Popen", start)
    return seen


@pytest.mark.parametrize(
    ("version", "will_do"),
    [((3, 9, 6), False), ((3, 10, 13), False), ((3, 14, 0), False), ((3, 11, 0), True), ((3, 13, 9), True)],
)
def test_some_pythons_will_do_and_others_are_refused(run, monkeypatch, version, will_do):
    monkeypatch.setattr(sys, "version_info", version)
    is_refused = (run.check_machine() or "").startswith("run.py: Python 3.11 to 3.13 is needed; this is ")
    assert is_refused is not will_do


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is looked for")
def test_what_is_missing_is_named_with_the_line_that_installs_it(run, monkeypatch):
    def fail(*_):
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", fail)
    assert "apt-get install -y libegl1 libgl1-mesa-dri" in run.check_machine()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "apt-get install -y python3-venv" in run.check_machine()


def test_the_set_up_happens_once(run, commands, environments):
    for _ in range(2):
        run.set_up()
    assert environments == [{"with_pip": True}]
    assert [command[2:4] for command in commands.seen] == [["pip", "install"]]


def test_a_set_up_that_was_interrupted_is_taken_up(run, commands, environments):
    run.venv.create(run.VENV)
    assert not run.has_pip()
    run.set_up()
    assert len(environments) == 1
    steps = ["pip --version", "pip --version", "ensurepip --upgrade", "pip install"]
    assert [" ".join(command[2:4]) for command in commands.seen] == steps
    assert run.has_pip()


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_the_launcher_works_from_any_folder(run, commands, environments, tmp_path, monkeypatch):
    """An environment of a set-up that wrote none gets it, too."""
    shutil.copytree(ROOT / "FoundationSegLib", run.ROOT / "FoundationSegLib")
    run.set_up()
    run.LAUNCHER.unlink()
    run.set_up()
    monkeypatch.undo()
    version = subprocess.run(
        (run.LAUNCHER, "--version"), cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert version.startswith("FoundationSeg ")


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch's ordinary build is large on Linux alone")
@pytest.mark.parametrize("is_reachable", [True, False])
def test_a_machine_without_a_graphics_card_takes_the_small_build_or_says_why_not(
    run, commands, environments, programs, capsys, is_reachable
):
    def answer(command):
        if run.PYTORCH_CPU in command and not is_reachable:
            raise subprocess.CalledProcessError(1, command)

    commands.answer = answer
    assert run.main(["bench", "--cpu", "session"]) == 0
    torch, everything = commands.seen
    assert run.PYTORCH_CPU in torch and torch[-2:] == ["torch!=2.9.*", "torchvision"]
    assert run.PYTORCH_CPU not in everything and str(run.REQUIREMENTS[0]) in everything
    assert programs[0][-2:] == ("Testing.benchmarks", "session")
    told = capsys.readouterr().err
    assert "about 3 GB" in told and ("it cannot be had: the ordinary build" in told) is not is_reachable
    assert [line[:3] for line in told.splitlines() if line[1:2] == "/"] == ["1/3", "2/3", "3/3"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_pip_shows_packages_and_sizes_on_a_terminal_and_is_quiet_in_logs(
    run, commands, environments, monkeypatch, is_terminal
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    run.set_up()
    assert [("--quiet" in command) for command in commands.seen] == [not is_terminal]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_crash_is_told_with_its_signal(run, environments, capsys):
    run.venv.create(run.VENV)
    assert run.run("-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)") == 128 + 11
    assert "was ended by signal 11 (Segmentation fault)" in capsys.readouterr().err
    assert run.run("-c", "raise SystemExit(3)") == 3


def test_the_demos_files_are_named_from_where_the_user_is(run, commands, environments, programs, monkeypatch, tmp_path):
    (tmp_path / "ct.nrrd").touch()
    monkeypatch.chdir(tmp_path)
    assert run.main(["demo", "--volume", "ct.nrrd"]) == 0
    assert programs == [("-m", "Testing.demo", "--volume", str(tmp_path / "ct.nrrd"))]


def test_the_full_run_adds_the_packages_of_single_models_and_holds_what_is_there(run, commands, environments, programs):
    listed = "torch==2.14.1\n-e git+x#egg=y\nnumpy==2.4.6\n"
    commands.answer = lambda command: SimpleNamespace(returncode=0, stdout=listed)
    for arguments in (["test"], ["test", "--full"], ["test", "--full", "-k", "x"]):
        assert run.main(arguments) == 0
    assert [program[:2] for program in programs] == [("-m", "pytest")] * 3
    base, freeze, optional = commands.seen
    assert base[2:4] == ["pip", "install"] and str(run.OPTIONAL) not in base
    assert freeze[-1] == "freeze"
    constraints = run.VENV / "foundationseg-constraints.txt"
    assert optional[-4:] == ["-r", str(run.OPTIONAL), "-c", str(constraints)]
    assert constraints.read_text() == "torch==2.14.1\nnumpy==2.4.6\n"


def test_every_package_of_a_card_is_in_a_requirements_file(run):
    """So that the full run has what every model needs; with the card's own range where it is optional."""
    optional = run.OPTIONAL.read_text().split("\n")
    base = {requirement_name(line) for line in run.REQUIREMENTS[0].read_text().split("\n") if line[:1].isalpha()}
    base |= {"safetensors", "pillow"}  # transformers and torchvision bring them
    asked = {package for card in read_catalogue().values() for package in card.packages}
    of_commands = {"dicomweb-client", "distributed", "highdicom", "keyring", "mcp", "pandas", "peft", "pyarrow"}
    listed = {line.partition("  #")[0] for line in optional if line[:1].isalpha()}
    assert {package for package in asked if requirement_name(package) not in base} == {
        line for line in listed if requirement_name(line) not in of_commands
    }
