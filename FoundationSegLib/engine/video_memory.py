"""Follow objects through slices with a model that remembers them, as it would through the frames of a video."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..imaging.geometry import AXES, Axis, array_axis
from ..imaging.masks import PackedMask, pack_mask
from ..models.protocols import BoxXyxy, MemoryModel, ObjectMemory, SliceAnswer, SlicePoint, SlicePrompt
from .propagation_planning import Track, distance_to, turned_points
from .slice_inference import SliceInference
from .slices import extent, has_positive, is_rising

# Beyond the outermost prompts an object has ended where the model says so on this many slices one after another: on a
# single one it may only be blurred.
ABSENT_SLICES = 2

# Axis, direction and position: sequences work on the smallest first, so that all pass a slice together and it is
# encoded once.
Visit = tuple[int, int, int]


def visit(axis: Axis, direction: int, position: int) -> Visit:
    """Return the rank of a slice: direction 0 has prompted slices, then 1 and 2; positions rise, downwards below 0."""
    return AXES.index(axis), direction, position


@dataclass(frozen=True, slots=True)
class TrackedObject:
    """One object, and where it is followed.

    Attributes:
        axis: the axis across which the slices lie.
        prompts: by slice, in the pixels of the slice; never empty.
        points: by slice, what corrects the answer where the object was followed to.
        reach: the slices that may be passed; the prompted ones are among them.
    """

    axis: Axis
    prompts: Mapping[int, SlicePrompt]
    points: Mapping[int, tuple[SlicePoint, ...]]
    reach: range


def join_tracks(tracks: Sequence[Track]) -> tuple[list[TrackedObject], list[Track]]:
    """Return the objects that a model with a memory follows, and the tracks that remain for single slices.

    Prompts on several slices of an axis speak of one object. Where a slice has several boxes there are as many objects,
    and the boxes of the next slice go to those that they overlap most.
    """
    tracked = [_of_volume(track) for track in tracks if not track.is_flat]
    alone = [track for track in tracks if track.is_flat]
    for axis in dict.fromkeys(track.axis for track in alone):
        across = [track for track in alone if track.axis == axis]
        carried = [track for track in across if len(track.reach) > 1]
        if not carried:
            continue
        reach = _with_neighbours(carried, across)
        within = [track for track in across if track.starts[0] in reach]
        objects = _objects(within)
        for of_object, clicks in zip(objects, _clicks(objects), strict=True):
            prompts = {track.starts[0]: track.prompt for track in of_object}
            points = {index: tuple(on_slice) for index, on_slice in clicks.items() if index not in prompts}
            tracked.append(TrackedObject(axis, prompts, points, reach))
        alone = [track for track in alone if track not in within]
    return tracked, alone


def _of_volume(track: Track) -> TrackedObject:
    start = track.starts[len(track.starts) // 2]
    points = {index: on_slice for index, on_slice in track.points.items() if index != start}
    return TrackedObject(track.axis, {start: track.stages_on(start)[-1]}, points, track.reach)


def _with_neighbours(carried: Sequence[Track], across: Sequence[Track]) -> range:
    """Return the reach of the tracks that are carried on, and the keys next to it, which have nowhere else to go.

    Without propagation a click or a mask beside what boxes govern changes its own slice, and is left out.
    """
    start, stop = min(track.reach.start for track in carried), max(track.reach.stop for track in carried)
    goes_on = any(track.reach != track.span for track in carried)
    keys = {track.starts[0] for track in across if goes_on or track.prompt.box is not None}
    while start - 1 in keys:
        start -= 1
    while stop in keys:
        stop += 1
    return range(start, stop)


def _clicks(objects: Sequence[Sequence[Track]]) -> list[dict[int, list[SlicePoint]]]:
    """Return the points that correct each object, by slice: a positive one the nearest object, a negative one all.

    Tracks end where the next one begins, but every object goes on: it may be corrected beyond its own prompts, and on a
    slice where another has its prompt.
    """
    points: dict[tuple[int, SlicePoint], None] = {}  # a dictionary, since it keeps the order
    for track in (track for of_object in objects for track in of_object):
        points |= {(index, point): None for index, on_slice in track.points.items() for point in on_slice}
        points |= {(track.starts[0], point): None for point in track.prompt.points if not point.positive}
    clicks: list[dict[int, list[SlicePoint]]] = [{} for _ in objects]
    for index, point in points:
        nearest = [min(of_object, key=lambda track: abs(track.starts[0] - index)) for of_object in objects]
        distances = [distance_to(point, _extent(track.prompt)) for track in nearest]
        for distance, of_object in zip(distances, clicks, strict=True):
            if not point.positive or distance == min(distances):
                of_object.setdefault(index, []).append(point)
    return clicks


def _objects(tracks: Sequence[Track]) -> list[list[Track]]:
    """Group tracks that speak of the same object, in the order of their slices: each goes to the best overlap."""
    objects: list[list[Track]] = []
    for index in sorted({track.starts[0] for track in tracks}):
        free, here = list(objects), [track for track in tracks if track.starts[0] == index]
        while free and here:
            followed, track = max(
                ((followed, track) for track in here for followed in free),
                key=lambda pair: _overlap(_extent(pair[0][-1].prompt), _extent(pair[1].prompt)),
            )
            free = [other for other in free if other is not followed]
            here = [other for other in here if other is not track]
            followed.append(track)
        objects += [[track] for track in here]
    return objects


def _extent(prompt: SlicePrompt) -> BoxXyxy:
    """Return the box of a prompt or, without one, that around its mask or its positive points, or the whole slice."""
    if prompt.box is not None:
        return prompt.box
    if prompt.mask is not None and (around := extent(prompt.mask)) is not None:
        return around
    positive = [(point.x, point.y) for point in prompt.points if point.positive]
    if not positive:
        return 0.0, 0.0, float("inf"), float("inf")
    xs, ys = zip(*positive, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _overlap(first: BoxXyxy, second: BoxXyxy) -> float:
    """Return the area that two boxes share, in pixels; both corners are inside."""
    across = min(first[2], second[2]) - max(first[0], second[0]) + 1
    down = min(first[3], second[3]) - max(first[1], second[1]) + 1
    return max(0.0, across) * max(0.0, down)


@dataclass(slots=True)
class MemorySequence:
    """Passes the prompted slices first, then one direction from the first of them, then the other.

    The way back remembers the way there. So that an object is found in the same way however its volume is stored, the
    first direction is the one towards the right, the front or the head.

    Attributes:
        track: in the pixels that the model sees.
        is_rising: True where slice numbers rise in the first direction.
        answers: by slice, filled as the slices are passed.
        done: how many slices have been passed.
    """

    track: TrackedObject
    model: MemoryModel
    inference: SliceInference
    is_rising: bool
    answers: dict[int, SliceAnswer] = field(default_factory=dict)
    done: int = 0

    @classmethod
    def of(cls, tracked: TrackedObject, model: MemoryModel, inference: SliceInference) -> "MemorySequence":
        """Return the sequence of an object in the pixels of the stored slices."""
        axis = tracked.axis
        rows, columns = np.delete(inference.volume.geometry.shape_kji, array_axis(axis)).tolist()
        shape, orientation = (rows, columns), inference.orientation(axis)
        prompts = {index: orientation.turn_prompt(prompt, shape) for index, prompt in tracked.prompts.items()}
        turned = TrackedObject(axis, prompts, turned_points(tracked.points, orientation, shape), tracked.reach)
        rising = inference.as_stored or is_rising(inference.volume.geometry, axis)
        return cls(turned, model, inference, rising)

    @property
    def steps(self) -> int:
        """The most slices to pass."""
        return len(self.track.reach)

    def visits(self) -> Iterator[Visit]:
        """Yield which slice is next, then work on it; in rising order."""
        axis, prompts = self.track.axis, sorted(self.track.prompts.items())
        slices = self.inference.volume.geometry.shape_kji[array_axis(axis)]
        memory = self.model.remember(slices)
        for index, prompt in prompts:
            yield visit(axis, 0, index)
            answer = self.inference.recall(memory, axis, index, prompt, upwards=True)
            if prompt.mask is not None and prompt.box is None and not prompt.points:
                answer = replace(answer, mask=prompt.mask.unpack())  # uncorrected, where the model's grid would blur it
            self.answers[index] = answer
            self.done += 1
        yield from self._follow(memory, self.is_rising, 1)
        if self.model.fresh_each_way:
            memory = self.model.remember(slices)
            for index, prompt in prompts:
                self.inference.recall(memory, axis, index, prompt, upwards=False)
        yield from self._follow(memory, not self.is_rising, 2)
        self.done = self.steps  # where the object ended early, nothing is left to do

    def _follow(self, memory: ObjectMemory, upwards: bool, direction: int) -> Iterator[Visit]:
        """Pass the slices of a direction until the object or the reach has ended."""
        track, absent = self.track, 0
        first = min(track.prompts) if self.is_rising else max(track.prompts)
        for index in range(first, track.reach.stop) if upwards else range(first, track.reach.start - 1, -1):
            if index in track.prompts:
                absent = 0
                continue
            yield visit(track.axis, direction, index if upwards else -index)
            answer = self.inference.recall(memory, track.axis, index, None, upwards)
            if index in track.points:
                correction = SlicePrompt(points=track.points[index])
                answer = self.inference.recall(memory, track.axis, index, correction, upwards)
            self.answers[index] = answer
            self.done += 1
            absent = absent + 1 if answer.absent else 0
            if absent >= ABSENT_SLICES and not self._is_prompted_beyond(index, upwards):
                return

    def _is_prompted_beyond(self, index: int, upwards: bool) -> bool:
        """Return True where a prompt or a positive point on a later slice says that the object is there."""
        clicked = [on for on, points in self.track.points.items() if has_positive(points)]
        return any(on > index if upwards else on < index for on in (*self.track.prompts, *clicked))

    def finished(self, mask: PackedMask) -> PackedMask:
        """Return the mask, or its largest connected part where the model's authors keep that alone.

        Voxels that share a corner are connected (MedSAM2's own scripts do so).
        """
        if not self.model.largest_part_only or mask.box.is_empty:
            return mask
        from scipy import ndimage

        parts, count = ndimage.label(mask.unpack(), np.ones((3, 3, 3)))
        if count < 2:
            return mask
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        return pack_mask(parts == sizes.argmax(), mask.box.start_kji)
