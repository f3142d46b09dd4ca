"""Doubt: slices by the model's own estimate, and voxels by how far the answers to jittered prompts disagree."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..codec import frozen
from ..errors import InputError, PromptError
from ..imaging.geometry import AXES, Axis, Box, Geometry, array_axis, as_vector
from ..prompts.kinds import BoxPrompt, LassoPrompt, ObliquePlane, PointPrompt, Prompt, ScribblePrompt
from ..prompts.placement import place_box, rectangle_corners
from .segmentation import SURE, Prediction, PredictRequest

ANSWERS = 8
BOX_JITTER = 0.08  # of a side, by which each edge of a box moves at most; a voxel at least
_SHIFT = 2.0  # voxels, by which clicks and lines move at most along each axis of their slice
_DOUBTFUL_SHARE = 0.25  # of the slices: those with the highest doubt
_MOST_ANSWERS = 64
_MOVABLE = (BoxPrompt, PointPrompt, ScribblePrompt, LassoPrompt)


@frozen
class SliceDoubts:
    """Doubts of slices across an axis, by their numbers: from 0, sure, to 1."""

    axis: Axis
    doubts: Mapping[int, float]

    @property
    def doubtful(self) -> tuple[int, ...]:
        """The slices to look at, in rising order: the quarter with the highest doubt, and all that are not sure."""
        ranked = sorted(self.doubts, key=lambda number: (-self.doubts[number], number))
        unsure = {number for number, doubt in self.doubts.items() if doubt > 1 - SURE}
        return tuple(sorted(unsure.union(ranked[: math.ceil(_DOUBTFUL_SHARE * len(ranked))])))

    def next_doubtful(self, number: int | None = None) -> int:
        """The doubtful slice after a slice, the first one after the last; there is always one."""
        after = [other for other in self.doubtful if number is None or other > number]
        return (after or self.doubtful)[0]


@frozen
class UncertaintyMap:
    """How far several answers disagree about each voxel.

    Attributes:
        box: the voxels of the image that some answer has; all others are certain.
        values_kji: (K, J, I) of the box: the entropy of the vote in bits, 0 where all agree, 1 where half of them do.
        answers: how many there were.
        slices: the mean of each slice over its voxels that some answer has.
    """

    box: Box
    values_kji: NDArray[np.float32]
    answers: int
    slices: SliceDoubts


def uncertainty_request(
    request: PredictRequest, geometry: Geometry, answers: int = ANSWERS, seed: int = 0
) -> PredictRequest:
    """Return a request for several answers: to the prompts as they are, and to jittered ones; for :func:`uncertainty`.

    All are segments of one request, so that each slice is encoded once. The same seed gives the same prompts.

    Raises:
        InputError: the number of answers is not within 2 and 64.
        PromptError: no prompt has a position, or one lies outside the image.
    """
    if not 1 < answers <= _MOST_ANSWERS:
        raise InputError(f"ask for 2 to {_MOST_ANSWERS} answers, not {answers}")
    rng, segments = np.random.default_rng(seed), []
    for m, segment in enumerate(request.segments):
        if not any(isinstance(prompt, _MOVABLE) for prompt in segment.prompts):
            raise PromptError("only boxes, points, scribbles and lassos can be jittered", f"segments[{m}]")
        for n in range(answers):
            prompts = tuple(_jittered(prompt, geometry, rng) if n else prompt for prompt in segment.prompts)
            segments.append(replace(segment, name=f"{m}.{n} {segment.name}", prompts=prompts))
    return replace(request, segments=tuple(segments))


def uncertainty(prediction: Prediction, answers: int = ANSWERS) -> UncertaintyMap:
    """Return the disagreement of the answers to :func:`uncertainty_request`; of several segments the largest.

    Raises:
        InputError: none of the answers has a voxel.
    """
    masks = [segment.mask for segment in prediction.segments]
    box = masks[0].box
    for mask in masks[1:]:
        box = box.union(mask.box)
    if box.is_empty:
        raise InputError("no answer has a voxel: there is nothing to be uncertain about")
    shares = np.linspace(0, 1, answers + 1)[1:-1]
    entropy = np.zeros(answers + 1, np.float32)  # in bits, by the number of votes
    entropy[1:-1] = -shares * np.log2(shares) - (1 - shares) * np.log2(1 - shares)
    values, is_met = np.zeros(box.shape_kji, np.float32), np.zeros(box.shape_kji, np.bool_)
    for start in range(0, len(masks), answers):
        votes = np.zeros(box.shape_kji, np.uint8)
        for mask in masks[start : start + answers]:
            votes[mask.box.relative_to(box).slices] += mask.unpack()
        np.maximum(values, entropy[votes], out=values)
        is_met |= votes > 0
    axis = next((segment.slices.axis for segment in prediction.segments if segment.slices is not None), "k")
    others = tuple(n for n in range(3) if n != array_axis(axis))
    sums, counts = values.sum(axis=others, dtype=np.float64), is_met.sum(axis=others)
    first = box.start_kji[array_axis(axis)]
    doubts = {first + int(n): float(sums[n] / counts[n]) for n in np.flatnonzero(counts)}
    return UncertaintyMap(box, values, answers, SliceDoubts(axis, doubts))


# The generator is quoted: to name it loads `numpy.random`, which takes long.
def _jittered(prompt: Prompt, geometry: Geometry, rng: "np.random.Generator") -> Prompt:
    """Return a prompt moved a little within its slice; one without a position, or that would leave the image, as it is.

    Raises:
        PromptError: it lies outside the image.
    """
    if isinstance(prompt, BoxPrompt):
        is_oblique = isinstance(prompt.plane, ObliquePlane)
        return (_jittered_rectangle if is_oblique else _jittered_box)(prompt, geometry, rng)
    if not isinstance(prompt, PointPrompt | ScribblePrompt | LassoPrompt):
        return prompt
    across, down = rng.uniform(-_SHIFT, _SHIFT, 2)
    if isinstance(prompt.plane, ObliquePlane):
        normal, right = np.array(prompt.plane.normal), np.cross(prompt.plane.up, prompt.plane.normal)
        up = np.cross(normal, right)  # without its part along the normal
        shift = across * right / np.linalg.norm(right) + down * up / np.linalg.norm(up)
        shift = shift * min(geometry.spacing_mm)
    else:
        first, second = (n for n, axis in enumerate(AXES) if axis != (prompt.plane or "k"))
        shift = across * geometry.ijk_to_ras[:3, first] + down * geometry.ijk_to_ras[:3, second]
    positions = [prompt.position] if isinstance(prompt, PointPrompt) else prompt.points
    moved = [as_vector(position + shift) for position in np.asarray(positions)]
    if not geometry.box.contains(Box.around(geometry.to_ijk(moved))):
        return prompt
    if isinstance(prompt, PointPrompt):
        return replace(prompt, position=moved[0])
    return replace(prompt, points=tuple(moved))


def _jittered_box(prompt: BoxPrompt, geometry: Geometry, rng: "np.random.Generator") -> BoxPrompt:
    """Move each edge of a box within its slices, which stay the same."""
    axis = AXES.index(place_box(prompt, geometry).axis)
    corners = geometry.to_ijk(prompt.corners)
    low, high = corners.min(axis=0), corners.max(axis=0)
    most = np.maximum(BOX_JITTER * (high - low), 1.0)
    most[axis] = 0.0
    last = np.array(geometry.shape_kji[::-1]) - 1.0
    moved = np.clip(np.stack([low, high]) + rng.uniform(-1, 1, (2, 3)) * most, 0, last)
    moved[:, axis] = low[axis], high[axis]
    if np.delete(moved[1] - moved[0], axis).min() < 1:
        return prompt
    first, second = (as_vector(corner) for corner in geometry.to_ras(moved))
    return replace(prompt, corners=(first, second))


def _jittered_rectangle(prompt: BoxPrompt, geometry: Geometry, rng: "np.random.Generator") -> BoxPrompt:
    """Move each edge of a box that was drawn in an oblique view, within that view."""
    place_box(prompt, geometry)
    first, right, last, top = rectangle_corners(prompt.corners, prompt.plane)
    edges, voxel_mm = np.stack([right - first, top - first]), min(geometry.spacing_mm)
    lengths = np.linalg.norm(edges, axis=1)
    shifts = rng.uniform(-1, 1, (2, 2)) * np.maximum(BOX_JITTER * lengths, voxel_mm)
    if np.minimum(lengths, lengths + shifts[1] - shifts[0]).min() < voxel_mm:
        return prompt
    first, last = np.stack([first, last]) + shifts @ (edges / lengths[:, None])
    moved = replace(prompt, corners=(as_vector(first), as_vector(last)))
    try:
        place_box(moved, geometry)
    except PromptError:
        return prompt
    return moved
