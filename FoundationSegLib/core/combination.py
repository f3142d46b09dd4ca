"""How a model's answer and the voxels that are there already become the segment."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .geometry import Axis, Box, Geometry, array_axis, bounding_box
from .mask import EMPTY_MASK, PackedMask, pack_mask
from .prompts import Prompt
from .regions import Region, inside_region


@dataclass(frozen=True, slots=True)
class Combination:
    """What an answer is put together with, and where it counts.

    Attributes:
        geometry: the image.
        seed: the segment as it stays wherever the answer does not count.
        ground: what lies under the answer where it counts; the seed, except where slices are propagated again.
        replaces: True where the answer takes the place of all that was there: the model was shown it.
        erased: boxes in which the answer takes the place of what was there; elsewhere it adds.
        erased_parts: the same for parts of the seed that prompts point at.
        around: on each slice across this axis, the answer also takes the place of what lies in the box around it.
        zone: the answer does not count outside this box; None where it counts everywhere.
        kept: boxes in which it does not count, such as slices that were corrected by hand.
        region: what the user limits changes to, and ``anchors``, the prompts that they are limited around.
        denied, retained: what the segment did not get, and did not lose, when this was written.
    """

    geometry: Geometry
    seed: PackedMask
    ground: PackedMask
    replaces: bool = False
    erased: tuple[Box, ...] = ()
    erased_parts: tuple[PackedMask, ...] = ()
    around: Axis | None = None
    zone: Box | None = None
    kept: tuple[Box, ...] = ()
    region: Region | None = None
    anchors: tuple[Prompt, ...] = ()
    denied: PackedMask = EMPTY_MASK
    retained: PackedMask = EMPTY_MASK

    def reach(self, answer: PackedMask) -> Box:
        """The box outside which the result is the seed."""
        box = answer.box.union(self.denied.box).union(self.retained.box)
        if self.replaces or self.ground != self.seed:
            return box.union(self.seed.box).union(self.ground.box)
        for erased in self.erased:
            box = box.union(erased.intersection(self.seed.box))
        for part in self.erased_parts:
            box = box.union(part.box)
        return box

    def result(self, answer: PackedMask, box: Box) -> NDArray[np.bool_]:
        """The segment in a box of the volume: a new (K, J, I) boolean array of the shape of the box."""
        new = cut_out(answer, box)
        if not self.replaces and not self.ground.box.intersection(box).is_empty:
            new |= cut_out(self.ground, box) & ~self._erasable(answer, box)
        if self.zone is not None or self.kept or self.region is not None:
            np.copyto(new, cut_out(self.seed, box), where=~self._counting(box))
        if not self.denied.box.is_empty:
            new &= ~cut_out(self.denied, box)
        _lay(self.retained, new, box)
        return new

    def _erasable(self, answer: PackedMask, box: Box) -> NDArray[np.bool_]:
        erasable = np.zeros(box.shape_kji, np.bool_)
        boxes = (*self.erased, *(boxes_by_slice(answer, self.around) if self.around else ()))
        for erased in boxes:
            erasable[erased.intersection(box).relative_to(box).slices] = True
        for part in self.erased_parts:
            _lay(part, erasable, box)
        return erasable

    def _counting(self, box: Box) -> NDArray[np.bool_]:
        """Where in the box the answer counts."""
        counting = np.zeros(box.shape_kji, np.bool_)
        counting[(box if self.zone is None else self.zone.intersection(box)).relative_to(box).slices] = True
        for kept in self.kept:
            counting[kept.intersection(box).relative_to(box).slices] = False
        if self.region is not None:
            counting &= inside_region(self.region, self.anchors, self.geometry, box)
        return counting


def cut_out(mask: PackedMask, box: Box) -> NDArray[np.bool_]:
    """A mask in a box of the volume: a new (K, J, I) boolean array of the shape of the box."""
    if box == mask.box:
        return mask.unpack()
    array = np.zeros(box.shape_kji, np.bool_)
    _lay(mask, array, box)
    return array


def _lay(mask: PackedMask, array: NDArray[np.bool_], box: Box) -> None:
    """Set the voxels of a mask in an array that is a box of the volume."""
    common = mask.box.intersection(box)
    if not common.is_empty:
        place = common.relative_to(mask.box)
        voxels = mask.unpack_slices(place.start_kji[0], place.stop_kji[0])
        array[common.relative_to(box).slices] |= voxels[:, place.slices[1], place.slices[2]]


def boxes_by_slice(mask: PackedMask, axis: Axis) -> tuple[Box, ...]:
    """The tight box of a mask on each slice across an axis that it has voxels on."""
    if mask.box.is_empty:
        return ()
    n, voxels = array_axis(axis), mask.unpack()
    found = []
    for index in range(voxels.shape[n]):
        tight = bounding_box(voxels.take([index], axis=n))
        if not tight.is_empty:
            start = list(mask.box.start_kji)
            start[n] += index
            found.append(tight.shifted((start[0], start[1], start[2])))
    return tuple(found)


def connected_part(mask: PackedMask, slab: Box, positions_kji: Sequence[tuple[int, int, int]]) -> PackedMask:
    """What of a mask in a slab hangs together with voxels at some positions, by faces; empty if none is set there."""
    box = mask.box.intersection(slab)
    if box.is_empty:
        return EMPTY_MASK
    voxels = cut_out(mask, box)
    part = np.zeros_like(voxels)
    for position in positions_kji:
        at = tuple(np.subtract(position, box.start_kji))
        if all(0 <= n < size for n, size in zip(at, box.shape_kji, strict=True)):
            part[at] = voxels[at]
    count = int(part.sum())
    while count:
        for axis in range(3):
            part = _along_runs(voxels, part, axis)
        before, count = count, int(part.sum())
        if count == before:
            return pack_mask(part, box.start_kji)
    return EMPTY_MASK


def _along_runs(voxels: NDArray[np.bool_], part: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """The runs of voxels along an axis that have a voxel of the part in them."""
    if voxels.shape[axis] == 1:
        return part
    lines, marked = (np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis]) for array in (voxels, part))
    starts = lines.copy()
    starts[:, 1:] &= ~lines[:, :-1]
    runs = np.cumsum(starts.reshape(-1)).reshape(lines.shape)
    hit = np.zeros(int(runs[-1, -1]) + 1, np.bool_)
    hit[runs[marked]] = True
    whole = hit[runs] & lines
    shape = np.moveaxis(voxels, axis, -1).shape
    return np.moveaxis(whole.reshape(shape), -1, axis)


def touched_slices(mask: PackedMask, axis: Axis) -> tuple[int, ...]:
    """The numbers of the slices across an axis on which a mask has voxels."""
    if mask.box.is_empty:
        return ()
    n = array_axis(axis)
    others = tuple(other for other in range(3) if other != n)
    return tuple(int(index) + mask.box.start_kji[n] for index in np.flatnonzero(mask.unpack().any(axis=others)))
