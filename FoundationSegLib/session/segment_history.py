"""What was written to the segments of one segmentation, what others did to them, and how to take it back."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import FoundationSegError, GoneError, InputError
from ..imaging.geometry import EMPTY_BOX, Box
from ..imaging.masks import Edit, MaskTable, PackedMask, SegmentChange
from ..requests.segmentation import Prediction
from .pending_edit import Computed, Writing, follow, provenance_of, renewed
from .segment_state import KnownMask, Record, RecordState, kept_steps, open_record
from .segment_store import EditKind, NewSegment, OverlapPolicy, PromptStore, SegmentEdited, SegmentStore
from .steps import AcceptStep, RejectStep, Steps, effective, state_of, transformed_steps
from .undo_stack import Entry, UndoStack


@dataclass(slots=True)
class SegmentHistory:
    """The records of all segments that a session met, and the history of what it did to them.

    Attributes:
        store: where the segments are.
        prompt_store: where their steps are kept with them, if anywhere.
        version: of the software, for the provenance.
        undo_stack: what can be undone.
        masks: what steps refer to.
        records: the segments that the session met.
        unborn: segments that were made for what is not written yet, by id.
    """

    store: SegmentStore
    prompt_store: PromptStore | None = None
    version: str = ""
    undo_stack: UndoStack[RecordState] = field(default_factory=UndoStack)
    masks: MaskTable = field(default_factory=MaskTable)
    records: dict[str, Record] = field(default_factory=dict)
    unborn: dict[str, NewSegment] = field(default_factory=dict)
    _withdrawn: set[str] = field(default_factory=set)  # by undoing that they were made

    def __post_init__(self) -> None:
        self.masks.within = self.store.geometry.box

    def detect_external_changes(self) -> frozenset[str]:
        """Find out what others did meanwhile; returns the ids of segments that they changed or deleted.

        Segments that were changed take their present voxels as their seed, and what was done to them before cannot be
        undone any more. With the volume or the segmentation gone, everything is forgotten. While the segments cannot
        be read, nothing is compared.
        """
        there = () if self.store.is_gone else self.store.segment_ids
        gone = self.records.keys() - set(there)
        for segment_id in gone:
            del self.records[segment_id]
            self.unborn.pop(segment_id, None)
        self._look_for_withdrawn(there)
        changed = set()
        if self.records and self.store.is_readable:
            changed = {key for key, record in self.records.items() if record.look(self.store, key, self.masks)}
        for segment_id in changed | gone:
            self.undo_stack.forget(segment_id)
        self._save(changed)
        return frozenset(changed | gone)

    def _look_for_withdrawn(self, there: Collection[str]) -> None:
        """Those that somebody else brought back are somebody else's; and nothing comes back where all has gone."""
        for segment_id in [key for key in self._withdrawn if self.store.is_gone or key in there]:
            self._withdrawn.discard(segment_id)
            self.undo_stack.forget(segment_id)

    def create(self, new: NewSegment) -> str:
        """Make an empty segment and return its id; undoing takes it away, unless somebody has changed it by then.

        Raises:
            GoneError: there is nothing any more to make it in.
        """
        segment_id = self._make(new)
        state, created = self.records[segment_id].state, {segment_id: new}
        self.undo_stack.push(Entry((), {segment_id: state}, {segment_id: state}, created))
        return segment_id

    def announce(self, new: NewSegment) -> str:
        """Make an empty segment for an action that waits for its answer; its making is undone with that action.

        Raises:
            GoneError: there is nothing any more to make it in.
        """
        segment_id = self._make(new)
        self.unborn[segment_id] = new
        return segment_id

    def withdraw(self, segment_ids: Iterable[str]) -> tuple[str, ...]:
        """Delete those that we made, unless somebody changed them; returns the ids of those that have gone."""
        there = () if self.store.is_gone else self.store.segment_ids
        found = tuple(key for key in segment_ids if key in there and self.store.withdraw(key))
        for segment_id in found:
            self.records.pop(segment_id, None)
        return found

    def _make(self, new: NewSegment) -> str:
        segment_id = self.store.add(new)
        self._withdrawn.discard(segment_id)
        self.records[segment_id] = Record(RecordState(), KnownMask(), self.store.stamp(segment_id))
        return segment_id

    def record(self, segment_id: str) -> Record:
        """What is known of a segment, as it stands now.

        Raises:
            GoneError: it was deleted, or all of it was.
        """
        self.detect_external_changes()
        if self.store.is_gone or segment_id not in self.store.segment_ids:
            raise GoneError("the volume, the segmentation or the segment was deleted: choose another one")
        self._meet(segment_id)
        return self.records[segment_id]

    def move_prompts(self, matrix: NDArray[np.float64]) -> None:
        """Take all prompts along where the image was moved by a (4, 4) matrix in RAS mm; undo and redo stay."""

        def moved(state: RecordState) -> RecordState:
            steps = transformed_steps(state.steps, matrix)
            return replace(state, steps=steps, standing=state_of(steps))

        self.undo_stack.change_states(moved)
        for record in self.records.values():
            record.state = moved(record.state)
        self._save(self.records)

    def require_readable(self) -> None:
        """Make sure that what is known of the segments is what they are; asked before anything is done to them.

        Raises:
            InputError, GeometryError: they are kept so that their voxels cannot be read or written.
        """
        if not self.store.is_gone and not self.store.is_readable:
            self.store.require_writable()

    def _meet(self, segment_id: str) -> None:
        if segment_id not in self.records:
            self.require_readable()
            document = self.prompt_store.read(segment_id) if self.prompt_store is not None else None
            self.records[segment_id] = open_record(self.store, segment_id, self.masks, document)

    def _meet_neighbours(self, box: Box) -> None:
        """Get to know the segments that may lose voxels in a box, so that they get them back when that is undone."""
        for segment_id in self.store.segment_ids:
            if not self.store.occupied(segment_id).intersection(box).is_empty:
                self._meet(segment_id)

    def require_unlocked(self, segment_ids: Iterable[str]) -> None:
        """Raise an InputError that names the first of these segments that is locked."""
        for segment_id in segment_ids:
            if self.store.is_locked(segment_id):
                raise InputError(f"the segment '{self.store.name(segment_id)}' is locked: unlock it first")

    def write(
        self,
        computed: Sequence[Computed],
        policy: OverlapPolicy,
        prediction: Prediction | None,
        tell: Callable[[SegmentEdited], None],
    ) -> None:
        """Write one action: the segments one after the other, all of it one entry of the history.

        Args:
            computed: what is to be written.
            policy: who keeps contested voxels.
            prediction: the answer that it comes from; None where no model was asked.
            tell: told of what was written, also where something failed after it: that much can be undone.

        Raises:
            InputError: one of the segments is locked or deleted; nothing is written then.
            Exception: whatever the store raised.
        """
        self.store.require_writable()
        for one in computed:
            self._require_writable(one.prepared.target)
        writing, scores = Writing(self.store, self.records, self.masks), {}
        is_whole = False
        try:
            for wanted in computed:
                one = renewed(wanted, self.store, self.records)
                if policy in (OverlapPolicy.OVERWRITE, OverlapPolicy.PROTECT_LOCKED):
                    self._meet_neighbours(one.change.gained.box)
                told = None if prediction is None else provenance_of(prediction, one.prepared, self.version)
                segment_id = writing.write(one, policy, told if one.prepared.plan.prompts else None)
                scores[segment_id] = one.answer.score
                if segment_id in self.unborn:
                    writing.created[segment_id] = self.unborn.pop(segment_id)
            is_whole = True
        finally:
            if is_whole or writing.after:
                forgotten = self.undo_stack.push(writing.entry) if writing.after else 0
                kind: EditKind = "noted" if prediction is None else "predicted"
                notes = prediction.notes if prediction is not None else ()
                tell(SegmentEdited(kind, writing.changes, tuple(writing.created), (), scores, notes, forgotten))
            if not is_whole:
                self.detect_external_changes()  # the store may have written a part of what failed
            self._settle([key for key in writing.after if key in self.records])

    def _require_writable(self, segment_id: str) -> None:
        if self.store.is_gone or segment_id not in self.store.segment_ids:
            raise GoneError("a segment was deleted meanwhile: nothing was written of what was asked with it")
        if self.store.is_locked(segment_id):
            name = self.store.name(segment_id)
            raise InputError(f"'{name}' was locked meanwhile, and nothing was written: unlock it and ask again")

    def restore(
        self, segment_id: str, steps: Steps, mask: PackedMask, policy: OverlapPolicy, provenance: Mapping[str, str]
    ) -> None:
        """Give an empty segment the steps and the voxels of an earlier session; that cannot be undone.

        What the policy keeps back becomes part of the seed.
        """
        record = self.record(segment_id)
        edit = self.store.write(segment_id, SegmentChange(gained=mask), policy)
        follow(edit, self.records)
        now = state_of(steps)
        reach = mask.box.union(self.masks.get(now.seed).box)
        record.state = RecordState(steps, now, reach, provenance)
        if edit.changes.get(segment_id, SegmentChange()).gained != mask:
            record.state = replace(record.seeded(self.masks, "neighbour"), reach=EMPTY_BOX)
        for other in edit.changes.keys() & self.records.keys() - {segment_id}:
            self.records[other].state = replace(self.records[other].seeded(self.masks, "neighbour"), reach=EMPTY_BOX)
            self.undo_stack.forget(other)
        self._settle(edit.changes.keys() & self.records.keys() | {segment_id})

    def undo(self, segment_id: str) -> SegmentEdited | None:
        """Take back the last action of a segment; None if there is none (any more).

        Raises:
            GoneError: the segment was deleted.
            InputError: the action changed another segment, too, of which something later has to be undone first.
        """
        self.detect_external_changes()
        self.require_readable()
        if segment_id in self._withdrawn:
            return None
        self.record(segment_id)
        self._require_free("undo", self.undo_stack.blocking_undo(segment_id))
        entry = self.undo_stack.undo(segment_id)
        if entry is None:
            return None
        try:
            done = self._carry_out("undone", entry.inverse, entry.before.items())
        except FoundationSegError:
            self.undo_stack.redo(segment_id)  # it was not undone, and can be later
            raise
        removed = self.withdraw(entry.created)
        self._withdrawn.update(removed)
        return replace(done, removed=removed)

    def redo(self, segment_id: str) -> SegmentEdited | None:
        """Do again what was undone last of a segment; None if there is nothing. Raises as :meth:`undo`.

        A segment whose making was undone comes back with its id, name and colour.
        """
        self.detect_external_changes()
        self.require_readable()
        if segment_id not in self._withdrawn:
            self.record(segment_id)
        self._require_free("redo", self.undo_stack.blocking_redo(segment_id))
        entry = self.undo_stack.redo(segment_id)
        if entry is None:
            return None
        back = [key for key in entry.created if key in self._withdrawn]
        try:
            for key in back:
                self._make(replace(entry.created[key], segment_id=key))
            return replace(self._carry_out("redone", entry.edits, entry.after.items()), created=tuple(back))
        except FoundationSegError:
            self.undo_stack.undo(segment_id)
            self._withdrawn.update(self.withdraw(back))
            raise

    def accept(self, segment_id: str) -> SegmentEdited:
        """Note that the last change of a segment is right."""
        self.require_readable()
        record = self.record(segment_id)
        before, after = record.state, record.state.with_steps(AcceptStep())
        record.state = after
        forgotten = self.undo_stack.push(Entry((), {segment_id: before}, {segment_id: after}))
        self._settle((segment_id,))
        return SegmentEdited("noted", {}, forgotten=forgotten)

    def reject(self, segment_id: str) -> SegmentEdited:
        """Take back the last change of a segment, and keep in its steps that it was wrong.

        Raises:
            GoneError: the segment was deleted.
            InputError: there is nothing to reject, it was accepted, or another segment's later change is in the way.
        """
        self.require_readable()
        self.record(segment_id)
        entry = self.last_change(segment_id)
        if entry is None:
            raise InputError("there is no change to reject: it was accepted, or nothing was done yet")
        self._require_free("undo", self.undo_stack.blocking_undo(segment_id))
        before = {key: self.records[key].state for key in entry.after}
        after = {key: _rejected(entry, key) for key in entry.after}
        done = self._carry_out("rejected", entry.inverse, after.items())
        edits = tuple(Edit({key: change}) for key, changes in done.changes.items() for change in changes)
        return replace(done, forgotten=self.undo_stack.push(Entry(edits, before, after)))

    def last_change(self, segment_id: str) -> Entry[RecordState] | None:
        """The last change of a segment, if it was neither accepted nor rejected yet."""
        entry = self.undo_stack.last(segment_id)
        steps = entry.after[segment_id].steps if entry is not None else ()
        return entry if steps and not isinstance(steps[-1], AcceptStep | RejectStep) else None

    def _require_free(self, what: str, other: str | None) -> None:
        if other is not None:
            raise InputError(f"this changed '{self.store.name(other)}', too: first {what} what was done to that later")

    def _carry_out(
        self,
        kind: EditKind,
        edits: Iterable[Edit],
        states: Iterable[tuple[str, RecordState]],
    ) -> SegmentEdited:
        changes: dict[str, tuple[SegmentChange, ...]] = {}
        for edit in edits:
            real = self.store.apply(edit)
            follow(real, self.records)
            for key, change in real.changes.items():
                changes[key] = (*changes.get(key, ()), change)
        touched = []
        for key, state in states:
            self.records[key].state = state
            touched.append(key)
        self._settle(touched)
        return SegmentEdited(kind, changes)

    def _settle(self, segment_ids: Iterable[str]) -> None:
        """What was changed in between was changed by us."""
        for key, record in self.records.items():
            record.stamp = self.store.stamp(key)
        for key in segment_ids:
            self.store.describe(key, self.records[key].state.provenance)
        self._save(segment_ids)

    def _save(self, segment_ids: Iterable[str]) -> None:
        for key in segment_ids:
            if self.prompt_store is not None and key in self.records:
                self.prompt_store.write(key, kept_steps(self.records[key], self.masks))


def _rejected(entry: Entry[RecordState], segment_id: str) -> RecordState:
    before, after = entry.before[segment_id], entry.after[segment_id]
    count = len(effective(after.steps)) - len(effective(before.steps))
    if count <= 0 or after.steps[: len(before.steps)] != before.steps:
        return before  # the steps were replaced as a whole, and so they are now
    return replace(before, steps=(*after.steps, RejectStep(count)))
