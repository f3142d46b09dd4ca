"""Vectors of pictures and texts: each is computed once, in batches, and kept within a budget of bytes."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..imaging.intensity import Look
from ..models.protocols import ImageTextModel
from ..progress import Progress
from ..requests.segmentation import CheckpointRecord
from .budget import Budgeted
from .pictures import Pictures, View

# Pictures in one batch: on the CPU more are no faster, and a user who cancels waits for one.
_BATCH = {"cpu": 8}
_LARGE_BATCH = 32
TEXT_BATCH = 1024  # the adapter makes them smaller where texts are long
_BUDGET_BYTES = 64 * 2**20  # a vector takes 2 to 5 kB: that is more than ten thousand slices

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Weights:
    """Which weights computed, where and with what numbers: two vectors can be compared where this is equal."""

    checkpoint: CheckpointRecord
    device: str
    precision: str


@dataclass(frozen=True, slots=True)
class TextVector:
    """The vector of a text, and whether the text was too long for the model."""

    vector: Vector
    truncated: bool

    @property
    def nbytes(self) -> int:
        """Memory taken, in bytes."""
        return self.vector.nbytes


@dataclass(slots=True)
class SeenSlices:
    """What was seen through one look: the vector of each slice by its number; None where there was nothing to see."""

    vectors: dict[int, Vector | None] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Memory taken, in bytes."""
        return sum(0 if vector is None else vector.nbytes for vector in self.vectors.values())


@dataclass(slots=True)
class Tally:
    """How often a model ran for a request, and for how long."""

    images: int = 0
    image_batches: int = 0
    texts: int = 0
    text_batches: int = 0
    text_s: float = 0.0
    encode_s: float = 0.0
    evidence_s: float = 0.0

    @property
    def counts(self) -> Mapping[str, int]:
        """In the report's form."""
        return {name: getattr(self, name) for name in ("images", "image_batches", "texts", "text_batches")}


@dataclass(slots=True)
class VectorMemory:
    """The vectors of slices by view, look and weights; those of texts by the text and the weights."""

    slices: Budgeted[tuple[Weights, View, Look], SeenSlices] = field(
        default_factory=lambda: Budgeted(_BUDGET_BYTES, lambda seen: seen.nbytes)
    )
    texts: Budgeted[tuple[Weights, str], TextVector] = field(
        default_factory=lambda: Budgeted(_BUDGET_BYTES, lambda text: text.nbytes)
    )

    def drop_volume(self, volume_key: str) -> None:
        """Let go of what was seen of an image."""
        for key in self.slices:
            if key[1].volume_key == volume_key:
                self.slices.drop(key)

    def drop_model(self, model_id: str) -> None:
        """Let go of what a model computed."""
        for one in self.slices:
            if one[0].checkpoint.model_id == model_id:
                self.slices.drop(one)
        for other in self.texts:
            if other[0].checkpoint.model_id == model_id:
                self.texts.drop(other)


@dataclass(frozen=True, slots=True)
class Encoding:
    """One request's encoding: a model, what it has seen before, and whom to tell how far it is."""

    model: ImageTextModel
    weights: Weights
    memory: VectorMemory
    progress: Progress
    tally: Tally = field(default_factory=Tally)

    def texts(self, texts: Sequence[str]) -> dict[str, TextVector]:
        """The vector of each text; those that are new are encoded, all in one batch or in a few.

        Raises:
            Cancelled: the user stopped it; what was encoded is kept.
        """
        wanted = list(dict.fromkeys(texts))
        found = {text: self.memory.texts.get((self.weights, text)) for text in wanted}
        missing = [text for text, vector in found.items() if vector is None]
        begin = time.perf_counter()
        for start in range(0, len(missing), TEXT_BATCH):
            batch = missing[start : start + TEXT_BATCH]
            self.progress.step("text", start, len(missing))
            encoded = self.model.encode_texts(batch, self.progress.check)
            self.tally.text_batches += 1
            self.tally.texts += len(batch)
            for text, vector, truncated in zip(batch, encoded.vectors, encoded.truncated, strict=True):
                found[text] = TextVector(vector, truncated)
                self.memory.texts.put((self.weights, text), TextVector(vector, truncated))
        if missing:
            self.progress.step("text", len(missing), len(missing))
            self.tally.text_s += time.perf_counter() - begin
        return {text: vector for text, vector in found.items() if vector is not None}

    def slices(self, pictures: Pictures, looks: Sequence[Look]) -> dict[int, Vector]:
        """One unit vector for each slice on which there is something to see, by its number.

        That is the direction of the mean over looks, of those that show something. What was seen before is not encoded
        again.

        Raises:
            Cancelled: the user stopped it; what was encoded is kept.
        """
        seen = {look: self.memory.slices.get((self.weights, pictures.view, look)) or SeenSlices() for look in looks}
        missing = [(look, index) for index in pictures.slices for look in looks if index not in seen[look].vectors]
        if missing:
            self._see(pictures, seen, missing)
        joined = {}
        for index in pictures.slices:
            vectors = [vector for look in looks if (vector := seen[look].vectors[index]) is not None]
            if vectors:
                joined[index] = direction(vectors)
        return joined

    def _see(self, pictures: Pictures, seen: Mapping[Look, SeenSlices], missing: Sequence[tuple[Look, int]]) -> None:
        begin, size = time.perf_counter(), self.batch_size
        try:
            for start in range(0, len(missing), size):
                self.progress.step("classify", start, len(missing))
                batch = [(look, index, pictures.picture(index, look)) for look, index in missing[start : start + size]]
                for look, index, picture in batch:
                    if pictures.is_blank(picture):
                        seen[look].vectors[index] = None
                visible = [one for one in batch if one[1] not in seen[one[0]].vectors]
                vectors = self.images([picture for _, _, picture in visible])
                for (look, index, _), vector in zip(visible, vectors, strict=True):
                    seen[look].vectors[index] = vector
            self.progress.step("classify", len(missing), len(missing))
        finally:
            for look, slices in seen.items():
                self.memory.slices.put((self.weights, pictures.view, look), slices)
            self.tally.encode_s += time.perf_counter() - begin

    @property
    def batch_size(self) -> int:
        """How many pictures are encoded together."""
        return _BATCH.get(self.model.device, _LARGE_BATCH)

    def images(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """The vectors of pictures, (pictures, D), in one batch; nothing is kept."""
        if not images:
            return np.empty((0, 0), np.float32)
        self.tally.images += len(images)
        self.tally.image_batches += 1
        return self.model.encode_images(images, self.progress.check)

    def batches(self, images: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """The vectors of pictures one by one, encoded batch by batch as the pictures come; nothing is kept."""
        batch: list[NDArray[np.uint8]] = []
        for image in images:
            batch.append(image)
            if len(batch) == self.batch_size:
                yield from self.images(batch)
                batch.clear()
        yield from self.images(batch)


def direction(vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The mean of vectors, brought to unit length; where they cancel out, the first."""
    if len(vectors) == 1:
        return vectors[0]
    mean = np.mean(vectors, axis=0)
    length = float(np.linalg.norm(mean))
    return mean / length if length > 1e-9 else vectors[0]
