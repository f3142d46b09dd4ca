"""What was worked out for the items of a list that mostly grows at its end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
FoundT = TypeVar("FoundT")


@dataclass(slots=True)
class PrefixMemo(Generic[ItemT, FoundT]):
    """Works out something for each item of a list, and again only from the first item that is another object.

    Attributes:
        work_out: what is found for an item; of the same object it must always be the same.
    """

    work_out: Callable[[ItemT], FoundT]
    _items: Sequence[ItemT] = ()
    _found: list[FoundT] = field(default_factory=list)

    def of(self, items: Sequence[ItemT]) -> list[FoundT]:
        """What is found for each item, in order: a list that is the next call's, too, and not to be kept."""
        same = common_start(self._items, items)
        self._found[same:] = [self.work_out(item) for item in items[same:]]
        self._items = items
        return self._found


def common_start(one: Sequence[object], other: Sequence[object]) -> int:
    """How many items at the start of two lists are the same objects."""
    for count, (first, second) in enumerate(zip(one, other, strict=False)):
        if first is not second:
            return count
    return min(len(one), len(other))
