"""Edits of segments that no model is asked for: clear, delete, and take what neighbours kept. Undo takes them back."""

from collections.abc import Sequence

from ..errors import InputError
from ..imaging.masks import Edit, SegmentChange, pack_mask, without_mask
from .segment_history import SegmentHistory, changes_of
from .segment_store import EditKind, NewSegment, OverlapPolicy, SegmentEdited
from .session import Session
from .steps import SegmentState, WithheldStep
from .tracking import UndoEntry


def clear_segments(session: Session, segment_ids: Sequence[str], removes: bool = False) -> None:
    """Take all voxels and prompts of segments away, and where it ``removes``, the segments themselves; as one edit.

    What waits for an answer there is taken back first.

    Raises:
        GoneError: a segment was deleted.
        InputError: one is locked. Nothing is changed then.
    """
    session.detect_external_changes()
    session.history.require_readable()
    session.history.require_unlocked(segment_ids)
    for segment_id in segment_ids:
        session.discard(segment_id)
    present = [segment_id for segment_id in segment_ids if segment_id in session.segment_ids]  # a new one has gone
    session.tell_edited(_clear(session.history, present, removes) if present else None)


def _clear(history: SegmentHistory, segment_ids: Sequence[str], removes: bool) -> SegmentEdited:
    masks = {segment_id: history.segment(segment_id).mask() for segment_id in segment_ids}
    entry = UndoEntry()
    for segment_id, mask in masks.items():
        history.follow(history.store.apply(Edit({segment_id: SegmentChange(lost=mask)})), entry)
        history.enter(segment_id, SegmentState(), entry)
        if removes:
            entry.removed[segment_id] = NewSegment(history.store.name(segment_id), segment_id=segment_id)
    edited = _finish(history, "deleted" if removes else "cleared", entry)
    history.remove(entry.removed)
    return edited


def take_withheld(session: Session, segment_id: str) -> None:
    """Give a segment the voxels that its last answer wanted and neighbours kept; those that are not locked lose them.

    Raises:
        GoneError: the segment was deleted.
        InputError: it is locked, or its neighbours kept nothing.
    """
    session.detect_external_changes()
    history, store = session.history, session.store
    history.require_readable()
    state = history.segment(segment_id).state
    denied = history.masks.get(state.denied)
    wanted = pack_mask(denied.unpack() & ~store.read(segment_id, denied.box), denied.box.start_kji)
    if wanted.box.is_empty:
        raise InputError("no neighbour kept voxels of this segment")
    for neighbour in store.segment_ids:
        history.segment(neighbour)  # what it loses, it gets back with undo
    entry = UndoEntry()
    change = SegmentChange(gained=wanted)
    edit = history.follow(store.write_change(segment_id, change, OverlapPolicy.PROTECT_LOCKED), entry)
    rest = without_mask(denied, edit.changes.get(segment_id, SegmentChange()).gained)
    history.enter(segment_id, state.after(WithheldStep(history.masks.put(rest), state.retained)), entry)
    for neighbour in edit.changes.keys() - {segment_id}:
        history.enter(neighbour, history.segments[neighbour].seeded(history.masks, "neighbour"), entry)
    session.tell_edited(_finish(history, "taken", entry))


def last_deleted(session: Session) -> str:
    """The id of a segment that the last edit of all deleted, for undo; empty where it deleted none."""
    done = session.history.undo_stack.done
    return next(iter(done[-1].removed), "") if done else ""


def _finish(history: SegmentHistory, kind: EditKind, entry: UndoEntry) -> SegmentEdited:
    changes = changes_of(entry.written)
    forgotten = history.undo_stack.push(entry)
    history.settle()
    return SegmentEdited(kind, entry.after, changes, removed=tuple(entry.removed), forgotten=forgotten)
