"""The steps of a segment: the only truth about it, in the order in which they were taken.

A list of steps says what a model is asked now, and what its answer is put together with (:mod:`.plan`). Masks are named
by their keys in a :class:`~.mask_table.MaskTable`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..catalog.model_cards import ModelCard
from ..errors import InputError
from ..imaging.geometry import Vector
from ..prompts.kinds import BoxPrompt, LassoPrompt, ObliquePlane, PointPrompt, Polarity, Prompt, ScribblePrompt
from ..prompts.regions import Region
from ..requests.segmentation import Propagation

# Why the segment's present voxels became what later answers are put together with:
# it had voxels when the session began; somebody else changed it; another model goes on; a region limits what comes;
# slices were propagated; a neighbour took voxels of it.
SeedReason = Literal["start", "hand", "model", "region", "propagated", "neighbour"]


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which model answers, and what the session needs to know of it.

    Attributes:
        model_id: its card.
        intensity: the policy.
        in_3d: it looks at the volume and not at slices; a prompt then speaks of the whole volume.
        sees_seed: it understands masks itself, and so is shown the voxels that are there already.
        takes_masks: masks can be given to it, be it translated; slices drawn by hand then start propagation.
        region: what it sees of the image; outside, a segment stays as it is. None for all of it.
    """

    model_id: str
    intensity: str = "auto"
    in_3d: bool = False
    sees_seed: bool = False
    takes_masks: bool = False
    region: Region | None = None

    @staticmethod
    def of(card: ModelCard, intensity: str = "auto", region: Region | None = None) -> "ModelChoice":
        """The choice of a model by its card."""
        return ModelChoice(card.id, intensity, card.sees_volumes, card.understands("mask"), card.takes("mask"), region)


@dataclass(frozen=True, slots=True)
class SeedStep:
    """The segment as it stands is what counts from here; prompts before this are settled.

    Attributes:
        mask: the key of its voxels.
        reason: why.
        touched: the key of the voxels that were changed by hand, where that was the reason.
    """

    mask: str
    reason: SeedReason
    touched: str = ""


@dataclass(frozen=True, slots=True)
class PromptAdded:
    """A prompt was given; later steps name it by its key."""

    key: str
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class PromptRemoved:
    """A prompt was taken back."""

    key: str


@dataclass(frozen=True, slots=True)
class PromptMoved:
    """A prompt was put elsewhere, or changed in any other way but its polarity."""

    key: str
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class PolarityChanged:
    """A prompt says the opposite now."""

    key: str
    polarity: Polarity


@dataclass(frozen=True, slots=True)
class PropagateStep:
    """What was found on slices was carried on to others."""

    propagation: Propagation


@dataclass(frozen=True, slots=True)
class RegionStep:
    """From here on changes are limited to a region; None: not any more."""

    region: Region | None


@dataclass(frozen=True, slots=True)
class AcceptStep:
    """The last change was looked at and is right."""


@dataclass(frozen=True, slots=True)
class RejectStep:
    """The last change was wrong: the ``steps`` steps before this one do not count."""

    steps: int


@dataclass(frozen=True, slots=True)
class SettingsStep:
    """Which model answers from here on, with which settings."""

    choice: ModelChoice


@dataclass(frozen=True, slots=True)
class WithheldStep:
    """What the overlap policy, a lock or a mask kept back when the answer before was written.

    Attributes:
        denied: the key of the voxels that the segment did not get.
        retained: the key of the voxels that it did not lose.
    """

    denied: str
    retained: str


Step = (
    SeedStep
    | PromptAdded
    | PromptRemoved
    | PromptMoved
    | PolarityChanged
    | PropagateStep
    | RegionStep
    | AcceptStep
    | RejectStep
    | SettingsStep
    | WithheldStep
)
Steps = tuple[Step, ...]
PROMPT_STEPS = (PromptAdded, PromptRemoved, PromptMoved, PolarityChanged)


@dataclass(frozen=True, slots=True)
class ActivePrompt:
    """A prompt that was given and not taken back.

    ``is_live``: nothing has become the seed since it was given or changed, so that its effect is computed and not
    part of the seed. The others are settled.
    """

    key: str
    prompt: Prompt
    is_live: bool = True


@dataclass(frozen=True, slots=True)
class SegmentState:
    """What a list of steps comes to.

    Attributes:
        seed: the key of the voxels that answers are put together with.
        ground: the key of those from before anything was propagated, which propagating again starts from.
        prompts: the prompts, in the order in which they were first given.
        vacated: settled prompts as they were before they were moved or taken back; what they said is to be redone.
        hand: keys of what was changed by hand.
        choice: which model answers.
        region: what changes are limited to.
        propagation: how the last answer was carried on; None where it was not.
        denied, retained: see :class:`WithheldStep`.
    """

    seed: str = ""
    ground: str = ""
    prompts: tuple[ActivePrompt, ...] = ()
    vacated: tuple[Prompt, ...] = ()
    hand: tuple[str, ...] = ()
    choice: ModelChoice | None = None
    region: Region | None = None
    propagation: Propagation | None = None
    denied: str = ""
    retained: str = ""

    @property
    def is_computed(self) -> bool:
        """True where the segment is something else than its seed: there are answers in it."""
        return bool(self.vacated) or self.propagation is not None or any(held.is_live for held in self.prompts)

    def held(self, key: str) -> ActivePrompt:
        """The prompt of that key.

        Raises:
            InputError: there is none (any more).
        """
        for held in self.prompts:
            if held.key == key:
                return held
        raise InputError(f"the segment has no prompt '{key}': it was taken back, or belongs to another segment")


def state_of(steps: Sequence[Step]) -> SegmentState:
    """What a list of steps comes to.

    Raises:
        InputError: a step names a prompt that is not there.
    """
    return going_on(SegmentState(), effective(steps))


def going_on(now: SegmentState, steps: Sequence[Step]) -> SegmentState:
    """Where more steps lead, none of them a rejection.

    Raises:
        InputError: a step names a prompt that is not there.
    """
    for step in steps:
        now = _after(now, step)
    return now


def effective(steps: Sequence[Step]) -> list[Step]:
    """The steps without those that were rejected.

    Raises:
        InputError: more are rejected than there are.
    """
    found: list[Step] = []
    for step in steps:
        if not isinstance(step, RejectStep):
            found.append(step)
        elif not 0 < step.steps <= len(found):
            raise InputError(f"{step.steps} steps cannot be rejected where there are {len(found)}")
        else:
            del found[-step.steps :]
    return found


def _after(now: SegmentState, step: Step) -> SegmentState:
    if isinstance(step, SeedStep):
        return _seeded(now, step)
    if isinstance(step, PropagateStep):
        return replace(now, propagation=step.propagation, denied="", retained="")
    if isinstance(step, RegionStep):
        return replace(now, region=step.region)
    if isinstance(step, SettingsStep):
        return replace(now, choice=step.choice)
    if isinstance(step, WithheldStep):
        return replace(now, denied=step.denied, retained=step.retained)
    if isinstance(step, AcceptStep | RejectStep):
        return now
    return _prompted(replace(now, denied="", retained=""), step)


def _seeded(now: SegmentState, step: SeedStep) -> SegmentState:
    keeps_ground = step.reason in ("hand", "propagated")
    return replace(
        now,
        seed=step.mask,
        ground=now.ground if keeps_ground else step.mask,
        prompts=tuple(replace(held, is_live=False) for held in now.prompts),
        vacated=(),
        hand=(*now.hand, step.touched) if step.touched else now.hand,
        propagation=None,
        denied="",
        retained="",
    )


def _prompted(now: SegmentState, step: PromptAdded | PromptRemoved | PromptMoved | PolarityChanged) -> SegmentState:
    if isinstance(step, PromptAdded):
        if any(held.key == step.key for held in now.prompts):
            raise InputError(f"the segment has a prompt '{step.key}' already")
        return replace(now, prompts=(*now.prompts, ActivePrompt(step.key, step.prompt)))
    old = now.held(step.key)
    vacated = now.vacated if old.is_live else (*now.vacated, old.prompt)
    if isinstance(step, PromptRemoved):
        left = tuple(held for held in now.prompts if held.key != step.key)
        return replace(now, prompts=left, vacated=vacated)
    if isinstance(step, PromptMoved):
        prompt = step.prompt
    else:
        prompt = replace(old.prompt, polarity=step.polarity)
    changed = tuple(ActivePrompt(held.key, prompt) if held.key == step.key else held for held in now.prompts)
    return replace(now, prompts=changed, vacated=vacated)


def restated(steps: Sequence[Step], choice: ModelChoice) -> Steps:
    """The same prompts, as they stand, asked anew of a model: without seeds but the first, and without limits."""
    found: list[Step] = [step for step in steps[:1] if isinstance(step, SeedStep) and step.reason == "start"]
    found.append(SettingsStep(choice))
    found += [PromptAdded(held.key, held.prompt) for held in state_of(steps).prompts]
    propagated = [step for step in effective(steps) if isinstance(step, PropagateStep)]
    return tuple(found + propagated[-1:])


_PlacedT = TypeVar("_PlacedT", PointPrompt, BoxPrompt, ScribblePrompt, LassoPrompt)


def transformed_prompt(prompt: Prompt, matrix: NDArray[np.float64]) -> Prompt:
    """The prompt with its positions moved by a (4, 4) matrix in RAS mm; masks and words have none."""
    match prompt:
        case PointPrompt():
            return _with_plane(replace(prompt, position=_point(prompt.position, matrix)), matrix)
        case BoxPrompt(corners=(first, second)):
            corners = _point(first, matrix), _point(second, matrix)
            return _with_plane(replace(prompt, corners=corners), matrix)
        case ScribblePrompt() | LassoPrompt():
            moved = replace(prompt, points=tuple(_point(point, matrix) for point in prompt.points))
            if isinstance(moved, ScribblePrompt) and moved.radius_mm is not None:
                scale = float(np.cbrt(abs(np.linalg.det(matrix[:3, :3]))))
                moved = replace(moved, radius_mm=moved.radius_mm * scale)
            return _with_plane(moved, matrix)
    return prompt


def transformed_steps(steps: Steps, matrix: NDArray[np.float64]) -> Steps:
    """The steps with their prompts moved by a (4, 4) matrix in RAS mm; seeds and regions are voxels and stay."""

    def transformed(step: Step) -> Step:
        has_prompt = isinstance(step, PromptAdded | PromptMoved)
        return replace(step, prompt=transformed_prompt(step.prompt, matrix)) if has_prompt else step

    return tuple(transformed(step) for step in steps)


def _with_plane(prompt: _PlacedT, matrix: NDArray[np.float64]) -> _PlacedT:
    plane = prompt.plane
    if not isinstance(plane, ObliquePlane):
        return prompt
    normal = np.linalg.inv(matrix[:3, :3]).T @ plane.normal
    up = matrix[:3, :3] @ plane.up
    return replace(prompt, plane=ObliquePlane(_point(plane.origin, matrix), _vector(normal), _vector(up)))


def _point(position: Vector, matrix: NDArray[np.float64]) -> Vector:
    return _vector(matrix[:3, :3] @ position + matrix[:3, 3])


def _vector(values: NDArray[np.float64]) -> Vector:
    x, y, z = values.tolist()
    return x, y, z
