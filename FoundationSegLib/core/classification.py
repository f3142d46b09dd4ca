"""What a classifier answers: ranked labels with their spread, the curve over slices, evidence, and who said so."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .aggregation import Aggregation
from .errors import InputError
from .evidence import EvidenceMap
from .geometry import Axis
from .requests import CheckpointRecord
from .scoring import ScoringRule

RESEARCH_USE = "Research use, not a diagnosis; scores are not calibrated probabilities."
NONE_OF_THESE = "none of these"


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One label.

    Attributes:
        name: the label.
        score: from 0 to 1; over exclusive labels one image's scores sum to one.
        spread: the standard deviation of the scores that its texts give one by one: how much the wording matters.
        low, high: the lowest and the highest of those.
        margin: by how much the score leads the best other label, or the label's absence.
        stands_out: whether that is as much as was asked for.
    """

    name: str
    score: float
    spread: float
    low: float
    high: float
    margin: float
    stands_out: bool


@dataclass(frozen=True, slots=True)
class ConceptScore:
    """How similar the image is to a concept of a label: a cosine, averaged over the slices."""

    label: str
    concept: str
    similarity: float


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """The answer to a request.

    Attributes:
        request_id: that of the request.
        scores: one for each label, in the request's order; :attr:`ranked` sorts them.
        rule: how the labels were scored; ``temperature``, ``margin`` and ``aggregation`` go with it.
        label_set: the id of the labels' set.
        axis, slices: which slices were seen.
        curves: (slices, labels) float32: the score of each slice; NaN where there was nothing to see on it.
        looks: how the image was seen, in the report's form.
        checkpoint: which weights answered.
        device, precision: where and with what numbers.
        concepts: the similarities to the labels' concepts, where they were asked for.
        evidence: where something spoke for a label, where that was asked for.
        notes: what was cut short, left out or repeated.
        timings_s: seconds by stage: ``load``, ``text``, ``encode``, ``evidence``.
        counts: how often the model ran: ``images``, ``image_batches``, ``texts``, ``text_batches``.

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

    def __post_init__(self) -> None:
        if self.curves.shape != (len(self.slices), len(self.scores)):
            raise InputError(f"scores of {self.curves.shape} slices and labels do not fit what was classified")
        if not all(np.isfinite((one.score, one.spread)).all() for one in self.scores):
            raise InputError("a score is not a number")

    @property
    def ranked(self) -> tuple[LabelScore, ...]:
        """The labels, the highest score first; equal ones in the request's order."""
        return tuple(sorted(self.scores, key=lambda one: -one.score))

    @property
    def is_exclusive(self) -> bool:
        """True where the labels were scored against each other."""
        return self.rule in ("softmax", "concepts")

    @property
    def verdict(self) -> tuple[str, ...]:
        """The labels that stand out, the highest first; empty means "none of these"."""
        return tuple(one.name for one in self.ranked if one.stands_out)

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
            "verdict": list(self.verdict) or NONE_OF_THESE,
            "labels": [_score_document(one) for one in self.ranked],
            "axis": self.axis,
            "slices": list(self.slices),
            "curves": {
                one.name: [None if np.isnan(n) else round(float(n), 6) for n in self.curves[:, number]]
                for number, one in enumerate(self.scores)
            },
            "concepts": [
                {"label": one.label, "concept": one.concept, "similarity": round(one.similarity, 6)}
                for one in self.concepts
            ],
            "evidence": [
                {"label": one.label, "method": one.method, "slices": list(one.slices)} for one in self.evidence
            ],
            "notes": list(self.notes),
            "timings_s": {name: round(value, 3) for name, value in self.timings_s.items()},
            "counts": dict(self.counts),
        }


def _score_document(one: LabelScore) -> dict[str, Any]:
    numbers = {name: round(getattr(one, name), 6) for name in ("score", "spread", "low", "high", "margin")}
    return {"name": one.name, **numbers, "stands_out": one.stands_out}
