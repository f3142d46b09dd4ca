"""Resizing as the authors of MedSAM do it: the longest side to a length, in 8 bits."""

import numpy as np
from numpy.typing import NDArray


def longest_side_shape(shape: tuple[int, int], length: int) -> tuple[int, int]:
    """(rows, columns) once the longer of them is ``length``; halves upwards (CVPR24_LiteMedSAM_infer.py)."""
    scale = length / max(shape)
    return max(1, int(shape[0] * scale + 0.5)), max(1, int(shape[1] * scale + 0.5))


def resize_weights(size: int, new_size: int) -> NDArray[np.float32]:
    """How much each of ``size`` pixels gives to each of ``new_size``, along one axis; (new_size, size), rows sum to 1.

    Shrinking averages the area that a new pixel covers, as the official script does (OpenCV's INTER_AREA). Enlarging
    is linear between pixel centres (OpenCV's INTER_LINEAR). What INTER_AREA does there instead is nearly the nearest
    pixel; on the abdominal CT of the tests that costs the stomach 0.63 and the pancreas 0.25 of Dice.
    """
    return _area_weights(size, new_size) if new_size <= size else _linear_weights(size, new_size)


def _area_weights(size: int, new_size: int) -> NDArray[np.float32]:
    edges = np.arange(new_size + 1) * (size / new_size)
    pixels = np.arange(size)
    upper = np.minimum(edges[1:, None], pixels + 1)
    lower = np.maximum(edges[:-1, None], pixels)
    overlap = np.clip(upper - lower, 0, None)
    return (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)


def _linear_weights(size: int, new_size: int) -> NDArray[np.float32]:
    centres = np.clip((np.arange(new_size) + 0.5) * (size / new_size) - 0.5, 0, size - 1)
    distance = np.abs(centres[:, None] - np.arange(size))
    return np.clip(1 - distance, 0, None).astype(np.float32)


def resize_longest_side(image: NDArray[np.uint8], length: int) -> NDArray[np.uint8]:
    """An image of (rows, columns) or (rows, columns, 3), uint8, with its longer side at ``length``; uint8.

    Agrees with OpenCV to one grey level (tested).
    """
    rows, columns = image.shape[:2]
    new_rows, new_columns = longest_side_shape((rows, columns), length)
    if (new_rows, new_columns) == (rows, columns):
        return image
    down, across = resize_weights(rows, new_rows), resize_weights(columns, new_columns)
    values = np.moveaxis(image.astype(np.float32), (0, 1), (-2, -1))
    resized = np.floor(down @ values @ across.T + 0.5)
    return np.ascontiguousarray(np.moveaxis(resized, (-2, -1), (0, 1)).astype(np.uint8))
