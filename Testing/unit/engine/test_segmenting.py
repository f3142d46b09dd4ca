import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.engine.cache import EmbeddingCache
from FoundationSegLib.engine.segmenting import stack_slices
from FoundationSegLib.engine.slice_inference import SliceInference
from FoundationSegLib.engine.tracks import Track
from FoundationSegLib.errors import Cancelled
from FoundationSegLib.imaging.geometry import AXES, Geometry, array_axis
from FoundationSegLib.imaging.masks import EMPTY_MASK
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.models.protocols import SlicePrompt
from FoundationSegLib.progress import CancelToken, Progress
from Testing.unit.engine.walk_cases import (
    AS_IT_IS,
    CHECKPOINT,
    HERE,
    SHAPE,
    Moody,
    Scripted,
    bright,
    find,
    inference_on,
    numbered,
    rivals,
    track,
)
from Testing.unit.fakes import FakeModel


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


@pytest.mark.parametrize("axis", AXES)
def test_a_box_is_a_box_of_its_slices(axis):
    """x along the later array axis, y along the earlier: an asymmetric box in a bright volume comes back as itself."""
    mask = find(
        inference_on(np.full(SHAPE, 250, np.uint8)),
        [track(5, range(5, 6), prompt=SlicePrompt((1, 3, 6, 4)), axis=axis)],
        Progress(),
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
        inference = SliceInference(
            FakeModel(), CHECKPOINT, volume, AS_IT_IS, EmbeddingCache(10**6), as_stored=as_stored
        )
        one = Track(axis, (3,), (box,), range(2, 6), range(2, 6), (1, 2, 8, 7))
        masks.append(find(inference, [one], Progress()))
    assert masks[0] == masks[1]
    assert masks[0].voxels > 0


def test_a_cache_that_holds_nothing_changes_no_mask():
    array = np.zeros(SHAPE, np.uint8)
    array[2:7, 2:6, 3:9] = 200
    spans = [track(4, range(2, 7)), track(3, range(3, 6))]
    kept, lost = inference_on(array), inference_on(array, cache=EmbeddingCache(0))
    assert find(kept, spans, Progress()) == find(lost, spans, Progress())
    assert (kept.tally.encodes, kept.tally.reencodes) == (5, 0)
    assert lost.tally.encodes - lost.tally.reencodes == 5


def test_scores_are_those_of_slices_with_a_mask():
    model = Scripted({4: HERE, 6: HERE})
    inference = inference_on(numbered(), model)
    find(inference, [track(4, range(3, 8))], Progress())
    assert inference.tally.encode_s >= 0
    assert inference.tally.decode_s > 0


def test_progress_counts_slices_of_all_tracks():
    seen = []
    tracks = [track(4, range(3, 6)), track(2, range(2, 3), axis="j")]
    find(inference_on(numbered()), tracks, Progress(seen.append))
    assert [(report.stage, report.done, report.total) for report in seen] == [("slices", n, 4) for n in (1, 2, 3, 4)]


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


def test_stacked_slices_leave_the_others_empty():
    found = {2: np.eye(3, dtype=bool), 5: np.ones((3, 3), bool)}
    mask = stack_slices("j", found, (3, 9, 3)).expand((3, 9, 3))
    assert np.array_equal(mask[:, 2, :], np.eye(3, dtype=bool))
    assert set(np.nonzero(mask)[1]) == {2, 5}
    assert stack_slices("j", {}, (3, 9, 3)) == EMPTY_MASK
