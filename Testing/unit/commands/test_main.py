"""The program in a process of its own: exit codes, what is printed, Ctrl-C, and no network."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from Testing.unit.commands.conftest import START
from Testing.unit.fakes import fill_store
from Testing.unit.reader_model import READER_TOML
from Testing.unit.worker.conftest import has_ended

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals between processes")
ROOT = Path(__file__).parents[3]


def program(*arguments, module="FoundationSegLib", **variables):
    environment = os.environ | {"PYTHONWARNINGS": "default"} | variables
    command = (sys.executable, "-m", module, *map(str, arguments))
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def fake_program(desk, *arguments, marker=""):
    return program("program", desk.cards, marker, *arguments, module="Testing.unit.commands.fake_program")


def finish(desk, process):
    """Take what a program printed for what the desk printed; its exit code."""
    desk.out, desk.err = process.communicate(timeout=60)
    desk.code = process.returncode
    return desk.code


def test_the_program_refuses_with_one_line(desk):
    finish(desk, program("segment", "--model"))
    desk.assert_refused(2, "--model")
    finish(desk, program(*desk.arguments(model="nothing")))
    desk.assert_refused(2, "no model is called 'nothing'")
    finish(desk, program(*desk.arguments(model="lite-medsam", image=desk.folder / "none.nii.gz")))
    desk.assert_refused(2, "none.nii.gz does not exist")


@on_posix
def test_names_beyond_ascii_are_read_whatever_the_locale(desk):
    image = desk.image.rename(desk.folder / "Schädel.nrrd")
    arguments = desk.arguments(model="lite-medsam", image=image, output=desk.folder / "Schädel.seg.nrrd")
    finish(desk, program(*arguments, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"))
    desk.assert_refused(3, "lite-medsam is not downloaded", files={"Schädel.nrrd", "prompts.json"})


@pytest.mark.parametrize("package", ["numpy", "SimpleITK"])
def test_a_python_without_the_packages_is_told_which_one_to_use(desk, tmp_path, monkeypatch, package):
    """Be it missed at the start, or when an image is read."""
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(f"raise ModuleNotFoundError('none', name={package!r})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finish(desk, program(*desk.arguments(model="lite-medsam", download=True)))
    assert (desk.code, desk.out, len(desk.err.splitlines())) == (3, "", 1), desk.err
    for words in (f"lacks the package {package}", sys.executable, str(ROOT), ".venv"):
        assert words in desk.err


def test_the_program_lists_models_without_the_network(desk):
    assert finish(desk, fake_program(desk, "models", "list", "--json")) == 0
    assert [line["id"] for line in json.loads(desk.out)] == ["fake"]
    assert desk.err == ""


def test_the_program_segments_without_the_network(desk):
    arguments = desk.arguments(report=desk.folder / "report.json")
    assert finish(desk, fake_program(desk, *arguments)) == 0, desk.err
    assert desk.out == ""
    assert desk.err.splitlines() == ["Left: 0.13 ml", "Right: 0.08 ml"]
    assert desk.files() == {*START, "report.json", "result.seg.nrrd"}


def stuck_program(desk, *arguments):
    """A program whose worker is in the middle of its first answer, and the number of that worker."""
    marker = desk.folder.parent / "decoding"
    process = fake_program(desk, *arguments, marker=marker)
    while not (marker.exists() and marker.read_text()) and process.poll() is None:
        time.sleep(0.02)
    return process, int(marker.read_text())


@on_posix
def test_ctrl_c_ends_the_program_and_writes_nothing(desk):
    process, worker = stuck_program(desk, *desk.arguments(report=desk.folder / "report.json"))
    process.send_signal(signal.SIGINT)
    finish(desk, process)
    desk.assert_refused(130, "interrupted; nothing was written")
    assert has_ended(worker)


@on_posix
@pytest.mark.parametrize("each", [False, True])
def test_ctrl_c_ends_a_classification_and_writes_nothing(desk, tmp_path, each):
    """Of a folder, too: half a table could be taken for a whole one."""
    (tmp_path / "cards" / "reader.toml").write_text(READER_TOML)
    folder = desk.folder / "images"
    folder.mkdir()
    fill_store(tmp_path / "store", desk.catalogue()["reader"])
    image = desk.image.rename(folder / "ct.nrrd")
    subject = (folder, "--each") if each else (image,)
    results = ("--csv", desk.folder / "scores.csv", "--report", desk.folder / "report.json")
    labels = ("--label", "bright", "--label", "dark")
    process, worker = stuck_program(desk, "classify", *subject, "--model", "reader", *labels, *results)
    process.send_signal(signal.SIGINT)
    finish(desk, process)
    desk.assert_refused(130, "interrupted; nothing was written", files={"prompts.json", "images/ct.nrrd"})
    assert has_ended(worker)
