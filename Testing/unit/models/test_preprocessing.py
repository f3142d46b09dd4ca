"""Resizing against OpenCV and scipy, and the preparation that a file may ask for.

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
from scipy import ndimage

from FoundationSegLib.errors import CheckpointError
from FoundationSegLib.models import preprocessing
from Testing.models.sam_reference import image_of

SHAPES = [(37, 51), (64, 64), (1, 30), (30, 1), (2, 3), (150, 90), (200, 10), (37, 51, 3), (90, 150, 3)]


def resize_by_scipy(image: np.ndarray, side: int) -> np.ndarray:
    """skimage.transform.resize(image, (side, side), order=3, preserve_range=True, anti_aliasing=True), as its source.

    (rows, columns, ...) to (side, side, ...), float64.
    """
    planes, factors = np.moveaxis(np.atleast_3d(image).astype(float), 2, 0), np.divide(image.shape[:2], side)
    smooth = (ndimage.gaussian_filter(plane, np.maximum(0, (factors - 1) / 2), mode="mirror") for plane in planes)
    resized = [ndimage.zoom(plane, 1 / factors, order=3, mode="mirror", grid_mode=True) for plane in smooth]
    return np.clip(np.stack(resized, axis=-1).reshape(side, side, *image.shape[2:]), image.min(), image.max())


@pytest.mark.parametrize(("shape", "side"), [*((shape, 64) for shape in SHAPES), ((700, 400), 1024), ((37, 51), 1024)])
def test_splines_are_the_published_recipe(shape, side):
    image = image_of(shape)
    # Fractions are cut off; what is whole but for rounding errors counts as whole.
    expected = (resize_by_scipy(image, side) + 1e-6).astype(np.uint8)
    resized = preprocessing.resize_by_splines(image, (side, side))
    assert (resized.shape, resized.dtype) == (expected.shape, np.uint8)
    np.testing.assert_array_equal(resized, expected)


@pytest.mark.parametrize("level", [0, 1, 100, 254, 255])
@pytest.mark.parametrize("shape", [(512, 300), (37, 51)])
def test_a_constant_image_stays_constant(shape, level):
    image = np.full(shape, level, np.uint8)
    assert (preprocessing.resize_by_splines(image, (64, 64)) == level).all()
    assert (preprocessing.resize_longest_side(image, 256) == level).all()


sides = st.integers(1, 700)


@given(sides, sides, st.integers(1, 300))
def test_the_longest_side_gets_the_length(rows, columns, length):
    shape = preprocessing.longest_side_shape((rows, columns), length)
    assert max(shape) == length
    scale = length / max(rows, columns)
    assert shape == tuple(max(1, int(side * scale + 0.5)) for side in (rows, columns)), "the official script's rule"


@given(sides, st.integers(1, 300))
def test_every_new_pixel_is_a_weighted_mean_of_old_ones(size, new_size):
    weights = preprocessing.resize_weights(size, new_size)
    assert weights.shape == (new_size, size)
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-5)
    if size >= new_size:
        assert weights.min() >= 0
        assert np.allclose(weights.sum(axis=0), new_size / size, atol=1e-4), "every old pixel counts as much"
    assert np.allclose(weights, weights[::-1, ::-1], atol=1e-5), "neither end is preferred"


OPENCV_SHAPES = [(512, 512), (512, 300), (257, 256), (208, 192), (256, 100), (100, 122), (30, 7), (1, 40), (2, 2)]


@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "colour"])
@pytest.mark.parametrize("shape", OPENCV_SHAPES, ids=str)
def test_it_agrees_with_opencv_to_one_grey_level(shape, channels):
    image, (rows, columns), factor = (
        image_of((*shape, *channels)),
        preprocessing.longest_side_shape(shape, 256),
        256 / max(shape),
    )
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR if factor < preprocessing.CUBIC_FROM else cv2.INTER_CUBIC
    ours, theirs = preprocessing.resize_longest_side(image, 256), cv2.resize(image, (columns, rows), interpolation=how)
    assert (ours.dtype, ours.shape) == (np.uint8, theirs.shape)
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= (0 if factor == 1 else 1)


def test_a_file_is_followed_where_it_speaks_and_may_repeat_the_familys_shape(tmp_path, sam_card):
    path, shape = tmp_path / "preprocessor_config.json", {"size": {"longest_edge": 256}}
    assert preprocessing.read_normalisation({}, sam_card, shape) == preprocessing.IMAGENET
    for document, expected in (
        ({}, preprocessing.IMAGENET),
        (shape, preprocessing.IMAGENET),
        ({"image_mean": [0.1, 0.2, 0.3], "rescale_factor": 1}, preprocessing.Normalisation((0.1, 0.2, 0.3), factor=1)),
    ):
        path.write_text(json.dumps(document))
        assert preprocessing.read_normalisation({path.name: path}, sam_card, shape) == expected
    path.write_text(json.dumps({"size": {"longest_edge": 512}}))
    with pytest.raises(CheckpointError, match=r"SAM ViT-B: preprocessor_config\.json asks for"):
        preprocessing.read_normalisation({path.name: path}, sam_card, shape)


class Pixels:
    """Stand in for a tensor of the host: notes what is asked of it."""

    def __init__(self):
        self.asked = []

    def pin_memory(self):
        self.asked.append("pinned")
        return self

    def to(self, device, memory_format, non_blocking):
        self.asked += [device, non_blocking]


@pytest.mark.parametrize(("device", "asked"), [("cuda", ["pinned", "cuda", True]), ("cpu", ["cpu", False])])
def test_a_graphics_card_fetches_pixels_from_pinned_memory(device, asked):
    preprocessing.to_device(pixels := Pixels(), device)
    assert pixels.asked == asked
