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
from ..models.base import SliceAnswer, SliceModel, SlicePrompt
from .cache import EmbeddingCache, EmbeddingKey
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

    ``checkpoint`` is part of the cache's key; ``tally`` is filled as the model runs.
    """

    model: SliceModel
    checkpoint: CheckpointRecord
    volume: Volume
    mapping: IntensityMapping
    cache: EmbeddingCache[Any]
    tally: Tally = field(default_factory=Tally)

    def segment(self, tracks: Sequence[Track], progress: Progress) -> PackedMask:
        """The voxels that the tracks find together.

        Raises:
            Cancelled: the user asked to stop.
        """
        total = sum(len(track.reach) for track in tracks)
        masks: dict[Axis, dict[int, NDArray[np.bool_]]] = {}
        done = 0
        for track in tracks:
            found = masks.setdefault(track.axis, {})
            for index, answer in self._follow(track):
                done += 1
                progress.step("slices", done, total)
                found[index] = found[index] | answer.mask if index in found else answer.mask
                if answer.mask.any():
                    self.tally.scores.append(answer.score)
        return merge_masks([stack_slices(axis, found, self.volume.geometry.shape_kji) for axis, found in masks.items()])

    def encode_ahead(self, axis: Axis, index: int, progress: Progress) -> bool:
        """Encode a slice that may be asked for; False where that was done before.

        Raises:
            Cancelled: something that was asked for has come.
        """
        progress.check()
        before = self.tally.encodes
        self._embedding(axis, index)
        return self.tally.encodes > before

    def _follow(self, track: Track) -> Iterator[tuple[int, SliceAnswer]]:
        """Every slice of a track: the key first, then upwards, then downwards, as in the official script."""
        first = self._decode(track.axis, track.key, track.prompt)
        yield track.key, first
        for indices in (range(track.key + 1, track.reach.stop), range(track.key - 1, track.reach.start - 1, -1)):
            yield from self._walk(track, first, indices)

    def _walk(self, track: Track, first: SliceAnswer, indices: range) -> Iterator[tuple[int, SliceAnswer]]:
        before = first
        for index in indices:
            prompt = self.model.hand_over(before.mask)
            prompt = prompt and confined(prompt, track.limit)
            if prompt is None and index not in track.span:
                return
            answer = self._decode(track.axis, index, prompt or track.prompt)
            if index not in track.span and _agreement(before.mask, answer.mask) < SMALLEST_AGREEMENT:
                return
            yield index, answer
            before = answer

    def _decode(self, axis: Axis, index: int, prompt: SlicePrompt) -> SliceAnswer:
        embedding = self._embedding(axis, index)
        start = time.perf_counter()
        answer = self.model.decode(embedding, prompt)
        self.tally.decode_s += time.perf_counter() - start
        self.tally.decodes += 1
        return answer

    def _embedding(self, axis: Axis, index: int) -> Any:
        key = EmbeddingKey(
            self.checkpoint,
            self.model.device,
            self.model.precision,
            self.volume.key,
            axis,
            index,
            self.mapping.low,
            self.mapping.high,
        )
        embedding = self.cache.get(key)
        if embedding is None:
            start = time.perf_counter()
            embedding = self.model.encode(self.mapping.to_uint8(slice_of(self.volume, axis, index)))
            self.tally.encode_s += time.perf_counter() - start
            self.tally.encodes += 1
            self.cache.put(key, embedding)
        return embedding


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
