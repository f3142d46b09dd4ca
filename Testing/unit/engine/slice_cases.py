"""Small volumes, tracks and models with a script, for the tests of walks through slices."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from FoundationSegLib.engine.propagation import segment
from FoundationSegLib.engine.propagation_planning import Track
from FoundationSegLib.engine.slice_inference import SliceCache, SliceInference, Weights
from FoundationSegLib.engine.slices import slice_of
from FoundationSegLib.imaging.geometry import Axis, array_axis
from FoundationSegLib.imaging.intensity import IntensityMapping
from FoundationSegLib.imaging.masks import PackedMask
from FoundationSegLib.models.protocols import BoxXyxy, SliceAnswer, SlicePrompt
from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.segmentation import CheckpointRecord, Propagation
from Testing.unit.fakes import FakeEmbedding, FakeModel, volume_of

SHAPE = (9, 10, 12)
WHOLE = SlicePrompt((0, 0, 11, 9))
WEIGHTS = Weights(CheckpointRecord("fake", "fake-wheel", "1.0", "ab"), "cpu", "float32")
AS_IT_IS = IntensityMapping("raw", "raw", 0.0, 255.0)
HERE = (slice(2, 6), slice(3, 8))
THERE = (slice(7, 9), slice(9, 11))


def cache_of(budget_bytes: int) -> SliceCache:
    """A cache of embeddings alone: every prompt is asked."""
    return SliceCache.within(budget_bytes, answers_share=0)


def inference_on(
    array: np.ndarray,
    model: Any = None,
    cache: SliceCache | None = None,
    mapping: IntensityMapping = AS_IT_IS,
    as_stored: bool = True,
    **fields: Any,
) -> SliceInference:
    cache, model = cache or cache_of(10**6), model or FakeModel()
    return SliceInference(model, WEIGHTS, volume_of(array), mapping, cache, as_stored=as_stored, **fields)


def find(
    inference: SliceInference,
    tracks: Sequence[Track],
    progress: Progress | None = None,
    propagation: Propagation | None = None,
) -> PackedMask:
    """The mask of one segment."""
    kinds = ("box", "mask", "point")
    return segment(inference, [tracks], propagation, kinds, progress or Progress())[0].mask


def numbered(axis: Axis = "k", shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A dark volume whose slices across the axis have their number in every voxel."""
    array = np.zeros(shape, np.uint8)
    for index in range(shape[array_axis(axis)]):
        slice_of(volume_of(array), axis, index)[...] = index
    return array


def bright() -> np.ndarray:
    """The same with numbers from 200 on, so that everything is found."""
    return numbered() + np.uint8(200)


def track(
    key: int,
    span: range,
    reach: range | None = None,
    prompt: SlicePrompt = WHOLE,
    axis: Axis = "k",
    limit: BoxXyxy | None = None,
    **fields: Any,
) -> Track:
    return Track(axis, (key,), (prompt,), span, reach or span, limit, **fields)


def rivals(*starts: int, span: range = range(9), wider: int = 0) -> Track:
    """A track with several starts."""
    return Track("k", starts, (WHOLE,), span, span, wider=wider, is_flat=False)


def visits(model: FakeModel) -> list[int]:
    """The numbers of the slices that were decoded."""
    return [int(image.flat[0]) for image, _ in model.decoded]


class Scripted(FakeModel):
    """Finds on the slice with each number what it is told to; everything else as in the fake model."""

    def __init__(self, masks: dict[int, tuple[slice, slice]]) -> None:
        super().__init__()
        self.masks = masks

    def decode(self, embedding: FakeEmbedding, prompt: SlicePrompt, previous: SliceAnswer | None = None) -> SliceAnswer:
        self.decoded.append((embedding.image, prompt.box))
        self.asked.append((prompt, previous))
        mask = np.zeros(embedding.image.shape[:2], np.bool_)
        rows, columns = self.masks.get(int(embedding.image.flat[0]), (slice(0), slice(0)))
        mask[rows, columns] = True
        return SliceAnswer(mask, 0.5)


class Moody(FakeModel):
    """Answers every box with that box; the larger, the surer. What the prompt finds may be told for some slices."""

    def __init__(self, found: dict[int, tuple[slice, slice]] | None = None) -> None:
        super().__init__()
        self.found = found or {}

    def decode(self, embedding: FakeEmbedding, prompt: SlicePrompt, previous: SliceAnswer | None = None) -> SliceAnswer:
        answer = FakeModel.decode(self, embedding, prompt)
        index = int(embedding.image.flat[0]) - 200
        if prompt == WHOLE and index in self.found:
            mask = np.zeros_like(answer.mask)
            mask[self.found[index]] = True
            return SliceAnswer(mask, 0.0)
        return SliceAnswer(answer.mask, np.count_nonzero(answer.mask) / 1000)
