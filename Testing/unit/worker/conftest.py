"""Clients of real worker processes with a scripted engine, and what a test asks of them."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from FoundationSegLib.imaging.geometry import geometry_from_spacing
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.prompts.kinds import SegmentPrompts, TextPrompt
from FoundationSegLib.requests.maintenance import WorkerSettings
from FoundationSegLib.requests.segmentation import PredictRequest
from FoundationSegLib.worker.process import RetryPolicy, Timeouts
from FoundationSegLib.worker.process_client import ProcessClient
from Testing.unit.worker.fake_worker import COMMAND


def scripted(volume: Volume, script: str = "answer", number: int = 1) -> PredictRequest:
    return PredictRequest(number, "fake", volume.key, (SegmentPrompts(script, (TextPrompt("liver"),)),))


def until(condition: Callable[[], object], timeout_s: float = 200.0) -> None:
    """Wait for a condition, and fail if it does not come."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody has waited for yet."""
    if sys.platform.startswith("linux"):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True
    if sys.platform == "win32":
        pytest.skip("there is no signal that only asks")
    try:
        os.kill(pid, 0)
    except OSError:
        return True
    return False


def events_until(client: ProcessClient, kind: type, timeout_s: float = 200.0) -> list[object]:
    """Everything up to the first event of a kind."""
    seen: list[object] = []
    end = time.monotonic() + timeout_s
    while not any(isinstance(event, kind) for event in seen):
        assert time.monotonic() < end, f"waited in vain; so far: {seen}"
        seen += client.poll()
        client.wait(0.02)
    return seen


@pytest.fixture
def volume() -> Volume:
    voxels = np.random.default_rng(3).integers(-100, 100, (4, 6, 8), dtype=np.int16)
    return Volume(voxels, geometry_from_spacing(voxels.shape, (0.5, 0.7, 2.0)), "CT", (400.0, 40.0))


@pytest.fixture
def make_client() -> Iterator[Callable[..., ProcessClient]]:
    made: list[ProcessClient] = []

    def make(
        settings: WorkerSettings | None = None, command=COMMAND, retries: RetryPolicy | None = None, **timeouts: float
    ) -> ProcessClient:
        settings, retries = settings or WorkerSettings(), retries or RetryPolicy()
        made.append(ProcessClient(settings, command, Timeouts(**timeouts), retries=retries))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(make_client) -> ProcessClient:
    return make_client()


@pytest.fixture(scope="session")
def running() -> Iterator[list[ProcessClient]]:
    """At most one client, as the last test left it."""
    clients: list[ProcessClient] = []
    yield clients
    for client in clients:
        client.close()


@pytest.fixture
def running_client(running: list[ProcessClient], volume: Volume) -> Iterator[ProcessClient]:
    """A client that may have a worker already, for tests to which that does not matter."""
    client = running.pop() if running else ProcessClient(WorkerSettings(), COMMAND, Timeouts(), retries=RetryPolicy())
    yield client
    client.remove_volume(volume.key)
    if client.is_busy or client.poll():
        client.close()
    else:
        running.append(client)


@pytest.fixture
def sent(client: ProcessClient, volume: Volume) -> Volume:
    """An image that the client was handed."""
    client.send_volume(volume)
    return volume
