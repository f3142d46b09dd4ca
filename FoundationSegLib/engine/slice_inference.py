"""Inference on the slices of a volume: encode once, decode, and never answer the same question twice."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..imaging.geometry import Axis, array_axis
from ..imaging.intensity import IntensityMapping
from ..imaging.volume import Volume
from ..models.protocols import Check, ObjectMemory, SliceAnswer, SliceModel, SlicePrompt, unstoppable
from ..progress import Progress
from ..requests.segmentation import CheckpointRecord, HandOver, Prediction, PredictRequest, SegmentPrediction
from .cache import AnswerCache, EmbeddingCache, EmbeddingKey
from .hand_over import handed_over
from .orientation import AS_STORED, Orientation, radiological
from .tasks import emptiness


@dataclass(slots=True)
class Tally:
    """What inference has done so far: how often the model ran and for how long.

    ``reencodes`` are those of the ``encodes`` that were of slices encoded before, which the cache could not hold.
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
        model, checkpoint: who answers; the checkpoint is part of the caches' keys.
        volume, mapping: what it sees.
        cache, answers: embeddings, and what was answered on them.
        hand_over_as: what a slice's mask becomes for the next slice.
        as_stored: keeps slices from being turned the way a radiologist sees them.
        check: called in the midst of an encoding, and ends it by raising.
        tally: filled as the model runs.
    """

    model: SliceModel
    checkpoint: CheckpointRecord
    volume: Volume
    mapping: IntensityMapping
    cache: EmbeddingCache[Any]
    answers: AnswerCache = field(default_factory=lambda: AnswerCache(0))
    hand_over_as: HandOver = "box"
    as_stored: bool = False
    check: Check = unstoppable
    tally: Tally = field(default_factory=Tally)

    def encode_ahead(self, axis: Axis, index: int, progress: Progress) -> bool:
        """Encode a slice that may be asked for; False where that was done before.

        Raises:
            Cancelled: something that was asked for has come.
        """
        progress.check()
        before = self.tally.encodes
        self._embedding(self._key(axis, index), progress.check)
        return self.tally.encodes > before

    def ask(self, axis: Axis, index: int, asks: Sequence[SlicePrompt]) -> SliceAnswer:
        """See :meth:`~.walks.Asking.ask`. What was asked before is not asked again."""
        key = self._key(axis, index)
        previous: SliceAnswer | None = None
        for stage, prompt in enumerate(asks, start=1):
            asked = key, tuple(asks[:stage])
            answer = self.answers.get(asked)
            if answer is None:
                embedding = self._embedding(key, self.check)
                with self._decoding():
                    answer = self.model.decode(embedding, prompt, previous)
                self.answers.put(asked, answer)
            previous = answer
        if previous is None:
            raise ValueError("nothing was asked")
        return previous

    def hand_over(self, mask: NDArray[np.bool_], wider: int) -> SlicePrompt | None:
        """See :meth:`~.walks.Asking.hand_over`."""
        return handed_over(self.model, mask, self.hand_over_as, wider)

    def remember(self, axis: Axis) -> ObjectMemory:
        """See :meth:`~.walks.Asking.remember`; for models that have a memory."""
        model: Any = self.model
        return model.remember(self.volume.geometry.shape_kji[array_axis(axis)])

    def recall(
        self, memory: ObjectMemory, axis: Axis, index: int, prompt: SlicePrompt | None, upwards: bool
    ) -> SliceAnswer:
        """See :meth:`~.walks.Asking.recall`."""
        embedding = self._embedding(self._key(axis, index), self.check)
        with self._decoding():
            if prompt is None:
                return memory.follow(index, embedding, upwards)
            return memory.prompt(index, embedding, prompt)

    def orientation(self, axis: Axis) -> Orientation:
        """How slices across an axis are turned before the model sees them."""
        return AS_STORED if self.as_stored else radiological(self.volume.geometry, axis)

    @contextmanager
    def _decoding(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.tally.decode_s += time.perf_counter() - start
        self.tally.decodes += 1

    def _key(self, axis: Axis, index: int) -> EmbeddingKey:
        return EmbeddingKey(
            self.checkpoint,
            self.model.device,
            self.model.precision,
            self.volume.key,
            axis,
            index,
            self.orientation(axis),
            self.mapping.low,
            self.mapping.high,
        )

    def _embedding(self, key: EmbeddingKey, check: Check) -> Any:
        embedding = self.cache.get(key)
        if embedding is None:
            start = time.perf_counter()
            seen = key.orientation.turn(self.mapping.to_uint8(slice_of(self.volume, key.axis, key.index)))
            embedding = self.model.encode(seen, check)
            self.tally.encode_s += time.perf_counter() - start
            self.tally.encodes += 1
            self.tally.reencodes += self.cache.had(key)
            self.cache.put(key, embedding)
        return embedding


def slice_of(volume: Volume, axis: Axis, index: int) -> NDArray[np.generic]:
    """One slice across an axis, (rows, columns) or (rows, columns, 3): the remaining axes in array order. A view."""
    place: list[slice | int] = [slice(None)] * 3
    place[array_axis(axis)] = index
    return volume.array_kji[tuple(place)]


def slice_prediction(
    request: PredictRequest,
    segments: Sequence[SegmentPrediction],
    notes: Sequence[str],
    inference: SliceInference,
    load_s: float,
) -> Prediction:
    """The answer to a request, with what the user should know of how it was found."""
    tally = inference.tally
    notes = [*notes, *emptiness(segments)]
    if tally.reencodes:
        notes.append(f"encoded again, for want of memory: {tally.reencodes} of {tally.encodes} slices")
    return Prediction(
        request_id=request.request_id,
        segments=tuple(segments),
        intensity=inference.mapping.to_document(),
        checkpoint=inference.checkpoint,
        device=inference.model.device,
        precision=inference.model.precision,
        notes=tuple(notes),
        timings_s={"load": load_s, "encode": tally.encode_s, "decode": tally.decode_s},
        counts={"encodes": tally.encodes, "decodes": tally.decodes},
    )
