from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from FoundationSegLib.engine.propagation import SliceSequence, choose_hand_over, inner_points, next_slice_prompt
from FoundationSegLib.engine.propagation_planning import Track
from FoundationSegLib.engine.slice_inference import SliceCache, SliceInference
from FoundationSegLib.engine.video_memory import visit
from FoundationSegLib.errors import Cancelled, InputError
from FoundationSegLib.imaging.geometry import AXES, Geometry, array_axis
from FoundationSegLib.imaging.intensity import IntensityMapping
from FoundationSegLib.imaging.masks import merge_masks
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.models.protocols import SliceAnswer, SliceMask, SlicePoint, SlicePrompt
from FoundationSegLib.progress import CancelToken, Progress
from FoundationSegLib.requests.segmentation import Propagation
from Testing.unit.engine.slice_cases import (
    AS_IT_IS,
    HERE,
    SHAPE,
    THERE,
    WEIGHTS,
    WHOLE,
    Moody,
    Scripted,
    bright,
    cache_of,
    find,
    inference_on,
    numbered,
    rivals,
    track,
    visits,
)
from Testing.unit.fakes import FakeModel

SMALL, LARGE = (slice(4, 6), slice(5, 7)), (slice(2, 8), slice(2, 9))


@given(st.data(), st.sampled_from(AXES))
def test_every_slice_of_a_span_is_visited_once_for_each_track(data, axis):
    length = SHAPE[array_axis(axis)]
    tracks = []
    for _ in range(data.draw(st.integers(1, 3))):
        first = data.draw(st.integers(0, length - 1))
        span = range(first, data.draw(st.integers(first + 1, length)))
        tracks.append(track(data.draw(st.sampled_from(span)), span, axis=axis))
    found_on = data.draw(st.lists(st.integers(0, length - 1)))
    model = Scripted(dict.fromkeys(found_on, (slice(1, 3), slice(1, 3))))
    inference = inference_on(numbered(axis), model)
    for one in tracks:
        come_to = list(SliceSequence(one, inference, Propagation(hand_over="box")).visits())
        assert come_to == sorted(come_to), "so that walks can pass a slice together"
        assert come_to[0] == visit(axis, 1, one.starts[0])
        assert Counter(abs(place) for _, _, place in come_to) == Counter(one.span)
    assert inference.counts.encodes == len({index for one in tracks for index in one.span})


def test_the_next_slice_gets_the_box_of_the_last_mask():
    model = Scripted({4: HERE, 5: THERE, 3: HERE})
    find(inference_on(numbered(), model), [track(4, range(3, 7))], Progress())
    boxes = [box for _, box in model.decoded]
    around_here, around_there = (2, 1, 8, 6), (8, 6, 11, 9)
    assert visits(model) == [4, 5, 6, 3]
    assert boxes == [WHOLE.box, around_here, around_there, around_here], "downwards starts from the key's mask again"


def test_every_slice_keeps_the_answer_that_the_model_is_surest_of():
    found = {2: SMALL, 6: LARGE}
    low, high, both = (
        find(inference_on(bright(), Moody(found)), [rivals(*starts)], Progress()).expand(SHAPE).sum(axis=(1, 2))
        for starts in ((2,), (6,), (2, 6))
    )
    beside = [0, 1, 3, 4, 5, 7, 8]
    assert (low[beside] != high[beside]).all()
    assert np.array_equal(both[beside], np.maximum(low, high)[beside])
    assert (both[2], both[6]) == (high[2], low[6]), "also where a walk started, another may be surer"


def test_an_answer_with_a_mask_wins_over_a_surer_one_without():
    class Unsure(Scripted):
        def decode(self, embedding, prompt, previous=None):
            mask = Scripted.decode(self, embedding, prompt).mask & (prompt != WHOLE)
            return SliceAnswer(mask, 0.1 if mask.any() else 0.9)

    model = Unsure(dict.fromkeys(range(9), HERE))
    model.box_around = lambda mask, wider: (1, 1, 9, 9)
    mask = find(inference_on(numbered(), model), [rivals(2, 6)], Progress()).expand(SHAPE)
    assert set(np.nonzero(mask)[0]) == set(range(9))


@given(st.lists(st.integers(0, 8), min_size=1, max_size=4, unique=True).map(sorted), st.integers(0, 5))
def test_each_way_passes_a_slice_once_so_that_a_small_cache_does(starts, seed):
    random = np.random.default_rng(seed)
    found = {index: (slice(y, y + 3), slice(x, x + 3)) for index, (y, x) in enumerate(random.integers(0, 6, (9, 2)))}
    kept, lost = Moody(found), Moody(found)
    wanted = find(inference_on(bright(), kept), [rivals(*starts)], Progress())
    assert len(kept.encoded) == 9
    assert find(inference_on(bright(), lost, cache_of(1000)), [rivals(*starts)], Progress()) == wanted
    assert len(lost.encoded) <= 2 * 9


def test_boxes_are_handed_over_as_wide_as_the_track_says():
    model = Scripted({4: HERE, 5: HERE})
    find(inference_on(numbered(), model), [rivals(4, span=range(4, 6), wider=2)], Progress())
    assert [box for _, box in model.decoded] == [WHOLE.box, (0, -1, 10, 8)]


def test_where_the_mask_is_lost_inside_the_span_the_prompt_is_asked_again():
    model = Scripted({4: HERE, 6: HERE, 7: HERE})
    find(inference_on(numbered(), model), [track(4, range(4, 8))], Progress())
    assert [box for _, box in model.decoded] == [WHOLE.box, (2, 1, 8, 6), WHOLE.box, (2, 1, 8, 6)]


def test_the_box_of_the_last_mask_is_cut_to_the_limit():
    model = Scripted({4: HERE, 5: THERE, 6: HERE})
    find(inference_on(numbered(), model), [track(4, range(4, 8), limit=(3, 2, 6, 5))], Progress())
    boxes = [box for _, box in model.decoded]
    assert boxes == [WHOLE.box, (3, 2, 6, 5), WHOLE.box, (3, 2, 6, 5)], "what left the limit altogether is lost"


def test_beyond_the_span_it_stops_where_the_mask_is_lost():
    model = Scripted(dict.fromkeys((2, 3, 4, 5, 8), HERE))
    mask = find(inference_on(numbered(), model), [track(4, range(4, 5), range(9))], Progress())
    assert visits(model) == [4, 5, 6, 3, 2, 1], "6 and 1 are asked, and end it"
    assert set(np.nonzero(mask.expand(SHAPE))[0]) == {2, 3, 4, 5}


def test_beyond_the_span_it_stops_where_the_object_becomes_another():
    model = Scripted({4: HERE, 5: HERE, 6: THERE, 7: HERE})
    mask = find(inference_on(numbered(), model), [track(4, range(4, 5), range(4, 9))], Progress())
    assert visits(model) == [4, 5, 6]
    assert set(np.nonzero(mask.expand(SHAPE))[0]) == {4, 5}
    model = Scripted({4: HERE, 5: HERE, 6: THERE, 7: HERE})
    mask = find(inference_on(numbered(), model), [track(4, range(4, 8))], Progress())
    assert set(np.nonzero(mask.expand(SHAPE))[0]) == {4, 5, 6, 7}, "inside the span it does not stop"


YES = SlicePoint(5.0, 4.0)


def test_a_positive_point_takes_up_again_what_was_lost_before():
    array = np.zeros(SHAPE, np.uint8)
    array[[2, 3, 6, 7], 3:6, 4:7] = 200
    clicked = track(2, range(2, 3), range(9), SlicePrompt((4, 3, 6, 5)), points={6: (YES,)})
    mask = find(inference_on(array), [clicked])
    assert set(np.nonzero(mask.expand(SHAPE))[0]) == {2, 3, 6, 7}
    refused = track(2, range(2, 3), range(9), clicked.prompt, points={6: (SlicePoint(5.0, 4.0, positive=False),)})
    assert set(np.nonzero(find(inference_on(array), [refused]).expand(SHAPE))[0]) == {2, 3}


@pytest.mark.parametrize("axis", AXES)
def test_masks_lie_where_the_bright_voxels_are(axis):
    array = np.zeros(SHAPE, np.uint8)
    bright = (slice(2, 5), slice(3, 7), slice(4, 10))
    array[bright] = 200
    wanted = np.zeros(SHAPE, np.bool_)
    wanted[bright] = True
    span = range(bright[array_axis(axis)].start, bright[array_axis(axis)].stop)
    model = FakeModel()
    mask = find(inference_on(array, model), [track(span[1], span, axis=axis)], Progress())
    assert np.array_equal(mask.expand(SHAPE), wanted)
    assert model.encoded[0].shape == tuple(n for n, name in zip(SHAPE, "kji", strict=True) if name != axis)


def test_tracks_are_joined_across_axes_and_on_one_slice():
    tracks = [
        track(5, range(5, 6), prompt=SlicePrompt((0, 0, 1, 1))),
        track(5, range(5, 6), prompt=SlicePrompt((4, 4, 5, 5))),
        track(2, range(2, 3), prompt=SlicePrompt((7, 3, 8, 4)), axis="j"),
    ]
    mask = find(inference_on(np.full(SHAPE, 250, np.uint8)), tracks, Progress())
    wanted = np.zeros(SHAPE, np.bool_)
    wanted[5, 0:2, 0:2] = wanted[5, 4:6, 4:6] = wanted[3:5, 2, 7:9] = True
    assert np.array_equal(mask.expand(SHAPE), wanted)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
def test_turned_slices_give_the_same_mask_where_the_model_does_not_care(axis, signs):
    array = np.random.default_rng(3).integers(0, 255, SHAPE).astype(np.uint8)
    volume = Volume(array, Geometry(np.diag((*signs, 1.0)), SHAPE))
    box = SlicePrompt((1, 2, 7, 6))
    masks = []
    for as_stored in (True, False):
        inference = SliceInference(FakeModel(), WEIGHTS, volume, AS_IT_IS, cache_of(10**6), as_stored=as_stored)
        one = Track(axis, (3,), (box,), range(2, 6), range(2, 6), (1, 2, 8, 7))
        masks.append(find(inference, [one], Progress()))
    assert masks[0] == masks[1]
    assert masks[0].voxels > 0


def test_slices_are_told_of_as_they_are_answered_and_kept_when_it_ends_early():
    model, token, parts = Scripted(dict.fromkeys(range(9), HERE)), CancelToken(), []

    def take(part):
        parts.append(part.masks[0])
        if len(parts) == 3:
            token.finish()

    progress = Progress(token=token, partial=take, part_s=0)
    answer = find(inference_on(numbered(), model), [track(2, range(9))], progress)
    assert [part.box.start_kji[0] for part in parts] == [2, 3, 4], "each once"
    assert merge_masks(parts) == answer and len(model.decoded) == 3


def test_it_stops_between_slices():
    model, token = Scripted(dict.fromkeys(range(9), HERE)), CancelToken()

    def stop_at_two(report):
        if report.done == 2:
            token.cancel()

    with pytest.raises(Cancelled):
        find(inference_on(numbered(), model), [track(4, range(9))], Progress(stop_at_two, token))
    assert len(model.decoded) == 2


@given(st.lists(st.integers(0, 8), min_size=1, max_size=4, unique=True).map(sorted), st.integers(0, 5))
def test_progress_never_goes_back_and_ends_at_its_total(starts, seed):
    random, seen = np.random.default_rng(seed), []
    found = {index: (slice(y, y + 3), slice(x, x + 3)) for index, (y, x) in enumerate(random.integers(0, 6, (9, 2)))}
    find(inference_on(bright(), Moody(found)), [rivals(*starts), track(2, range(2, 3))], Progress(seen.append))
    done = [report.done for report in seen]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (1, seen[-1].total)
    assert len({report.total for report in seen}) == 1


BLOCK = np.zeros((9, 12), bool)
BLOCK[2:7, 3:10] = True


@pytest.mark.parametrize(
    ("wanted", "prompts", "way"),
    [
        ("auto", ("point", "box", "mask"), "box"),
        ("auto", ("point", "mask"), "mask"),
        ("auto", ("point", "text"), "points"),
        ("mask", ("point", "box", "mask"), "mask"),
        ("points", ("point", "box"), "points"),
    ],
)
def test_the_first_way_that_the_model_understands_is_taken(wanted, prompts, way):
    assert choose_hand_over(wanted, prompts) == way


def test_a_model_without_prompts_on_slices_has_no_way():
    for wanted in ("auto", "box"):
        with pytest.raises(InputError):
            choose_hand_over(wanted, ("text", "class"))


def test_each_way_says_what_the_mask_says():
    model = FakeModel()
    assert next_slice_prompt(model, BLOCK, "box") == SlicePrompt((2, 1, 10, 7))
    assert next_slice_prompt(model, BLOCK, "box", 2) == SlicePrompt((0, -1, 12, 9))
    assert next_slice_prompt(model, BLOCK, "mask") == SlicePrompt(mask=SliceMask.pack(BLOCK))
    assert next_slice_prompt(model, BLOCK, "points").points[0].y == 4
    for way in ("box", "mask", "points"):
        assert next_slice_prompt(model, np.zeros_like(BLOCK), way) is None


def test_small_parts_get_no_point_and_the_largest_comes_first():
    mask = BLOCK.copy()
    mask[0, 11] = True
    assert len(inner_points(mask)) == 1
    mask[8, 0:4] = True
    assert [(point.y > 7) for point in inner_points(mask)] == [False, True]
    (middle,) = inner_points(np.ones((5, 7), bool))
    assert middle.y == 2 and 2 <= middle.x <= 4, "beyond the slice counts as outside"


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(np.any))
def test_points_lie_inside_the_mask(mask):
    points = inner_points(mask)
    assert points
    for point in points:
        assert mask[int(point.y), int(point.x)]
        assert point.positive


def test_what_was_asked_before_is_not_asked_again():
    model, cache = FakeModel(), SliceCache.within(10**6)
    first, second = (inference_on(bright(), model, cache) for _ in range(2))
    masks = [find(one, [track(4, range(3, 6))]) for one in (first, second)]
    assert masks[0] == masks[1]
    assert (first.counts.decodes, second.counts.decodes) == (3, 0)
    assert second.counts.encodes == 0, "nobody needs the embedding"
    another = inference_on(bright(), model, cache, IntensityMapping("raw", "raw", 0.0, 254.0))
    find(another, [track(4, range(3, 6))])
    assert another.counts.decodes == 3


def test_a_prompt_is_asked_as_it_grew_and_each_answer_goes_into_the_next():
    model = FakeModel()
    box = SlicePrompt((1, 1, 5, 5))
    more = SlicePrompt(box.box, (SlicePoint(8.0, 8.0),))
    inference = inference_on(bright(), model, SliceCache.within(10**6))
    first = inference.ask("k", 3, (box,))
    last = inference.ask("k", 3, (box, more))
    assert [(prompt, previous and previous is first) for prompt, previous in model.asked] == [(box, None), (more, True)]
    assert inference.counts.decodes == 2, "the first was known"
    assert inference.ask("k", 3, (box, more)) is last
    inference.ask("k", 3, (more,))
    assert model.asked[-1] == (more, None), "without the box before it, it is another question"


def test_another_axis_intensity_or_image_is_encoded_anew():
    model, cache = FakeModel(), cache_of(10**6)
    other = numbered()
    other[0, 0, 0] = 77
    for array, axis, mapping in (
        (numbered(), "k", AS_IT_IS),
        (numbered(), "j", AS_IT_IS),
        (numbered(), "k", IntensityMapping("raw", "raw", 0.0, 254.0)),
        (numbered(), "k", IntensityMapping("raw", "raw", 1.0, 255.0)),
        (other, "k", AS_IT_IS),
    ):
        inference = inference_on(array, model, cache, mapping)
        find(inference, [track(4, range(4, 5), axis=axis)], Progress())
        assert inference.counts.encodes == 1


def test_the_model_sees_the_slices_through_the_mapping_in_8_bits():
    array = np.linspace(-1000, 1000, num=int(np.prod(SHAPE))).reshape(SHAPE)
    mapping = IntensityMapping("400,40", "window", -160.0, 240.0)
    model = FakeModel()
    find(inference_on(array, model, mapping=mapping), [track(4, range(4, 5))], Progress())
    assert model.encoded[0].dtype == np.uint8
    assert np.array_equal(model.encoded[0], mapping.to_uint8(array[4]))


def test_colour_slices_keep_their_colours():
    array = np.zeros((*SHAPE, 3), np.uint8)
    array[4, 2:5, 3:6, 1] = 200
    model = FakeModel()
    mask = find(inference_on(array, model), [track(4, range(4, 5))], Progress())
    assert model.encoded[0].shape == (10, 12, 3)
    assert (mask.box.start_kji, mask.box.stop_kji) == ((4, 2, 3), (5, 5, 6))
