"""Segments as a session saw them last, and the edits of them that can be undone."""

import json
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import field, replace
from itertools import repeat
from typing import Generic, TypeVar

import numpy as np

from ..codec import mutable, to_document
from ..imaging.geometry import EMPTY_BOX, Box
from ..imaging.masks import (
    EMPTY_MASK,
    Edit,
    MaskTable,
    PackedMask,
    SegmentChange,
    change_between,
    changed_checksum,
    checksum,
    merge_masks,
    pack_mask,
)
from ..prompts.prompts_file import prompt_to_document
from ..requests.segmentation import Prediction, SegmentPrediction
from .segment_store import EditKind, NewSegment, Unanswered
from .steps import ActivePrompt, RejectStep, SeedReason, SeedStep, SegmentState, Steps, effective

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@mutable
class Memo(Generic[ItemT, ResultT]):
    """Works out something for each item of a list, but not again for objects that were in the list before.

    Attributes:
        work_out: gives the result for an item; of the same object it must always be the same.
    """

    work_out: Callable[[ItemT], ResultT]
    _known: dict[int, tuple[ItemT, ResultT]] = field(default_factory=dict)  # by the identity of the item, kept beside

    def of(self, items: Sequence[ItemT]) -> list[ResultT]:
        """The results for all items, in order."""
        before, self._known, results = self._known, {}, []
        for item in items:
            known = before.get(id(item))
            self._known[id(item)] = known = known if known is not None else (item, self.work_out(item))
            results.append(known[1])
        return results


_UNFOLDED_BYTES = 32 * 2**20  # of changes that wait until somebody asks for the whole mask


@mutable
class TrackedSegment:
    """A segment that the session met: its state, and its voxels as they were last seen.

    Changes are put into the mask when the whole is asked for.
    """

    state: SegmentState = field(default_factory=SegmentState)
    snapshot: PackedMask = EMPTY_MASK
    voxels: int = 0
    _recent: list[SegmentChange] = field(default_factory=list)
    _recent_bytes: int = 0
    _checksum: int | None = None
    _prompt_texts: Memo[ActivePrompt, str] = field(
        default_factory=lambda: Memo(lambda active: json.dumps(prompt_to_document(active.prompt)))
    )

    def see(self, mask: PackedMask) -> None:
        """Take a mask for what the segment is now."""
        self.snapshot, self.voxels, self._checksum = mask, mask.voxels, None
        self._recent, self._recent_bytes = [], 0

    def follow(self, change: SegmentChange) -> None:
        """Follow a change that was made."""
        self._recent.append(change)
        self.voxels += change.gained.voxels - change.lost.voxels
        self._recent_bytes += len(change.gained.bits) + len(change.lost.bits)
        if self._checksum is not None:
            self._checksum = changed_checksum(self._checksum, change)
        if self._recent_bytes > _UNFOLDED_BYTES:
            self.mask()

    def mask(self) -> PackedMask:
        """All voxels, tightly boxed."""
        if self._recent:
            self.snapshot = _folded(self.snapshot, self._recent)
            self._recent, self._recent_bytes = [], 0
        return self.snapshot

    def checksum(self) -> int:
        """The checksum of the mask. Of all of it when first asked for; from then on it follows changes."""
        if self._checksum is None:
            self._checksum = checksum(self.mask())
        return self._checksum

    def seeded(self, masks: MaskTable, reason: SeedReason, touched: str = "") -> SegmentState:
        """The state with the present voxels as its seed, which it is nowhere different from then."""
        return replace(self.state.after(SeedStep(masks.put(self.mask()), reason, touched)), reach=EMPTY_BOX)

    def provenance(
        self, prediction: Prediction, state: SegmentState, policy: str, version: str, answer: SegmentPrediction
    ) -> dict[str, str]:
        """The origin of the segment once a prediction led to a state, by the names of :data:`PROVENANCE`.

        The model's estimates of slices that are not among those of the answer stay what they were, unless slices were
        interpolated.
        """
        checkpoint, score, slices = prediction.checkpoint, answer.score, answer.slices
        before = json.loads(self.state.provenance.get("Options") or "{}").get("slices")
        if state.propagation is not None and state.propagation.hand_over == "interpolate":
            before = None
        if slices is not None:
            known = dict(zip(slices.numbers, slices.scores, strict=True))
            if before is not None and before["axis"] == slices.axis:
                known = dict(zip(before["numbers"], before["scores"], strict=True)) | known
            numbers = sorted(known)
            scores = list(map(round, map(known.__getitem__, numbers), repeat(3)))
            before = {"axis": slices.axis, "numbers": numbers, "scores": scores}
        options: dict[str, object] = {
            "device": prediction.device,
            "precision": prediction.precision,
            "score": None if score is None else round(score, 4),
            "overlap": policy,
            "propagation": state.propagation and to_document(state.propagation),
            "region": state.region and to_document(state.region),
            "parts": list(map(to_document, prediction.parts)),
            **({"slices": before} if before is not None else {}),
            **(checkpoint.base_document() if checkpoint.base else {}),
        }
        origin = {
            "Model": checkpoint.model_id,
            "Repository": checkpoint.source,
            "Revision": checkpoint.revision,
            "SHA256": checkpoint.sha256,
        }
        if not prediction.device:  # no model was asked: slices were interpolated
            origin = {name: self.state.provenance[name] for name in origin if name in self.state.provenance}
        provenance = {
            **origin,
            "Prompts": f"[{', '.join(self._prompt_texts.of(state.prompts))}]",
            "Intensity": json.dumps(dict(prediction.intensity)),
            "Options": json.dumps(options),
        }
        return provenance | ({"Version": version} if version else {})


def _folded(mask: PackedMask, changes: Sequence[SegmentChange]) -> PackedMask:
    box = mask.box
    for change in changes:
        box = box.union(change.gained.box)
    array = np.zeros(box.shape_kji, np.bool_)
    array[mask.box.relative_to(box).slices] = mask.unpack()
    for change in changes:
        lost = array[change.lost.box.relative_to(box).slices]
        np.copyto(lost, False, where=change.lost.unpack())
        array[change.gained.box.relative_to(box).slices] |= change.gained.unpack()
    return pack_mask(array, box.start_kji)


def difference(mask: PackedMask, other: PackedMask) -> PackedMask:
    """The voxels that one of two masks has and the other has not."""
    box = mask.box.union(other.box)
    before, after = (np.zeros(box.shape_kji, np.bool_) for _ in range(2))
    before[mask.box.relative_to(box).slices] = mask.unpack()
    after[other.box.relative_to(box).slices] = other.unpack()
    change = change_between(before, after, box.start_kji)
    return merge_masks((change.gained, change.lost)) if not change.is_empty else EMPTY_MASK


BUDGET = 200 * 10**6
# The share that may stay as it is: compressing takes time, and most of what is undone is new.
_PLAIN_SHARE = 1 / 4
_LEVEL = 1
_FOREIGN_STATES = 10  # so many does the Segment Editor keep


@mutable(eq=False)
class UndoEntry:
    """One edit of the user: what it did, and the state of every segment it touched, before and after.

    Attributes:
        written: the changes that it made, oldest first; none while they are compressed (:attr:`edits` has them).
        before, after: states, by the ids of segments.
        created: the segments that were made for it, by id.
        removed: the segments that it deleted, by id; their voxels are among the changes.
        unanswered_before, unanswered_after: steps that waited for an answer: undo, or redo, asks for it again.
        nbytes: the memory that the bits of the changes take.
    """

    written: list[Edit] = field(default_factory=list)
    before: dict[str, SegmentState] = field(default_factory=dict)
    after: dict[str, SegmentState] = field(default_factory=dict)
    created: dict[str, NewSegment] = field(default_factory=dict)
    removed: dict[str, NewSegment] = field(default_factory=dict)
    unanswered_before: Unanswered = ()
    unanswered_after: Unanswered = ()
    nbytes: int = 0
    _compressed: list[Mapping[str, tuple[Box, bytes, Box, bytes]]] = field(default_factory=list)

    @property
    def edits(self) -> list[Edit]:
        """The changes that it made, oldest first."""
        return self.written or [
            Edit({key: _decompressed(*change) for key, change in changes.items()}) for changes in self._compressed
        ]

    @property
    def inverse(self) -> list[Edit]:
        """The changes that take it back, in the order in which they are to be made."""
        return [edit.inverse() for edit in reversed(self.edits)]

    def compress(self) -> None:
        """Keep the changes in less memory, where that is not done yet."""
        if self.written:
            self._compressed = [
                {key: _compressed(change) for key, change in edit.changes.items()} for edit in self.written
            ]
            self.nbytes = sum(
                len(gained) + len(lost) for changes in self._compressed for _, gained, _, lost in changes.values()
            )
            self.written = []


def _compressed(change: SegmentChange) -> tuple[Box, bytes, Box, bytes]:
    gained, lost = change.gained, change.lost
    return gained.box, zlib.compress(gained.bits, _LEVEL), lost.box, zlib.compress(lost.bits, _LEVEL)


def _decompressed(gained_box: Box, gained: bytes, lost_box: Box, lost: bytes) -> SegmentChange:
    return SegmentChange(PackedMask(gained_box, zlib.decompress(gained)), PackedMask(lost_box, zlib.decompress(lost)))


@mutable
class UndoStack:
    """Edits that can be undone and redone.

    Each segment has its own order: its last edit is undone first, whatever was done to others since. An edit that
    touched several segments can be undone while it is the last one of each.

    Attributes:
        budget_bytes: for the bits of the changes, which are compressed where they are older, and for the masks.
        masks: what the steps refer to.
        segments: the segments as they are, by id: what they need of the masks stays.
        done, undone: what can be undone and redone, oldest first.
    """

    budget_bytes: int = BUDGET
    masks: MaskTable = field(default_factory=MaskTable)
    segments: Mapping[str, TrackedSegment] = field(default_factory=dict)
    done: list[UndoEntry] = field(default_factory=list)
    undone: list[UndoEntry] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Memory taken by the bits of all changes, in bytes."""
        return sum([entry.nbytes for entry in (*self.done, *self.undone)])

    def push(self, entry: UndoEntry) -> int:
        """Keep an edit that was just written; what was undone of the same segments cannot be redone any more.

        Returns:
            How many of the oldest had to go, this one included if it is larger than the budget.
        """
        entry.nbytes = 0
        for edit in entry.written:
            for change in edit.changes.values():
                entry.nbytes += len(change.gained.bits) + len(change.lost.bits)
        if self.undone:
            self.undone = _without(self.undone, entry.after.keys())
        self.done.append(entry)
        total = 0
        for kept in (*self.done, *self.undone):
            total += kept.nbytes
        if total <= self.budget_bytes * _PLAIN_SHARE and total + self.masks.nbytes <= self.budget_bytes:
            return 0
        self._compress()
        return self._shrink(self.budget_bytes) + self.make_room()

    def shelve(self, unanswered: Unanswered, provisional: Mapping[str, NewSegment]) -> None:
        """Keep steps that are taken back before their answer is there, and what was made for them, for redo."""
        states = {key: self.segments[key].state for steps in unanswered for key in steps}
        created = {key: provisional[key] for key in states if key in provisional}
        if states:
            self.undone.append(UndoEntry([], states, states, created, unanswered_after=unanswered))

    def last(self, segment_id: str) -> UndoEntry | None:
        """The last edit that touched a segment, written and not undone; None if there is none (any more)."""
        return _last(self.done, segment_id)

    def blocking_undo(self, segment_id: str) -> str | None:
        """The id of another segment whose later edit has to be undone first; None where nothing is in the way."""
        return _blocking(self.done, segment_id)

    def blocking_redo(self, segment_id: str) -> str | None:
        """The same for redoing."""
        return _blocking(self.undone, segment_id)

    def undo(self, segment_id: str) -> UndoEntry | None:
        """Take the last edit of a segment, whose inverse is to be applied now; None if there is none."""
        return _move(self.done, self.undone, segment_id)

    def redo(self, segment_id: str) -> UndoEntry | None:
        """Take the edit of a segment that was undone last, which is to be applied again; None if there is none."""
        return _move(self.undone, self.done, segment_id)

    def retrace(self, before: Mapping[str, int], after: Mapping[str, int]) -> tuple[EditKind, dict[str, SegmentState]]:
        """Move the edits that somebody else took back, or made again: those that lead from one to the other.

        Args:
            before, after: the checksums of segments, by id. One that is missing is empty.

        Returns whether they were undone or redone, and the states of their segments now; none where no edits do.
        """
        goal = {key: value for key, value in after.items() if value}
        is_same = goal == {key: value for key, value in before.items() if value}
        kinds: tuple[EditKind, ...] = () if is_same else ("undone", "redone")
        for kind in kinds:
            source, target = (self.done, self.undone) if kind == "undone" else (self.undone, self.done)
            sums, states = dict(before), {}
            for count, entry in enumerate(reversed(source[-_FOREIGN_STATES:]), 1):
                if entry.unanswered_before or entry.unanswered_after:
                    break  # they would have to be asked again
                for key, changes in changes_of(entry.inverse if kind == "undone" else entry.edits).items():
                    for change in changes:
                        sums[key] = changed_checksum(sums.get(key, 0), change)
                states |= entry.before if kind == "undone" else entry.after
                if {key: value for key, value in sums.items() if value} == goal:
                    target += reversed(source[-count:])
                    del source[-count:]
                    return kind, states
        return "others", {}

    def forget(self, segment_id: str) -> None:
        """Drop all edits of a segment, and what cannot be undone without them: somebody else changed it."""
        self.done, self.undone = _without(self.done, {segment_id}), _without(self.undone, {segment_id})

    def change_states(
        self, changed: Callable[[SegmentState], SegmentState], changed_steps: Callable[[Steps], Steps]
    ) -> None:
        """Put other states and unanswered steps in place of those before and after all edits; the changes stay."""

        def others(unanswered: Unanswered) -> Unanswered:
            return tuple({key: changed_steps(steps) for key, steps in edit.items()} for edit in unanswered)

        for entry in (*self.done, *self.undone):
            entry.before = {key: changed(state) for key, state in entry.before.items()}
            entry.after = {key: changed(state) for key, state in entry.after.items()}
            entry.unanswered_before, entry.unanswered_after = map(
                others, (entry.unanswered_before, entry.unanswered_after)
            )

    def _compress(self) -> None:
        """Compress the oldest until few enough are left as they are."""
        plain = sum([entry.nbytes for entry in self.done if entry.written])
        for entry in self.done[:-1]:
            if plain <= self.budget_bytes * _PLAIN_SHARE:
                return
            if entry.written:
                plain -= entry.nbytes
                entry.compress()

    def make_room(self) -> int:
        """Keep edits and masks within the budget, of which a quarter is for edits whatever masks take.

        First go masks that only older steps name: no answer, undo or replay needs them, and documents leave them out.
        Then the oldest edits go, with the masks that only they need. What segments are put together from stays.

        Returns how many edits cannot be undone any more.
        """
        if self.nbytes + self.masks.nbytes <= self.budget_bytes:
            return 0
        self.masks.retain(self._needed_masks())
        forgotten = self._shrink(max(self.budget_bytes - self.masks.nbytes, self.budget_bytes * _PLAIN_SHARE))
        self.masks.retain(self._needed_masks())
        return forgotten

    def _needed_masks(self) -> set[str]:
        """The keys of masks that segments need as they are, or as undo and redo leave them."""
        states = [segment.state for segment in self.segments.values()]
        for entry in (*self.done, *self.undone):
            states += [*entry.before.values(), *entry.after.values()]
        return {key for state in states for key in state.mask_keys}

    def _shrink(self, limit_bytes: float) -> int:
        forgotten, left = 0, self.nbytes
        while left > limit_bytes and self.undone:
            left -= self.undone.pop(0).nbytes
        while left > limit_bytes and self.done:
            left -= self.done.pop(0).nbytes
            forgotten += 1
        return forgotten


def _last(entries: list[UndoEntry], segment_id: str) -> UndoEntry | None:
    return next((entry for entry in reversed(entries) if segment_id in entry.after), None)


def _blocking(entries: list[UndoEntry], segment_id: str) -> str | None:
    last = _last(entries, segment_id)
    return None if last is None else next((key for key in last.after if _last(entries, key) is not last), None)


def _move(source: list[UndoEntry], target: list[UndoEntry], segment_id: str) -> UndoEntry | None:
    entry = _last(source, segment_id)
    if entry is not None:
        source.remove(entry)
        target.append(entry)
    return entry


def _without(entries: list[UndoEntry], segment_ids: Collection[str]) -> list[UndoEntry]:
    """The entries without those of some segments, and without what lies below one of these: it cannot be reached."""
    kept: list[UndoEntry] = []
    lost = set(segment_ids)
    for entry in reversed(entries):
        if lost.isdisjoint(entry.after):
            kept.append(entry)
        else:
            lost |= entry.after.keys()
    return kept[::-1]


def changes_of(edits: Iterable[Edit]) -> dict[str, tuple[SegmentChange, ...]]:
    """The changes of edits by segment, one after the other."""
    changes: dict[str, tuple[SegmentChange, ...]] = {}
    for edit in edits:
        for segment_id, change in edit.changes.items():
            changes[segment_id] = (*changes.get(segment_id, ()), change)
    return changes


def rejected_state(entry: UndoEntry, segment_id: str) -> SegmentState:
    """The state of a segment once an edit of it is rejected."""
    before, after = entry.before[segment_id], entry.after[segment_id]
    count = len(effective(after.steps)) - len(effective(before.steps))
    if count <= 0 or after.steps[: len(before.steps)] != before.steps:
        return before  # the steps were replaced as a whole, and so they are now
    return replace(before, steps=(*after.steps, RejectStep(count)))
