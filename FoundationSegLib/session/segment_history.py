"""History of the segments of one segmentation: what was written, what others did, and taking it back."""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import FoundationSegError, GoneError, InputError
from ..imaging.masks import Edit, MaskTable, PackedMask, SegmentChange, change_between, checksum
from ..requests.segmentation import Prediction, SegmentPrediction
from .plan import AnsweredPlan, SegmentPlan
from .segment_store import (
    EditKind,
    NewSegment,
    OverlapPolicy,
    PromptStore,
    SavedSegment,
    SegmentEdited,
    SegmentStore,
    read_segment,
)
from .steps import AcceptStep, RejectStep, SegmentState, parse_steps, state_of, transformed_steps
from .tracking import TrackedSegment, UndoEntry, UndoStack, changes_of, difference, rejected_state


@dataclass(slots=True)
class SegmentHistory:
    """All segments that a session met, and what it did to them.

    Attributes:
        store: where the segments are.
        prompt_store: where the steps of earlier sessions are, if anywhere; :meth:`keep_steps` puts ours there.
        version: of the software, for the provenance.
        undo_stack: what can be undone.
        masks: what steps refer to.
        segments: those that the session met, by id.
        provisional: segments that were made for what is not written yet, by id.
        stamps: the store's, of all segments, as they were when the voxels were last seen.
        untold: segments that others changed, or that were moved or restored, until :meth:`take_untold`.
    """

    store: SegmentStore
    prompt_store: PromptStore | None = None
    version: str = ""
    undo_stack: UndoStack = field(default_factory=UndoStack)
    masks: MaskTable = field(default_factory=MaskTable)
    segments: dict[str, TrackedSegment] = field(default_factory=dict)
    provisional: dict[str, NewSegment] = field(default_factory=dict)
    stamps: dict[str, Hashable] = field(default_factory=dict)
    untold: set[str] = field(default_factory=set)
    _withdrawn: set[str] = field(default_factory=set)  # by undoing that they were made
    _untold_kind: EditKind = "others"

    def __post_init__(self) -> None:
        self.masks.within = self.store.geometry.box
        self.undo_stack.masks, self.undo_stack.segments = self.masks, self.segments

    def detect_external_changes(self) -> frozenset[str]:
        """Find out what others did meanwhile; returns the ids of segments that they changed or deleted.

        Segments that were changed take their present voxels as their seed, and what was done to them before cannot be
        undone any more. With the volume or the segmentation gone, everything is forgotten. While the segments cannot
        be read, nothing is compared. Where somebody else's undo took our edits back, they are undone here, too, and can
        be redone.
        """
        stamps = self.store.stamps()
        if stamps and stamps == self.stamps:
            return frozenset()
        keys = (*self.segments, *self._withdrawn)
        stamped = [key for key in keys if stamps.get(key) not in (None, self.stamps.get(key))]
        present = {key: read_segment(self.store, key) for key in stamped}
        retraced = self._retrace(stamps, present) if self.store.has_foreign_undo else frozenset()
        gone = self.segments.keys() - stamps.keys()
        for segment_id in gone:
            del self.segments[segment_id]
            self.provisional.pop(segment_id, None)
        # Those that somebody else brought back are somebody else's; and nothing comes back where all has gone.
        returned = self._withdrawn & stamps.keys() if not self.store.is_gone else set(self._withdrawn)
        self._withdrawn -= returned
        changed = {key for key, mask in present.items() if self._reseed(key, mask)}
        self.stamps = {key: self.stamps.get(key) if stamp is None else stamp for key, stamp in stamps.items()}
        for segment_id in changed | gone | returned:
            self.undo_stack.forget(segment_id)
        if changed:
            self.undo_stack.make_room()
        self.untold |= changed | retraced
        return frozenset(changed | gone | retraced)

    def _retrace(self, stamps: Mapping[str, Hashable], present: Mapping[str, PackedMask]) -> frozenset[str]:
        """Follow somebody else's undo or redo of our edits; returns the segments of those edits, none if it was not."""
        before = {key: segment.checksum() for key, segment in self.segments.items()}
        after = {key: before[key] for key in before.keys() & stamps.keys()}
        kind, states = self.undo_stack.retrace(before, after | {key: checksum(mask) for key, mask in present.items()})
        for key, state in states.items():
            if key in stamps:
                segment = self.segments.setdefault(key, TrackedSegment())
                segment.state = state
                if key in present:
                    segment.see(present[key])
            else:
                self._forget(key)
                self._withdrawn.add(key)
        if states:
            self._withdrawn -= stamps.keys()
            self._untold_kind = kind
        return frozenset(states)

    def _reseed(self, segment_id: str, present: PackedMask) -> bool:
        """Take the voxels of a segment as its seed if somebody else changed them; True if so."""
        segment = self.segments.get(segment_id)
        if segment is None or present == (known := segment.mask()):
            return False
        segment.see(present)
        segment.state = segment.seeded(self.masks, "hand", self.masks.put(difference(known, present)))
        return True

    def segment(self, segment_id: str) -> TrackedSegment:
        """A segment, which the session meets now if it did not before.

        Raises:
            GoneError: it was deleted, or all of it was.
            InputError, GeometryError: it is kept so that its voxels cannot be read.
        """
        if segment_id not in self.segments:
            if self.store.is_gone or segment_id not in self.store.segment_ids:
                raise GoneError("the volume, the segmentation or the segment was deleted, or shows another frame")
            self.require_readable()
            self.segments[segment_id] = self._opened(segment_id)
        return self.segments[segment_id]

    def _opened(self, segment_id: str) -> TrackedSegment:
        """A segment that is met for the first time, which goes on where an earlier session has left it.

        If its voxels are others than that session left, or there was none, the present ones are the seed.
        """
        document = self.prompt_store.read(segment_id) if self.prompt_store is not None else None
        segment = TrackedSegment(SegmentState(provenance=self.store.provenance(segment_id)))
        segment.see(read_segment(self.store, segment_id))
        if document is not None:
            state = state_of(parse_steps(document, self.masks))
            reach = segment.snapshot.box.union(self.masks.get(state.seed).box)
            segment.state = replace(state, reach=reach, provenance=segment.state.provenance)
            if document.get("result") != f"{segment.checksum():016x}":
                segment.state = segment.seeded(self.masks, "hand")
        elif segment.voxels:
            segment.state = segment.seeded(self.masks, "start")
        self.stamps.setdefault(segment_id, self.store.stamps().get(segment_id))
        return segment

    def create(self, new: NewSegment) -> str:
        """Make an empty segment and return its id; undoing takes it away, unless somebody has changed it by then.

        Raises:
            GoneError: there is nothing any more to make it in.
        """
        segment_id = self.announce(new)
        self.keep_provisional([segment_id])
        return segment_id

    def announce(self, new: NewSegment) -> str:
        """Make an empty segment for an edit that waits for its answer; its making is undone with that edit.

        Raises:
            GoneError: there is nothing any more to make it in.
        """
        segment_id = self._make(new)
        self.provisional[segment_id] = new
        return segment_id

    def keep_provisional(self, segment_ids: Iterable[str]) -> None:
        """Let those stay that were made for edits that wait; that they were made is undone by itself then."""
        for segment_id in segment_ids:
            if segment_id in self.provisional:
                states = {segment_id: self.segments[segment_id].state}
                self.undo_stack.push(UndoEntry([], states, states, {segment_id: self.provisional.pop(segment_id)}))

    def withdraw(self, segment_ids: Iterable[str]) -> tuple[str, ...]:
        """Delete those that we made, unless somebody changed them; returns the ids of those that have gone."""
        present = () if self.store.is_gone else self.store.segment_ids
        removed = tuple(key for key in segment_ids if key in present and self.store.withdraw(key))
        for segment_id in removed:
            self._forget(segment_id)
        return removed

    def withdraw_provisional(self, segment_ids: Collection[str]) -> None:
        """Delete what was made for edits that are given up; what somebody locked or changed meanwhile stays."""
        provisional = [key for key in self.provisional if key in segment_ids]
        self._withdrawn.update(self.withdraw(provisional))
        for segment_id in provisional:
            self.provisional.pop(segment_id, None)

    def _make(self, new: NewSegment) -> str:
        segment_id = self.store.add(new)
        self._withdrawn.discard(segment_id)
        self.segments[segment_id] = TrackedSegment()
        self.stamps[segment_id] = self.store.stamps()[segment_id]
        return segment_id

    def move_prompts(self, matrix: NDArray[np.float64]) -> None:
        """Take all prompts along where the image was moved by a (4, 4) matrix in RAS mm; undo and redo stay."""

        def moved(state: SegmentState) -> SegmentState:
            again = state_of(transformed_steps(state.steps, matrix))
            return replace(again, reach=state.reach, provenance=state.provenance)

        self.undo_stack.change_states(moved, lambda steps: transformed_steps(steps, matrix))
        for segment in self.segments.values():
            segment.state = moved(segment.state)
        self.untold |= self.segments.keys()

    def require_readable(self) -> None:
        """Make sure that what is known of the segments is what they are; asked before anything is done to them.

        Raises:
            InputError, GeometryError: they are kept so that their voxels cannot be read or written.
        """
        if not self.store.is_gone and not self.store.is_readable:
            self.store.require_writable()

    def require_unlocked(self, segment_ids: Iterable[str]) -> None:
        """Raise an InputError that names the first of these segments that is locked."""
        for segment_id in segment_ids:
            if self.store.is_locked(segment_id):
                raise InputError(f"the segment '{self.store.name(segment_id)}' is locked: unlock it first")

    def answered(self, plan: SegmentPlan, answer: SegmentPrediction) -> AnsweredPlan:
        """Put an answer together with the voxels. Looks only where the segment may differ from what it is now."""
        segment, reach = self.segments[plan.segment_id], plan.merge.reach(answer.mask)
        keeps_seed = plan.after.seed == plan.before.seed
        if segment.state is not plan.before or not (plan.is_settled or keeps_seed):
            box = reach.union(plan.merge.seed.box).union(segment.mask().box)
        else:
            box = reach.union(plan.before.reach) if keeps_seed else reach
        present, future = self.store.read(plan.segment_id, box), plan.merge.result(answer.mask, box)
        return AnsweredPlan(plan, answer, change_between(present, future, box.start_kji), reach)

    def write(
        self,
        answers: Sequence[AnsweredPlan],
        policy: OverlapPolicy,
        prediction: Prediction | None,
        tell: Callable[[SegmentEdited], None],
    ) -> None:
        """Write one edit: the segments one after the other, all of it one entry of the undo stack.

        Args:
            answers: what is to be written.
            policy: who keeps contested voxels.
            prediction: the answer that it comes from; None where no model was asked.
            tell: told of what was written, also where something failed after it: that much can be undone.

        Raises:
            InputError: one of the segments is locked or deleted; nothing is written then.
            Exception: whatever the store raised.
        """
        for answered in answers:
            segment_id = answered.plan.segment_id
            if segment_id not in self.segments:
                raise GoneError("a segment was deleted meanwhile: nothing was written of what was asked with it")
            if self.store.is_locked(segment_id):
                name = self.store.name(segment_id)
                raise InputError(f"'{name}' was locked meanwhile, and nothing was written: unlock it and ask again")
        entry, scores, withheld = UndoEntry(), {}, {}
        is_whole = False
        try:
            for answered in answers:
                withheld |= self._write_segment(answered, policy, prediction, entry)
                scores[answered.plan.segment_id] = answered.answer.score
            is_whole = True
        finally:
            if is_whole or entry.after:
                forgotten = self.undo_stack.push(entry) if entry.after else 0
                kind: EditKind = "noted" if prediction is None else "predicted"
                notes = prediction.notes if prediction is not None else ()
                changes, created = changes_of(entry.written), tuple(entry.created)
                tell(SegmentEdited(kind, entry.after, changes, created, (), scores, notes, forgotten, withheld))
            if not is_whole:
                self.detect_external_changes()  # the store may have written a part of what failed
            self.settle()

    def _write_segment(
        self, answered: AnsweredPlan, policy: OverlapPolicy, prediction: Prediction | None, entry: UndoEntry
    ) -> Mapping[str, int]:
        """Write the answer of one segment; returns how many of its voxels each neighbour kept."""
        plan, segment_id = answered.plan, answered.plan.segment_id
        if self.segments[segment_id].state is not plan.before:
            # A neighbour, written just before, took voxels of the segment: they are wanted back.
            answered = self.answered(plan, answered.answer)
        if policy not in (OverlapPolicy.PROTECT, OverlapPolicy.ALLOW):
            # The segments that may lose voxels get them back when that is undone, so they have to be met before.
            for neighbour in self.store.segment_ids:
                if not self.store.occupied(neighbour).intersection(answered.change.gained.box).is_empty:
                    self.segment(neighbour)
        edit = self.follow(self.store.write_change(segment_id, answered.change, policy), entry)
        withheld = answered.withheld(edit.changes.get(segment_id, SegmentChange()), self.masks)
        if plan.after.seed not in self.masks:
            self.masks.put(plan.merge.seed)  # it may have gone while the answer was awaited
        state = plan.after.after(withheld) if withheld is not None else plan.after
        provenance = self.segments[segment_id].state.provenance
        if prediction is not None and plan.prompts:
            known = self.segments[segment_id]
            provenance = known.provenance(prediction, state, policy, self.version, answered.answer)
        self.enter(segment_id, replace(state, reach=answered.reach, provenance=provenance), entry)
        for other in edit.changes:
            if other != segment_id and other in self.segments:
                self.enter(other, self.segments[other].seeded(self.masks, "neighbour"), entry)
        if segment_id in self.provisional:
            entry.created[segment_id] = self.provisional.pop(segment_id)
        return self._withheld_by(segment_id, self.masks.get(withheld.denied), policy) if withheld is not None else {}

    def _withheld_by(self, segment_id: str, denied: PackedMask, policy: OverlapPolicy) -> Mapping[str, int]:
        """How many voxels of those that a segment was denied each neighbour has, if it keeps what it has."""
        voxels, counts = denied.unpack(), {}
        for other in self.store.segment_ids:
            is_kept = policy is OverlapPolicy.PROTECT or self.store.is_locked(other)
            if other != segment_id and is_kept and not self.store.occupied(other).intersection(denied.box).is_empty:
                count = int(np.count_nonzero(self.store.read(other, denied.box) & voxels))
                if count:
                    counts[other] = count
        return counts

    def enter(self, segment_id: str, state: SegmentState, entry: UndoEntry) -> None:
        """Put a segment into a state, and note in an entry which it had before."""
        segment = self.segments[segment_id]
        entry.before.setdefault(segment_id, segment.state)
        entry.after[segment_id] = segment.state = state

    def follow(self, edit: Edit, entry: UndoEntry | None = None) -> Edit:
        """Follow an edit that was made, note it in an entry if there is one, and return it."""
        if entry is not None and edit.changes:
            entry.written.append(edit)
        for segment_id, change in edit.changes.items():
            if segment_id in self.segments:
                self.segments[segment_id].follow(change)
        return edit

    def remove(self, segment_ids: Iterable[str]) -> None:
        """Delete segments whose voxels were taken away; undo brings them back."""
        for segment_id in segment_ids:
            self._forget(segment_id)  # before others hear of it, and look
            self._withdrawn.add(segment_id)
            self.store.remove(segment_id)

    def _forget(self, segment_id: str) -> None:
        self.segments.pop(segment_id, None)
        self.stamps.pop(segment_id, None)

    def restore(self, segment_id: str, state: SegmentState, mask: PackedMask, policy: OverlapPolicy) -> None:
        """Give an empty segment the state and the voxels of an earlier session; that cannot be undone.

        What the policy keeps back becomes part of the seed.
        """
        segment = self.segment(segment_id)
        edit = self.follow(self.store.write_change(segment_id, SegmentChange(gained=mask), policy))
        segment.state = replace(state, reach=mask.box.union(self.masks.get(state.seed).box))
        if edit.changes.get(segment_id, SegmentChange()).gained != mask:
            segment.state = segment.seeded(self.masks, "neighbour")
        others = edit.changes.keys() & self.segments.keys() - {segment_id}
        for other in others:
            self.segments[other].state = self.segments[other].seeded(self.masks, "neighbour")
            self.undo_stack.forget(other)
        self.settle()
        self.untold |= others | {segment_id}

    def undo(self, segment_id: str) -> SegmentEdited | None:
        """Take back the last edit of a segment; None if there is none (any more).

        Raises:
            GoneError: the segment was deleted.
            InputError: the edit changed another segment, too, of which something later has to be undone first.
        """
        self.require_readable()
        last = self.undo_stack.last(segment_id)
        if last is None or segment_id not in last.removed:
            if segment_id in self._withdrawn:
                return None
            self.segment(segment_id)
        self._require_free("undo", self.undo_stack.blocking_undo(segment_id))
        entry = self.undo_stack.undo(segment_id)
        if entry is None:
            return None
        try:
            for new in entry.removed.values():
                self._make(new)
            edited = self._carry_out("undone", entry.inverse, entry.before)
        except FoundationSegError:
            self.undo_stack.redo(segment_id)  # it was not undone, and can be later
            raise
        removed = self.withdraw(entry.created)
        self._withdrawn.update(removed)
        return replace(edited, created=tuple(entry.removed), removed=removed, unanswered=entry.unanswered_before)

    def redo(self, segment_id: str) -> SegmentEdited | None:
        """Do again what was undone last of a segment; None if there is nothing. Raises as :meth:`undo`.

        A segment whose making was undone comes back with its id, name and colour.
        """
        self.require_readable()
        if segment_id not in self._withdrawn:
            self.segment(segment_id)
        self._require_free("redo", self.undo_stack.blocking_redo(segment_id))
        entry = self.undo_stack.redo(segment_id)
        if entry is None:
            return None
        returning = [key for key in entry.created if key in self._withdrawn]
        try:
            for key in returning:
                self._make(replace(entry.created[key], segment_id=key))
            edited = self._carry_out("redone", entry.edits, entry.after)
            self.remove(entry.removed)
            if entry.unanswered_after:  # its answer is another edit
                self.undo_stack.done.remove(entry)
                self.provisional.update({key: entry.created[key] for key in returning})
            unanswered = entry.unanswered_after
            return replace(edited, created=tuple(returning), removed=tuple(entry.removed), unanswered=unanswered)
        except FoundationSegError:
            self.undo_stack.undo(segment_id)
            self._withdrawn.update(self.withdraw(returning))
            raise

    def accept(self, segment_id: str) -> SegmentEdited:
        """Note that the last change of a segment is right."""
        self.require_readable()
        segment, entry = self.segment(segment_id), UndoEntry()
        self.enter(segment_id, segment.state.after(AcceptStep()), entry)
        forgotten = self.undo_stack.push(entry)
        return SegmentEdited("accepted", entry.after, forgotten=forgotten)

    def reject(self, segment_id: str) -> SegmentEdited:
        """Take back the last change of a segment, and keep in its steps that it was wrong.

        Raises:
            GoneError: the segment was deleted.
            InputError: there is nothing to reject, it was accepted, or another segment's later change is in the way.
        """
        self.require_readable()
        self.segment(segment_id)
        entry = self.last_change(segment_id)
        if entry is None:
            raise InputError("there is no change to reject: it was accepted, or nothing was done yet")
        self._require_free("undo", self.undo_stack.blocking_undo(segment_id))
        before = {key: self.segments[key].state for key in entry.after}
        after = {key: rejected_state(entry, key) for key in entry.after}
        edited = self._carry_out("rejected", entry.inverse, after)
        edits = [Edit({key: change}) for key, changes in edited.changes.items() for change in changes]
        return replace(edited, forgotten=self.undo_stack.push(UndoEntry(edits, before, after)))

    def can_redo(self, segment_id: str) -> bool:
        """True where an edit of the segment was undone that can be done again."""
        return any(segment_id in entry.after for entry in self.undo_stack.undone)

    def last_change(self, segment_id: str) -> UndoEntry | None:
        """The last change of a segment, if it was neither accepted nor rejected yet."""
        entry = self.undo_stack.last(segment_id)
        steps = entry.after[segment_id].steps if entry is not None else ()
        return entry if steps and not isinstance(steps[-1], AcceptStep | RejectStep) else None

    def saved(self, segment_id: str) -> SavedSegment:
        """The part of a segment that is kept for a later session."""
        segment = self.segments[segment_id]
        return SavedSegment(segment.state, f"{segment.checksum():016x}", self.masks)

    def _require_free(self, verb: str, other: str | None) -> None:
        if other is not None:
            raise InputError(f"this changed '{self.store.name(other)}', too: first {verb} what was done to that later")

    def _carry_out(self, kind: EditKind, edits: Iterable[Edit], states: Mapping[str, SegmentState]) -> SegmentEdited:
        made = [self.follow(self.store.apply(edit)) for edit in edits]
        for key, state in states.items():
            self.segments[key].state = state
        self.settle()
        return SegmentEdited(kind, states, changes_of(made))

    def settle(self) -> None:
        """Take what was changed in between for our own work."""
        for key, stamp in self.store.stamps().items():
            if stamp is not None:
                self.stamps[key] = stamp

    def take_untold(self) -> SegmentEdited:
        """The event of what happened to segments without an edit, which is told once."""
        untold, self.untold = self.untold, set()
        kind, self._untold_kind = self._untold_kind, "others"
        return SegmentEdited(kind, {key: known.state for key, known in self.segments.items() if key in untold})

    def keep_steps(self, edited: SegmentEdited) -> None:
        """Keep the steps of the segments of an edit in the prompt store; a listener."""
        if self.prompt_store is not None:
            for key in edited.states:
                if key in self.segments:
                    self.prompt_store.write(key, self.saved(key))
