from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from FoundationSegLib.engine.interpolation import interpolate, predict_between
from FoundationSegLib.errors import PromptError
from FoundationSegLib.imaging.masks import merge_masks, pack_mask
from FoundationSegLib.progress import Progress
from FoundationSegLib.prompts.kinds import BoxPrompt, MaskPrompt, SegmentPrompts, TextPrompt
from FoundationSegLib.requests.segmentation import PredictRequest, Propagation
from Testing.unit.engine.engine_cases import BRIGHT, ct, new_engine, predict
from Testing.unit.session.session_cases import FakeClient, make_session, mask_of, point, segment_of

BETWEEN = Propagation(hand_over="interpolate")
ROWS, COLUMNS = np.indices((20, 24))


def disc(radius, row=9, column=11):
    return (ROWS - row) ** 2 + (COLUMNS - column) ** 2 <= radius**2


def volume_of(slices, count=9):
    mask = np.zeros((count, *ROWS.shape), bool)
    for k, plane in slices.items():
        mask[k] = plane
    return mask


def filled(slices, axis="k", **options):
    mask = np.moveaxis(volume_of(slices), 0, "kji".index(axis))
    new = interpolate(pack_mask(mask), axis, **options)
    whole = merge_masks([pack_mask(mask), new]).expand(mask.shape)
    return np.moveaxis(whole, "kji".index(axis), 0)


@pytest.mark.parametrize("axis", "kji")
def test_between_equal_discs_lies_the_disc_and_between_others_one_of_a_size_between(axis):
    whole = filled({1: disc(6), 4: disc(6), 7: disc(3)}, axis)
    assert all(np.array_equal(whole[k], disc(6)) for k in (1, 2, 3, 4))
    assert disc(6).sum() > whole[5].sum() > whole[6].sum() > disc(3).sum() == whole[7].sum()
    assert not whole[[0, 8]].any()


def test_parts_are_followed_each_for_itself_and_one_that_ends_shrinks():
    left, right = disc(4, column=5), disc(4, column=18)
    whole = filled({0: left | right, 4: left | right, 8: left})
    assert np.array_equal(whole[2], left | right)
    assert np.array_equal(whole[6] & (COLUMNS < 11), left) and whole[5][:, 11:].sum() < right.sum()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sets(st.integers(0, 8), min_size=2, max_size=4))
def test_slices_of_the_user_stay_and_what_both_neighbours_have_is_between_them(seed, numbers):
    rng = np.random.default_rng(seed)
    slices = {k: disc(2) | (rng.random(ROWS.shape) < 0.3) for k in numbers}
    mask, ends = volume_of(slices), sorted(numbers)
    new = interpolate(pack_mask(mask), "k", (0.7, 0.9, 5.0))
    if new is None:
        assert max(ends) - min(ends) == len(ends) - 1
        return
    added = new.expand(mask.shape)
    for low, high in pairwise(ends):
        for k in range(low + 1, high):
            assert not (mask[low] & mask[high] & ~added[k]).any()
    assert not added[ends].any() and not added[: ends[0]].any() and not added[ends[-1] + 1 :].any()


@pytest.mark.parametrize("slices", [{}, {3: disc(4)}, {3: disc(4), 4: disc(5)}])
def test_without_slices_between_there_is_nothing_to_interpolate(slices):
    mask = pack_mask(volume_of(slices))
    assert interpolate(mask, "k") is None
    session, client = make_session()
    with pytest.raises(PromptError, match="nothing to interpolate"):
        segment_of(session).propagate(BETWEEN)
    assert not client.requests


def test_a_range_limits_what_is_filled():
    assert filled({0: disc(4), 8: disc(4)}, span=range(3, 5)).any(axis=(1, 2)).nonzero()[0].tolist() == [0, 3, 4, 8]


def test_the_engine_asks_the_model_for_prompted_slices_alone_and_needs_none_for_masks(tmp_path):
    engine, volume = new_engine(tmp_path), ct()
    boxes = [BoxPrompt(((3.0, 2.0, k), (9.0, 7.0, k))) for k in (1.0, 4.0)]
    answer = predict(engine, volume, *boxes, propagation=BETWEEN)
    (segment,) = answer.segments
    mask = np.zeros(volume.geometry.shape_kji, bool)
    mask[BRIGHT] = True
    assert np.array_equal(segment.mask.expand(mask.shape), mask)
    assert answer.counts["encodes"] == 2 and segment.slices.numbers == (1, 4)
    drawn = [MaskPrompt("drawn", "Block", voxels=pack_mask(mask[k : k + 1], (k, 0, 0))) for k in (1, 4)]
    by_hand = predict(engine, volume, *drawn, propagation=BETWEEN)
    assert by_hand.segments[0].mask == segment.mask and by_hand.device == "" and not by_hand.counts
    with pytest.raises(PromptError, match=r"segments\[0\]: there is nothing to interpolate"):
        predict(engine, volume, boxes[0], propagation=BETWEEN)


def test_what_is_said_of_a_prompted_slice_has_the_numbers_of_the_request(tmp_path):
    engine, volume = new_engine(tmp_path), ct()
    boxes = [BoxPrompt(((3.0, 2.0, k), (9.0, 7.0, last))) for k, last in ((1.0, 2.0), (4.0, 4.0))]
    clipped, beside = BoxPrompt(((3.0, 2.0, 4.0), (99.0, 7.0, 4.0))), BoxPrompt(((0.0, 0.0, 0.0), (2.0, 2.0, 0.0)))
    outside, word = BoxPrompt(((3.0, 2.0, 99.0), (9.0, 7.0, 99.0))), TextPrompt("liver")
    engine.add_volume(volume)
    progress = Progress(partial=pytest.fail, part_s=0)  # a part of the answer about slices is none of this answer

    def notes_of(*prompts):
        segments = SegmentPrompts("A", tuple(boxes)), SegmentPrompts("B", (*boxes, *prompts))
        question = PredictRequest(1, "fake", volume.key, segments, propagation=BETWEEN)
        return engine.predict(question, progress).notes

    assert notes_of(clipped) == ("segments[1].prompts[2].corners: clipped to the image",)
    assert notes_of(beside) == ("segments[1]: the model found nothing",)
    for prompt, message in ((outside, "corners: .* outside the image"), (word, "type: .* text")):
        with pytest.raises(PromptError, match=rf"^segments\[1\].prompts\[2\].{message}"):
            notes_of(prompt)


class Interpolating(FakeClient):
    """Answers as the engine does where slices are to be interpolated."""

    def prediction(self, request):
        if request.propagation != BETWEEN:
            return super().prediction(request)
        return predict_between(request, self.volume.geometry, super().prediction, Progress())


def interpolating_session():
    session, client = make_session(ask_above=None)
    client.__class__ = Interpolating
    return session, segment_of(session)


def test_in_a_session_prompted_and_corrected_slices_stay_and_one_undo_takes_all_between_back():
    session, segment = interpolating_session()
    segment.add(point(1), point(6))
    by_hand = mask_of(segment)
    by_hand[4, 2:5, 2:5] = True
    session.store.put(segment.segment_id, by_hand)
    session.detect_external_changes()
    origin = session.provenance(segment.segment_id)["Model"]
    segment.propagate(BETWEEN)
    answer = mask_of(segment)
    assert all(np.array_equal(answer[k], by_hand[k]) for k in (0, 1, 4, 6, 7))
    assert all(answer[k].any() for k in (2, 3, 5)) and session.provenance(segment.segment_id)["Model"] == origin
    assert session.undo(segment.segment_id) and np.array_equal(mask_of(segment), by_hand)
    assert session.redo(segment.segment_id) and np.array_equal(mask_of(segment), answer)
    segment.propagate(BETWEEN)
    assert np.array_equal(mask_of(segment), answer)


def test_beside_a_slice_that_was_emptied_nothing_is_filled():
    session, segment = interpolating_session()
    segment.add(point(1), point(3), point(7))
    mask = mask_of(segment)
    mask[3] = False
    session.store.put(segment.segment_id, mask)
    session.detect_external_changes()
    segment.add(point(0))
    segment.propagate(BETWEEN)
    assert np.flatnonzero(mask_of(segment).any(axis=(1, 2))).tolist() == [0, 1, 7]
