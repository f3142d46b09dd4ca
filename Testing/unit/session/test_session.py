import numpy as np
import pytest

from FoundationSegLib.errors import InferenceError, InputError, PromptError
from FoundationSegLib.prompts.kinds import BoxPrompt
from FoundationSegLib.session.segment_store import ArrayStore, NewSegment, Refused, SegmentEdited
from Testing.unit.session.session_cases import SLICES, VOLUMES, make_session, mask_of, point, segment_of


def test_what_a_prompt_added_is_told(session, segment, told):
    segment.add(point(3))
    (done,) = told
    assert isinstance(done, SegmentEdited) and done.kind == "predicted" and done.scores == {segment.segment_id: 0.5}
    assert done.changes[segment.segment_id][0].gained.voxels == mask_of(segment).sum() == 25


def test_undo_and_redo_ask_no_model(session, segment):
    segment.add(point(3))
    first, steps = mask_of(segment), segment.steps
    segment.add(point(5))
    asked = len(session.client.requests)
    assert session.undo(segment.segment_id)
    assert np.array_equal(mask_of(segment), first) and segment.steps == steps
    assert session.undo(segment.segment_id) and not mask_of(segment).any() and segment.steps == ()
    assert session.undo(segment.segment_id) and session.store.segment_ids == (), "it was made here"
    assert not session.undo(segment.segment_id)
    assert all(session.redo(segment.segment_id) for _ in range(3))
    assert not session.redo(segment.segment_id)
    assert mask_of(segment).sum() == 50 and len(session.client.requests) == asked


def test_switching_segments_keeps_the_history_of_each(session):
    one, other = segment_of(session, "A"), segment_of(session, "B")
    one.add(point(1))
    other.add(point(3))
    one.add(point(5))
    assert session.undo(other.segment_id)
    assert (mask_of(one).sum(), mask_of(other).sum()) == (50, 0)
    assert session.undo(one.segment_id) and session.undo(one.segment_id)
    assert session.redo(other.segment_id)
    assert (mask_of(one).sum(), mask_of(other).sum()) == (0, 25)


def test_what_is_newer_is_answered_alone(session, segment):
    session.client.is_slow = True
    segment.add(point(1))
    segment.add(point(3))
    _, second = session.client.requests
    assert len(second.segments[0].prompts) == 2
    session.client.reply(0)
    assert not mask_of(segment).any() and session.request_id == second.request_id
    session.client.reply(1)
    assert mask_of(segment).sum() == 50
    assert session.undo(segment.segment_id) and segment.steps == ()


def test_segments_that_wait_are_asked_together(session):
    one, other = segment_of(session, "Same"), segment_of(session, "Same")
    session.client.is_slow = True
    one.add(point(1))
    other.add(point(3))
    session.client.reply()
    assert len({asked.name for asked in session.client.requests[-1].segments}) == 2
    assert (mask_of(one).sum(), mask_of(other).sum()) == (25, 25)
    assert session.undo(one.segment_id) and mask_of(other).any(), "each has its own entry"


def test_what_goes_on_from_propagation_waits_for_it(session, segment):
    session.client.is_slow = True
    segment.add(point(3))
    session.client.reply()
    segment.propagate()
    segment.add(point(5, 8, 9))
    assert len(session.client.requests) == 2
    session.client.reply()
    assert len(session.client.requests) == 3 and session.client.requests[2].propagation is None
    session.client.reply()
    assert mask_of(segment).sum() == 8 * 25 + 4 * 5 - 1
    assert session.request_id is None


def test_a_failure_keeps_what_was_asked(session, segment, told):
    session.client.fails = True
    segment.add(point(3))
    assert isinstance(told[-1], Refused) and isinstance(told[-1].error, InferenceError)
    assert not mask_of(segment).any() and list(segment.prompts) == ["1"]
    session.client.fails = False
    segment.add(point(5))
    assert mask_of(segment).sum() == 50, "what failed goes with the next prompt"
    session.client.fails = True
    segment.add(point(7))
    session.client.fails = False
    session.retry()
    assert mask_of(segment).sum() == 75


def test_what_failed_can_be_discarded(session, segment):
    session.client.fails = True
    segment.add(point(3))
    assert session.discard() and not session.discard()
    assert segment.steps == () and not session.history.undo_stack.last(segment.segment_id).edits


def test_what_waits_is_told(session, segment):
    told = []
    session.on_queued = lambda segment_id: told.append((segment_id, session.steps(segment_id)))
    session.client.is_slow = True
    segment.add(point(3))
    asked = segment.steps
    assert told == [(segment.segment_id, asked)] and len(asked) == 1
    session.discard()
    assert told[1:] == [(segment.segment_id, ())]


def test_steps_that_take_the_place_of_others_do_so_before_they_are_answered(session, segment):
    segment.add(point(3))
    session.client.is_slow = True
    segment.ask_again(VOLUMES)
    assert list(segment.prompts) == ["1"]
    steps = segment.steps
    session.client.reply()
    assert segment.steps == steps


def test_undo_takes_back_first_what_waits(session, segment):
    segment.add(point(3))
    session.client.is_slow = True
    segment.add(point(5))
    assert session.undo(segment.segment_id)
    assert session.client.cancelled == [session.client.requests[-1].request_id]
    session.client.reply()
    assert mask_of(segment).sum() == 25 and session.request_id is None


def test_discarding_one_segment_asks_for_the_others_again(session):
    one, other = segment_of(session, "A"), segment_of(session, "B")
    session.client.is_slow = True
    one.add(point(1))
    other.add(point(3))
    session.discard(other.segment_id)
    session.client.reply()
    assert (mask_of(one).sum(), mask_of(other).sum()) == (25, 0)


def test_a_mistake_is_told_at_once_and_changes_nothing(session, segment):
    with pytest.raises(InputError, match="no prompt '9'"):
        segment.remove("9")
    with pytest.raises(PromptError, match="outside"):
        segment.add(BoxPrompt(((900.0, 0.0, 0.0), (905.0, 5.0, 5.0))))
    with pytest.raises(PromptError, match="nothing to propagate"):
        segment.propagate()
    assert segment.steps == () and not session.client.requests
    session.options.choice = None
    with pytest.raises(InputError, match="no model"):
        segment.add(point(3))


def test_what_falls_out_of_the_history_is_told(session, told):
    session.history.undo_stack.budget_bytes = 12
    segment = segment_of(session)
    for k in range(6):
        segment.add(point(k))
    assert sum(done.forgotten for done in told) >= 2
    while session.undo(segment.segment_id):
        pass
    assert mask_of(segment).any()


def test_another_grid_is_refused(session):
    store = ArrayStore(session.volume.geometry)
    assert store.add(NewSegment("A")) == "1"
    with pytest.raises(InputError, match="another grid"):
        make_session(store=store, shape=(3, 3, 3))


def test_the_model_may_be_none_until_it_is_needed():
    session, _ = make_session(choice=None)
    segment = segment_of(session)
    session.options.choice = SLICES
    segment.add(point(3))
    assert mask_of(segment).any()
