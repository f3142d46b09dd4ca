"""The store: one folder per model and revision, and a record, written last, that says the checkpoint is whole."""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..core.cards import CheckpointFile, ModelCard
from ..core.errors import CheckpointError
from ..core.progress import Progress

Status = Literal["absent", "partial", "ready", "damaged"]

STORE_VARIABLE = "FOUNDATIONSEG_STORE"
RECORD = "complete.json"
_INCOMING = "incoming-"  # the folder that a download grows in
_LEFT_BEHIND_S = 24 * 3600.0  # from this age on, such a folder belongs to a process that was killed

# Puts every file of the card into a folder, each under its own name. The folder is empty and its own; what it holds
# is checked, moved to its place if all is right, and thrown away otherwise.
Fetch = Callable[[ModelCard, Path, Progress], None]


def default_store_folder() -> Path:
    """The folder in the user's cache directory, unless the variable :data:`STORE_VARIABLE` names another."""
    chosen = os.environ.get(STORE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "FoundationSeg"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file as it was when its hash was last checked; ``changed_ns`` is its time of last change."""

    path: str
    bytes: int
    sha256: str
    changed_ns: int


@dataclass(frozen=True, slots=True)
class Store:
    """Checkpoints below one folder."""

    folder: Path

    def model_folder(self, card: ModelCard) -> Path:
        """Where the files of a card's revision lie, whether they are there or not."""
        return self.folder / "models" / card.id / card.source.revision

    def file_path(self, card: ModelCard, file: CheckpointFile) -> Path:
        """Where one file of the checkpoint lies, whether it is there or not."""
        return self.model_folder(card) / file.name

    def status(self, card: ModelCard) -> Status:
        """Whether the checkpoint can be used. Reads the record and the files' sizes and times, not their bytes.

        ``damaged`` is a checkpoint that was whole once: a file has gone, or changed since its hash was checked.
        """
        records = self._read_record(card)
        if records is None:
            folder = self.model_folder(card)
            return "partial" if folder.is_dir() and any(folder.iterdir()) else "absent"
        whole = all(_unchanged(self.file_path(card, file), file, records.get(file.path)) for file in card.source.files)
        return "ready" if whole else "damaged"

    def checkpoint_files(self, card: ModelCard) -> dict[str, Path]:
        """Every file of a usable checkpoint, by the path that the card gives it.

        A file whose time or size is not that of the record is hashed again, so that a copied or touched folder is
        still good and a corrupt one is not.

        Raises:
            CheckpointError: the checkpoint is not there, not whole, or damaged.
        """
        status = self.status(card)
        if status in ("absent", "partial"):
            raise CheckpointError(f"the checkpoint of {card.id} is not downloaded ({status})")
        if status == "damaged":
            self.verify(card)
        return {file.path: self.file_path(card, file) for file in card.source.files}

    def sha256(self, card: ModelCard) -> str:
        """The sha256 of the checkpoint's first file, from the record; empty if there is no record."""
        records = self._read_record(card) or {}
        record = records.get(card.source.files[0].path)
        return record.sha256 if record else ""

    def verify(self, card: ModelCard) -> None:
        """Hash every file, and write the record if all are what they should be.

        Raises:
            CheckpointError: a file is missing or damaged; the message names it and how to get it again.
        """
        records = self._read_record(card) or {}
        checked = []
        for file in card.source.files:
            path = self.file_path(card, file)
            expected = file.sha256 or (records[file.path].sha256 if file.path in records else "")
            checked.append(_check_file(path, file, expected, card.id))
        # A store that cannot be written is still good to read: the next start hashes again.
        with contextlib.suppress(OSError):
            self._write_record(card, checked)

    def fetch(self, card: ModelCard, fetch: Fetch, progress: Progress) -> None:
        """Download a checkpoint. It counts as ready only once every hash was checked; until then what was there stays.

        Raises:
            CheckpointError: it cannot be fetched or is not what the card says.
            Cancelled: the user stopped it.
        """
        folder = self.model_folder(card)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _clear_left_behind(folder)
            with tempfile.TemporaryDirectory(prefix=_INCOMING, dir=folder) as incoming:
                fetch(card, Path(incoming), progress)
                records = [_check_file(Path(incoming) / f.name, f, f.sha256, card.id) for f in card.source.files]
                for file in card.source.files:  # a rename leaves the time of last change alone
                    (Path(incoming) / file.name).replace(self.file_path(card, file))
            self._write_record(card, records)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            remedy = f"make room, or choose another folder with {STORE_VARIABLE}"
            raise CheckpointError(f"the checkpoint of {card.id} cannot be stored: {reason}; {remedy}") from error

    def _read_record(self, card: ModelCard) -> dict[str, FileRecord] | None:
        try:
            document = json.loads((self.model_folder(card) / RECORD).read_text(encoding="utf-8"))
            return {entry["path"]: FileRecord(**entry) for entry in document["files"]}
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _write_record(self, card: ModelCard, records: list[FileRecord]) -> None:
        document = {"version": 1, "model": card.id, "source": card.source.repository, "revision": card.source.revision}
        document["files"] = [{name: getattr(r, name) for name in FileRecord.__slots__} for r in records]
        target = self.model_folder(card) / RECORD
        with tempfile.TemporaryDirectory(prefix=_INCOMING, dir=target.parent) as incoming:
            temporary = Path(incoming) / RECORD
            temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")
            temporary.replace(target)


def _clear_left_behind(folder: Path) -> None:
    """Remove what downloads left that were killed; those of the last day may still be under way elsewhere."""
    for path in folder.glob(f"{_INCOMING}*"):
        if time.time() - path.stat().st_mtime > _LEFT_BEHIND_S:
            shutil.rmtree(path, ignore_errors=True)


def _unchanged(path: Path, file: CheckpointFile, record: FileRecord | None) -> bool:
    if record is None or record.bytes != file.bytes or file.sha256 not in ("", record.sha256):
        return False
    try:
        present = path.stat()
    except OSError:
        return False
    return (present.st_size, present.st_mtime_ns) == (record.bytes, record.changed_ns)


def _check_file(path: Path, file: CheckpointFile, expected: str, model_id: str) -> FileRecord:
    remedy = f"run 'models download {model_id}' to get it again"
    try:
        present, sha256 = path.stat(), hash_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"the checkpoint file {file.name} of {model_id} is missing; {remedy}") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CheckpointError(f"the checkpoint file {file.name} of {model_id} cannot be read: {reason}") from error
    if present.st_size != file.bytes or (expected and sha256 != expected):
        raise CheckpointError(f"the checkpoint file {file.name} of {model_id} is damaged: its hash is wrong; {remedy}")
    return FileRecord(file.path, present.st_size, sha256, present.st_mtime_ns)


def hash_file(path: Path) -> str:
    """The sha256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
