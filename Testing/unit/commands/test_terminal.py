"""Messages on the terminal: one line each, progress in place, and interrupts that wait."""

import io
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from FoundationSegLib.commands.outputs import ProgressLine, interrupts_wait, one_line, say
from FoundationSegLib.progress import ProgressReport


@pytest.fixture
def terminal(monkeypatch):
    """From the call on somebody reads stderr; returns what is written to it."""

    def at_stderr():
        stream = io.StringIO()
        stream.isatty = lambda: True
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return at_stderr


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        (" a \r\n\t b ", "a b"),
        ("\x1b[2Jgone\x07", "[2Jgone"),
        ("Körper 影像", "Körper 影像"),
        ("a\u2028b\u202ec\ud800d\x9be", "a b c d e"),
    ],
)
def test_nothing_but_a_line_of_text_comes_through(text, line):
    assert one_line(text) == line


def test_messages_go_to_stderr_and_progress_is_silent_where_nobody_reads(capsys):
    say("a\nb")
    with ProgressLine() as line:
        line.show(ProgressReport("slices", 1, 2))
    assert capsys.readouterr() == ("", "a b\n")


def test_progress_stays_on_one_line_and_goes(terminal):
    shown = terminal()
    with ProgressLine() as line:
        line.show(ProgressReport("slices", 9, 10))
        line.show(ProgressReport("slices", 1, 2))
        line.clear()
    first, second, gone, end = shown.getvalue().split("\r")[1:]
    assert (first, second.rstrip(), gone.strip(), end) == ("Segmenting 9/10", "Segmenting 1/2", "", "")
    assert len(second) == len(first), "nothing of the longer text stays"


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (
            ProgressReport("packages", 0, 0, f"Downloading torch {80 * 'x'}"),
            f"Asking pip: Downloading torch {39 * 'x'}…",
        ),
        (ProgressReport("download", 12_300_000, 36_600_000), "Downloading 12/37 MB"),
        (ProgressReport("download", 0, 0), "Downloading"),
        (ProgressReport("novel", 1, 3), "novel 1/3"),
    ],
)
def test_stages_are_named(terminal, report, text):
    shown = terminal()
    ProgressLine().show(report)
    assert shown.getvalue() == f"\r{text}"


def test_an_interrupt_counts_at_the_end_of_the_block():
    steps = []
    with pytest.raises(KeyboardInterrupt), interrupts_wait():
        signal.raise_signal(signal.SIGINT)
        steps.append("the block goes on")
    assert steps
    with pytest.raises(ZeroDivisionError), interrupts_wait():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_are_not_interrupted_anyway():
    def work():
        with interrupts_wait():
            return True

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(work).result()
