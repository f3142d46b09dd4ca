"""Sessions whose model sees a part of the image: outside of it a segment stays as it is, whatever the model says."""

from dataclasses import replace

import numpy as np
import pytest

from FoundationSegLib.errors import PromptError
from FoundationSegLib.imaging.geometry import Box
from FoundationSegLib.prompts.kinds import MaskPrompt, PointPrompt, Polarity, PromptSet, SegmentPrompts
from FoundationSegLib.prompts.regions import AroundPrompt, InsideBox, SliceRange
from FoundationSegLib.requests.segmentation import Propagation
from FoundationSegLib.session.segment_store import NewSegment
from FoundationSegLib.session.segments import add_to_segments, import_prompts
from FoundationSegLib.session.steps import PromptAdded
from Testing.unit.session.session_cases import CHOICES, SLICES, VOLUMES, make_session, mask_of, point, segment_of

BOX = Box((2, 2, 3), (6, 8, 9))
INSIDE = InsideBox(BOX)


def outside(array):
    left = array.copy()
    left[BOX.slices] = False
    return left


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.model_id)
def test_outside_nothing_changes_and_the_client_is_told_the_box(choice):
    session, client = make_session(choice=choice)
    segment = segment_of(session)
    segment.add(point(1, 1, 1))
    before = mask_of(segment)
    session.options.choice = replace(choice, region=INSIDE)
    segment.add(point(3), point(4, 3, 8, Polarity.NEGATIVE))
    assert client.requests[0].region is None
    assert client.requests[-1].region == BOX
    after = mask_of(segment)
    assert np.array_equal(outside(before), outside(after))
    assert after[BOX.slices].any()
    session.options.choice = choice
    segment.add(point(7, 8, 10))
    assert client.requests[-1].region is None
    segment.session.undo(segment.segment_id)
    segment.session.undo(segment.segment_id)
    assert np.array_equal(mask_of(segment), before)


def test_of_the_seed_the_model_is_shown_what_it_sees():
    session, client = make_session(choice=VOLUMES)
    segment = segment_of(session)
    segment.add(point(1, 4, 3))
    session.options.choice = replace(VOLUMES, region=INSIDE)
    segment.add(point(3))
    seed, click = client.requests[-1].segments[0].prompts
    assert isinstance(seed, MaskPrompt) and BOX.contains(seed.voxels.box) and click == point(3)
    session.options.choice = replace(VOLUMES, region=InsideBox(Box((6, 8, 9), (8, 10, 12))))
    segment.add(point(7, 9, 11))
    assert client.requests[-1].segments[0].prompts == (point(7, 9, 11),), "the seed is not there"


def test_settled_prompts_elsewhere_are_not_asked_again():
    session, client = make_session(choice=SLICES)
    segment = segment_of(session)
    segment.add(point(3, 1, 1))
    session.options.choice = replace(SLICES, region=INSIDE)
    segment.add(point(3))
    assert client.requests[-1].segments[0].prompts == (point(3),), "the same slice, but beyond what is seen"


def test_around_the_prompts_is_a_box_of_its_own_for_each_segment():
    session, client = make_session(choice=replace(VOLUMES, region=AroundPrompt(1.5)))
    one, other = segment_of(session, "A"), segment_of(session, "B")
    one.add(point(3))
    other.add(point(6, 7, 8))
    boxes = [request.region for request in client.requests]
    assert boxes == [Box((1, 2, 3), (6, 7, 8)), Box((4, 5, 6), (8, 10, 11))]
    assert not np.delete(mask_of(one), range(1, 6), axis=0).any()


def test_propagation_keeps_to_what_is_seen():
    session, client = make_session(choice=replace(SLICES, region=SliceRange("k", 2, 5)))
    segment = segment_of(session)
    segment.add(point(3))
    segment.propagate(Propagation())
    assert client.requests[-1].region == Box((2, 0, 0), (5, 10, 12))
    assert set(np.nonzero(mask_of(segment))[0]) == {2, 3, 4}


def test_segments_of_one_action_with_different_boxes_are_refused():
    choice = replace(VOLUMES, region=AroundPrompt(1.5))
    session, _ = make_session(choice=choice)
    made = [(NewSegment(name), (PromptAdded("1", point(k)),)) for name, k in (("A", 2), ("B", 6))]
    with pytest.raises(PromptError, match="seen in different regions"):
        add_to_segments(session, made)
    assert session.store.segment_ids == ()


def test_the_segments_of_a_prompts_file_have_boxes_of_their_own():
    session, client = make_session(choice=replace(VOLUMES, region=AroundPrompt(1.5)))
    segments = tuple(SegmentPrompts(name, (point(k),)) for name, k in (("A", 2), ("B", 6)))
    assert len(import_prompts(session, PromptSet(segments))) == 2
    assert [request.region.start_kji[0] for request in client.requests] == [0, 4]
    session.options.choice = replace(VOLUMES, region=INSIDE)
    import_prompts(session, PromptSet(tuple(SegmentPrompts(name, (point(3),)) for name in ("C", "D"))))
    assert len(client.requests) == 3, "where the region is one, together"


def test_a_replay_sees_the_same():
    session, client = make_session(choice=replace(VOLUMES, region=INSIDE))
    segment = segment_of(session)
    segment.add(point(3))
    segment.add(PointPrompt((4.0, 4.0, 4.0)))
    wanted, steps = mask_of(segment), segment.steps
    again, other = make_session(choice=VOLUMES)
    copy = segment_of(again)
    copy.add(point(1))
    copy.replay(steps)
    assert np.array_equal(mask_of(copy), wanted)
    assert other.requests[-1].region == client.requests[-1].region == BOX
