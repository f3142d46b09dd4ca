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
    """Hashes that grow with a file.

    Args:
        git_length: the file's final length in bytes, where its git id is wanted too; it goes into that id first.
    """

    def __init__(self, git_length: int | None = None) -> None:
        self.bytes = 0
        self._sha256 = hashlib.sha256()
        is_wanted = git_length is not None
        self._git = hashlib.sha1(b"blob %d\0" % git_length, usedforsecurity=False) if is_wanted else None

    def update(self, chunk: bytes) -> None:
        """Take in what comes next."""
        self.bytes += len(chunk)
        self._sha256.update(chunk)
        if self._git is not None:
            self._git.update(chunk)

    def digest(self) -> Digest:
        """Of everything so far. The git id is empty where it is not wanted."""
        return Digest(self.bytes, self._sha256.hexdigest(), self._git.hexdigest() if self._git is not None else "")


def digest_file(path: Path, progress: Progress | None = None, *, git: bool = False) -> Digest:
    """The digest of a file, with its git id if that is wanted.

    Raises:
        OSError: it cannot be read.
        Cancelled: the user stopped it.
    """
    with path.open("rb") as stream:
        hasher = Hasher(path.stat().st_size if git else None)
        while chunk := stream.read(_CHUNK):
            if progress is not None:
                progress.check()
            hasher.update(chunk)
    return hasher.digest()


def hash_file(path: Path, progress: Progress | None = None) -> str:
    """The sha256 of a file, as 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
        Cancelled: the user stopped it.
    """
    return digest_file(path, progress).sha256
