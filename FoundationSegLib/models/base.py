"""What an adapter for a 2-D model offers to the engine, and how a card finds its adapter."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.cards import ModelCard
from ..core.errors import CardError

# Called in the midst of long work; raises where the work is to end.
Check = Callable[[], None]

BoxXyxy = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class SlicePrompt:
    """What is asked about one slice, in its pixels: x along the columns, y along the rows, centres at whole numbers.

    ``box`` is (x0, y0, x1, y1), both corners inside the box.
    """

    box: BoxXyxy


@dataclass(frozen=True, slots=True)
class SliceAnswer:
    """What the model said about one slice: ``mask`` (rows, columns) boolean, ``score`` its predicted IoU, 0..1."""

    mask: NDArray[np.bool_]
    score: float


class SliceEmbedding(Protocol):
    """The encoder's view of one slice: opaque to the engine, counted by the cache."""

    @property
    def nbytes(self) -> int:
        """Memory taken, in bytes."""
        ...


def unstoppable() -> None:
    """The check of work that nobody will stop."""


class SliceModel(Protocol):
    """A promptable 2-D model: encode a slice once, then decode as many prompts as wanted."""

    device: str
    precision: str

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        ...

    def encode(self, image: NDArray[np.uint8], check: Check = unstoppable) -> Any:
        """The embedding of a slice, (rows, columns) grey or (rows, columns, 3) colour, uint8.

        ``check`` is called now and then, as often as the framework lets it; what it raises ends the work.
        """
        ...

    def decode(self, embedding: Any, prompt: SlicePrompt) -> SliceAnswer:
        """The mask that a prompt means on an encoded slice."""
        ...

    def hand_over(self, mask: NDArray[np.bool_], wider: int = 0) -> SlicePrompt | None:
        """The prompt for a neighbouring slice that follows from this slice's mask; None if the mask says nothing.

        ``wider``: by how many pixels of the model's own grid its margin exceeds the one that the authors chose.
        """
        ...


def load_slice_model(card: ModelCard, files: Mapping[str, Path], device: str) -> SliceModel:
    """The adapter of a card's family, with its weights loaded.

    Args:
        card: the model.
        files: where each file of the checkpoint lies, by the path the card gives it; verified.
        device: ``"cuda"``, ``"mps"`` or ``"cpu"``.

    Raises:
        CardError: no adapter is called like the family.
        CheckpointError: the checkpoint does not hold what the adapter needs.
    """
    name = card.family.replace("-", "_")
    try:
        adapter = importlib.import_module(f"{__package__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__package__}.{name}":
            raise
        raise CardError(f"{card.id}: no adapter is called {name}") from error
    return adapter.load(card, files, device)
