"""The worker with the real model: killed while it loads, encodes and decodes, it ends in the same mask."""

import contextlib
import os
import random
import signal
import sys
import threading
import time

import pytest

from FoundationSegLib.requests.segmentation import PredictRequest
from FoundationSegLib.requests.worker_settings import WorkerSettings
from FoundationSegLib.worker.client import ask
from FoundationSegLib.worker.process_client import ProcessClient
from Testing.models.cases import CT, box_of, box_prompt


def run(store, request, volume, kill_after_s=None):
    """The mask of a request to a fresh worker, which is killed once if a time is given."""
    with contextlib.closing(ProcessClient(WorkerSettings("cpu", store.folder))) as client:
        client.send_volume(volume)
        if kill_after_s is not None:
            timer = threading.Timer(kill_after_s, lambda: os.kill(client.worker_pid, signal.SIGKILL))
            timer.start()
        restarts = []
        prediction = ask(client, request, lambda report: restarts.append(report.stage == "restart"))
        if kill_after_s is not None:
            timer.cancel()
        return prediction, sum(restarts)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_worker_changes_no_voxel(store, shared_data, full, bar):
    volume, labels = CT.read(shared_data)
    request = PredictRequest(1, "lite-medsam", volume.key, (box_prompt(volume, box_of(labels == 4)),), CT.intensity)
    begin = time.perf_counter()
    wanted, _ = run(store, request, volume)
    took_s = time.perf_counter() - begin
    assert wanted.segments[0].mask.voxels > 100
    chance, times, same, restarts = random.Random(4), 20 if full else 1, 0, 0
    for _ in range(times):
        prediction, died = run(store, request, volume, chance.uniform(0.05, 0.9) * took_s)
        same += prediction.segments == wanted.segments
        restarts += died
    bar(f"real model killed at {times} random moments: the same mask", same, f"{times}")
    assert same == times
    assert restarts > 0
