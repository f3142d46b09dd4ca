"""Resizing with cubic splines, as scikit-image's ``resize(order=3, anti_aliasing=True)`` does, without scikit-image.

That function (skimage/transform/_warps.py) is a Gaussian, where it shrinks, and then scipy.ndimage's zoom. Both are
linear and go along one axis after the other: here a matrix for each axis, in float64, made once for each pair of sizes.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

# The pole of the filter that makes a cubic spline go through its samples; its powers are nothing after 30 of them.
_POLE = math.sqrt(3) - 2
_REACH = 30


@lru_cache(maxsize=4)
def spline_weights(size: int, new_size: int) -> NDArray[np.float64]:
    """How much each of ``size`` pixels gives to each of ``new_size``, along one axis; (new_size, size), rows sum to 1.

    Beyond the edges the pixels go on as in a mirror whose surface is the centre of the last pixel (``"reflect"`` to
    scikit-image, ``"mirror"`` to scipy).
    """
    centres = (np.arange(new_size) + 0.5) * (size / new_size) - 0.5
    first = np.floor(centres).astype(np.int64)
    samples = np.zeros((new_size, size))
    for offset in range(-1, 3):
        weights = _cubic_b_spline(np.abs(centres - first - offset))
        np.add.at(samples, (np.arange(new_size), _mirrored(first + offset, size)), weights)
    return samples @ _spline_filter(size) @ _gaussian(size, max(0.0, (size / new_size - 1) / 2))


def _cubic_b_spline(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic B-spline at distances of 0 to 2 pixels."""
    near = 2 / 3 - distance**2 * (2 - distance) / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far)


def _spline_filter(size: int) -> NDArray[np.float64]:
    """From pixels to the coefficients of the spline through them; (size, size)."""
    gain = -6 * _POLE / (1 - _POLE**2)
    return _filter(size, [gain * _POLE ** abs(n) for n in range(-_REACH, _REACH + 1)])


def _gaussian(size: int, sigma: float) -> NDArray[np.float64]:
    """scipy's gaussian_filter1d, four sigma to each side; (size, size)."""
    if sigma == 0:
        return np.eye(size)
    reach = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return _filter(size, weights / weights.sum())


def _filter(size: int, weights: NDArray[np.float64] | list[float]) -> NDArray[np.float64]:
    matrix = np.zeros((size, size))
    places = np.arange(size)
    for offset, weight in enumerate(weights, -(len(weights) // 2)):
        np.add.at(matrix, (places, _mirrored(places + offset, size)), weight)
    return matrix


def _mirrored(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Indices beyond the edges, mirrored at the first and the last pixel as often as it takes."""
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    index = index % period
    return np.minimum(index, period - index)


def resize_by_splines(image: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """An image (rows, columns) or (rows, columns, 3) resized to (rows, columns) = ``shape``; uint8.

    What overshoots the image's own range is cut, as scikit-image does, and fractions are cut off, as its users'
    ``astype(np.uint8)`` does. What lies below a whole number by no more than rounding errors counts as that number: on
    scikit-image's side those pixels, in flat areas, come out one level lower or not by chance.
    """
    down, across = (torch.from_numpy(spline_weights(*sizes)) for sizes in zip(image.shape[:2], shape, strict=True))
    values = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, (0, 1), (-2, -1)), dtype=np.float64))
    # By torch: numpy's own threads would go on spinning for a while, and slow the encoder that comes next.
    resized = (down @ values @ across.T).clamp(int(image.min()), int(image.max())) + 1e-6
    return np.ascontiguousarray(np.moveaxis(resized.to(torch.uint8).numpy(), (-2, -1), (0, 1)))
