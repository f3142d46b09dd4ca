import itertools

import numpy as np
import pytest

from FoundationSegLib.core.array_store import ArrayStore
from FoundationSegLib.core.errors import GoneError, InferenceError, InputError, PromptError
from FoundationSegLib.core.history import History
from FoundationSegLib.core.outcomes import Done, Pending, Refused
from FoundationSegLib.core.overlap import OverlapPolicy
from FoundationSegLib.core.prompts import BoxPrompt, PointPrompt, Polarity
from FoundationSegLib.core.segment_store import NewSegment
from FoundationSegLib.core.session_segment import SegmentSession
from FoundationSegLib.core.steps import AcceptStep, RejectStep, SeedStep, WithheldStep
from Testing.unit.core.session_cases import SHAPE, SLICES, make_session, mask_of, ras, segment_of


@pytest.fixture
def session():
    return make_session()[0]


@pytest.fixture
def segment(session):
    return segment_of(session)


@pytest.fixture
def told(session):
    outcomes = []
    session.on_outcome = outcomes.append
    return outcomes


def point(k, j=4, i=5, polarity=Polarity.POSITIVE):
    return PointPrompt(ras(k, j, i), polarity)


def test_what_a_prompt_added_is_told(session, segment, told):
    segment.add(point(3))
    (done,) = told
    assert isinstance(done, Done) and done.what == "predicted" and done.scores == {segment.segment_id: 0.5}
    assert done.changes[segment.segment_id][0].gained.voxels == mask_of(segment).sum() == 25


def test_undo_and_redo_ask_no_model(session, segment):
    segment.add(point(3))
    first, steps = mask_of(segment), segment.steps
    segment.add(point(5))
    asked = len(session.client.requests)
    assert session.undo(segment.segment_id)
    assert np.array_equal(mask_of(segment), first) and segment.steps == steps
    assert session.undo(segment.segment_id) and not mask_of(segment).any() and segment.steps == ()
    assert not session.undo(segment.segment_id)
    assert session.redo(segment.segment_id) and session.redo(segment.segment_id)
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
    assert segment.steps == () and not session.undo(segment.segment_id)


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


def test_a_locked_segment_is_refused(session, segment):
    session.ledger.store.lock(segment.segment_id)
    with pytest.raises(InputError, match="locked"):
        segment.add(point(3))


class TestAskingFirst:
    def test_what_would_delete_much_waits(self, session, segment, told):
        segment.add(BoxPrompt((ras(3, 1, 1), ras(3, 8, 9))))
        before, steps = mask_of(segment), segment.steps
        segment.add(BoxPrompt((ras(3, 2, 1), ras(3, 8, 9)), Polarity.NEGATIVE))
        assert session.pending == told[-1] and isinstance(told[-1], Pending)
        assert round(told[-1].lost_share, 3) == 0.875 and not told[-1].by_hand
        assert np.array_equal(mask_of(segment), before)
        assert session.discard() and session.pending is None and segment.steps == steps
        segment.add(BoxPrompt((ras(3, 2, 1), ras(3, 8, 9)), Polarity.NEGATIVE))
        session.confirm()
        assert mask_of(segment).sum() == 9 and session.pending is None

    def test_the_share_is_chosen(self, session, segment):
        segment.add(BoxPrompt((ras(3, 1, 1), ras(3, 8, 9))))
        session.options.ask_above = 0.9
        segment.add(BoxPrompt((ras(3, 2, 1), ras(3, 8, 9)), Polarity.NEGATIVE))
        assert mask_of(segment).sum() == 9

    def test_taking_a_prompt_back_is_meant(self, session, segment):
        (key,) = segment.add(point(3))
        segment.remove(key)
        assert not mask_of(segment).any()

    def test_what_was_drawn_by_hand_is_asked_for(self, session, segment, told):
        segment.add(point(3))
        mask = mask_of(segment)
        mask[3, 2, 3] = False
        session.ledger.store.put(segment.segment_id, mask)
        segment.add(point(3, 4, 5))
        assert told[-1].by_hand == 1 and told[-1].lost_share == 0
        assert not mask_of(segment)[3, 2, 3]
        session.confirm()
        assert mask_of(segment)[3, 2, 3]

    def test_a_prompt_more_is_asked_with_what_is_pending(self, session, segment):
        segment.add(BoxPrompt((ras(3, 1, 1), ras(3, 8, 9))))
        segment.add(BoxPrompt((ras(3, 2, 1), ras(3, 8, 9)), Polarity.NEGATIVE))
        segment.add(BoxPrompt((ras(3, 2, 1), ras(3, 8, 9))))
        assert session.pending is None and mask_of(segment).sum() == 72

    def test_somebody_paints_before_it_is_confirmed(self, session, segment):
        segment.add(BoxPrompt((ras(3, 1, 1), ras(3, 8, 9))))
        segment.add(BoxPrompt((ras(3, 2, 1), ras(3, 8, 9)), Polarity.NEGATIVE))
        mask = mask_of(segment)
        mask[6] = True
        session.ledger.store.put(segment.segment_id, mask)
        session.confirm()
        assert mask_of(segment)[6].all()
        assert session.pending is None or not session.pending.by_hand


class TestAcceptAndReject:
    def test_a_rejected_change_is_taken_back_and_kept_in_mind(self, session, segment):
        segment.add(point(3))
        before = mask_of(segment)
        segment.add(point(5))
        session.reject(segment.segment_id)
        assert np.array_equal(mask_of(segment), before) and list(segment.prompts) == ["1"]
        assert isinstance(segment.steps[-1], RejectStep)
        assert session.undo(segment.segment_id) and mask_of(segment).sum() == 50 and len(segment.prompts) == 2
        assert session.redo(segment.segment_id) and np.array_equal(mask_of(segment), before)

    def test_keys_of_rejected_prompts_do_not_come_again(self, session, segment):
        segment.add(point(3))
        session.reject(segment.segment_id)
        assert segment.add(point(5)) == ("2",)

    def test_what_was_accepted_cannot_be_rejected_but_undone(self, session, segment):
        segment.add(point(3))
        session.accept(segment.segment_id)
        assert isinstance(segment.steps[-1], AcceptStep)
        with pytest.raises(InputError, match="accepted"):
            session.reject(segment.segment_id)
        assert session.undo(segment.segment_id) and session.undo(segment.segment_id)
        assert not mask_of(segment).any()

    def test_what_waits_is_rejected_first(self, session, segment):
        segment.add(point(3))
        session.client.is_slow = True
        segment.add(point(5))
        session.reject(segment.segment_id)
        assert mask_of(segment).sum() == 25 and list(segment.prompts) == ["1"]

    def test_nothing_to_reject(self, session, segment):
        with pytest.raises(InputError, match="no change to reject"):
            session.reject(segment.segment_id)


class TestOthers:
    def paint(self, segment, *voxels):
        mask = mask_of(segment)
        for voxel in voxels:
            mask[voxel] = not mask[voxel]
        segment.session.ledger.store.put(segment.segment_id, mask)
        return mask

    def test_an_edit_by_hand_becomes_the_seed_and_stays(self, session, segment):
        segment.add(point(3))
        painted = self.paint(segment, (6, 0, 0), (3, 4, 5))
        assert not session.undo(segment.segment_id)
        assert np.array_equal(mask_of(segment), painted)
        seed = segment.steps[-1]
        assert isinstance(seed, SeedStep) and seed.reason == "hand"
        assert np.array_equal(session.ledger.masks.get(seed.mask).expand(SHAPE), painted)
        segment.add(point(1))
        assert session.undo(segment.segment_id) and not session.undo(segment.segment_id)
        assert np.array_equal(mask_of(segment), painted)

    def test_one_while_a_request_is_out(self, session, segment):
        segment.add(point(3))
        session.client.is_slow = True
        segment.add(point(1))
        self.paint(segment, (6, 0, 0), (3, 4, 5))
        session.client.reply()
        if session.request_id is not None:  # what is asked is another thing after the edit
            session.client.reply()
        mask = mask_of(segment)
        assert mask[6, 0, 0] and not mask[3, 4, 5] and mask[1].sum() == 25
        assert session.request_id is None and session.pending is None

    def test_nothing_is_seen_where_nothing_changed(self, session, segment):
        segment.add(point(3))
        session.ledger.store.put(segment.segment_id, mask_of(segment))
        assert session.look() == frozenset() and session.undo(segment.segment_id)

    def test_a_segment_that_is_deleted(self, session, segment, told):
        session.client.is_slow = True
        segment.add(point(3))
        session.ledger.store.remove(segment.segment_id)
        session.client.reply()
        assert told == [] and session.request_id is None
        for call in (segment.add, lambda *_: session.undo(segment.segment_id)):
            with pytest.raises(GoneError):
                call(point(3))

    @pytest.mark.parametrize("fails", [False, True])
    def test_everything_is_deleted(self, session, segment, told, fails):
        session.client.is_slow = True
        segment.add(point(3))
        session.ledger.store.is_gone, session.client.fails = True, fails
        session.client.reply()
        session.confirm()
        session.retry()
        assert told == [] and session.request_id is None and not session.discard()
        with pytest.raises(GoneError):
            segment.add(point(3))


class TestNeighbours:
    def test_what_a_neighbour_keeps_is_remembered(self, session):
        one, other = segment_of(session, "A"), segment_of(session, "B")
        one.add(point(3))
        other.add(point(3, 4, 7))
        assert mask_of(other).sum() == 10 and isinstance(other.steps[-1], WithheldStep)
        session.undo(one.segment_id)
        fresh, _ = make_session()
        fresh.ledger.masks = session.ledger.masks
        copy = segment_of(fresh)
        copy.replay(other.steps)
        assert np.array_equal(mask_of(copy), mask_of(other)), "also where the neighbour is not there any more"

    def test_what_is_overwritten_comes_back(self, session):
        one, other = segment_of(session, "A"), segment_of(session, "B")
        one.add(point(3))
        session.options.policy = OverlapPolicy.OVERWRITE
        other.add(point(3, 4, 7))
        assert (mask_of(one).sum(), mask_of(other).sum()) == (10, 25)
        assert one.steps[-1].reason == "neighbour"
        other.add(point(5))
        with pytest.raises(InputError, match="changed 'B 1', too"):
            session.undo(one.segment_id)
        assert session.undo(other.segment_id) and session.undo(one.segment_id)
        assert (mask_of(one).sum(), mask_of(other).sum()) == (25, 0)
        assert session.redo(other.segment_id) and (mask_of(one).sum(), mask_of(other).sum()) == (10, 25)

    def test_overwriting_each_other_in_one_request(self, session):
        one, other = segment_of(session, "A"), segment_of(session, "B")
        session.options.policy = OverlapPolicy.OVERWRITE
        other.add(point(3))
        session.client.is_slow = True
        one.add(point(3, 4, 7))
        other.add(point(5))
        session.client.reply()
        assert not (mask_of(one) & mask_of(other)).any()
        assert mask_of(other).sum() == 50, "the later one wins"
        for segment in (other, one, other):
            assert session.undo(segment.segment_id)
        assert not mask_of(one).any() and not mask_of(other).any()


def test_what_falls_out_of_the_history_is_told(session, told):
    session.ledger.history = History(budget_bytes=12)
    segment = segment_of(session)
    for k in range(6):
        segment.add(point(k))
    assert sum(done.forgotten for done in told) >= 2
    while session.undo(segment.segment_id):
        pass
    assert mask_of(segment).any()


def test_numbers_of_requests_can_be_shared(session, segment):
    session.numbers = itertools.count(100)
    segment.add(point(3))
    assert session.client.requests[-1].request_id == 100


class Shelf(dict):
    """A store of prompts, and what is put there."""

    def read(self, segment_id):
        return self.get(segment_id)

    def write(self, segment_id, document):
        self[segment_id] = document


def test_steps_go_on_in_another_session(session):
    shelf = session.ledger.prompt_store = Shelf()
    segment = segment_of(session)
    segment.add(point(3), point(5))
    session.undo(segment.segment_id)
    assert shelf[segment.segment_id]["steps"] == []
    session.redo(segment.segment_id)
    again, _ = make_session(store=session.ledger.store)
    again.ledger.prompt_store = shelf
    copy = SegmentSession(again, segment.segment_id)
    assert copy.steps == segment.steps
    copy.remove("1")
    assert not mask_of(copy)[3].any() and mask_of(copy)[5].sum() == 25


def test_steps_go_on_from_what_was_changed_between_two_sessions(session):
    shelf = session.ledger.prompt_store = Shelf()
    segment = segment_of(session)
    segment.add(point(3))
    mask = mask_of(segment)
    mask[6, 6, 6] = True
    session.ledger.store.put(segment.segment_id, mask)
    again, _ = make_session(store=session.ledger.store)
    again.ledger.prompt_store = shelf
    copy = SegmentSession(again, segment.segment_id)
    copy.add(point(1))
    assert copy.steps[-2].reason == "hand" and mask_of(copy)[6, 6, 6] and mask_of(copy)[3].sum() == 25


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
