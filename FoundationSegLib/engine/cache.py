"""The embedding cache: a slice is encoded once, however many prompts it gets."""

from dataclasses import dataclass
from typing import TypeVar

from ..imaging.geometry import Axis
from ..models.protocols import SliceAnswer, SliceEmbedding, SlicePrompt
from ..requests.segmentation import CheckpointRecord
from .budget import Budgeted
from .orientation import Orientation

EmbeddingT = TypeVar("EmbeddingT", bound=SliceEmbedding)


@dataclass(frozen=True, slots=True)
class EmbeddingKey:
    """Everything that changes a slice's embedding: weights, device, numbers, image, slice, orientation, intensities.

    The whole record stands for the weights: its sha256 is that of the first of several files only.
    """

    checkpoint: CheckpointRecord
    device: str
    precision: str
    volume_key: str
    axis: Axis
    index: int
    orientation: Orientation
    low: float
    high: float


class EmbeddingCache(Budgeted[EmbeddingKey, EmbeddingT]):
    """Embeddings within a budget of bytes."""

    def __init__(self, budget_bytes: int) -> None:
        super().__init__(budget_bytes, lambda embedding: embedding.nbytes)
        self._had: set[EmbeddingKey] = set()

    def put(self, key: EmbeddingKey, value: EmbeddingT) -> None:
        """Keep an embedding, and let go of the oldest ones as needed."""
        super().put(key, value)
        self._had.add(key)

    def had(self, key: EmbeddingKey) -> bool:
        """Whether it was here before, and had to make room."""
        return key in self._had and key not in self

    def drop_volume(self, volume_key: str) -> None:
        """Let go of what was seen of an image."""
        for key in self:
            if key.volume_key == volume_key:
                self.drop(key)
        self._had = {key for key in self._had if key.volume_key != volume_key}


class AnswerCache(Budgeted[tuple[EmbeddingKey, tuple[SlicePrompt, ...]], SliceAnswer]):
    """What was answered to a prompt as it grew, on an encoded slice: within a budget of bytes."""

    def __init__(self, budget_bytes: int) -> None:
        super().__init__(budget_bytes, _answer_nbytes)

    def drop_volume(self, volume_key: str) -> None:
        """Let go of what was answered on an image."""
        for asked in self:
            if asked[0].volume_key == volume_key:
                self.drop(asked)


def _answer_nbytes(answer: SliceAnswer) -> int:
    return answer.mask.nbytes + int(getattr(answer.logits, "nbytes", 0))
