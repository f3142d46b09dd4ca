"""Taking checkpoints away again: as a plan that says what it frees, and only then for real."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.cards import ModelCard
from .names import require_inside
from .store import INCOMING, Store, store_errors


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """Folders to remove.

    Attributes:
        model: the card's id.
        folders: what goes, with everything in it.
        bytes_freed: the room that this frees.
        bytes_shared: what stays in use because another name, such as the Hugging Face cache's, links to it.
    """

    model: str
    folders: tuple[Path, ...]
    bytes_freed: int
    bytes_shared: int


def plan_removal(store: Store, card: ModelCard) -> RemovalPlan:
    """The removal of everything that the store has of a model, of every commit and half-way downloads too."""
    folder = store.all_of(card)
    return _plan(card.id, (folder,) if folder.is_dir() else ())


def plan_partial_removal(store: Store, card: ModelCard) -> RemovalPlan:
    """The removal of a model's half downloads; what is whole stays."""
    found = [*store.all_of(card).glob(f"{INCOMING}-*"), *store.all_of(card).glob(f"[!i]*/{INCOMING}*")]
    halves = [path for path in found if path.is_dir() and not path.is_symlink()]
    folders = {path if _holds_more(path.parent) else path.parent for path in halves}
    return _plan(card.id, tuple(sorted(folders)))


def _holds_more(folder: Path) -> bool:
    """True for a folder with anything beside half downloads in it."""
    return any(not path.name.startswith(INCOMING) for path in folder.iterdir())


def remove(store: Store, card: ModelCard, plan: RemovalPlan) -> None:
    """Do what a plan says.

    Raises:
        CheckpointError: another program is downloading the model right now, or a folder cannot be removed.
    """
    with store.lock(card), store_errors(card):
        for folder in plan.folders:
            require_inside(store.folder, folder)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)


def _plan(model: str, folders: tuple[Path, ...]) -> RemovalPlan:
    freed = shared = 0
    for status in _statuses(folders):
        if status.st_nlink > 1:
            shared += status.st_size
        else:
            freed += status.st_size
    return RemovalPlan(model, folders, freed, shared)


def _statuses(folders: Iterable[Path]) -> Iterator[os.stat_result]:
    for folder in folders:
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file():
                    yield path.lstat()
