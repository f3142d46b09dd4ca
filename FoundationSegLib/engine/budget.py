"""Memory by a budget of bytes: for images, embeddings and models alike."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class Budgeted(Generic[KeyT, ValueT]):
    """What may be kept within a budget of bytes; what was not asked for the longest goes first.

    The newest stays even if it is larger than the whole budget: somebody is about to use it.
    """

    def __init__(self, budget_bytes: int, nbytes: Callable[[ValueT], int]) -> None:
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
        """Whether it is there; this does not count as asking for it."""
        return key in self._entries

    def get(self, key: KeyT) -> ValueT | None:
        """The value, or None if it is not there (any more)."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: KeyT, value: ValueT) -> None:
        """Keep a value, and let go of the oldest ones as needed."""
        self.drop(key)
        self._entries[key] = value
        self._nbytes += self._nbytes_of(value)
        while self._nbytes > self._budget_bytes and len(self._entries) > 1:
            self.drop(next(iter(self._entries)))

    def drop(self, key: KeyT) -> None:
        """Let go of a value; it is no error if it is not there."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._nbytes -= self._nbytes_of(entry)

    def clear(self) -> None:
        """Let go of everything."""
        for key in self:
            self.drop(key)
