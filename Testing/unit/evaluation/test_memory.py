import os
import subprocess
import sys

import pytest

from FoundationSegLib.evaluation import memory
from FoundationSegLib.evaluation.memory import peak_memory_mb

TAKE_100_MB = "import sys; taken = b'x' * 100_000_000; del taken; print(flush=True); sys.stdin.read()"
LAUNCH = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {TAKE_100_MB!r}]))"
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the peak of another process is known on Linux alone")


@pytest.mark.skipif(sys.platform == "win32", reason="not known on Windows")
def test_the_peak_of_this_process():
    taken = b"x" * 50_000_000
    assert peak_memory_mb() >= len(taken) / 1e6
    assert peak_memory_mb() == peak_memory_mb(os.getpid())


@linux_only
@pytest.mark.parametrize("code", [TAKE_100_MB, LAUNCH], ids=["direct", "through a launcher"])
def test_the_peak_of_another_process_stays_after_it_was_freed(code):
    command = (sys.executable, "-c", code)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert 100 < peak_memory_mb(process.pid) < 200
        process.stdin.close()
    assert peak_memory_mb(process.pid) is None, "it has ended"


def test_elsewhere_it_is_unknown(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "win32")
    assert peak_memory_mb() is None
    assert peak_memory_mb(1) is None
