"""Keep images, models, embeddings and answers within a budget of bytes; the least recently used go first."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Generic, TypeVar

from ..imaging.geometry import Axis
from ..models.protocols import SliceAnswer, SlicePrompt
from ..requests.segmentation import CheckpointRecord
from .slices import SliceOrientation

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")
ModelT = TypeVar("ModelT")

# Answers get this part of the budget of the embeddings: they are small, and a correction needs most of them again.
_ANSWERS_SHARE = 1 / 8


class LruCache(Generic[KeyT, ValueT]):
    """Values within a budget of bytes.

    The newest value stays even if it alone exceeds the budget, since it is about to be used. ``nbytes`` measures a
    value; its own attribute of that name unless given.
    """

    def __init__(self, budget_bytes: int, nbytes: Callable[[ValueT], int] = attrgetter("nbytes")) -> None:
        self._budget_bytes = budget_bytes
        self._nbytes_of = nbytes
        self._entries: OrderedDict[KeyT, ValueT] = OrderedDict()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Memory taken, in bytes."""
        return self._nbytes

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[KeyT]:
        return iter(tuple(self._entries))

    def __contains__(self, key: KeyT) -> bool:
        """Look for a key without counting it as used."""
        return key in self._entries

    def get(self, key: KeyT) -> ValueT | None:
        """Return the value and count it as used; None if it is not there (any more)."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: KeyT, value: ValueT) -> None:
        """Keep a value, and drop the least recently used ones as needed."""
        if key in self._entries:
            self.drop(key)
        self._entries[key] = value
        self._nbytes += self._nbytes_of(value)
        while self._nbytes > self._budget_bytes and len(self._entries) > 1:
            self.drop(next(iter(self._entries)))

    def drop(self, key: KeyT) -> None:
        """Remove a value; it is no error if it is not there."""
        value = self._entries.pop(key, None)
        if value is not None:
            self._nbytes -= self._nbytes_of(value)

    def drop_where(self, matches: Callable[[KeyT], bool]) -> None:
        """Remove every value whose key matches."""
        for key in self:
            if matches(key):
                self.drop(key)

    def clear(self) -> None:
        """Remove everything."""
        self._entries.clear()
        self._nbytes = 0


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights on a device in a precision: two results can be compared where these are equal.

    The whole record stands for the weights, since its sha256 is that of the first of several files only.
    """

    checkpoint: CheckpointRecord
    device: str
    precision: str


@dataclass(frozen=True, slots=True)
class LoadedModel(Generic[ModelT]):
    """A model that is ready to answer, and its weights."""

    model: ModelT
    weights: Weights


@dataclass(frozen=True, slots=True)
class EmbeddingKey:
    """Everything that changes a slice's embedding; ``low`` and ``high`` are the ends of the intensity window."""

    weights: Weights
    volume_key: str
    axis: Axis
    index: int
    orientation: SliceOrientation
    low: float
    high: float


@dataclass(slots=True)
class SliceCache:
    """Embeddings of slices, and the answers to prompts on them as they grew stage by stage.

    Attributes:
        encoded: every slice that was ever encoded, to tell what had to be encoded again.
    """

    embeddings: LruCache[EmbeddingKey, Any]
    answers: LruCache[tuple[EmbeddingKey, tuple[SlicePrompt, ...]], SliceAnswer]
    encoded: set[EmbeddingKey] = field(default_factory=set)

    @classmethod
    def within(cls, budget_bytes: int, answers_share: float = _ANSWERS_SHARE) -> "SliceCache":
        """Return a cache whose embeddings take no more than a budget; answers may take a share of it in addition."""
        return cls(LruCache(budget_bytes), LruCache(int(budget_bytes * answers_share), _answer_nbytes))

    def drop_volume(self, volume_key: str) -> None:
        """Remove everything about an image."""
        self.embeddings.drop_where(lambda key: key.volume_key == volume_key)
        self.answers.drop_where(lambda key: key[0].volume_key == volume_key)
        self.encoded = {key for key in self.encoded if key.volume_key != volume_key}

    def clear(self) -> None:
        """Remove all embeddings and answers."""
        self.embeddings.clear()
        self.answers.clear()


def _answer_nbytes(answer: SliceAnswer) -> int:
    return answer.mask.nbytes + int(getattr(answer.logits, "nbytes", 0))
