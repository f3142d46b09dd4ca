"""Requests to learn from corrected segments and to find objects like one, and their answers; they cross processes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..imaging.geometry import Axis, Box
from ..imaging.masks import PackedMask
from ..progress import ProgressReport
from .segmentation import CheckpointRecord

# The prompts that a model can learn: a box, one click inside, and further clicks for and against.
LearnedKind = Literal["box", "point", "correction"]
KINDS: tuple[LearnedKind, ...] = ("box", "point", "correction")
DISGUISES = 30  # pictures in other grey levels at most, on which the base's answers are held


@dataclass(frozen=True, slots=True)
class CorrectedSegment:
    """A segment that a person called right, in an image that was sent before.

    Attributes:
        volume_key: the image.
        name: the segment's name; scores are also shown by name.
        patient: whom the image shows: images of one patient are never parted into training and test.
        mask: its voxels.
        elsewhere: True where nothing is learned from it: it shows what an adaptation loses on other images.
    """

    volume_key: str
    name: str
    patient: str
    mask: PackedMask
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Training:
    """Settings of an adaptation.

    Attributes:
        steps: the most steps; fewer where the held-out loss rises.
        seed: of the split, the prompts and the order of the samples.
        axis: slices across this axis are learned from.
        rate: the learning rate of AdamW.
        distillation: the weight, in every second step, of the base's answers to boxes of its own on slices in other
            grey levels, against forgetting.
        least_pixels: objects with fewer pixels on a slice are left out.
        encoder_rank: the rank of what the image encoder learns (LoRA), 0 for nothing; None for what suits the computer:
            nothing without a graphics card and the package ``peft``.
        interleaved: test on every third slice instead of blocks with a gap: for comparisons with published figures
            alone, since neighbours of test slices are then learned from. Nothing is offered by such a test.
    """

    steps: int = 300
    seed: int = 0
    axis: Axis = "k"
    rate: float = 2e-4
    distillation: float = 0.5
    least_pixels: int = 50
    interleaved: bool = False
    encoder_rank: int | None = None


@dataclass(frozen=True, slots=True)
class AdaptRequest:
    """Adapt a model. Answered by an :class:`Adaptation`, whose weights wait in the store to be kept or discarded.

    Attributes:
        request_id: a number that the answer repeats.
        model_id: the base.
        name: of the result, whose id is ``<base>+<name>``.
        segments: to learn from, and those of elsewhere.
        intensity: the intensity policy.
        training: settings.
    """

    request_id: int
    model_id: str
    name: str
    segments: tuple[CorrectedSegment, ...]
    intensity: str = "auto"
    training: Training = field(default_factory=Training)

    @property
    def volume_keys(self) -> tuple[str, ...]:
        """The images, each once."""
        return tuple(dict.fromkeys(segment.volume_key for segment in self.segments))


@dataclass(frozen=True, slots=True)
class Gain:
    """The mean gain in Dice over units that were not learned from, and its 95 % interval; None with one unit."""

    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def is_certain(self) -> bool:
        """True where the lower end is above zero."""
        return self.low is not None and self.low > 0

    @property
    def is_loss(self) -> bool:
        """True where the higher end is below zero."""
        return self.high is not None and self.high < 0


@dataclass(frozen=True, slots=True)
class LabelScores:
    """Mean Dice on the objects of one name, before and after."""

    name: str
    objects: int
    before: float
    after: float
    gain: Gain


@dataclass(frozen=True, slots=True)
class KindScores:
    """Mean Dice with one kind of prompt on what was held out.

    Attributes:
        kind: the prompts.
        objects: how many objects, each on one slice.
        before, after: of the base and of the adapted model.
        baseline: without a model: a disc of mean radius at the click, an ellipse in the box, for corrections the
            adapted model's own answer to the first click.
        gain: over the base.
        lead: over the baseline.
        labels: by the segment's name.
    """

    kind: LearnedKind
    objects: int
    before: float
    after: float
    baseline: float
    gain: Gain
    lead: Gain
    labels: tuple[LabelScores, ...] = ()

    @property
    def passed(self) -> bool:
        """True where the model is better than its base and than no model, and no label is worse, beyond chance."""
        has_loss = any(label.gain.is_loss for label in self.labels)
        return self.gain.is_certain and self.lead.is_certain and not has_loss

    @property
    def fallen(self) -> tuple[LabelScores, ...]:
        """The labels with a lower mean than before, the largest loss first."""
        fallen = (label for label in self.labels if label.gain.mean < 0)
        return tuple(sorted(fallen, key=lambda label: label.gain.mean))


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The losses after a number of steps: of the steps since the last point, and on what is held out."""

    step: int
    loss: float
    held_out: float


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutExample:
    """An object on a slice that was not learned from, before and after.

    Attributes:
        name: the segment's.
        slice_number: across the axis of the training, from 0.
        picture: the slice as the model sees it, (rows, columns) or (rows, columns, 3).
        truth, before, after: the segment, and the answers of the base and of the adapted model; (rows, columns).
    """

    name: str
    slice_number: int
    picture: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    before: NDArray[np.bool_]
    after: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Adaptation:
    """A trained adaptation, and what it is worth.

    Attributes:
        model_id: the id that it has if it is kept, ``<base>+<name>``.
        base: the id of the base; ``base_sha256`` is the hash of its weights.
        sha256, bytes: of the file with the difference to the base.
        kinds: scores on what was held out.
        elsewhere: scores on images that nothing was learned from, by kind, in both the adapted model's favour or not.
        split: ``"patients"``, ``"blocks"`` of slices, or ``"interleaved"`` slices.
        units: how many patients or blocks the intervals are over.
        cases, patients, prompts: the numbers of images and patients that were learned from, and of prompts.
        curve: the losses; ``steps`` is the step whose weights were taken.
        seconds: by stage: ``encode``, ``train``, ``score``.
        notes: what was left out, for the user.
        settings: as in the request.
        examples: a few of what was held out, with one click where that passed, otherwise with a box.
    """

    model_id: str
    base: str
    base_sha256: str
    sha256: str
    bytes: int
    kinds: tuple[KindScores, ...]
    elsewhere: tuple[KindScores, ...]
    split: str
    units: int
    cases: int
    patients: int
    prompts: int
    steps: int
    curve: tuple[CurvePoint, ...]
    seconds: Mapping[str, float]
    notes: tuple[str, ...]
    settings: Training
    examples: tuple[HeldOutExample, ...] = ()

    @property
    def passed(self) -> tuple[LearnedKind, ...]:
        """The kinds of prompts that it may be offered for; corrections go with clicks alone."""
        if self.settings.interleaved:
            return ()
        kinds = tuple(scores.kind for scores in self.kinds if scores.passed)
        return kinds if "point" in kinds else tuple(kind for kind in kinds if kind != "correction")


def curve_report(point: CurvePoint, steps: int) -> ProgressReport:
    """Report a point of the curve; the losses travel as thousandths."""
    return ProgressReport("train", point.step, steps, "loss", round(point.held_out * 1000), round(point.loss * 1000))


def curve_point(report: ProgressReport) -> CurvePoint | None:
    """The point that a report holds, if any."""
    if report.stage != "train" or report.item != "loss":
        return None
    return CurvePoint(report.done, report.item_total / 1000, report.item_done / 1000)


@dataclass(frozen=True, slots=True)
class SimilarRequest:
    """Find objects like one. Answered by :class:`SimilarObjects`.

    Attributes:
        request_id: a number that the answer repeats.
        model_id: a model that segments slices and takes boxes.
        example_key: the image of the example.
        mask: the example's voxels.
        targets: the images to search, which may be that image, too.
        intensity: the intensity policy.
        axis: slices across this axis are compared.
        most: so many proposals of each image at most.
    """

    request_id: int
    model_id: str
    example_key: str
    mask: PackedMask
    targets: tuple[str, ...]
    intensity: str = "auto"
    axis: Axis = "k"
    most: int = 12

    @property
    def volume_keys(self) -> tuple[str, ...]:
        """The images, each once."""
        return tuple(dict.fromkeys((self.example_key, *self.targets)))


@dataclass(frozen=True, slots=True)
class Proposal:
    """An object that may be like the example: nobody has accepted it yet.

    Attributes:
        volume_key: the image that it is in.
        box: the box that the features propose.
        mask: the model's answer to that box, which is what accepting it writes.
        likeness: how much nearer the mask's features are to the example than to its surroundings, -1..1.
        score: the model's own estimate of the overlap (IoU), 0..1; None where it gives none.
    """

    volume_key: str
    box: Box
    mask: PackedMask
    likeness: float
    score: float | None


@dataclass(frozen=True, slots=True)
class SimilarObjects:
    """The answer: proposals, the most alike first.

    Attributes:
        request_id: that of the request.
        proposals: none of them overlaps the example, or another one by more than half.
        checkpoint: the weights that answered.
        notes: what was left out.
    """

    request_id: int
    proposals: tuple[Proposal, ...]
    checkpoint: CheckpointRecord
    notes: tuple[str, ...] = ()
