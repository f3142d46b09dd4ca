import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.models.preprocessing import CUBIC_FROM, longest_side_shape, resize_longest_side, resize_weights

sides = st.integers(1, 700)
SHAPES = [
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
@pytest.mark.parametrize("shape", SHAPES, ids=str)
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


def test_the_result_lies_in_one_piece():
    assert resize_longest_side(noise((300, 200, 3)), 256).flags["C_CONTIGUOUS"]
