"""Requests for segmentation and downloads and their answers: plain values that can cross a process boundary."""

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Any, Literal

from ..codec import frozen
from ..errors import InputError
from ..imaging.geometry import Axis, Box
from ..imaging.masks import PackedMask
from ..prompts.kinds import MaskPrompt, PromptSet, SegmentPrompts

Direction = Literal["both", "up", "down"]
HandOver = Literal["auto", "box", "mask", "points", "interpolate"]
SURE = 0.7  # a slice whose overlap with the object the model itself puts below this should be looked at
NOTHING_BETWEEN = (
    "there is nothing to interpolate: the segment has to be on two slices that were prompted, corrected or drawn, with "
    "others between them"
)
NOT_BETWEEN_OBLIQUE = (
    "slices are interpolated along the image's axes, and these prompts lie in an oblique view: propagate"
)


@frozen
class Propagation:
    """Propagation of 2-D prompts through the volume, along the axis whose slices they lie on.

    Attributes:
        start, stop: the first slice that may be reached, and the first that may not; None means the volume's end.
        direction: towards higher slice numbers, lower ones, or both.
        hand_over: what a 2-D model is asked with on the next slice: the box around this slice's mask, the mask, or
            points inside it; ``"auto"`` takes the first of these that it understands. A model with a memory of its own
            needs none of them. With ``"interpolate"`` no model is asked: the slices between those that were prompted
            or corrected follow from the outlines on both sides, whatever the direction.
        least_agreement: the object has ended where less than this part of two neighbouring masks (their intersection
            over union, 0..1) agrees: what follows is another object. Of a model with a memory, its own word for
            "not here" decides instead.

    Raises:
        InputError: the range holds no slice, or the agreement is not within 0..1.
    """

    start: int | None = None
    stop: int | None = None
    direction: Direction = "both"
    hand_over: HandOver = "auto"
    least_agreement: float = 0.3

    def __post_init__(self) -> None:
        if self.stop is not None and self.stop <= (self.start or 0):
            raise InputError(f"the range {self.start or 0}:{self.stop} holds no slice; its end must be above its start")
        if not 0 <= self.least_agreement <= 1:
            raise InputError(f"an agreement lies within 0 and 1, not at {self.least_agreement}")

    def require_along_normal(self) -> None:
        """Make sure that this can be done along the normal of an oblique view, whose slices have no known numbers.

        Raises:
            InputError: slices are numbered, or interpolated.
        """
        if self.hand_over == "interpolate":
            raise InputError(NOT_BETWEEN_OBLIQUE)
        if self.start is not None or self.stop is not None:
            message = "a range counts the slices of the image, and these prompts lie in an oblique view: leave it out"
            raise InputError(message)


@frozen
class PredictRequest:
    """Segments to predict, together: a slice that several of them need is encoded once.

    Attributes:
        request_id: a number that the answer repeats; the caller makes it unique.
        model_id: the model's card.
        volume_key: :attr:`FoundationSegLib.imaging.volume.Volume.key` of an image that was sent before.
        segments: each segment with all its prompts, in RAS. Messages say ``segments[n]`` for the one at place n.
        intensity: the policy, :mod:`FoundationSegLib.imaging.intensity`.
        propagation: how 2-D prompts are carried on; None where each changes its own slice only.
        region: the box of the image that the model sees; nothing is found outside. None for all of it.
    """

    request_id: int
    model_id: str
    volume_key: str
    segments: tuple[SegmentPrompts, ...]
    intensity: str = "auto"
    propagation: Propagation | None = None
    region: Box | None = None


@frozen
class CheckpointRecord:
    """Record of the weights that answered: model id, origin, revision, and the sha256 of the first file.

    Of an adapted model ``sha256`` is that of the difference to its base, whose id and sha256 stand beside it.
    """

    model_id: str
    source: str
    revision: str
    sha256: str
    base: str = ""
    base_sha256: str = ""

    def to_document(self) -> dict[str, Any]:
        """The form of the report."""
        own = {"id": self.model_id, "source": self.source, "revision": self.revision, "sha256": self.sha256}
        return own | self.base_document()

    def base_document(self) -> dict[str, Any]:
        """The base of an adapted model, in the form of the report; empty for other models."""
        return {"base": {"id": self.base, "sha256": self.base_sha256}} if self.base else {}

    @property
    def provenance(self) -> dict[str, str]:
        """The form of segments' tags, by the names of :data:`~FoundationSegLib.session.segment_store.PROVENANCE`."""
        names = ("Model", "Repository", "Revision", "SHA256")
        return dict(zip(names, (self.model_id, self.source, self.revision, self.sha256), strict=True))


@frozen
class SliceScores:
    """The model's own estimates of the overlap with the object, 0..1, by slice: the numbers rise."""

    axis: Axis
    numbers: tuple[int, ...]
    scores: tuple[float, ...]

    @property
    def unsure(self) -> tuple[int, ...]:
        """The slices to look at: the estimate is below :data:`SURE`."""
        return tuple(number for number, score in zip(self.numbers, self.scores, strict=True) if score < SURE)

    def shifted(self, count: int) -> "SliceScores":
        """The same on a grid that begins so many slices earlier."""
        return replace(self, numbers=tuple(number + count for number in self.numbers))


@frozen
class SegmentPrediction:
    """One segment as it should be now.

    Attributes:
        mask: the segment's voxels.
        score: the model's own estimate of the overlap (IoU) with the object, 0..1, averaged over the slices that
            it decoded; None where it gave none.
        slices: that estimate of each slice with voxels, across the axis of its prompts; None where there is none.
    """

    mask: PackedMask
    score: float | None
    slices: SliceScores | None = None


@frozen
class Prediction:
    """The answer to a request.

    Attributes:
        request_id: that of the request.
        segments: what was found, in the request's order.
        intensity: the mapping that was used, in the report's form.
        checkpoint: which weights answered.
        device, precision: where and with what numbers, e.g. ``"cpu"``, ``"float32"``.
        notes: what was clipped, translated, stopped early or encoded again.
        timings_s: seconds by stage: ``load``, ``encode``, ``decode``.
        counts: how often the model ran: ``encodes``, ``decodes``.
        parts: the boxes of the image that the model saw; empty where it saw all of it at once.
    """

    request_id: int
    segments: tuple[SegmentPrediction, ...]
    intensity: Mapping[str, Any]
    checkpoint: CheckpointRecord
    device: str
    precision: str
    notes: tuple[str, ...] = ()
    timings_s: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[Box, ...] = ()


@frozen
class PartialPrediction:
    """Slices of an answer that is still under way: those that are new since the last part, by segment in order."""

    masks: tuple[PackedMask, ...]


def seeded(prompts: PromptSet, seeds: Sequence[MaskPrompt]) -> PromptSet:
    """The same prompts, with the seed of the same name before those of each segment that has one.

    Where there are no prompts at all, each seed is a segment: the model is asked what it makes of it. Seeds of
    segments that are not prompted are left out otherwise: nobody asked for a change of them.
    """
    if not prompts.segments:
        return PromptSet(tuple(SegmentPrompts(seed.segment, (seed,)) for seed in seeds), prompts.space)
    by_name = {seed.segment: seed for seed in seeds}
    segments = tuple(
        SegmentPrompts(segment.name, (by_name[segment.name], *segment.prompts)) if segment.name in by_name else segment
        for segment in prompts.segments
    )
    return PromptSet(segments, prompts.space)
