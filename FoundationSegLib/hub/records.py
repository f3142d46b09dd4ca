"""What the store writes down: which files are whole, which commit a revision was, which licences were accepted."""

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORD = "complete.json"
PINS = "pins.json"
LICENSES = "licenses.json"
_SIZE_LIMIT = 1 << 24  # what the store wrote itself is far smaller
_DAMAGED = -1
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file as it was when its hash was last checked; ``changed_ns`` is its time of last change."""

    path: str
    bytes: int
    sha256: str
    changed_ns: int

    def damaged(self) -> "FileRecord":
        """The same file after somebody found it changed: what it should be is still known."""
        return FileRecord(self.path, self.bytes, self.sha256, _DAMAGED)


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object; an empty one where the file is not there or is no such thing."""
    try:
        if path.stat().st_size > _SIZE_LIMIT:
            return {}
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file so that there is the old one or the new one, never half of one.

    Raises:
        OSError: it cannot be written; the old one is still there.
    """
    with tempfile.TemporaryDirectory(prefix="incoming-", dir=path.parent) as incoming:
        temporary = Path(incoming) / path.name
        temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")
        flush_to_disk(temporary)
        temporary.replace(path)


def flush_to_disk(path: Path) -> None:
    """Make sure that a file's bytes are on the disk, and not only on their way to it.

    After a power cut, a file that was renamed too early may have its length and not its bytes.
    """
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_record(folder: Path) -> dict[str, FileRecord] | None:
    """The files of a checkpoint by the path that the card gives them; None without a record that can be read."""
    entries = read_json(folder / RECORD).get("files")
    if not isinstance(entries, list):
        return None
    try:
        records = [FileRecord(**entry) for entry in entries]
        return {record.path: record for record in records} if all(map(_is_sound, records)) else None
    except TypeError:
        return None


def _is_sound(record: FileRecord) -> bool:
    """Half downloads are named by their hash: a record must not name something else."""
    texts = isinstance(record.path, str) and isinstance(record.sha256, str) and _SHA256.fullmatch(record.sha256)
    return bool(texts) and type(record.bytes) is int and type(record.changed_ns) is int


def write_record(folder: Path, about: Mapping[str, Any], records: Sequence[FileRecord]) -> None:
    """Write the record that makes a checkpoint whole.

    Raises:
        OSError: it cannot be written.
    """
    files = [{name: getattr(record, name) for name in FileRecord.__slots__} for record in records]
    write_json(folder / RECORD, {"version": 1, **about, "files": files})


def read_pins(folder: Path) -> dict[str, str]:
    """The commits that revisions meant when they were first downloaded, by ``repository@revision``."""
    pins = read_json(folder / PINS).get("pins")
    if not isinstance(pins, dict):
        return {}
    return {str(name): commit for name, commit in pins.items() if isinstance(commit, str)}


def write_pins(folder: Path, pins: Mapping[str, str]) -> None:
    """Write them.

    Raises:
        OSError: they cannot be written.
    """
    write_json(folder / PINS, {"version": 1, "pins": dict(pins)})
