"""From slice to slice with a 2-D model: the answer on one slice becomes the question on the next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..imaging.geometry import AXES, Axis
from ..models.protocols import ObjectMemory, SliceAnswer, SlicePrompt
from .slice_parts import grown
from .tracks import Track, confined, refined

# By axis, way and place on the way: what lies on the same slice is done together, so that it is encoded once.
Visit = tuple[int, int, int]


def visit(axis: Axis, way: int, place: int) -> Visit:
    """The visit to a place on a way: 0 where prompts are, then 1 and 2; places rise, so downwards they are below 0."""
    return AXES.index(axis), way, place


class Asking(Protocol):
    """What a walk needs of whoever runs the model."""

    def ask(self, axis: Axis, index: int, asks: Sequence[SlicePrompt]) -> SliceAnswer:
        """The answer on a slice to a prompt as it grew."""
        ...

    def hand_over(self, mask: NDArray[np.bool_], wider: int) -> SlicePrompt | None:
        """The prompt for the next slice that follows from a mask; None if it says nothing."""
        ...

    def remember(self, axis: Axis) -> ObjectMemory:
        """A new memory of one object."""
        ...

    def recall(
        self, memory: ObjectMemory, axis: Axis, index: int, prompt: SlicePrompt | None, upwards: bool
    ) -> SliceAnswer:
        """The answer of a memory on a slice, to a prompt or without one."""
        ...


class Walk(Protocol):
    """A walk through slices; ``found`` fills with the answers, by slice, as they are seen.

    ``done`` is how many slices have been come to.
    """

    found: dict[int, SliceAnswer]
    done: int

    @property
    def axis(self) -> Axis:
        """The axis across which its slices lie."""
        ...

    @property
    def steps(self) -> int:
        """How many slices are come to at most."""
        ...

    def visits(self) -> Iterator[Visit]:
        """Say which slice is next, then work on it; in rising order."""
        ...


@dataclass(slots=True)
class SliceWalk:
    """From each start of a track: upwards first, then downwards, as in the official script of LiteMedSAM.

    All walks of a track pass a slice together, and those whose prompts have become the same go on as one. Each slice
    keeps the answer that the model is surest of.

    Attributes:
        track: in the pixels that the model sees.
        asking: who runs the model.
        least_agreement: see :class:`~FoundationSegLib.requests.segmentation.Propagation`.
    """

    track: Track
    asking: Asking
    least_agreement: float
    found: dict[int, SliceAnswer] = field(default_factory=dict)
    done: int = 0

    @property
    def axis(self) -> Axis:
        """See :class:`Walk`."""
        return self.track.axis

    @property
    def steps(self) -> int:
        """See :class:`Walk`."""
        return self.track.steps

    def visits(self) -> Iterator[Visit]:
        """See :meth:`Walk.visits`."""
        firsts: dict[int, SliceAnswer] = {}
        for number, way in enumerate(self.track.ways, start=1):
            before: list[SliceAnswer] = []
            for index in way:
                known = firsts.get(index)
                if before or (known is None and index in self.track.starts) or self.track.is_clicked(index):
                    yield visit(self.axis, number, index * way.step)
                before = list(self._answers(index, before, firsts))
                for answer in before:
                    self._keep(index, answer)
                self.done += known is None

    def _keep(self, index: int, answer: SliceAnswer) -> None:
        if index not in self.found or _sureness(answer) > _sureness(self.found[index]):
            self.found[index] = answer

    def _answers(
        self, index: int, before: Sequence[SliceAnswer], firsts: dict[int, SliceAnswer]
    ) -> Iterator[SliceAnswer]:
        """The answers on a slice: the prompt's own where it is a start, kept in ``firsts``, then those handed over.

        Where nothing is handed over, a positive point says by itself that the object is here.
        """
        track = self.track
        asked = set()
        if index in track.starts:
            if index not in firsts:
                firsts[index] = self.asking.ask(self.axis, index, track.asks_on(index))
            yield firsts[index]
            asked.add(track.prompt)
        neighbours: Sequence[SliceAnswer | None] = before or ([] if asked else [None])
        for neighbour in neighbours:
            asks = self._asks(index, neighbour)
            if not asks or asks[0] in asked:
                continue
            asked.add(asks[0])
            answer = self.asking.ask(self.axis, index, asks)
            is_wanted = neighbour is None or index in track.span or track.is_clicked(index)
            if is_wanted or agreement(neighbour.mask, answer.mask) >= self.least_agreement:
                yield answer

    def _asks(self, index: int, neighbour: SliceAnswer | None) -> tuple[SlicePrompt, ...]:
        """What a slice that is come to is asked with, as it grows; empty where nothing says that the object is here."""
        track, points = self.track, self.track.points.get(index, ())
        prompt = None if neighbour is None else self.asking.hand_over(neighbour.mask, track.wider)
        prompt = prompt and confined(prompt, track.limit)
        if prompt is None and index in track.span:
            prompt = track.prompt
        return grown(points) if prompt is None else refined(prompt, points)


def agreement(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """The intersection of two masks over their union, 0..1; 0 where both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 0.0


def _sureness(answer: SliceAnswer) -> tuple[bool, float]:
    """What decides between answers about a slice: that something was found, then the model's own estimate."""
    return bool(answer.mask.any()), answer.score
