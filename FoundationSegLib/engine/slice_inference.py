"""Inference on the slices of a volume: encode once, decode, hand over from slice to slice."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.geometry import Axis, Shape, array_axis
from ..core.intensity import IntensityMapping
from ..core.mask import EMPTY_MASK, PackedMask, merge_masks, pack_mask
from ..core.progress import Progress
from ..core.requests import CheckpointRecord
from ..core.volume import Volume
from ..models.base import Check, SliceAnswer, SliceModel, SlicePrompt, unstoppable
from .cache import EmbeddingCache, EmbeddingKey
from .orientation import AS_STORED, Orientation, radiological
from .tracks import Track, confined

# An object that is followed beyond the slices that were asked for has ended where less than this part of two
# neighbouring masks (their intersection over union) agrees: what follows is another object.
SMALLEST_AGREEMENT = 0.3


@dataclass(slots=True)
class Tally:
    """What inference has done so far: how often the model ran, for how long, and how sure it was."""

    encodes: int = 0
    decodes: int = 0
    encode_s: float = 0.0
    decode_s: float = 0.0
    scores: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SliceInference:
    """One volume seen by one model through one intensity mapping.

    ``checkpoint`` is part of the cache's key; ``as_stored`` keeps slices from being turned the way a radiologist sees
    them; ``check`` is called in the midst of an encoding, and ends it by raising; ``tally`` is filled as the model
    runs.
    """

    model: SliceModel
    checkpoint: CheckpointRecord
    volume: Volume
    mapping: IntensityMapping
    cache: EmbeddingCache[Any]
    as_stored: bool = False
    check: Check = unstoppable
    tally: Tally = field(default_factory=Tally)

    def segment(self, tracks: Sequence[Track], progress: Progress) -> PackedMask:
        """The voxels that the tracks find together.

        Raises:
            Cancelled: the user asked to stop.
        """
        total = sum(track.steps for track in tracks)
        masks: dict[Axis, dict[int, NDArray[np.bool_]]] = {}
        done = 0
        for track in tracks:
            surest: dict[int, SliceAnswer] = {}
            for step, index, answer in self._sweep(track):
                progress.step("slices", done + step, total)
                if index not in surest or _sureness(answer) > _sureness(surest[index]):
                    surest[index] = answer
            done += track.steps
            self._take(surest, track.axis, masks.setdefault(track.axis, {}))
        return merge_masks([stack_slices(axis, found, self.volume.geometry.shape_kji) for axis, found in masks.items()])

    def _take(self, answers: Mapping[int, SliceAnswer], axis: Axis, found: dict[int, NDArray[np.bool_]]) -> None:
        """Join answers to the masks of an axis, as they are stored."""
        orientation = self._orientation(axis)
        for index, answer in answers.items():
            mask = orientation.turn_back(answer.mask)
            found[index] = found[index] | mask if index in found else mask
            if mask.any():
                self.tally.scores.append(answer.score)

    def encode_ahead(self, axis: Axis, index: int, progress: Progress) -> bool:
        """Encode a slice that may be asked for; False where that was done before.

        Raises:
            Cancelled: something that was asked for has come.
        """
        progress.check()
        before = self.tally.encodes
        self._embedding(axis, index, progress.check)
        return self.tally.encodes > before

    def _sweep(self, track: Track) -> Iterator[tuple[int, int, SliceAnswer]]:
        """What is found from each start of a track: upwards first, then downwards, as in the official script.

        All walks pass a slice together, so that it is encoded once for each way even where the cache cannot hold them
        all, and walks whose boxes have become the same go on as one. Yields how many slices were come to, the slice,
        and an answer.
        """
        rows, columns = slice_of(self.volume, track.axis, 0).shape[:2]
        track = track.turned(self._orientation(track.axis), (rows, columns))
        firsts: dict[int, SliceAnswer] = {}
        step = 0
        for way in track.ways:
            before: list[SliceAnswer] = []
            for index in way:
                known = firsts.get(index)
                step += known is None
                here = []
                for answer in self._answers(track, index, before, firsts):
                    if answer is not known:
                        yield step, index, answer
                    here.append(answer)
                before = here

    def _answers(
        self, track: Track, index: int, before: Sequence[SliceAnswer], firsts: dict[int, SliceAnswer]
    ) -> Iterator[SliceAnswer]:
        """The answers on a slice: the prompt's own where it is a start, kept in ``firsts``, then those handed over."""
        if index in track.starts:
            if index not in firsts:
                firsts[index] = self._decode(track.axis, index, track.prompt)
            yield firsts[index]
        asked = {track.prompt} if index in track.starts else set()
        for neighbour in before:
            prompt = self.model.hand_over(neighbour.mask, track.wider)
            prompt = prompt and confined(prompt, track.limit)
            if prompt is None and index not in track.span:
                continue
            prompt = prompt or track.prompt
            if prompt in asked:
                continue
            asked.add(prompt)
            answer = self._decode(track.axis, index, prompt)
            if index in track.span or _agreement(neighbour.mask, answer.mask) >= SMALLEST_AGREEMENT:
                yield answer

    def _decode(self, axis: Axis, index: int, prompt: SlicePrompt) -> SliceAnswer:
        embedding = self._embedding(axis, index, self.check)
        start = time.perf_counter()
        answer = self.model.decode(embedding, prompt)
        self.tally.decode_s += time.perf_counter() - start
        self.tally.decodes += 1
        return answer

    def _embedding(self, axis: Axis, index: int, check: Check) -> Any:
        orientation = self._orientation(axis)
        key = EmbeddingKey(
            self.checkpoint,
            self.model.device,
            self.model.precision,
            self.volume.key,
            axis,
            index,
            orientation,
            self.mapping.low,
            self.mapping.high,
        )
        embedding = self.cache.get(key)
        if embedding is None:
            start = time.perf_counter()
            seen = orientation.turn(self.mapping.to_uint8(slice_of(self.volume, axis, index)))
            embedding = self.model.encode(seen, check)
            self.tally.encode_s += time.perf_counter() - start
            self.tally.encodes += 1
            self.cache.put(key, embedding)
        return embedding

    def _orientation(self, axis: Axis) -> Orientation:
        return AS_STORED if self.as_stored else radiological(self.volume.geometry, axis)


def slice_of(volume: Volume, axis: Axis, index: int) -> NDArray[np.generic]:
    """One slice across an axis, (rows, columns) or (rows, columns, 3): the remaining axes in array order. A view."""
    place: list[slice | int] = [slice(None)] * 3
    place[array_axis(axis)] = index
    return volume.array_kji[tuple(place)]


def stack_slices(axis: Axis, slices: Mapping[int, NDArray[np.bool_]], shape_kji: Shape) -> PackedMask:
    """The mask whose slices across an axis are given, by slice number; all other slices are empty."""
    if not slices:
        return EMPTY_MASK
    low, high = min(slices), max(slices)
    empty = np.zeros_like(next(iter(slices.values())))
    stack = np.stack([slices.get(index, empty) for index in range(low, high + 1)], axis=array_axis(axis))
    start = [0, 0, 0]
    start[array_axis(axis)] = low
    return pack_mask(stack, (start[0], start[1], start[2]))


def _agreement(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 0.0


def _sureness(answer: SliceAnswer) -> tuple[bool, float]:
    """What decides between answers about a slice: that something was found, then the model's own estimate."""
    return bool(answer.mask.any()), answer.score
