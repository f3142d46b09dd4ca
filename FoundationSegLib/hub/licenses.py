"""Licences that the user has accepted: once for a model and a licence, written down in the store."""

import time
from typing import Any

from ..core.cards import ModelCard
from .records import LICENSES, read_json, write_json
from .store import Store, store_errors


def must_accept(card: ModelCard) -> bool:
    """True where the terms of a model have to be accepted before it is downloaded."""
    return card.gated or card.license.must_accept


def is_accepted(store: Store, card: ModelCard) -> bool:
    """True where these very terms were accepted before; terms that have changed since then were not."""
    return any(entry.get("terms") == _terms(card) for entry in _accepted(store))


def accept(store: Store, card: ModelCard) -> None:
    """Write down that the user accepts a model's terms.

    Raises:
        CheckpointError: the store cannot be written.
    """
    if is_accepted(store, card):
        return
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    entries = [*_accepted(store), {"terms": _terms(card), "accepted": when}]
    with store_errors(card):
        store.folder.mkdir(parents=True, exist_ok=True)
        write_json(store.folder / LICENSES, {"version": 1, "accepted": entries})


def _terms(card: ModelCard) -> dict[str, Any]:
    license_ = card.license
    terms = {"model": card.id, "name": license_.name, "version": license_.version}
    return terms | {"url": license_.url, "gated": card.gated}


def _accepted(store: Store) -> list[dict[str, Any]]:
    entries = read_json(store.folder / LICENSES).get("accepted")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
