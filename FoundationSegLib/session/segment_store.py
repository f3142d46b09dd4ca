"""Stores of segments and of prompts, predictors, and the events of a session; with segments as plain arrays."""

from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import field, replace
from enum import StrEnum
from operator import attrgetter
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..codec import frozen, mutable
from ..errors import FoundationSegError, InputError
from ..imaging.geometry import Box, Geometry, bounding_box
from ..imaging.masks import EMPTY_MASK, Edit, MaskTable, PackedMask, SegmentChange, change_between, cut_out, pack_mask
from ..imaging.volume import Volume
from ..prompts.regions import Region
from ..requests.segmentation import PredictRequest
from .steps import ModelChoice, SegmentState, Steps


class OverlapPolicy(StrEnum):
    """Rule for a voxel that a segment wants and another segment already has: who keeps it.

    Attributes:
        PROTECT: the other segment, whichever it is.
        PROTECT_LOCKED: the other segment if it is locked; unlocked ones lose the voxel.
        ALLOW: both.
        OVERWRITE: the new one; every other segment, locked or not, loses the voxel.
        OVERWRITE_VISIBLE: as PROTECT_LOCKED among segments that are shown; a hidden one keeps it beside the new one.
    """

    PROTECT = "protect"
    PROTECT_LOCKED = "protect-locked"
    ALLOW = "allow"
    OVERWRITE = "overwrite"
    OVERWRITE_VISIBLE = "overwrite-visible"


Unanswered = tuple[Mapping[str, Steps], ...]  # what waits for answers, by the ids of segments, oldest first
PROVENANCE = ("Model", "Repository", "Revision", "SHA256", "Prompts", "Version", "Intensity", "Options")


@frozen
class NewSegment:
    """A segment that is to be made.

    Attributes:
        name: as the user sees it.
        kind: what it is, which term and colour go by: the name without a number.
        number: its place among its like, from 1; 0 for one that stands alone. Numbered ones differ in colour.
        segment_id: the id that it is to have again, if none has it; a new one where it is empty.
        group: the name of the segments that it belongs to; empty for none.
    """

    name: str
    kind: str = ""
    number: int = 0
    segment_id: str = ""
    group: str = ""


class SegmentStore(Protocol):
    """The segments of one segmentation, in the voxels of one volume."""

    @property
    def geometry(self) -> Geometry:
        """The volume's grid, in which all boxes, masks and edits are given."""

    @property
    def is_gone(self) -> bool:
        """True once the volume or the segmentation was deleted, or the scene closed: nothing can be read or written."""

    @property
    def is_readable(self) -> bool:
        """False while the segments are kept so that their voxels cannot be read or written; cheap.

        Nothing is compared, written or removed then. :meth:`require_writable` says why.
        """

    def require_writable(self) -> None:
        """Make sure that segments can be written where they belong; cheap, and asked before every write.

        Raises:
            InputError, GeometryError: they cannot, with what the user can do about it; nothing is changed.
        """

    @property
    def segment_ids(self) -> tuple[str, ...]:
        """The ids of all segments."""

    def is_locked(self, segment_id: str) -> bool:
        """True for a segment that may not be written."""

    def name(self, segment_id: str) -> str:
        """The name that the user calls the segment by."""

    def stamps(self) -> dict[str, Hashable]:
        """A value for each segment, by id, that changes whenever its voxels may have changed; cheap.

        It may change without reason. None while the voxels cannot be read; no segment once all of them are gone.
        """

    def read(self, segment_id: str, box: Box) -> NDArray[np.bool_]:
        """The segment in a box of the volume: a new (K, J, I) boolean array."""

    def occupied(self, segment_id: str) -> Box:
        """A box that holds every voxel of the segment."""

    def add(self, new: NewSegment) -> str:
        """Make an empty segment and return its id; one that was withdrawn or removed comes back as it was."""

    def withdraw(self, segment_id: str) -> bool:
        """Delete a segment that :meth:`add` made, if it is empty and nobody changed it; False where it stays."""

    def remove(self, segment_id: str) -> None:
        """Delete a segment whose voxels were taken away, whoever made it; :meth:`add` with its id brings it back."""

    def write_change(self, segment_id: str, change: SegmentChange, policy: OverlapPolicy) -> Edit:
        """Make a change as far as the policy and the locks of others allow, and return what really changed.

        Raises:
            InputError: the segment itself is locked; nothing is written then.
        """

    def apply(self, edit: Edit) -> Edit:
        """Undo or redo: make exactly the changes of an edit, and return what really changed."""

    def provenance(self, segment_id: str) -> Mapping[str, str]:
        """The origin of the segment, as :meth:`describe` keeps it; empty where there is none."""

    def describe(self, edited: "SegmentEdited") -> None:
        """Keep with the segments of an edit where they come from, by the names of :data:`PROVENANCE`; a listener."""

    @property
    def has_foreign_undo(self) -> bool:
        """True once somebody else's undo, such as the Segment Editor's, may take back what was written here."""

    def unnoticed(self) -> AbstractContextManager[None]:
        """Return a context in which that undo takes no notice of tags: after a change nothing could be redone there."""


class Predictor(Protocol):
    """The part of a client that a session uses; see :class:`FoundationSegLib.worker.client.Client`."""

    def send_volume(self, volume: Volume) -> None:
        """Hand over an image; requests name it by its key."""

    def remove_volume(self, volume_key: str) -> None:
        """Let go of an image."""

    def submit(self, request: PredictRequest) -> None:
        """Ask. Whatever was asked before and is not answered yet is dropped."""

    def cancel(self, request_id: int) -> None:
        """Stop a request that is under way."""


@frozen
class SavedSegment:
    """The part of a segment that is kept for a later session.

    Attributes:
        state: its steps, and what they come to.
        result: a text that tells whether the segment's voxels are those that the steps led to.
        masks: what the steps refer to.
    """

    state: SegmentState
    result: str
    masks: MaskTable


class ImageSource(Protocol):
    """Source of an image that others may change meanwhile, such as a volume node."""

    def stamp(self) -> Hashable:
        """A value that changes whenever the image may have changed; cheap. It may change without reason."""

    def read(self) -> Volume:
        """The image as it is now.

        Raises:
            InputError, GeometryError: there is none any more that could be used.
        """


class PromptStore(Protocol):
    """Keeper of the steps of segments, such as markups in the scene (design D8)."""

    def read(self, segment_id: str) -> Mapping[str, Any] | None:
        """Read what was kept for the segment, perhaps in an earlier session: :func:`.steps.steps_to_document` with
        the ``result`` beside; None if nothing was."""

    def write(self, segment_id: str, saved: SavedSegment) -> None:
        """Keep a segment's steps in place of those that were kept before."""


def read_segment(store: SegmentStore, segment_id: str) -> PackedMask:
    """All voxels of a segment."""
    box = store.occupied(segment_id)
    return pack_mask(store.read(segment_id, box), box.start_kji)


EditKind = Literal[
    "predicted", "noted", "accepted", "undone", "redone", "rejected", "cleared", "deleted", "taken", "others"
]


@frozen
class SegmentEdited:
    """Something was written or taken back.

    Attributes:
        kind: how it came about. "others" (somebody else changed segments, or they were moved with the image, or
            restored) is no outcome: only the listeners of a session hear of it.
        states: what the steps of segments come to now, by id; those that were deleted with it are among them.
        changes: what segments gained and lost, by id; several changes of one segment one after the other.
        created: the ids of segments that came into being with it, empty ones that waited for it included.
        removed: the ids of segments that went with it: deleted, or their coming into being was undone.
        scores: the model's own estimates of the overlap, 0..1, by segment id.
        notes: what the model had to say.
        forgotten: how many of the oldest actions can no longer be undone, for want of room in the history.
        withheld: how many wanted voxels neighbours kept, by their ids.
        unanswered: steps that waited for an answer then, and are asked again now.
    """

    kind: EditKind
    states: Mapping[str, SegmentState]
    changes: Mapping[str, tuple[SegmentChange, ...]] = field(default_factory=dict)
    created: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    scores: Mapping[str, float | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    forgotten: int = 0
    withheld: Mapping[str, int] = field(default_factory=dict)
    unanswered: Unanswered = ()


@frozen
class Confirmation:
    """An answer that would take away more than was agreed on. Nothing is written until it is confirmed.

    Attributes:
        changes: what segments would gain and lose, by id.
        lost_share: the largest part of a segment that would go, 0..1.
        by_hand: how many voxels would change that were drawn or erased by hand.
    """

    changes: Mapping[str, SegmentChange]
    lost_share: float
    by_hand: int


@frozen
class Refused:
    """A request failed, or its answer cannot be written.

    Attributes:
        error: why.
        is_waiting: what it was for waits to be asked again, alone or with the next prompt, or to be discarded;
            otherwise it was given up.
    """

    error: FoundationSegError
    is_waiting: bool = True


@frozen
class ImageChanged:
    """Somebody changed the voxels of the image, or hardened a transform on image and segments.

    Segments and steps stay as they are on the image; what is asked next is of the new image, and so is what was under
    way.
    """


Outcome = SegmentEdited | Confirmation | Refused | ImageChanged


@mutable
class Options:
    """Settings of a session; may be changed at any time, for what comes after.

    Attributes:
        choice: which model answers.
        policy: who keeps voxels that a segment wants and another has.
        ask_above: the part of a segment, 0..1, that a prompt may delete without being confirmed; voxels that were
            drawn or erased by hand are asked for in any case. None: never ask.
    """

    choice: ModelChoice | None = None
    policy: OverlapPolicy = OverlapPolicy.PROTECT
    ask_above: float | None = 0.5


@frozen
class UserOptions:
    """The user's choices, which hold for what comes after; the first three as in :class:`Options`.

    ``region`` limits changes, ``masking_node`` has the editable area that is kept to, ``kind`` names new segments. With
    ``many_objects`` each prompt makes a segment of its own. ``save_state`` is called before each edit, so that somebody
    else's undo has the segments as they are.
    """

    choice: ModelChoice | None = None
    policy: OverlapPolicy = OverlapPolicy.PROTECT
    ask_above: float | None = 0.5
    region: Region | None = None
    masking_node: Any | None = None
    many_objects: bool = False
    kind: str = "Segment"
    save_state: Callable[[], None] | None = None

    @property
    def new_name(self) -> str:
        """The name of a new segment, never empty."""
        return self.kind.strip() or "Segment"


@mutable
class _Segment:
    name: str
    voxels: NDArray[np.bool_]
    version: int = 0
    is_locked: bool = False
    provenance: dict[str, str] = field(default_factory=dict)
    made_as: str = ""


class _Segments(dict[str, _Segment]):
    """Segments by their ids."""

    def __missing__(self, segment_id: str) -> _Segment:
        raise InputError(f"there is no segment with the id '{segment_id}': choose another one")


@mutable
class ArrayStore:
    """Segments of one volume as (K, J, I) boolean arrays, for scripts over files (:class:`SegmentStore`).

    Ids are ``"1"``, ``"2"`` and so on, in the order in which the segments were made.
    """

    geometry: Geometry
    is_gone: bool = False
    is_readable: bool = True
    has_foreign_undo: bool = False
    _segments: _Segments = field(default_factory=_Segments)
    _removed: dict[str, _Segment] = field(default_factory=dict)
    _made: int = 0

    def require_writable(self) -> None:
        """Do nothing: arrays can always be written."""

    def unnoticed(self) -> AbstractContextManager[None]:
        """Return a context of no effect: nobody else has an undo of arrays."""
        return nullcontext()

    @property
    def segment_ids(self) -> tuple[str, ...]:
        """The ids of all segments."""
        return tuple(self._segments)

    def is_locked(self, segment_id: str) -> bool:
        """True for a segment that may not be written."""
        return self._segments[segment_id].is_locked

    def name(self, segment_id: str) -> str:
        """The name that the segment was made with."""
        return self._segments[segment_id].name

    def stamps(self) -> dict[str, Hashable]:
        """The number of times that each segment was changed; none once they are gone."""
        return (
            {}
            if self.is_gone
            else dict(zip(self._segments, map(attrgetter("version"), self._segments.values()), strict=True))
        )

    def read(self, segment_id: str, box: Box | None = None) -> NDArray[np.bool_]:
        """The segment in a box, the whole volume unless one is given: a new (K, J, I) boolean array."""
        voxels = self._segments[segment_id].voxels
        return (voxels if box is None else voxels[box.slices]).copy()

    def occupied(self, segment_id: str) -> Box:
        """The smallest box that holds every voxel of the segment."""
        return bounding_box(self._segments[segment_id].voxels)

    def add(self, new: NewSegment) -> str:
        """Make an empty segment and return its id, the next number unless one is wanted that is free."""
        segment_id = new.segment_id
        while not segment_id or segment_id in self._segments:
            self._made += 1
            segment_id = str(self._made)
        empty = np.zeros(self.geometry.shape_kji, np.bool_)
        self._segments[segment_id] = self._removed.pop(segment_id, _Segment(new.name, empty, made_as=new.name))
        return segment_id

    def withdraw(self, segment_id: str) -> bool:
        """Delete a segment that is empty, unlocked and called as it was made; False where it stays."""
        segment = self._segments[segment_id]
        if segment.is_locked or segment.voxels.any() or segment.name != segment.made_as:
            return False
        self.remove(segment_id)
        return True

    def remove(self, segment_id: str) -> None:
        """Delete a segment; :meth:`add` with its id brings it back."""
        segment = self._segments[segment_id]
        self._removed[segment_id] = replace(segment, voxels=np.zeros_like(segment.voxels))
        del self._segments[segment_id]

    def rename(self, segment_id: str, name: str) -> None:
        """Give a segment another name; it stays then when its making is undone."""
        self._segments[segment_id].name = name

    def lock(self, segment_id: str, is_locked: bool = True) -> None:
        """Keep a segment from being written, or allow it again."""
        self._segments[segment_id].is_locked = is_locked

    def put(self, segment_id: str, mask_kji: NDArray[np.generic]) -> None:
        """Set a whole segment by hand; a session takes that for an edit by somebody else."""
        segment = self._segments[segment_id]
        segment.voxels[...] = mask_kji != 0
        segment.version += 1

    def write_change(self, segment_id: str, change: SegmentChange, policy: OverlapPolicy) -> Edit:
        """Make a change as far as the policy and the locks of others allow, and return what really changed.

        Raises:
            InputError: the segment itself is locked; nothing is written then.
        """
        own = self._segments[segment_id]
        if own.is_locked:
            raise InputError(f"the segment '{own.name}' is locked: unlock it first")
        gained, box = change.gained, change.gained.box
        losing = {}
        for key, other in self._segments.items():
            there = other.voxels[box.slices]
            if other is own or policy == OverlapPolicy.ALLOW or not there.any():
                continue
            is_kept = other.is_locked and policy != OverlapPolicy.OVERWRITE
            if is_kept or policy == OverlapPolicy.PROTECT:
                gained = pack_mask(cut_out(gained, box) & ~there, box.start_kji)
            else:
                losing[key] = there
        changes = {}
        for key, there in losing.items():
            changes[key] = SegmentChange(EMPTY_MASK, pack_mask(cut_out(gained, box) & there, box.start_kji))
        changes[segment_id] = SegmentChange(gained, change.lost)
        return self.apply(Edit(changes))

    def apply(self, edit: Edit) -> Edit:
        """Make exactly the changes of an edit, as undo and redo do, and return what really changed."""
        made = {}
        for segment_id, change in edit.changes.items():
            segment = self._segments[segment_id]
            gained, lost = change.gained.unpack(), change.lost.unpack()
            gaining, losing = segment.voxels[change.gained.box.slices], segment.voxels[change.lost.box.slices]
            if (gaining & gained).any() or (lost & ~losing).any():  # the segment is not as the change needs it
                box = change.gained.box.union(change.lost.box)
                before = segment.voxels[box.slices].copy()
                change.apply(segment.voxels)
                change = change_between(before, segment.voxels[box.slices], box.start_kji)
            else:
                losing[lost] = False
                gaining[gained] = True
            if change.gained.bits or change.lost.bits:
                segment.version += 1
                made[segment_id] = change
        return Edit(made)

    def provenance(self, segment_id: str) -> Mapping[str, str]:
        """The origin of the segment, by the names of :data:`PROVENANCE`."""
        return self._segments[segment_id].provenance

    def describe(self, edited: SegmentEdited) -> None:
        """Keep where segments come from."""
        for segment_id in edited.states.keys() & self._segments.keys():
            self._segments[segment_id].provenance = dict(edited.states[segment_id].provenance)
