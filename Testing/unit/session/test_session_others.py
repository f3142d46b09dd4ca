from functools import partial

import numpy as np
import pytest

from FoundationSegLib.errors import FoundationSegError, GeometryError, GoneError, InputError
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.masks import SegmentChange, pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.session.segment_store import (
    ArrayStore,
    ImageChanged,
    NewSegment,
    OverlapPolicy,
    Refused,
    SegmentEdited,
)
from FoundationSegLib.session.segments import SegmentSession, clear_segments
from FoundationSegLib.session.steps import SeedStep, WithheldStep
from Testing.unit.session.session_cases import SHAPE, VOLUMES, document_of, make_session, mask_of, point, segment_of


class TestOthers:
    def paint(self, segment, *voxels):
        mask = mask_of(segment)
        for voxel in voxels:
            mask[voxel] = not mask[voxel]
        segment.session.store.put(segment.segment_id, mask)
        return mask

    def test_an_edit_by_hand_becomes_the_seed_and_stays(self, session, segment):
        segment.add(point(3))
        painted = self.paint(segment, (6, 0, 0), (3, 4, 5))
        assert not session.undo(segment.segment_id)
        assert np.array_equal(mask_of(segment), painted)
        seed = segment.steps[-1]
        assert isinstance(seed, SeedStep) and seed.reason == "hand"
        assert np.array_equal(session.history.masks.get(seed.mask).expand(SHAPE), painted)
        segment.add(point(1))
        assert session.undo(segment.segment_id) and not session.undo(segment.segment_id)
        assert np.array_equal(mask_of(segment), painted)

    def test_masks_of_older_steps_are_within_the_budget_of_undo(self, session, segment):
        """They go before any edit; what is there is kept, undone and replayed without them."""
        masks, stack = session.history.masks, session.history.undo_stack
        stack.budget_bytes, session.options.ask_above = 1500, None
        session.store.put(segment.segment_id, np.random.default_rng(0).random(SHAPE) < 0.5)
        for k in range(24):
            self.paint(segment, (k % 8, k % 10, 0))
            segment.add(point(k % 8))
        assert masks.nbytes + stack.nbytes <= 1500
        seeds = {step.mask for step in segment.steps if isinstance(step, SeedStep)}
        document, before = segment.to_document(), mask_of(segment)
        assert len(seeds) > 20 and len(seeds & document["masks"].keys()) < 10
        fresh, _ = make_session(ask_above=None)
        again = segment_of(fresh)
        again.replay_document(document)
        assert np.array_equal(mask_of(again), before)
        assert session.undo(segment.segment_id) and session.redo(segment.segment_id)
        assert np.array_equal(mask_of(segment), before)

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
        assert session.request_id is None and session.confirmation is None

    def test_nothing_is_seen_where_nothing_changed(self, session, segment):
        segment.add(point(3))
        session.store.put(segment.segment_id, mask_of(segment))
        assert session.detect_external_changes() == frozenset() and session.undo(segment.segment_id)

    def test_a_segment_that_is_deleted(self, session, segment, told):
        session.client.is_slow = True
        segment.add(point(3))
        session.store.remove(segment.segment_id)
        session.client.reply()
        assert told == [] and session.request_id is None
        for call in (segment.add, lambda *_: session.undo(segment.segment_id)):
            with pytest.raises(GoneError):
                call(point(3))

    @pytest.mark.parametrize("fails", [False, True])
    def test_everything_is_deleted(self, session, segment, told, fails):
        session.client.is_slow = True
        segment.add(point(3))
        session.store.is_gone, session.client.fails = True, fails
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
        fresh, _ = make_session(ask_above=None)
        fresh.history.masks = session.history.masks
        copy = segment_of(fresh)
        copy.replay(other.steps)
        assert np.array_equal(mask_of(copy), mask_of(other)), "also where the neighbour is not there any more"

    def test_another_model_stays_away_from_neighbours(self, session):
        one, other = segment_of(session, "A"), segment_of(session, "B")
        one.add(point(3))
        other.add(point(5))
        one.ask_again(VOLUMES)
        assert mask_of(one).sum() == 100 and not (mask_of(one) & mask_of(other)).any()
        steps, mask = one.steps, mask_of(one)
        one.replay(steps)
        assert np.array_equal(mask_of(one), mask)

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


class Shelf(dict):
    """A store of prompts, and what is put there."""

    def read(self, segment_id):
        return self.get(segment_id)

    def write(self, segment_id, kept):
        self[segment_id] = document_of(kept)


def test_steps_go_on_in_another_session(session):
    shelf = session.history.prompt_store = Shelf()
    segment = segment_of(session)
    segment.add(point(3), point(5))
    session.undo(segment.segment_id)
    assert shelf[segment.segment_id]["steps"] == []
    session.redo(segment.segment_id)
    again, _ = make_session(store=session.store)
    again.history.prompt_store = shelf
    copy = SegmentSession(again, segment.segment_id)
    assert copy.steps == segment.steps
    copy.remove("1")
    assert not mask_of(copy)[3].any() and mask_of(copy)[5].sum() == 25


def test_an_edit_is_kept_then_noted_then_told_whoever_raises(session):
    shelf, heard = Shelf(), []
    session.history.prompt_store, session.on_outcome = shelf, lambda outcome: heard.append(outcome.kind)
    one, other = segment_of(session), segment_of(session)

    def note(edited):
        for key, state in edited.states.items():
            is_kept = shelf[key] == document_of(session.saved(key)) and state is session.state(key)
            assert is_kept and session.provenance(key) == state.provenance
        heard.append("noted first")
        raise FoundationSegError

    session.listeners.append(note)
    key, works = one.segment_id, [lambda: one.add(point(3))]
    for work in (session.undo, session.redo, session.accept, session.undo, session.reject):
        works.append(partial(work, key))
    works += [lambda: other.add(point(5)), partial(clear_segments, session, [key])]
    for work in works:
        with pytest.raises(FoundationSegError):
            work()
    kinds = ["predicted", "undone", "redone", "accepted", "undone", "rejected", "predicted", "cleared"]
    assert heard == [text for kind in kinds for text in ("noted first", kind)]
    assert mask_of(other).sum() == 25 and not mask_of(one).any() and not session.queued_targets()
    session.store.put(key, mask_of(other))
    with pytest.raises(FoundationSegError):
        one.steps  # noqa: B018
    assert heard[-2:] == ["cleared", "noted first"] and one.steps[-1].reason == "hand"
    session.listeners.remove(note)
    assert session.undo(other.segment_id) and not mask_of(other).any()


def test_steps_go_on_from_what_was_changed_between_two_sessions(session):
    shelf = session.history.prompt_store = Shelf()
    segment = segment_of(session)
    segment.add(point(3))
    mask = mask_of(segment)
    mask[6, 6, 6] = True
    session.store.put(segment.segment_id, mask)
    again, _ = make_session(store=session.store)
    again.history.prompt_store = shelf
    copy = SegmentSession(again, segment.segment_id)
    copy.add(point(1))
    assert copy.steps[-2].reason == "hand" and mask_of(copy)[6, 6, 6] and mask_of(copy)[3].sum() == 25


class Source:
    """An image that somebody changes."""

    def __init__(self, volume):
        self.volume, self.time, self.reads = volume, 0, 0

    def stamp(self):
        return self.time

    def read(self):
        self.reads += 1
        return self.volume

    def change(self, volume):
        self.volume, self.time = volume, self.time + 1


class TestTheImage:
    @pytest.fixture
    def source(self, session):
        source = session.image_source = Source(session.volume)
        session._image_stamp = source.stamp()
        return source

    def brighter(self, volume):
        return Volume(volume.array_kji + 1, volume.geometry)

    def test_the_next_request_is_of_the_new_image(self, session, segment, source, told):
        segment.add(point(3))
        before, steps, old = mask_of(segment), segment.steps, session.volume.key
        source.change(self.brighter(session.volume))
        segment.add(point(5))
        assert [type(one) for one in told[-2:]] == [ImageChanged, SegmentEdited]
        new = source.volume.key
        assert session.client.requests[-1].volume_key == new != old and session.client.sent[-1] == new
        assert old not in session.client.sent and session.volume is source.volume
        assert segment.steps[:-1] == steps and np.array_equal(mask_of(segment)[3], before[3])
        assert session.undo(segment.segment_id) and np.array_equal(mask_of(segment), before)

    def test_an_answer_about_the_old_one_is_asked_again(self, session, segment, source, told):
        session.client.is_slow = True
        segment.add(point(3))
        source.change(self.brighter(session.volume))
        session.client.reply()
        assert isinstance(told[-1], ImageChanged) and not mask_of(segment).any()
        assert session.client.requests[-1].volume_key == source.volume.key and len(session.client.requests) == 2
        session.client.reply()
        assert mask_of(segment).sum() == 25

    def test_the_same_voxels_are_no_other_image(self, session, segment, source, told):
        segment.add(point(3))
        source.change(Volume(session.volume.array_kji.copy(), session.volume.geometry))
        segment.add(point(5))
        segment.add(point(6))
        assert source.reads == 1 and all(isinstance(one, SegmentEdited) for one in told)

    def test_another_grid_is_refused(self, session, segment, source, told):
        segment.add(point(3))
        steps, before = segment.steps, mask_of(segment)
        session.client.is_slow = True
        segment.add(point(5))
        source.change(Volume(session.volume.array_kji, Geometry(np.diag([2.0, 1, 1, 1]), SHAPE)))
        session.client.reply()
        assert isinstance(told[-1], Refused) and isinstance(told[-1].error, GeometryError)
        assert np.array_equal(mask_of(segment), before) and session.discard() and segment.steps == steps
        with pytest.raises(GeometryError, match="moved"):
            segment.add(point(6))
        assert session.undo(segment.segment_id), "without the image"


def test_a_segment_that_was_there_has_a_seed(session):
    assert segment_of(session).steps == ()
    other = session.store.add(NewSegment("Old"))
    session.store.put(other, np.ones(session.volume.geometry.shape_kji))
    (seed,) = session.steps(other)
    assert isinstance(seed, SeedStep) and seed.reason == "start" and seed.mask


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("protect", (1, 1, 58)), ("protect-locked", (0, 1, 59)), ("allow", (1, 1, 60)), ("overwrite", (0, 0, 60))],
)
def test_each_policy_takes_what_it_may(policy, expected):
    """Of A and of B, which is locked; they have a corner each, and C is filled."""
    corners = ((0, 0, 0), (1, 1, 1), ())
    store = ArrayStore(Geometry(np.eye(4), (3, 4, 5)))
    for name, corner in zip("ABC", corners, strict=True):
        mask = np.zeros((3, 4, 5), bool)
        mask[corner] = bool(corner)
        store.put(store.add(NewSegment(name)), mask)
    store.lock("2")
    edit = store.write_change("3", SegmentChange(gained=pack_mask(np.ones((3, 4, 5)))), OverlapPolicy(policy))
    assert tuple(int(store.read(key).sum()) for key in "123") == expected
    store.apply(edit.inverse())
    assert tuple(int(store.read(key).sum()) for key in "123") == (1, 1, 0)
    with pytest.raises(InputError, match="locked"):
        store.write_change("2", SegmentChange(), OverlapPolicy(policy))
    with pytest.raises(InputError, match="no segment with the id '9'"):
        store.read("9")
