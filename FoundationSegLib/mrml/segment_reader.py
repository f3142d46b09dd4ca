"""Segments of a segmentation node as arrays in a volume's voxels. Changes nothing."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import GeometryError, InputError
from ..core.geometry import Box, Geometry
from ..core.mask import EMPTY_MASK, PackedMask, SegmentChange, change_between, pack_mask
from .labelmaps import BINARY_LABELMAP, grid_offset, occupied_box, read_labels


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A label map that several segments share, cut down to a box of the volume.

    Attributes:
        box: the part of the volume that was asked for and that the label map reaches.
        labels: (K, J, I) label values in the box; not to be written to, not to be kept.
        segment_ids: the segments that were asked for, by their label values.
    """

    box: Box
    labels: NDArray[np.integer]
    segment_ids: Mapping[int, str]


class SegmentReader:
    """Reads the segments of one segmentation in the voxels of one volume.

    Segments are read as Slicer keeps them, whatever the extent, the layer and the label value of each; those on
    another grid than the volume's by the nearest voxel. Both sides are taken in their own RAS: they should share one
    parent transform.
    """

    def __init__(self, segmentation_node: Any, geometry: Geometry) -> None:
        self._node = segmentation_node
        self._geometry = geometry

    @property
    def geometry(self) -> Geometry:
        """The volume's grid, in which all masks and edits are given."""
        return self._geometry

    @property
    def segment_ids(self) -> tuple[str, ...]:
        """The ids of all segments, in Slicer's order."""
        return tuple(self._node.GetSegmentation().GetSegmentIDs())

    def segment(self, segment_id: str) -> Any:
        """The `vtkSegment` of that id, for its name, colour and :mod:`.segment_tags`.

        Raises:
            InputError: there is none (any more).
        """
        segment = self._node.GetSegmentation().GetSegment(segment_id)
        if segment is None:
            raise InputError(f"the segmentation has no segment with the id '{segment_id}': choose another one")
        return segment

    def labelmap(self, segment_id: str) -> Any:
        """The `vtkOrientedImageData` that holds the segment, alone or with others; None if there is none yet."""
        return self.segment(segment_id).GetRepresentation(BINARY_LABELMAP)

    def read_mask(self, segment_id: str, box: Box | None = None) -> NDArray[np.bool_]:
        """The segment in a box of the volume (the whole volume unless given): a new (K, J, I) boolean array.

        Raises:
            InputError: there is no such segment.
            GeometryError: the box reaches out of the volume.
        """
        labels = read_labels(self.labelmap(segment_id), self._geometry, self.inside(box))
        return labels == self.segment(segment_id).GetLabelValue()

    def difference(self, segment_id: str, wanted: PackedMask, box: Box) -> SegmentChange:
        """What would make the segment equal to ``wanted`` inside the box; looks only where either has voxels."""
        occupied = occupied_box(self.labelmap(segment_id), self._geometry)
        region = wanted.box.union(occupied.intersection(box))
        before = self.read_mask(segment_id, region)
        after = np.zeros_like(before)
        after[wanted.box.relative_to(region).slices] = wanted.unpack()
        return change_between(before, after, region.start_kji)

    def possible(self, segment_id: str, change: SegmentChange) -> SegmentChange:
        """The part of a change that is one: voxels to gain that the segment has not, and to lose that it has."""
        return SegmentChange(
            gained=self._those(segment_id, change.gained, inside=False),
            lost=self._those(segment_id, change.lost, inside=True),
        )

    def made(self, segment_id: str, change: SegmentChange) -> SegmentChange:
        """The part of a possible change that is there now."""
        return SegmentChange(
            gained=self._those(segment_id, change.gained, inside=True),
            lost=self._those(segment_id, change.lost, inside=False),
        )

    def _those(self, segment_id: str, mask: PackedMask, inside: bool) -> PackedMask:
        """The voxels of a mask that are inside the segment, or outside; the mask itself if all of them are."""
        if mask.box.is_empty:
            return mask
        voxels = np.frombuffer(mask.bits, np.uint8)
        there = np.packbits(self.read_mask(segment_id, mask.box))
        found = voxels & there if inside else voxels & ~there
        if np.array_equal(found, voxels):
            return mask
        loose = PackedMask(mask.box, found.tobytes())
        return pack_mask(loose.unpack(), mask.box.start_kji)

    def without(self, mask: PackedMask, segment_ids: Iterable[str]) -> PackedMask:
        """The mask without the voxels of those segments; the mask itself if they have none of them."""
        voxels, has_changed = None, False
        for layer in self._layers(segment_ids, mask.box):
            taken = _has_any(layer.labels, layer.segment_ids)
            if taken.any():
                voxels = mask.unpack() if voxels is None else voxels
                part = voxels[layer.box.relative_to(mask.box).slices]
                has_changed |= bool((part & taken).any())
                part &= ~taken
        return mask if voxels is None or not has_changed else pack_mask(voxels, mask.box.start_kji)

    def taken(self, mask: PackedMask, segment_ids: Iterable[str]) -> dict[str, SegmentChange]:
        """What each of those segments loses if the mask takes its voxels; segments that lose nothing are left out."""
        voxels, changes = mask.unpack(), {}
        for layer in self._layers(segment_ids, mask.box):
            part = voxels[layer.box.relative_to(mask.box).slices]
            for value in set(np.unique(layer.labels[part]).tolist()) & set(layer.segment_ids):
                lost = pack_mask((layer.labels == value) & part, layer.box.start_kji)
                changes[layer.segment_ids[value]] = SegmentChange(EMPTY_MASK, lost)
        return changes

    def inside(self, box: Box | None) -> Box:
        """The box, or that of the whole volume in place of None.

        Raises:
            GeometryError: the box reaches out of the volume.
        """
        if box is None:
            return self._geometry.box
        if not self._geometry.box.contains(box):
            raise GeometryError(f"the box {box} reaches out of the volume of shape {self._geometry.shape_kji}")
        return box

    def require_grid(self, segment_ids: Iterable[str]) -> None:
        """Make sure that those segments can be written without resampling what they hold.

        Raises:
            GeometryError: one lies on another grid than the volume.
        """
        for segment_id in segment_ids:
            if grid_offset(self.labelmap(segment_id), self._geometry) is None:
                raise GeometryError(
                    f"the segment '{self.segment(segment_id).GetName()}' was drawn on another grid than the volume: "
                    "start a new segmentation, or resample this one in the Segment Editor (Specify geometry)"
                )

    def _layers(self, segment_ids: Iterable[str], box: Box) -> Iterator[Layer]:
        """The layers of those segments, each once and only where it reaches into the box."""
        values: dict[Any, dict[int, str]] = {}
        for segment_id in segment_ids:
            values.setdefault(self.labelmap(segment_id), {})[self.segment(segment_id).GetLabelValue()] = segment_id
        for labelmap, ids in values.items():
            common = occupied_box(labelmap, self._geometry).intersection(box)
            if not common.is_empty:
                yield Layer(common, read_labels(labelmap, self._geometry, common), ids)


def _has_any(labels: NDArray[np.integer], values: Iterable[int]) -> NDArray[np.bool_]:
    """Where one of the values stands; for a few values faster than `numpy.isin`."""
    first, *rest = values
    found = labels == first
    for value in rest:
        found |= labels == value
    return found
