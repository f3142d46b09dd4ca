"""Segments as plain arrays: for scripts over files, without Slicer."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..imaging.geometry import Box, Geometry, bounding_box
from ..imaging.masks import EMPTY_MASK, Edit, PackedMask, SegmentChange, change_between, pack_mask
from .segment_store import NewSegment, OverlapPolicy


@dataclass(slots=True)
class _Segment:
    name: str
    voxels: NDArray[np.bool_]
    version: int = 0
    is_locked: bool = False
    provenance: dict[str, str] = field(default_factory=dict)
    made_as: str = ""


@dataclass(slots=True)
class ArrayStore:
    """Segments of one volume as (K, J, I) boolean arrays. See :class:`~.segment_store.SegmentStore`.

    Ids are ``"1"``, ``"2"`` and so on, in the order in which the segments were made.
    """

    geometry: Geometry
    is_gone: bool = False
    is_readable: bool = True
    _segments: dict[str, _Segment] = field(default_factory=dict)
    _made: int = 0

    def require_writable(self) -> None:
        """See :meth:`SegmentStore.require_writable`: arrays always can."""

    @property
    def segment_ids(self) -> tuple[str, ...]:
        """See :attr:`SegmentStore.segment_ids`."""
        return tuple(self._segments)

    def is_locked(self, segment_id: str) -> bool:
        """See :meth:`SegmentStore.is_locked`."""
        return self._segment(segment_id).is_locked

    def name(self, segment_id: str) -> str:
        """See :meth:`SegmentStore.name`."""
        return self._segment(segment_id).name

    def provenance(self, segment_id: str) -> Mapping[str, str]:
        """See :meth:`SegmentStore.provenance`."""
        return self._segment(segment_id).provenance

    def stamp(self, segment_id: str) -> Hashable:
        """See :meth:`SegmentStore.stamp`."""
        return self._segment(segment_id).version

    def read(self, segment_id: str, box: Box | None = None) -> NDArray[np.bool_]:
        """See :meth:`SegmentStore.read`; the whole volume unless a box is given."""
        voxels = self._segment(segment_id).voxels
        return (voxels if box is None else voxels[box.slices]).copy()

    def occupied(self, segment_id: str) -> Box:
        """See :meth:`SegmentStore.occupied`."""
        return bounding_box(self._segment(segment_id).voxels)

    def add(self, new: NewSegment) -> str:
        """See :meth:`SegmentStore.add`."""
        segment_id = new.segment_id
        while not segment_id or segment_id in self._segments:
            self._made += 1
            segment_id = str(self._made)
        self._segments[segment_id] = _Segment(new.name, np.zeros(self.geometry.shape_kji, np.bool_), made_as=new.name)
        return segment_id

    def withdraw(self, segment_id: str) -> bool:
        """See :meth:`SegmentStore.withdraw`."""
        segment = self._segment(segment_id)
        if segment.is_locked or segment.voxels.any() or segment.name != segment.made_as:
            return False
        self.remove(segment_id)
        return True

    def remove(self, segment_id: str) -> None:
        """Delete a segment."""
        self._segments.pop(self._known(segment_id))

    def lock(self, segment_id: str, is_locked: bool = True) -> None:
        """Keep a segment from being written, or allow it again."""
        self._segment(segment_id).is_locked = is_locked

    def put(self, segment_id: str, mask_kji: NDArray[np.generic]) -> None:
        """Set a whole segment by hand; a session takes that for an edit by somebody else."""
        segment = self._segment(segment_id)
        segment.voxels[...] = mask_kji != 0
        segment.version += 1

    def write(self, segment_id: str, change: SegmentChange, policy: OverlapPolicy) -> Edit:
        """See :meth:`SegmentStore.write`."""
        segment = self._segment(segment_id)
        if segment.is_locked:
            raise InputError(f"the segment '{segment.name}' is locked: unlock it first")
        others = [key for key in self._segments if key != segment_id]
        locked = [key for key in others if self._segments[key].is_locked]
        keeping = {OverlapPolicy.PROTECT: others, OverlapPolicy.PROTECT_LOCKED: locked}.get(policy, [])
        gained = change.gained
        for key in keeping:
            gained = self._without(gained, key)
        changes = {}
        if policy in (OverlapPolicy.OVERWRITE, OverlapPolicy.PROTECT_LOCKED):
            for key in others:
                if key not in keeping:
                    changes[key] = SegmentChange(EMPTY_MASK, self._common(gained, key))
        return self.apply(Edit(changes | {segment_id: SegmentChange(gained, change.lost)}))

    def apply(self, edit: Edit) -> Edit:
        """See :meth:`SegmentStore.apply`."""
        real = {}
        for segment_id, change in edit.changes.items():
            segment = self._segment(segment_id)
            box = change.gained.box.union(change.lost.box)
            before = segment.voxels[box.slices].copy()
            change.apply(segment.voxels)
            real[segment_id] = change_between(before, segment.voxels[box.slices], box.start_kji)
            segment.version += not real[segment_id].is_empty
        return Edit({segment_id: change for segment_id, change in real.items() if not change.is_empty})

    def describe(self, segment_id: str, provenance: Mapping[str, str]) -> None:
        """See :meth:`SegmentStore.describe`."""
        self._segment(segment_id).provenance = dict(provenance)

    def _without(self, mask: PackedMask, segment_id: str) -> PackedMask:
        there = self._segments[segment_id].voxels[mask.box.slices]
        return pack_mask(mask.unpack() & ~there, mask.box.start_kji) if there.any() else mask

    def _common(self, mask: PackedMask, segment_id: str) -> PackedMask:
        return pack_mask(mask.unpack() & self._segments[segment_id].voxels[mask.box.slices], mask.box.start_kji)

    def _segment(self, segment_id: str) -> _Segment:
        return self._segments[self._known(segment_id)]

    def _known(self, segment_id: str) -> str:
        if segment_id not in self._segments:
            raise InputError(f"there is no segment with the id '{segment_id}': choose another one")
        return segment_id
