import numpy as np
import pytest

from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.geometry import Box
from FoundationSegLib.prompts.kinds import BoxPrompt, MaskPrompt, Polarity, TextPrompt
from FoundationSegLib.prompts.regions import AroundPrompt, InsideBox, SliceRange
from FoundationSegLib.requests.segmentation import Propagation
from FoundationSegLib.session.segment_store import NewSegment
from FoundationSegLib.session.segments import SegmentSession
from Testing.unit.session.session_cases import (
    SEEING,
    SHAPE,
    SLICES,
    VOLUMES,
    WORDS,
    make_session,
    mask_of,
    point,
    ras,
)


@pytest.fixture
def session():
    return make_session(ask_above=None)[0]


def existing(session, *boxes):
    """A segment that was there before the session: solid boxes."""
    store = session.store
    key = store.add(NewSegment("Old"))
    mask = np.zeros(SHAPE, bool)
    for box in boxes:
        mask[box.slices] = True
    store.put(key, mask)
    return SegmentSession(session, key), mask


def last_request(session):
    return session.client.requests[-1]


class TestPrompts:
    def test_any_prompt_is_taken_back(self, segment):
        segment.add(point(1))
        segment.add(point(3))
        segment.add(point(5))
        segment.remove("2")
        assert list(segment.prompts) == ["1", "3"]
        assert [int(mask_of(segment)[k].sum()) for k in (1, 3, 5)] == [25, 0, 25]

    def test_any_prompt_is_moved(self, segment):
        segment.add(point(1))
        segment.add(point(3))
        segment.move("1", point(6, 7, 8))
        assert [int(mask_of(segment)[k].sum()) for k in (1, 3, 6)] == [0, 25, 25]
        assert list(segment.prompts) == ["1", "2"]

    def test_any_prompt_is_turned(self, segment):
        segment.add(point(3, 4, 4))
        segment.add(point(3, 4, 6))
        segment.set_polarity("2", Polarity.NEGATIVE)
        assert mask_of(segment).sum() == 10
        segment.set_polarity("2", Polarity.POSITIVE)
        assert mask_of(segment).sum() == 35

    def test_several_at_once_are_one_action(self, session, segment):
        assert segment.add(point(1), point(3)) == ("1", "2")
        assert len(session.client.requests) == 1 and session.undo(segment.segment_id)
        assert not mask_of(segment).any()
        assert segment.add() == () and segment.remove() is None

    def test_a_settled_prompt_is_moved_after_an_edit_by_hand(self, session, segment):
        segment.add(point(1), point(3))
        mask = mask_of(segment)
        mask[7, 0, 0] = True
        session.store.put(segment.segment_id, mask)
        segment.move("2", point(5))
        after = mask_of(segment)
        assert after[5].sum() == 25 and after[7, 0, 0] and after[1].sum() == 25


class TestExisting:
    def test_a_prompt_beside_what_is_there_adds(self, session):
        segment, mask = existing(session, Box((3, 0, 0), (4, 2, 2)), Box((6, 0, 0), (8, 5, 5)))
        segment.add(point(3, 6, 8))
        assert np.array_equal(mask_of(segment) & mask, mask) and mask_of(segment).sum() == mask.sum() + 25

    def test_a_prompt_on_what_is_there_redoes_that_part_of_its_slice(self, session):
        segment, mask = existing(session, Box((2, 0, 0), (5, 6, 7)), Box((3, 8, 8), (4, 10, 12)))
        segment.add(point(3))
        after = mask_of(segment)
        assert after[3, :8].sum() == 25, "the part that was clicked is the model's"
        assert np.array_equal(after[3, 8:], mask[3, 8:]), "a part beside it is not"
        assert np.array_equal(np.delete(after, 3, 0), np.delete(mask, 3, 0))

    def test_a_box_redoes_what_is_inside(self, session):
        segment, mask = existing(session, Box((2, 0, 0), (5, 10, 12)))
        session.client.fails = False
        segment.add(BoxPrompt((ras(3, 2, 2), ras(3, 5, 5))), BoxPrompt((ras(3, 3, 3), ras(3, 4, 4)), Polarity.NEGATIVE))
        expected = mask.copy()
        expected[3, 3:5, 3:5] = False
        assert np.array_equal(mask_of(segment), expected)

    def test_a_model_that_understands_masks_is_shown_the_part(self, session):
        session.options.choice = SEEING
        segment, mask = existing(session, Box((2, 0, 0), (5, 6, 7)), Box((3, 8, 8), (4, 10, 12)))
        segment.add(point(3, 1, 1, Polarity.NEGATIVE))
        (seed, given) = last_request(session).segments[0].prompts
        assert (
            isinstance(seed, MaskPrompt)
            and seed.voxels.box == Box((3, 0, 0), (4, 6, 7))
            and given == point(3, 1, 1, Polarity.NEGATIVE)
        )
        assert mask_of(segment).sum() == mask.sum() - 16

    def test_a_model_of_volumes_is_shown_all_and_decides(self, session):
        session.options.choice = VOLUMES
        segment, mask = existing(session, Box((2, 0, 0), (5, 6, 7)))
        segment.add(point(3, 1, 1, Polarity.NEGATIVE))
        assert last_request(session).segments[0].prompts[0].voxels.expand(SHAPE).sum() == mask.sum()
        assert mask_of(segment).sum() == mask.sum() - 3 * 4 * 4

    def test_a_model_that_is_not_shown_anything_only_adds(self, session):
        session.options.choice = WORDS
        segment, mask = existing(session, Box((2, 0, 0), (5, 6, 7)))
        segment.add(TextPrompt("liver"))
        assert np.array_equal(mask_of(segment) & mask, mask) and mask_of(segment).sum() > mask.sum()


class TestRegions:
    @pytest.mark.parametrize(
        "region",
        [AroundPrompt(1.5), SliceRange("j", 3, 5), InsideBox(Box((2, 3, 4), (4, 6, 9)))],
        ids=lambda r: type(r),
    )
    def test_outside_nothing_changes(self, session, region):
        segment, mask = existing(session, Box((2, 0, 0), (5, 6, 7)))
        segment.limit(region)
        segment.add(point(3, 4, 7))
        after = mask_of(segment)
        outside = np.ones(SHAPE, bool)
        if isinstance(region, AroundPrompt):
            distance = np.linalg.norm(np.indices(SHAPE) - np.reshape((3, 4, 7), (3, 1, 1, 1)), axis=0)
            outside = distance > 1.5
        elif isinstance(region, SliceRange):
            outside[:, 3:5] = False
        else:
            outside[region.box.slices] = False
        assert np.array_equal(after[outside], mask[outside]) and not np.array_equal(after, mask)

    def test_what_was_found_before_stays_when_a_region_is_set(self, session, segment):
        segment.add(point(3, 4, 4))
        before = mask_of(segment)
        segment.limit(AroundPrompt(1.0))
        assert np.array_equal(mask_of(segment), before)
        segment.add(point(3, 4, 8))
        assert mask_of(segment).sum() == before.sum() + 5
        segment.limit(None)
        segment.add(point(6))
        assert mask_of(segment).sum() == before.sum() + 5 + 25
        for _ in range(5):
            session.undo(segment.segment_id)
        assert not mask_of(segment).any()


class TestPropagation:
    def test_over_a_range(self, session, segment):
        segment.add(point(3))
        segment.propagate(Propagation(2, 6))
        assert [int(n) for n in mask_of(segment).sum(axis=(1, 2))] == [0, 0, 25, 25, 25, 25, 0, 0]
        assert last_request(session).propagation == Propagation(2, 6)

    def test_slices_corrected_by_prompts_are_kept(self, session, segment):
        segment.add(point(3))
        segment.propagate()
        segment.add(point(5, 4, 5, Polarity.NEGATIVE), point(5, 8, 9))
        corrected = mask_of(segment)[5]
        segment.propagate()
        assert np.array_equal(mask_of(segment)[5], corrected)
        assert mask_of(segment)[1].sum() >= 25

    def test_slices_corrected_by_hand_are_kept(self, session, segment):
        segment.add(point(3))
        segment.propagate()
        mask = mask_of(segment)
        mask[5, 2:4] = False
        mask[6] = False
        session.store.put(segment.segment_id, mask)
        segment.propagate()
        assert np.array_equal(mask_of(segment)[5:7], mask[5:7])
        assert mask_of(segment)[7].sum() == 25

    def test_a_slice_drawn_by_hand_starts_it(self, session, segment):
        session.options.choice = SEEING
        assert segment.steps == ()
        mask = np.zeros(SHAPE, bool)
        mask[4, 2:5, 3:8] = True
        session.store.put(segment.segment_id, mask)
        segment.propagate(Propagation(3, 7))
        (drawn,) = last_request(session).segments[0].prompts
        assert drawn.voxels.box == Box((4, 2, 3), (5, 5, 8))
        assert [int(n) for n in mask_of(segment).sum(axis=(1, 2))] == [0, 0, 0, 15, 15, 15, 15, 0]

    def test_what_lies_beside_the_object_stays(self, session):
        segment, mask = existing(session, Box((0, 8, 8), (8, 10, 12)))
        segment.add(point(3, 3, 3))
        segment.propagate()
        assert np.array_equal(mask_of(segment) & mask, mask)
        assert mask_of(segment).sum() == mask.sum() + 8 * 25

    def test_on_another_axis(self, session, segment):
        segment.add(BoxPrompt((ras(2, 4, 2), ras(5, 4, 7))))
        mask = mask_of(segment)
        mask[:, 4, 3] = False
        session.store.put(segment.segment_id, mask)
        segment.propagate()
        assert np.array_equal(mask_of(segment)[:, 4], mask[:, 4])


class TestModels:
    def test_what_one_model_found_is_the_seed_of_the_next(self, session, segment):
        session.options.choice = WORDS
        segment.add(TextPrompt("liver"))
        words = mask_of(segment)
        session.options.choice = SLICES
        segment.add(point(3, 4, 4))
        assert [step.reason for step in segment.steps if hasattr(step, "reason")] == ["model"]
        assert len(last_request(session).segments[0].prompts) == 1
        assert np.array_equal(np.delete(mask_of(segment), 3, 0), np.delete(words, 3, 0))

    def test_the_same_prompts_on_another_model(self, session, segment):
        segment.add(point(3))
        segment.add(point(5))
        before = mask_of(segment)
        segment.ask_again(VOLUMES)
        assert mask_of(segment).sum() > before.sum() and last_request(session).model_id == "volumes"
        assert list(segment.prompts) == ["1", "2"]
        assert session.undo(segment.segment_id) and np.array_equal(mask_of(segment), before)

    def test_nothing_to_replay(self, segment):
        with pytest.raises(InputError, match="no steps"):
            segment.replay(())
