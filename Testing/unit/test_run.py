"""The set-up: what a machine lacks is named, and it happens once, also where its first run was interrupted."""

import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import pytest

from Testing import run


@pytest.fixture
def venv_folder(tmp_path, monkeypatch):
    """An environment that is not there yet; making one is only noted."""
    folder, made = tmp_path / ".venv", []
    monkeypatch.setattr(run, "VENV", folder)
    monkeypatch.setattr(run, "PYTHON", folder / "bin" / "python")
    monkeypatch.setattr(run, "STAMP", folder / "stamp")

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


def test_the_demos_files_are_named_from_where_the_user_is(monkeypatch, tmp_path):
    calls = []
    (tmp_path / "ct.nrrd").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "check_machine", lambda: None)
    monkeypatch.setattr(run, "set_up", lambda: None)
    monkeypatch.setattr(run, "run", lambda *arguments: calls.append(arguments) or 0)
    assert run.main(["demo", "--volume", "ct.nrrd"]) == 0
    assert calls == [("-m", "Testing.demo", "--volume", str(tmp_path / "ct.nrrd"))]
