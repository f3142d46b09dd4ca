"""The plan: from the steps of a segment to the request now, and how its answer is combined with the voxels."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, PromptError
from ..imaging.geometry import AXES, Axis, Box, Geometry, array_axis
from ..imaging.masks import (
    EMPTY_MASK,
    MaskTable,
    PackedMask,
    boxes_by_slice,
    connected_part,
    cut_out,
    lay_in,
    merge_masks,
    pack_mask,
    touched_slices,
)
from ..prompts.kinds import BoxPrompt, LassoPrompt, MaskPrompt, PointPrompt, Prompt, ScribblePrompt
from ..prompts.placement import place_box, prompt_positions, slice_axis, slice_number
from ..prompts.regions import Region, inside_region, is_within_reach, seen_box, slab
from ..requests.segmentation import Propagation
from .steps import ModelChoice, SegmentState


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


_SEED_FILE = "seed"  # mask prompts name a file; this one was never in any


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done for a segment.

    Attributes:
        prompts: what a model is asked, in order; none where the answer is known to be empty.
        choice: which model; None only where nothing is asked.
        propagation: how it is carried on.
        combination: what the answer is put together with.
        seen: the box of the image that the model sees; None for all of it.
    """

    prompts: tuple[Prompt, ...]
    choice: ModelChoice | None
    propagation: Propagation | None
    combination: Combination
    seen: Box | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """What a prompt speaks of in a model of slices: slices across an axis, and the part of them that it names."""

    axis: Axis
    slices: range
    box: Box
    is_flat: bool
    is_box: bool = False

    def meets(self, other: "_Place") -> bool:
        return self.axis == other.axis and bool(
            range(max(self.slices.start, other.slices.start), min(self.slices.stop, other.slices.stop))
        )


def plan(now: SegmentState, masks: MaskTable, geometry: Geometry, name: str) -> Plan:
    """What a model is asked now, and what its answer is put together with.

    Args:
        now: where the segment stands.
        masks: what its steps refer to.
        geometry: the image.
        name: what the segment is called in the request.

    Raises:
        PromptError: a prompt lies outside the image, or there is nothing to propagate.
        InputError: no model was chosen.
    """
    seed = masks.get(now.seed)
    touching = tuple(held.prompt for held in now.prompts if held.is_live) + now.vacated
    rest = Combination(
        geometry,
        seed,
        seed,
        region=now.region,
        anchors=touching or tuple(held.prompt for held in now.prompts),
        denied=masks.get(now.denied),
        retained=masks.get(now.retained),
    )
    if not now.is_computed:
        return Plan((), now.choice, None, rest)
    if now.choice is None:
        raise InputError("no model was chosen: choose one before prompting")
    if now.choice.region is None:
        return _asked(now, now.choice, masks, rest, name)
    live = tuple(held.prompt for held in now.prompts if held.is_live)
    seen = seen_box(now.choice.region, live or tuple(held.prompt for held in now.prompts), geometry)
    # What was settled beyond what the model sees now stays as it is.
    there = tuple(held for held in now.prompts if held.is_live or is_within_reach(held.prompt, seen, geometry))
    made = _asked(replace(now, prompts=there), now.choice, masks, rest, name)
    zone = made.combination.zone
    zone = seen if zone is None else zone.intersection(seen)
    prompts = tuple(part for prompt in made.prompts for part in _seen_part(prompt, seen))
    return replace(made, prompts=prompts, combination=replace(made.combination, zone=zone), seen=seen)


def _seen_part(prompt: Prompt, seen: Box) -> tuple[Prompt, ...]:
    """A prompt, and of the seed as much as the model sees."""
    if not isinstance(prompt, MaskPrompt) or prompt.file != _SEED_FILE or prompt.voxels is None:
        return (prompt,)
    part = _cut(prompt.voxels, seen)
    return () if part.box.is_empty else (replace(prompt, voxels=part),)


def _asked(now: SegmentState, choice: ModelChoice, masks: MaskTable, rest: Combination, name: str) -> Plan:
    if now.propagation is not None:
        ground = masks.get(now.ground)
        return _propagating(now, choice, now.propagation, masks, replace(rest, ground=ground), name)
    if choice.in_3d:
        return _in_3d(now, choice, rest, name)
    return _on_slices(now, choice, masks, rest, name)


def _in_3d(now: SegmentState, choice: ModelChoice, rest: Combination, name: str) -> Plan:
    """A model of volumes is shown the seed and asked what came after it; one that takes none can only add to it."""
    live = tuple(held.prompt for held in now.prompts if held.is_live)
    if choice.sees_seed and not rest.seed.box.is_empty:
        prompts = (_seed_prompt(rest.seed, name), *live) if live else ()
        return Plan(prompts, choice, None, replace(rest, replaces=bool(live)))
    prompts = tuple(held.prompt for held in now.prompts) if live else ()
    return Plan(prompts, choice, None, rest)


def _on_slices(now: SegmentState, choice: ModelChoice, masks: MaskTable, rest: Combination, name: str) -> Plan:
    """A model of slices is asked what is live, and what was settled on the same slices."""
    geometry = rest.geometry
    fresh = [held.prompt for held in now.prompts if held.is_live]
    places = [place for prompt in (*fresh, *now.vacated) if (place := _place(prompt, geometry)) is not None]
    asked = tuple(
        held.prompt
        for held in now.prompts
        if held.is_live or ((own := _place(held.prompt, geometry)) and any(own.meets(place) for place in places))
    )
    if not asked:
        return Plan((), choice, None, rest)
    parts = _pointed_at((*fresh, *now.vacated), rest.seed, geometry)
    shown = [part for part, axis in parts if axis == "k"] if choice.sees_seed else []
    prompts = (_seed_prompt(merge_masks(shown), name), *asked) if shown else asked
    boxes = tuple(place.box for place in places if place.is_box)
    kept = _kept(now, masks, geometry, {place.axis for place in places if place.is_box}, places)
    erased_parts = tuple(part for part, _ in parts)
    return Plan(prompts, choice, None, replace(rest, erased=boxes, erased_parts=erased_parts, kept=kept))


def _propagating(
    now: SegmentState, choice: ModelChoice, propagation: Propagation, masks: MaskTable, rest: Combination, name: str
) -> Plan:
    """All prompts are carried on; slices that were corrected stay, and where masks are taken, start the walk, too."""
    geometry = rest.geometry
    places = {held.key: _place(held.prompt, geometry) for held in now.prompts}
    axis = next((place.axis for place in places.values() if place is not None), "k")
    fresh = {index for held in now.prompts if held.is_live for index in _flat_slices(places[held.key], axis)}
    settled = {index for held in now.prompts if not held.is_live for index in _flat_slices(places[held.key], axis)}
    drawn = {index for key in now.hand for index in touched_slices(masks.get(key), axis)} - fresh
    span = range(propagation.start or 0, propagation.stop or geometry.shape_kji[array_axis(axis)])
    anchors: list[Prompt] = []
    if choice.takes_masks and axis == "k":
        anchors = [
            _seed_prompt(part, name)
            for index in sorted(drawn & set(span))
            if not (part := _cut(rest.seed, slab(axis, index, index + 1, geometry))).box.is_empty
        ]
    replaced = drawn if anchors else set()
    prompts = tuple(held.prompt for held in now.prompts if not set(_flat_slices(places[held.key], axis)) & replaced)
    if not prompts and not anchors:
        raise PromptError("there is nothing to propagate: prompt a slice, or correct one by hand, first")
    kept = tuple(slab(axis, index, index + 1, geometry) for index in sorted(drawn | (settled - fresh)))
    zone = slab(axis, span.start, span.stop, geometry)
    return Plan((*anchors, *prompts), choice, propagation, replace(rest, around=axis, zone=zone, kept=kept))


def _place(prompt: Prompt, geometry: Geometry) -> _Place | None:
    """What a prompt speaks of on slices; None where that is not told by slices: texts, masks, oblique planes."""
    if isinstance(prompt, BoxPrompt):
        placed = place_box(prompt, geometry)
        return _Place(placed.axis, placed.slices, placed.box, placed.is_2d, is_box=True)
    if not isinstance(prompt, PointPrompt | ScribblePrompt | LassoPrompt):
        return None
    try:
        axis = slice_axis(prompt)
        index = slice_number(prompt_positions(prompt), axis, geometry)
    except PromptError:
        return None
    return _Place(axis, range(index, index + 1), slab(axis, index, index + 1, geometry), is_flat=True)


def _flat_slices(place: _Place | None, axis: Axis) -> tuple[int, ...]:
    return tuple(place.slices) if place is not None and place.is_flat and place.axis == axis else ()


def _pointed_at(prompts: tuple[Prompt, ...], seed: PackedMask, geometry: Geometry) -> list[tuple[PackedMask, Axis]]:
    """The parts of the seed, each on one slice, that points, strokes and lassos have a position in.

    A prompt beside all that is there says nothing against it: its answer adds.
    """
    found = []
    for prompt in prompts:
        place = None if isinstance(prompt, BoxPrompt) else _place(prompt, geometry)
        if place is not None and not seed.box.is_empty:
            positions = [tuple(index[::-1]) for index in geometry.nearest_voxel(prompt_positions(prompt)).tolist()]
            part = connected_part(seed, place.box, positions)
            if not part.box.is_empty:
                found.append((part, place.axis))
    return found


def _kept(
    now: SegmentState, masks: MaskTable, geometry: Geometry, axes: set[Axis], places: list[_Place]
) -> tuple[Box, ...]:
    """Slices corrected by hand which a box reaches that was not drawn on them."""
    kept = []
    for axis in [axis for axis in AXES if axis in axes]:
        prompted = {index for place in places for index in _flat_slices(place, axis)}
        drawn = {index for key in now.hand for index in touched_slices(masks.get(key), axis)}
        kept += [slab(axis, index, index + 1, geometry) for index in sorted(drawn - prompted)]
    return tuple(kept)


def _cut(mask: PackedMask, box: Box) -> PackedMask:
    common = mask.box.intersection(box)
    if common.is_empty:
        return EMPTY_MASK
    return pack_mask(mask.unpack()[common.relative_to(mask.box).slices], common.start_kji)


def _seed_prompt(mask: PackedMask, name: str) -> MaskPrompt:
    return MaskPrompt(_SEED_FILE, name, voxels=mask)
