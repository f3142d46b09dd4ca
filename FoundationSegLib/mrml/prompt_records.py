"""What a segment keeps of its prompts: all of them in order, with model and settings, as JSON in a segment tag.

This is the truth about the prompts in the scene; markups are its picture (:mod:`.scene_prompts`). It is a tag because
tags go where the segment goes: into `.mrb`, into a `.seg.nrrd` on its own, into another segmentation; and a segment
that is deleted takes its prompts along. Slicer reads and writes it without knowing what it is.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..core.errors import FoundationSegError, PromptError
from ..core.mask_table import MaskTable
from ..core.prompts import Prompt
from ..core.steps_document import prompt_of_entry, prompt_to_entry
from .segment_tags import PREFIX, read_tag, write_tag

RECORD_TAG = PREFIX + "PromptRecord"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class KeptPrompt:
    """A prompt and its key: any text that is given once in a segment, and stays when the prompt is moved."""

    key: str
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """The prompts of a segment, RAS in mm, in the order in which they were given.

    Attributes:
        prompts: each key once.
        model: the id of the model that answers them; empty if none did yet.
        settings: whatever JSON can hold.

    Raises:
        PromptError: a key is there twice.
    """

    prompts: tuple[KeptPrompt, ...] = ()
    model: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keys = [kept.key for kept in self.prompts]
        if len(set(keys)) < len(keys):
            raise PromptError("two prompts of a segment have the same key")

    def prompt(self, key: str) -> Prompt | None:
        """The prompt of a key, if there is one."""
        return next((kept.prompt for kept in self.prompts if kept.key == key), None)

    def changed(self, key: str, prompt: Prompt | None) -> "PromptRecord":
        """The same with another prompt under a key that is there; with none, without it."""
        if prompt is None:
            return replace(self, prompts=tuple(kept for kept in self.prompts if kept.key != key))
        changed = (KeptPrompt(key, prompt) if kept.key == key else kept for kept in self.prompts)
        return replace(self, prompts=tuple(changed))


def record_to_json(record: PromptRecord) -> str:
    """The record as text; :func:`record_from_json` gives it back bit for bit."""
    masks = MaskTable()
    entries = [{"key": kept.key} | prompt_to_entry(kept.prompt, masks) for kept in record.prompts]
    document = {"version": _VERSION, "model": record.model, "settings": dict(record.settings), "prompts": entries}
    keys = [entry["voxels"] for entry in entries if "voxels" in entry]
    if keys:
        document["masks"] = masks.to_document(keys)
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def record_from_json(text: str) -> PromptRecord:
    """The record of a text.

    Raises:
        PromptError: it is damaged, or of a later version.
    """
    try:
        document = json.loads(text)
        if document["version"] != _VERSION:
            raise PromptError("the segment's prompts were kept by a later version: update FoundationSeg to use them")
        masks = MaskTable()
        masks.take_document(document.get("masks", {}))
        kept = (KeptPrompt(str(entry["key"]), prompt_of_entry(entry, masks)) for entry in document["prompts"])
        return PromptRecord(tuple(kept), str(document["model"]), dict(document["settings"]))
    except PromptError:
        raise
    except (FoundationSegError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise PromptError("the prompts kept in the segment are damaged") from error


def read_record(segment: Any) -> PromptRecord:
    """The record that a `vtkSegment` keeps; an empty one where there is none.

    Raises:
        PromptError: it is damaged, or of a later version.
    """
    text = record_text(segment)
    return PromptRecord() if text is None else record_from_json(text)


def record_text(segment: Any) -> str | None:
    """The record as it is kept, unread; to tell whether somebody changed it."""
    return read_tag(segment, RECORD_TAG)


def write_record(segment: Any, record: PromptRecord) -> None:
    """Keep a record in a `vtkSegment`; an empty one without model and settings leaves no trace."""
    if record == PromptRecord():
        if segment.HasTag(RECORD_TAG):
            segment.RemoveTag(RECORD_TAG)
    else:
        write_tag(segment, RECORD_TAG, record_to_json(record))
