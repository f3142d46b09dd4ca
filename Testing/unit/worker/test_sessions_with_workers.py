"""Sessions whose real worker process is killed at random moments: nothing is lost, and nothing is written twice."""

import os
import signal
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest

from FoundationSegLib.errors import VolumeMissingError
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.segmentation import Prediction, PredictRequest
from FoundationSegLib.session.segment_store import ArrayStore, Options
from FoundationSegLib.session.session import Session
from FoundationSegLib.worker import server
from FoundationSegLib.worker.client import finish
from Testing.unit.session.session_cases import SLICES, FakeClient, small_volume
from Testing.unit.session.session_machine import Machine

COMMAND = (sys.executable, "-P", "-m", "Testing.unit.worker.test_sessions_with_workers")

# Of the random operations of sessions, those that a script can do, which waits for each answer.
OPERATIONS = {
    "add": 20,
    "remove": 5,
    "move": 5,
    "turn": 3,
    "propagate": 4,
    "limit": 2,
    "undo": 8,
    "redo": 6,
    "switch": 4,
    "paint": 3,
    "objects": 2,
    "kill": 12,
}


class SessionEngine:
    """The answers of :class:`Testing.unit.core.session_cases.FakeClient`, in a few slow steps."""

    def __init__(self) -> None:
        self.volumes: dict[str, Volume] = {}

    def add_volume(self, volume: Volume) -> None:
        self.volumes[volume.key] = volume

    def remove_volume(self, volume_key: str) -> None:
        self.volumes.pop(volume_key, None)

    def prepare(self, model_id: str, progress: Progress) -> None:
        """Is ready."""

    def encode_ahead(self, progress: Progress) -> bool:
        return False

    def predict(self, request: PredictRequest, progress: Progress) -> Prediction:
        if request.volume_key not in self.volumes:
            raise VolumeMissingError()
        for done in range(4):
            progress.step("slices", done, 4)
            time.sleep(0.005)
        return FakeClient(self.volumes[request.volume_key]).prediction(request)


class KilledMachine(Machine):
    """Waits for the answers of a real worker, which is killed now and then."""

    def __init__(self, seed, client):
        volume = small_volume()
        session = Session(
            volume,
            ArrayStore(volume.geometry),
            client,
            Options(SLICES, ask_above=None),
            on_request=partial(finish, client=client),
        )
        self.killed = 0
        super().__init__(seed, session, client)
        self.names = list(OPERATIONS)
        weights = np.array(list(OPERATIONS.values()), float)
        self.weights = weights / weights.sum()

    def kill(self):
        """A prompt, and the worker dies before, while or after it answers."""
        pid = self.client.worker_pid
        timer = threading.Timer(self.rng.uniform(0, 0.04), self.end_worker, (pid,))
        timer.start()
        try:
            self.add()
        finally:
            timer.join()

    def end_worker(self, pid):
        if pid is not None and pid == self.client.worker_pid:
            os.kill(pid, signal.SIGKILL)
            self.killed += 1


@pytest.mark.skipif(sys.platform == "win32", reason="there is no signal that only ends one process")
def test_random_operations_while_the_worker_is_killed(make_client, full, bar):
    machine = KilledMachine(7, make_client(command=COMMAND))
    for _ in range(400 if full else 20):
        machine.step()
    while machine.killed < (20 if full else 2):  # where the machine is busy, a worker may be gone before its time
        machine.kill()
    machine.check_replay()
    machine.check_undo_all()
    assert machine.counts.get("refused", 0) < machine.counts["add"]
    bar("workers killed under a session, replay and undo exact", machine.killed, ">= 20 in the full run")


if __name__ == "__main__":
    server.main(lambda settings: SessionEngine())
