"""Measures of a model: Dice and normalised surface Dice (NSD) of its masks, and the memory of its process."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import torch
from monai.metrics import compute_dice, compute_surface_dice
from numpy.typing import NDArray

from ..imaging.geometry import Vector, bounding_box

# One empty voxel on each side: an object has a surface at the border of the image, too.
_MARGIN = 1
_PEAK = re.compile(r"^VmHWM:\s*(\d+) kB", re.MULTILINE)


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


def peak_memory_mb(process_id: int | None = None) -> float | None:
    """Return the most main memory, in MB (10^6 bytes), that a process has taken so far; None where that is unknown.

    Known of this process but on Windows; of another one on Linux alone. A launcher, as the Python of Slicer is one,
    counts with what it started: the number is the largest of the process and all below it. Memory on a graphics card
    is not in it.

    Args:
        process_id: the process; this one by default.
    """
    if process_id in (None, os.getpid()):
        return _own_peak()
    return _peak_of_tree(process_id) if sys.platform == "linux" and process_id is not None else None


def _own_peak() -> float | None:
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _peak_of_tree(process_id: int) -> float | None:
    try:
        status = Path(f"/proc/{process_id}/status").read_text(encoding="ascii", errors="replace")
    except OSError:  # it has ended
        return None
    line = _PEAK.search(status)
    own = int(line[1]) * 1024 / 1e6 if line else None
    peaks = [own, *map(_peak_of_tree, _children(process_id))]
    return max((peak for peak in peaks if peak is not None), default=None)


def _children(process_id: int) -> list[int]:
    """List the processes that a process's first thread started; none where the system does not tell."""
    try:
        children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(child) for child in children.split()]
