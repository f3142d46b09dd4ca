import subprocess
import sys
import time

import pytest

from FoundationSegLib import folders as locks
from FoundationSegLib.errors import Cancelled
from FoundationSegLib.folders import Locked, locked
from FoundationSegLib.progress import Progress
from Testing.unit.hub.hub_cases import cancel_in

HOLD = """
import sys, time
from pathlib import Path
from FoundationSegLib.folders import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(path, seconds):
    child = subprocess.Popen((sys.executable, "-c", HOLD, str(path), str(seconds)), stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def test_a_free_lock_is_taken_at_once_and_leaves_nothing(tmp_path):
    with locked(tmp_path / "x.lock") as has_waited:
        assert not has_waited
        assert (tmp_path / "x.lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_holds_is_waited_for_or_told(tmp_path):
    path = tmp_path / "x.lock"
    child = hold(path, 0.4)
    with pytest.raises(Locked), locked(path):
        pass
    with pytest.raises(Cancelled), locked(path, cancel_in(0.1)):
        pass
    with locked(path, Progress()) as has_waited:
        assert has_waited
    assert child.wait(5) == 0
    child.stdout.close()
    assert not path.exists()


def test_the_lock_of_a_dead_process_holds_nobody_up(tmp_path):
    path = tmp_path / "x.lock"
    child = hold(path, 60)
    child.kill()
    child.communicate()
    assert path.exists(), "it could not tidy up"
    begin = time.monotonic()
    with locked(path, Progress()):
        assert time.monotonic() - begin < 1
    assert not path.exists()


def test_a_file_system_without_locks_stops_nobody(tmp_path, monkeypatch):
    import errno
    import fcntl

    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "x.lock"), locked(tmp_path / "x.lock"):
        pass


def test_an_error_leaves_no_open_file(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError("odd")

    monkeypatch.setattr(locks, "_try_lock", fail)
    with pytest.raises(OSError, match="odd"), locked(tmp_path / "x.lock"):
        pass
