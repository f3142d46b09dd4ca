import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.engine import propagation_planning
from FoundationSegLib.engine.propagation_planning import WIDER, inner_starts
from FoundationSegLib.engine.slices import PartOnSlice, SlicePrompts, StackedBox
from FoundationSegLib.errors import PromptError
from FoundationSegLib.imaging.geometry import AXES, Box, array_axis
from FoundationSegLib.models.protocols import SliceMask, SlicePoint, SlicePrompt
from FoundationSegLib.prompts.placement import PlacedBox
from FoundationSegLib.requests.segmentation import Propagation

SHAPE = (12, 20, 30)


def placed(start_kji, stop_kji, axis="k", is_2d=False):
    return PlacedBox(Box(start_kji, stop_kji), axis, is_2d, clipped=False)


def rectangle(box):
    """The pixels of a placed box on its slices: x0, y0, x1, y1, with both corners inside."""
    start, stop = list(box.box.start_kji), list(box.box.stop_kji)
    del start[array_axis(box.axis)], stop[array_axis(box.axis)]
    return start[1], start[0], stop[1] - 1, stop[0] - 1


def plan_tracks(boxes, shape_kji, propagation, rule="surest"):
    """The tracks of boxes, and of parts on slices."""
    volumes = [StackedBox(b.axis, b.slices, rectangle(b)) for b in boxes if isinstance(b, PlacedBox) and not b.is_2d]
    parts = [
        PartOnSlice(b.axis, b.slices.start, rectangle(b), "") if isinstance(b, PlacedBox) else b
        for b in boxes
        if not isinstance(b, PlacedBox) or b.is_2d
    ]
    return propagation_planning.plan_tracks(SlicePrompts(tuple(volumes), tuple(parts)), shape_kji, propagation, rule)


def flat(*indices, axis="k"):
    """2-D boxes on these slices of an axis."""
    boxes = []
    for index in indices:
        start, stop = [2, 3, 4], [6, 8, 9]
        start[array_axis(axis)], stop[array_axis(axis)] = index, index + 1
        boxes.append(placed(tuple(start), tuple(stop), axis, is_2d=True))
    return boxes


def plan(boxes, propagation=None):
    return [(t.axis, t.starts[0], t.span, t.reach) for t in plan_tracks(boxes, SHAPE, propagation)]


@given(st.integers(0, 500), st.integers(0, 500), st.sampled_from(AXES))
def test_a_box_starts_at_the_middle_slice_of_the_official_script(first, more, axis):
    start, stop = [0, 0, 0], [1, 1, 1]
    z_min, z_max = first, first + more
    start[array_axis(axis)], stop[array_axis(axis)] = z_min, z_max + 1
    (track,) = plan_tracks([placed(tuple(start), tuple(stop), axis)], (1001,) * 3, None, rule="official")
    assert track.starts == (int((z_max - z_min) / 2 + z_min),)
    assert track.span == track.reach == range(z_min, z_max + 1)
    assert track.axis == axis


def test_a_3d_box_is_the_limit_unless_the_official_rule_is_wanted():
    box, flat_box = placed((2, 3, 4), (6, 9, 12)), flat(5)[0]
    limits = [(track.limit, track.wider) for track in plan_tracks([box, flat_box], SHAPE, propagation=Propagation())]
    assert limits == [((4, 3, 11, 8), WIDER), (None, 0)], "a flat box says nothing of the slices beside its own"
    tracks = plan_tracks([box, flat_box], SHAPE, propagation=Propagation(), rule="official")
    assert [(track.limit, track.wider) for track in tracks] == [(None, 0), (None, 0)]


@given(st.integers(0, 50), st.integers(1, 60))
def test_starts_lie_in_the_inner_part_and_no_end_is_preferred(first, length):
    slices = range(first, first + length)
    starts = inner_starts(slices)
    assert list(starts) == sorted(set(starts))
    assert set(starts) <= set(slices)
    assert len(starts) == min(length, 3) or length == 4
    mirrored = [slices.start + slices.stop - 1 - start for start in reversed(starts)]
    assert max(abs(a - b) for a, b in zip(starts, mirrored, strict=True)) <= 1
    if length > 4:
        assert starts[0] - first >= length // 4
        assert slices.stop - 1 - starts[-1] >= length // 4


def test_several_boxes_on_one_slice_share_their_slices():
    boxes = [*flat(2), *flat(6), placed((6, 10, 10), (7, 12, 12), is_2d=True)]
    tracks = plan_tracks(boxes, SHAPE, propagation=Propagation())
    assert [(t.starts[0], t.span, t.reach) for t in tracks[1:]] == [(6, range(5, 7), range(5, 12))] * 2
    assert len({t.prompt for t in tracks[1:]}) == 2


def test_axes_do_not_meet():
    boxes = [*flat(2), *flat(7, axis="j"), *flat(3, axis="i"), placed((0, 0, 0), (4, 4, 4))]
    assert plan(boxes) == [
        ("i", 3, range(3, 4), range(3, 4)),
        ("j", 7, range(7, 8), range(7, 8)),
        ("k", 1, range(4), range(4)),
        ("k", 2, range(2, 3), range(2, 3)),
    ]


@given(st.lists(st.integers(0, 19), min_size=1, max_size=8), st.booleans())
def test_every_slice_belongs_to_the_nearest_box_and_to_no_other(keys, propagate):
    tracks = plan_tracks(flat(*keys, axis="j"), SHAPE, Propagation() if propagate else None)
    assert sorted(track.starts[0] for track in tracks) == sorted(keys)
    everywhere = range(20) if propagate else range(min(keys), max(keys) + 1)
    for index in everywhere:
        governing = {track.starts[0] for track in tracks if index in track.reach}
        assert governing == {min(keys, key=lambda key: (abs(key - index), key))}
    for track in tracks:
        assert track.starts[0] in track.span
        assert set(track.span) == set(track.reach) & set(range(min(keys), max(keys) + 1))
        assert set(track.reach) <= set(everywhere)


YES, NO = SlicePoint(5.0, 5.0), SlicePoint(6.0, 4.0, positive=False)


def click(index, point=YES, axis="k"):
    return PartOnSlice(axis, index, point, f"click on {index}")


HERE, ELSEWHERE = (slice(4, 7), slice(5, 8)), (slice(12, 15), slice(20, 24))


def seed(index, place=ELSEWHERE, axis="k"):
    mask = np.zeros(SHAPE[1:], np.bool_)
    mask[place] = True
    return PartOnSlice(axis, index, SliceMask.pack(mask), "seed")


def by_start(tracks):
    return {track.starts[0]: track for track in tracks}


def test_a_click_changes_its_slice_and_with_propagation_reaches_on():
    (alone,) = plan_tracks([click(4), click(4, NO)], SHAPE, None)
    assert (alone.stages, alone.reach) == ((SlicePrompt(points=(YES,)), SlicePrompt(points=(YES, NO))), range(4, 5))
    (carried,) = plan_tracks([click(4)], SHAPE, Propagation())
    assert (carried.span, carried.reach) == (range(4, 5), range(12))
    low, high = plan_tracks([click(4), click(9)], SHAPE, Propagation())
    assert (low.reach, high.reach) == (range(7), range(7, 12))


def test_a_click_on_the_slice_of_a_box_refines_it_whichever_came_first():
    (box,) = flat(5)
    (track,) = plan_tracks([click(5), box, click(5, NO)], SHAPE, None)
    around = (4, 3, 8, 7)
    assert track.stages == (SlicePrompt(around), SlicePrompt(around, (YES,)), SlicePrompt(around, (YES, NO)))


def test_a_click_between_two_boxes_refines_what_is_found_there():
    tracks = plan_tracks([*flat(2, 9), click(4), click(8, NO)], SHAPE, None)
    assert [track.points for track in tracks] == [{4: (YES,)}, {8: (NO,)}]
    assert tracks[0].stages_on(4) == (tracks[0].prompt, SlicePrompt(tracks[0].prompt.box, (YES,)))
    assert tracks[0].stages_on(3) == (tracks[0].prompt,)


def test_a_click_beyond_the_boxes_stands_for_itself_unless_they_are_carried_on():
    tracks = by_start(plan_tracks([*flat(2, 5), click(9)], SHAPE, None))
    assert (tracks[9].prompt, tracks[9].reach) == (SlicePrompt(points=(YES,)), range(9, 10))
    tracks = by_start(plan_tracks([*flat(2, 5), click(9)], SHAPE, Propagation()))
    assert sorted(tracks) == [2, 5]
    assert tracks[5].points == {9: (YES,)}


def test_a_positive_click_goes_to_the_nearest_box_and_a_negative_one_to_all():
    near, far = placed((5, 2, 4), (6, 8, 9), is_2d=True), placed((5, 12, 20), (6, 15, 25), is_2d=True)
    tracks = plan_tracks([near, far, click(5, YES), click(5, NO)], SHAPE, None)
    assert [track.prompt.points for track in tracks] == [(YES, NO), (NO,)]
    inner = placed((5, 4, 4), (6, 7, 7), is_2d=True)
    tracks = plan_tracks([near, inner, click(5, YES)], SHAPE, None)
    assert [track.prompt.points for track in tracks] == [(), (YES,)], "of two that hold it, the smaller"


def test_clicks_inside_a_3d_box_refine_its_slices():
    (track,) = plan_tracks([placed((2, 3, 4), (6, 9, 12)), click(3), click(4, NO)], SHAPE, None)
    assert track.points == {3: (YES,), 4: (NO,)}
    assert not track.is_flat
    box, beyond = plan_tracks([placed((2, 3, 4), (6, 9, 12)), click(9)], SHAPE, None)
    assert (box.points, beyond.starts) == ({}, (9,))


@pytest.mark.parametrize("parts", [[click(3, NO)], [click(3, NO), click(4)], [*flat(2), click(3, NO)]])
def test_a_negative_click_on_a_slice_that_nothing_reaches_is_refused(parts):
    with pytest.raises(PromptError, match="negative point alone") as caught:
        plan_tracks(parts, SHAPE, None)
    assert caught.value.location == "click on 3"
    if len(parts) > 1:
        assert plan_tracks(parts, SHAPE, Propagation())


def test_a_mask_is_asked_on_its_slices_and_joins_a_box_there():
    lone, joined = plan_tracks([seed(3), seed(4, HERE), *flat(4)], SHAPE, None)
    assert (lone.starts, lone.prompt.box, lone.prompt.mask) == ((3,), None, seed(3).part)
    assert (joined.starts, joined.prompt) == ((4,), SlicePrompt((4, 3, 8, 7), mask=seed(4, HERE).part))
    carried = by_start(plan_tracks([seed(3), seed(6)], SHAPE, Propagation()))
    assert (carried[3].span, carried[3].reach) == (range(3, 4), range(5))


def test_a_mask_joins_the_box_that_it_lies_in_most_and_other_masks_where_it_lies_in_none():
    near, far = placed((5, 2, 4), (6, 8, 9), is_2d=True), placed((5, 12, 20), (6, 15, 25), is_2d=True)
    for parts in ([near, far, seed(5)], [seed(5), far, near]):
        tracks = {track.prompt.box: track.prompt.mask for track in plan_tracks(parts, SHAPE, None)}
        assert tracks == {rectangle(near): None, rectangle(far): seed(5).part}
    _, lone = plan_tracks([near, seed(5), seed(5, (slice(0, 2), slice(28, 30)))], SHAPE, None)
    assert np.count_nonzero(lone.prompt.mask.unpack()) == 3 * 4 + 4, "both masks speak of the object"


def test_a_positive_click_goes_to_what_it_lies_in_before_what_has_no_extent():
    box, far = placed((2, 3, 4), (6, 9, 12)), click(9, SlicePoint(25.0, 15.0))
    volume, lone = plan_tracks([box, far, click(3)], SHAPE, Propagation())
    assert (volume.points, lone.points) == ({3: (YES,)}, {})
    boxed, masked = plan_tracks([*flat(4), seed(4), click(4)], SHAPE, None)
    assert (boxed.prompt.points, masked.prompt.points) == ((YES,), ())


@given(
    st.lists(st.integers(0, 19), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(0, 19), max_size=3, unique=True),
    st.none() | st.sampled_from(["both", "up", "down"]),
)
def test_whatever_the_direction_each_slice_has_one_key(boxes, masks, direction):
    propagation = direction and Propagation(direction=direction)
    tracks = plan_tracks([*flat(*boxes, axis="j"), *(seed(key, axis="j") for key in masks)], SHAPE, propagation)
    for index in range(20):
        assert len({track.starts for track in tracks if index in track.reach}) <= 1
        if min(boxes) <= index <= max(boxes):
            nearest = min({*boxes, *masks}, key=lambda key: (abs(key - index), key))
            assert {track.starts for track in tracks if index in track.span} == {(nearest,)}


@given(
    st.lists(st.integers(0, 19), min_size=1, max_size=5, unique=True),
    st.sampled_from(["both", "up", "down"]),
    st.none() | st.integers(0, 19),
    st.none() | st.integers(1, 25),
)
def test_reaches_never_meet_and_stay_in_their_range_and_direction(keys, direction, start, stop):
    if stop is not None and stop <= (start or 0):
        return
    propagation = Propagation(start, stop, direction)
    tracks = plan_tracks([click(key, axis="j") for key in keys], SHAPE, propagation)
    assert sorted(track.starts[0] for track in tracks) == sorted(keys)
    passed = [index for track in tracks for index in track.reach]
    assert len(passed) == len(set(passed))
    for track in tracks:
        (key,) = track.starts
        beside = [index for index in track.reach if index != key]
        assert all((start or 0) <= index < (20 if stop is None else stop) for index in beside)
        assert direction == "both" or all((index > key) == (direction == "up") for index in beside)
    if direction == "both" and start is None and stop is None:
        assert sorted(passed) == list(range(20)), "none is left out"
