"""The interactive protocol as values: how models are compared, and the scores of steps, objects and models."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np

from ..catalog.model_cards import ModelCard
from ..errors import FoundationSegError, InputError
from ..requests.segmentation import Prediction

ProtocolName = Literal["box", "clicks", "box+clicks"]
# "none": the segment was perfect, and there was nothing to click on.
StepPrompt = Literal["box", "positive click", "negative click", "none"]
CHALLENGE_SEED = 42  # numpy.random.seed(42) before each click, in the challenge's CVPR25_iter_eval.py


@dataclass(frozen=True, slots=True)
class ProtocolSettings:
    """Settings that are the same for every model and every object.

    Attributes:
        protocol: the prompts: a box, clicks alone, or a box and clicks.
        clicks: how many; at least 1.
        nsd_tolerance_mm: as in :func:`~.simulated_prompts.surface_dice`.
        intensity: the policy, :mod:`FoundationSegLib.imaging.intensity`.
        seed: as in :func:`~.simulated_prompts.next_click`.
    """

    protocol: ProtocolName
    clicks: int = 5
    nsd_tolerance_mm: float = 2.0
    intensity: str = "auto"
    seed: int = CHALLENGE_SEED

    @property
    def has_box(self) -> bool:
        """True where a box comes first."""
        return self.protocol != "clicks"

    @property
    def click_steps(self) -> int:
        """Number of predictions of each object that follow a click."""
        return 0 if self.protocol == "box" else self.clicks

    @property
    def steps(self) -> int:
        """Number of predictions of each object."""
        return self.has_box + self.click_steps


def require_protocol(card: ModelCard, protocol: ProtocolName) -> None:
    """Make sure that a model understands the prompts of a protocol: boxes, or clicks of both polarities.

    Raises:
        InputError: it does not; the message names the protocol that it can be evaluated with, if there is one.
    """
    takes_boxes = "box" in card.prompts
    takes_clicks = "point" in card.prompts and "point" in card.negative
    if (takes_boxes or protocol == "clicks") and (takes_clicks or protocol == "box"):
        return
    if takes_boxes:
        raise InputError(f"{card.id} understands boxes, but no clicks for and against: use --protocol box")
    if takes_clicks:
        raise InputError(f"{card.id} understands clicks, but no boxes: use --protocol clicks")
    raise InputError(f"{card.id} understands neither boxes nor clicks for and against, and cannot be evaluated")


@dataclass(frozen=True, slots=True)
class ProtocolStep:
    """One answer of a model.

    Attributes:
        prompt: the prompt that was added to those of the steps before.
        dice, nsd: how well the answer agrees with the truth, 0..1; 0 for a step that failed.
        seconds: from the request to the answer, without the time for loading the model; None where nothing was asked,
            or the step failed.
        index_ijk: the voxel of a click.
        error: the error of a step that failed.
    """

    prompt: StepPrompt
    dice: float
    nsd: float
    seconds: float | None = None
    index_ijk: tuple[int, int, int] | None = None
    error: FoundationSegError | None = None


def area_of_clicks(values: Iterable[float]) -> float | None:
    """Return the area under a curve with one value for each click, by the trapezoid rule; None for fewer than two.

    Clicks are 1 apart, and nothing is divided by their number, as in the challenge: five clicks that are perfect give
    4. Its prediction from the box alone has no part in it, since the box is optional.
    """
    curve = list(values)
    return float(np.trapezoid(curve)) if len(curve) > 1 else None


@dataclass(frozen=True, slots=True)
class ObjectScores:
    """One object, step by step; at least one step.

    ``origin`` is None where no step was answered; ``load_s`` are the seconds that the model was being loaded meanwhile;
    ``notes`` are those of the answers, each once.
    """

    steps: tuple[ProtocolStep, ...]
    origin: Prediction | None
    load_s: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def dice_auc(self) -> float | None:
        """The area under the Dice of the clicks; None for fewer than two clicks."""
        return area_of_clicks(step.dice for step in self.steps if step.prompt != "box")

    @property
    def nsd_auc(self) -> float | None:
        """The area under the NSD of the clicks; None for fewer than two clicks."""
        return area_of_clicks(step.nsd for step in self.steps if step.prompt != "box")


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
    def origin(self) -> Prediction | None:
        """The checkpoint that answered; None where none did."""
        return next((scores.origin for scores in self.objects.values() if scores.origin is not None), None)

    @property
    def dice(self) -> tuple[float, ...]:
        """The Dice after each step, the mean of the objects."""
        return self._step_means(lambda step: step.dice)

    @property
    def nsd(self) -> tuple[float, ...]:
        """The NSD after each step, the mean of the objects."""
        return self._step_means(lambda step: step.nsd)

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
        """The errors of the steps that failed, in their order."""
        steps = (step for scores in self.objects.values() for step in scores.steps)
        return tuple(step.error for step in steps if step.error is not None)

    def _step_means(self, score: Callable[[ProtocolStep], float]) -> tuple[float, ...]:
        rows = ([score(step) for step in scores.steps] for scores in self.objects.values())
        return tuple(map(fmean, zip(*rows, strict=True)))


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return fmean(numbers) if numbers else None
