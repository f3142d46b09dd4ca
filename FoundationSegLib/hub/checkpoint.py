"""What a checkpoint is on the Hub: each file with its commit, length and hash, the card's and the Hub's agreed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..core.cards import CheckpointFile, ModelCard
from ..core.errors import CheckpointError
from ..core.progress import Progress
from .names import safe_path
from .online import Patience, hub_client
from .records import FileRecord
from .remote import RemoteFile, Repository, look_up
from .store import Store, known_bytes
from .transfer import Wanted


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A card's files on the Hub.

    Attributes:
        repositories: by repository and revision, as the card names them.
        wanted: every file of the card, in its order.
    """

    repositories: Mapping[tuple[str, str], Repository]
    wanted: tuple[tuple[CheckpointFile, Wanted], ...]


def find_checkpoint(
    store: Store, card: ModelCard, patience: Patience, progress: Progress, *, pinned: bool = True
) -> Checkpoint:
    """Ask the Hub for a card's files.

    Args:
        store: what revisions meant before is written there.
        card: the model.
        patience: with the network.
        progress: what stops it.
        pinned: at the commits that the store knows the revisions by; otherwise at those they mean today.

    Raises:
        CheckpointError: the Hub cannot be asked, lacks a file, or has another one than the card says.
        Cancelled: the user stopped it.
    """
    repositories: dict[tuple[str, str], Repository] = {}
    for place in card.source.origins:
        name, revision = place
        paths = {file.path for file in card.source.files if card.source.origin(file) == place}
        commit = store.commit(card, name, revision) if pinned else ""
        repositories[place] = look_up(name, commit or revision, paths, patience, progress)
        if commit and repositories[place].commit != commit:
            raise CheckpointError(f"the Hub answers for {name} with another commit than {commit[:12]}; try again later")
    records = store.records(card) or {}
    wanted = tuple(
        (file, _wanted(card, file, repositories[card.source.origin(file)], records)) for file in card.source.files
    )
    return Checkpoint(repositories, wanted)


def _wanted(card: ModelCard, file: CheckpointFile, repository: Repository, records: Mapping[str, FileRecord]) -> Wanted:
    path = safe_path(file.path)
    remote = repository.files.get(path)
    if remote is None:
        raise CheckpointError(f"{path} of {card.id} is not in {repository.name} at {repository.commit[:12]}")
    remote = _agreed(card, file, remote, records.get(file.path))
    url = hub_client().hf_hub_url(repository.name, path, revision=repository.commit)
    return Wanted(repository.name, path, repository.commit, remote, url)


def _agreed(card: ModelCard, file: CheckpointFile, remote: RemoteFile, record: FileRecord | None) -> RemoteFile:
    """What a file has to be, where the card, the Hub and an earlier download say the same of it."""
    what = f"{file.path} of {card.id}"
    if known_bytes(card, file) not in (None, remote.bytes):
        raise CheckpointError(
            f"{what} has {remote.bytes} bytes on the Hub and not {file.bytes}, as its card says; it was changed there, "
            "so it is not downloaded: update FoundationSeg, or correct the card"
        )
    if file.sha256 and remote.sha256 not in ("", file.sha256):
        raise CheckpointError(
            f"{what} has another hash on the Hub than its card says; it was changed there, so it is not downloaded: "
            "update FoundationSeg, or correct the card"
        )
    known = file.sha256 or (record.sha256 if record else "")
    if known and not re.fullmatch("[0-9a-f]{64}", known):
        raise CheckpointError(f"the card's hash of {what} is none; it needs 64 hexadecimal digits")
    if not (known or remote.sha256 or remote.git_oid):
        raise CheckpointError(f"neither the Hub nor the card says what the hash of {what} is, so it is not downloaded")
    if record and not file.sha256 and (record.bytes != remote.bytes or remote.sha256 not in ("", record.sha256)):
        raise CheckpointError(
            f"{what} is not what the Hub had when it was first downloaded; if you trust the new one, "
            f"run 'models remove {card.id}' and download again"
        )
    return replace(remote, sha256=known or remote.sha256)
