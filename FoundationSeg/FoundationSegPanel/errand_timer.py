"""A timer that looks after an errand, so that nobody waits for it."""

from collections.abc import Callable
from typing import Any

import qt

from FoundationSegLib.core.errors import FoundationSegError
from FoundationSegLib.core.progress import ProgressReport
from FoundationSegLib.worker.errand import Errand

_INTERVAL_MS = 50


class ErrandTimer:
    """One errand at a time; what was under way is stopped by the next."""

    def __init__(self) -> None:
        self._timer = qt.QTimer()
        self._timer.setInterval(_INTERVAL_MS)
        self._timer.connect("timeout()", self._tick)
        self._errand: Errand | None = None
        self._told: tuple[Callable[[ProgressReport], None], Callable[[Any], None], Callable[[Any], None]] | None = None

    @property
    def is_busy(self) -> bool:
        """True while an errand is under way."""
        return self._errand is not None

    def run(
        self,
        errand: Errand,
        on_done: Callable[[Any], None],
        on_failed: Callable[[FoundationSegError], None],
        on_progress: Callable[[ProgressReport], None] = lambda _: None,
    ) -> None:
        """Look after an errand; one of ``on_done`` (with its result) and ``on_failed`` is called at its end."""
        self.close()
        self._errand, self._told = errand, (on_progress, on_done, on_failed)
        self._timer.start()

    def cancel(self) -> None:
        """Stop the errand; it fails as cancelled within a moment."""
        if self._errand is not None:
            self._errand.cancel()

    def close(self) -> None:
        """End the errand, if there is one; nobody is told."""
        self._timer.stop()
        errand, self._errand, self._told = self._errand, None, None
        if errand is not None:
            errand.close()

    def _tick(self) -> None:
        errand, told = self._errand, self._told
        if errand is None or told is None:
            self._timer.stop()
            return
        on_progress, on_done, on_failed = told
        for report in errand.poll():
            on_progress(report)
        if errand.is_done and self._errand is errand:
            self.close()
            try:
                result = errand.result()
            except FoundationSegError as error:
                on_failed(error)
            else:
                on_done(result)
