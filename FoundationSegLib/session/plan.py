"""The plan of an edit: what a model is asked, and how its answer is put together with the voxels that are there."""

import sys
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from ..codec import frozen
from ..errors import InputError, PromptError
from ..imaging.geometry import AXES, Axis, Box, Geometry, array_axis
from ..imaging.masks import (
    EMPTY_MASK,
    MaskTable,
    PackedMask,
    SegmentChange,
    boxes_by_slice,
    connected_part,
    cut_out,
    lay_in,
    merge_masks,
    pack_mask,
    touched_slices,
    without_mask,
)
from ..prompts.kinds import BoxPrompt, LassoPrompt, MaskPrompt, ObliquePlane, PointPrompt, Prompt, ScribblePrompt
from ..prompts.oblique import ViewGrid, place_in_view
from ..prompts.placement import place_box, prompt_positions, slice_axis, slice_number
from ..prompts.regions import Region, inside_region, is_within_reach, seen_box, slab
from ..requests.segmentation import NOTHING_BETWEEN, Propagation, SegmentPrediction
from .steps import ModelChoice, SegmentState, WithheldStep


@frozen
class AnswerMerge:
    """Rules for putting an answer together with the voxels that are there.

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
        box = answer.box
        for mask in (self.denied, self.retained, *self.erased_parts):
            if mask is not EMPTY_MASK:
                box = box.union(mask.box)
        if self.replaces or self.ground != self.seed:
            return box.union(self.seed.box).union(self.ground.box)
        if self.seed is not EMPTY_MASK:
            for erased in self.erased:
                box = box.union(erased.intersection(self.seed.box))
        return box

    def result(self, answer: PackedMask, box: Box) -> NDArray[np.bool_]:
        """The segment in a box of the volume: a new (K, J, I) boolean array of the shape of the box."""
        new = cut_out(answer, box)
        if not self.replaces and self.ground is not EMPTY_MASK:
            new |= cut_out(self.ground, box) & ~self._erasable(answer, box)
        if self.zone is not None or self.kept or self.region is not None:
            np.copyto(new, cut_out(self.seed, box), where=~self._counting(box))
        if self.denied is not EMPTY_MASK:
            new &= ~cut_out(self.denied, box)
        if self.retained is not EMPTY_MASK:
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
        """The voxels of the box in which the answer counts, as a mask."""
        counting = np.zeros(box.shape_kji, np.bool_)
        counting[(box if self.zone is None else self.zone.intersection(box)).relative_to(box).slices] = True
        for kept in self.kept:
            counting[kept.intersection(box).relative_to(box).slices] = False
        if self.region is not None:
            counting &= inside_region(self.region, self.anchors, self.geometry, box)
        return counting


@frozen
class SegmentPlan:
    """Everything that is to be done for a segment. It holds while the segment is in the state that it was made for.

    Attributes:
        segment_id: the segment.
        before: its state now.
        after: its state once the answer is written.
        is_settled: True where the present voxels became the seed just now.
        prompts: what a model is asked, in order; none where the answer is known to be empty.
        propagation: how it is carried on.
        seen: the box of the image that the model sees; None for all of it.
        merge: what the answer is put together with.
    """

    segment_id: str
    before: SegmentState
    after: SegmentState
    is_settled: bool
    merge: AnswerMerge
    prompts: tuple[Prompt, ...] = ()
    propagation: Propagation | None = None
    seen: Box | None = None


@frozen
class AnsweredPlan:
    """An answer put together with what is there.

    Attributes:
        plan: what it answers.
        answer: the model's answer; an empty one where nothing was asked.
        change: what it comes to.
        reach: the box outside which the segment will be its seed.
    """

    plan: SegmentPlan
    answer: SegmentPrediction
    change: SegmentChange
    reach: Box

    def withheld(self, real: SegmentChange, masks: MaskTable) -> WithheldStep | None:
        """The step for what of the change was kept back, now or in a replay; None if nothing was."""
        change, merge = self.change, self.plan.merge
        denied = EMPTY_MASK if change.gained is real.gained else without_mask(change.gained, real.gained)
        retained = EMPTY_MASK if change.lost is real.lost else without_mask(change.lost, real.lost)
        if denied is EMPTY_MASK and retained is EMPTY_MASK:
            return None
        if merge.denied is not EMPTY_MASK:
            denied = merge_masks((denied, merge.denied))
        if merge.retained is not EMPTY_MASK:
            retained = merge_masks((retained, merge.retained))
        return WithheldStep(masks.put(denied), masks.put(retained))


@frozen
class _SlicePart:
    """Slices across an axis or of an oblique view, and the part of them that a prompt names.

    In an oblique view ``box`` is on the grid of the view.
    """

    axis: Axis | ViewGrid
    slices: range
    box: Box
    is_flat: bool
    is_box: bool = False

    def meets(self, other: "_SlicePart") -> bool:
        starts, stops = (self.slices.start, other.slices.start), (self.slices.stop, other.slices.stop)
        return self.axis == other.axis and max(starts) < min(stops)


class SliceParts(dict[Prompt, _SlicePart | None]):
    """The slices of prompts in an image: each is placed once, however often it is asked again with others.

    None for texts, masks, and what lies outside, as after cropping.

    Attributes:
        geometry: the image.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry

    def __missing__(self, prompt: Prompt) -> _SlicePart | None:
        self[prompt] = None
        with suppress(PromptError, InputError):
            if isinstance(getattr(prompt, "plane", None), ObliquePlane):
                self[prompt] = self._in_view(prompt)
            elif isinstance(prompt, BoxPrompt):
                placed = place_box(prompt, self.geometry)
                self[prompt] = _SlicePart(placed.axis, placed.slices, placed.box, placed.is_2d, is_box=True)
            elif isinstance(prompt, PointPrompt | ScribblePrompt | LassoPrompt):
                axis = slice_axis(prompt)
                index = slice_number(prompt_positions(prompt), axis, self.geometry)
                box = slab(axis, index, index + 1, self.geometry)
                self[prompt] = _SlicePart(axis, range(index, index + 1), box, is_flat=True)
        return self[prompt]

    def _in_view(self, prompt: Prompt) -> _SlicePart | None:
        """The slice of a prompt in an oblique plane."""
        grid, on_grid = place_in_view(prompt, self.geometry)
        if grid is None:
            return self[on_grid]
        box = Box.around(grid.geometry.to_ijk(prompt_positions(on_grid)))
        return _SlicePart(grid, range(box.start_kji[0], box.stop_kji[0]), box, is_flat=True)


def plan_segment(
    segment_id: str,
    before: SegmentState,
    after: SegmentState,
    is_settled: bool,
    masks: MaskTable,
    placed: SliceParts,
) -> SegmentPlan:
    """Find out what a model is asked, and what its answer is put together with.

    Args:
        segment_id, before, after, is_settled: see :class:`SegmentPlan`.
        masks: what the steps refer to.
        placed: where prompts lie in the image.

    Raises:
        PromptError: a prompt lies outside the image, or there is nothing to propagate.
        InputError: no model was chosen.
    """
    geometry, seed = placed.geometry, masks.get(after.seed)
    live = after.live_prompts
    merge = AnswerMerge(
        geometry,
        seed,
        seed,
        region=after.region,
        anchors=(*live, *after.vacated) or after.all_prompts,
        denied=masks.get(after.denied),
        retained=masks.get(after.retained),
    )
    plan = SegmentPlan(segment_id, before, after, is_settled, merge)
    if not live and not after.vacated and after.propagation is None:
        return plan
    if after.choice is None:
        if live or after.propagation is not None:
            raise InputError("no model was chosen: choose one before prompting")
        return plan  # prompts of another image were taken back; what they added stays
    seen, state = None, after
    if after.choice.region is not None:
        seen = seen_box(after.choice.region, live or after.all_prompts, geometry)
        # What was settled beyond what the model sees now stays as it is.
        near = [active for active in after.prompts if active.is_live or is_within_reach(active.prompt, seen, geometry)]
        state = replace(after, prompts=tuple(near))
    if state.propagation is not None:
        merge = replace(plan.merge, ground=masks.get(state.ground))
        plan = _propagating(replace(plan, merge=merge), state, after.choice, state.propagation, masks, placed)
    elif after.choice.in_3d:
        plan = _in_volume(plan, state, after.choice, live)
    else:
        plan = _on_slices(plan, state, after.choice, live, masks, placed)
    if seen is None:
        return plan
    zone = seen if plan.merge.zone is None else plan.merge.zone.intersection(seen)
    prompts = tuple(part for prompt in plan.prompts for part in _seen_part(prompt, seen))
    return replace(plan, prompts=prompts, merge=replace(plan.merge, zone=zone), seen=seen)


_SEED_FILE = "seed"  # mask prompts name a file; this one was never in any


def _seen_part(prompt: Prompt, seen: Box) -> tuple[Prompt, ...]:
    """A prompt, and of the seed as much as the model sees."""
    if not isinstance(prompt, MaskPrompt) or prompt.file != _SEED_FILE or prompt.voxels is None:
        return (prompt,)
    part = _cut(prompt.voxels, seen)
    return () if part.box.is_empty else (replace(prompt, voxels=part),)


def _in_volume(plan: SegmentPlan, state: SegmentState, choice: ModelChoice, live: tuple[Prompt, ...]) -> SegmentPlan:
    """A model of volumes is shown the seed and asked what came after it; one that takes none can only add to it."""
    seed = plan.merge.seed
    if not live:
        return plan
    if choice.sees_seed and not seed.box.is_empty:
        return replace(plan, prompts=(_seed_prompt(plan, seed), *live), merge=replace(plan.merge, replaces=True))
    return replace(plan, prompts=state.all_prompts)


def _on_slices(
    plan: SegmentPlan,
    state: SegmentState,
    choice: ModelChoice,
    live: tuple[Prompt, ...],
    masks: MaskTable,
    placed: SliceParts,
) -> SegmentPlan:
    """A model of slices is asked what is live, and what was settled on the same slices."""
    geometry, seed = plan.merge.geometry, plan.merge.seed
    fresh = (*live, *state.vacated)
    parts, prompts = [], []
    for prompt in fresh:
        part = placed[prompt]
        if part is not None:
            parts.append(part)
    for active in state.prompts:
        if active.is_live or ((own := placed[active.prompt]) and any(own.meets(part) for part in parts)):
            prompts.append(active.prompt)
    if not prompts:
        return plan
    pointed_at = [] if seed is EMPTY_MASK else _pointed_at(fresh, seed, placed)
    if choice.sees_seed and (shown := [part for part, axis in pointed_at if axis == "k"]):
        prompts.insert(0, _seed_prompt(plan, merge_masks(shown)))
    merge = replace(
        plan.merge,
        erased=tuple(map(attrgetter("box"), filter(attrgetter("is_box"), parts))),
        erased_parts=tuple(next(zip(*pointed_at, strict=True), ())),
        kept=_kept(state, masks, geometry, parts) if state.hand else (),
    )
    return replace(plan, prompts=tuple(prompts), merge=merge)


def _propagating(
    plan: SegmentPlan,
    state: SegmentState,
    choice: ModelChoice,
    propagation: Propagation,
    masks: MaskTable,
    placed: SliceParts,
) -> SegmentPlan:
    """All prompts are carried on; slices that were corrected stay, and where masks are taken, start the walk, too."""
    geometry = plan.merge.geometry
    parts = {active.key: placed[active.prompt] for active in state.prompts}
    axis = next((part.axis for part in parts.values() if part is not None), "k")
    if isinstance(axis, ViewGrid):
        propagation.require_along_normal()
        return _along_normal(plan, state, propagation, masks, axis)
    flat = {key: _flat_slices(part, axis) for key, part in parts.items()}
    fresh = {index for active in state.prompts if active.is_live for index in flat[active.key]}
    settled = {index for active in state.prompts if not active.is_live for index in flat[active.key]}
    if propagation.hand_over == "interpolate":
        if not state.prompts:  # drawn by hand alone, in whichever view
            axis = min(reversed(AXES), key=lambda axis: len(hand_slices(state, masks, axis)) or sys.maxsize)
        return _interpolating(plan, state, propagation, masks, axis, fresh, settled)
    drawn = hand_slices(state, masks, axis) - fresh
    span = range(propagation.start or 0, propagation.stop or geometry.shape_kji[array_axis(axis)])
    anchors: list[Prompt] = []
    if choice.takes_masks and axis == "k":
        anchors = [
            _seed_prompt(plan, part)
            for index in sorted(drawn & set(span))
            if not (part := _cut(plan.merge.seed, slab(axis, index, index + 1, geometry))).box.is_empty
        ]
    replaced = drawn if anchors else set()
    prompts = tuple(active.prompt for active in state.prompts if not set(flat[active.key]) & replaced)
    if not prompts and not anchors:
        raise PromptError("there is nothing to propagate: prompt a slice, or correct one by hand, first")
    kept = tuple(slab(axis, index, index + 1, geometry) for index in sorted(drawn | (settled - fresh)))
    zone = slab(axis, span.start, span.stop, geometry)
    merge = replace(plan.merge, around=axis, zone=zone, kept=kept)
    return replace(plan, prompts=(*anchors, *prompts), propagation=propagation, merge=merge)


def _interpolating(
    plan: SegmentPlan,
    state: SegmentState,
    propagation: Propagation,
    masks: MaskTable,
    axis: Axis,
    fresh: set[int],
    settled: set[int],
) -> SegmentPlan:
    """Slices that were prompted or corrected stay as they are; those between them are to be interpolated.

    A segment without such slices, as one that came with a scene, has all that it has voxels on. Beside a slice that
    was emptied nothing is filled: the object ends there.
    """
    geometry, seed = plan.merge.geometry, plan.merge.seed
    filled = set(touched_slices(seed, axis))
    own = (hand_slices(state, masks, axis) | settled) - fresh
    own = own if len(own | fresh) > 1 else filled - fresh
    ends = sorted((own & filled) | fresh)
    if not any(high > low + 1 for low, high in pairwise(ends)):
        raise PromptError(NOTHING_BETWEEN)
    slabs = {index: slab(axis, index, index + 1, geometry) for index in own}
    anchors = [_seed_prompt(plan, _cut(seed, slabs[index])) for index in sorted(own & filled)]
    prompts = tuple(active.prompt for active in state.prompts if active.is_live)
    emptied = own - filled
    kept = [slab(axis, low, high, geometry) for low, high in pairwise(ends) if emptied & {*range(low, high)}]
    first, last = max(ends[0], propagation.start or 0), min(ends[-1] + 1, propagation.stop or sys.maxsize)
    zone = slab(axis, first, max(first, last), geometry)
    merge = replace(plan.merge, around=axis, zone=zone, kept=(*kept, *slabs.values()))
    return replace(plan, prompts=(*anchors, *prompts), propagation=propagation, merge=merge)


def _along_normal(
    plan: SegmentPlan, state: SegmentState, propagation: Propagation, masks: MaskTable, view: ViewGrid
) -> SegmentPlan:
    """Prompts of an oblique view are carried along its normal; what was corrected by hand stays."""
    kept = tuple(masks.get(key).box for key in state.hand)
    merge = replace(plan.merge, around=view.nearest_axis, kept=kept)
    return replace(plan, prompts=state.all_prompts, propagation=propagation, merge=merge)


def hand_slices(state: SegmentState, masks: MaskTable, axis: Axis) -> set[int]:
    """The slices across an axis that were corrected by hand."""
    return {index for key in state.hand for index in touched_slices(masks.get(key), axis)}


def _flat_slices(part: _SlicePart | None, axis: Axis) -> tuple[int, ...]:
    return tuple(part.slices) if part is not None and part.is_flat and part.axis == axis else ()


def _pointed_at(
    prompts: tuple[Prompt, ...], seed: PackedMask, placed: SliceParts
) -> list[tuple[PackedMask, Axis | ViewGrid]]:
    """The parts of the seed, each on one slice, that points, strokes and lassos have a position in.

    A prompt beside all that is there says nothing against it: its answer adds. A box in an oblique view points at all
    that it holds there.
    """
    parts = []
    for prompt in prompts:
        on_slice = placed[prompt]
        if isinstance(prompt, BoxPrompt):
            if on_slice is not None and isinstance(on_slice.axis, ViewGrid):
                parts.append((on_slice.axis.rectangle(on_slice.box, prompt.plane), on_slice.axis))
        elif on_slice is not None:
            positions = [
                tuple(index[::-1]) for index in placed.geometry.nearest_voxel(prompt_positions(prompt)).tolist()
            ]
            box, on_view = on_slice.box, seed
            if isinstance(on_slice.axis, ViewGrid):
                cut = seed.unpack() & on_slice.axis.near(prompt.plane, seed.box)
                box, on_view = seed.box, pack_mask(cut, seed.box.start_kji)
            part = connected_part(on_view, box, positions)
            if not part.box.is_empty:
                parts.append((part, on_slice.axis))
    return parts


def _kept(state: SegmentState, masks: MaskTable, geometry: Geometry, parts: list[_SlicePart]) -> tuple[Box, ...]:
    """Slices corrected by hand which a box reaches that was not drawn on them."""
    kept = []
    for axis in AXES:
        if any(part.is_box and part.axis == axis for part in parts):
            prompted = {index for part in parts for index in _flat_slices(part, axis)}
            drawn = hand_slices(state, masks, axis) - prompted
            kept += [slab(axis, index, index + 1, geometry) for index in sorted(drawn)]
    return tuple(kept)


def _cut(mask: PackedMask, box: Box) -> PackedMask:
    common = mask.box.intersection(box)
    if common.is_empty:
        return EMPTY_MASK
    return pack_mask(mask.unpack()[common.relative_to(mask.box).slices], common.start_kji)


def _seed_prompt(plan: SegmentPlan, mask: PackedMask) -> MaskPrompt:
    return MaskPrompt(_SEED_FILE, plan.segment_id, voxels=mask)
