import pytest

from FoundationSegLib.errors import Cancelled, InputError
from FoundationSegLib.progress import CancelToken, Progress, ProgressReport, TimeLeft, bytes_of, bytes_text


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


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (300_013, "300 kB"),
        (36_580_895, "37 MB"),
        (999_999_999, "1.0 GB"),
        (2_564_550_879, "2.6 GB"),
    ],
)
def test_a_size_reads_short(count, text):
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("text", "count"), [("6GB", 6 * 10**9), ("1.5 GB", 1_500_000_000), ("800M", 800_000_000), ("12", 12), ("2kB", 2000)]
)
def test_a_size_is_read(text, count):
    assert bytes_of(text) == count


@pytest.mark.parametrize("text", ["", "0", "0GB", "-1GB", "1e9", "many", "1 GiB", "1,5GB", "9" * 50])
def test_what_is_no_size(text):
    with pytest.raises(InputError, match="no amount of memory"):
        bytes_of(text)


def test_the_time_left_goes_by_the_rate_or_by_what_a_stage_took_before():
    now = [0.0]
    left = TimeLeft(clock=lambda: now[0])
    assert left.seconds() is None
    left.note(ProgressReport("load", 0, 0))
    now[0] = 2.0
    assert left.seconds() == 4.0  # of six
    left.note(ProgressReport("slices", 0, 10))
    assert left.seconds() is None
    now[0] = 4.0
    left.note(ProgressReport("slices", 4, 10))
    assert left.seconds() == 3.0
    left.note(None)
    left.note(ProgressReport("load", 0, 0))
    assert left.seconds() == 2.0  # as it took before
