from dataclasses import replace

import numpy as np
import pytest

from FoundationSegLib.engine.propagation import segment
from FoundationSegLib.engine.slice_inference import SliceInference
from FoundationSegLib.engine.video_memory import ABSENT_SLICES, join_tracks
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.models.protocols import SliceMask, SlicePoint, SlicePrompt
from FoundationSegLib.progress import Progress
from Testing.unit.engine.slice_cases import AS_IT_IS, SHAPE, WEIGHTS, cache_of, find, inference_on, track
from Testing.unit.fakes import FakeMemoryModel

LEFT, RIGHT = SlicePrompt((1, 1, 4, 4)), SlicePrompt((7, 1, 10, 4))


def blocks(*slices, both=False):
    """Bright blocks on these slices: one at the left, and one at the right."""
    array = np.zeros(SHAPE, np.uint8)
    array[list(slices), 2:4, 2:4] = 200
    if both:
        array[list(slices), 2:4, 8:10] = 200
    return array


def test_the_prompted_slices_come_first_then_up_then_down():
    model = FakeMemoryModel()
    tracks = [track(3, range(3, 4), range(1, 5), LEFT), track(6, range(6, 7), range(5, 9), LEFT)]
    mask = find(inference_on(blocks(*range(9)), model), tracks)
    assert model.stories == [
        [("prompt", 3), ("prompt", 6), ("up", 4), ("up", 5), ("up", 7), ("up", 8), ("down", 2), ("down", 1)]
    ]
    assert set(np.nonzero(mask.expand(SHAPE))[0]) == set(range(1, 9))


def test_a_way_with_a_fresh_memory_has_the_prompts_again():
    model = FakeMemoryModel(fresh_each_way=True)
    find(inference_on(blocks(*range(9)), model), [track(3, range(3, 4), range(2, 5), LEFT)])
    assert model.stories == [[("prompt", 3), ("up", 4)], [("prompt", 3), ("down", 2)]]


def test_beyond_the_prompts_it_stops_where_the_object_is_absent_and_between_them_it_does_not():
    model = FakeMemoryModel()
    find(inference_on(blocks(0, 1, 3, 4, 5), model), [track(4, range(4, 5), range(9), LEFT)])
    assert [index for _, index in model.stories[0]] == [4, 5, 6, 7, 3, 2, 1]
    assert ABSENT_SLICES == 2
    between = FakeMemoryModel()
    tracks = [track(1, range(1, 2), range(4), LEFT), track(7, range(7, 8), range(4, 8), LEFT)]
    find(inference_on(blocks(1, 7), between), tracks)
    assert [index for _, index in between.stories[0]] == [1, 7, 2, 3, 4, 5, 6, 0]


def test_a_point_on_the_way_corrects_what_was_tracked_there():
    model = FakeMemoryModel()
    corrected = track(3, range(3, 4), range(3, 7), LEFT, points={5: (SlicePoint(3.0, 3.0, positive=False),)})
    mask = find(inference_on(blocks(*range(9)), model), [corrected]).expand(SHAPE)
    assert model.stories[0] == [("prompt", 3), ("up", 4), ("up", 5), ("prompt", 5), ("up", 6)]
    assert mask[4].any() and not mask[5].any()


def test_a_3d_box_starts_at_its_middle_and_is_not_left():
    model = FakeMemoryModel()
    box = track(4, range(2, 7), prompt=LEFT, is_flat=False, points={4: (SlicePoint(2.0, 2.0),), 5: ()})
    mask = find(inference_on(blocks(*range(9)), model), [box])
    assert model.stories[0][0] == ("prompt", 4)
    assert set(np.nonzero(mask.expand(SHAPE))[0]) == set(range(2, 7))


def test_two_boxes_on_a_slice_are_two_objects_and_meet_theirs_on_the_next():
    first = [track(2, range(2, 3), range(5), box) for box in (LEFT, RIGHT)]
    then = [track(7, range(7, 8), range(5, 9), box) for box in (RIGHT, LEFT)]
    tracked, alone = join_tracks([*first, *then])
    assert alone == []
    assert [list(one.prompts.values()) for one in tracked] == [[LEFT, LEFT], [RIGHT, RIGHT]]


def test_what_is_not_carried_on_is_asked_on_its_slice_alone():
    model = FakeMemoryModel()
    far = track(8, range(8, 9), prompt=LEFT)
    tracked, alone = join_tracks([track(2, range(2, 3), range(5), LEFT), far])
    assert ([sorted(one.prompts) for one in tracked], alone) == ([[2]], [far])
    find(inference_on(blocks(8), model), [far])
    assert (model.stories, len(model.asked)) == ([], 1)


def test_objects_pass_a_slice_together_and_it_is_encoded_once():
    model = FakeMemoryModel()
    inference = inference_on(blocks(*range(9), both=True), model, cache_of(0))
    tracks = [[track(4, range(4, 5), range(9), box)] for box in (LEFT, RIGHT)]
    found = segment(inference, tracks, None, ("box",), Progress())
    assert [one.mask.voxels for one in found] == [9 * 4, 9 * 4]
    assert inference.counts.encodes == 9
    alone = inference_on(blocks(*range(9), both=True), FakeMemoryModel())
    assert found[0] == segment(alone, tracks[:1], None, ("box",), Progress())[0]


@pytest.mark.parametrize("largest", [False, True])
def test_the_largest_part_alone_is_kept_where_the_authors_do_so(largest):
    array = blocks(*range(9))
    array[:, 8, 8] = 200
    model = FakeMemoryModel(largest_part_only=largest)
    wide = SlicePrompt((0, 0, 11, 9))
    mask = find(inference_on(array, model), [track(4, range(4, 5), range(9), wide)])
    assert mask.voxels == 9 * 4 + (0 if largest else 9)


def test_where_slice_numbers_fall_the_first_way_is_down():
    """So that the same object is found in the same way however the volume is stored."""
    model = FakeMemoryModel()
    volume = Volume(blocks(*range(9)), Geometry(np.diag([1.0, 1.0, -1.0, 1.0]), SHAPE))
    inference = SliceInference(model, WEIGHTS, volume, AS_IT_IS, cache_of(10**6))
    tracks = [track(3, range(3, 4), range(1, 5), LEFT), track(6, range(6, 7), range(5, 9), LEFT)]
    find(inference, tracks)
    assert model.stories == [
        [("prompt", 3), ("prompt", 6), ("down", 5), ("down", 4), ("down", 2), ("down", 1), ("up", 7), ("up", 8)]
    ]


def test_a_mask_that_nothing_corrects_stays_as_it_was_given():
    seed = np.zeros(SHAPE[1:], bool)
    seed[1:6, 1:6] = True  # more than the model finds
    given = track(3, range(3, 4), range(3, 5), SlicePrompt(mask=SliceMask.pack(seed)))
    mask = find(inference_on(blocks(*range(9)), FakeMemoryModel()), [given]).expand(SHAPE)
    assert np.array_equal(mask[3], seed)
    assert mask[4].sum() == 4


@pytest.mark.parametrize(("upwards", "ends"), [(True, [5, 6, 7, 8]), (False, [3, 2, 1, 0])])
def test_a_positive_point_beyond_the_end_is_come_to(upwards, ends):
    model, there = FakeMemoryModel(), ends[-1]
    prompted = track(4, range(4, 5), range(9), LEFT, points={there: (SlicePoint(3.0, 3.0),)})
    find(inference_on(blocks(4, there), model), [prompted])
    way = [index for step, index in model.stories[0] if step == ("up" if upwards else "down")]
    assert way == ends
    assert ("prompt", there) in model.stories[0]


def test_progress_ends_at_its_total_where_the_object_ends_early():
    reports = []
    find(inference_on(blocks(4), FakeMemoryModel()), [track(4, range(4, 5), range(9), LEFT)], Progress(reports.append))
    assert (reports[-1].done, reports[-1].total) == (9, 9)
    assert [report.done for report in reports] == sorted({report.done for report in reports})


def test_a_prompted_slice_next_to_what_is_reached_is_remembered_too():
    """On the last slice, or where the direction ends there: it has nowhere to go, and still speaks of the object."""
    ends = [track(key, range(key, key + 1), reach, LEFT) for key, reach in ((3, range(3, 7)), (7, range(7, 8)))]
    further = track(8, range(8, 9), prompt=LEFT)
    (tracked,), alone = join_tracks([*ends, further])
    assert (sorted(tracked.prompts), tracked.reach, alone) == ([3, 7, 8], range(3, 9), [])
    boxes = [track(key, reach, prompt=LEFT) for key, reach in ((2, range(2, 5)), (6, range(5, 7)))]
    beside = track(7, range(7, 8), prompt=SlicePrompt(points=(SlicePoint(3.0, 3.0),)))
    (tracked,), alone = join_tracks([*boxes, beside])
    assert (sorted(tracked.prompts), alone) == ([2, 6], [beside]), "without propagation a click changes its slice"


def test_clicks_correct_the_objects_they_mean_beyond_the_prompt_of_another():
    first = [track(2, range(2, 3), range(5), box) for box in (LEFT, RIGHT)]
    no, yes = SlicePoint(8.0, 2.0, positive=False), SlicePoint(9.0, 3.0)
    then = track(6, range(6, 7), range(5, 9), replace(LEFT, points=(no,)), points={7: (yes,), 8: (no,)})
    (left, right), _ = join_tracks([*first, then])
    assert (left.points, right.points) == ({8: (no,)}, {6: (no,), 7: (yes,), 8: (no,)})
    model = FakeMemoryModel()
    mask = find(inference_on(blocks(*range(9), both=True), model), [*first, then]).expand(SHAPE)
    assert mask[5, :, 8:10].any() and not mask[6, :, 8:10].any(), "the click is on the object at the right"
