"""What went wrong where nobody could raise it: collected, so that the test fails."""

import sys
import traceback
from types import TracebackType
from typing import Any


class NotModelled(Exception):
    """The name exists in Slicer, but the stand-in does not know what it does.

    Not the product's fault: model it in the stand-in, or use something else. It fails the test even if it is caught.
    """

    def __init__(self, message: str) -> None:
        super().__init__(f"exists in Slicer, but is not modelled by the stand-in: {message}")
        noted.append(self)


class UnexpectedDialog(RuntimeError):
    """A modal dialog came up that the test had not announced."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        noted.append(self)


noted: list[BaseException] = []  # for the running test; the desk empties it


def note(error: BaseException) -> None:
    """Keep an error that happens inside a slot, where Slicer would only print it."""
    if all(error is not other for other in noted):
        noted.append(error)


def note_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For ``sys.excepthook``: what VTK's observers and Qt's callbacks raise ends there."""
    note(error)
    sys.__excepthook__(kind, error, trace)


def as_text(errors: list[BaseException]) -> str:
    return "\n".join("".join(traceback.format_exception(error)) for error in errors)


class QtWarning(RuntimeError):
    """Qt complained: in Slicer this would be a line in the log."""


_HARMLESS = ("This plugin does not support",)  # the off-screen platform has no window manager


def note_qt_message(kind: Any, _context: Any, text: str) -> None:
    """For ``qInstallMessageHandler``."""
    if kind.name in ("QtWarningMsg", "QtCriticalMsg", "QtFatalMsg") and not text.startswith(_HARMLESS):
        noted.append(QtWarning(text))
