"""The steps of a segment: the only truth about it, in the order in which they were taken; and as JSON values.

A list of steps says what a model is asked now, and what its answer is put together with (:mod:`.plan`). Masks are named
by their keys in a :class:`~FoundationSegLib.imaging.masks.MaskTable`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from operator import attrgetter
from types import NoneType
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..catalog.model_cards import ModelCard
from ..codec import Format, from_document, frozen, to_document
from ..errors import InputError, PromptError
from ..imaging.geometry import EMPTY_BOX, Box, Vector, as_vector
from ..imaging.masks import MaskTable, mask_key
from ..prompts.kinds import (
    BoxPrompt,
    LassoPrompt,
    MaskPrompt,
    ObliquePlane,
    PointPrompt,
    Polarity,
    Prompt,
    ScribblePrompt,
)
from ..prompts.prompts_file import parse_prompts, prompt_to_document
from ..prompts.regions import AroundPrompt, InsideBox, Region, SliceRange
from ..requests.segmentation import Propagation

# Why the segment's present voxels became what later answers are put together with:
# it had voxels when the session began; somebody else changed it; another model goes on; a region limits what comes;
# slices were propagated; a neighbour took voxels of it.
SeedReason = Literal["start", "hand", "model", "region", "propagated", "neighbour"]


@frozen
class ModelChoice:
    """Choice of a model, and what the session needs to know of it.

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
        return ModelChoice(card.id, intensity, card.sees_volumes, "mask" in card.prompts, card.takes("mask"), region)


@frozen
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


@frozen
class PromptAdded:
    """A prompt was given; later steps name it by its key."""

    key: str
    prompt: Prompt


@frozen
class PromptRemoved:
    """A prompt was taken back."""

    key: str


@frozen
class PromptMoved:
    """A prompt was put elsewhere, or changed in any other way but its polarity."""

    key: str
    prompt: Prompt


@frozen
class PolarityChanged:
    """A prompt says the opposite now."""

    key: str
    polarity: Polarity


@frozen
class PropagateStep:
    """The answers of slices were carried on to others."""

    propagation: Propagation


@frozen
class RegionStep:
    """From here on changes are limited to a region; None: not any more."""

    region: Region | None


@frozen
class AcceptStep:
    """The last change was looked at and is right."""


@frozen
class RejectStep:
    """The last change was wrong: the ``steps`` steps before this one do not count."""

    steps: int


@frozen
class SettingsStep:
    """Another model answers from here on, or the same with other settings."""

    choice: ModelChoice


@frozen
class WithheldStep:
    """A part of the answer before was kept back by the overlap policy, a lock or a mask.

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


@frozen
class ActivePrompt:
    """A prompt that was given and not taken back.

    ``is_live``: nothing has become the seed since it was given or changed, so that its effect is computed and not
    part of the seed. The others are settled.
    """

    key: str
    prompt: Prompt
    is_live: bool = True


@frozen
class SegmentState:
    """The steps of a segment and what they come to: all that undo takes back beside the voxels.

    Attributes:
        steps: all of them, those that were rejected and the rejections included.
        seed: the key of the voxels that answers are put together with.
        ground: the key of those from before anything was propagated, which propagating again starts from.
        prompts: the prompts, in the order in which they were first given.
        vacated: settled prompts as they were before they were moved or taken back; what they said is to be redone.
        hand: keys of what was changed by hand.
        choice: which model answers.
        region: what changes are limited to.
        propagation: how the last answer was carried on; None where it was not.
        denied, retained: see :class:`WithheldStep`.
        reach: the box outside which the segment is its seed.
        provenance: where its voxels come from, by the names of :data:`~.segment_store.PROVENANCE`.
    """

    steps: Steps = ()
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
    reach: Box = EMPTY_BOX
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def live_prompts(self) -> tuple[Prompt, ...]:
        """The prompts whose effect is computed and not part of the seed."""
        live = []
        for active in self.prompts:
            if active.is_live:
                live.append(active.prompt)
        return tuple(live)

    @property
    def all_prompts(self) -> tuple[Prompt, ...]:
        """The prompts without their keys."""
        return tuple(map(attrgetter("prompt"), self.prompts))

    @property
    def mask_keys(self) -> tuple[str, ...]:
        """The keys of the masks that the segment is put together from, now or when its prompts are asked again.

        Masks that only older steps name are needed by nobody.
        """
        first = [step.mask for step in self.steps[:1] if isinstance(step, SeedStep)]
        prompts = [step.prompt for step in self.steps if isinstance(step, PromptAdded | PromptMoved)]
        drawn = [mask_key(prompt.voxels) for prompt in prompts if isinstance(prompt, MaskPrompt) and prompt.voxels]
        return (self.seed, self.ground, self.denied, self.retained, *self.hand, *first, *drawn)

    @property
    def is_computed(self) -> bool:
        """True where the segment is something else than its seed: there are answers in it."""
        return bool(self.vacated or self.propagation is not None or self.live_prompts)

    def after(self, *steps: Step) -> "SegmentState":
        """The state after more steps, none of them a rejection.

        Raises:
            InputError: a step names a prompt that is not there.
        """
        state = self
        for step in steps:
            state = replace(state, **_changes(state, step))
        return replace(state, steps=(*self.steps, *steps))


def state_of(steps: Sequence[Step]) -> SegmentState:
    """The state that a list of steps comes to; where the voxels come from and lie is not known then.

    Raises:
        InputError: a step names a prompt that is not there, or more are rejected than there are.
    """
    return replace(SegmentState().after(*effective(steps)), steps=tuple(steps))


def effective(steps: Sequence[Step]) -> list[Step]:
    """The steps without those that were rejected.

    Raises:
        InputError: more are rejected than there are.
    """
    kept: list[Step] = []
    for step in steps:
        if not isinstance(step, RejectStep):
            kept.append(step)
        elif not 0 < step.steps <= len(kept):
            raise InputError(f"{step.steps} steps cannot be rejected where there are {len(kept)}")
        else:
            del kept[-step.steps :]
    return kept


def _changes(state: SegmentState, step: Step) -> dict[str, Any]:
    """The fields of a state that a step changes, by name."""
    match step:
        case SeedStep():
            return {
                "seed": step.mask,
                "ground": state.ground if step.reason in ("hand", "propagated") else step.mask,
                "prompts": tuple(replace(active, is_live=False) for active in state.prompts),
                "vacated": (),
                "hand": (*state.hand, step.touched) if step.touched else state.hand,
                "propagation": None,
                "denied": "",
                "retained": "",
            }
        case PropagateStep():
            return {"propagation": step.propagation, "denied": "", "retained": ""}
        case RegionStep():
            return {"region": step.region}
        case SettingsStep():
            return {"choice": step.choice}
        case WithheldStep():
            return {"denied": step.denied, "retained": step.retained}
        case AcceptStep() | RejectStep():
            return {}
    changed: dict[str, Any] = {"denied": "", "retained": ""}
    keys = list(map(attrgetter("key"), state.prompts))
    if isinstance(step, PromptAdded):
        if step.key in keys:
            raise InputError(f"the segment has a prompt '{step.key}' already")
        return changed | {"prompts": (*state.prompts, ActivePrompt(step.key, step.prompt))}
    if step.key not in keys:
        raise InputError(f"the segment has no prompt '{step.key}': it was taken back, or belongs to another segment")
    index = keys.index(step.key)
    old, new = state.prompts[index], ()
    if isinstance(step, PromptMoved):
        new = (ActivePrompt(step.key, step.prompt),)
    elif isinstance(step, PolarityChanged):
        new = (ActivePrompt(step.key, replace(old.prompt, polarity=step.polarity)),)
    if not old.is_live:
        changed["vacated"] = (*state.vacated, old.prompt)
    return changed | {"prompts": (*state.prompts[:index], *new, *state.prompts[index + 1 :])}


def restated(steps: Sequence[Step], choice: ModelChoice) -> Steps:
    """The same prompts, as they stand, asked anew of a model: without seeds but the first, and without limits."""
    again: list[Step] = [step for step in steps[:1] if isinstance(step, SeedStep) and step.reason == "start"]
    again.append(SettingsStep(choice))
    again += [PromptAdded(active.key, active.prompt) for active in state_of(steps).prompts]
    propagated = [step for step in effective(steps) if isinstance(step, PropagateStep)]
    return tuple(again + propagated[-1:])


_PlacedT = TypeVar("_PlacedT", PointPrompt, BoxPrompt, ScribblePrompt, LassoPrompt)


def transformed_prompt(prompt: Prompt, matrix: NDArray[np.float64]) -> Prompt:
    """The prompt with its positions moved by a (4, 4) matrix in RAS mm; masks and words have none."""
    match prompt:
        case PointPrompt():
            return _with_plane(replace(prompt, position=_moved(prompt.position, matrix)), matrix)
        case BoxPrompt(corners=(first, second)):
            return _with_plane(replace(prompt, corners=(_moved(first, matrix), _moved(second, matrix))), matrix)
        case ScribblePrompt() | LassoPrompt():
            moved = replace(prompt, points=tuple(_moved(point, matrix) for point in prompt.points))
            if isinstance(moved, ScribblePrompt) and moved.radius_mm is not None:
                scale = float(np.cbrt(abs(np.linalg.det(matrix[:3, :3]))))
                moved = replace(moved, radius_mm=moved.radius_mm * scale)
            return _with_plane(moved, matrix)
    return prompt


def transformed_steps(steps: Steps, matrix: NDArray[np.float64]) -> Steps:
    """The steps with their prompts moved by a (4, 4) matrix in RAS mm; seeds and regions are voxels and stay."""
    return tuple(
        replace(step, prompt=transformed_prompt(step.prompt, matrix))
        if isinstance(step, PromptAdded | PromptMoved)
        else step
        for step in steps
    )


def _with_plane(prompt: _PlacedT, matrix: NDArray[np.float64]) -> _PlacedT:
    plane = prompt.plane
    if not isinstance(plane, ObliquePlane):
        return prompt
    normal = np.linalg.inv(matrix[:3, :3]).T @ plane.normal
    up = as_vector(matrix[:3, :3] @ plane.up)
    return replace(prompt, plane=ObliquePlane(_moved(plane.origin, matrix), as_vector(normal), up))


def _moved(position: Vector, matrix: NDArray[np.float64]) -> Vector:
    return as_vector(matrix[:3, :3] @ position + matrix[:3, 3])


VERSION = 1
_FORMAT = Format(
    tags={
        SeedStep: ("step", "seed"),
        PromptAdded: ("step", "prompt-added"),
        PromptRemoved: ("step", "prompt-removed"),
        PromptMoved: ("step", "prompt-moved"),
        PolarityChanged: ("step", "polarity-changed"),
        PropagateStep: ("step", "propagate"),
        RegionStep: ("step", "region"),
        AcceptStep: ("step", "accept"),
        RejectStep: ("step", "reject"),
        SettingsStep: ("step", "settings"),
        WithheldStep: ("step", "withheld"),
        NoneType: ("kind", "none"),
        InsideBox: ("kind", "box"),
        SliceRange: ("kind", "slices"),
        AroundPrompt: ("kind", "around"),
    },
    flat={PropagateStep: "propagation", RegionStep: "region", SettingsStep: "choice", InsideBox: "box"},
    omitted=frozenset({(ModelChoice, "region")}),
)


def steps_to_document(steps: Sequence[Step], masks: MaskTable) -> dict[str, Any]:
    """The steps as JSON values, with the masks that they refer to; :func:`parse_steps` gives them back."""
    entries = [step_to_document(step, masks) for step in steps]
    keys = [key for entry in entries for key in mask_keys(entry)]
    return {"version": VERSION, "steps": entries, "masks": masks.to_document(keys)}


def parse_steps(document: object, masks: MaskTable) -> Steps:
    """The steps of a decoded JSON document; their masks go to the table.

    Raises:
        InputError: the document is damaged, or of another version.
        PromptError: a prompt in it is.
    """
    if not isinstance(document, Mapping) or document.get("version") != VERSION:
        raise InputError("these are no steps of this version of FoundationSeg")
    try:
        masks.take_document(document.get("masks", {}))
        return tuple(_parsed_step(entry, masks) for entry in document["steps"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the steps are damaged: {error}") from error


def mask_keys(entry: Mapping[str, Any]) -> list[str]:
    """The keys of the masks that a step refers to, as :func:`step_to_document` writes it."""
    keys = []
    for name in ("mask", "touched", "denied", "retained", "voxels"):
        if entry.get(name):
            keys.append(str(entry[name]))
    return keys


def step_to_document(step: Step, masks: MaskTable) -> dict[str, Any]:
    """One step as JSON values; the voxels of a prompt go to the table."""
    if isinstance(step, PromptAdded | PromptMoved):
        name = "prompt-added" if isinstance(step, PromptAdded) else "prompt-moved"
        return {"step": name, "key": step.key} | prompt_to_entry(step.prompt, masks)
    return to_document(step, Step, _FORMAT)


def prompt_to_entry(prompt: Prompt, masks: MaskTable) -> dict[str, Any]:
    """A prompt as JSON values; its voxels, if it has any, go to the table, and by their key into the entry."""
    document = prompt_to_document(prompt)
    if isinstance(prompt, MaskPrompt) and prompt.voxels is not None:
        return {"prompt": document, "voxels": masks.put(prompt.voxels)}
    return {"prompt": document}


def prompt_of_entry(entry: Mapping[str, Any], masks: MaskTable) -> Prompt:
    """The prompt of :func:`prompt_to_entry`.

    Raises:
        PromptError: it is damaged.
        InputError: its voxels are missing.
    """
    document = {"version": 1, "segments": [{"name": "-", "prompts": [entry["prompt"]]}]}
    prompt = parse_prompts(document).segments[0].prompts[0]
    if isinstance(prompt, MaskPrompt) and "voxels" in entry:
        return replace(prompt, voxels=masks.get(entry["voxels"]))
    return prompt


def _parsed_step(entry: Mapping[str, Any], masks: MaskTable) -> Step:
    kind = {"prompt-added": PromptAdded, "prompt-moved": PromptMoved}.get(entry["step"])
    if kind is None:
        return from_document(Step, entry, "the steps are damaged", _FORMAT)
    try:
        return kind(entry["key"], prompt_of_entry(entry, masks))
    except PromptError as error:
        raise PromptError(f"the prompt '{entry['key']}' is damaged: {error}") from error
