"""What a crash would lose: the steps and the voxels of the segments, in one folder, restored onto the same image.

The folder holds no name, path or patient field of the image: it is found by the image's fingerprint.
"""

import contextlib
import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from .errors import InputError, OutputError
from .mask import PackedMask
from .mask_table import MaskTable
from .outcomes import Done, Outcome
from .prompts import MaskPrompt
from .records import Record
from .segment_store import NewSegment
from .session import Session
from .steps import PromptAdded, PromptMoved, Step, Steps
from .steps_document import parse_steps, steps_to_document

VERSION = 1
_ENDING = ".recovery.json"


@dataclass(slots=True)
class RecoveryFile:
    """Keeps a session's steps and voxels in a file of its own, every few changes.

    Attributes:
        folder: where; made when first needed. Several sessions may share it.
        every: how many changes may be lost.
        path: the file; None until something was written.
    """

    folder: Path
    every: int = 5
    path: Path | None = None
    _changes: int = 0
    _name: str = field(default_factory=lambda: secrets.token_hex(8))

    def note(self, session: Session, outcome: Outcome) -> None:
        """Be told of what happens in the session (``on_outcome``); writes when enough has.

        Raises:
            OutputError: the folder cannot be written.
        """
        if isinstance(outcome, Done):
            self._changes += 1
            if self._changes >= self.every:
                self.write(session)

    def write(self, session: Session) -> None:
        """Write everything now; the file of before stays whole until this one is.

        Raises:
            OutputError: the folder cannot be written.
        """
        self._changes = 0
        if session.ledger.store.is_gone:
            return
        path = self.folder / f"{self._name}{_ENDING}"
        temporary = path.with_suffix(".tmp")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(_document(session), file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            reason = error.strerror or type(error).__name__
            raise OutputError(f"the recovery folder cannot be written: {reason}; make room there") from error
        self.path = path

    def close(self) -> None:
        """Delete the file, and the folder if nothing else is in it: the session ended as it should."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        self.path = None


def _document(session: Session) -> dict[str, Any]:
    ledger = session.ledger
    segments = {key: _segment(record, ledger.store.name(key), ledger.masks) for key, record in ledger.records.items()}
    return {"version": VERSION, "volume": session.volume.key, "time": time.time(), "segments": segments}


def _segment(record: Record, name: str, masks: MaskTable) -> dict[str, Any]:
    steps = tuple(_without_paths(step) for step in record.state.steps)
    mask = masks.put(record.known.mask())
    return {"name": name, "mask": mask, "voxels": masks.to_document([mask])} | steps_to_document(steps, masks)


def _without_paths(step: Step) -> Step:
    if isinstance(step, PromptAdded | PromptMoved) and isinstance(step.prompt, MaskPrompt):
        return replace(step, prompt=replace(step.prompt, file=PurePath(step.prompt.file).name or "mask"))
    return step


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a session left behind that did not end as it should.

    Attributes:
        path: the file.
        volume_key: the image that it was about.
        saved: when it was written, in seconds since 1970.
        segments: the names of the segments.
    """

    path: Path
    volume_key: str
    saved: float
    segments: tuple[str, ...]


def find_recoveries(folder: Path, volume_key: str | None = None) -> tuple[Recovery, ...]:
    """What was left behind in a folder, of one image if its key is given, the newest first; none that is damaged."""
    found = []
    for path in folder.glob(f"*{_ENDING}") if folder.is_dir() else ():
        with contextlib.suppress(InputError):
            found.append(_found(path))
    wanted = [one for one in found if volume_key in (None, one.volume_key)]
    return tuple(sorted(wanted, key=lambda one: one.saved, reverse=True))


def restore(session: Session, recovery: Recovery) -> tuple[str, ...]:
    """Put back what a recovery holds, without asking a model; returns the ids of the segments.

    Segments of the same id and name get their voxels back where they are empty now; for all others new ones are made.
    No voxel of a segment that is there changes, unless the overlap policy allows that.

    Raises:
        InputError: the file is damaged, or of another image.
    """
    document = _read(recovery.path)
    if document["volume"] != session.volume.key:
        raise InputError("this recovery is of another image: load the image that it belongs to")
    saved = [(key, _parsed(entry, session.ledger.masks)) for key, entry in document["segments"].items()]
    return tuple(_put_back(session, key, one) for key, one in saved)


@dataclass(frozen=True, slots=True)
class _Saved:
    """A segment as it was."""

    name: str
    steps: Steps
    mask: PackedMask


def _parsed(entry: Mapping[str, Any], masks: MaskTable) -> _Saved:
    try:
        masks.take_document(entry["voxels"])
        return _Saved(str(entry["name"]), parse_steps(entry, masks), masks.get(entry["mask"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError("the recovery file is damaged") from error


def _put_back(session: Session, key: str, saved: _Saved) -> str:
    ledger, store = session.ledger, session.ledger.store
    is_there = key in store.segment_ids and store.name(key) == saved.name
    is_free = is_there and not ledger.record(key).known.voxels and not store.is_locked(key)
    target = key if is_free else store.add(NewSegment(saved.name, saved.name))
    ledger.restore(target, saved.steps, saved.mask, session.options.policy)
    return target


def _found(path: Path) -> Recovery:
    document = _read(path)
    try:
        names = tuple(str(segment["name"]) for segment in document["segments"].values())
        return Recovery(path, str(document["volume"]), float(document["time"]), names)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("the recovery file is damaged") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["version"] == VERSION and isinstance(document["segments"], dict):
            return document
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("the recovery file cannot be read") from error
    raise InputError("the recovery file is of another version")


def discard(recovery: Recovery) -> None:
    """Delete what was left behind."""
    recovery.path.unlink(missing_ok=True)
