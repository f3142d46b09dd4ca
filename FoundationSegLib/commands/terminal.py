"""Messages of a command while it works: lines and progress on stderr, and interrupts where they must wait."""

import contextlib
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from ..progress import ProgressReport

_ABSURD = re.compile(r"\S{150,}")  # longer than any name or path that is of use in a message
_LONGEST_LINE = 2000
COLUMNS = 100  # the width that human output keeps to
SUCCESS, FAILED, BAD_INPUT, NO_MODEL, INTERRUPTED = 0, 1, 2, 3, 130  # exit codes
_STAGES = {
    "download": "Downloading",
    "load": "Loading",
    "restart": "Restarting",
    "slices": "Segmenting",
    "view": "Looking at the image",
    "prompts": "Segmenting",
    "decode": "Segmenting",
    "classify": "Looking at slices",
    "text": "Reading labels",
    "evidence": "Looking for evidence",
    "evaluate": "Evaluating",
    "encode": "Looking at slices",
    "train": "Learning",
    "score": "Testing",
    "verify": "Verifying",
    "import": "Importing",
    "export": "Exporting",
    "packages": "Asking pip",
    "find": "Looking for images",
    "cases": "Cases",
    "fetch": "Fetching",
    "send": "Storing",
    "wait": "Waiting for another program",
}


def say(line: str) -> None:
    """Print one line for the user on stderr, since stdout is for results."""
    if sys.stderr is not None:  # closed by whoever started the program
        line = _ABSURD.sub(lambda match: f"{match[0][:60]}…{match[0][-20:]}", one_line(line))
        print(fit(line, _LONGEST_LINE), file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """Put a text on one line, without the control characters that names from files may carry to the terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def fit(text: str, width: int) -> str:
    """Cut a text to a width, with an ellipsis where something is missing."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def report_wrong_python(error: ModuleNotFoundError) -> int:
    """Say which Python to use instead of one that lacks a package; return the exit code."""
    folder = Path(__file__).resolve().parents[2]
    program = folder / ".venv" / ("Scripts/foundationseg.cmd" if sys.platform == "win32" else "bin/foundationseg")
    remedy = str(program) if program.exists() else f"'python3 Testing/run.py demo' in {folder}, which makes .venv there"
    say(f"foundationseg: this Python ({sys.executable}) lacks the package {error.name}; use {remedy}")
    return NO_MODEL


class ProgressLine:
    """A line that counts steps in place; silent unless stderr is a terminal. Leaving its block takes it away."""

    def __init__(self) -> None:
        self._width = 0

    def show(self, report: ProgressReport) -> None:
        """Show a report."""
        if sys.stderr is None or not sys.stderr.isatty():
            return
        text = f"{_STAGES.get(report.stage, report.stage)}{_count(report)}"
        print(f"\r{text.ljust(self._width)}", end="", file=sys.stderr, flush=True)
        self._width = len(text)

    def clear(self) -> None:
        """Take the line away, so that the next text starts on a clean one."""
        if self._width:
            print(f"\r{' ' * self._width}\r", end="", file=sys.stderr, flush=True)
            self._width = 0

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()


def _count(report: ProgressReport) -> str:
    if not report.total:
        return fit(f": {report.item}", 60) if report.item else ""  # a line that wraps could not be taken away
    if report.stage == "download":
        return f" {report.done / 1e6:.0f}/{report.total / 1e6:.0f} MB" + (f" ({report.item})" if report.item else "")
    rest = f" ({report.item})" if report.stage == "cases" else ""
    return f" {report.done}/{report.total}{rest}"


@contextlib.contextmanager
def interrupts_wait() -> Iterator[None]:
    """Let Ctrl-C count at the end of the block only.

    For the imports of extension modules: interrupted in their midst, VTK's end in a broken import, or in a crash of the
    interpreter (14 of 47 tries).

    Raises:
        KeyboardInterrupt: at the end, if it came.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone is interrupted
        yield
        return
    interrupts: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if interrupts:
        raise KeyboardInterrupt
