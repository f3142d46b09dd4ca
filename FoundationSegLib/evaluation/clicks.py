"""The simulated user: where the next click goes, by the rule of the CVPR 2025 interactive challenge.

The source of every rule is the organisers' ``CVPR25_iter_eval.py`` (github.com/JunMa11/CVPR-MedSegFMCompetition). One
differs on purpose: distances are in mm here and in voxels there, so that with thick slices the click still lands in
the middle of the error. With a spacing of 1, 1, 1 the clicks are the challenge's, voxel by voxel.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core.geometry import Box, Vector, bounding_box
from ..core.prompts import Polarity
from .settings import CHALLENGE_SEED

# 26 neighbours, as the challenge has it: errors that touch at a corner are one to the eye, and one click is for them.
_NEIGHBOURS = np.ones((3, 3, 3), np.bool_)
# Depths that differ by less are equal: the same distance, summed up in another order.
_SAME_DEPTH = 1e-9


@dataclass(frozen=True, slots=True)
class Click:
    """A voxel (i, j, k) to click on, and what the click says."""

    index_ijk: tuple[int, int, int]
    polarity: Polarity


def next_click(
    truth_kji: NDArray[np.bool_],
    mask_kji: NDArray[np.bool_],
    spacing_mm: Vector = (1.0, 1.0, 1.0),
    seed: int = CHALLENGE_SEED,
) -> Click | None:
    """The click in the middle of the largest error, or None where there is none.

    Wherever the mask differs from the truth is an error, too much and too little alike; errors that touch, be it at a
    corner, are one. The largest by volume (which on a grid is that by voxels; of equal ones the first in the order of
    k, j, i) gets a click on its most interior voxel: that with the largest Euclidean distance to what is not in it,
    where the world beyond the image counts as outside. Of several such voxels, the seed chooses one. The click is
    positive where the truth has the voxel.

    Args:
        truth_kji, mask_kji: the object and the present segment, (K, J, I) bool.
        spacing_mm: between voxels along i, j, k.
        seed: of the choice among voxels that are equally deep.
    """
    error_kji = truth_kji != mask_kji
    region = bounding_box(error_kji)
    if region.is_empty:
        return None
    component, place = _largest_component(error_kji[region.slices])
    depth_kji = interior_depth(component, spacing_mm)
    deepest = np.argwhere(depth_kji >= depth_kji.max() * (1 - _SAME_DEPTH))
    # The generator of numpy's early days, since the challenge's choice is one of its numbers.
    chosen = deepest[np.random.RandomState(seed).choice(len(deepest))]
    k, j, i = (int(n) for n in chosen + place.start_kji + region.start_kji)
    return Click((i, j, k), Polarity.POSITIVE if truth_kji[k, j, i] else Polarity.NEGATIVE)


def interior_depth(mask_kji: NDArray[np.bool_], spacing_mm: Vector) -> NDArray[np.float64]:
    """How deep in the mask each voxel lies: mm to the centre of the nearest voxel outside, 0 outside; (K, J, I).

    Whatever lies beyond the array is outside.
    """
    depth_kji = ndimage.distance_transform_edt(np.pad(mask_kji, 1), sampling=spacing_mm[::-1])
    return np.asarray(depth_kji)[1:-1, 1:-1, 1:-1]


def _largest_component(error_kji: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Box]:
    """The voxels of the largest component, in the smallest array that holds them, and that array's place."""
    numbered, _ = ndimage.label(error_kji, _NEIGHBOURS)
    sizes = np.bincount(numbered.ravel())
    sizes[0] = 0
    component = numbered == int(np.argmax(sizes))
    place = bounding_box(component)
    return component[place.slices], place
