"""What a session knows of each segment: its steps, the voxels that it wrote last, and where they came from."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..imaging.geometry import EMPTY_BOX, Box
from ..imaging.masks import (
    EMPTY_MASK,
    MaskTable,
    PackedMask,
    SegmentChange,
    change_between,
    changed_checksum,
    checksum,
    merge_masks,
    pack_mask,
)
from .segment_store import KeptSteps, SegmentStore, read_segment
from .steps import SeedReason, SeedStep, SegmentState, Step, Steps, going_on, state_of
from .steps_document import parse_steps

_UNFOLDED_BYTES = 32 * 2**20  # of changes that wait until somebody asks for the whole mask


@dataclass(frozen=True, slots=True)
class RecordState:
    """What undo takes back beside the voxels.

    Attributes:
        steps: the steps of the segment, and ``standing``, what they come to.
        reach: the box outside which the segment is its seed.
        provenance: where its voxels come from; see :meth:`SegmentStore.describe`.
    """

    steps: Steps = ()
    standing: SegmentState = field(default_factory=SegmentState)
    reach: Box = EMPTY_BOX
    provenance: Mapping[str, str] = field(default_factory=dict)

    def with_steps(self, *steps: Step) -> "RecordState":
        """The state with more steps, none of them a rejection."""
        return replace(self, steps=(*self.steps, *steps), standing=going_on(self.standing, steps))


@dataclass(slots=True)
class KnownMask:
    """The voxels of a segment as they were last seen. Changes are put in when the whole is asked for."""

    snapshot: PackedMask = EMPTY_MASK
    voxels: int = 0
    _recent: list[SegmentChange] = field(default_factory=list)
    _waiting: int = 0
    _checksum: int | None = None

    def take(self, change: SegmentChange) -> None:
        """Follow a change."""
        self._recent.append(change)
        self.voxels += change.gained.voxels - change.lost.voxels
        self._waiting += change.nbytes
        if self._checksum is not None:
            self._checksum = changed_checksum(self._checksum, change)
        if self._waiting > _UNFOLDED_BYTES:
            self.mask()

    def mask(self) -> PackedMask:
        """All voxels, tightly boxed."""
        if self._recent:
            self.snapshot = _folded(self.snapshot, self._recent)
            self._recent.clear()
            self._waiting = 0
        return self.snapshot

    def checksum(self) -> int:
        """See :func:`.checksum.checksum`. Of the whole mask when first asked for; from then on it follows changes."""
        if self._checksum is None:
            self._checksum = checksum(self.mask())
        return self._checksum

    @staticmethod
    def of(mask: PackedMask) -> "KnownMask":
        """What is known right after looking."""
        return KnownMask(mask, mask.voxels)


def _folded(mask: PackedMask, changes: list[SegmentChange]) -> PackedMask:
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


@dataclass(slots=True)
class Record:
    """One segment.

    Attributes:
        state: its steps and where they led.
        known: its voxels as they were last seen.
        stamp: the store's stamp at that time.
    """

    state: RecordState
    known: KnownMask
    stamp: Hashable

    def look(self, store: SegmentStore, segment_id: str, masks: MaskTable) -> bool:
        """Find out whether somebody else changed the segment; its present voxels are its seed then. True if so."""
        stamp = store.stamp(segment_id)
        if stamp == self.stamp:
            return False
        self.stamp = stamp
        known, present = self.known.mask(), read_segment(store, segment_id)
        if present == known:
            return False
        touched = _difference(known, present)
        self.known = KnownMask.of(present)
        self.state = replace(self.seeded(masks, "hand", masks.put(touched)), reach=EMPTY_BOX)
        return True

    def seeded(self, masks: MaskTable, reason: SeedReason, touched: str = "") -> RecordState:
        """The state with the present voxels as its seed."""
        return self.state.with_steps(SeedStep(masks.put(self.known.mask()), reason, touched))


def _difference(one: PackedMask, other: PackedMask) -> PackedMask:
    box = one.box.union(other.box)
    before, after = (np.zeros(box.shape_kji, np.bool_) for _ in range(2))
    before[one.box.relative_to(box).slices] = one.unpack()
    after[other.box.relative_to(box).slices] = other.unpack()
    change = change_between(before, after, box.start_kji)
    return merge_masks((change.gained, change.lost)) if not change.is_empty else EMPTY_MASK


def open_record(store: SegmentStore, segment_id: str, masks: MaskTable, document: Mapping[str, Any] | None) -> Record:
    """The record of a segment that a session meets for the first time.

    With a document of an earlier session its steps go on; if the voxels are others than that session left, or there is
    no document, the present ones are the seed.
    """
    present = read_segment(store, segment_id)
    start = RecordState(provenance=store.provenance(segment_id))
    record = Record(start, KnownMask.of(present), store.stamp(segment_id))
    if document is not None:
        steps = parse_steps(document, masks)
        now = state_of(steps)
        record.state = replace(start, steps=steps, standing=now, reach=present.box.union(masks.get(now.seed).box))
        if document.get("result") != _result(record):
            record.state = replace(record.seeded(masks, "hand"), reach=EMPTY_BOX)
    elif not present.box.is_empty:
        record.state = record.seeded(masks, "start")
    return record


def kept_steps(record: Record, masks: MaskTable) -> KeptSteps:
    """What is to be kept of a segment for a later session."""
    return KeptSteps(record.state.steps, record.state.standing, _result(record), masks)


def _result(record: Record) -> str:
    """A text that tells whether voxels are those that the steps led to."""
    return f"{record.known.checksum():016x}"
