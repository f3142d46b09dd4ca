"""One process at a time: locks of the operating system, which end with the process that holds them."""

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .progress import Progress

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
            descriptor = _open(path)
            undo.callback(os.close, descriptor)
            if _try_lock(descriptor) and _is_still_there(path, descriptor):
                undo.pop_all()
                return descriptor, has_waited
        if progress is None:
            raise Locked
        has_waited = True
        progress.step("wait", 0, 0)
        time.sleep(_POLL_S)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _is_still_there(path: Path, descriptor: int) -> bool:
    """Who held the lock before removed the file; a lock on a removed file keeps nobody out."""
    try:
        present = path.stat()
    except OSError:
        return False
    held = os.fstat(descriptor)
    return (present.st_dev, present.st_ino) == (held.st_dev, held.st_ino)


def _release(path: Path, descriptor: int) -> None:
    if sys.platform == "win32":  # an open file cannot be removed there; one that another process has open, neither
        os.close(descriptor)
        with contextlib.suppress(OSError):
            path.unlink()
    else:
        with contextlib.suppress(OSError):
            path.unlink()
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
