"""What a file is: its length and the hashes that the Hub knows files by."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..core.progress import Progress

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Digest:
    """A file's length in bytes, its sha256 and its git object id, both in hexadecimal digits.

    The Hub knows large files by the first and small ones by the second: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
    """

    bytes: int
    sha256: str
    git_oid: str


class Hasher:
    """Hashes that grow with a file whose final length, in bytes, is known before."""

    def __init__(self, length: int) -> None:
        self.bytes = 0
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(b"blob %d\0" % length, usedforsecurity=False) if length <= _GIT_LIMIT else None

    def update(self, chunk: bytes) -> None:
        """Take in what comes next."""
        self.bytes += len(chunk)
        self._sha256.update(chunk)
        if self._git is not None:
            self._git.update(chunk)

    def digest(self) -> Digest:
        """Of everything so far. The git id is empty for large files, which the Hub knows by their sha256."""
        return Digest(self.bytes, self._sha256.hexdigest(), self._git.hexdigest() if self._git is not None else "")


# Git on the Hub holds files of up to 10 MB; larger ones are held elsewhere: https://huggingface.co/docs/hub/repositories-recommendations
_GIT_LIMIT = 16 << 20


def digest_file(path: Path, progress: Progress | None = None) -> Digest:
    """The digest of a file.

    Raises:
        OSError: it cannot be read.
        Cancelled: the user stopped it.
    """
    with path.open("rb") as stream:
        hasher = Hasher(path.stat().st_size)
        while chunk := stream.read(_CHUNK):
            if progress is not None:
                progress.check()
            hasher.update(chunk)
    return hasher.digest()


def hash_file(path: Path) -> str:
    """The sha256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
