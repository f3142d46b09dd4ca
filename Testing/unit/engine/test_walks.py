from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.engine.cache import EmbeddingCache
from FoundationSegLib.engine.walks import SliceWalk, visit
from FoundationSegLib.imaging.geometry import AXES, array_axis
from FoundationSegLib.imaging.masks import EMPTY_MASK
from FoundationSegLib.models.protocols import SliceAnswer, SlicePoint, SlicePrompt
from FoundationSegLib.progress import Progress
from Testing.unit.engine.walk_cases import (
    HERE,
    SHAPE,
    THERE,
    WHOLE,
    Moody,
    Scripted,
    bright,
    find,
    inference_on,
    numbered,
    rivals,
    track,
    visits,
)

SMALL, LARGE = (slice(4, 6), slice(5, 7)), (slice(2, 8), slice(2, 9))


@pytest.mark.parametrize("axis", AXES)
def test_the_key_comes_first_then_up_then_down(axis):
    model = Scripted(dict.fromkeys(range(12), (slice(1, 3), slice(1, 3))))
    find(inference_on(numbered(axis), model), [track(4, range(2, 7), axis=axis)], Progress())
    assert visits(model) == [4, 5, 6, 3, 2]


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
        come_to = list(SliceWalk(one, inference, 0.3).visits())
        assert come_to == sorted(come_to), "so that walks can pass a slice together"
        assert come_to[0] == visit(axis, 1, one.starts[0])
        assert Counter(abs(place) for _, _, place in come_to) == Counter(one.span)
    assert inference.tally.encodes == len({index for one in tracks for index in one.span})


def test_walks_of_all_tracks_pass_a_slice_together():
    tracks = [track(4, range(1, 8), prompt=SlicePrompt((n, n, n + 3, n + 4))) for n in range(4)]
    inference = inference_on(bright(), cache=EmbeddingCache(0))
    find(inference, tracks, Progress())
    assert inference.tally.encodes == 7


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


def test_walks_whose_boxes_are_the_same_go_on_as_one():
    model = Scripted(dict.fromkeys(range(9), HERE))
    find(inference_on(numbered(), model), [rivals(2, 4, 6)], Progress())
    assert visits(model) == [2, 3, 4, 4, 5, 6, 6, 7, 8, 5, 4, 3, 2, 1, 0]


@given(st.lists(st.integers(0, 8), min_size=1, max_size=4, unique=True).map(sorted), st.integers(0, 5))
def test_each_way_passes_a_slice_once_so_that_a_small_cache_does(starts, seed):
    random = np.random.default_rng(seed)
    found = {index: (slice(y, y + 3), slice(x, x + 3)) for index, (y, x) in enumerate(random.integers(0, 6, (9, 2)))}
    kept, lost = Moody(found), Moody(found)
    wanted = find(inference_on(bright(), kept), [rivals(*starts)], Progress())
    assert len(kept.encoded) == 9
    assert find(inference_on(bright(), lost, EmbeddingCache(1000)), [rivals(*starts)], Progress()) == wanted
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


def test_where_nothing_is_found_the_prompt_is_asked_everywhere():
    model = Scripted({})
    inference = inference_on(numbered(), model)
    assert find(inference, [track(4, range(3, 7))], Progress()) == EMPTY_MASK
    assert [box for _, box in model.decoded] == [WHOLE.box] * 4


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


def test_a_key_without_a_mask_is_not_carried_on():
    model = Scripted(dict.fromkeys((3, 5), HERE))
    assert find(inference_on(numbered(), model), [track(4, range(4, 5), range(9))], Progress()) == EMPTY_MASK
    assert visits(model) == [4]


YES = SlicePoint(5.0, 4.0)


def test_a_positive_point_takes_up_again_what_was_lost_before():
    array = np.zeros(SHAPE, np.uint8)
    array[[2, 3, 6, 7], 3:6, 4:7] = 200
    clicked = track(2, range(2, 3), range(9), SlicePrompt((4, 3, 6, 5)), points={6: (YES,)})
    mask = find(inference_on(array), [clicked])
    assert set(np.nonzero(mask.expand(SHAPE))[0]) == {2, 3, 6, 7}
    refused = track(2, range(2, 3), range(9), clicked.prompt, points={6: (SlicePoint(5.0, 4.0, positive=False),)})
    assert set(np.nonzero(find(inference_on(array), [refused]).expand(SHAPE))[0]) == {2, 3}


def test_where_a_positive_point_is_the_object_may_change_at_will():
    model = Scripted({4: HERE, 5: HERE, 6: THERE, 7: THERE})
    clicked = track(4, range(4, 5), range(4, 9), points={6: (YES,)})
    mask = find(inference_on(numbered(), model), [clicked])
    assert set(np.nonzero(mask.expand(SHAPE))[0]) == {4, 5, 6, 7}
