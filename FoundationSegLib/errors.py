"""The one hierarchy of errors. A message says what happened and what the user can do about it."""

import errno
import os
import re
from collections.abc import Iterable


class FoundationSegError(Exception):
    """Base of every error that FoundationSeg raises on purpose."""

    exit_code = 1  # of the command line: 2 bad input, 3 model missing or not accepted, 130 interrupted


class InputError(FoundationSegError):
    """Something handed in cannot be used: a file, a volume, an option."""

    exit_code = 2


class VolumeMissingError(InputError):
    """A request names an image that was not sent, or that had to make room for others."""

    def __init__(self, message: str = "the request names an image that was not sent") -> None:
        super().__init__(message)


class DomainError(InputError):
    """The image is not of the kind that the model was trained on, and nobody asked for scores all the same."""


class GoneError(InputError):
    """The target does not exist any more: the volume, the segmentation or the segment was deleted."""


class DocumentError(InputError):
    """A JSON document, a TOML file or a message has another form than it should; the message names the place."""


class GeometryError(FoundationSegError):
    """An image's place in space cannot be used: singular, non-linear, unevenly spaced."""

    exit_code = 2


class PromptError(FoundationSegError):
    """A prompt is malformed, misplaced, or of a kind the model does not understand.

    ``location`` names the offending value as a path into the prompts document, for example
    ``segments[2].prompts[0].corners``; it is empty where the document as a whole is meant. ``problem`` is the message
    without it, for who has drawn a prompt and written no document.
    """

    exit_code = 2

    def __init__(self, message: str, location: str = "") -> None:
        super().__init__(f"{location}: {message}" if location else message)
        self.problem, self.location = message, location


class OutputError(FoundationSegError):
    """A result cannot be written where it should go."""

    exit_code = 2


class CardError(FoundationSegError):
    """A model card does not follow the schema."""


class UnknownModelError(FoundationSegError):
    """No model card has the wanted id."""

    exit_code = 2


class CheckpointError(FoundationSegError):
    """A checkpoint is missing, damaged, not accepted, or cannot be fetched."""

    exit_code = 3


class ArchiveError(FoundationSegError):
    """An archive (PACS) cannot be reached, refuses, or does not keep what it was sent."""


class PackageError(FoundationSegError):
    """A Python package is missing, cannot be installed, or must not be."""


class PackageMissingError(PackageError):
    """A model cannot be run for want of its Python packages."""

    exit_code = 3


class InferenceError(FoundationSegError):
    """The model could not answer."""


class MemoryShortageError(InferenceError):
    """Memory ran out, or would: the message says what could be done with less."""


class DeviceLostError(InferenceError):
    """The device failed in a way that nothing works on it any more in this process."""


class Cancelled(FoundationSegError):
    """The user asked to stop."""

    exit_code = 130


_ALIKE = 0.7  # of difflib's ratio: one letter of four may be another


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question for a message, such as ``did you mean 'liver'?``; empty where nothing looks like the name."""
    import difflib  # for a wrong name alone, while everything waits for this file

    near = difflib.get_close_matches(name[:100].lower(), list(known), 3, _ALIKE)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, of which the plural ends in an s: ``1 image``, ``2 images``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def package_missing(purpose: str, package: str) -> PackageMissingError:
    """Error for an optional package that something needs, with the command that brings it."""
    return PackageMissingError(f"{purpose} needs the package {package}; install it: python -m pip install {package}")


_NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
# Windows' ERROR_HANDLE_DISK_FULL, ERROR_DISK_FULL and ERROR_DISK_QUOTA_EXCEEDED, some of which have no number of POSIX.
_NO_ROOM_ON_WINDOWS = {39, 112, 1295}
_NOT_ALLOWED = "allow it, close the program that has the file open, or choose another folder"
_REMEDIES = {
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.ENOENT: "make the folder first",
    errno.ENOTDIR: "make the folder first",
}


def logged_disk_error(log: str) -> OSError | None:
    """Find a disk that is full or may not be written in what another program printed (``[Errno 28] ...``)."""
    numbers = {int(number) for number in re.findall(r"\[Errno (\d+)\]", log)} & (_NO_ROOM | {errno.EROFS})
    if any(f"[WinError {number}]" in log for number in _NO_ROOM_ON_WINDOWS):
        numbers.add(errno.ENOSPC)
    return next((OSError(number, os.strerror(number)) for number in numbers), None)


def write_failure(error: OSError) -> str:
    """Return the reason why something could not be written, and what the user can do. It names no path."""
    remedy = _REMEDIES.get(error.errno or 0, "choose another folder")
    if error.errno in _NO_ROOM or getattr(error, "winerror", None) in _NO_ROOM_ON_WINDOWS:
        remedy = "make room on the disk"
    return f"{error.strerror or type(error).__name__}; {remedy}"
