"""Undo and redo of edits, per segment, within a budget of bytes; the oldest fall out first."""

import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ..imaging.geometry import Box
from ..imaging.masks import Edit, PackedMask, SegmentChange
from .segment_store import NewSegment

BUDGET = 200 * 10**6
# What may stay as it is: compressing takes time, and most of what is undone is new.
_PLAIN_SHARE = 1 / 4
_LEVEL = 1

StateT = TypeVar("StateT")


@dataclass(frozen=True, slots=True)
class Entry(Generic[StateT]):
    """One action: the edits that it made, oldest first, and the state of every segment it touched, before and after.

    ``created`` are the segments that were made for it, by id.
    """

    edits: tuple[Edit, ...]
    before: Mapping[str, StateT]
    after: Mapping[str, StateT]
    created: Mapping[str, NewSegment] = field(default_factory=dict)

    @property
    def inverse(self) -> tuple[Edit, ...]:
        """The edits that take the action back, in the order in which they are to be made."""
        return tuple(edit.inverse() for edit in reversed(self.edits))


@dataclass(frozen=True, slots=True)
class _Squeezed:
    """The bits of a mask, compressed."""

    box: Box
    bits: bytes

    @staticmethod
    def of(mask: PackedMask) -> "_Squeezed":
        return _Squeezed(mask.box, zlib.compress(mask.bits, _LEVEL))

    def mask(self) -> PackedMask:
        return PackedMask(self.box, zlib.decompress(self.bits))


_SqueezedEdit = Mapping[str, tuple[_Squeezed, _Squeezed]]


@dataclass(slots=True, eq=False)
class _Kept(Generic[StateT]):
    """An entry whose edits are there as they are, or compressed; ``nbytes`` is what the bits take then."""

    edits: tuple[Edit, ...]
    before: Mapping[str, StateT]
    after: Mapping[str, StateT]
    created: Mapping[str, NewSegment]
    squeezed: tuple[_SqueezedEdit, ...] = ()
    nbytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.nbytes = sum(edit.nbytes for edit in self.edits)

    @property
    def plain_bytes(self) -> int:
        return self.nbytes if self.edits else 0

    @property
    def segment_ids(self) -> Collection[str]:
        return self.after.keys()

    def squeeze(self) -> None:
        self.squeezed = tuple(
            {key: (_Squeezed.of(change.gained), _Squeezed.of(change.lost)) for key, change in edit.changes.items()}
            for edit in self.edits
        )
        self.nbytes = sum(len(mask.bits) for edit in self.squeezed for pair in edit.values() for mask in pair)
        self.edits = ()

    def entry(self) -> Entry[StateT]:
        edits = tuple(
            Edit({key: SegmentChange(gained.mask(), lost.mask()) for key, (gained, lost) in edit.items()})
            for edit in self.squeezed
        )
        return Entry(self.edits or edits, self.before, self.after, self.created)


@dataclass(slots=True)
class UndoStack(Generic[StateT]):
    """What can be undone and redone.

    Each segment has its own order: its last action is undone first, whatever was done to others since. An action that
    touched several segments can be undone while it is the last one of each.

    Attributes:
        budget_bytes: for the bits of the edits, which are compressed where they are older.
    """

    budget_bytes: int = BUDGET
    _done: list[_Kept[StateT]] = field(default_factory=list)
    _undone: list[_Kept[StateT]] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Memory taken by the bits of all edits, in bytes."""
        return sum(kept.nbytes for kept in (*self._done, *self._undone))

    def push(self, entry: Entry[StateT]) -> int:
        """Keep an action that was just done; what was undone of the same segments cannot be redone any more.

        Returns:
            How many of the oldest actions had to go, this one included if it is larger than the budget.
        """
        self._undone = _cut(self._undone, entry.after.keys())
        self._done.append(_Kept(entry.edits, entry.before, entry.after, entry.created))
        self._squeeze()
        return self._shrink()

    def last(self, segment_id: str) -> Entry[StateT] | None:
        """The last action that touched a segment, done and not undone; None if there is none (any more)."""
        kept = _last(self._done, (segment_id,))
        return kept.entry() if kept else None

    def blocking_undo(self, segment_id: str) -> str | None:
        """The id of another segment whose later action has to be undone first; None where nothing is in the way."""
        return _blocking(self._done, segment_id)

    def blocking_redo(self, segment_id: str) -> str | None:
        """The same for redoing."""
        return _blocking(self._undone, segment_id)

    def undo(self, segment_id: str) -> Entry[StateT] | None:
        """Take the last action of a segment, whose inverse is to be applied now; None if there is none."""
        return _move(self._done, self._undone, segment_id)

    def redo(self, segment_id: str) -> Entry[StateT] | None:
        """Take the action of a segment that was undone last, which is to be applied again; None if there is none."""
        return _move(self._undone, self._done, segment_id)

    def can_undo(self, segment_id: str) -> bool:
        """True where an action of the segment is there to be undone."""
        return _last(self._done, (segment_id,)) is not None

    def can_redo(self, segment_id: str) -> bool:
        """True where an action of the segment is there to be redone."""
        return _last(self._undone, (segment_id,)) is not None

    def forget(self, segment_id: str) -> None:
        """Drop all actions of a segment, and what cannot be undone without them: somebody else changed it."""
        self._done, self._undone = _cut(self._done, {segment_id}), _cut(self._undone, {segment_id})

    def change_states(self, changed: Callable[[StateT], StateT]) -> None:
        """Put other states in place of those before and after all actions; the edits stay."""
        for kept in (*self._done, *self._undone):
            kept.before = {key: changed(state) for key, state in kept.before.items()}
            kept.after = {key: changed(state) for key, state in kept.after.items()}

    def _squeeze(self) -> None:
        """Compress the oldest until few enough are left as they are."""
        plain = sum(kept.plain_bytes for kept in self._done)
        for kept in self._done[:-1]:
            if plain <= self.budget_bytes * _PLAIN_SHARE:
                return
            plain -= kept.plain_bytes
            if kept.edits:
                kept.squeeze()

    def _shrink(self) -> int:
        gone, left = 0, self.nbytes
        while left > self.budget_bytes and self._undone:
            left -= self._undone.pop(0).nbytes
        while left > self.budget_bytes and self._done:
            left -= self._done.pop(0).nbytes
            gone += 1
        return gone


def _last(entries: list[_Kept[StateT]], segment_ids: Collection[str]) -> _Kept[StateT] | None:
    return next((kept for kept in reversed(entries) if not set(kept.segment_ids).isdisjoint(segment_ids)), None)


def _blocking(entries: list[_Kept[StateT]], segment_id: str) -> str | None:
    wanted = _last(entries, (segment_id,))
    if wanted is None:
        return None
    return next((key for key in wanted.segment_ids if _last(entries, (key,)) is not wanted), None)


def _move(source: list[_Kept[StateT]], target: list[_Kept[StateT]], segment_id: str) -> Entry[StateT] | None:
    wanted = _last(source, (segment_id,))
    if wanted is None:
        return None
    source.remove(wanted)
    target.append(wanted)
    return wanted.entry()


def _cut(entries: list[_Kept[StateT]], segment_ids: Collection[str]) -> list[_Kept[StateT]]:
    """The entries without those of some segments, and without what lies below one of these: it cannot be reached."""
    left: list[_Kept[StateT]] = []
    lost = set(segment_ids)
    for kept in reversed(entries):
        if lost.isdisjoint(kept.segment_ids):
            left.append(kept)
        else:
            lost |= set(kept.segment_ids)
    return left[::-1]
