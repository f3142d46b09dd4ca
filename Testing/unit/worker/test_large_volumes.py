"""What a large volume costs on the side of Slicer: its own bytes, and not many times as much."""

import subprocess
import sys

import pytest

from Testing.conftest import ROOT

SCRIPT = """
import contextlib, sys
import numpy as np
from FoundationSegLib.imaging.geometry import geometry_from_spacing
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.worker.client import ask
from FoundationSegLib.worker.process_client import ProcessClient
from FoundationSegLib.requests.maintenance import WorkerSettings
from Testing.unit.worker.conftest import scripted
from Testing.unit.worker.fake_worker import COMMAND

def most():  # of this program alone: what rusage tells begins with the most of the one that started it
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

before, shape = most(), (int(sys.argv[1]), 512, 512)
array = np.zeros(shape, np.int16)
array[::2], array[:, 200:300, 200:300] = 1, -3
volume = Volume(array, geometry_from_spacing(shape))
with contextlib.closing(ProcessClient(WorkerSettings("cpu"), COMMAND)) as client:
    client.send_volume(volume)
    found = ask(client, scripted(volume)).segments[0].mask
assert found.voxels == int((array > 0).sum())
print((most() - before) / array.nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells the most memory that a program had")
def test_a_volume_is_held_once_on_slicers_side(full, bar):
    """Sent to a worker and a mask of nearly half of it received; 512 x 512 x 1000 in the full run."""
    slices = 1000 if full else 100
    command = (sys.executable, "-c", SCRIPT, str(slices))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    share = float(done.stdout)
    bar(f"memory on Slicer's side for 512x512x{slices}, times its bytes", share, "<= 2")
    assert 1 <= share <= 2
