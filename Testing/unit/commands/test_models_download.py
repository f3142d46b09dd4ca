"""`models download` in a process of its own, with the worker that it has in earnest, against a Hub on loopback."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from FoundationSegLib.catalog.catalogue import CARDS_VARIABLE, read_catalogue
from FoundationSegLib.commands.cli import main
from FoundationSegLib.hub.store import STORE_VARIABLE, Store
from Testing.unit.hub.hub_cases import REPOSITORY, card_text, content_of, partial_bytes, strays, tell_processes
from Testing.unit.hub.loopback_hub import run_hub
from Testing.unit.worker.conftest import has_ended, until

ROOT = Path(__file__).resolve().parents[3]
FILES = {"weights/model.safetensors": random.Random(5).randbytes(3_000_000), "config.json": b'{"layers": 2}'}
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals between processes")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "far.toml").write_text(card_text(files=FILES))
    monkeypatch.setenv(CARDS_VARIABLE, str(tmp_path / "cards"))
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "store"))
    with run_hub() as hub:
        hub.add(REPOSITORY, FILES)
        tell_processes(monkeypatch, hub, tmp_path / "hf")
        yield hub


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def start(*options, stderr=subprocess.PIPE):
    command = (sys.executable, "-m", "FoundationSegLib", "models", "download", "far", *options)
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True)


def end(program):
    """Exit code, and what was told."""
    out, err = program.communicate(timeout=60)
    assert out == ""
    return program.returncode, err.splitlines()


def download():
    return end(start())


def begun(hub):
    """A program whose worker is in the middle of the download, and the number of that worker."""
    hub.slow_s = 0.02
    program = start()
    until(lambda: program.poll() is not None or hub.sent > 300_000)
    (worker,) = children(program.pid)
    return program, worker


def children(pid):
    own = f"\nPPid:\t{pid}\n"
    return [int(place.parent.name) for place in Path("/proc").glob("[0-9]*/status") if own in read(place)]


def read(place):
    with contextlib.suppress(OSError):
        return place.read_text()
    return ""


def card():
    return read_catalogue()["far"]


def last_range(hub):
    return [range_ for _, _, range_, _ in hub.asked("/lfs/")][-1]


READY = "Fake Model is ready"
ANNOUNCED = "Downloading Fake Model (3 MB, MIT) from org/model main on the Hugging Face Hub"


def test_a_download_is_announced_and_done(hub, store):
    assert download() == (0, [ANNOUNCED, READY])
    assert content_of(store, card()) == FILES
    assert strays(store, card()) == []
    assert download() == (0, [READY])


@on_linux
def test_ctrl_c_keeps_what_has_come(hub, store, bar):
    """Exit code 130, one line, no worker left, and half a file that the next download goes on from."""
    program, worker = begun(hub)
    begin = time.perf_counter()
    program.send_signal(signal.SIGINT)
    code, told = end(program)
    bar("Ctrl-C ends a download, s", time.perf_counter() - begin, "<= 3")
    wanted = (
        "foundationseg: interrupted; what has come is kept, and 'foundationseg models download far' goes on from there"
    )
    assert (code, told) == (130, [ANNOUNCED, wanted])
    assert has_ended(worker)
    kept = partial_bytes(store, card())
    assert kept > 0
    hub.slow_s = 0
    assert download()[0] == 0
    assert last_range(hub) == f"bytes={kept}-"
    assert content_of(store, card()) == FILES


@on_linux
def test_a_program_that_is_killed_leaves_no_worker_and_half_a_file(hub, store):
    program, worker = begun(hub)
    begin = time.perf_counter()
    program.kill()
    program.communicate()
    until(lambda: has_ended(worker))
    assert time.perf_counter() - begin < 60
    assert partial_bytes(store, card()) > 0
    hub.slow_s = 0
    assert download() == (0, [ANNOUNCED, READY])
    assert content_of(store, card()) == FILES


@on_posix
def test_a_terminal_sees_how_far_it_is(hub, store):
    hub.slow_s = 0.02
    ours, theirs = os.openpty()
    program = start(stderr=theirs)
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # Linux ends a terminal that nobody writes to any more with an error
        while part := os.read(ours, 10_000):
            seen += part
    os.close(ours)
    program.communicate()
    assert program.returncode == 0
    counted = [line.strip() for line in seen.decode().split("\r") if line.startswith("Downloading ") and "/" in line]
    assert "Downloading 1/3 MB (model.safetensors)" in counted
    assert seen.decode().rstrip().endswith(READY)


@pytest.mark.parametrize(
    ("model", "fetch", "file"),
    [
        ("slimsam-77", "~39 MB in all", "model.safetensors (~39 MB)"),
        ("voxtell", "of unknown size", "checkpoint_final.pth (unknown size)"),
        ("sam-vit-base", "375 MB of 375 MB", "model.safetensors (375 MB)"),
    ],
)
def test_a_plan_without_the_hub_tells_what_the_card_estimates(monkeypatch, tmp_path, capsys, model, fetch, file):
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["models", "plan", model]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("  fetch")).startswith(f"  fetch    {fetch}; ")
    assert any(line.startswith("  file") and line.endswith(file) for line in lines)
