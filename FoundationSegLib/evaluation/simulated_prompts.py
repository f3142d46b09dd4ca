"""Simulated prompts: clicks in the middle of errors, jittered boxes, and masks that need no model to compare with."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..imaging.geometry import Vector, bounding_box
from ..prompts.kinds import Polarity
from .protocol import CHALLENGE_SEED

# 26 neighbours, as the challenge has it: errors that touch at a corner are one to the eye, and one click is for them.
_NEIGHBOURS = np.ones((3, 3, 3), np.bool_)
# Depths that differ by less are equal: the same distance, summed up in another order.
_SAME_DEPTH = 1e-9
# Of a slice by itself: beyond it there is nothing that a click could be near to.
_ALONE = (1.0, 1.0, 1e6)
_BOX_MARGIN = 1  # pixels that a person leaves around an object
_BOX_JITTER = 0.08  # of a side, by which each edge of a box in training moves at most
_INNER_DEPTH = 0.5  # of the largest depth: the part of an object that a person clicks into

Xyxy = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Click:
    """A voxel (i, j, k) to click on, and the polarity of the click."""

    index_ijk: tuple[int, int, int]
    polarity: Polarity


def next_click(
    truth_kji: NDArray[np.bool_],
    mask_kji: NDArray[np.bool_],
    spacing_mm: Vector = (1.0, 1.0, 1.0),
    seed: int = CHALLENGE_SEED,
) -> Click | None:
    """Place a click in the middle of the largest error; None where there is no error.

    Wherever the mask differs from the truth is an error, too much and too little alike; errors that touch, be it at a
    corner, are one. The largest by volume (which on a grid is that by voxels; of equal ones the first in the order of
    k, j, i) gets a click on its most interior voxel: that with the largest Euclidean distance to the outside of the
    error, where the world beyond the image counts as outside. Of several such voxels, the seed chooses one. The click
    is positive where the truth has the voxel.

    Args:
        truth_kji, mask_kji: the object and the present segment, (K, J, I) bool.
        spacing_mm: between voxels along i, j, k.
        seed: of the choice among voxels that are equally deep.
    """
    error_kji = truth_kji != mask_kji
    region = bounding_box(error_kji)
    if region.is_empty:
        return None
    numbered, _ = ndimage.label(error_kji[region.slices], _NEIGHBOURS)
    sizes = np.bincount(numbered.ravel())
    sizes[0] = 0
    component = numbered == int(np.argmax(sizes))
    tight = bounding_box(component)
    depth_kji = interior_depth(component[tight.slices], spacing_mm)
    deepest = np.argwhere(depth_kji >= depth_kji.max() * (1 - _SAME_DEPTH))
    # The generator of numpy's early days, since the challenge's choice is one of its numbers.
    chosen = deepest[np.random.RandomState(seed).choice(len(deepest))]
    k, j, i = (chosen + tight.start_kji + region.start_kji).tolist()
    return Click((i, j, k), Polarity.POSITIVE if truth_kji[k, j, i] else Polarity.NEGATIVE)


def interior_depth(mask_kji: NDArray[np.bool_], spacing_mm: Vector) -> NDArray[np.float64]:
    """Return the depth of each voxel in the mask: mm to the centre of the nearest voxel outside, 0 outside; (K, J, I).

    Beyond the array is outside.
    """
    depth_kji = ndimage.distance_transform_edt(np.pad(mask_kji, 1), sampling=spacing_mm[::-1])
    return np.asarray(depth_kji)[1:-1, 1:-1, 1:-1]


def first_click(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Place a click on the most interior pixel of an object on a slice; (x, y)."""
    click = slice_click(mask, np.zeros_like(mask))
    assert click is not None  # an object has a pixel
    return click.index_ijk[0], click.index_ijk[1]


def slice_click(truth: NDArray[np.bool_], mask: NDArray[np.bool_]) -> Click | None:
    """Place a click in the middle of the largest error on a slice, (rows, columns), as :func:`next_click` does."""
    return next_click(truth[None], mask[None], _ALONE)


def random_click(mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int]:
    """Choose a pixel in the inner part of an object on a slice; (x, y)."""
    depth = interior_depth(mask[None], _ALONE)[0]
    inner = np.argwhere(depth >= max(1.0, _INNER_DEPTH * depth.max()))
    row, column = inner[rng.integers(len(inner))].tolist()
    return column, row


def slice_box(mask: NDArray[np.bool_], rng: np.random.Generator | None = None) -> Xyxy:
    """Draw a box around an object on a slice, a pixel wider within the slice; with a generator, each edge jittered."""
    rows, columns = np.nonzero(mask)
    low = np.array([columns.min(), rows.min()]) - _BOX_MARGIN
    high = np.array([columns.max(), rows.max()]) + _BOX_MARGIN
    limit = np.array(mask.shape[::-1]) - 1
    corners = np.concatenate([np.maximum(low, 0), np.minimum(high, limit)]).astype(np.float64)
    if rng is not None:
        sides = np.tile(corners[2:] - corners[:2], 2)
        corners += rng.uniform(-_BOX_JITTER, _BOX_JITTER, 4) * sides
        corners = np.clip(corners, 0, np.tile(limit, 2))
    x0, y0, x1, y1 = corners.tolist()
    return x0, y0, x1, y1


def random_box(shape: tuple[int, int], rng: np.random.Generator) -> Xyxy:
    """Draw a box anywhere on a slice, its sides from a sixteenth to a half of it."""
    extent = np.array(shape[::-1]) - 1
    sides = extent * 2.0 ** rng.uniform(-4, -1, 2)
    x0, y0 = rng.uniform(0, extent - sides).tolist()
    return x0, y0, x0 + float(sides[0]), y0 + float(sides[1])


def disc(centre_xy: tuple[float, float], radius: float, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw a disc: the best guess from a click without a model."""
    rows, columns = np.indices(shape)
    return (columns - centre_xy[0]) ** 2 + (rows - centre_xy[1]) ** 2 <= radius**2


def ellipse(box: Xyxy, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw the ellipse in a box: the best guess from a box without a model."""
    x0, y0, x1, y1 = box
    rows, columns = np.indices(shape)
    across, down = max((x1 - x0) / 2, 0.5), max((y1 - y0) / 2, 0.5)
    return ((columns - (x0 + x1) / 2) / across) ** 2 + ((rows - (y0 + y1) / 2) / down) ** 2 <= 1


def overlap(truth: NDArray[np.bool_], mask: NDArray[np.bool_]) -> float:
    """Return the Dice of two masks, 0..1; 1 where both are empty."""
    both = int(np.count_nonzero(truth)) + int(np.count_nonzero(mask))
    return 2 * int(np.count_nonzero(truth & mask)) / both if both else 1.0
