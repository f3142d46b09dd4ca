"""Sessions whose real worker process is killed at random moments: nothing is lost, and nothing is written twice."""

import os
import signal
import sys
import threading
from functools import partial

import numpy as np
import pytest

from FoundationSegLib.session.segment_store import ArrayStore, Options
from FoundationSegLib.session.session import Session
from FoundationSegLib.worker.client import finish
from Testing.unit.session.session_cases import SLICES, small_volume
from Testing.unit.session.session_machine import Machine
from Testing.unit.worker.session_worker import COMMAND

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
    for _ in range(400 if full else 30):
        machine.step()
    machine.check_replay()
    machine.check_undo_all()
    assert machine.killed >= (20 if full else 2) and machine.counts.get("refused", 0) < machine.counts["add"]
    bar("workers killed under a session, replay and undo exact", machine.killed, ">= 20 in the full run")
