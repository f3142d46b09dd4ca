"""Shape-based interpolation: slices between those of the user, from the distances to the outlines of both neighbours.

The rule of Raya and Udupa (1990): each slice becomes the signed distance of its pixels to the outline, distances are
interpolated linearly, and the object is where they are positive. No model is asked.
"""

import sys
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from itertools import pairwise
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from ..errors import PromptError
from ..imaging.geometry import AXES, Axis, Geometry, Vector, array_axis
from ..imaging.masks import PackedMask, merge_masks, pack_mask, touched_slices
from ..progress import Progress
from ..prompts.kinds import (
    BoxPrompt,
    LassoPrompt,
    MaskPrompt,
    ObliquePlane,
    PointPrompt,
    Prompt,
    ScribblePrompt,
    SegmentPrompts,
)
from ..prompts.oblique import ViewPart
from ..prompts.placement import place_box, prompt_positions, slice_axis, slice_number, thin_axes
from ..requests.segmentation import (
    NOT_BETWEEN_OBLIQUE,
    NOTHING_BETWEEN,
    CheckpointRecord,
    Prediction,
    PredictRequest,
    Propagation,
    SegmentPrediction,
    SliceScores,
)

_DRAWN = PointPrompt | ScribblePrompt | LassoPrompt


def predict_between(
    request: PredictRequest, geometry: Geometry, ask: Callable[[PredictRequest], Prediction], progress: Progress
) -> Prediction:
    """Answer a request whose slices between the prompted ones are to be interpolated.

    Masks stay as they are, voxel by voxel; a model is asked about other prompts only, each on its own slices.

    Args:
        request: its propagation is handed over by ``"interpolate"``; the range that it names is kept to.
        geometry: of the image.
        ask: answers the request of the other prompts.
        progress: told of the segments.

    Raises:
        PromptError: a segment has less than two slices, or none between them.
        FoundationSegError: whatever the model failed with.
    """
    question = _on_slices(request.segments, geometry)
    answer = Prediction(request.request_id, (), {}, CheckpointRecord(request.model_id, "", "", ""), "", "")
    if question.segments:
        answer = _answer(request, question, ask)
    limits, segments = request.propagation or Propagation(), []
    for n, segment in enumerate(request.segments):
        progress.step("segments", n, len(request.segments))
        predicted = [part for part, (m, _) in zip(answer.segments, question.numbers, strict=True) if m == n]
        masks = [prompt.voxels for prompt in segment.prompts if isinstance(prompt, MaskPrompt) and prompt.voxels]
        axis = _axis(segment.prompts, masks, geometry)
        whole = merge_masks([*map(attrgetter("mask"), predicted), *masks])
        new = interpolate(whole, axis, geometry.spacing_mm, range(limits.start or 0, limits.stop or sys.maxsize))
        if new is None:
            raise PromptError(NOTHING_BETWEEN, f"segments[{n}]")
        segments.append(_joined(merge_masks([whole, new]), predicted, axis))
    return replace(answer, segments=tuple(segments))


def _answer(request: PredictRequest, question: ViewPart, ask: Callable[[PredictRequest], Prediction]) -> Prediction:
    """Ask about the prompted slices, each as a segment; messages have the numbers of the request."""
    try:
        answer = ask(replace(request, segments=question.segments, propagation=None))
    except PromptError as error:
        raise PromptError(question.in_request(error.problem), question.in_request(error.location)) from error
    return replace(answer, notes=tuple(dict.fromkeys(map(question.in_request, answer.notes))))


def _on_slices(segments: Sequence[SegmentPrompts], geometry: Geometry) -> ViewPart:
    """Return the prompts without the masks, those of one slice as a segment: a model would follow several by itself."""
    groups: dict[tuple[int, tuple[Axis, int, int] | None], dict[int, Prompt]] = {}
    for n, segment in enumerate(segments):
        for m, prompt in enumerate(segment.prompts):
            location, key = f"segments[{n}].prompts[{m}]", None
            if isinstance(getattr(prompt, "plane", None), ObliquePlane):
                raise PromptError(NOT_BETWEEN_OBLIQUE)
            if isinstance(prompt, BoxPrompt):
                placed = place_box(prompt, geometry, location)
                key = placed.axis, placed.slices.start, placed.slices.stop
            elif isinstance(prompt, _DRAWN):
                axis = slice_axis(prompt)
                number = slice_number(prompt_positions(prompt), axis, geometry, location)
                key = axis, number, number + 1
            if not isinstance(prompt, MaskPrompt):
                groups.setdefault((n, key), {})[m] = prompt
    on_slices = tuple(SegmentPrompts(str(m), tuple(group.values())) for m, group in enumerate(groups.values()))
    return ViewPart(None, on_slices, tuple((n, tuple(group)) for (n, _), group in groups.items()))


def _joined(mask: PackedMask, predicted: Sequence[SegmentPrediction], axis: Axis) -> SegmentPrediction:
    """Join the model's estimates of the slices that it was asked about."""
    scores = [segment.score for segment in predicted if segment.score is not None]
    known: dict[int, float] = {}
    for segment in predicted:
        if segment.slices is not None and segment.slices.axis == axis:
            known |= dict(zip(segment.slices.numbers, segment.slices.scores, strict=True))
    numbers = tuple(sorted(known))
    slices = SliceScores(axis, numbers, tuple(known[number] for number in numbers)) if known else None
    return SegmentPrediction(mask, sum(scores) / len(scores) if scores else None, slices)


def interpolate(
    mask: PackedMask, axis: Axis, spacing_mm: Vector = (1.0, 1.0, 1.0), span: Container[int] = range(sys.maxsize)
) -> PackedMask | None:
    """Return the object on the slices between those that a mask has voxels on; None where there are no such slices.

    Args:
        mask: the object on some slices.
        axis: across which they lie.
        spacing_mm: between voxels along i, j, k.
        span: the slices that may be filled.
    """
    filled, n = touched_slices(mask, axis), array_axis(axis)
    pairs = [(low, high) for low, high in pairwise(filled) if high > low + 1]
    if not pairs:
        return None
    planes = np.moveaxis(mask.unpack(), n, 0)
    first = mask.box.start_kji[n]
    new = np.zeros_like(planes)
    sampling = [spacing for m, spacing in enumerate(spacing_mm[::-1]) if m != n]
    for low, high in pairs:
        outlines = [_signed_distance(planes[number - first], sampling) for number in (low, high)]
        for number in range(low + 1, high):
            if number in span:
                share = (number - low) / (high - low)
                new[number - first] = (1 - share) * outlines[0] + share * outlines[1] > 0
    return pack_mask(np.moveaxis(new, 0, n), mask.box.start_kji)


def _signed_distance(plane: NDArray[np.bool_], sampling: Sequence[float]) -> NDArray[np.float64]:
    """Return the distance of each pixel to the nearest one of the other kind, positive in the object."""
    from scipy import ndimage

    inside = ndimage.distance_transform_edt(np.pad(plane, 1), sampling=sampling)[1:-1, 1:-1]
    return inside - ndimage.distance_transform_edt(~plane, sampling=sampling)


def _axis(prompts: Sequence[Prompt], masks: Sequence[PackedMask], geometry: Geometry) -> Axis:
    """Return the axis across which the prompts lie; without any, that along which the masks, each thin, lie apart."""
    for prompt in prompts:
        if isinstance(prompt, BoxPrompt):
            return place_box(prompt, geometry).axis
        if isinstance(prompt, _DRAWN):
            return slice_axis(prompt)
    thin: list[Axis] = [axis for axis in reversed(AXES) if all(axis in thin_axes(mask.box) for mask in masks)]
    extent = merge_masks(masks).box.shape_kji
    return max(thin, key=lambda axis: extent[array_axis(axis)], default="k")
