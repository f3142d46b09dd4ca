"""Files of the store: names that stay inside it, hashes of what they hold, and the JSON records beside them."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ..codec import from_document, frozen
from ..errors import CheckpointError, DocumentError
from ..folders import is_safe_name, is_safe_path
from ..progress import Progress

RECORD = "complete.json"
PINS = "pins.json"
LICENSES = "licenses.json"
DAMAGED = -1
CHUNK = 1 << 20  # bytes that are read, hashed and written at a time
_LONGEST_FOLDER_NAME = 120  # file systems allow 255 bytes; the suffixes of a download must fit too
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")
_LARGEST_RECORD = 1 << 24  # bytes; records that the store wrote are far smaller
SHA256, COMMIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


def folder_name(text: str) -> str:
    """Turn a text into the name of one folder: all but letters, digits, dots, dashes and pluses becomes ``_``."""
    name = _UNSAFE.sub("_", text)[:_LONGEST_FOLDER_NAME].rstrip(".")
    return name if is_safe_name(name) and not name.startswith(".") else f"_{name}"


def safe_path(path: str) -> str:
    """Return the path of a file in a checkpoint, if it is safe on every system.

    Raises:
        CheckpointError: it could lead out of its folder, or means something else on another system.
    """
    if not is_safe_path(path):
        raise CheckpointError(f"the file name {path[:80]!r} is not one that a checkpoint may have")
    return path


def require_inside(folder: Path, path: Path) -> None:
    """Make sure that no link between a folder and a path below it leads elsewhere.

    Raises:
        CheckpointError: one does.
    """
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(f"a link inside the store leads out of it, near {path.parent.name}; remove it")


@frozen
class Digest:
    """Length of a file in bytes, its sha256 and its git object id in hexadecimal digits; an unknown one is empty.

    The Hub identifies large files by the first hash and small ones by the second:
    https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
    """

    bytes: int
    sha256: str = ""
    git_oid: str = ""

    def matches(self, actual: "Digest") -> bool:
        """Compare a file with this expected digest, by the git id only where no sha256 is expected."""
        if self.sha256:
            return (self.bytes, self.sha256) == (actual.bytes, actual.sha256)
        return (self.bytes, self.git_oid) == (actual.bytes, actual.git_oid)


class Hasher:
    """Hashes of a file that arrives in pieces.

    Args:
        git_length: final length of the file in bytes if its git id is needed, which hashes the length first.
    """

    def __init__(self, git_length: int | None = None) -> None:
        self.bytes = 0
        self._sha256 = hashlib.sha256()
        self._git = None
        if git_length is not None:
            self._git = hashlib.sha1(b"blob %d\0" % git_length, usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        """Add the next piece."""
        self.bytes += len(chunk)
        self._sha256.update(chunk)
        if self._git is not None:
            self._git.update(chunk)

    def digest(self) -> Digest:
        """Digest of all pieces so far."""
        return Digest(self.bytes, self._sha256.hexdigest(), self._git.hexdigest() if self._git is not None else "")


def digest_file(path: Path, progress: Progress | None = None, *, git: bool = False) -> Digest:
    """Hash a file, for its git id too if ``git`` is set.

    Raises:
        OSError: it cannot be read.
        Cancelled: the user stopped it.
    """
    with path.open("rb") as stream:
        hasher = Hasher(path.stat().st_size if git else None)
        while chunk := stream.read(CHUNK):
            if progress is not None:
                progress.check()
            hasher.update(chunk)
    return hasher.digest()


@frozen
class FileRecord:
    """A file as it was when its hash was last checked.

    Attributes:
        path: the path that the card gives it.
        bytes: its length.
        sha256: its hash.
        changed_ns: its time of last change; :data:`DAMAGED` after it was found damaged.
    """

    path: str
    bytes: int
    sha256: str
    changed_ns: int


def bounded_pieces(stream: IO[bytes], most: int) -> Iterator[bytes]:
    """Yield what a stream holds, and of one that holds more than it may no more than one byte beyond."""
    left = most + 1
    while left > 0 and (piece := stream.read(min(CHUNK, left))):
        left -= len(piece)
        yield piece


def read_json(path: Path) -> Mapping[str, Any]:
    """Read a JSON object; an empty one if the file is missing or holds anything else."""
    try:
        if path.stat().st_size > _LARGEST_RECORD:
            return {}
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Replace a JSON file at once, so that it is never half written.

    Raises:
        OSError: it cannot be written; the old one is still there.
    """
    write_whole(path, json.dumps(document, indent=1))


def write_whole(path: Path, text: str) -> None:
    """Replace a file at once, as :func:`write_json` does.

    Raises:
        OSError: it cannot be written; the old one is still there.
    """
    with tempfile.TemporaryDirectory(prefix="incoming-", dir=path.parent) as incoming:
        temporary = Path(incoming) / path.name
        temporary.write_text(text, encoding="utf-8")
        flush_to_disk(temporary)
        temporary.replace(path)


def flush_to_disk(path: Path) -> None:
    """Wait until the bytes of a file are on the disk.

    After a power cut, a file that was renamed too early may have its length and not its bytes.
    """
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_record(folder: Path) -> dict[str, FileRecord] | None:
    """Read the files of a checkpoint, by the path that the card gives them; None without a readable record."""
    try:
        records: tuple[FileRecord, ...] = from_document(
            tuple[FileRecord, ...], read_json(folder / RECORD).get("files"), RECORD
        )
    except DocumentError:
        return None
    # Partial files are named by their hash, so it must not be any other text.
    are_hashes = all(SHA256.fullmatch(record.sha256) for record in records)
    return {record.path: record for record in records} if are_hashes else None


def read_pins(folder: Path) -> dict[str, str]:
    """Read which commits revisions stood for when they were first downloaded, by ``repository@revision``."""
    pins = read_json(folder / PINS).get("pins")
    if not isinstance(pins, dict):
        return {}
    return {str(name): commit for name, commit in pins.items() if isinstance(commit, str)}
