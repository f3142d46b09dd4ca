"""A checkpoint from the Hub into the store: what is missing or damaged, and nothing else."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.cards import CheckpointFile, ModelCard
from ..core.errors import CheckpointError
from ..core.progress import Progress, ProgressReport
from .checkpoint import Checkpoint, find_checkpoint
from .digests import Digest, digest_file
from .names import require_inside
from .online import Patience, online
from .records import FileRecord
from .reuse import adopt
from .room import require_room
from .store import INCOMING, Store, clear_left_behind, store_errors
from .transfer import Meter, Wanted, download


def fetch_from_hub(store: Store, card: ModelCard, progress: Progress, patience: Patience | None = None) -> None:
    """Fetch what the store lacks of a checkpoint; call it with the store locked for the model.

    Whole files are put in their places one by one, and the record is written at the end. What has arrived of others
    is kept when this fails, and the next call goes on from there.

    Raises:
        CheckpointError: it cannot be fetched, or is not what the card or the Hub says.
        Cancelled: the user stopped it.
    """
    patience = patience or Patience()
    with online(), store_errors(card):
        checkpoint = find_checkpoint(store, card, patience, progress)
        store.pin(card, {place: found.commit for place, found in checkpoint.repositories.items()})
        _Fetching(store, card, progress, patience).run(checkpoint)


@dataclass(slots=True)
class _Fetching:
    """One fetch: ``here`` is how many bytes are there already, ``total`` how many there will be."""

    store: Store
    card: ModelCard
    progress: Progress
    patience: Patience
    here: int = 0
    total: int = 0

    def run(self, checkpoint: Checkpoint) -> None:
        incoming = self.store.model_folder(self.card) / INCOMING
        incoming.mkdir(parents=True, exist_ok=True)
        require_inside(self.store.folder, incoming / "file")
        self.total = sum(wanted.remote.bytes for _, wanted in checkpoint.wanted)
        records = {file.path: self._record_of_present(file, wanted) for file, wanted in checkpoint.wanted}
        missing = [(file, wanted) for file, wanted in checkpoint.wanted if records[file.path] is None]
        self.here = self.total - sum(wanted.remote.bytes for _, wanted in missing)
        require_room(self.store.folder, sum(lacking_bytes(incoming, wanted) for _, wanted in missing), self.card.id)
        for file, wanted in missing:
            records[file.path] = self._fetch(file, wanted, incoming)
            self.here += wanted.remote.bytes
        self.store.write_record(self.card, [record for record in records.values() if record is not None])
        shutil.rmtree(incoming, ignore_errors=True)
        for folder in (incoming.parent, self.store.all_of(self.card)):  # whatever writes there holds the lock
            clear_left_behind(folder, older_than_s=-1e9)
        self.progress.report(ProgressReport("download", self.total, self.total))

    def _record_of_present(self, file: CheckpointFile, wanted: Wanted) -> FileRecord | None:
        """The record of a file that is in its place and right; None where it has to be fetched."""
        path = self.store.file_path(self.card, file)
        records = self.store.records(self.card) or {}
        if self.store.is_unchanged(self.card, file, records) and _is_met(wanted, records[file.path]):
            return records[file.path]
        with contextlib.suppress(FileNotFoundError):
            if not path.is_symlink() and path.stat().st_size == wanted.remote.bytes:
                digest = digest_file(path, self.progress, git=not wanted.remote.sha256)
                return _record(file, path, digest) if wanted.is_met_by(digest) else None
        return None

    def _fetch(self, file: CheckpointFile, wanted: Wanted, incoming: Path) -> FileRecord:
        target, partial = self.store.file_path(self.card, file), incoming / wanted.partial_name
        require_inside(self.store.folder, target)
        with self._counting(file, wanted) as meter:
            meter(0)
            arrived = incoming / f"{wanted.partial_name}.found"
            digest = adopt(wanted, arrived, self.progress) if not _has_bytes(partial) else None
            if digest is None:
                digest, arrived = download(wanted, partial, self.patience, self.progress, meter), partial
        target.parent.mkdir(parents=True, exist_ok=True)
        arrived.replace(target)
        return _record(file, target, digest)

    @contextlib.contextmanager
    def _counting(self, file: CheckpointFile, wanted: Wanted) -> Iterator[Meter]:
        def meter(done: int) -> None:
            self.progress.check()
            self.progress.report(
                ProgressReport("download", self.here + done, self.total, file.name, done, wanted.remote.bytes)
            )

        yield meter


def _is_met(wanted: Wanted, record: FileRecord) -> bool:
    return record.bytes == wanted.remote.bytes and wanted.remote.sha256 in ("", record.sha256)


def _record(file: CheckpointFile, path: Path, digest: Digest) -> FileRecord:
    present = path.stat()
    if present.st_size != digest.bytes:
        raise CheckpointError(f"{file.name} was changed by another program while it was downloaded; try again")
    return FileRecord(file.path, digest.bytes, digest.sha256, present.st_mtime_ns)


def _has_bytes(partial: Path) -> bool:
    with contextlib.suppress(OSError):
        return partial.stat().st_size > 0
    return False


def lacking_bytes(incoming: Path, wanted: Wanted) -> int:
    """How much of a file has still to come, in bytes."""
    with contextlib.suppress(OSError):
        return max(0, wanted.remote.bytes - (incoming / wanted.partial_name).stat().st_size)
    return wanted.remote.bytes
