"""Progress and cancel: the two things a long computation owes its caller. And how a number of bytes reads."""

import re
import time
from collections.abc import Callable
from dataclasses import field
from typing import Any

from .codec import frozen, mutable
from .errors import Cancelled, InputError


@frozen
class ProgressReport:
    """Progress of a computation: ``done`` of ``total`` steps of ``stage`` (``"download"``, ``"encode"``, ...).

    ``total`` is 0 while it is unknown. Where a step has parts, ``item`` names the one in work, ``item_done`` of
    ``item_total``: the file of a download, with its bytes.
    """

    stage: str
    done: int
    total: int
    item: str = ""
    item_done: int = 0
    item_total: int = 0


@mutable
class CancelToken:
    """A flag that one thread sets and the computing thread looks at between steps."""

    cancelled: bool = False
    is_finishing: bool = False

    def finish(self) -> None:
        """Ask the computation to end early, where it can, and to answer with what it has by then."""
        self.is_finishing = True

    def cancel(self) -> None:
        """Ask the computation to stop at its next step."""
        self.cancelled = True


def _discard(report: object) -> None:
    del report


@frozen
class Progress:
    """Receiver of progress reports, asked whether to go on.

    ``report`` receives each :class:`ProgressReport`; ``token`` is the flag that stops the computation. ``partial``
    receives parts of an answer, such as :class:`.requests.segmentation.PartialPrediction`, every ``part_s`` seconds.
    """

    report: Callable[[ProgressReport], None] = _discard
    token: CancelToken = field(default_factory=CancelToken)
    partial: Callable[[Any], None] = _discard
    part_s: float = 0.5

    def step(self, stage: str, done: int, total: int) -> None:
        """Report one step, after making sure that the computation may go on.

        Raises:
            Cancelled: the token was set.
        """
        self.check()
        self.report(ProgressReport(stage, done, total))

    def check(self) -> None:
        """Raise :class:`Cancelled` once the token is set."""
        if self.token.cancelled:
            raise Cancelled("stopped on request; nothing was changed")


@mutable
class TimeLeft:
    """Estimate of the time until a task ends: from its reports, and from how long its stages took before.

    Attributes:
        usual_s: seconds of each stage; those that were measured take their place. The first ones are of a small model
            on two processor cores.
        clock: the time in seconds.
    """

    usual_s: dict[str, float] = field(
        default_factory=lambda: {"start": 8.0, "load": 6.0, "encode": 4.0, "decode": 0.5, "packages": 180.0}
    )
    clock: Callable[[], float] = time.monotonic
    _report: ProgressReport | None = None
    _began: float = 0.0

    def note(self, report: ProgressReport | None) -> None:
        """Take in the last report; None once nothing is under way."""
        if self._report is not None and (report is None or report.stage != self._report.stage):
            self.usual_s[self._report.stage] = self.clock() - self._began
        if report is not None and (self._report is None or report.stage != self._report.stage):
            self._began = self.clock()
        self._report = report

    def seconds(self) -> float | None:
        """The seconds left of the stage that is under way; None where nothing is known of it."""
        report = self._report
        if report is None:
            return None
        elapsed_s = self.clock() - self._began
        if report.total and report.done:
            return elapsed_s * max(0, report.total - report.done) / report.done
        usual_s = self.usual_s.get(report.stage)
        return None if usual_s is None else max(0.0, usual_s - elapsed_s)


_SIZE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?([kMGT]?)B?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def bytes_text(count: int) -> str:
    """A number of bytes, short: ``812 B``, ``6 kB``, ``37 MB``, ``1.2 GB``."""
    if count >= 999.5e6:
        return f"{count / 1e9:.1f} GB"
    if count >= 999.5e3:
        return f"{count / 1e6:.0f} MB"
    return f"{count / 1e3:.0f} kB" if count >= 1000 else f"{count} B"


def bytes_of(text: str) -> int:
    """The number of bytes that a size such as ``6GB``, ``1.5 GB`` or ``800M`` means.

    Raises:
        InputError: it is none, or nothing at all.
    """
    match = _SIZE.fullmatch(text.strip())
    count = int(float(match[1]) * _UNITS[match[2]]) if match is not None else 0
    if count <= 0:
        raise InputError(f"{text[:40]!r} is no amount of memory, such as 6GB or 800MB")
    return count
