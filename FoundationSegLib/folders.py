"""Folders of the user, harmless names, outputs that replace files, damaged archives, and locks between processes."""

import contextlib
import errno
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from .errors import FoundationSegError, OutputError, write_failure
from .progress import Progress

Kind = Literal["cache", "config"]
PACKAGES_VARIABLE = "FOUNDATIONSEG_PACKAGES"  # names the folder of private packages

# By system: the variable that names the folder, if there is one, and where it is below the user's home otherwise.
_WINDOWS = {"cache": ("LOCALAPPDATA", "AppData/Local"), "config": ("APPDATA", "AppData/Roaming")}
_MACOS = {"cache": ("", "Library/Caches"), "config": ("", "Library/Application Support")}
_OTHERS = {"cache": ("XDG_CACHE_HOME", ".cache"), "config": ("XDG_CONFIG_HOME", ".config")}


def chosen_folder(variable: str) -> Path | None:
    """The folder that a variable of the environment names; None where it names none."""
    chosen = os.environ.get(variable)
    return Path(chosen).expanduser() if chosen else None


def user_folder(kind: Kind, chosen_by: str, below: str) -> Path:
    """A folder of ours, whether it exists or not.

    Args:
        kind: ``"cache"`` may be deleted at any time, ``"config"`` is the user's own.
        chosen_by: the variable of ours that names another folder.
        below: the path of ours below the system's folder, with forward slashes.
    """
    chosen = chosen_folder(chosen_by)
    if chosen is not None:
        return chosen
    variable, usual = {"win32": _WINDOWS, "darwin": _MACOS}.get(sys.platform, _OTHERS)[kind]
    return Path(os.environ.get(variable) or Path.home() / usual) / below


# What Windows keeps for devices, whatever the ending (learn.microsoft.com, "Naming Files, Paths, and Namespaces").
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9]|lpt[0-9])( *\..*)?", re.IGNORECASE)
_FORBIDDEN = frozenset('<>:"|?*\\/')
_LONGEST_NAME = 128
# Windows' limit for a whole path is 260 without special settings; the store's own folders need their share.
_LONGEST_PATH = 180

_HUB_PART = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_PYPI_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_LONGEST_REPOSITORY = 96  # huggingface_hub.utils.validate_repo_id, for the whole of owner/name


def archive_errors() -> tuple[type[Exception], ...]:
    """Errors of the standard library for archives that are cut off, changed, encrypted, or lack a member.

    Found by fuzzing. ``zipfile`` is imported here, since it takes longer to load than all of this file.
    """
    import zipfile
    import zlib

    return zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, LookupError, OverflowError


def is_safe_name(name: str) -> bool:
    """True for the name of one file or folder that means the same on Linux, macOS and Windows.

    ASCII without control characters, separators and wildcards; no ``.`` or ``..``, no space at the start, no space or
    dot at the end, and nothing that Windows takes for a device.
    """
    return (
        0 < len(name) <= _LONGEST_NAME
        and name.isascii()
        and name.isprintable()
        and not _FORBIDDEN & set(name)
        and not name.startswith(" ")
        and not name.endswith((" ", "."))
        and not _RESERVED.fullmatch(name)
    )


def is_safe_path(path: str) -> bool:
    """True for a relative path with forward slashes, every part of which is a safe name: it stays in its folder."""
    return len(path) <= _LONGEST_PATH and all(is_safe_name(part) for part in path.split("/"))


def is_hub_repository(name: str) -> bool:
    """True for ``owner/name`` as the Hugging Face Hub spells repositories."""
    parts = name.split("/")
    return (
        len(parts) == 2
        and len(name) <= _LONGEST_REPOSITORY
        and all(_HUB_PART.fullmatch(part) and is_safe_name(part) for part in parts)
        and "--" not in name
        and ".." not in name
        and not name.lower().endswith(".git")
    )


def is_pypi_name(name: str) -> bool:
    """True for a project's name on the Python Package Index."""
    return bool(_PYPI_NAME.fullmatch(name)) and is_safe_name(name)


def is_secure_url(text: str) -> bool:
    """True for the address of a file on an https server, or on this machine itself, without a login in it."""
    try:
        parts = urlsplit(text)
        is_here = parts.hostname in ("127.0.0.1", "::1", "localhost")
    except ValueError:
        return False
    is_encrypted = parts.scheme == "https" or (parts.scheme == "http" and is_here)
    is_plain = text.isascii() and text.isprintable() and not set(' "<>\\@') & set(text)
    return bool(is_encrypted and is_plain and parts.hostname and parts.path.strip("/"))


def require_utf8(path: Path, error: type[FoundationSegError]) -> None:
    """Make sure that a path can be given to ITK and VTK, which end the program over one that is no UTF-8.

    Raises:
        FoundationSegError: it cannot; of the type ``error``.
    """
    if os.fsencode(path) != str(path).encode(errors="replace"):
        name = path.name.encode(errors="replace").decode()
        raise error(f"{name}: its name, or that of a folder, is no UTF-8; rename it, or set PYTHONUTF8=1")


def replace_text(path: Path, text: str) -> None:
    """Write a text to a file in UTF-8, in place of one that is there.

    Raises:
        OutputError: the file cannot be written; one that is there stays.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise OutputError(f"{path.name} cannot be written: {write_failure(error)}") from error


_POLL_S = 0.05
# What systems answer where a file system cannot lock at all, such as some network drives.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class Locked(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(path: Path, progress: Progress | None = None) -> Iterator[bool]:
    """Hold the lock of a file, which is made for it and removed after it.

    Where a file system has no locks, work goes on without: what two processes write there is still hashed before it
    counts.

    Args:
        path: the file; its folder must exist.
        progress: waits until the lock is free, or until this is cancelled; without it, nothing is waited for.

    Yields:
        True where another process held the lock before.

    Raises:
        Locked: it is held by another process, and nothing should be waited for.
        Cancelled: the user stopped the waiting.
        OSError: the file cannot be made.
    """
    descriptor, has_waited = _acquire(path, progress)
    try:
        yield has_waited
    finally:
        _release(path, descriptor)


def _acquire(path: Path, progress: Progress | None) -> tuple[int, bool]:
    has_waited = False
    while True:
        with contextlib.ExitStack() as undo:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            undo.callback(os.close, descriptor)
            if _try_lock(descriptor) and _is_still_there(path, descriptor):
                undo.pop_all()
                return descriptor, has_waited
        if progress is None:
            raise Locked
        has_waited = True
        progress.step("wait", 0, 0)
        time.sleep(_POLL_S)


def _is_still_there(path: Path, descriptor: int) -> bool:
    """True while the locked file is still there. A lock on a removed file keeps nobody out."""
    try:
        present = path.stat()
    except OSError:
        return False
    stat = os.fstat(descriptor)
    return (present.st_dev, present.st_ino) == (stat.st_dev, stat.st_ino)


def _release(path: Path, descriptor: int) -> None:
    if sys.platform == "win32":  # an open file cannot be removed there; one that another process has open, neither
        os.close(descriptor)
    with contextlib.suppress(OSError):
        path.unlink()
    if sys.platform != "win32":
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return True
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True


OutputFormat = Literal["seg.nrrd", "nii.gz", "nrrd", "dcm"]
TEMPORARY = ".fseg-"  # how the names of files begin that are not whole yet
# Endings of two parts, which decide the format that a writer chooses.
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


@contextlib.contextmanager
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
