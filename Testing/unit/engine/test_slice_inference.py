from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.core.errors import Cancelled
from FoundationSegLib.core.geometry import AXES, Geometry, array_axis
from FoundationSegLib.core.intensity import IntensityMapping
from FoundationSegLib.core.mask import EMPTY_MASK
from FoundationSegLib.core.progress import CancelToken, Progress
from FoundationSegLib.core.requests import CheckpointRecord
from FoundationSegLib.core.volume import Volume
from FoundationSegLib.engine.cache import EmbeddingCache
from FoundationSegLib.engine.slice_inference import SliceInference, slice_of, stack_slices
from FoundationSegLib.engine.tracks import Track
from FoundationSegLib.models.base import SliceAnswer, SlicePrompt
from Testing.unit.fakes import FakeModel, volume_of

SHAPE = (9, 10, 12)
WHOLE = SlicePrompt((0, 0, 11, 9))
CHECKPOINT = CheckpointRecord("fake", "fake-wheel", "1.0", "ab")
AS_IT_IS = IntensityMapping("raw", "raw", 0.0, 255.0)


def inference_on(array, model=None, cache=None, mapping=AS_IT_IS, as_stored=True):
    cache = EmbeddingCache(10**6) if cache is None else cache
    return SliceInference(model or FakeModel(), CHECKPOINT, volume_of(array), mapping, cache, as_stored)


def numbered(axis="k", shape=SHAPE):
    """A dark volume whose slices across the axis have their number in every voxel."""
    array = np.zeros(shape, np.uint8)
    for index in range(shape[array_axis(axis)]):
        slice_of(volume_of(array), axis, index)[...] = index
    return array


def track(key, span, reach=None, prompt=WHOLE, axis="k", limit=None):
    return Track(axis, (key,), prompt, span, reach or span, limit)


def rivals(*starts, span=range(9), wider=0):
    """A track with several starts."""
    return Track("k", starts, WHOLE, span, span, wider=wider)


def visits(model):
    return [int(image.flat[0]) for image, _ in model.decoded]


class Scripted(FakeModel):
    """Finds on the slice with each number what it is told to; everything else as in the fake model."""

    def __init__(self, masks):
        super().__init__()
        self.masks = masks

    def decode(self, embedding, prompt):
        self.decoded.append((embedding.image, prompt.box))
        mask = np.zeros(embedding.image.shape[:2], np.bool_)
        rows, columns = self.masks.get(int(embedding.image.flat[0]), (slice(0), slice(0)))
        mask[rows, columns] = True
        return SliceAnswer(mask, 0.5)


HERE = (slice(2, 6), slice(3, 8))
THERE = (slice(7, 9), slice(9, 11))


@pytest.mark.parametrize("axis", AXES)
def test_the_key_comes_first_then_up_then_down(axis):
    model = Scripted(dict.fromkeys(range(12), (slice(1, 3), slice(1, 3))))
    inference_on(numbered(axis), model).segment([track(4, range(2, 7), axis=axis)], Progress())
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
    inference.segment(tracks, Progress())
    seen = visits(model)
    for one in tracks:
        part, seen = seen[: len(one.span)], seen[len(one.span) :]
        assert part[0] == one.starts[0]
        assert Counter(part) == Counter(one.span)
    assert seen == []
    assert inference.tally.encodes == len({index for one in tracks for index in one.span})


def test_the_next_slice_gets_the_box_of_the_last_mask():
    model = Scripted({4: HERE, 5: THERE, 3: HERE})
    inference_on(numbered(), model).segment([track(4, range(3, 7))], Progress())
    boxes = [box for _, box in model.decoded]
    around_here, around_there = (2, 1, 8, 6), (8, 6, 11, 9)
    assert visits(model) == [4, 5, 6, 3]
    assert boxes == [WHOLE.box, around_here, around_there, around_here], "downwards starts from the key's mask again"


class Moody(FakeModel):
    """Answers every box with that box; the larger, the surer. What the prompt finds may be told for some slices."""

    def __init__(self, found=None):
        super().__init__()
        self.found = found or {}

    def decode(self, embedding, prompt):
        answer = FakeModel.decode(self, embedding, prompt)
        index = int(embedding.image.flat[0]) - 200
        if prompt == WHOLE and index in self.found:
            mask = np.zeros_like(answer.mask)
            mask[self.found[index]] = True
            return SliceAnswer(mask, 0.0)
        return SliceAnswer(answer.mask, np.count_nonzero(answer.mask) / 1000)


def bright():
    return numbered() + np.uint8(200)


SMALL, LARGE = (slice(4, 6), slice(5, 7)), (slice(2, 8), slice(2, 9))


def test_every_slice_keeps_the_answer_that_the_model_is_surest_of():
    found = {2: SMALL, 6: LARGE}
    low, high, both = (
        inference_on(bright(), Moody(found)).segment([rivals(*starts)], Progress()).expand(SHAPE).sum(axis=(1, 2))
        for starts in ((2,), (6,), (2, 6))
    )
    beside = [0, 1, 3, 4, 5, 7, 8]
    assert (low[beside] != high[beside]).all()
    assert np.array_equal(both[beside], np.maximum(low, high)[beside])
    assert (both[2], both[6]) == (high[2], low[6]), "also where a walk started, another may be surer"


def test_an_answer_with_a_mask_wins_over_a_surer_one_without():
    class Unsure(Scripted):
        def decode(self, embedding, prompt):
            mask = Scripted.decode(self, embedding, prompt).mask & (prompt != WHOLE)
            return SliceAnswer(mask, 0.1 if mask.any() else 0.9)

    model = Unsure(dict.fromkeys(range(9), HERE))
    model.hand_over = lambda mask, wider: SlicePrompt((1, 1, 9, 9))
    mask = inference_on(numbered(), model).segment([rivals(2, 6)], Progress()).expand(SHAPE)
    assert set(np.nonzero(mask)[0]) == set(range(9))


def test_walks_whose_boxes_are_the_same_go_on_as_one():
    model = Scripted(dict.fromkeys(range(9), HERE))
    inference_on(numbered(), model).segment([rivals(2, 4, 6)], Progress())
    assert visits(model) == [2, 3, 4, 4, 5, 6, 6, 7, 8, 5, 4, 3, 2, 1, 0]


@given(st.lists(st.integers(0, 8), min_size=1, max_size=4, unique=True).map(sorted), st.integers(0, 5))
def test_each_way_passes_a_slice_once_so_that_a_small_cache_does(starts, seed):
    random = np.random.default_rng(seed)
    found = {index: (slice(y, y + 3), slice(x, x + 3)) for index, (y, x) in enumerate(random.integers(0, 6, (9, 2)))}
    kept, lost = Moody(found), Moody(found)
    wanted = inference_on(bright(), kept).segment([rivals(*starts)], Progress())
    assert len(kept.encoded) == 9
    assert inference_on(bright(), lost, EmbeddingCache(1000)).segment([rivals(*starts)], Progress()) == wanted
    assert len(lost.encoded) <= 2 * 9


def test_boxes_are_handed_over_as_wide_as_the_track_says():
    model = Scripted({4: HERE, 5: HERE})
    inference_on(numbered(), model).segment([rivals(4, span=range(4, 6), wider=2)], Progress())
    assert [box for _, box in model.decoded] == [WHOLE.box, (0, -1, 10, 8)]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
def test_turned_slices_give_the_same_mask_where_the_model_does_not_care(axis, signs):
    array = np.random.default_rng(3).integers(0, 255, SHAPE).astype(np.uint8)
    volume = Volume(array, Geometry(np.diag((*signs, 1.0)), SHAPE))
    box = SlicePrompt((1, 2, 7, 6))
    masks = []
    for as_stored in (True, False):
        inference = SliceInference(FakeModel(), CHECKPOINT, volume, AS_IT_IS, EmbeddingCache(10**6), as_stored)
        one = Track(axis, (3,), box, range(2, 6), range(2, 6), (1, 2, 8, 7))
        masks.append(inference.segment([one], Progress()))
    assert masks[0] == masks[1]
    assert masks[0].voxels > 0


def test_the_model_sees_left_on_the_right():
    array = np.zeros(SHAPE, np.uint8)
    array[4, 2, 1] = 200  # in a volume stored towards right, anterior and superior
    model = FakeModel()
    inference_on(array, model, as_stored=False).segment([track(4, range(4, 5))], Progress())
    assert np.argwhere(model.encoded[0]).tolist() == [[9 - 2, 11 - 1]]


def test_where_the_mask_is_lost_inside_the_span_the_prompt_is_asked_again():
    model = Scripted({4: HERE, 6: HERE, 7: HERE})
    inference_on(numbered(), model).segment([track(4, range(4, 8))], Progress())
    assert [box for _, box in model.decoded] == [WHOLE.box, (2, 1, 8, 6), WHOLE.box, (2, 1, 8, 6)]


def test_the_box_of_the_last_mask_is_cut_to_the_limit():
    model = Scripted({4: HERE, 5: THERE, 6: HERE})
    inference_on(numbered(), model).segment([track(4, range(4, 8), limit=(3, 2, 6, 5))], Progress())
    boxes = [box for _, box in model.decoded]
    assert boxes == [WHOLE.box, (3, 2, 6, 5), WHOLE.box, (3, 2, 6, 5)], "what left the limit altogether is lost"


def test_where_nothing_is_found_the_prompt_is_asked_everywhere():
    model = Scripted({})
    inference = inference_on(numbered(), model)
    assert inference.segment([track(4, range(3, 7))], Progress()) == EMPTY_MASK
    assert [box for _, box in model.decoded] == [WHOLE.box] * 4
    assert inference.tally.scores == []


def test_beyond_the_span_it_stops_where_the_mask_is_lost():
    model = Scripted(dict.fromkeys((2, 3, 4, 5, 8), HERE))
    mask = inference_on(numbered(), model).segment([track(4, range(4, 5), range(9))], Progress())
    assert visits(model) == [4, 5, 6, 3, 2, 1], "6 and 1 are asked, and end it"
    assert set(np.nonzero(mask.expand(SHAPE))[0]) == {2, 3, 4, 5}


def test_beyond_the_span_it_stops_where_the_object_becomes_another():
    model = Scripted({4: HERE, 5: HERE, 6: THERE, 7: HERE})
    mask = inference_on(numbered(), model).segment([track(4, range(4, 5), range(4, 9))], Progress())
    assert visits(model) == [4, 5, 6]
    assert set(np.nonzero(mask.expand(SHAPE))[0]) == {4, 5}
    model = Scripted({4: HERE, 5: HERE, 6: THERE, 7: HERE})
    mask = inference_on(numbered(), model).segment([track(4, range(4, 8))], Progress())
    assert set(np.nonzero(mask.expand(SHAPE))[0]) == {4, 5, 6, 7}, "inside the span it does not stop"


def test_a_key_without_a_mask_is_not_carried_on():
    model = Scripted(dict.fromkeys((3, 5), HERE))
    assert inference_on(numbered(), model).segment([track(4, range(4, 5), range(9))], Progress()) == EMPTY_MASK
    assert visits(model) == [4]


@pytest.mark.parametrize("axis", AXES)
def test_masks_lie_where_the_bright_voxels_are(axis):
    array = np.zeros(SHAPE, np.uint8)
    bright = (slice(2, 5), slice(3, 7), slice(4, 10))
    array[bright] = 200
    wanted = np.zeros(SHAPE, np.bool_)
    wanted[bright] = True
    span = range(bright[array_axis(axis)].start, bright[array_axis(axis)].stop)
    model = FakeModel()
    mask = inference_on(array, model).segment([track(span[1], span, axis=axis)], Progress())
    assert np.array_equal(mask.expand(SHAPE), wanted)
    assert model.encoded[0].shape == tuple(n for n, name in zip(SHAPE, "kji", strict=True) if name != axis)


@pytest.mark.parametrize("axis", AXES)
def test_a_box_is_a_box_of_its_slices(axis):
    """x along the later array axis, y along the earlier: an asymmetric box in a bright volume comes back as itself."""
    mask = inference_on(np.full(SHAPE, 250, np.uint8)).segment(
        [track(5, range(5, 6), prompt=SlicePrompt((1, 3, 6, 4)), axis=axis)], Progress()
    )
    wanted = np.zeros(SHAPE, np.bool_)
    place = [slice(3, 5), slice(1, 7)]
    place.insert(array_axis(axis), slice(5, 6))
    wanted[tuple(place)] = True
    assert np.array_equal(mask.expand(SHAPE), wanted)


def test_tracks_are_joined_across_axes_and_on_one_slice():
    tracks = [
        track(5, range(5, 6), prompt=SlicePrompt((0, 0, 1, 1))),
        track(5, range(5, 6), prompt=SlicePrompt((4, 4, 5, 5))),
        track(2, range(2, 3), prompt=SlicePrompt((7, 3, 8, 4)), axis="j"),
    ]
    mask = inference_on(np.full(SHAPE, 250, np.uint8)).segment(tracks, Progress())
    wanted = np.zeros(SHAPE, np.bool_)
    wanted[5, 0:2, 0:2] = wanted[5, 4:6, 4:6] = wanted[3:5, 2, 7:9] = True
    assert np.array_equal(mask.expand(SHAPE), wanted)


def test_a_slice_is_encoded_once_however_many_prompts_it_gets():
    model, cache = FakeModel(), EmbeddingCache(10**6)
    first, second = (inference_on(numbered(), model, cache) for _ in range(2))
    first.segment([track(4, range(3, 6)), track(5, range(4, 7))], Progress())
    assert (first.tally.encodes, first.tally.decodes, len(model.encoded)) == (4, 6, 4)
    second.segment([track(4, range(3, 6))], Progress())
    assert (second.tally.encodes, second.tally.decodes, len(model.encoded)) == (0, 3, 4)


def test_another_axis_intensity_or_image_is_encoded_anew():
    model, cache = FakeModel(), EmbeddingCache(10**6)
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
        inference.segment([track(4, range(4, 5), axis=axis)], Progress())
        assert inference.tally.encodes == 1


def test_a_cache_that_holds_nothing_changes_no_mask():
    array = np.zeros(SHAPE, np.uint8)
    array[2:7, 2:6, 3:9] = 200
    spans = [track(4, range(2, 7)), track(3, range(3, 6))]
    kept, lost = inference_on(array), inference_on(array, cache=EmbeddingCache(0))
    assert kept.segment(spans, Progress()) == lost.segment(spans, Progress())
    assert (kept.tally.encodes, lost.tally.encodes) == (5, 8)


def test_the_model_sees_the_slices_through_the_mapping_in_8_bits():
    array = np.linspace(-1000, 1000, num=int(np.prod(SHAPE))).reshape(SHAPE)
    mapping = IntensityMapping("400,40", "window", -160.0, 240.0)
    model = FakeModel()
    inference_on(array, model, mapping=mapping).segment([track(4, range(4, 5))], Progress())
    assert model.encoded[0].dtype == np.uint8
    assert np.array_equal(model.encoded[0], mapping.to_uint8(array[4]))


def test_colour_slices_keep_their_colours():
    array = np.zeros((*SHAPE, 3), np.uint8)
    array[4, 2:5, 3:6, 1] = 200
    model = FakeModel()
    mask = inference_on(array, model).segment([track(4, range(4, 5))], Progress())
    assert model.encoded[0].shape == (10, 12, 3)
    assert (mask.box.start_kji, mask.box.stop_kji) == ((4, 2, 3), (5, 5, 6))


def test_scores_are_those_of_slices_with_a_mask():
    model = Scripted({4: HERE, 6: HERE})
    inference = inference_on(numbered(), model)
    inference.segment([track(4, range(3, 8))], Progress())
    assert inference.tally.scores == [0.5, 0.5]
    assert inference.tally.encode_s >= 0
    assert inference.tally.decode_s > 0


def test_progress_counts_slices_of_all_tracks():
    seen = []
    tracks = [track(4, range(3, 6)), track(2, range(2, 3), axis="j")]
    inference_on(numbered()).segment(tracks, Progress(seen.append))
    assert [(report.stage, report.done, report.total) for report in seen] == [("slices", n, 4) for n in (1, 2, 3, 4)]


def test_it_stops_between_slices():
    model, token = Scripted(dict.fromkeys(range(9), HERE)), CancelToken()

    def stop_at_two(report):
        if report.done == 2:
            token.cancel()

    with pytest.raises(Cancelled):
        inference_on(numbered(), model).segment([track(4, range(9))], Progress(stop_at_two, token))
    assert len(model.decoded) == 3


@given(st.lists(st.integers(0, 8), min_size=1, max_size=4, unique=True).map(sorted), st.integers(0, 5))
def test_progress_never_goes_back_and_ends_at_its_total(starts, seed):
    random, seen = np.random.default_rng(seed), []
    found = {index: (slice(y, y + 3), slice(x, x + 3)) for index, (y, x) in enumerate(random.integers(0, 6, (9, 2)))}
    inference_on(bright(), Moody(found)).segment([rivals(*starts), track(2, range(2, 3))], Progress(seen.append))
    done = [report.done for report in seen]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (1, seen[-1].total)
    assert len({report.total for report in seen}) == 1


def test_stacked_slices_leave_the_others_empty():
    found = {2: np.eye(3, dtype=bool), 5: np.ones((3, 3), bool)}
    mask = stack_slices("j", found, (3, 9, 3)).expand((3, 9, 3))
    assert np.array_equal(mask[:, 2, :], np.eye(3, dtype=bool))
    assert set(np.nonzero(mask)[1]) == {2, 5}
    assert stack_slices("j", {}, (3, 9, 3)) == EMPTY_MASK
