"""How a model's answer and the voxels that are there already become the segment."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .geometry import Axis, Box, Geometry
from .mask import EMPTY_MASK, PackedMask, boxes_by_slice, cut_out, lay_in
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
        lay_in(self.retained, new, box)
        return new

    def _erasable(self, answer: PackedMask, box: Box) -> NDArray[np.bool_]:
        erasable = np.zeros(box.shape_kji, np.bool_)
        boxes = (*self.erased, *(boxes_by_slice(answer, self.around) if self.around else ()))
        for erased in boxes:
            erasable[erased.intersection(box).relative_to(box).slices] = True
        for part in self.erased_parts:
            lay_in(part, erasable, box)
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


