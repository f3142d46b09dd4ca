"""Adaptation by a real worker process: one that is killed loses little, and a cancel is there at once."""

import contextlib
import os
import signal
import time

import torch

from FoundationSegLib.engine.course import SAVED_EVERY
from FoundationSegLib.errors import Cancelled
from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.adaptation import AdaptRequest, Training, curve_point
from FoundationSegLib.worker.process import Timeouts
from FoundationSegLib.worker.process_client import ProcessClient
from FoundationSegLib.worker.protocol import Answered, Failed, Progressed
from Testing.toy_adaptation import toy_case, toy_engine, toy_segments, worker_command
from Testing.unit.worker.conftest import events_until

LONG = 600.0  # seconds, on a machine that does much else


def test_a_killed_worker_goes_on_and_a_cancel_is_there_at_once(tmp_path, full, bar):
    torch.set_num_threads(1)
    cases = [toy_case(seed, slices=8 if full else 4) for seed in range(9)]
    training = Training(steps=300 if full else 150, rate=1e-2, least_pixels=5, distillation=0)
    request = AdaptRequest(1, "fake", "blobs", toy_segments(cases, "ABCDEFGHI"), training=training)
    expected = toy_engine(tmp_path / "line", cases).adapt(request, Progress())
    toy_engine(tmp_path / "worker", [])
    client = ProcessClient(command=worker_command(tmp_path / "worker"), timeouts=Timeouts(start_s=LONG, silence_s=LONG))
    with contextlib.closing(client):
        for volume, _ in cases:
            client.send_volume(volume)
        client.submit(request)
        points = []
        while len(points) < (3 if full else 2):
            points += [p for e in client.poll() if isinstance(e, Progressed) and (p := curve_point(e.report))]
            client.wait(0.02)
        os.kill(client.worker_pid, signal.SIGKILL)
        events = events_until(client, Answered, LONG)
        again = [
            event.report.done
            for event in events
            if isinstance(event, Progressed) and event.report.stage == "train" and curve_point(event.report) is None
        ]
        assert any(isinstance(event, Progressed) and event.report.stage == "restart" for event in events)
        assert min(again) >= points[-1].step - SAVED_EVERY
        assert events[-1].answer.sha256 == expected.sha256
        client.submit(AdaptRequest(2, "fake", "other", request.segments, training=training))
        events_until(client, Progressed, LONG)
        start = time.monotonic()
        client.cancel(2)
        failed = events_until(client, Failed, LONG)[-1]
        bar("cancel of an adaptation, ms", (time.monotonic() - start) * 1000, "< 200")
        assert isinstance(failed.error, Cancelled)
