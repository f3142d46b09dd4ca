"""The embedding cache: a slice is encoded once, however many prompts it gets."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..core.geometry import Axis
from ..core.requests import CheckpointRecord
from ..models.base import SliceEmbedding

EmbeddingT = TypeVar("EmbeddingT", bound=SliceEmbedding)


@dataclass(frozen=True, slots=True)
class EmbeddingKey:
    """Everything that changes a slice's embedding: weights, device, numbers, image, slice, intensities.

    The whole record stands for the weights: its sha256 is that of the first of several files only.
    """

    checkpoint: CheckpointRecord
    device: str
    precision: str
    volume_key: str
    axis: Axis
    index: int
    low: float
    high: float


class EmbeddingCache(Generic[EmbeddingT]):
    """Embeddings within a budget of bytes; the one that was not asked for the longest goes first."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._entries: OrderedDict[EmbeddingKey, EmbeddingT] = OrderedDict()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Memory taken by the embeddings, in bytes; never above the budget."""
        return self._nbytes

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: EmbeddingKey) -> EmbeddingT | None:
        """The embedding, or None if it is not there (any more)."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: EmbeddingKey, embedding: EmbeddingT) -> None:
        """Keep an embedding, and let go of the oldest ones as needed; one above the whole budget is not kept."""
        self._drop(key)
        if embedding.nbytes > self._budget_bytes:
            return
        self._entries[key] = embedding
        self._nbytes += embedding.nbytes
        while self._nbytes > self._budget_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: EmbeddingKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._nbytes -= entry.nbytes
