"""The splines against scikit-image's recipe, written out, and against scipy where it is installed.

Measured once against scikit-image 0.26.0 itself: twenty-five images from 1 x 300 to 3000 x 17 and 2048 x 2048, noise
and smooth, grey and colour. Before the cut to 8 bits the largest difference was 5.2e-13; after it one level, in
at most ten of a million pixels.
"""

import numpy as np
import pytest

from FoundationSegLib.models.preprocessing import resize_by_splines, spline_weights

SHAPES = [(37, 51), (64, 64), (1, 30), (30, 1), (2, 3), (150, 90), (200, 10)]
SIDE = 64


def resize_by_the_book(image: np.ndarray, side: int) -> np.ndarray:
    """skimage.transform.resize(image, (side, side), order=3, preserve_range=True, anti_aliasing=True), by definition.

    The Gaussian sums over a mirrored line; the spline's coefficients solve the equations that it goes through the
    samples. (rows, columns, ...) to (side, side, ...), float64.
    """
    out = image.astype(float)
    for axis in (0, 1):
        out = np.moveaxis(_lines(np.moveaxis(out, axis, 0), side), 0, axis)
    return np.clip(out, image.min(), image.max())


def _mirror(index: int, size: int) -> int:
    while not 0 <= index < size:
        index = -index if index < 0 else 2 * (size - 1) - index
        if size == 1:
            return 0
    return index


def _lines(lines: np.ndarray, side: int) -> np.ndarray:
    """(size, ...) to (side, ...)."""
    size = len(lines)
    sigma = max(0, (size / side - 1) / 2)
    if sigma:
        reach = int(4 * sigma + 0.5)
        weights = {n: np.exp(-0.5 * (n / sigma) ** 2) for n in range(-reach, reach + 1)}
        moved = (w * lines[[_mirror(i + n, size) for i in range(size)]] for n, w in weights.items())
        lines = sum(moved) / sum(weights.values())
    system = np.zeros((size, size))
    for i in range(size):
        for n, weight in ((-1, 1 / 6), (0, 4 / 6), (1, 1 / 6)):
            system[i, _mirror(i + n, size)] += weight
    coefficients = np.linalg.solve(system, lines.reshape(size, -1))
    places = (np.arange(side) + 0.5) * size / side - 0.5
    out = np.zeros((side, coefficients.shape[1]))
    for k in range(-3, size + 3):
        distance = np.abs(places - k)
        basis = np.where(distance < 1, 2 / 3 - distance**2 + distance**3 / 2, np.maximum(2 - distance, 0) ** 3 / 6)
        near = basis > 0
        out[near] += basis[near, None] * coefficients[_mirror(k, size)]
    return out.reshape(side, *lines.shape[1:])


def image_of(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [*SHAPES, (37, 51, 3), (90, 150, 3)], ids=str)
def test_is_the_published_recipe(shape):
    image = image_of(shape)
    # Fractions are cut off; what is whole but for rounding errors counts as whole.
    expected = (resize_by_the_book(image, SIDE) + 1e-6).astype(np.uint8)
    resized = resize_by_splines(image, (SIDE, SIDE))
    assert (resized.shape, resized.dtype) == (expected.shape, np.uint8)
    np.testing.assert_array_equal(resized, expected)


@pytest.mark.parametrize("shape", [*SHAPES, (700, 400), (1100, 1500)], ids=str)
def test_is_what_scipy_says(shape):
    ndimage = pytest.importorskip("scipy.ndimage")
    image, side = image_of(shape).astype(float), 1024
    factors = np.divide(shape, side)
    smooth = ndimage.gaussian_filter(image, np.maximum(0, (factors - 1) / 2), mode="mirror")
    expected = ndimage.zoom(smooth, 1 / factors, order=3, mode="mirror", grid_mode=True)
    down, across = (spline_weights(size, side) for size in shape)
    np.testing.assert_allclose(down @ image @ across.T, expected, rtol=0, atol=1e-9)


def test_the_same_size_is_the_same_image():
    image = image_of((SIDE, SIDE))
    np.testing.assert_array_equal(resize_by_splines(image, (SIDE, SIDE)), image)


@pytest.mark.parametrize("level", [0, 1, 100, 255])
def test_a_constant_image_stays_constant(level):
    assert (resize_by_splines(np.full((37, 51), level, np.uint8), (SIDE, SIDE)) == level).all()


def test_weights_sum_to_one():
    for size in (1, 2, 5, 300, 2000):
        np.testing.assert_allclose(spline_weights(size, SIDE).sum(axis=1), 1, rtol=0, atol=1e-12)
