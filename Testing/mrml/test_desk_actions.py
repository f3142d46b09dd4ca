"""What a user can do at a desk."""

from dataclasses import replace

import pytest
import vtk

from FoundationSegLib.desk_actions import (
    Possible,
    accept,
    add_segment,
    ask_again,
    give,
    give_words,
    lock,
    possible,
    propagate,
    redo,
    reject,
    remove_prompts,
    select,
    selected,
    stop,
    summary,
    turn_prompts,
    undo,
)
from FoundationSegLib.errors import InputError
from FoundationSegLib.prompts.kinds import ClassPrompt, PointPrompt, Polarity, TextPrompt
from FoundationSegLib.prompts.regions import AroundPrompt, SliceRange
from FoundationSegLib.requests.segmentation import Propagation
from FoundationSegLib.session.segment_store import SegmentEdited
from FoundationSegLib.session.segments import SegmentSession
from FoundationSegLib.session.steps import state_of
from Testing.mrml.desk_client import card_choice, make_desk, run
from Testing.unit.session.session_cases import SEEING


@pytest.fixture
def desk(volume_node, segmentation_node):
    made, client, ticks = make_desk(volume_node, segmentation_node)
    made.wishes.ask_above = None
    yield made, client, ticks
    made.close()


def click(node, i=4, j=3, k=2, polarity=Polarity.POSITIVE):
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return PointPrompt(matrix.MultiplyPoint((i, j, k, 1))[:3], polarity, "k")


def given(desk, *prompts):
    made, _client, ticks = desk
    for prompt in prompts:
        give(made, prompt)
        run(made, ticks)


def names(made):
    return [made.session.segment_name(key) for key in made.session.segment_ids]


def test_summary_of_nothing_is_nothing(desk):
    assert summary(desk[0]) is None


def test_a_segment_at_a_glance(desk, volume_node):
    made = desk[0]
    given(desk, click(volume_node))
    found = summary(made)
    assert (found.name, found.voxels, found.prompts) == ("Segment", 25, 1)
    assert found.volume_ml == pytest.approx(25 * made.session.volume.geometry.voxel_volume_mm3 / 1000)
    assert not found.is_locked and possible(made) == Possible(undo=True, judge=True)
    accept(made)
    assert possible(made) == Possible(undo=True)


def test_a_segment_goes_and_comes_back_with_its_first_prompt(desk, volume_node):
    made = desk[0]
    made.wishes.kind = "Liver"
    given(desk, click(volume_node))
    key = made.segment_id
    assert undo(made) and names(made) == [] and summary(made) is None
    assert possible(made) == Possible(redo=True)
    assert redo(made) and names(made) == ["Liver"] and made.segment_id == key and summary(made).voxels == 25


def test_a_region_limits_the_first_prompt_of_a_segment(desk, volume_node):
    made = desk[0]
    made.wishes.region = SliceRange("k", 0, 1)
    given(desk, click(volume_node))
    assert summary(made).voxels == 0
    made.wishes.region = None
    given(desk, click(volume_node))
    assert summary(made).voxels == 25


def test_nothing_to_undo_is_no_error(desk):
    assert not undo(desk[0]) and not redo(desk[0])


def test_names_are_numbered_where_they_are_taken(desk):
    made = desk[0]
    made.wishes.kind = "Liver"
    add_segment(made)
    add_segment(made)
    add_segment(made, numbered=True)
    assert names(made) == ["Liver", "Liver 1", "Liver 2"]
    assert made.segment_id == made.session.segment_ids[-1]


def test_each_prompt_can_make_a_segment(desk, volume_node):
    made = desk[0]
    made.wishes.many_objects, made.wishes.kind = True, "Nodule"
    given(desk, click(volume_node, 2, 2), click(volume_node, 6, 5))
    assert names(made) == ["Nodule 1", "Nodule 2"]
    given(desk, click(volume_node, 6, 5, polarity=Polarity.NEGATIVE))  # is about the last one
    assert names(made) == ["Nodule 1", "Nodule 2"] and summary(made).prompts == 2


def test_words_make_segments_of_their_names(desk):
    made, client, ticks = desk
    made.wishes.choice = card_choice("vista3d")
    give_words(made, [" liver", "spleen ", "", "liver"])
    (request,) = client.asked
    assert [segment.prompts for segment in request.segments] == [(ClassPrompt("liver"),), (ClassPrompt("spleen"),)]
    run(made, ticks)
    assert names(made) == ["liver", "spleen"] and isinstance(made.outcome, SegmentEdited)
    made.wishes.choice = card_choice("voxtell")
    give_words(made, ["a cyst"])
    assert client.asked[-1].segments[0].prompts == (TextPrompt("a cyst"),)


@pytest.mark.parametrize(("model_id", "words"), [("lite-medsam", ["liver"]), ("vista3d", [" ", ""])])
def test_words_that_say_nothing_are_refused(desk, model_id, words):
    made, client, _ticks = desk
    made.wishes.choice = card_choice(model_id)
    with pytest.raises(InputError):
        give_words(made, words)
    assert not client.asked


def test_without_a_model_nothing_is_asked(desk, volume_node):
    made, client, _ticks = desk
    made.wishes.choice = None
    with pytest.raises(InputError, match="choose a model"):
        give(made, click(volume_node))
    assert not client.asked


def test_a_locked_segment_is_left_alone(desk, volume_node):
    made, _client, _ticks = desk
    given(desk, click(volume_node))
    lock(made, True)
    assert summary(made).is_locked
    with pytest.raises(InputError, match="locked"):
        give(made, click(volume_node, 6))
    lock(made, False)
    given(desk, click(volume_node, 6))
    assert summary(made).prompts == 2


def test_lock_without_a_segment(desk):
    with pytest.raises(InputError, match="select a segment"):
        lock(desk[0], True)


def test_reject_keeps_that_it_was_wrong(desk, volume_node):
    made = desk[0]
    given(desk, click(volume_node))
    reject(made)
    assert summary(made).voxels == 0 and not possible(made).judge


def test_prompts_are_removed_and_turned(desk, volume_node):
    made, _client, ticks = desk
    given(desk, click(volume_node, 2, 2), click(volume_node, 6, 5))
    keys = tuple(selected(made).prompts)
    turn_prompts(made, keys[1:])
    run(made, ticks)
    assert selected(made).prompts[keys[1]].polarity is Polarity.NEGATIVE
    turn_prompts(made, keys[1:])
    run(made, ticks)
    assert selected(made).prompts[keys[1]].polarity is Polarity.POSITIVE
    remove_prompts(made, keys[:1])
    run(made, ticks)
    assert tuple(selected(made).prompts) == keys[1:]
    remove_prompts(made, ())
    run(made, ticks)
    assert summary(made).voxels == 0 and not selected(made).prompts


def test_each_segment_keeps_its_own_steps(desk, volume_node):
    made = desk[0]
    given(desk, click(volume_node, 2, 2))
    first = made.segment_id
    add_segment(made)
    given(desk, click(volume_node, 6, 5))
    select(made, first)
    assert summary(made).prompts == 1
    undo(made)
    assert first not in made.session.segment_ids
    select(made, made.session.segment_ids[-1])
    assert summary(made).voxels > 0 and summary(made).prompts == 1


def test_propagation_and_regions_reach_the_request(desk, volume_node):
    made, client, ticks = desk
    given(desk, click(volume_node))
    propagate(made, Propagation(1, 4))
    run(made, ticks)
    assert client.asked[-1].propagation == Propagation(1, 4)
    assert summary(made).voxels == 75
    made.wishes.region = AroundPrompt(2.0)
    given(desk, click(volume_node))
    steps = SegmentSession(made.session, made.segment_id).steps
    assert state_of(steps).region == AroundPrompt(2.0)
    before = len(steps)
    given(desk, click(volume_node, 5))
    assert len(SegmentSession(made.session, made.segment_id).steps) <= before + 2  # it is said once


def test_another_model_is_asked_with_the_same_prompts(desk, volume_node):
    made, client, ticks = desk
    given(desk, click(volume_node))
    made.wishes.choice = replace(SEEING, sees_seed=False)
    ask_again(made)
    run(made, ticks)
    assert client.asked[-1].model_id == "seeing"
    assert len(client.asked[-1].segments[0].prompts) == 1


def test_stop_changes_nothing(volume_node, segmentation_node):
    made, _client, ticks = make_desk(volume_node, segmentation_node, is_slow=True)
    give(made, click(volume_node))
    assert made.is_busy
    stop(made)
    run(made, ticks)
    assert not made.is_busy and made.outcome is None and names(made) == []
    made.close()
