"""From slice to slice with a model that remembers the object, as it would follow it through the frames of a video."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..imaging.geometry import Axis
from ..models.protocols import BoxXyxy, ObjectMemory, SliceAnswer, SlicePoint, SlicePrompt
from .orientation import Orientation
from .slice_parts import extent
from .tracks import Track, distance_to
from .walks import Asking, Visit, visit

# Beyond the outermost prompts an object has ended where the model says so on this many slices one after another: on a
# single one it may only be blurred.
ABSENT_SLICES = 2


@dataclass(frozen=True, slots=True)
class Followed:
    """One object, and where it is followed.

    Attributes:
        axis: the axis across which the slices lie.
        prompts: by slice, what is asked there, in the pixels of the slice; never empty.
        points: by slice, what corrects the answer where the object was followed to.
        reach: the slices that may be come to; the prompted ones are among them.
    """

    axis: Axis
    prompts: Mapping[int, SlicePrompt]
    points: Mapping[int, tuple[SlicePoint, ...]]
    reach: range

    def turned(self, orientation: Orientation, shape: tuple[int, int]) -> "Followed":
        """The same where the slices, (rows, columns) as stored, are seen turned."""
        return Followed(
            self.axis,
            {index: orientation.turn_prompt(prompt, shape) for index, prompt in self.prompts.items()},
            {
                index: tuple(orientation.turn_point(point, shape) for point in points)
                for index, points in self.points.items()
            },
            self.reach,
        )


def join_tracks(tracks: Sequence[Track]) -> tuple[list[Followed], list[Track]]:
    """What a model with a memory follows, and what remains for single slices.

    Prompts on several slices of an axis speak of one object. Where a slice has several boxes there are as many objects,
    and the boxes of the next slice go to those that they overlap most.
    """
    followed = [_of_volume(track) for track in tracks if not track.is_flat]
    alone = [track for track in tracks if track.is_flat]
    for axis in dict.fromkeys(track.axis for track in alone):
        across = [track for track in alone if track.axis == axis]
        carried = [track for track in across if len(track.reach) > 1]
        if not carried:
            continue
        reach = _with_neighbours(carried, across)
        within = [track for track in across if track.starts[0] in reach]
        objects = _objects(within)
        clicks = _clicks(objects)
        followed += [_of_flat(one, given, reach) for one, given in zip(objects, clicks, strict=True)]
        alone = [track for track in alone if track not in within]
    return followed, alone


def _with_neighbours(carried: Sequence[Track], across: Sequence[Track]) -> range:
    """What is reached from those that are carried on, and the keys next to it, which have nowhere else to go.

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


def _of_volume(track: Track) -> Followed:
    start = track.starts[len(track.starts) // 2]
    points = {index: given for index, given in track.points.items() if index != start}
    return Followed(track.axis, {start: track.asks_on(start)[-1]}, points, track.reach)


def _of_flat(tracks: Sequence[Track], clicks: Mapping[int, Sequence[SlicePoint]], reach: range) -> Followed:
    prompts = {track.starts[0]: track.prompt for track in tracks}
    points = {index: tuple(given) for index, given in clicks.items() if index not in prompts}
    return Followed(tracks[0].axis, prompts, points, reach)


def _clicks(objects: Sequence[Sequence[Track]]) -> list[dict[int, list[SlicePoint]]]:
    """The points that correct each object, by slice: a positive one the nearest object, a negative one all of them.

    Tracks end where the next one begins, but every object goes on: it may be corrected beyond its own prompts, and on a
    slice where another has its prompt.
    """
    given: dict[tuple[int, SlicePoint], None] = {}
    for track in (track for one in objects for track in one):
        given |= {(index, point): None for index, points in track.points.items() for point in points}
        given |= {(track.starts[0], point): None for point in track.prompt.points if not point.positive}
    clicks: list[dict[int, list[SlicePoint]]] = [{} for _ in objects]
    for index, point in given:
        far = [distance_to(point, _extent(_nearest(one, index).prompt)) for one in objects]
        for distance, of_object in zip(far, clicks, strict=True):
            if not point.positive or distance == min(far):
                of_object.setdefault(index, []).append(point)
    return clicks


def _nearest(tracks: Sequence[Track], index: int) -> Track:
    return min(tracks, key=lambda track: abs(track.starts[0] - index))


def _objects(tracks: Sequence[Track]) -> list[list[Track]]:
    """Tracks that speak of the same object, in the order of their slices."""
    objects: list[list[Track]] = []
    for index in sorted({track.starts[0] for track in tracks}):
        free, here = list(objects), [track for track in tracks if track.starts[0] == index]
        while free and here:
            known, track = max(((known, track) for track in here for known in free), key=_fit)
            free = [other for other in free if other is not known]
            here = [other for other in here if other is not track]
            known.append(track)
        objects += [[track] for track in here]
    return objects


def _fit(pair: tuple[Sequence[Track], Track]) -> float:
    """How well a track goes on with an object: the area that it shares with the object's last prompt."""
    known, track = pair
    return _overlap(_extent(known[-1].prompt), _extent(track.prompt))


def _extent(prompt: SlicePrompt) -> BoxXyxy:
    """The box of a prompt or, where it has none, that around its mask or its positive points, or the whole slice."""
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
    """The area that two boxes share, in pixels; both corners are inside."""
    across = min(first[2], second[2]) - max(first[0], second[0]) + 1
    down = min(first[3], second[3]) - max(first[1], second[1]) + 1
    return max(0.0, across) * max(0.0, down)


@dataclass(slots=True)
class MemoryWalk:
    """The prompted slices first, then one way from the first of them, then the other way from it.

    The way back remembers the way there. So that an object is found in the same way however its volume is stored, the
    first way is the one towards the right, the front or the head.

    Attributes:
        followed: in the pixels that the model sees.
        asking: who runs the model.
        is_rising: True where slice numbers rise on the first way.
        fresh_each_way, largest_part_only: see :class:`~FoundationSegLib.models.protocols.MemoryModel`.
    """

    followed: Followed
    asking: Asking
    is_rising: bool
    fresh_each_way: bool
    largest_part_only: bool
    found: dict[int, SliceAnswer] = field(default_factory=dict)
    done: int = 0

    @property
    def axis(self) -> Axis:
        """See :class:`~.walks.Walk`."""
        return self.followed.axis

    @property
    def steps(self) -> int:
        """See :class:`~.walks.Walk`."""
        return len(self.followed.reach)

    def visits(self) -> Iterator[Visit]:
        """See :meth:`~.walks.Walk.visits`."""
        memory = self.asking.remember(self.axis)
        for index, prompt in sorted(self.followed.prompts.items()):
            yield visit(self.axis, 0, index)
            self.found[index] = self._given(prompt, self.asking.recall(memory, self.axis, index, prompt, upwards=True))
            self.done += 1
        yield from self._follow(memory, self.is_rising, 1)
        if self.fresh_each_way:
            memory = self.asking.remember(self.axis)
            for index, prompt in sorted(self.followed.prompts.items()):
                self.asking.recall(memory, self.axis, index, prompt, upwards=False)
        yield from self._follow(memory, not self.is_rising, 2)
        self.done = self.steps  # where the object ended early, nothing is left to do

    @staticmethod
    def _given(prompt: SlicePrompt, answer: SliceAnswer) -> SliceAnswer:
        """A mask that nothing corrects stays as it was given, where the model's grid would blur it."""
        if prompt.mask is None or prompt.box is not None or prompt.points:
            return answer
        return replace(answer, mask=prompt.mask.unpack())

    def _follow(self, memory: ObjectMemory, upwards: bool, number: int) -> Iterator[Visit]:
        """Along a way, to where the object has ended or the way does."""
        prompted, reach, absent = self.followed.prompts, self.followed.reach, 0
        first = min(prompted) if self.is_rising else max(prompted)
        for index in range(first, reach.stop) if upwards else range(first, reach.start - 1, -1):
            if index in prompted:
                absent = 0
                continue
            yield visit(self.axis, number, index if upwards else -index)
            answer = self.asking.recall(memory, self.axis, index, None, upwards)
            if index in self.followed.points:
                correction = SlicePrompt(points=self.followed.points[index])
                answer = self.asking.recall(memory, self.axis, index, correction, upwards)
            self.found[index] = answer
            self.done += 1
            absent = absent + 1 if answer.absent else 0
            if absent >= ABSENT_SLICES and not self._is_said_beyond(index, upwards):
                return

    def _is_said_beyond(self, index: int, upwards: bool) -> bool:
        """True where a prompt or a positive point on a later slice of the way says that the object is there."""
        clicked = [on for on, points in self.followed.points.items() if any(point.positive for point in points)]
        return any(on > index if upwards else on < index for on in (*self.followed.prompts, *clicked))
