"""Held-out splits and intervals, and the simulated prompts that are drawn on slices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from FoundationSegLib.errors import InputError
from FoundationSegLib.evaluation.held_out import GAP, LabelledSlice, gain_over, joined_patients, split_slices
from FoundationSegLib.evaluation.simulated_prompts import (
    disc,
    ellipse,
    first_click,
    overlap,
    random_box,
    random_click,
    slice_box,
    slice_click,
)

COUNTS = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 70)), min_size=1, max_size=6)


@given(COUNTS, st.integers(0, 9), st.booleans())
def test_a_split_keeps_test_and_training_apart(images, seed, interleaved):
    slices = [LabelledSlice(n, "ABCDE"[who], k) for n, (who, count) in enumerate(images) for k in range(count)]
    try:
        split = split_slices(slices, seed, interleaved=interleaved)
    except InputError as error:
        assert "too few" in str(error)
        return
    assert split == split_slices(slices, seed, interleaved=interleaved)
    assert split.training and split.unit_count >= 2 and not split.training & set(split.units)
    several = len({item.patient for item in slices}) >= 3
    for item, unit in split.units.items():
        if several and not interleaved:
            assert item.patient not in {other.patient for other in split.training}
        others = [other for other in split.units if split.units[other] != unit and other.case == item.case]
        if not interleaved and split.kind == "blocks":
            near = others if several else [*others, *(other for other in split.training if other.case == item.case)]
            assert all(abs(other.index - item.index) > GAP for other in near)


@pytest.mark.parametrize(
    ("units", "certain"),
    [
        ([[0.3, 0.3], [0.31]], True),
        ([[0.1], [0.2], [0.02]], False),  # all above zero: by chance one time in eight
        ([[0.5]], False),  # one patient says nothing of others
        ([], False),
        ([[0.1]] * 5, True),
        ([[0.1], [-0.1], [0.1], [0.0]], False),
    ],
)
def test_a_gain_is_certain_only_beyond_the_differences_between_units(units, certain):
    gain = gain_over({str(n): values for n, values in enumerate(units)}, 0)
    assert gain.is_certain == certain
    if gain.low is not None and gain.high is not None:
        assert gain.low <= gain.mean <= gain.high


def test_intervals_of_nothing_hold_zero_as_often_as_they_say():
    rng = np.random.default_rng(0)
    draws = [{str(n): rng.normal(0, 1, 3).tolist() for n in range(4)} for _ in range(400)]
    assert sum(gain_over(draw, 0).is_certain for draw in draws) <= 400 * 0.05


def test_images_that_share_a_slice_are_of_one_patient():
    rng = np.random.default_rng(1)
    image, other = rng.integers(0, 99, (2, 8, 5, 5))
    blank = np.zeros((3, 5, 5))
    images = [("A", image), ("B", image[2:5].astype(np.float32)), ("C", other), ("D", blank), ("E", blank)]
    assert joined_patients(images) == ("A", "A", "C", "D", "E")


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_prompts_lie_where_a_person_would_put_them(seed):
    rng = np.random.default_rng(seed)
    mask = disc(tuple(rng.uniform(4, 16, 2)), rng.uniform(1.5, 6), (18, 22))
    for x, y in (first_click(mask), random_click(mask, rng)):
        assert mask[y, x]
    rows, columns = np.nonzero(mask)
    x0, y0, x1, y1 = box = slice_box(mask)
    assert x0 <= columns.min() and x1 >= columns.max() and y0 <= rows.min() and y1 >= rows.max()
    for a0, b0, a1, b1 in (slice_box(mask, rng), random_box(mask.shape, rng)):
        assert 0 <= a0 < a1 <= 21 and 0 <= b0 < b1 <= 17
    assert overlap(mask, ellipse(box, mask.shape)) > 0.6
    assert slice_click(mask, mask) is None and overlap(mask, mask) == 1
    wrong = slice_click(mask, np.zeros_like(mask))
    assert wrong is not None and mask[wrong.index_ijk[1], wrong.index_ijk[0]]
