"""Recovery after a crash: the steps and the voxels of the segments, in one folder, restored onto the same image.

The folder holds no name, path or patient field of the image: it is found by the image's fingerprint.
"""

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from ..codec import from_document
from ..errors import InputError, OutputError, write_failure
from ..folders import Locked, locked
from ..imaging.masks import MaskTable, PackedMask
from ..prompts.kinds import MaskPrompt
from .segment_history import SegmentHistory
from .segment_store import NewSegment, Outcome, OverlapPolicy, SegmentEdited
from .session import Session
from .steps import PromptAdded, PromptMoved, SegmentState, Step, parse_steps, state_of, steps_to_document
from .tracking import TrackedSegment

VERSION = 1
_ENDING = ".recovery.json"


@dataclass(slots=True)
class RecoveryFile:
    """Keeps a session's steps and voxels in a file of its own, every few changes.

    While it is kept, a lock of the operating system says that the session lives: nobody takes it for lost
    (:func:`find_recoveries`).

    Attributes:
        session: what is kept.
        folder: where; made when first needed. Several sessions, of several processes, may share it.
        every: how many changes may be lost.
        more: what else is to be kept, as JSON values: no path, no name of the image, no patient.
        on_error: told once when the folder cannot be written, and again only after it could; None: it is raised.
        path: the file; None until something was written.
    """

    session: Session
    folder: Path
    every: int = 5
    more: Callable[[], Mapping[str, Any]] = dict
    on_error: Callable[[OutputError], None] | None = None
    path: Path | None = None
    _changes: int = 0
    _has_failed: bool = False
    _name: str = field(default_factory=lambda: secrets.token_hex(8))
    _segments: dict[str, "_Written"] = field(default_factory=dict)
    _alive: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def note(self, outcome: Outcome) -> None:
        """Take note of what happens in the session (``on_outcome``); writes when enough was done. Raises as `write`."""
        if isinstance(outcome, SegmentEdited):
            self._changes += 1
            if self._changes >= self.every:
                self.write()

    def write(self) -> None:
        """Write everything now; the file of before stays whole until this one is.

        Raises:
            OutputError: the folder cannot be written, and nobody listens to that.
        """
        self._changes = 0
        if self.session.is_gone:
            return
        try:
            self._write()
            self._has_failed = False
        except OutputError as error:
            if self.on_error is None:
                raise
            if not self._has_failed:
                self._has_failed = True
                self.on_error(error)

    def _write(self) -> None:
        path = self.folder / f"{self._name}{_ENDING}"
        temporary = path.with_suffix(".tmp")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path is None:
                self._alive.enter_context(locked(_lock_of(path)))
            with temporary.open("w", encoding="utf-8") as file:
                file.writelines(self._texts())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            if self.path is None:
                self._alive.close()
            raise OutputError(f"the recovery folder cannot be written: {write_failure(error)}") from error
        self.path = path

    def close(self) -> None:
        """Delete the file, and the folder if nothing else is in it: the session ended as it should."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        self._alive.close()
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        self.path = None

    def _texts(self) -> Iterator[str]:
        """The file's text. Of segments that did not change since the last time it is at hand."""
        session = self.session
        head = {"version": VERSION, "volume": session.volume.key, "time": time.time(), "more": dict(self.more())}
        yield f'{json.dumps(head)[:-1]}, "segments": {{'
        written: dict[str, _Written] = {}
        for key, segment in session.history.segments.items():
            if not segment.state.steps and not segment.voxels:
                continue  # made, and nothing done to it yet
            name, mask, before = session.segment_name(key), segment.mask(), self._segments.get(key)
            if before is None or not before.is_of(name, segment.state, mask):
                text = json.dumps(_segment_document(segment, name, session.history.masks))
                before = _Written(name, segment.state, mask, text)
            yield f"{', ' if written else ''}{json.dumps(key)}: {before.text}"
            written[key] = before
        self._segments = written
        yield "}}"


@dataclass(frozen=True, slots=True)
class _SegmentDocument:
    """A segment in the file: its voxels, and its steps with their masks as :func:`.steps.parse_steps` takes them."""

    name: str
    provenance: Mapping[str, str]
    mask: str
    voxels: Mapping[str, Any]
    version: int
    steps: Any
    masks: Mapping[str, Any]

    def parsed(self, masks: MaskTable) -> tuple[SegmentState, PackedMask]:
        """The state, whose masks go to the table, and the voxels of the segment."""
        present = MaskTable(masks.within)
        present.take_document(self.voxels)
        steps = parse_steps({"version": self.version, "steps": self.steps, "masks": self.masks}, masks)
        return replace(state_of(steps), provenance=self.provenance), present.get(self.mask)


@dataclass(frozen=True, slots=True)
class _Document:
    version: int
    volume: str
    time: float
    more: Mapping[str, Any]
    segments: Mapping[str, _SegmentDocument]


@dataclass(frozen=True, slots=True)
class _Written:
    """A segment as it was written last, as JSON text."""

    name: str
    state: SegmentState
    mask: PackedMask
    text: str

    def is_of(self, name: str, state: SegmentState, mask: PackedMask) -> bool:
        return name == self.name and state is self.state and mask is self.mask


def _segment_document(segment: TrackedSegment, name: str, masks: MaskTable) -> dict[str, Any]:
    steps = [_without_paths(step) for step in segment.state.steps]
    present = MaskTable()
    mask = present.put(segment.mask())
    head = {"name": name, "provenance": _provenance_without_paths(segment.state.provenance)}
    return head | {"mask": mask, "voxels": present.to_document([mask])} | steps_to_document(steps, masks)


def _without_paths(step: Step) -> Step:
    if isinstance(step, PromptAdded | PromptMoved) and isinstance(step.prompt, MaskPrompt):
        return replace(step, prompt=replace(step.prompt, file=_file_name(step.prompt.file)))
    return step


def _provenance_without_paths(provenance: Mapping[str, str]) -> dict[str, str]:
    if "Prompts" not in provenance:
        return dict(provenance)
    prompts = json.loads(provenance["Prompts"])
    for prompt in prompts:
        if "file" in prompt:
            prompt["file"] = _file_name(prompt["file"])
    return {**provenance, "Prompts": json.dumps(prompts)}


def _file_name(path: str) -> str:
    return PurePath(path).name or "mask"


@dataclass(frozen=True, slots=True)
class Recovery:
    """The work of a session that did not end as it should.

    Attributes:
        path: the file.
        volume_key: the image that it was about.
        saved: when it was written, in seconds since 1970.
        segments: the names of the segments by their ids.
        more: what else was kept (:attr:`RecoveryFile.more`).
    """

    path: Path
    volume_key: str
    saved: float
    segments: Mapping[str, str]
    more: Mapping[str, Any]


def find_recoveries(folder: Path, volume_key: str | None = None) -> tuple[Recovery, ...]:
    """Find what was left behind in a folder, of one image if its key is given, the newest first.

    What is damaged is left out, and so is what belongs to a session that lives, in this process or in another one.
    """
    recoveries = []
    for path in folder.glob(f"*{_ENDING}") if folder.is_dir() else ():
        with contextlib.suppress(InputError):
            if not _is_alive(path):
                saved = _read(path)
                names = {key: segment.name for key, segment in saved.segments.items()}
                recoveries.append(Recovery(path, saved.volume, saved.time, names, saved.more))
    matching = [recovery for recovery in recoveries if volume_key in (None, recovery.volume_key)]
    return tuple(sorted(matching, key=lambda recovery: recovery.saved, reverse=True))


def _lock_of(path: Path) -> Path:
    return path.with_suffix(".lock")


def _is_alive(path: Path) -> bool:
    """True while the session that writes a file is there."""
    try:
        with locked(_lock_of(path)):
            return False
    except Locked:
        return True
    except OSError:
        return False  # a folder that can only be read: nobody writes there now


def restore(history: SegmentHistory, volume_key: str, policy: OverlapPolicy, recovery: Recovery) -> tuple[str, ...]:
    """Put back what a recovery holds, without asking a model; returns the ids of the segments.

    Segments of the same id and name get their voxels back where they are empty now, and are left alone where they have
    these voxels already; for all others new ones are made. No voxel of a segment that is there changes, unless the
    overlap policy allows that.

    Raises:
        InputError: the file is damaged, or of another image.
    """
    document = _read(recovery.path)
    if document.volume != volume_key:
        raise InputError("this recovery is of another image: load the image that it belongs to")
    history.detect_external_changes()
    saved = {key: segment.parsed(history.masks) for key, segment in document.segments.items()}
    return tuple(
        _put_back(history, policy, key, document.segments[key].name, state, mask)
        for key, (state, mask) in saved.items()
    )


def _put_back(
    history: SegmentHistory, policy: OverlapPolicy, key: str, name: str, state: SegmentState, mask: PackedMask
) -> str:
    store = history.store
    is_present = key in store.segment_ids and store.name(key) == name
    if is_present and not mask.box.is_empty and history.segment(key).mask() == mask:
        return key
    is_free = is_present and not history.segment(key).voxels and not store.is_locked(key)
    segment_id = key if is_free else store.add(NewSegment(name, name, segment_id=key))
    history.restore(segment_id, state, mask, policy)
    return segment_id


def _read(path: Path) -> _Document:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("the recovery file cannot be read") from error
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise InputError("the recovery file is of another version")
    return from_document(_Document, document, "the recovery file is damaged")


def discard(recovery: Recovery) -> None:
    """Delete what was left behind, with its folder if nothing else is in it."""
    for path in (recovery.path, recovery.path.with_suffix(".tmp"), _lock_of(recovery.path)):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        recovery.path.parent.rmdir()
