"""Stacks of slices: any orientation, any order, tilt kept, unevenness named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from FoundationSegLib.core.errors import GeometryError
from FoundationSegLib.io.stack import place_slices

AXIAL = (1, 0, 0, 0, 1, 0)


def rotation(seed: int) -> NDArray[np.float64]:
    """A random rotation; its columns are the i axis, the j axis and the normal."""
    axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    axes[:, 2] = np.cross(axes[:, 0], axes[:, 1])
    return axes


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(2, 40),
    gap=st.floats(0.1, 10),
    tilt=st.one_of(st.just(0.0), st.floats(0.05, 0.7)),
)
def test_any_even_stack_is_placed_exactly(seed: int, count: int, gap: float, tilt: float) -> None:
    axes, rng = rotation(seed), np.random.default_rng(seed)
    step = gap * (axes[:, 2] + tilt * axes[:, 1])
    origin = rng.uniform(-300, 300, 3)
    shuffled = rng.permutation(count)
    stack = place_slices(origin + np.outer(shuffled, step), (*axes[:, 0], *axes[:, 1]), (0.6, 0.9))
    assert np.array_equal(shuffled[list(stack.order)], np.arange(count))
    assert np.allclose(stack.matrix_lps[:3, 0], 0.6 * axes[:, 0])
    assert np.allclose(stack.matrix_lps[:3, 1], 0.9 * axes[:, 1])
    assert np.allclose(stack.matrix_lps[:3, 2], step)
    assert np.allclose(stack.matrix_lps[:3, 3], origin)
    assert bool(stack.notes) == (tilt > 0)


@pytest.mark.parametrize("digits", [2, 3])
def test_rounded_decimals_are_even_and_not_tilted(digits: int) -> None:
    positions = np.round([(0.001 * (k % 2), 0, 0.625 * k) for k in range(60)], digits)
    stack = place_slices(positions, AXIAL, (1, 1))
    assert stack.notes == ()
    assert np.allclose(stack.matrix_lps[:3, 2], (0, 0, 0.625), atol=1e-3)


@pytest.mark.parametrize(
    ("heights", "problem"),
    [
        ((0, 1, 2, 4, 5), "2 mm between slices 3 and 4 of 5 instead of 1 mm"),
        ((0, 1, 2.02, 3.02), "1.02 mm between slices 2 and 3 of 4 instead of 1 mm"),
        ((0, 2, 2, 4), "share a position .*slices 2 and 3"),
        ((5, 5), "share a position"),
    ],
)
def test_what_makes_no_grid(heights: tuple[float, ...], problem: str) -> None:
    with pytest.raises(GeometryError, match=problem):
        place_slices([(0, 0, z) for z in heights], AXIAL, (1, 1))


def test_slices_shifted_sideways_by_different_amounts() -> None:
    with pytest.raises(GeometryError, match="slice 3 of 4 is shifted sideways"):
        place_slices([(0, 0, 0), (0, 0, 1), (2, 0, 2), (2, 0, 3)], AXIAL, (1, 1))


@pytest.mark.parametrize("orientation", [(0, 0, 0, 0, 1, 0), (1, 0, 0, 1, 0, 0)])
def test_orientation_that_is_none(orientation: tuple[float, ...]) -> None:
    with pytest.raises(GeometryError, match="not a pair of directions"):
        place_slices([(0, 0, 0), (0, 0, 1)], orientation, (1, 1))
