"""Prompt one frame of an image in time, and follow its segments to all others and back.

Prompts go where the image around each segment goes: the part of the prompted frame that holds the segment is found
again in every other frame, and the model is asked there. Then each voxel takes the value that most of three frames give
it, seen along that movement, so that nothing blinks. Frames with prompts of their own stay as the model answered them,
and frames that somebody corrected as they are.
"""

import functools
import itertools
import math
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.label_sets import listed
from ..codec import frozen
from ..errors import InputError
from ..imaging.geometry import Box, Geometry, as_shape
from ..imaging.masks import EMPTY_MASK, PackedMask, cut_out, pack_mask
from ..imaging.volume import Volume
from ..prompts.kinds import MaskPrompt, PromptSet, SegmentPrompts
from ..prompts.placement import prompts_in_ras, require_all_inside
from ..requests.segmentation import Prediction
from .steps import transformed_prompt

Question = tuple[int, PromptSet]  # what the model is asked of a frame, by its number
Predict = Callable[[int, PromptSet], Prediction]
Shift = tuple[float, float, float]  # in voxels, along k, j and i

_NOTHING: Shift = (0.0, 0.0, 0.0)
_MARGIN_MM = 6.0  # around a segment, of what is found again
_REACH_MM = 12.0  # farther than that nothing moves from one frame to the next
_LARGEST_TEMPLATE = 20**3  # voxels; larger parts are thinned out
_COARSE, _TRIED = 3, 5  # voxels between the first guesses, and how many of them are followed


@frozen
class FrameAnswer:
    """Segments of one frame.

    Attributes:
        prediction: the model's answer; its masks are what is written.
        shifts: by how much each segment's prompts were moved from the prompted frame.
        is_prompted: the frame has prompts of its own or was corrected, and stays as it is.
    """

    prediction: Prediction
    shifts: tuple[Shift, ...]
    is_prompted: bool

    @property
    def masks(self) -> tuple[PackedMask, ...]:
        """The segments, in order."""
        return tuple(segment.mask for segment in self.prediction.segments)


def place_prompts(prompted: Mapping[int, PromptSet], frames: Sequence[Volume]) -> dict[int, PromptSet]:
    """Make sure that the prompts of frames can be followed, and bring them into RAS.

    Raises:
        InputError: a frame is not there, other segments are prompted in it, or a mask is among the prompts.
        PromptError: a prompt lies outside the image.
    """
    names = [segment.name for segment in next(iter(prompted.values())).segments]
    placed = {}
    for n, prompts in prompted.items():
        if not 0 <= n < len(frames):
            raise InputError(f"there are {len(frames)} frames, counted from 0: there is no frame {n}")
        if [segment.name for segment in prompts.segments] != names:
            raise InputError(f"the prompts of frame {n} must have the segments {listed(names)}, in that order")
        if any(isinstance(prompt, MaskPrompt) for segment in prompts.segments for prompt in segment.prompts):
            raise InputError("points, boxes, scribbles, outlines and words are followed in time, and no masks")
        placed[n] = prompts_in_ras(prompts, frames[n].geometry)
        require_all_inside(placed[n], frames[n].geometry)
    return placed


def follow(frames: Sequence[Volume], prompted: Mapping[int, PromptSet], predict: Predict) -> list[FrameAnswer]:
    """Segment every frame: those with prompts as they are, the others from the nearest one of those.

    Args:
        frames: on one grid.
        prompted: prompts of one frame at least, by its number (:func:`place_prompts`).
        predict: asks the model about a frame, by its number.
    """
    questions, answer = questions_in_time(frames, prompted), None
    while True:
        try:
            number, prompts = questions.send(answer)
        except StopIteration as end:
            return end.value
        answer = predict(number, prompts)


def questions_in_time(
    frames: Sequence[Volume], prompted: Mapping[int, PromptSet], corrected: Collection[int] = ()
) -> Generator[Question, Prediction, list[FrameAnswer]]:
    """Ask about one frame after the other, as :func:`follow`, whose answers it returns; for those who cannot wait.

    The answers of the frames that are ``corrected``, by their numbers, are somebody's corrections, and stay.
    """
    answers = {}
    for n, prompts in prompted.items():
        answers[n] = FrameAnswer((yield n, prompts), (_NOTHING,) * len(prompts.segments), True)
    for start in prompted:
        for step in (1, -1):
            shifts, number = answers[start].shifts, start + step
            while 0 <= number < len(frames) and _nearest(number, prompted) == start:
                templates = [_template(frames[start], mask) for mask in answers[start].masks]
                shifts = tuple(
                    find_shift(frames[start].array_kji, frames[number].array_kji, box, near, frames[start].geometry)
                    for box, near in zip(templates, shifts, strict=True)
                )
                moved = _moved(prompted[start], shifts, frames[start].geometry)
                answers[number] = FrameAnswer((yield number, moved), shifts, number in corrected)
                number += step
    return steady([answers[number] for number in range(len(frames))], frames[0].geometry.box)


def _nearest(number: int, prompted: Mapping[int, PromptSet]) -> int:
    return min(prompted, key=lambda start: (abs(start - number), start))


def _template(volume: Volume, mask: PackedMask) -> Box:
    """The part of a frame that is found again: a segment and some millimetres around it; empty without a segment."""
    if mask.box.is_empty:
        return mask.box
    margin = [math.ceil(_MARGIN_MM / length) for length in volume.geometry.spacing_mm[::-1]]
    start = as_shape(n - m for n, m in zip(mask.box.start_kji, margin, strict=True))
    stop = as_shape(n + m for n, m in zip(mask.box.stop_kji, margin, strict=True))
    return Box(start, stop).intersection(volume.geometry.box)


def find_shift(
    before: NDArray[np.generic], after: NDArray[np.generic], box: Box, near: Shift, geometry: Geometry
) -> Shift:
    """Find where a part of one frame lies in another, by normalized cross-correlation; to a fraction of a voxel.

    Args:
        before, after: (K, J, I) or (K, J, I, 3) values of the two frames.
        box: the part of the first one.
        near: where it was found last; not farther than some millimetres from there it is sought.
        geometry: the grid of both.

    Returns:
        The shift; the part stays inside the image.
    """
    if box.is_empty:
        return near
    lines = []
    for a, b, at, mm, size in zip(
        box.start_kji, box.stop_kji, near, geometry.spacing_mm[::-1], geometry.shape_kji, strict=True
    ):
        reach = math.ceil(_REACH_MM / mm)
        lines.append((max(-a, round(at) - reach), min(size - b, round(at) + reach)))
    match = _Match(before, after, box)
    coarse = [sorted({*range(low, high + 1, _COARSE), *((low + high) // 2,)}) for low, high in lines]
    candidates = sorted(itertools.product(*coarse), key=match.score)[-_TRIED:]
    best = max((match.climb(start, lines) for start in candidates), key=match.score)
    return match.refined(best, lines)


def _grey(array: NDArray[np.generic]) -> NDArray[np.float32]:
    return (array if array.ndim == 3 else array.mean(axis=3)).astype(np.float32, copy=False)


class _Match:
    """How well a part of one frame fits another at whole shifts."""

    def __init__(self, before: NDArray[np.generic], after: NDArray[np.generic], box: Box) -> None:
        thin = max(1, math.ceil((math.prod(box.shape_kji) / _LARGEST_TEMPLATE) ** (1 / 3)))
        self._grids = [
            np.arange(a, b, min(thin, max(1, (b - a) // 8))) for a, b in zip(box.start_kji, box.stop_kji, strict=True)
        ]
        self._after, self._known = after, dict[tuple[int, ...], float]()
        part = _grey(before[np.ix_(*self._grids)])
        self._template = part - part.mean()

    def score(self, shift: tuple[int, ...]) -> float:
        """The correlation at a shift, -1..1."""
        if shift not in self._known:
            part = _grey(self._after[np.ix_(*(grid + n for grid, n in zip(self._grids, shift, strict=True)))])
            part = part - part.mean()
            energy = float((part**2).sum()) * float((self._template**2).sum())
            self._known[shift] = float((part * self._template).sum()) / math.sqrt(energy) if energy > 0 else 0.0
        return self._known[shift]

    def climb(self, shift: tuple[int, ...], lines: Sequence[tuple[int, int]]) -> tuple[int, ...]:
        """Go to the best neighbour until there is none."""
        while True:
            near = [(max(low, n - 1), n, min(high, n + 1)) for n, (low, high) in zip(shift, lines, strict=True)]
            best = max(itertools.product(*near), key=self.score)
            if self.score(best) <= self.score(shift):
                return shift
            shift = best

    def refined(self, shift: tuple[int, ...], lines: Sequence[tuple[int, int]]) -> Shift:
        """The top of a parabola through the scores along each axis."""
        fine = []
        for axis, (n, (low, high)) in enumerate(zip(shift, lines, strict=True)):
            if low < n < high:
                below, here, above = (self.score((*shift[:axis], n + d, *shift[axis + 1 :])) for d in (-1, 0, 1))
                bend = below - 2 * here + above
                fine.append(n + (0.5 * (below - above) / bend if bend < 0 else 0.0))
            else:
                fine.append(float(n))
        return fine[0], fine[1], fine[2]


def _moved(prompts: PromptSet, shifts: Sequence[Shift], geometry: Geometry) -> PromptSet:
    """Move each segment's prompts, in RAS, by its shift."""
    segments = []
    for segment, shift in zip(prompts.segments, shifts, strict=True):
        matrix = np.eye(4)
        matrix[:3, 3] = geometry.ijk_to_ras[:3, :3] @ shift[::-1]
        moved = tuple(transformed_prompt(prompt, matrix) for prompt in segment.prompts)
        segments.append(SegmentPrompts(segment.name, moved))
    return replace(prompts, segments=tuple(segments))


def steady(answers: Sequence[FrameAnswer], image: Box) -> list[FrameAnswer]:
    """Give each voxel the value of most of three frames, moved along with the segment.

    Args:
        answers: of all frames, in order; those that were prompted or corrected stay.
        image: the voxels of a frame; what moves out of it is cut off.
    """
    result = list(answers)
    for n in range(1, len(answers) - 1):
        if answers[n].is_prompted:
            continue
        segments = []
        for k, segment in enumerate(answers[n].prediction.segments):
            near = [_along(answers[m].masks[k], answers[m].shifts[k], answers[n].shifts[k]) for m in (n - 1, n, n + 1)]
            segments.append(replace(segment, mask=_majority(near, image)))
        result[n] = replace(answers[n], prediction=replace(answers[n].prediction, segments=tuple(segments)))
    return result


def _along(mask: PackedMask, shift: Shift, target: Shift) -> PackedMask:
    """Move a mask by the whole voxels that its segment moves between two frames; it may leave the image."""
    steps = as_shape(round(b - a) for a, b in zip(shift, target, strict=True))
    return PackedMask(mask.box.shifted(steps), mask.bits)


def _majority(masks: Sequence[PackedMask], image: Box) -> PackedMask:
    whole = functools.reduce(Box.union, (mask.box for mask in masks)).intersection(image)
    if whole.is_empty:
        return EMPTY_MASK
    votes = np.sum([cut_out(mask, whole) for mask in masks], axis=0, dtype=np.uint8)
    return pack_mask(votes >= 2, whole.start_kji)


def flicker(masks: Sequence[PackedMask]) -> float:
    """The share of a segment that blinks: differs in one frame from both frames beside it, which agree; 0..1."""
    boxes = [mask.box for mask in masks if not mask.box.is_empty]
    if len(masks) < 3 or not boxes:
        return 0.0
    whole = functools.reduce(Box.union, boxes)
    before, now, after = (np.stack([cut_out(m, whole) for m in masks[a : len(masks) - 2 + a]]) for a in (0, 1, 2))
    blinking = np.count_nonzero((before == after) & (now != before))
    return float(blinking / max(1, sum(mask.voxels for mask in masks[1:-1])))


def consistency(names: Sequence[str], frames: Sequence[Sequence[PackedMask]], volume: Volume) -> dict[str, Any]:
    """Compose the part of the report on time: the volume of each segment in each frame, its change, and its flicker.

    Args:
        names: of the segments.
        frames: the masks of the segments, frame by frame.
        volume: an image of the frames.
    """
    unit = volume.voxel_ml
    rows = {}
    for k, name in enumerate(names):
        masks = [frame[k] for frame in frames]
        curve = [mask.voxels * (1.0 if unit is None else unit) for mask in masks]
        rows[name] = {
            "pixels" if unit is None else "volumes_ml": [round(value, 4) for value in curve],
            "flicker": round(flicker(masks), 5),
            "largest_step": round(max((abs(b - a) for a, b in itertools.pairwise(curve)), default=0.0), 4),
        }
    return rows
