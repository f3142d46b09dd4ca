"""Files that the user's Hugging Face cache has already: linked or copied, and the cache itself left as it is."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from ..core.progress import Progress
from .digests import Digest, digest_file
from .online import hub_constants
from .transfer import Wanted

_CHUNK = 1 << 22


def adopt(wanted: Wanted, target: Path, progress: Progress) -> Digest | None:
    """Bring a file in from the user's cache, if it is there and has the right hash.

    A hard link costs no room and no time; where there can be none, the bytes are copied, without costing room where
    the file system can share them.

    Returns:
        Its digest; None where the cache has no such file. ``target`` is then not there.

    Raises:
        OSError: it cannot be written.
        Cancelled: the user stopped it.
    """
    for source in _candidates(wanted):
        with contextlib.suppress(OSError):
            if not source.is_file() or source.stat().st_size != wanted.remote.bytes:
                continue
            if digest := _bring(source, target, wanted, progress):
                return digest
    return None


def _candidates(wanted: Wanted) -> Iterator[Path]:
    constants = hub_constants()
    folder = Path(constants.HF_HUB_CACHE) / f"models--{wanted.repository.replace('/', '--')}"
    for name in filter(None, (wanted.remote.sha256, wanted.remote.git_oid)):
        yield folder / "blobs" / name
    yield folder / "snapshots" / wanted.commit / wanted.path  # where there are no links, the files lie here


def _bring(source: Path, target: Path, wanted: Wanted, progress: Progress) -> Digest | None:
    """Link or copy a file, and hash what has come."""
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        try:
            _copy(source, target, progress)
        finally:
            if target.exists() and target.stat().st_size != wanted.remote.bytes:
                target.unlink()
    digest = digest_file(target, progress, git=not wanted.remote.sha256)
    if wanted.is_met_by(digest):
        return digest
    target.unlink()
    return None


def _copy(source: Path, target: Path, progress: Progress) -> None:
    with source.open("rb") as reading, target.open("xb") as writing:
        if _share(reading.fileno(), writing.fileno()):
            return
        while chunk := reading.read(_CHUNK):
            progress.check()
            writing.write(chunk)
    shutil.copymode(source, target)


def _share(source: int, target: int) -> bool:
    """Have the file system share a file's bytes between two names until one changes; False where it cannot."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(target, 0x40049409, source)  # FICLONE, linux/fs.h
    except OSError:
        return False
    return True
