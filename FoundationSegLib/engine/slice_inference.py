"""Run a model on the slices of a volume: encode each slice once, and answer no prompt twice."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..imaging.geometry import Axis, array_axis
from ..imaging.intensity import IntensityMapping
from ..imaging.volume import Volume
from ..models.protocols import Check, ObjectMemory, SliceAnswer, SliceModel, SlicePrompt, unstoppable
from ..progress import Progress
from .caches import EmbeddingKey, SliceCache, Weights
from .slices import AS_STORED, SliceOrientation, SlicePrompts, radiological, slice_of

# Slices are encoded in advance up to this distance from the last prompt: where a user scrolls next.
SLICES_AHEAD = 5


@dataclass(slots=True)
class SliceCounts:
    """How often a model of slices ran for a request, and for how long.

    ``reencodes`` of the ``encodes`` were of slices that the cache could not keep.
    """

    encodes: int = 0
    reencodes: int = 0
    decodes: int = 0
    encode_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SliceInference:
    """One volume seen by one model through one intensity mapping.

    Attributes:
        as_stored: keeps slices from being turned the way a radiologist sees them.
        check: called in the midst of an encoding, and ends it by raising.
        counts: filled as the model runs.
    """

    model: SliceModel
    weights: Weights
    volume: Volume
    mapping: IntensityMapping
    cache: SliceCache
    as_stored: bool = False
    check: Check = unstoppable
    counts: SliceCounts = field(default_factory=SliceCounts)
    _orientations: dict[Axis, SliceOrientation] = field(default_factory=dict)

    def encode_ahead(self, axis: Axis, index: int, progress: Progress) -> bool:
        """Encode a slice that may be needed soon; return False where that was done before.

        Raises:
            Cancelled: a request has come.
        """
        progress.check()
        before = self.counts.encodes
        self._embedding(self._key(axis, index), progress.check)
        return self.counts.encodes > before

    def ask(self, axis: Axis, index: int, stages: Sequence[SlicePrompt]) -> SliceAnswer:
        """Return the answer on a slice to a prompt as it grew stage by stage; known answers are taken from the cache.

        Raises:
            ValueError: there is no stage.
        """
        key = self._key(axis, index)
        answer: SliceAnswer | None = None
        for stop, prompt in enumerate(stages, start=1):
            question, previous = (key, tuple(stages[:stop])), answer
            answer = self.cache.answers.get(question)
            if answer is None:
                embedding = self._embedding(key, self.check)
                with self._timed_decoding():
                    answer = self.model.decode(embedding, prompt, previous)
                self.cache.answers.put(question, answer)
        if answer is None:
            raise ValueError("a slice was asked without a prompt")
        return answer

    def recall(
        self, memory: ObjectMemory, axis: Axis, index: int, prompt: SlicePrompt | None, upwards: bool
    ) -> SliceAnswer:
        """Return the answer of a memory on a slice, to a prompt or, without one, from the slice before it."""
        embedding = self._embedding(self._key(axis, index), self.check)
        with self._timed_decoding():
            if prompt is None:
                return memory.follow(index, embedding, upwards)
            return memory.prompt(index, embedding, prompt)

    def orientation(self, axis: Axis) -> SliceOrientation:
        """Return how slices across an axis are turned before the model sees them."""
        if axis not in self._orientations:
            self._orientations[axis] = AS_STORED if self.as_stored else radiological(self.volume.geometry, axis)
        return self._orientations[axis]

    @contextmanager
    def _timed_decoding(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.counts.decode_s += time.perf_counter() - start
        self.counts.decodes += 1

    def _key(self, axis: Axis, index: int) -> EmbeddingKey:
        low, high = self.mapping.low, self.mapping.high
        return EmbeddingKey(self.weights, self.volume.key, axis, index, self.orientation(axis), low, high)

    def _embedding(self, key: EmbeddingKey, check: Check) -> Any:
        embedding = self.cache.embeddings.get(key)
        if embedding is None:
            start = time.perf_counter()
            plane = key.orientation.turn(self.mapping.to_uint8(slice_of(self.volume, key.axis, key.index)))
            embedding = self.model.encode(plane, check)
            self.counts.encode_s += time.perf_counter() - start
            self.counts.encodes += 1
            self.counts.reencodes += key in self.cache.encoded
            self.cache.encoded.add(key)
            self.cache.embeddings.put(key, embedding)
        return embedding


@dataclass(slots=True)
class Prefetcher:
    """Encodes the slices around the last prompt while nothing else is to be done, the nearest first.

    Attributes:
        prompts: the slices of the last of them count.
        done: how many of the slices around it were looked at.
    """

    inference: SliceInference
    prompts: SlicePrompts
    done: int = 0

    def encode_next(self, progress: Progress) -> bool:
        """Encode the nearest slice that is not encoded yet; return False where none is left.

        Raises:
            Cancelled: a request has come.
        """
        axis, slices = self.prompts.last
        around = self._slices_around(axis, slices)
        while self.done < len(around):
            is_new = self.inference.encode_ahead(axis, around[self.done], progress)
            self.done += 1
            if is_new:
                return True
        return False

    def _slices_around(self, axis: Axis, slices: range) -> list[int]:
        length = self.inference.volume.geometry.shape_kji[array_axis(axis)]
        distances = range(1, SLICES_AHEAD + 1)
        around = [n for distance in distances for n in (slices.stop - 1 + distance, slices.start - distance)]
        return [index for index in around if 0 <= index < length]
