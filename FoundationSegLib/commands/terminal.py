"""What a command says while it works."""

import sys

from ..catalog.model_cards import ModelCard
from ..progress import ProgressReport
from .card_texts import size_text, source_text

_STAGES = {"download": "Downloading", "load": "Loading", "restart": "Restarting", "slices": "Segmenting"}
_STAGES |= {"view": "Looking at the image", "prompts": "Segmenting", "decode": "Segmenting"}
_STAGES |= {
    "classify": "Looking at slices",
    "text": "Reading labels",
    "evidence": "Looking for evidence",
    "evaluate": "Evaluating",
    "verify": "Verifying",
    "import": "Importing",
    "export": "Exporting",
    "packages": "Asking pip",
    "wait": "Waiting for another program",
}


def say(line: str) -> None:
    """One line for the user, on stderr: stdout is for results."""
    if sys.stderr is not None:  # closed by whoever started the program
        print(one_line(line), file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """A text on one line, without the control characters that names from files may carry to the terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def announce_download(card: ModelCard) -> None:
    """Say what is about to be downloaded, and how much, before the first byte travels."""
    origin = f"{card.source.repository} {card.source.revision} on {source_text(card)}"
    say(f"Downloading {card.title} ({size_text(card)}, {card.license.name}) from {origin}")


def _count(report: ProgressReport) -> str:
    if not report.total:
        return ""
    if report.stage == "download":
        return f" {report.done / 1e6:.0f}/{report.total / 1e6:.0f} MB" + (f" ({report.item})" if report.item else "")
    return f" {report.done}/{report.total}"


class ProgressLine:
    """A line that counts steps in place; silent unless stderr is a terminal."""

    def __init__(self) -> None:
        self._shown = 0

    def show(self, report: ProgressReport) -> None:
        """Show a report."""
        if sys.stderr is None or not sys.stderr.isatty():
            return
        text = f"{_STAGES.get(report.stage, report.stage)}{_count(report)}"
        print(f"\r{text.ljust(self._shown)}", end="", file=sys.stderr, flush=True)
        self._shown = len(text)

    def clear(self) -> None:
        """Take the line away, so that the next text starts on a clean one."""
        if self._shown:
            print(f"\r{' ' * self._shown}\r", end="", file=sys.stderr, flush=True)
            self._shown = 0
