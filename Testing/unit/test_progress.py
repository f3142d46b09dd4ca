import threading

import pytest

from FoundationSegLib.errors import Cancelled
from FoundationSegLib.progress import CancelToken, Progress, ProgressReport


def test_steps_are_reported_in_order():
    seen = []
    progress = Progress(seen.append)
    progress.step("encode", 0, 2)
    progress.step("encode", 1, 2)
    assert seen == [ProgressReport("encode", 0, 2), ProgressReport("encode", 1, 2)]


def test_a_cancelled_computation_stops_before_it_reports():
    seen = []
    progress = Progress(seen.append, CancelToken())
    progress.check()
    progress.token.cancel()
    assert progress.token.cancelled
    with pytest.raises(Cancelled):
        progress.step("encode", 1, 2)
    with pytest.raises(Cancelled):
        progress.check()
    assert seen == []


def test_a_receiver_may_cancel_and_the_next_step_stops():
    token, seen = CancelToken(), []

    def receive(report):
        seen.append(report.done)
        token.cancel()

    progress = Progress(receive, token)
    with pytest.raises(Cancelled):
        for done in range(5):
            progress.step("slices", done, 5)
    assert seen == [0]


def test_another_thread_can_cancel():
    progress = Progress()
    thread = threading.Thread(target=progress.token.cancel)
    thread.start()
    thread.join()
    with pytest.raises(Cancelled):
        progress.check()


def test_defaults_share_no_token():
    first, second = Progress(), Progress()
    first.token.cancel()
    second.step("encode", 1, 1)
    assert not second.token.cancelled
