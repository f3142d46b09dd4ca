"""What becomes of real processes: killed, orphaned, started and stopped many times, listened to."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from FoundationSegLib.worker.client import ask
from FoundationSegLib.worker.protocol import Answered, Failed
from Testing.unit.worker.conftest import events_until, has_ended, scripted, until
from Testing.unit.worker.fake_worker import positive_mask

ROOT = Path(__file__).resolve().parents[3]
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
MOST_S = 60  # that a process may take to end, on a machine that does much else; by itself it lives for 150


def names(place):
    return sorted(path.name for path in Path(place).iterdir())


def children():
    """The numbers of this process's children."""
    own, found = str(os.getpid()), []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = place.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if parent == own:
            found.append(place.parent.name)
    return found


@on_linux
def test_killed_at_random_moments_the_run_ends_in_the_same_mask(make_client, volume, full, bar):
    chance, same, times = random.Random(0), 0, 20 if full else 4
    for _ in range(times):
        client = make_client()
        timer = threading.Timer(chance.uniform(0.0, 0.5), lambda c=client: os.kill(c.worker_pid, signal.SIGKILL))
        client.send_volume(volume)
        timer.start()
        mask = ask(client, scripted(volume, "steps=20 pause=0.01")).segments[0].mask
        timer.join()
        same += np.array_equal(mask.expand((4, 6, 8)), positive_mask(volume))
        client.close()
    bar(f"killed at {times} random moments: the same mask", same, f"{times}")
    assert same == times


@on_linux
def test_many_kills_in_one_run_do_not_end_it(client, sent, full):
    """Some of them in the middle of its work, some as soon as it has started."""
    client.submit(scripted(sent, "steps=30 pause=0.01"))
    chance, events = random.Random(1), []
    for kill in range(12 if full else 4):
        until(lambda: events.extend(client.poll()) or (client._link is not None and client._link.is_connected))
        if kill % 2:
            time.sleep(chance.uniform(0, 0.2))
        os.kill(client.worker_pid, signal.SIGKILL)
        until(lambda pid=client.worker_pid: events.extend(client.poll()) or client.worker_pid != pid)
    events += events_until(client, Answered)
    assert not any(isinstance(event, Failed) for event in events)
    assert np.array_equal(events[-1].answer.segments[0].mask.expand((4, 6, 8)), positive_mask(sent))


@on_linux
def test_starts_and_stops_leave_nothing_behind(make_client, volume, full, tmp_path, monkeypatch, bar):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def traces():
        return *(names(place) for place in ("/proc/self/fd", tmp_path, "/dev/shm")), children()

    before, chance, times = traces(), random.Random(2), 100 if full else 6
    for n in range(times):
        client = make_client(stop_s=0.3)
        client.send_volume(volume)
        if n % 3 == 0:
            ask(client, scripted(volume))
        elif n % 3 == 1:
            client.submit(scripted(volume, "steps=1000"))
            time.sleep(chance.uniform(0, 0.2))
            client.poll()
        client.close()
    after = traces()
    bar(f"left behind by {times} starts and stops", sum(a != b for a, b in zip(before, after, strict=True)), "0")
    assert after == before


_PARENT = """
import os, sys, time
from Testing.unit.worker.conftest import *
import numpy as np
from FoundationSegLib.worker.protocol import Progressed
voxels = np.arange(24).reshape(2, 3, 4)
volume = Volume(voxels, geometry_from_spacing(voxels.shape))
client = ProcessClient(command=COMMAND)
client.send_volume(volume)
client.submit(scripted(volume, sys.argv[1]))
events_until(client, Progressed)
if sys.argv[2] == "fork" and os.fork() == 0:
    time.sleep(150)
print(client.worker_pid, flush=True)
time.sleep(60)
"""


@on_linux
@pytest.mark.parametrize(
    ("script", "fork"),
    [("steps=1 answer", "fork"), ("steps=100000", ""), ("steps=1 hang=150", ""), ("steps=1 hang=150", "fork")],
)
def test_the_worker_ends_with_its_parent(script, fork, bar):
    """A fork of the parent still holds the connection, so the worker has to find out in another way."""
    command = (sys.executable, "-c", _PARENT, script, fork)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, process_group=0) as parent:
        pid = int(parent.stdout.readline())
        assert not has_ended(pid)
        parent.kill()
        parent.wait()
        start = time.perf_counter()
        until(lambda: has_ended(pid))
        took_s = time.perf_counter() - start
        bar(f"the worker ends after its parent was killed ({script} {fork}), s", took_s, "<= 5")
        if fork:
            os.killpg(parent.pid, signal.SIGKILL)
    assert took_s < MOST_S


@on_linux
def test_what_a_worker_has_started_ends_with_it(client, volume, tmp_path):
    for n, end in enumerate((lambda pid: client.close(), lambda pid: os.kill(pid, signal.SIGKILL))):
        client.send_volume(volume)
        note = tmp_path / str(n)
        pid = ask(client, scripted(volume, f"spawn={note}")).counts["pid"]
        child = int(note.read_text())
        assert not has_ended(child)
        start = time.perf_counter()
        end(pid)
        client.poll()
        until(lambda child=child: client.poll() or has_ended(child))
        assert time.perf_counter() - start < MOST_S


def test_nothing_but_loopback_is_opened(make_client, volume, tmp_path, monkeypatch):
    """In the client and in the worker, which takes the trap from its path."""
    trap = tmp_path / "sitecustomize.py"
    trap.write_text(
        f"""
import sys
def trap(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"):
        place = arguments[0] if event == "socket.getaddrinfo" else arguments[1][0]
        with open({str(tmp_path / "seen")!r}, "a") as file:
            file.write(f"{{event}} {{place}}\\n")
sys.addaudithook(trap)
"""
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    client = make_client()
    client.send_volume(volume)
    ask(client, scripted(volume))
    seen = set((tmp_path / "seen").read_text().splitlines())
    assert seen and {line.split()[1] for line in seen} == {"127.0.0.1"}
