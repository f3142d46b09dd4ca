"""Measures of a model: Dice and normalised surface Dice (NSD) of its masks."""

import numpy as np
import torch
from monai.metrics import compute_dice, compute_surface_dice
from numpy.typing import NDArray

from ..imaging.geometry import Vector, bounding_box

# One empty voxel on each side: an object has a surface at the border of the image, too.
_MARGIN = 1


def dice(truth_kji: NDArray[np.bool_], mask_kji: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient, 0..1, of two masks (K, J, I), by MONAI; 1 where both are empty, 0 where one is."""
    if not (truth_kji.any() and mask_kji.any()):
        return _of_empty(truth_kji, mask_kji)
    truth, mask = _cropped(truth_kji, mask_kji)
    return float(compute_dice(mask, truth, include_background=True).item())


def surface_dice(
    truth_kji: NDArray[np.bool_], mask_kji: NDArray[np.bool_], spacing_mm: Vector, tolerance_mm: float
) -> float:
    """Return the normalised surface Dice (NSD), 0..1: the part of both surfaces that is near the other.

    MONAI's, with surfaces between the voxels that are weighted by their areas, which is the definition of DeepMind's
    ``surface-distance`` and that of the challenge (``SurfaceDice.py``). Unlike there, it is computed where the Dice is
    below 0.2, too, where the challenge puts 0.

    Args:
        truth_kji, mask_kji: (K, J, I) bool. 1 where both are empty, 0 where one is.
        spacing_mm: between voxels along i, j, k.
        tolerance_mm: how far a surface may lie from the other; the challenge's is 2.
    """
    if not (truth_kji.any() and mask_kji.any()):
        return _of_empty(truth_kji, mask_kji)
    truth, mask = _cropped(truth_kji, mask_kji)
    spacing = tuple(float(n) for n in spacing_mm[::-1])
    score = compute_surface_dice(
        mask, truth, [float(tolerance_mm)], include_background=True, spacing=spacing, use_subvoxels=True
    )
    return min(1.0, float(score.item()))


def _of_empty(truth_kji: NDArray[np.bool_], mask_kji: NDArray[np.bool_]) -> float:
    return 0.0 if truth_kji.any() or mask_kji.any() else 1.0


def _cropped(truth_kji: NDArray[np.bool_], mask_kji: NDArray[np.bool_]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut both masks to the box that holds them, with a margin, in MONAI's form: (1, 1, K, J, I)."""
    region = bounding_box(truth_kji | mask_kji)
    truth, mask = (torch.from_numpy(np.pad(array[region.slices], _MARGIN)) for array in (truth_kji, mask_kji))
    return truth[None, None], mask[None, None]
