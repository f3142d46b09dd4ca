"""Resizing against OpenCV, scipy and scikit-image's recipe, and the preparation that a file may ask for.

The splines were measured once against scikit-image 0.26.0 itself: twenty-five images from 1 x 300 to 3000 x 17 and
2048 x 2048, noise and smooth, grey and colour. Before the cut to 8 bits the largest difference was 5.2e-13; after it
one level, in at most ten of a million pixels.
"""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.errors import CheckpointError
from FoundationSegLib.models.preprocessing import (
    CUBIC_FROM,
    IMAGENET,
    Normalisation,
    longest_side_shape,
    read_normalisation,
    resize_by_splines,
    resize_longest_side,
    resize_weights,
    spline_weights,
)
from Testing.models.small_sam import preprocessor

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


@pytest.mark.parametrize("level", [0, 1, 100, 255])
def test_a_constant_image_stays_constant(level):
    assert (resize_by_splines(np.full((37, 51), level, np.uint8), (SIDE, SIDE)) == level).all()


def test_weights_sum_to_one():
    for size in (1, 2, 5, 300, 2000):
        np.testing.assert_allclose(spline_weights(size, SIDE).sum(axis=1), 1, rtol=0, atol=1e-12)


sides = st.integers(1, 700)
OPENCV_SHAPES = [
    (512, 512),
    (512, 300),
    (300, 512),
    (257, 256),
    (208, 192),
    (256, 100),
    (100, 122),
    (122, 101),
    (30, 7),
    (1, 40),
    (2, 2),
]


def opencv(image, length):
    rows, columns = longest_side_shape(image.shape[:2], length)
    factor = length / max(image.shape[:2])
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR if factor < CUBIC_FROM else cv2.INTER_CUBIC
    return cv2.resize(image, (columns, rows), interpolation=how)


def noise(shape):
    return np.random.default_rng(3).integers(0, 256, shape, np.uint8)


@given(sides, sides, st.integers(1, 300))
def test_the_longest_side_gets_the_length(rows, columns, length):
    shape = longest_side_shape((rows, columns), length)
    assert max(shape) == length
    assert min(shape) >= 1
    scale = length / max(rows, columns)
    assert shape == tuple(max(1, int(side * scale + 0.5)) for side in (rows, columns)), "the official script's rule"


@given(sides, st.integers(1, 300))
def test_every_new_pixel_is_a_weighted_mean_of_old_ones(size, new_size):
    weights = resize_weights(size, new_size)
    assert weights.shape == (new_size, size)
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-5)
    if size >= new_size:
        assert weights.min() >= 0
        assert np.allclose(weights.sum(axis=0), new_size / size, atol=1e-4), "every old pixel counts as much"
    assert np.allclose(weights, weights[::-1, ::-1], atol=1e-5), "neither end is preferred"


@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "colour"])
@pytest.mark.parametrize("shape", OPENCV_SHAPES, ids=str)
def test_it_agrees_with_opencv_to_one_grey_level(shape, channels):
    image = noise((*shape, *channels))
    ours, theirs = resize_longest_side(image, 256), opencv(image, 256)
    assert ours.dtype == np.uint8
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


def test_an_image_of_the_right_size_stays_as_it_is():
    image = noise((256, 100))
    assert np.array_equal(resize_longest_side(image, 256), image)


@pytest.mark.parametrize("value", [0, 1, 254, 255])
@pytest.mark.parametrize("shape", [(512, 300), (30, 41)])
def test_a_constant_stays_that_constant(shape, value):
    resized = resize_longest_side(np.full(shape, value, np.uint8), 256)
    assert (resized == value).all()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "preprocessor_config.json"


def test_what_it_says_is_taken_and_the_rest_is_usual(path, sam_card):
    path.write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3], "rescale_factor": 1}))
    assert read_normalisation({path.name: path}, sam_card, {}) == Normalisation((0.1, 0.2, 0.3), factor=1)
    assert read_normalisation({}, sam_card, {}) == IMAGENET


def test_a_shape_may_be_left_out_and_not_be_another(path, sam_card):
    shape = {"size": {"longest_edge": 256}}
    for document in ({}, shape):
        path.write_text(json.dumps(document))
        assert read_normalisation({path.name: path}, sam_card, shape) == IMAGENET
    path.write_text(json.dumps({"size": {"longest_edge": 512}}))
    with pytest.raises(CheckpointError, match="asks for a preparation"):
        read_normalisation({path.name: path}, sam_card, shape)


@pytest.mark.parametrize(
    "changes",
    [
        {"do_normalize": False},
        {"do_rescale": False},
        {"do_resize": False},
        {"resample": 3},
        {"image_mean": [0.5]},
        {"image_mean": 0.5},
        {"image_mean": "grey"},
        {"image_std": ["a", "b", "c"]},
        {"image_std": [[1.0]]},
        {"image_std": [0.2, 0.2, 0]},
        {"rescale_factor": 0},
        {"rescale_factor": None},
        {"rescale_factor": "1/255"},
    ],
    ids=str,
)
def test_what_no_family_does_is_refused(path, sam_card, changes):
    path.write_text(json.dumps(preprocessor(256, **changes)))
    with pytest.raises(CheckpointError, match=r"SAM ViT-B: preprocessor_config\.json asks for"):
        read_normalisation({path.name: path}, sam_card, {})
