"""Names of images, files of results and their formats, replaced as a whole or not at all. Standard library only."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from ..errors import OutputError, write_failure
from ..folders import require_utf8

OutputFormat = Literal["seg.nrrd", "nii.gz", "nrrd", "dcm"]
# Endings of two parts, which decide the format that a writer chooses.
TEMPORARY = ".fseg-"  # how the names of files begin that are not whole yet
_DOUBLE_ENDINGS = (".seg.nrrd", ".nii.gz")
_ENDINGS = re.compile(r"(\.nii\.gz|\.seg\.nrrd|\.seg\.nhdr|\.img\.gz|\.gipl\.gz|\.[^.]*)$", re.IGNORECASE)


def image_name(path: Path) -> str:
    """Return the file's name without folders and endings: ``"example_ct_sm"`` for ``example_ct_sm.nii.gz``."""
    return _ENDINGS.sub("", path.name) or path.name


def output_format(path: Path) -> OutputFormat:
    """Return the format that a file name asks for by its ending; capitals do not matter.

    Raises:
        OutputError: another ending; the message lists the known ones.
    """
    for ending in get_args(OutputFormat):
        if path.name.lower().endswith(f".{ending}"):
            return ending
    endings = ", ".join(f".{ending}" for ending in get_args(OutputFormat))
    raise OutputError(f"{path.name}: the name of a result must end in one of {endings}")


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yield a new path beside ``path``; the file written there replaces ``path`` when the block ends without an error.

    The new path has the same ending and does not exist yet. On an error in the block, what was written is removed
    and the old file, if any, stays as it was. A link stays a link: the file that it leads to is replaced, and the
    new file has the permissions of the old one.

    Raises:
        OutputError: the file cannot be written or put in place; also instead of an ``OSError`` in the block.
    """
    try:
        target = path.resolve()
        require_utf8(target, OutputError)
        temporary = _temporary_path(target)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            if target.is_file():
                shutil.copymode(target, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path.name} cannot be written: {write_failure(error)}") from error


def _temporary_path(path: Path) -> Path:
    """Return a new name in the same folder, since a rename is atomic within a file system only.

    The ending is in small letters, as writers expect it.
    """
    ending = next((ending for ending in _DOUBLE_ENDINGS if path.name.lower().endswith(ending)), path.suffix)
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}{ending.lower()}")


def check_writable(path: Path) -> None:
    """Make sure, before any work is done, that a file can be written at ``path``; nothing is left behind.

    Raises:
        OutputError: the folder is missing or refuses a new file, or ``path`` is something else than a file.
    """
    try:
        target = path.resolve()
        require_utf8(target, OutputError)
        if target.exists() and not target.is_file():
            raise OutputError(f"{path.name} is not a file and cannot be replaced; choose another name")
        if not target.parent.is_dir():
            raise OutputError(f"the folder for {path.name} does not exist; make it first")
        probe = _temporary_path(target)
        try:
            probe.touch(exist_ok=False)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path.name} cannot be written there: {write_failure(error)}") from error
    except RuntimeError as error:  # a loop of links, before Python 3.13
        raise OutputError(f"{path.name} is a link that leads to itself; choose another name") from error
