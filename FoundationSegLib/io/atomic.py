"""Files that are replaced as a whole or not at all."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..core.errors import OutputError

# Endings of two parts, which decide the format that a writer chooses.
_DOUBLE_ENDINGS = (".seg.nrrd", ".nii.gz")


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes the place of ``path`` when the block ends without an error.

    The path given has the same ending and does not exist yet. On an error in the block, what was written is removed
    and the old file, if any, stays as it was. A link stays a link: the file that it leads to is replaced, and the
    new file has the permissions of the old one.

    Raises:
        OutputError: the file cannot be written or put in place; also instead of an ``OSError`` in the block.
    """
    try:
        target = path.resolve()
        temporary = _beside(target)
        try:
            yield temporary
            _flush(temporary)
            if target.is_file():
                shutil.copymode(target, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path.name} cannot be written: {error.strerror or error}") from error


def _beside(path: Path) -> Path:
    """A new name in the same folder: a rename is atomic within a file system only. Writers know small endings only."""
    ending = next((ending for ending in _DOUBLE_ENDINGS if path.name.lower().endswith(ending)), path.suffix)
    return path.with_name(f".fseg-{secrets.token_hex(6)}{ending.lower()}")


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def check_writable(path: Path) -> None:
    """Make sure, before any work is done, that a file can be written at ``path``; nothing is left behind.

    Raises:
        OutputError: the folder is missing or refuses a new file, or ``path`` is something else than a file.
    """
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            raise OutputError(f"{path.name} is not a file and cannot be replaced; choose another name")
        if not target.parent.is_dir():
            raise OutputError(f"the folder for {path.name} does not exist; make it first")
        probe = _beside(target)
        try:
            probe.touch(exist_ok=False)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{path.name} cannot be written there: {reason}; choose another place") from error
    except RuntimeError as error:  # a loop of links, before Python 3.13
        raise OutputError(f"{path.name} is a link that leads to itself; choose another name") from error
