"""Store of checkpoints: one folder per model and commit, and a record, written last, that makes a checkpoint whole."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from ..catalog.catalogue import has_adapter
from ..catalog.model_cards import CheckpointFile, ModelCard
from ..codec import frozen
from ..errors import CheckpointError, write_failure
from ..folders import Locked, locked, user_folder
from ..progress import Progress, bytes_text
from . import records as record_files

Status = Literal["absent", "partial", "ready", "damaged"]

STORE_VARIABLE = "FOUNDATIONSEG_STORE"
INCOMING = "incoming"  # folder of partial files
_LEFT_BEHIND_S = 24 * 3600.0  # from this age on, a folder of a wheel's download belongs to a process that was killed
_UNKNOWN_BYTES = 64 << 30  # limit of a file whose length is not known
_RESERVE = 64 << 20  # bytes; a disk that is full to the last byte stops every other program too

# Puts every file of the card into an empty folder of its own, each under its own name. The files are checked, moved
# into the checkpoint if all are right, and thrown away otherwise.
Fetch = Callable[[ModelCard, Path, Progress], None]


def default_store_folder() -> Path:
    """Folder in the user's cache directory, unless the variable :data:`STORE_VARIABLE` names another."""
    return user_folder("cache", STORE_VARIABLE, "FoundationSeg")


def known_bytes(card: ModelCard, file: CheckpointFile) -> int | None:
    """Length of a file in bytes, if the card is sure of it; None if the Hub has to say it."""
    field = f"source.files[{card.source.files.index(file)}].bytes"
    return None if card.is_unverified(field) else file.bytes


def most_bytes(card: ModelCard, file: CheckpointFile) -> int:
    """The most bytes of a file that are taken out of an archive: its length, or far more than any model has."""
    length = known_bytes(card, file)
    return _UNKNOWN_BYTES if length is None else length


def free_bytes(folder: Path) -> int:
    """Room on the disk that a folder is on, or would be on, in bytes."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_room(folder: Path, needed: int, model_id: str) -> None:
    """Make sure that so many bytes can be stored.

    Raises:
        CheckpointError: there is no room for them.
    """
    free = free_bytes(folder)
    if needed and needed + _RESERVE > free:
        raise CheckpointError(
            f"{model_id} needs {bytes_text(needed)} more, and the disk has {bytes_text(free)} free; make room, or "
            f"choose another folder with {STORE_VARIABLE}"
        )


@frozen
class Store:
    """Checkpoints below one folder."""

    folder: Path

    def all_of(self, card: ModelCard) -> Path:
        """Folder of everything that the store has of a model, whatever the commit and the resolution."""
        return self.folder / "models" / record_files.folder_name(card.id.partition("@")[0])

    def commit(self, card: ModelCard, repository: str = "", revision: str = "") -> str:
        """Commit that a card's revision stands for in this store; empty if the Hub was never asked."""
        repository, revision = repository or card.source.repository, revision or card.source.revision
        if card.source.kind != "hub" or record_files.COMMIT.fullmatch(revision):
            return revision
        commit = record_files.read_pins(self.all_of(card)).get(f"{repository}@{revision}", "")
        return commit if record_files.COMMIT.fullmatch(commit) else ""

    def pin(self, card: ModelCard, commits: Mapping[tuple[str, str], str]) -> None:
        """Write down which commits repositories and revisions stand for from now on.

        Raises:
            OSError: it cannot be written.
        """
        named = {f"{repository}@{revision}": commit for (repository, revision), commit in commits.items()}
        folder, imported = self.all_of(card), self.model_folder(card)
        if (pins := record_files.read_pins(folder)) != pins | named:
            folder.mkdir(parents=True, exist_ok=True)
            record_files.write_json(folder / record_files.PINS, {"version": 1, "pins": pins | named})
        if not pins:  # what an import recorded proves nothing; its files may be right
            (imported / record_files.RECORD).unlink(missing_ok=True)
        if imported.is_dir() and imported != (target := self.model_folder(card)) and not target.exists():
            imported.rename(target)

    def model_folder(self, card: ModelCard) -> Path:
        """Folder of the files of a card's commit, whether they are there or not."""
        return self.all_of(card) / record_files.folder_name(self.commit(card) or card.source.revision)

    def file_path(self, card: ModelCard, file: CheckpointFile) -> Path:
        """Path of one file of the checkpoint, whether it is there or not.

        A file of the Hub keeps its path, below a folder of its own if it comes from a second repository.
        """
        if card.source.kind != "hub":
            return self.model_folder(card) / record_files.safe_path(file.name)
        repository = card.source.origin(file)[0]
        folder = self.model_folder(card)
        if repository != card.source.repository:
            folder /= record_files.folder_name(repository.replace("/", "--"))
        return folder / record_files.safe_path(file.path)

    def status(self, card: ModelCard) -> Status:
        """Status of the checkpoint, by the record and the sizes and times of its files, not their bytes.

        ``damaged`` is a checkpoint that was whole once: a file has gone, or changed since its hash was checked.
        """
        records = self.records(card)
        if records is None:
            folder = self.model_folder(card)
            return "partial" if any(path.is_file() for path in folder.rglob("*")) else "absent"
        return "ready" if all(self.is_unchanged(card, file, records) for file in card.source.files) else "damaged"

    def has_hashes(self, card: ModelCard) -> bool:
        """True where the hashes of a checkpoint are its makers': the card's, or those that the Hub gave."""
        return bool(record_files.read_pins(self.all_of(card))) or all(file.sha256 for file in card.source.files)

    def makers_records(self, card: ModelCard) -> Mapping[str, record_files.FileRecord]:
        """Records of the files of a checkpoint whose hashes are its makers'; those of another import prove nothing."""
        return (self.records(card) or {}) if self.has_hashes(card) else {}

    def is_certain(self, card: ModelCard) -> bool:
        """True for a checkpoint that is here and its makers'; one that was imported without a hash may be any file."""
        return self.status(card) == "ready" and self.has_hashes(card)

    def bytes_here(self, card: ModelCard) -> int:
        """Length in bytes of all that the store has of a card's commit, partial files included."""
        folder = self.model_folder(card)
        return sum(
            path.lstat().st_size for path in folder.rglob("*") if path.is_file() and path.name != record_files.RECORD
        )

    def records(self, card: ModelCard) -> dict[str, record_files.FileRecord] | None:
        """Records of the files, by the card's path; None if the checkpoint was never whole."""
        return record_files.read_record(self.model_folder(card))

    def is_unchanged(
        self, card: ModelCard, file: CheckpointFile, records: Mapping[str, record_files.FileRecord]
    ) -> bool:
        """True for a file that matches the card, and was not touched since its hash was checked."""
        record = records.get(file.path)
        if record is None or file.sha256 not in ("", record.sha256):
            return False
        if known_bytes(card, file) not in (None, record.bytes):
            return False
        try:
            status = self.file_path(card, file).stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (record.bytes, record.changed_ns)

    def checkpoint_files(self, card: ModelCard) -> dict[str, Path]:
        """Paths of all files of a usable checkpoint, by the path that the card gives each.

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
        """Sha256 of the checkpoint's first file, from the record; empty if there is no record."""
        record = (self.records(card) or {}).get(card.source.files[0].path)
        return record.sha256 if record else ""

    def verify(self, card: ModelCard, progress: Progress | None = None) -> None:
        """Hash every file, and write the record if all are right.

        A wrong one is marked in the record, so that the next download gets it again, and it alone.

        Raises:
            CheckpointError: a file is missing or damaged; the message names it and how to get it again.
            Cancelled: the user stopped it.
        """
        records = self.records(card) or {}
        checked = []
        for n, file in enumerate(card.source.files):
            if progress is not None:
                progress.step("verify", n, len(card.source.files))
            expected = file.sha256 or (records[file.path].sha256 if file.path in records else "")
            try:
                checked.append(_check_file(self.file_path(card, file), card, file, expected, progress))
            except CheckpointError:
                if file.path in records:  # its right length and hash stay known
                    records[file.path] = replace(records[file.path], changed_ns=record_files.DAMAGED)
                    self._try_to_write_record(card, records.values())
                raise
        self._try_to_write_record(card, checked)

    def _try_to_write_record(self, card: ModelCard, records: Iterable[record_files.FileRecord]) -> None:
        """Write the record if possible. A store that cannot be written, or that a download is changing, is still good
        to read: the next start hashes again.
        """
        with contextlib.suppress(OSError, CheckpointError), self.lock(card):
            self.write_record(card, records)

    def fetch(self, card: ModelCard, fetch: Fetch, progress: Progress) -> None:
        """Download a checkpoint. It is ready only once every hash was checked; until then an earlier one stays.

        Raises:
            CheckpointError: it cannot be fetched or is not what the card says.
            Cancelled: the user stopped it.
        """
        folder = self.model_folder(card)
        with store_errors(card):
            folder.mkdir(parents=True, exist_ok=True)
            record_files.require_inside(self.folder, folder / record_files.RECORD)
            clear_left_behind(folder)
            with tempfile.TemporaryDirectory(prefix=f"{INCOMING}-", dir=folder) as incoming:
                fetch(card, Path(incoming), progress)
                records = [_check_file(Path(incoming) / f.name, card, f, f.sha256, progress) for f in card.source.files]
                for file in card.source.files:  # a rename leaves the time of last change alone
                    (Path(incoming) / file.name).replace(self.file_path(card, file))
            self.write_record(card, records)

    def write_record(self, card: ModelCard, records: Iterable[record_files.FileRecord]) -> None:
        """Write the record that makes a checkpoint whole.

        Raises:
            OSError: it cannot be written.
        """
        source = {"model": card.id, "source": card.source.repository, "revision": card.source.revision}
        files = [asdict(record) for record in records]
        document = {"version": 1, **source, "commit": self.commit(card), "files": files}
        record_files.write_json(self.model_folder(card) / record_files.RECORD, document)

    @contextlib.contextmanager
    def lock(self, card: ModelCard, progress: Progress | None = None) -> Iterator[bool]:
        """Keep other processes from changing a model in the store, once none does.

        Args:
            card: the model.
            progress: waits until it may be changed, or until this is cancelled; without it, nothing is waited for.

        Yields:
            True if another process was at it before.

        Raises:
            CheckpointError: another process changes it right now, or the store cannot be written.
            Cancelled: the user stopped the waiting.
        """
        folder = self.all_of(card)
        with contextlib.ExitStack() as stack:
            with store_errors(card):
                folder.parent.mkdir(parents=True, exist_ok=True)
                record_files.require_inside(self.folder, folder)
                try:
                    has_waited = stack.enter_context(locked(folder.with_name(f"{folder.name}.lock"), progress))
                except Locked:
                    raise CheckpointError(f"{card.id} is in use by another download; try again later") from None
            yield has_waited


@contextlib.contextmanager
def store_errors(card: ModelCard, action: str = "stored") -> Iterator[None]:
    """Turn an error of the disk into one that says what could not be done, and a remedy."""
    try:
        yield
    except OSError as error:
        reason = f"{write_failure(error)} ({STORE_VARIABLE} names the folder)"
        raise CheckpointError(f"the checkpoint of {card.id} cannot be {action}: {reason}") from error


def clear_left_behind(folder: Path, older_than_s: float = _LEFT_BEHIND_S) -> None:
    """Remove the partial files of killed processes; younger ones may still be in use by a process without the lock."""
    for path in folder.glob(f"{INCOMING}-*"):
        if time.time() - path.lstat().st_mtime > older_than_s:
            shutil.rmtree(path, ignore_errors=True)


def _check_file(
    path: Path, card: ModelCard, file: CheckpointFile, expected: str, progress: Progress | None = None
) -> record_files.FileRecord:
    remedy = f"run 'foundationseg models download {card.id}' to get it again"
    try:
        status, sha256 = path.stat(), record_files.digest_file(path, progress).sha256
    except FileNotFoundError:
        raise CheckpointError(f"the checkpoint file {file.name} of {card.id} is missing; {remedy}") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CheckpointError(f"the checkpoint file {file.name} of {card.id} cannot be read: {reason}") from error
    if known_bytes(card, file) not in (None, status.st_size) or (expected and sha256 != expected):
        raise CheckpointError(f"the checkpoint file {file.name} of {card.id} is damaged: its hash is wrong; {remedy}")
    return record_files.FileRecord(file.path, status.st_size, sha256, status.st_mtime_ns)


def describe(card: ModelCard, store: Store) -> dict[str, Any]:
    """Return a card's line in ``models list --json``.

    ``runnable`` says whether this version can run it. ``bytes`` counts what is known of the download: ``bytes_known``
    is false where a file is missing from it. ``unverified`` names the fields that are not certain.
    """
    return {
        "id": card.id,
        "title": card.title,
        "task": card.task,
        "family": card.family,
        "prompts": list(card.prompts),
        "dimensions": list(card.dimensions),
        "license": card.license.name,
        "commercial_use": card.license.commercial_use,
        "gated": card.gated,
        "status": store.status(card),
        "bytes": card.source.bytes,
        "bytes_known": card.source.bytes_known,
        "runnable": has_adapter(card),
        "must_accept": card.license.must_accept,
        "unverified": list(card.unverified),
    }


def model_document(card: ModelCard, store: Store) -> dict[str, Any]:
    """Return all of a card, as ``models show --json`` does: ``license`` is its short name, ``terms`` all of it."""
    return asdict(card) | {"terms": asdict(card.license)} | describe(card, store)
