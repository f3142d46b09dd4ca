"""Slices as pictures for a classifier, and the vectors of pictures and texts: each is encoded once, and kept."""

import hashlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..imaging.geometry import Axis, Geometry, array_axis
from ..imaging.intensity import IntensityView
from ..imaging.masks import PackedMask, cut_out
from ..imaging.volume import Volume
from ..models.protocols import Check, SliceModel, VolumeVectors, unstoppable
from ..progress import Progress
from ..prompts.regions import crop_volume
from ..requests.classification import Frame, Subject, box_of_subject, frame_of, slices_of, square, widened
from ..requests.domain import DomainCheck
from .slice_inference import LoadedModel, LruCache, Weights
from .slices import SliceOrientation, radiological, slice_of

# Pictures in one batch: on the CPU more are no faster, and a user who cancels waits for one.
_BATCH = {"cpu": 8}
_LARGE_BATCH = 32
TEXT_BATCH = 1024  # the adapter makes them smaller where texts are long
_BUDGET_BYTES = 64 * 2**20  # a vector takes 2 to 5 kB: that is more than ten thousand slices

Vector = NDArray[np.float32]
# The vector of each slice in one intensity view, by its number; None where there was nothing to see.
SliceVectors = dict[int, Vector | None]


@dataclass(frozen=True, slots=True)
class PictureKey:
    """Everything but its number, its intensity view and the model that changes the picture of a slice.

    Attributes:
        volume_key, axis, orientation: the slices, and how they are turned.
        frame: the part of a stored slice that is shown: a square in mm.
        inside: outside of this part the picture is black.
        silhouette: names the segment outside of which it is black; empty where there is none.
    """

    volume_key: str
    axis: Axis
    orientation: SliceOrientation
    frame: Frame
    inside: Frame
    silhouette: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """The slices of a volume as pictures.

    Attributes:
        slices: their numbers, rising.
        segment: the voxels outside of which pictures are black; None where there is no such segment.
    """

    volume: Volume
    key: PictureKey
    slices: tuple[int, ...]
    segment: PackedMask | None = None

    @classmethod
    def of(cls, volume: Volume, subject: Subject, *, sees_middle: bool = False) -> "Pictures":
        """Return the pictures of a subject; none is made yet. With ``sees_middle`` only the middle of whole slices.

        Raises:
            InputError: no slice of the image is in the range, or the region or the segment lies outside of the image.
        """
        geometry, axis = volume.geometry, subject.axis
        slices = slices_of(subject, geometry)
        inside, frame = _frames(geometry, subject, sees_middle)
        segment = subject.segment if subject.view == "mask" else None
        silhouette = ""
        if segment is not None:
            silhouette = hashlib.blake2b(segment.bits + repr(segment.box).encode(), digest_size=16).hexdigest()
        key = PictureKey(volume.key, axis, radiological(geometry, axis), frame, inside, silhouette)
        return cls(volume, key, slices, segment)

    def picture(self, index: int, view: IntensityView) -> NDArray[np.uint8]:
        """Return a slice as it is seen: (rows, columns) or (rows, columns, 3), square in mm."""
        plane = view.see(slice_of(self.volume, self.key.axis, index))
        if self.segment is not None:
            axis, silhouette = array_axis(self.key.axis), np.zeros(plane.shape[:2], np.bool_)
            cut = self.segment.unpack().take(index - self.segment.box.start_kji[axis], axis=axis)
            silhouette[frame_of(self.segment.box, self.key.axis).slices] = cut
            plane = plane * (silhouette if plane.ndim == 2 else silhouette[..., None])
        return self._turned(plane)

    def is_blank(self, picture: NDArray[np.uint8]) -> bool:
        """Return True where there is nothing to see: every pixel that is not padding is the same."""
        pixels = picture[self.image_area()]
        return bool(pixels.size == 0 or (pixels == pixels[:1]).all())

    def image_area(self) -> NDArray[np.bool_]:
        """Return a picture's (rows, columns): True where it shows the image, False where it is padding."""
        shape = frame_of(self.volume.geometry.box, self.key.axis).shape
        return self._turned(np.ones(shape, np.uint8)) > 0

    def _turned(self, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self.key.orientation.turn(self.key.frame.cut(plane, self.key.inside))


def _frames(geometry: Geometry, subject: Subject, sees_middle: bool) -> tuple[Frame, Frame]:
    """Return what is shown of a slice, and the square around it.

    Around a segment the square is filled with what is there; around a region of the user's it is black, since what is
    outside was not meant.
    """
    whole = frame_of(geometry.box, subject.axis)
    if subject.box is not None:
        inside = frame_of(subject.box, subject.axis)
        return inside, square(inside, geometry, subject.axis)
    if subject.segment is not None:
        around = widened(frame_of(subject.segment.box, subject.axis), subject.margin)
        return whole, square(around, geometry, subject.axis)
    return whole, square(whole, geometry, subject.axis, is_inside=sees_middle)


def part_of(volume: Volume, subject: Subject) -> Volume:
    """Return what a model of whole volumes sees of a subject; around a silhouette the lowest value there is.

    Raises:
        InputError: the subject is not in the image, or every voxel of it is the same.
    """
    box = box_of_subject(subject, volume.geometry)
    part = volume if box == volume.geometry.box else crop_volume(volume, box)
    if subject.segment is None or subject.view == "crop":
        return part
    inside = cut_out(subject.segment, box)
    return replace(part, array_kji=np.where(inside, part.array_kji, part.array_kji.min()))


@dataclass(frozen=True, slots=True)
class TextVector:
    """The vector of a text; ``truncated`` where the text was too long for the model."""

    vector: Vector
    truncated: bool


@dataclass(slots=True)
class VectorCache:
    """The vectors of slices by picture, intensity view and weights; of texts and volumes by these and the weights."""

    slices: LruCache[tuple[Weights, PictureKey, IntensityView], SliceVectors] = field(
        default_factory=lambda: LruCache(_BUDGET_BYTES, _nbytes)
    )
    texts: LruCache[tuple[Weights, str], TextVector] = field(
        default_factory=lambda: LruCache(_BUDGET_BYTES, lambda text: text.vector.nbytes)
    )
    volumes: LruCache[tuple[Weights, str, Subject], VolumeVectors] = field(
        default_factory=lambda: LruCache(_BUDGET_BYTES, lambda vectors: vectors.nbytes)
    )

    def drop_volume(self, volume_key: str) -> None:
        """Drop the vectors of an image."""
        self.slices.drop_where(lambda key: key[1].volume_key == volume_key)
        self.volumes.drop_where(lambda key: key[1] == volume_key)

    def drop_model(self, model_id: str) -> None:
        """Drop the vectors that a model computed."""
        self.slices.drop_where(lambda key: key[0].checkpoint.model_id == model_id)
        self.texts.drop_where(lambda key: key[0].checkpoint.model_id == model_id)
        self.volumes.drop_where(lambda key: key[0].checkpoint.model_id == model_id)


@dataclass(frozen=True, slots=True)
class SegmenterTower:
    """The encoder of a model that segments slices, as a tower: what it sees in a picture, as one vector."""

    model: SliceModel

    @property
    def device(self) -> str:
        """The device that computes."""
        return self.model.device

    def encode_images(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """Encode pictures: (pictures, 2 channels), the mean and the spread of the features, each row of unit length."""
        return np.stack([_summary(self.model.encode(image, check).grid) for image in images])


def _summary(grid: Any) -> Vector:
    """Return the mean and the spread of each channel over a slice's features, (rows, columns, channels)."""
    import torch

    cells = grid.float().flatten(0, 1)
    summary = torch.cat([cells.mean(dim=0), cells.std(dim=0, unbiased=False)])
    return (summary / summary.norm()).cpu().numpy()


@dataclass(frozen=True, slots=True)
class Encoder:
    """Encodes pictures and texts for one request, and keeps their vectors."""

    loaded: LoadedModel[Any]  # an ImageTextModel, a VolumeTextModel or a TrainedLabelModel; for heads a SegmenterTower
    cache: VectorCache
    progress: Progress
    domain: DomainCheck | None = None
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("images", "image_batches", "texts", "text_batches"), 0)
    )
    timings_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("text", "encode", "evidence"), 0.0))

    def count_batch(self, kind: str, size: int) -> None:
        """Count a batch of a kind, ``"image"`` or ``"text"``."""
        self.counts[f"{kind}s"] += size
        self.counts[f"{kind}_batches"] += 1

    def texts(self, texts: Sequence[str]) -> dict[str, TextVector]:
        """Return the vector of each text; those that are new are encoded, all in one batch or in a few.

        Raises:
            Cancelled: the user stopped it; what was encoded is kept.
        """
        weights = self.loaded.weights
        vectors = {text: self.cache.texts.get((weights, text)) for text in texts}
        missing = [text for text, vector in vectors.items() if vector is None]
        begin = time.perf_counter()
        for start in range(0, len(missing), TEXT_BATCH):
            batch = missing[start : start + TEXT_BATCH]
            self.progress.step("text", start, len(missing))
            encoded = self.loaded.model.encode_texts(batch, self.progress.check)
            self.count_batch("text", len(batch))
            for text, vector, truncated in zip(batch, encoded.vectors, encoded.truncated, strict=True):
                vectors[text] = TextVector(vector, truncated)
                self.cache.texts.put((weights, text), TextVector(vector, truncated))
        if missing:
            self.progress.step("text", len(missing), len(missing))
            self.timings_s["text"] += time.perf_counter() - begin
        return {text: vector for text, vector in vectors.items() if vector is not None}

    @property
    def sees_volumes(self) -> bool:
        """True where the model looks at whole volumes, not at slices."""
        return hasattr(self.loaded.model, "encode_volume")

    def pictures(self, volume: Volume, subject: Subject) -> Pictures:
        """Return the pictures of a subject as the model sees them. Raises as :meth:`Pictures.of`."""
        return Pictures.of(volume, subject, sees_middle=getattr(self.loaded.model, "sees_middle", False))

    def volume(self, volume: Volume, subject: Subject) -> VolumeVectors:
        """Return the vectors of an image, or of the part of it around a subject; the last ones are kept.

        Raises:
            InputError: the model cannot look at it, or every voxel is the same.
            Cancelled: the user stopped it.
        """
        key = (self.loaded.weights, volume.key, subject)
        vectors = self.cache.volumes.get(key)
        if vectors is None:
            begin = time.perf_counter()
            self.count_batch("image", 1)
            self.progress.step("encode", 0, 0)
            vectors = self.loaded.model.encode_volume(part_of(volume, subject), self.progress)
            self.cache.volumes.put(key, vectors)
            self.progress.step("classify", 1, 1)
            self.timings_s["encode"] += time.perf_counter() - begin
        return vectors

    def slices(self, pictures: Pictures, views: Sequence[IntensityView]) -> dict[int, Vector]:
        """Return one unit vector for each slice on which there is something to see, by its number.

        That is the direction of the mean over intensity views, of those that show something.

        Raises:
            InputError: there is nothing to see on any of them.
            Cancelled: the user stopped it; what was encoded is kept.
        """
        weights = self.loaded.weights
        cached = {view: dict(self.cache.slices.get((weights, pictures.key, view)) or {}) for view in views}
        missing = [(view, index) for index in pictures.slices for view in views if index not in cached[view]]
        if missing:
            self._encode_slices(pictures, cached, missing)
        joined = {}
        for index in pictures.slices:
            vectors = [vector for view in views if (vector := cached[view][index]) is not None]
            if vectors:
                joined[index] = direction(vectors)
        if not joined:
            raise InputError("there is nothing to see on what was chosen: every pixel is the same")
        return joined

    def _encode_slices(
        self,
        pictures: Pictures,
        cached: Mapping[IntensityView, SliceVectors],
        missing: Sequence[tuple[IntensityView, int]],
    ) -> None:
        begin, size = time.perf_counter(), self.batch_size
        try:
            for start in range(0, len(missing), size):
                self.progress.step("classify", start, len(missing))
                visible: list[tuple[IntensityView, int]] = []
                images: list[NDArray[np.uint8]] = []
                for view, index in missing[start : start + size]:
                    picture = pictures.picture(index, view)
                    if pictures.is_blank(picture):
                        cached[view][index] = None
                    else:
                        visible.append((view, index))
                        images.append(picture)
                for (view, index), vector in zip(visible, self.images(images), strict=True):
                    cached[view][index] = vector
            self.progress.step("classify", len(missing), len(missing))
        finally:
            for view, vectors in cached.items():
                self.cache.slices.put((self.loaded.weights, pictures.key, view), vectors)
            self.timings_s["encode"] += time.perf_counter() - begin

    @property
    def batch_size(self) -> int:
        """How many pictures are encoded together."""
        return _BATCH.get(self.loaded.model.device, _LARGE_BATCH)

    def images(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the vectors of pictures, (pictures, D), in one batch; nothing is kept."""
        if not images:
            return np.empty((0, 0), np.float32)
        self.count_batch("image", len(images))
        return self.loaded.model.encode_images(images, self.progress.check)

    def batches(self, images: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield the vectors of pictures one by one, encoded batch by batch as the pictures come; nothing is kept."""
        while batch := list(itertools.islice(images, self.batch_size)):
            yield from self.images(batch)


def _nbytes(vectors: SliceVectors) -> int:
    return sum(vector.nbytes for vector in vectors.values() if vector is not None)


def direction(vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the mean of vectors, brought to unit length; where they cancel out, the first."""
    if len(vectors) == 1:
        return vectors[0]
    mean = np.mean(vectors, axis=0)
    length = float(np.linalg.norm(mean))
    return mean / length if length > 1e-9 else vectors[0]
