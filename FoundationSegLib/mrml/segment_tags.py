"""Segment tags: provenance, DICOM's algorithm, lock, and the record of a segment's prompts and steps."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field, replace
from operator import attrgetter
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from ..codec import frozen, mutable
from ..errors import FoundationSegError, GeometryError, InputError, PromptError
from ..imaging.geometry import Box, Geometry
from ..imaging.masks import MaskTable
from ..prompts.kinds import Prompt
from ..session import steps as session_steps
from ..session.segment_store import PROVENANCE
from ..session.tracking import Memo

PREFIX = "FoundationSeg."
# Slicer's DICOM SEG export takes both from the segment's tags, and writes MANUAL without them.
ALGORITHM_TYPE, ALGORITHM_NAME = "DICOM.SegmentAlgorithmType", "DICOM.SegmentAlgorithmName"
_LONGEST_NAME = 64  # characters of a DICOM long string (LO)
_WITHOUT_HAND = {"text", "class"}  # kinds of prompts that nobody places on the image
_LOCKED = "Locked"
GROUP_TAG = PREFIX + "Group"

# Printable characters that survive Slicer's joining and the NRRD header, which gives the backslash a meaning.
_SAFE = " !\"#$&'()*+,/:;<=>?@[]^`{}~"


def write_tag(segment: Any, name: str, value: str) -> None:
    """Set one tag of a `vtkSegment`; ``name`` is taken as it is, the value may be any text."""
    segment.SetTag(name, quote(value, safe=_SAFE))


def read_tag(segment: Any, name: str) -> str | None:
    """The text that :func:`write_tag` wrote, or None."""
    text = vtk.reference("")
    return unquote(str(text)) if segment.GetTag(name, text) else None


def raw_tag(segment: Any, name: str) -> str:
    """A tag as Slicer keeps it, empty where there is none: to tell whether somebody changed it."""
    text = vtk.reference("")
    segment.GetTag(name, text)
    return str(text)


@contextmanager
def tagged_at_once(segment: Any) -> Iterator[Any]:
    """Yield a draft of a segment's name, colour and tags; what was written there becomes one event of the segment.

    Events that `NodeModify` holds back lose the segment's id. Slicer then complains of each prompt in the hierarchy.
    """
    draft = slicer.vtkSegment()
    draft.DeepCopyMetadata(segment)
    before = draft.GetMTime()
    yield draft
    if draft.GetMTime() != before:
        segment.DeepCopyMetadata(draft)
        segment.Modified()


@contextmanager
def unnoticed(segmentation: Any) -> Iterator[None]:
    """Keep from a segmentation's observers that segments are modified, while only tags are written.

    Slicer's undo, one of them, could redo nothing any more.
    """

    def stop(*_: Any) -> None:
        segmentation.GetCommand(tag).SetAbortFlag(1)

    tag = segmentation.AddObserver(slicer.vtkSegmentation.SegmentModified, stop, 10.0)
    try:
        yield
    finally:
        segmentation.RemoveObserver(tag)


def set_provenance(segment: Any, origin: Mapping[str, str]) -> None:
    """Write where a segment came from, and what its export to DICOM needs: algorithm and terminology.

    Args:
        segment: a `vtkSegment`.
        origin: keys out of :data:`PROVENANCE`; those left out are removed.

    Raises:
        InputError: a key is not known; nothing is written then.
    """
    unknown = sorted(set(origin) - set(PROVENANCE))
    if unknown:
        raise InputError(f"no such provenance: {', '.join(unknown)}; known are {', '.join(PROVENANCE)}")
    before = provenance(segment)
    if before == origin:
        return
    algorithm = _algorithm(origin)
    for name in (ALGORITHM_TYPE, ALGORITHM_NAME):
        present = read_tag(segment, name)
        if name in algorithm and present != algorithm[name]:
            write_tag(segment, name, algorithm[name])
        elif name not in algorithm and present == _algorithm(before).get(name):  # others' tags stay where ours go
            segment.RemoveTag(name)
    for key in PROVENANCE:
        if key not in origin:
            segment.RemoveTag(PREFIX + key)
        elif origin[key] != before.get(key):  # each tag that is set makes observers look
            write_tag(segment, PREFIX + key, origin[key])
    if not segment.GetTerminology():
        segment.SetTerminology(slicer.vtkSegment().GetTerminology())


def _algorithm(origin: Mapping[str, str]) -> dict[str, str]:
    """The DICOM tags of a segment that a model made: how far by itself, and its name, revision and software."""
    if not origin.get("Model"):
        return {}
    version = f"(FoundationSeg {origin['Version']})" if origin.get("Version") else ""
    name = " ".join(filter(None, (origin["Model"], origin.get("Revision", "")[:12], version)))
    return {
        ALGORITHM_TYPE: "AUTOMATIC" if _is_without_hand(origin.get("Prompts", "")) else "SEMIAUTOMATIC",
        ALGORITHM_NAME: name.replace("\\", "/")[:_LONGEST_NAME],
    }


def _is_without_hand(text: str) -> bool:
    """True where nobody placed a prompt of a list or a prompts file on the image; other documents have no prompts."""
    try:
        document = json.loads(text or "[]")
    except ValueError:
        return False
    segments = [{"prompts": document}] if isinstance(document, list) else document.get("segments", ())
    for segment in segments:
        for prompt in segment["prompts"]:
            if prompt["type"] not in _WITHOUT_HAND:
                return False
    return True


def provenance(segment: Any) -> dict[str, str]:
    """The provenance of a segment by :data:`PROVENANCE`; empty for one that FoundationSeg did not make."""
    origin = {}
    for key in PROVENANCE:
        value = read_tag(segment, PREFIX + key)
        if value is not None:
            origin[key] = value
    return origin


def lock(segment: Any, locked: bool = True) -> None:
    """Keep a segment from being written, or allow it again. Slicer itself knows no lock and minds none."""
    if locked:
        write_tag(segment, PREFIX + _LOCKED, "1")
    else:
        segment.RemoveTag(PREFIX + _LOCKED)


def set_group(segment: Any, name: str) -> None:
    """Put a segment into a group, or with an empty name into none."""
    if name:
        write_tag(segment, GROUP_TAG, name)
    else:
        segment.RemoveTag(GROUP_TAG)


def group(segment: Any) -> str:
    """The name of the group that a segment belongs to; empty for none."""
    return read_tag(segment, GROUP_TAG) or ""


def is_locked(segment: Any) -> bool:
    """True for a segment that was locked."""
    return read_tag(segment, PREFIX + _LOCKED) == "1"


RECORD_TAG = PREFIX + "PromptRecord"
MASK_TAG = PREFIX + "Mask."  # and the key of the mask
UNREAD_TAG = PREFIX + "UnreadPromptRecord"  # and a number from the second one on
_VERSION = 1
_GRID = "grid"


@frozen
class KeptPrompt:
    """A prompt and its key: any text that is given once in a segment, and stays when the prompt is moved."""

    key: str
    prompt: Prompt


@frozen
class PromptRecord:
    """The prompts of a segment, RAS in mm, in the order in which they were given.

    Attributes:
        prompts: each key once.
        model: the id of the model that answers them; empty if none did yet.
        settings: whatever JSON can hold.
        steps: the steps of a session as JSON text; empty if there are none.
        masks: what the steps refer to: JSON texts (:meth:`.MaskTable.to_document`) by key.

    Raises:
        PromptError: a key is there twice.
    """

    prompts: tuple[KeptPrompt, ...] = ()
    model: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: str = ""
    masks: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len({*map(attrgetter("key"), self.prompts)}) < len(self.prompts):
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


def grid_setting(geometry: Geometry) -> dict[str, Any]:
    """The setting of a record that says in which image's RAS and voxels its prompts and steps are."""
    return {_GRID: {"ijk_to_ras": geometry.ijk_to_ras.tolist(), "shape_kji": list(geometry.shape_kji)}}


def recorded_geometry(record: PromptRecord) -> Geometry | None:
    """The grid of the image for which a record was written; None where it does not say."""
    grid = record.settings.get(_GRID)
    try:
        return Geometry(np.array(grid["ijk_to_ras"], np.float64), tuple(grid["shape_kji"]))
    except (GeometryError, TypeError, KeyError, ValueError):
        return None


def transformed_record(record: PromptRecord, matrix: NDArray[np.float64], geometry: Geometry) -> PromptRecord:
    """The record with prompts and steps moved by a (4, 4) matrix in RAS mm, which leads to the image's new grid.

    Steps that cannot be read stay as they are.
    """
    moved_prompt = session_steps.transformed_prompt
    prompts = tuple(KeptPrompt(kept.key, moved_prompt(kept.prompt, matrix)) for kept in record.prompts)
    steps, settings = record.steps, record.settings
    if steps:
        try:
            document, masks = json.loads(steps), MaskTable(geometry.box)
            texts = {key: json.loads(text) for key, text in record.masks.items()}
            parsed = session_steps.parse_steps({**document, "masks": texts}, masks)
            moved = session_steps.transformed_steps(parsed, matrix)
            steps = to_text({**document, "steps": [session_steps.step_to_document(step, masks) for step in moved]})
            settings = {**settings, **grid_setting(geometry)}
        except (FoundationSegError, ValueError):
            pass
    return replace(record, prompts=prompts, steps=steps, settings=settings)


def to_text(document: object) -> str:
    """JSON values as they are written in tags: :func:`json.loads` and this again give the same text."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _prompt_text(kept: KeptPrompt) -> tuple[str, dict[str, str]]:
    """A prompt as JSON text, and the voxels that it comes with, as JSON texts by key."""
    masks = MaskTable()
    entry = {"key": kept.key} | session_steps.prompt_to_entry(kept.prompt, masks)
    voxels = masks.to_document([entry["voxels"]]) if "voxels" in entry else {}
    return to_text(entry), {key: to_text(mask) for key, mask in voxels.items()} if voxels else {}


@mutable
class RecordTags:
    """Reads and writes the records of one segment; what did not change since the last time is not worked out again.

    A record that cannot be read, because it is damaged or of a later version, is not lost: the next one that is written
    sets it aside, in a tag of its own (:data:`UNREAD_TAG`).

    Attributes:
        within: as of a :class:`MaskTable`.
    """

    within: Box | None = None
    _prompts: Memo[KeptPrompt, tuple[str, dict[str, str]]] = field(default_factory=lambda: Memo(_prompt_text))
    _masks: frozenset[str] = frozenset()
    _is_unread: bool = False

    def read(self, segment: Any) -> PromptRecord:
        """The record that a `vtkSegment` keeps; an empty one where there is none.

        Raises:
            PromptError: it is damaged, or of a later version.
        """
        self._masks, self._is_unread = frozenset(), False
        text = record_text(segment)
        if text is None:
            return PromptRecord()
        try:
            record, self._masks = _parsed(text, segment, self.within)
        except PromptError:
            self._is_unread = True
            raise
        return record

    def set_aside(self) -> None:
        """Keep what is there beside the next record: somebody could not use it."""
        self._masks, self._is_unread = frozenset(), True

    def write(self, segment: Any, record: PromptRecord) -> None:
        """Keep a record in a `vtkSegment`; an empty one without model and settings leaves no trace."""
        if self._is_unread:
            _set_aside(segment)
        masks, texts = dict(record.masks), []
        for text, voxels in self._prompts.of(record.prompts):
            texts.append(text)
            masks.update(voxels)
        for key, text in masks.items():
            if not segment.HasTag(MASK_TAG + key):
                write_tag(segment, MASK_TAG + key, text)
        if record == PromptRecord():
            segment.RemoveTag(RECORD_TAG)
        else:
            head = f'"version":{_VERSION},"model":{to_text(record.model)},"settings":{to_text(record.settings)}'
            steps = f',"steps":{record.steps}' if record.steps else ""
            write_tag(segment, RECORD_TAG, f'{{{head}{steps},"prompts":[{",".join(texts)}]}}')
        for key in self._masks - masks.keys():
            segment.RemoveTag(MASK_TAG + key)
        self._masks, self._is_unread = frozenset(masks), False


def read_record(segment: Any) -> PromptRecord:
    """Read the record of a segment once. Raises as :meth:`RecordTags.read`."""
    return RecordTags().read(segment)


def record_text(segment: Any) -> str | None:
    """The record as it is kept, unread."""
    return read_tag(segment, RECORD_TAG)


def _parsed(text: str, segment: Any, within: Box | None) -> tuple[PromptRecord, frozenset[str]]:
    """The record of a text, and the keys of the masks that belong to it."""
    try:
        document = json.loads(text)
        if document["version"] != _VERSION:
            raise PromptError("the segment's prompts were kept by a later version: update FoundationSeg to use them")
        masks = MaskTable(within)
        voxels = [entry["voxels"] for entry in document["prompts"] if "voxels" in entry]
        masks.take_document({key: json.loads(mask) for key, mask in _mask_texts(segment, voxels).items()})
        prompt_of = session_steps.prompt_of_entry
        kept = (KeptPrompt(str(entry["key"]), prompt_of(entry, masks)) for entry in document["prompts"])
        steps = document.get("steps")
        if not isinstance(steps, Mapping | None):
            raise TypeError("steps are an object")
        needed = _needed_masks(steps)
        record = PromptRecord(
            tuple(kept),
            str(document["model"]),
            dict(document["settings"]),
            "" if steps is None else to_text(steps),
            _mask_texts(segment, needed),
        )
    except PromptError:
        raise
    except (FoundationSegError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise PromptError("the prompts kept in the segment are damaged") from error
    return record, frozenset((*voxels, *needed))


def _needed_masks(steps: Mapping[str, Any] | None) -> list[str]:
    """The keys of the masks that steps refer to; none where these are no steps that this version knows."""
    entries = steps.get("steps") if steps is not None else None
    if not isinstance(entries, list):
        return []
    return [key for entry in entries if isinstance(entry, Mapping) for key in session_steps.mask_keys(entry)]


def _mask_texts(segment: Any, keys: Iterable[str]) -> dict[str, str]:
    """The masks of those keys that are there."""
    texts = {key: read_tag(segment, MASK_TAG + key) for key in keys}
    return {key: text for key, text in texts.items() if text is not None}


def _set_aside(segment: Any) -> None:
    text, number = record_text(segment), 1
    if text is None:
        return
    while segment.HasTag(name := UNREAD_TAG + (f".{number}" if number > 1 else "")):
        if read_tag(segment, name) == text:
            return
        number += 1
    write_tag(segment, name, text)


def set_completed(segment: Any, is_completed: bool) -> None:
    """Set the status that Slicer's tables show: completed, or in progress."""
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    status = logic.Completed if is_completed else logic.InProgress
    if logic.GetSegmentStatus(segment) != status:
        logic.SetSegmentStatus(segment, status)


def is_completed(segment: Any) -> bool:
    """True for a segment whose status in Slicer's tables is completed."""
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    return bool(logic.GetSegmentStatus(segment) == logic.Completed)
