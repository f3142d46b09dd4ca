"""Answers of classifiers: ranked labels with their spread, the curve over slices, evidence in voxels."""

import csv
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codec import frozen
from ..errors import InputError
from ..imaging.geometry import Axis, Box, Geometry, array_axis, as_shape
from .classification import EvidenceMethod, Frame
from .domain import DomainCheck
from .scoring import Aggregation, ScoringRule
from .segmentation import CheckpointRecord

LIMITS = (
    "Evidence shows what moved this model's score, not where a disease is: similarity of parts was never trained for, "
    "and occlusion tells of one part at a time. Published maps of this kind of models overlap with marked findings by "
    "a Dice of 0.005 to 0.065 (ReX-Val: CT-CLIP to BiomedParse v2)."
)


@frozen(eq=False)
class EvidenceMap:
    """Evidence for a label on some slices.

    Attributes:
        label: its name.
        method: what was measured: ``"similarity"`` is a difference of cosines between a part of the picture and texts,
            ``"occlusion"`` what the label's lead loses, in logits, where a part is covered.
        axis: the slices lie across it.
        slices: their numbers, rising.
        frame: what the model saw of each, in voxels.
        values: (slices, rows, columns) float32, cells of equal size that fill the frame, in the order of the stored
            slice's axes.

    Raises:
        InputError: numbers of slices and values do not agree, or a value is not finite.
    """

    label: str
    method: EvidenceMethod
    axis: Axis
    slices: tuple[int, ...]
    frame: Frame
    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or len(self.values) != len(self.slices) or not self.values.size:
            raise InputError("evidence needs one grid of values for each slice")
        if not np.isfinite(self.values).all():
            raise InputError("the evidence holds values that are not finite")

    @classmethod
    def of_cells(
        cls,
        label: str,
        axis: Axis,
        cells_kji: NDArray[np.floating[Any]],
        spans_kji: Sequence[tuple[float, float]],
        geometry: Geometry,
    ) -> "EvidenceMap":
        """The evidence of a model of whole volumes, by similarity, on every slice that it saw.

        Args:
            label: its name.
            axis: the slices lie across it.
            cells_kji: (K, J, I) values of parts of the image.
            spans_kji: for each axis the voxels of the image that the parts cover, from edge to edge.
            geometry: the image.

        Raises:
            InputError: the parts lie outside of the image.
        """
        across = array_axis(axis)
        start, stop = spans_kji[across]
        first, end = max(0, round(start)), min(geometry.shape_kji[across], round(stop))
        if end <= first:
            raise InputError("the model saw nothing of the image that evidence could be shown on")
        cells = np.moveaxis(np.asarray(cells_kji, np.float32), across, 0)
        values = np.tensordot(_weights((start, stop), len(cells), first, end - first), cells, axes=1)
        (r0, r1), (c0, c1) = (span for number, span in enumerate(spans_kji) if number != across)
        frame = Frame((round(r0), round(r1)), (round(c0), round(c1)))
        return cls(label, "similarity", axis, tuple(range(first, end)), frame, values)

    def box(self, geometry: Geometry) -> Box:
        """The voxels from the first to the last slice, inside the frame and the image."""
        axis = array_axis(self.axis)
        lines = [(max(0, a), b) for a, b in (self.frame.rows, self.frame.columns)]
        lines.insert(axis, (min(self.slices), max(self.slices) + 1))
        stop = (min(b, n) for (_, b), n in zip(lines, geometry.shape_kji, strict=True))
        return Box(as_shape(a for a, _ in lines), as_shape(stop))

    def paint(self, geometry: Geometry) -> tuple[Box, NDArray[np.float32]]:
        """The evidence in voxels: a box of the image, and in it (K, J, I) values, interpolated within slices.

        Slices of the box without evidence hold the lowest value there is.
        """
        box, axis = self.box(geometry), array_axis(self.axis)
        painted = np.full(box.shape_kji, self.values.min(), np.float32)
        slices = np.moveaxis(painted, axis, 0)
        starts = [n for position, n in enumerate(box.start_kji) if position != axis]
        rows, columns = (
            _weights(line, cells, start, count)
            for line, cells, start, count in zip(
                (self.frame.rows, self.frame.columns), self.values.shape[1:], starts, slices.shape[1:], strict=True
            )
        )
        for index, grid in zip(self.slices, self.values, strict=True):
            slices[index - box.start_kji[axis]] = rows @ grid @ columns.T
        return box, painted

    def threshold(self, share: float = 0.5) -> float:
        """The value at a share of the way from the middle of all values (their median) to the highest."""
        if not 0 <= share <= 1:
            raise InputError(f"the threshold of evidence is a share from 0 to 1, not {share}")
        middle, highest = float(np.median(self.values)), float(self.values.max())
        return middle + share * (highest - middle)

    def mask(self, geometry: Geometry, share: float = 0.5) -> tuple[Box, NDArray[np.bool_]]:
        """Voxels with evidence above :meth:`threshold`: a box of the image, and in it (K, J, I); empty if flat."""
        box, painted = self.paint(geometry)
        if self.values.min() == self.values.max():
            return box, np.zeros(box.shape_kji, np.bool_)
        return box, painted >= self.threshold(share)


def _weights(line: tuple[float, float], cells: int, start: int, count: int) -> NDArray[np.float32]:
    """Weights of cells in voxels, (count, cells): linear between the middles of cells, flat outside them."""
    size = (line[1] - line[0]) / cells
    at = np.clip((np.arange(start, start + count) + 0.5 - line[0]) / size - 0.5, 0, cells - 1)
    lower = np.minimum(at.astype(int), max(0, cells - 2))
    weights = np.zeros((count, cells), np.float32)
    weights[np.arange(count), lower] = 1 - (at - lower)
    if cells > 1:
        weights[np.arange(count), lower + 1] = at - lower
    return weights


RESEARCH_USE = "Research use, not a diagnosis; scores are not calibrated probabilities."
OUTSIDE = "Not the domain of the model: scored on request."
NONE_OF_THESE = "none of these"
MOST_SHOWN = 100  # labels that a table on the screen has, the best of them
_MOST_NAMED = 10  # labels that a line names


@frozen
class LabelScore:
    """One label.

    Attributes:
        name: the label.
        score: from 0 to 1; over exclusive labels one image's scores sum to one.
        spread: the standard deviation of the scores that its texts give one by one: how much the wording matters.
        low, high: the lowest and the highest of those.
        margin: by how much the score leads the best other label, or the label's absence.
        stands_out: whether that is as much as was asked for, and more than the wording alone moves the score.
    """

    name: str
    score: float
    spread: float
    low: float
    high: float
    margin: float
    stands_out: bool


@frozen
class ConceptScore:
    """Similarity of the image to a concept of a label: a cosine, averaged over the slices."""

    label: str
    concept: str
    similarity: float


@frozen(eq=False)
class Classification:
    """The answer to a request.

    Attributes:
        request_id: that of the request.
        scores: one for each label, in the request's order; :attr:`ranked` sorts them.
        rule: how the labels were scored; ``temperature``, ``margin`` and ``aggregation`` go with it.
        label_set: the id of the labels' set.
        axis, slices: which slices were seen; none by a model that looks at a volume as a whole.
        curves: (slices, labels) float32: the score of each slice; NaN where there was nothing to see on it.
        looks: how the image was seen, in the report's form.
        checkpoint: which weights answered.
        device, precision: where and with what numbers.
        concepts: the similarities to the labels' concepts, where they were asked for.
        evidence: where something spoke for a label, where that was asked for.
        notes: what was cut short, left out or repeated.
        timings_s: seconds by stage: ``load``, ``text``, ``encode``, ``evidence``.
        counts: how often the model ran: ``images``, ``image_batches``, ``texts``, ``text_batches``.
        head: the learned head that scored, in the report's form; empty where words did.
        wording: for each label the sentences that the model read for it, and those against it; empty with a head.
        domain: the image held against what the model was trained on; None for a model of no certain domain.

    Raises:
        InputError: the parts do not agree.
    """

    request_id: int
    scores: tuple[LabelScore, ...]
    rule: ScoringRule
    temperature: float
    margin: float
    aggregation: Aggregation
    label_set: str
    axis: Axis
    slices: tuple[int, ...]
    curves: NDArray[np.float32]
    looks: tuple[Mapping[str, Any], ...]
    checkpoint: CheckpointRecord
    device: str
    precision: str
    concepts: tuple[ConceptScore, ...] = ()
    evidence: tuple[EvidenceMap, ...] = ()
    notes: tuple[str, ...] = ()
    timings_s: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    head: Mapping[str, Any] = field(default_factory=dict)
    wording: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    domain: DomainCheck | None = None

    def __post_init__(self) -> None:
        if self.curves.shape != (len(self.slices), len(self.scores)):
            raise InputError(f"scores of {self.curves.shape} slices and labels do not fit what was classified")
        if not all(np.isfinite((label.score, label.spread)).all() for label in self.scores):
            raise InputError("a score is not a number")

    @property
    def ranked(self) -> tuple[LabelScore, ...]:
        """The labels, the highest score first; equal ones in the request's order."""
        return tuple(sorted(self.scores, key=lambda label: -label.score))

    @property
    def is_exclusive(self) -> bool:
        """True where the labels were scored against each other."""
        return self.rule in ("softmax", "concepts", "learned")

    @property
    def is_calibrated(self) -> bool:
        """True where the scores may be read as shares: those of a head that learned from enough examples."""
        return bool(self.head.get("calibrated"))

    @property
    def is_outside(self) -> bool:
        """True where the image is not of the model's domain, and was scored at the user's wish."""
        return self.domain is not None and self.domain.is_overridden

    @property
    def caution(self) -> str:
        """The line that stands beside the scores wherever they are written."""
        return f"{OUTSIDE} {RESEARCH_USE}" if self.is_outside else RESEARCH_USE

    @property
    def verdict(self) -> tuple[str, ...]:
        """The labels that stand out, the highest first; empty means "none of these"."""
        return tuple(label.name for label in self.ranked if label.stands_out)

    @property
    def verdict_text(self) -> str:
        """The verdict as a line: no more labels than fit on it, the highest first."""
        more = f" and {len(self.verdict) - _MOST_NAMED} more" if len(self.verdict) > _MOST_NAMED else ""
        return ", ".join(self.verdict[:_MOST_NAMED]) + more or NONE_OF_THESE

    def to_document(self) -> dict[str, Any]:
        """The form of the report: everything but the evidence's voxels; scores by rank, to six digits."""
        return {
            "research_use": RESEARCH_USE,
            "model": self.checkpoint.to_document(),
            "device": self.device,
            "precision": self.precision,
            "looks": [dict(look) for look in self.looks],
            "label_set": self.label_set,
            "scoring": {"rule": self.rule, "temperature": self.temperature, "margin": self.margin},
            "aggregation": str(self.aggregation),
            "calibrated": self.is_calibrated,
            "verdict": list(self.verdict) or NONE_OF_THESE,
            "labels": [_rounded(label) for label in self.ranked],
            "axis": self.axis,
            "slices": list(self.slices),
            "curves": {
                label.name: [None if np.isnan(n) else round(float(n), 6) for n in self.curves[:, number]]
                for number, label in enumerate(self.scores)
            },
            "concepts": [_rounded(concept) for concept in self.concepts],
            "evidence": [
                {"label": label.label, "method": label.method, "slices": list(label.slices)} for label in self.evidence
            ],
            "notes": list(self.notes),
            "timings_s": {name: round(value, 3) for name, value in self.timings_s.items()},
            "counts": dict(self.counts),
            "wording": {
                label: {"for": list(texts[0]), "against": list(texts[1])} for label, texts in self.wording.items()
            },
            **({"head": dict(self.head)} if self.head else {}),
            **({"domain": self.domain.to_document()} if self.domain else {}),
        }


def _rounded(score: LabelScore | ConceptScore) -> dict[str, Any]:
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(score).items()}


# Tables

COLUMNS = (
    *("image", "label", "score", "spread", "lowest", "highest", "margin", "stands_out", "scoring", "aggregation"),
    *("calibrated", "slices", "model", "revision", "sha256", "error", "note"),
)


def rows_of(image: str, answer: Classification) -> list[dict[str, object]]:
    """Return the rows of a table for an image: one for each label, by rank."""
    how = {"scoring": answer.rule, "aggregation": str(answer.aggregation), "slices": len(answer.slices)}
    how["calibrated"] = int(answer.is_calibrated)
    checkpoint = answer.checkpoint
    origin = {"model": checkpoint.model_id, "revision": checkpoint.revision, "sha256": checkpoint.sha256}
    shared = {"image": image, **how, **origin, "note": answer.caution}
    numbers = {"score": "score", "spread": "spread", "lowest": "low", "highest": "high", "margin": "margin"}
    return [
        {column: f"{getattr(label, name):.6f}" for column, name in numbers.items()}
        | {"label": label.name, "stands_out": int(label.stands_out), **shared}
        for label in answer.ranked
    ]


def failure_rows(image: str, model_id: str, reason: str) -> list[dict[str, object]]:
    """Return the row of an image that could not be classified; the reason is one line."""
    return [{"image": image, "model": model_id, "error": reason, "note": RESEARCH_USE}]


def csv_text(rows: Iterable[Mapping[str, object]], columns: Collection[str] = COLUMNS) -> str:
    """Format rows as a table of comma-separated values (RFC 4180), with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
