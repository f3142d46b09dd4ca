"""What was written to the segments of one segmentation, what others did to them, and how to take it back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .errors import FoundationSegError, GoneError, InputError
from .geometry import EMPTY_BOX, Box
from .history import Entry, History
from .mask import Edit, PackedMask, SegmentChange
from .mask_table import MaskTable
from .outcomes import Done, What
from .overlap import OverlapPolicy
from .records import Record, RecordState, kept_steps, open_record
from .requests import Prediction
from .segment_store import PromptStore, SegmentStore
from .steps import AcceptStep, RejectStep, Steps, effective, standing
from .writing import Computed, Writing, follow, provenance_of, renewed


@dataclass(slots=True)
class Ledger:
    """The records of all segments that a session met, and the history of what it did to them.

    Attributes:
        store: where the segments are.
        prompt_store: where their steps are kept with them, if anywhere.
        version: of the software, for the provenance.
        history: what can be undone.
        masks: what steps refer to.
        records: the segments that the session met.
    """

    store: SegmentStore
    prompt_store: PromptStore | None = None
    version: str = ""
    history: History[RecordState] = field(default_factory=History)
    masks: MaskTable = field(default_factory=MaskTable)
    records: dict[str, Record] = field(default_factory=dict)

    def look(self) -> frozenset[str]:
        """Find out what others did meanwhile; returns the ids of segments that they changed or deleted.

        Segments that were changed take their present voxels as their seed, and what was done to them before cannot be
        undone any more. With the volume or the segmentation gone, everything is forgotten.
        """
        there = () if self.store.is_gone else self.store.segment_ids
        gone = self.records.keys() - set(there)
        for segment_id in gone:
            del self.records[segment_id]
        changed = {key for key, record in self.records.items() if record.look(self.store, key, self.masks)}
        for segment_id in changed | gone:
            self.history.forget(segment_id)
        self._save(changed)
        return frozenset(changed | gone)

    def record(self, segment_id: str) -> Record:
        """What is known of a segment, as it stands now.

        Raises:
            GoneError: it was deleted, or all of it was.
        """
        self.look()
        if self.store.is_gone or segment_id not in self.store.segment_ids:
            raise GoneError("the volume, the segmentation or the segment was deleted: choose another one")
        self._meet(segment_id)
        return self.records[segment_id]

    def _meet(self, segment_id: str) -> None:
        if segment_id not in self.records:
            document = self.prompt_store.read(segment_id) if self.prompt_store is not None else None
            self.records[segment_id] = open_record(self.store, segment_id, self.masks, document)

    def _meet_neighbours(self, box: Box) -> None:
        """Get to know the segments that may lose voxels in a box, so that they get them back when that is undone."""
        for segment_id in self.store.segment_ids:
            if not self.store.occupied(segment_id).intersection(box).is_empty:
                self._meet(segment_id)

    def write(self, computed: Sequence[Computed], policy: OverlapPolicy, prediction: Prediction | None) -> Done:
        """Write one action: the segments one after the other, all of it one entry of the history.

        Raises:
            InputError: a segment is locked; what was written before it can be undone.
        """
        writing, scores = Writing(self.store, self.records, self.masks), {}
        try:
            for wanted in computed:
                one = renewed(wanted, self.store, self.records)
                if policy in (OverlapPolicy.OVERWRITE, OverlapPolicy.PROTECT_LOCKED):
                    self._meet_neighbours(one.change.gained.box)
                told = None if prediction is None else provenance_of(prediction, one.prepared, self.version)
                segment_id = writing.write(one, policy, told if one.prepared.plan.prompts else None)
                scores[segment_id] = one.answer.score
        finally:
            forgotten = self.history.push(writing.entry) if writing.after else 0
            self._settle(writing.after)
        notes = prediction.notes if prediction is not None else ()
        return Done(
            "noted" if prediction is None else "predicted",
            writing.changes,
            tuple(writing.created),
            scores,
            notes,
            forgotten,
        )

    def restore(
        self, segment_id: str, steps: Steps, mask: PackedMask, policy: OverlapPolicy, provenance: Mapping[str, str]
    ) -> None:
        """Give an empty segment the steps and the voxels of an earlier session; that cannot be undone.

        What the policy keeps back becomes part of the seed.
        """
        record = self.record(segment_id)
        edit = self.store.write(segment_id, SegmentChange(gained=mask), policy)
        follow(edit, self.records)
        now = standing(steps)
        reach = mask.box.union(self.masks.get(now.seed).box)
        record.state = RecordState(steps, now, reach, provenance)
        if edit.changes.get(segment_id, SegmentChange()).gained != mask:
            record.state = replace(record.seeded(self.masks, "neighbour"), reach=EMPTY_BOX)
        for other in edit.changes.keys() & self.records.keys() - {segment_id}:
            self.records[other].state = replace(self.records[other].seeded(self.masks, "neighbour"), reach=EMPTY_BOX)
            self.history.forget(other)
        self._settle(edit.changes.keys() & self.records.keys() | {segment_id})

    def undo(self, segment_id: str) -> Done | None:
        """Take back the last action of a segment; None if there is none (any more).

        Raises:
            GoneError: the segment was deleted.
            InputError: the action changed another segment, too, of which something later has to be undone first.
        """
        self.record(segment_id)
        self._require_free("undo", self.history.blocking_undo(segment_id))
        entry = self.history.undo(segment_id)
        if entry is None:
            return None
        try:
            return self._carry_out("undone", entry.inverse, entry.before.items())
        except FoundationSegError:
            self.history.redo(segment_id)  # it was not undone, and can be later
            raise

    def redo(self, segment_id: str) -> Done | None:
        """Do again what was undone last of a segment; None if there is nothing. Raises as :meth:`undo`."""
        self.record(segment_id)
        self._require_free("redo", self.history.blocking_redo(segment_id))
        entry = self.history.redo(segment_id)
        if entry is None:
            return None
        try:
            return self._carry_out("redone", entry.edits, entry.after.items())
        except FoundationSegError:
            self.history.undo(segment_id)
            raise

    def accept(self, segment_id: str) -> Done:
        """Note that the last change of a segment is right."""
        record = self.record(segment_id)
        before, after = record.state, record.state.with_steps(AcceptStep())
        record.state = after
        forgotten = self.history.push(Entry((), {segment_id: before}, {segment_id: after}))
        self._settle((segment_id,))
        return Done("noted", {}, forgotten=forgotten)

    def reject(self, segment_id: str) -> Done:
        """Take back the last change of a segment, and keep in its steps that it was wrong.

        Raises:
            GoneError: the segment was deleted.
            InputError: there is nothing to reject, it was accepted, or another segment's later change is in the way.
        """
        self.record(segment_id)
        entry = self.history.last(segment_id)
        if entry is None or isinstance(entry.after[segment_id].steps[-1], AcceptStep | RejectStep):
            raise InputError("there is no change to reject: it was accepted, or nothing was done yet")
        self._require_free("undo", self.history.blocking_undo(segment_id))
        before = {key: self.records[key].state for key in entry.after}
        after = {key: _rejected(entry, key) for key in entry.after}
        done = self._carry_out("rejected", entry.inverse, after.items())
        edits = tuple(Edit({key: change}) for key, changes in done.changes.items() for change in changes)
        return replace(done, forgotten=self.history.push(Entry(edits, before, after)))

    def _require_free(self, what: str, other: str | None) -> None:
        if other is not None:
            raise InputError(f"this changed '{self.store.name(other)}', too: first {what} what was done to that later")

    def _carry_out(
        self,
        what: What,
        edits: Iterable[Edit],
        states: Iterable[tuple[str, RecordState]],
    ) -> Done:
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
        return Done(what, changes)

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
