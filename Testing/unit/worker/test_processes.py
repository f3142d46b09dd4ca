import os
import subprocess
import sys
from pathlib import Path

import pytest

from FoundationSegLib.worker.processes import environment, kill_tree, spawn, wants_offline
from Testing.unit.worker.conftest import has_ended, until

ROOT = Path(__file__).resolve().parents[3]


def test_a_process_finds_the_library_reports_nothing_and_looks_nothing_up():
    told = environment({"PATH": "/bin", "PYTHONPATH": "/own"})
    assert told["PYTHONPATH"] == os.pathsep.join((str(ROOT), "/own"))
    assert told["PATH"] == "/bin"
    assert told["HF_HUB_OFFLINE"] == told["TRANSFORMERS_OFFLINE"] == told["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert told["FOUNDATIONSEG_ALLOW_DOWNLOAD"] == "1"


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_the_users_own_offline_mode_is_kept(name, monkeypatch):
    assert environment({name: "1"})["FOUNDATIONSEG_ALLOW_DOWNLOAD"] == "0"
    assert not wants_offline({name: "0"})
    monkeypatch.setenv(name, "yes")
    assert wants_offline()
    assert environment()["FOUNDATIONSEG_ALLOW_DOWNLOAD"] == "0"


def test_what_the_process_that_starts_it_has_is_not_inherited_unless_it_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONHOME_OF_SLICER", "x")
    assert "PYTHONHOME_OF_SLICER" in environment()
    assert "PYTHONHOME_OF_SLICER" not in environment({})


def test_a_process_is_killed_with_its_children(tmp_path):
    code = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    code += "\nprint(p.pid, flush=True)\ntime.sleep(60)"
    path = tmp_path / "output"
    with path.open("wb") as output:
        process = spawn((sys.executable, "-c", code), output, output)
    until(lambda: path.read_text().strip())
    child = int(path.read_text())
    kill_tree(process)
    process.wait(5)
    until(lambda: has_ended(child))
    assert isinstance(process, subprocess.Popen)
    process.stdin.close()
