"""Steps as JSON values and back. Masks are named by their keys; a :class:`.MaskTable` has them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import NoneType
from typing import Any

from ..codec import Format, from_document, to_document
from ..errors import DocumentError, InputError, PromptError
from ..imaging.masks import MaskTable
from ..prompts.kinds import MaskPrompt, Prompt
from ..prompts.prompts_file import parse_prompts, prompt_to_document
from ..prompts.regions import AroundPrompt, InsideBox, SliceRange
from .steps import (
    AcceptStep,
    ModelChoice,
    PolarityChanged,
    PromptAdded,
    PromptMoved,
    PromptRemoved,
    PropagateStep,
    RegionStep,
    RejectStep,
    SeedStep,
    SettingsStep,
    Step,
    Steps,
    WithheldStep,
)

VERSION = 1
_NAMES: dict[type[Step], str] = {
    SeedStep: "seed",
    PromptAdded: "prompt-added",
    PromptRemoved: "prompt-removed",
    PromptMoved: "prompt-moved",
    PolarityChanged: "polarity-changed",
    PropagateStep: "propagate",
    RegionStep: "region",
    AcceptStep: "accept",
    RejectStep: "reject",
    SettingsStep: "settings",
    WithheldStep: "withheld",
}
_FORMAT = Format(
    tags={
        **{kind: ("step", name) for kind, name in _NAMES.items()},
        InsideBox: ("kind", "box"),
        SliceRange: ("kind", "slices"),
        AroundPrompt: ("kind", "around"),
        NoneType: ("kind", "none"),
    },
    flat={PropagateStep: "propagation", RegionStep: "region", SettingsStep: "choice", InsideBox: "box"},
    omitted=frozenset({(ModelChoice, "region")}),
)


def steps_to_document(steps: Sequence[Step], masks: MaskTable) -> dict[str, Any]:
    """The steps as JSON values, with the masks that they refer to; :func:`parse_steps` gives them back."""
    written = [step_to_document(step, masks) for step in steps]
    keys = [value for entry in written for value in mask_keys(entry)]
    return {"version": VERSION, "steps": written, "masks": masks.to_document(keys)}


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
        return tuple(_step(entry, masks, f"steps[{n}]") for n, entry in enumerate(document["steps"]))
    except (DocumentError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the steps are damaged: {error}") from error


def mask_keys(entry: Mapping[str, Any]) -> Iterator[str]:
    """The keys of the masks that a step refers to, as :func:`step_to_document` writes it; some may be empty."""
    return (str(entry[name]) for name in ("mask", "touched", "denied", "retained", "voxels") if name in entry)


def step_to_document(step: Step, masks: MaskTable) -> dict[str, Any]:
    """One step as JSON values; the voxels of a prompt go to the table."""
    if isinstance(step, PromptAdded | PromptMoved):
        return {"step": _NAMES[type(step)], "key": step.key, **prompt_to_entry(step.prompt, masks)}
    document: dict[str, Any] = to_document(step, Step, _FORMAT)
    return document


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


def _step(entry: Mapping[str, Any], masks: MaskTable, place: str) -> Step:
    kind = {"prompt-added": PromptAdded, "prompt-moved": PromptMoved}.get(entry["step"])
    if kind is None:
        return from_document(Step, entry, place, _FORMAT)
    try:
        return kind(entry["key"], prompt_of_entry(entry, masks))
    except PromptError as error:
        raise PromptError(f"the prompt '{entry['key']}' is damaged: {error}") from error
