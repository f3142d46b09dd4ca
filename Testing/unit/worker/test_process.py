"""How a process starts, with which environment, who may call back to it, and how it ends."""

import os
import socket
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from FoundationSegLib.worker.client import ask
from FoundationSegLib.worker.process import environment, kill_tree, spawn, wants_offline, worker_command
from Testing.unit.worker.conftest import has_ended, scripted, until
from Testing.unit.worker.fake_worker import positive_mask

ROOT = Path(__file__).resolve().parents[3]


def test_a_process_finds_the_library_reports_nothing_and_looks_nothing_up(monkeypatch):
    variables = environment({"PATH": "/bin", "PYTHONPATH": "/own"})
    assert variables["PYTHONPATH"] == os.pathsep.join((str(ROOT), "/own"))
    assert variables["PATH"] == "/bin"
    assert Path(variables["TORCHINDUCTOR_CACHE_DIR"]).parent.name == "FoundationSeg", "not among the temporary files"
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "FOUNDATIONSEG_ALLOW_DOWNLOAD")
    assert {variables[name] for name in names} == {"1"}
    monkeypatch.setenv("PYTHONHOME_OF_SLICER", "x")
    assert "PYTHONHOME_OF_SLICER" in environment()
    assert "PYTHONHOME_OF_SLICER" not in environment({})


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_the_users_own_offline_mode_is_kept(name, monkeypatch):
    assert environment({name: "1"})["FOUNDATIONSEG_ALLOW_DOWNLOAD"] == "0"
    assert not wants_offline({name: "0"})
    monkeypatch.setenv(name, "yes")
    assert wants_offline()
    assert environment()["FOUNDATIONSEG_ALLOW_DOWNLOAD"] == "0"


def test_the_worker_runs_with_the_python_that_is_chosen(monkeypatch, tmp_path):
    assert worker_command()[0] == sys.executable
    assert worker_command(Path("PythonSlicer"))[0] == "PythonSlicer"
    monkeypatch.setattr(sys, "executable", "")
    (tmp_path / "PythonSlicer").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert worker_command()[0] == str(tmp_path / "PythonSlicer")
    (tmp_path / "PythonSlicer").unlink()
    assert worker_command()[0] == "PythonSlicer", "so that what cannot be started is named"


def test_a_process_is_killed_with_its_children(tmp_path):
    code = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    code += "\nprint(p.pid, flush=True)\ntime.sleep(60)"
    path = tmp_path / "output"
    with path.open("wb") as output:
        process = spawn((sys.executable, "-c", code), output)
    until(lambda: path.read_text().strip())
    child = int(path.read_text())
    kill_tree(process)
    process.wait(5)
    until(lambda: has_ended(child))
    process.stdin.close()


def port_of(client):
    return client._link._listener.getsockname()[1]


def test_a_stranger_who_calls_is_shown_out(client, volume):
    """Somebody else on this computer finds the port before the worker does."""
    client.prepare("fake")
    strangers = [socket.create_connection(("127.0.0.1", port_of(client))) for _ in range(3)]
    strangers[0].sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
    strangers[1].close()
    client.send_volume(volume)
    prediction = ask(client, scripted(volume))
    assert np.array_equal(prediction.segments[0].mask.expand((4, 6, 8)), positive_mask(volume))
    for stranger in (strangers[0], strangers[2]):
        stranger.settimeout(5)
        assert learned(stranger) == b""
        stranger.close()


def learned(stranger):
    try:
        return stranger.recv(1)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("hello", [b'{"secret":"\\ud800"}', b"[" * 4000, b'{"secret":null}', b"{}"])
def test_what_a_stranger_says_harms_nobody(client, volume, hello):
    client.prepare("fake")
    with socket.create_connection(("127.0.0.1", port_of(client))) as stranger:
        stranger.sendall(struct.pack("<4sIQ", b"FSW2", len(hello), 0) + hello)
        time.sleep(0.05)
        client.send_volume(volume)
        assert ask(client, scripted(volume)).segments[0].score == 0.5


def test_a_client_that_polls_late_still_finds_its_worker(make_client, volume):
    """A panel that was busy for longer than a worker is waited for, and a silent stranger who was there first."""
    client = make_client(start_s=1.0)
    client.send_volume(volume)
    client.submit(scripted(volume))
    pid = client.worker_pid
    with socket.create_connection(("127.0.0.1", port_of(client))):
        time.sleep(1.5)
        client.poll()
        assert client.worker_pid == pid
