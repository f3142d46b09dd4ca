"""The next click against a plain form of the challenge's rule: floods and distances without a library."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.core.prompts import Polarity
from FoundationSegLib.evaluation.clicks import Click, interior_depth, next_click
from Testing.unit.evaluation.masks import block, pairs, shapes, spacings

NEIGHBOURS = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]


def components(error):
    """The sets of voxels that hang together by faces, edges or corners, in the order of their first voxels."""
    left, found = {tuple(map(int, voxel)) for voxel in np.argwhere(error)}, []
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        queue, component = [start], {start}
        while queue:
            voxel = queue.pop()
            for step in NEIGHBOURS:
                near = tuple(a + b for a, b in zip(voxel, step, strict=True))
                if near in left:
                    left.remove(near)
                    component.add(near)
                    queue.append(near)
        found.append(component)
    return found


def depths(component, shape, spacing):
    """By voxel of the component: mm to the nearest voxel outside, one layer around the image included."""
    outside = [v for v in itertools.product(*(range(-1, n + 1) for n in shape)) if v not in component]
    scale = np.array(spacing[::-1])
    return {v: min(np.linalg.norm((np.array(v) - o) * scale) for o in outside) for v in component}


def challenge_click(error, seed=42):
    """The voxel (k, j, i) by the challenge's rule: distances in voxels."""
    largest = max(components(error), key=len)
    depth = depths(largest, error.shape, (1, 1, 1))
    deepest = [v for v in sorted(depth) if np.isclose(depth[v], max(depth.values()))]
    np.random.seed(seed)  # noqa: NPY002
    return deepest[np.random.choice(len(deepest))]  # noqa: NPY002


@given(pairs, spacings)
def test_a_click_lies_deepest_in_the_largest_error(pair, spacing):
    truth, mask = pair
    click = next_click(truth, mask, spacing)
    if np.array_equal(truth, mask):
        assert click is None
        return
    k, j, i = click.index_ijk[::-1]
    assert truth[k, j, i] != mask[k, j, i]
    assert click.polarity == (Polarity.POSITIVE if truth[k, j, i] else Polarity.NEGATIVE)
    parts = components(truth != mask)
    own = next(part for part in parts if (k, j, i) in part)
    assert len(own) == max(map(len, parts))
    depth = depths(own, truth.shape, spacing)
    assert depth[k, j, i] == pytest.approx(max(depth.values()))


@given(pairs, st.integers(0, 2**32 - 1))
def test_with_a_spacing_of_one_it_is_the_challenges_click(pair, seed):
    truth, mask = pair
    click = next_click(truth, mask, seed=seed)
    assert click is None or click.index_ijk[::-1] == challenge_click(truth != mask, seed)


@given(shapes, spacings)
def test_a_perfect_segment_needs_no_click(shape, spacing):
    mask = np.random.default_rng(1).random(shape) > 0.5
    assert next_click(mask, mask.copy(), spacing) is None


def test_an_empty_segment_is_clicked_in_the_middle_of_the_object():
    truth = block((9, 9, 9), (2, 7), (2, 7), (2, 7))
    assert next_click(truth, np.zeros_like(truth)) == Click((4, 4, 4), Polarity.POSITIVE)


def test_too_much_is_clicked_away():
    mask = block((9, 9, 9), (2, 7), (2, 7), (2, 7))
    assert next_click(np.zeros_like(mask), mask) == Click((4, 4, 4), Polarity.NEGATIVE)


def test_the_larger_error_comes_first():
    truth = block((7, 7, 20), (2, 5), (2, 5), (1, 4))
    mask = block((7, 7, 20), (1, 6), (1, 6), (10, 15))
    assert next_click(truth, mask) == Click((12, 3, 3), Polarity.NEGATIVE)


def test_distances_are_in_mm():
    """A flat error of thick slices: in voxels every one of the two layers' inner voxels is as deep as the next."""
    truth = block((4, 11, 11), (1, 3), (0, 11), (0, 11))
    click = next_click(truth, np.zeros_like(truth), (1.0, 1.0, 10.0))
    assert click.index_ijk[:2] == (5, 5)


def test_errors_that_touch_at_a_corner_are_one():
    truth = block((8, 8, 8), (0, 2), (0, 2), (0, 2)) | block((8, 8, 8), (2, 4), (2, 4), (2, 4))
    truth |= block((8, 8, 8), (6, 8), (5, 8), (6, 8))  # 12 voxels: more than either half, less than both
    assert max(next_click(truth, np.zeros_like(truth)).index_ijk) < 4


def test_the_border_of_the_image_is_outside():
    whole = np.ones((5, 5, 5), np.bool_)
    assert next_click(whole, ~whole).index_ijk == (2, 2, 2)
    assert interior_depth(whole, (1, 1, 1))[0, 2, 2] == 1


def test_the_seed_chooses_among_equals_and_nothing_else_does():
    truth = np.ones((1, 1, 60), np.bool_)
    clicks = {next_click(truth, ~truth, seed=seed) for seed in range(20)}
    assert len(clicks) > 1
    assert next_click(truth, ~truth) == next_click(truth, ~truth)
    np.random.seed(7)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    next_click(truth, ~truth)
    assert np.array_equal(np.random.get_state()[1], before), "nobody else's random numbers change"  # noqa: NPY002
