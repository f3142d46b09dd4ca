"""What an evaluation found: steps, curves, objects and models, and the means over them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from ..core.errors import FoundationSegError
from ..core.requests import CheckpointRecord
from .metrics import area_under_curve

# "none": the segment was perfect, and there was nothing to click on.
PromptGiven = Literal["box", "positive click", "negative click", "none"]


@dataclass(frozen=True, slots=True)
class Step:
    """One answer of a model.

    Attributes:
        prompt: what was given in addition to the prompts of the steps before.
        index_ijk: the voxel of a click.
        dice, nsd: how well the answer agrees with the truth, 0..1; 0 for a step that failed.
        seconds: from the request to the answer, without the time for loading the model; None where nothing was asked,
            or the step failed.
        error: what it failed with.
    """

    prompt: PromptGiven
    dice: float
    nsd: float
    seconds: float | None = None
    index_ijk: tuple[int, int, int] | None = None
    error: FoundationSegError | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Which weights answered, where, with what numbers, and from which intensities (in the report's form)."""

    checkpoint: CheckpointRecord
    device: str
    precision: str
    intensity: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ObjectScores:
    """One object, step by step; at least one step.

    ``origin`` is None where no step was answered; ``load_s`` are the seconds that the model was being loaded meanwhile;
    ``notes`` are those of the answers, each once.
    """

    steps: tuple[Step, ...]
    origin: Origin | None
    load_s: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def dice_auc(self) -> float | None:
        """The area under the Dice of the clicks; None for fewer than two clicks."""
        return area_under_curve([step.dice for step in self.steps if step.prompt != "box"])

    @property
    def nsd_auc(self) -> float | None:
        """The area under the NSD of the clicks; None for fewer than two clicks."""
        return area_under_curve([step.nsd for step in self.steps if step.prompt != "box"])


@dataclass(frozen=True, slots=True)
class ModelScores:
    """One model on all objects: its scores by label, or the error that it could not be evaluated for.

    ``peak_memory_mb`` is the most main memory that the process with the model has taken; None where that is unknown.
    """

    model_id: str
    objects: Mapping[int, ObjectScores]
    peak_memory_mb: float | None = None
    error: FoundationSegError | None = None

    @property
    def origin(self) -> Origin | None:
        """Which weights answered; None where none did."""
        return next((scores.origin for scores in self.objects.values() if scores.origin is not None), None)

    @property
    def dice(self) -> tuple[float, ...]:
        """The Dice after each step, the mean of the objects."""
        return _means([step.dice for step in scores.steps] for scores in self.objects.values())

    @property
    def nsd(self) -> tuple[float, ...]:
        """The NSD after each step, the mean of the objects."""
        return _means([step.nsd for step in scores.steps] for scores in self.objects.values())

    @property
    def dice_auc(self) -> float | None:
        """The area under the Dice of the clicks, the mean of the objects."""
        return _mean(scores.dice_auc for scores in self.objects.values())

    @property
    def nsd_auc(self) -> float | None:
        """The area under the NSD of the clicks, the mean of the objects."""
        return _mean(scores.nsd_auc for scores in self.objects.values())

    @property
    def seconds(self) -> float | None:
        """The time of an answer, the mean of all that came."""
        return _mean(step.seconds for scores in self.objects.values() for step in scores.steps)

    @property
    def load_s(self) -> float:
        """The time for loading the model, downloads included."""
        return sum(scores.load_s for scores in self.objects.values())

    @property
    def errors(self) -> tuple[FoundationSegError, ...]:
        """What steps failed with, in their order."""
        steps = (step for scores in self.objects.values() for step in scores.steps)
        return tuple(step.error for step in steps if step.error is not None)


def _means(rows: Iterable[Iterable[float]]) -> tuple[float, ...]:
    return tuple(fmean(column) for column in zip(*rows, strict=True))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
