"""Requests for classification: slices, square frames, label sets. Plain values that can cross a process boundary."""

import math
from collections.abc import Sequence
from dataclasses import field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..catalog.label_sets import LabelSet, labels_of
from ..catalog.model_cards import ModelCard
from ..codec import frozen
from ..errors import InputError
from ..imaging.geometry import Axis, Box, Geometry, array_axis, as_shape
from ..imaging.masks import PackedMask, touched_slices
from ..prompts.regions import slab
from .heads import LearnedHead
from .scoring import Aggregation, Scoring
from .segmentation import CheckpointRecord

_LARGEST_SIDE = 8192  # pixels; a grid of needles would need more to become a square, and is stretched instead


@frozen
class Frame:
    """A rectangle of a stored slice in whole voxels, half-open; it may reach out of the slice.

    Attributes:
        rows, columns: the first and the one after the last, along the slice's two axes in array order.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows and of columns."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    def cut(self, plane: NDArray[np.uint8], inside: "Frame") -> NDArray[np.uint8]:
        """This part of a stored slice, (rows, columns) or (rows, columns, 3); black outside of another frame."""
        cut = np.zeros((*self.shape, *plane.shape[2:]), plane.dtype)
        visible = _overlap(self, _overlap(inside, Frame((0, plane.shape[0]), (0, plane.shape[1]))))
        cut[visible.relative_to(self).slices] = plane[visible.slices]
        return cut

    def relative_to(self, second: "Frame") -> "Frame":
        """The frame as counted from the first row and column of another."""
        (r0, r1), (c0, c1), r, c = self.rows, self.columns, second.rows[0], second.columns[0]
        return Frame((r0 - r, r1 - r), (c0 - c, c1 - c))

    @property
    def slices(self) -> tuple[slice, slice]:
        """The index that cuts this frame out of a slice that holds it."""
        return slice(*self.rows), slice(*self.columns)


def _overlap(first: Frame, second: Frame) -> Frame:
    def line(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        start = max(a[0], b[0])
        return start, max(start, min(a[1], b[1]))

    return Frame(line(first.rows, second.rows), line(first.columns, second.columns))


def frame_of(box: Box, axis: Axis) -> Frame:
    """Frame that a box covers on the slices across an axis."""
    (r0, c0), (r1, c1) = (
        tuple(n for position, n in enumerate(corner) if position != array_axis(axis))
        for corner in (box.start_kji, box.stop_kji)
    )
    return Frame((r0, r1), (c0, c1))


def widened(frame: Frame, margin: float) -> Frame:
    """The frame with a margin on each side, of that part of its longer side and of one voxel at least."""
    more = max(1, round(max(frame.shape) * margin)) if margin else 0
    return Frame((frame.rows[0] - more, frame.rows[1] + more), (frame.columns[0] - more, frame.columns[1] + more))


def square(frame: Frame, geometry: Geometry, axis: Axis, *, is_inside: bool = False) -> Frame:
    """The smallest frame around this one, about the same centre, that is as high as wide in mm, to the voxel.

    With ``is_inside`` the largest inside of it.
    """
    i, j, k = geometry.spacing_mm
    row_mm, column_mm = (mm for name, mm in zip(("k", "j", "i"), (k, j, i), strict=True) if name != axis)
    rows, columns = frame.shape
    sides_mm = rows * row_mm, columns * column_mm
    side_mm = min(sides_mm) if is_inside else max(sides_mm)
    return Frame(_resized(frame.rows, side_mm / row_mm), _resized(frame.columns, side_mm / column_mm))


def _resized(line: tuple[int, int], length: float) -> tuple[int, int]:
    count = line[1] - line[0]
    side = min(max(1, round(length)), max(_LARGEST_SIDE, count))
    start = line[0] + (count // 2 - side // 2 if side < count else -((side - count) // 2))
    return start, start + side


SegmentView = Literal["crop", "mask"]
EvidenceMethod = Literal["similarity", "occlusion"]


@frozen
class Subject:
    """The part of an image to classify: slices across an axis, all of them unless said, or a part of them.

    Attributes:
        axis: the slices lie across it.
        start, stop: the first slice, and the first that is none of them; None means the end of what is there.
        box: a region of interest, in voxels: its slices, cut to it.
        segment: the voxels of a segment: its slices, cut to the box around it.
        view: whether what surrounds the segment is seen (``"crop"``) or is black (``"mask"``).
        margin: how far around the segment is seen, as a part of the longer side of its box.

    Raises:
        InputError: the range, the box or the segment is empty, both a box and a segment are given, or the margin is
            not within 0..10.
    """

    axis: Axis = "k"
    start: int | None = None
    stop: int | None = None
    box: Box | None = None
    segment: PackedMask | None = None
    view: SegmentView = "crop"
    margin: float = 0.15

    def __post_init__(self) -> None:
        first = self.start or 0
        if first < 0 or (self.stop is not None and self.stop <= first):
            raise InputError(f"the range {first}:{self.stop} holds no slice; its end must be above its start")
        if self.box is not None and self.segment is not None:
            raise InputError("either a region or a segment is classified, not both")
        if self.box is not None and self.box.is_empty:
            raise InputError("the region to classify is empty")
        if self.segment is not None and self.segment.box.is_empty:
            raise InputError("the segment to classify is empty")
        if not (math.isfinite(self.margin) and 0 <= self.margin <= 10):
            raise InputError(f"the margin around a segment lies within 0 and 10, not at {self.margin}")


def box_of_subject(subject: Subject, geometry: Geometry) -> Box:
    """The voxels of an image that a model of whole volumes sees of a subject.

    Raises:
        InputError: as :func:`slices_of`.
    """
    slices = slices_of(subject, geometry)
    if subject.segment is None:
        whole = slab(subject.axis, slices[0], slices[-1] + 1, geometry)
        return whole if subject.box is None else subject.box.intersection(whole)
    mm, around = geometry.spacing_mm[::-1], subject.segment.box
    margin_mm = subject.margin * max(n * m for n, m in zip(around.shape_kji, mm, strict=True))
    return around.grown(as_shape(math.ceil(margin_mm / m) for m in mm)).intersection(geometry.box)


def slices_of(subject: Subject, geometry: Geometry) -> tuple[int, ...]:
    """The numbers of the slices of an image that a subject is on, rising.

    Raises:
        InputError: no slice of the image is in the range, or the region or the segment lies outside of the image.
    """
    axis = array_axis(subject.axis)
    count = geometry.shape_kji[axis]
    first, end = subject.start or 0, count if subject.stop is None else subject.stop
    if end > count or first >= count:
        raise InputError(f"there are {count} slices across {subject.axis}, from 0 to {count - 1}; not up to {end - 1}")
    numbers: Sequence[int] = range(first, end)
    part = subject.box or (subject.segment.box if subject.segment else None)
    if part is not None:
        if not geometry.box.contains(part):
            part_name = "region" if subject.box else "segment"
            raise InputError(f"the {part_name} to classify reaches out of the image")
        numbers = range(max(first, part.start_kji[axis]), min(end, part.stop_kji[axis]))
    if subject.segment is not None:
        drawn = touched_slices(subject.segment, subject.axis)
        numbers = [n for n in numbers if n in drawn]
    if not numbers:
        raise InputError("the range of slices and what is to be classified on them do not meet")
    return tuple(numbers)


@frozen
class EvidenceWish:
    """Request for evidence: the place in the image that speaks for a label.

    Attributes:
        label: the label's name; empty for the one with the highest score.
        method: ``"similarity"`` compares the parts of the picture with the label's words, in one more look at each
            slice; ``"occlusion"`` covers one part after the other and measures what the score loses, in a hundred.
        slices: on how many slices, those where the label scores highest first; 0 for all.
        parts: into how many parts each side is divided for occlusion.

    Raises:
        InputError: a number is out of range.
    """

    label: str = ""
    method: EvidenceMethod = "similarity"
    slices: int = 8
    parts: int = 10

    def __post_init__(self) -> None:
        if self.slices < 0 or not 2 <= self.parts <= 64:
            raise InputError("evidence needs 0 or more slices, and from 2 to 64 parts a side")


@frozen
class ClassifyRequest:
    """Labels to score in an image.

    Attributes:
        request_id: a number that the answer repeats; the caller makes it unique, also among other requests.
        model_id: the model's card.
        volume_key: :attr:`FoundationSegLib.imaging.volume.Volume.key` of an image that was sent before.
        labels: what it may be.
        subject: which part of the image.
        intensity: a policy of :mod:`~.intensity`, or ``"ct-windows"`` or ``"ct-channels"`` of :mod:`~.looks`.
        scoring, aggregation: how scores are made, and those of several slices joined.
        evidence: what to show of why, if anything.
        head: scores the labels, which are its own, instead of words; evidence is for words.
        any_domain: go on where the image is not of the kind that the model was trained on; the answer says so.

    Raises:
        InputError: the labels are not the head's, or evidence is asked of a head.
    """

    request_id: int
    model_id: str
    volume_key: str
    labels: LabelSet
    subject: Subject = field(default_factory=Subject)
    intensity: str = "auto"
    scoring: Scoring = field(default_factory=Scoring)
    aggregation: Aggregation = field(default_factory=Aggregation)
    evidence: EvidenceWish | None = None
    head: LearnedHead | None = None
    any_domain: bool = False

    def __post_init__(self) -> None:
        if self.head is not None and self.labels.names != self.head.labels:
            raise InputError("the labels are not those that the head has learned")
        if self.head is not None and self.evidence is not None:
            raise InputError("evidence is shown for words; a head learned whole images")


def require_labels(card: ModelCard, request: ClassifyRequest) -> None:
    """Make sure that a model can score the labels of a request; those of a head are the head's.

    Raises:
        InputError: it was trained on certain labels, and the request names others, or asks for a rule on words.
    """
    is_of_words = "text" in card.prompts and request.labels.id != card.label_set
    if not card.label_set or is_of_words or request.head is not None:
        return
    own = labels_of(card)
    why, others = f"{card.title} reads no words for the set {own.id}", set(request.labels.names).difference(own.names)
    if others:
        known = f"its {len(own.names)} labels, or some of them"
        raise InputError(f"{why}, so that it cannot score {min(others)[:60]!r}; use {known}")
    if request.scoring.rule != "auto" or request.scoring.temperature != 1:
        raise InputError(f"{why}: leave out the rule and the temperature, which are for words")


@frozen
class EmbedRequest:
    """A request for the vector of each slice of an image, and of texts.

    Attributes:
        request_id, model_id, volume_key, subject, intensity: as of
            :class:`ClassifyRequest`. Models of slices that segment have vectors too: the mean and the
            spread of their encoder's features over the image.
        texts: sentences to encode with a model that reads.
    """

    request_id: int
    model_id: str
    volume_key: str
    subject: Subject = field(default_factory=Subject)
    intensity: str = "auto"
    texts: tuple[str, ...] = ()


@frozen(eq=False)
class Embeddings:
    """The answer to an :class:`EmbedRequest`.

    Attributes:
        slices: numbers of the slices with something to see, rising.
        vectors: (slices, D) float32 of unit length.
        texts: (texts, D) float32 of unit length.
        checkpoint: which weights answered.
    """

    request_id: int
    slices: tuple[int, ...]
    vectors: NDArray[np.float32]
    texts: NDArray[np.float32]
    checkpoint: CheckpointRecord
