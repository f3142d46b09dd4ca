"""Steps as JSON values and back. Masks are named by their keys; :class:`~.mask_table.MaskTable` has them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ..errors import InputError, PromptError
from ..imaging.geometry import Box
from ..imaging.masks import MaskTable
from ..prompts.kinds import MaskPrompt, Polarity, Prompt
from ..prompts.prompts_file import parse_prompts, prompt_to_document
from ..prompts.regions import AroundPrompt, InsideBox, Region, SliceRange
from ..requests.segmentation import Propagation
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
        return tuple(_step(entry, masks) for entry in document["steps"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the steps are damaged: {error}") from error


def mask_keys(entry: Mapping[str, Any]) -> Iterator[str]:
    """The keys of the masks that a step refers to, as :func:`step_to_document` writes it; some may be empty."""
    return (str(entry[name]) for name in ("mask", "touched", "denied", "retained", "voxels") if name in entry)


def step_to_document(step: Step, masks: MaskTable) -> dict[str, Any]:
    """One step as JSON values; the voxels of a prompt go to the table."""
    entry: dict[str, Any] = {"step": _NAMES[type(step)]}
    if isinstance(step, PromptAdded | PromptMoved):
        return entry | {"key": step.key} | prompt_to_entry(step.prompt, masks)
    if isinstance(step, PropagateStep):
        return entry | asdict(step.propagation)
    if isinstance(step, RegionStep):
        return entry | _region_to_document(step.region)
    if isinstance(step, SettingsStep):
        plain = asdict(replace(step.choice, region=None))
        del plain["region"]
        seen = step.choice.region
        return entry | plain | ({} if seen is None else {"region": _region_to_document(seen)})
    if isinstance(step, PolarityChanged):
        return entry | {"key": step.key, "polarity": step.polarity.value}
    return entry | asdict(step)


def prompt_to_entry(prompt: Prompt, masks: MaskTable) -> dict[str, Any]:
    """A prompt as JSON values; its voxels, if it has any, go to the table, and by their key into the entry."""
    document = prompt_to_document(prompt)
    if isinstance(prompt, MaskPrompt) and prompt.voxels is not None:
        return {"prompt": document, "voxels": masks.put(prompt.voxels)}
    return {"prompt": document}


def _region_to_document(region: Region | None) -> dict[str, Any]:
    if region is None:
        return {"kind": "none"}
    if isinstance(region, InsideBox):
        return {"kind": "box", "start_kji": region.box.start_kji, "stop_kji": region.box.stop_kji}
    return {"kind": "slices" if isinstance(region, SliceRange) else "around", **asdict(region)}


def _step(entry: Mapping[str, Any], masks: MaskTable) -> Step:
    fields = {name: value for name, value in entry.items() if name != "step"}
    return _READERS[entry["step"]](fields, masks)


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


def _prompt(fields: Mapping[str, Any], masks: MaskTable) -> tuple[str, Prompt]:
    try:
        return fields["key"], prompt_of_entry(fields, masks)
    except PromptError as error:
        raise PromptError(f"the prompt '{fields['key']}' is damaged: {error}") from error


def _region(fields: Mapping[str, Any]) -> Region | None:
    kind, values = fields["kind"], {name: value for name, value in fields.items() if name != "kind"}
    if kind == "none":
        return None
    if kind == "box":
        (k0, j0, i0), (k1, j1, i1) = values["start_kji"], values["stop_kji"]
        return InsideBox(Box((k0, j0, i0), (k1, j1, i1)))
    return SliceRange(**values) if kind == "slices" else AroundPrompt(**values)


def _choice(fields: Mapping[str, Any]) -> ModelChoice:
    seen = _region(fields["region"]) if "region" in fields else None
    return ModelChoice(**{**fields, "region": seen})


_READERS: dict[str, Callable[[Mapping[str, Any], MaskTable], Step]] = {
    "seed": lambda fields, _: SeedStep(**fields),
    "prompt-added": lambda fields, masks: PromptAdded(*_prompt(fields, masks)),
    "prompt-removed": lambda fields, _: PromptRemoved(**fields),
    "prompt-moved": lambda fields, masks: PromptMoved(*_prompt(fields, masks)),
    "polarity-changed": lambda fields, _: PolarityChanged(fields["key"], Polarity(fields["polarity"])),
    "propagate": lambda fields, _: PropagateStep(Propagation(**fields)),
    "region": lambda fields, _: RegionStep(_region(fields)),
    "accept": lambda fields, _: AcceptStep(**fields),
    "reject": lambda fields, _: RejectStep(**fields),
    "settings": lambda fields, _: SettingsStep(_choice(fields)),
    "withheld": lambda fields, _: WithheldStep(**fields),
}
