"""Carry tracks from slice to slice with a 2-D model: the mask on one slice becomes the prompt of the next."""

import heapq
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TypeGuard, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..imaging.geometry import Axis, array_axis
from ..imaging.masks import EMPTY_MASK, merge_masks
from ..models.protocols import MemoryModel, SliceAnswer, SliceMask, SliceModel, SlicePoint, SlicePrompt
from ..progress import Progress
from ..requests.segmentation import HandOver, PartialPrediction, Propagation, SegmentPrediction, SliceScores
from .propagation_planning import Track, confined, refined
from .slice_inference import SliceInference
from .slices import prompt_stages, stack_slices
from .video_memory import MemorySequence, Visit, join_tracks, visit

# The prompt kind that each way to hand a mask over needs, the best first: a box says where the object ends, and nearly
# all models understand it.
_KINDS = {"box": "box", "mask": "mask", "points": "point"}
# Parts of a mask that are smaller than this part of the largest get no point of their own.
_SMALLEST_PART = 0.1


def has_memory(model: SliceModel) -> TypeGuard[MemoryModel]:
    """True for a model that follows objects by a memory of its own."""
    return hasattr(model, "remember")


@dataclass(slots=True)
class SliceSequence:
    """Passes the slices of a track from each of its starts: upwards first, then downwards.

    That is the order of the official script of LiteMedSAM. The prompts of all starts pass a slice together, and those
    that have become the same go on as one. Each slice keeps the answer that the model is surest of.

    Attributes:
        track: in the pixels that the model sees.
        propagation: its hand-over is one that the model understands.
        answers: by slice, filled as the slices are passed.
        done: how many slices have been passed.
    """

    track: Track
    inference: SliceInference
    propagation: Propagation
    answers: dict[int, SliceAnswer] = field(default_factory=dict)
    done: int = 0
    _first_answers: dict[int, SliceAnswer] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """The most slices to pass; a start that was passed upwards is no new one downwards."""
        starts = self.track.starts
        return len(self.track.reach) + starts[-1] - starts[0] + 1 - len(starts)

    def visits(self) -> Iterator[Visit]:
        """Yield which slice is next, then work on it; in rising order."""
        track = self.track
        for number, direction in enumerate(track.directions, start=1):
            neighbours: list[SliceAnswer] = []
            for index in direction:
                is_new = index not in self._first_answers
                if neighbours or (is_new and index in track.starts) or track.is_clicked(index):
                    yield visit(track.axis, number, index * direction.step)
                neighbours = self._answer(index, neighbours)
                for answer in neighbours:
                    if index not in self.answers or _certainty(answer) > _certainty(self.answers[index]):
                        self.answers[index] = answer
                self.done += is_new

    def _answer(self, index: int, neighbours: Sequence[SliceAnswer]) -> list[SliceAnswer]:
        """Return the answers on a slice: the prompt's own where it is a start, then those to its neighbour's masks.

        Where no mask is handed over, a positive point says by itself that the object is here.
        """
        track, answers, prompted = self.track, [], set()
        if index in track.starts:
            if index not in self._first_answers:
                stages = track.stages_on(index)
                self._first_answers[index] = self.inference.ask(track.axis, index, stages)
            answers.append(self._first_answers[index])
            prompted.add(track.prompt)
        for neighbour in neighbours or ([] if prompted else [None]):
            stages = self._stages(index, neighbour)
            if not stages or stages[0] in prompted:
                continue
            prompted.add(stages[0])
            answer = self.inference.ask(track.axis, index, stages)
            is_certain = neighbour is None or index in track.span or track.is_clicked(index)
            if is_certain or agreement(neighbour.mask, answer.mask) >= self.propagation.least_agreement:
                answers.append(answer)
        return answers

    def _stages(self, index: int, neighbour: SliceAnswer | None) -> tuple[SlicePrompt, ...]:
        """Return the prompt of a later slice as it grows; empty where nothing says that the object is there."""
        track, points = self.track, self.track.points.get(index, ())
        prompt = None
        if neighbour is not None:
            way = self.propagation.hand_over
            prompt = next_slice_prompt(self.inference.model, neighbour.mask, way, track.wider)
        prompt = prompt and confined(prompt, track.limit)
        if prompt is None and index in track.span:
            prompt = track.prompt
        return prompt_stages(points) if prompt is None else refined(prompt, points)


@dataclass(slots=True)
class SingleSlice:
    """A track that changes its own slice only, and the answer there; the track is in the pixels as stored."""

    track: Track
    answers: dict[int, SliceAnswer] = field(default_factory=dict)


Sequences = Sequence[SliceSequence | MemorySequence | SingleSlice]


def segment(
    inference: SliceInference,
    tracks: Sequence[Sequence[Track]],
    propagation: Propagation | None,
    prompt_kinds: Sequence[str],
    progress: Progress,
) -> list[SegmentPrediction]:
    """Return the masks of the tracks of each segment, in the order of the segments.

    All tracks of all segments pass a slice together, so that it is encoded once.

    Raises:
        InputError: masks have to be handed over, and none of the model's kinds of prompts will do.
        Cancelled: the user asked to stop.
    """
    sequences: Sequence[Sequences] = ()
    for track in itertools.chain.from_iterable(tracks):
        if len(track.reach) > 1 or not track.is_flat:
            way = choose_hand_over(propagation.hand_over if propagation else "auto", prompt_kinds)
            carried = replace(propagation or Propagation(), hand_over=way)
            sequences = _carry_on(inference, tracks, carried, progress)
            break
    if not sequences:
        sequences = []
        for of_segment in tracks:
            sequences.append(list(map(SingleSlice, of_segment)))
        in_order = sorted(itertools.chain.from_iterable(sequences), key=attrgetter("track.axis", "track.starts"))
        for done, single in enumerate(in_order, start=1):
            progress.check()
            axis, index = single.track.axis, single.track.starts[0]
            shape, turn, stages = list(inference.volume.geometry.shape_kji), inference.orientation(axis), []
            del shape[array_axis(axis)]
            for prompt in single.track.stages:
                stages.append(turn.turn_prompt(prompt, (shape[0], shape[1])))
            single.answers[index] = inference.ask(axis, index, stages)
            progress.step("slices", done, len(in_order))
    predictions = []
    for of_segment in sequences:
        predictions.append(_join(inference, of_segment))
    return predictions


def _carry_on(
    inference: SliceInference, tracks: Sequence[Sequence[Track]], propagation: Propagation, progress: Progress
) -> list[list[SliceSequence | MemorySequence]]:
    """Carry tracks from slice to slice: the sequence goes on that is the furthest behind, until all have ended."""
    sequences = [_sequences(inference, of_segment, propagation) for of_segment in tracks]
    parts = _PartReports(inference, sequences, progress)
    together = [sequence for of_segment in sequences for sequence in of_segment]
    total, reported = sum([sequence.steps for sequence in together]), 0
    for _ in itertools.chain(heapq.merge(*[sequence.visits() for sequence in together]), [None]):
        done = sum([sequence.done for sequence in together])
        if done > reported:
            reported = done
            progress.step("slices", done, total)
        progress.check()
        parts.report()
        if progress.token.is_finishing:
            break
    return sequences


@dataclass(slots=True)
class _PartReports:
    """Tells of slices as they are answered, not more often than can be seen."""

    inference: SliceInference
    sequences: Sequence[Sequences]
    progress: Progress
    _told: dict[tuple[int, int], SliceAnswer] = field(default_factory=dict)
    _time: float = field(default_factory=time.monotonic)

    def report(self) -> None:
        """Tell of the slices whose answers are new since the last time, if that was a while ago."""
        if time.monotonic() < self._time + self.progress.part_s:
            return
        masks = []
        for of_segment in self.sequences:
            slices: dict[Axis, dict[int, NDArray[np.bool_]]] = {}
            for sequence in of_segment:
                axis = sequence.track.axis
                new = {
                    n: answer
                    for n, answer in sequence.answers.items()
                    if self._told.get((id(sequence), n)) is not answer
                }
                for index, answer in new.items():
                    self._told[id(sequence), index] = answer
                    stored, mask = slices.setdefault(axis, {}), self.inference.orientation(axis).turn_back(answer.mask)
                    stored[index] = stored[index] | mask if index in stored else mask
            parts = [stack_slices(axis, stored) for axis, stored in slices.items()]
            masks.append(merge_masks(parts) if parts else EMPTY_MASK)
        if any(not mask.box.is_empty for mask in masks):
            self.progress.partial(PartialPrediction(tuple(masks)))
            self._time = time.monotonic()


def _sequences(
    inference: SliceInference, tracks: Sequence[Track], propagation: Propagation
) -> list[SliceSequence | MemorySequence]:
    sequences: list[SliceSequence | MemorySequence] = []
    model = inference.model
    if has_memory(model):
        objects, tracks = join_tracks(tracks)
        sequences += [MemorySequence.of(tracked, model, inference) for tracked in objects]
    for track in tracks:
        rows, columns = np.delete(inference.volume.geometry.shape_kji, array_axis(track.axis)).tolist()
        turned = track.turned(inference.orientation(track.axis), (rows, columns))
        sequences.append(SliceSequence(turned, inference, propagation))
    return sequences


def _join(inference: SliceInference, sequences: Sequences) -> SegmentPrediction:
    """Return the union of the masks of all slices, and the mean of the model's scores where it found something."""
    masks, scores = [], []
    by_axis: dict[Axis, dict[int, float]] = {}
    slices: dict[Axis, dict[int, NDArray[np.bool_]]] = {}
    for sequence in sequences:
        axis = sequence.track.axis
        orientation, is_object = inference.orientation(axis), isinstance(sequence, MemorySequence)
        stored = {} if is_object else slices.setdefault(axis, {})
        for index, answer in sequence.answers.items():
            mask = orientation.turn_back(answer.mask)
            stored[index] = stored[index] | mask if index in stored else mask
            if answer.mask.any():
                scores.append(answer.score)
                lowest = by_axis.setdefault(axis, {})
                lowest[index] = min(float(answer.score), lowest.get(index, 1.0))
        if is_object:
            masks.append(sequence.finished(stack_slices(axis, stored)))
    for axis, stored in slices.items():
        masks.append(stack_slices(axis, stored))
    mask = masks[0] if len(masks) == 1 else merge_masks(masks)
    score = sum(scores) / len(scores) if scores else None
    if len(by_axis) != 1:
        return SegmentPrediction(mask, score)
    ((axis, lowest),) = by_axis.items()
    numbers = tuple(sorted(lowest))
    return SegmentPrediction(mask, score, SliceScores(axis, numbers, tuple(map(lowest.__getitem__, numbers))))


def choose_hand_over(choice: HandOver, prompt_kinds: Sequence[str]) -> HandOver:
    """Return how masks are handed over to a model that understands these kinds of prompts.

    Raises:
        InputError: the choice is none that the model understands.
    """
    usable = [way for way in get_args(HandOver) if _KINDS.get(way) in prompt_kinds]
    if choice == "interpolate":
        return choice  # nothing is handed over
    if choice == "auto" and usable:
        return usable[0]
    if choice not in usable:
        ways = ", ".join(usable) or "nothing"
        raise InputError(f"the model cannot be asked with the {choice} of a neighbouring slice, only with: {ways}")
    return choice


def next_slice_prompt(model: SliceModel, mask: NDArray[np.bool_], way: HandOver, wider: int = 0) -> SlicePrompt | None:
    """Return the prompt for the next slice that follows from a mask, (rows, columns); None for an empty mask."""
    if way == "box":
        box = model.box_around(mask, wider)
        return box and SlicePrompt(box)
    if not mask.any():
        return None
    return SlicePrompt(mask=SliceMask.pack(mask)) if way == "mask" else SlicePrompt(points=inner_points(mask))


def inner_points(mask: NDArray[np.bool_]) -> tuple[SlicePoint, ...]:
    """Return the innermost pixel of each connected part of a mask that counts, the largest part first.

    Innermost is the pixel furthest from any pixel outside the part, beyond the edge of the slice included.
    """
    from scipy import ndimage

    padded = np.pad(mask, 1)
    depth = ndimage.distance_transform_edt(padded)
    parts, count = ndimage.label(padded)
    sizes = ndimage.sum_labels(padded, parts, range(1, count + 1))
    large = [n for n in np.argsort(-sizes, kind="stable") if sizes[n] >= _SMALLEST_PART * sizes.max()]
    deepest = ndimage.maximum_position(depth, parts, [n + 1 for n in large])
    return tuple(SlicePoint(float(column - 1), float(row - 1)) for row, column in deepest)


def agreement(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the intersection of two masks over their union, 0..1; 0 where both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 0.0


def _certainty(answer: SliceAnswer) -> tuple[bool, float]:
    """Rank answers on a slice: those with a mask first, then by the model's own estimate."""
    return bool(answer.mask.any()), answer.score
