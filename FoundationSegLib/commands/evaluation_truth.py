"""What `evaluate` holds models against: the image, and the objects of the label map."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..catalog.class_lists import listed
from ..errors import InputError
from ..imaging.volume import Volume, require_image
from .interrupts import interrupts_wait

# Smaller labels are left out unless they are named: they are what a brush leaves behind, and no object.
FEWEST_VOXELS = 27
_SHEARED = "the grid is sheared: distances in mm are measured along its axes, as if they were at right angles"


@dataclass(frozen=True, slots=True)
class Truth:
    """An image and the objects in it: labels (K, J, I) of an integer type, and the voxels of each label to find."""

    volume: Volume
    labels_kji: NDArray[np.generic]
    voxels: Mapping[int, int]
    notes: tuple[str, ...]


def read_truth(options: argparse.Namespace) -> Truth:
    """The image and the label map of the command line.

    Raises:
        InputError: they lie on different grids, or there is nothing to find.
    """
    with interrupts_wait():
        from ..io.images import read_volume
        from ..io.nifti import is_sheared
        from ..io.segmentations import read_label_map

    volume = read_volume(options.image, series=options.series, frame=options.frame)
    require_image(volume)
    labels, geometry = read_label_map(options.label)
    if not geometry.almost_equals(volume.geometry):
        raise InputError(
            f"{options.label.name} lies on another grid than {options.image.name} "
            f"({_grid(geometry.shape_kji)} voxels, not {_grid(volume.geometry.shape_kji)}, or elsewhere in space); "
            "resample the label map to the image"
        )
    voxels, notes = choose_labels(labels, options.values, options.label.name)
    sheared = (_SHEARED,) if is_sheared(geometry.ijk_to_ras) else ()
    return Truth(volume, labels, voxels, (*volume.notes, *sheared, *notes))


def _grid(shape_kji: Sequence[int]) -> str:
    return " x ".join(map(str, shape_kji[::-1]))


def choose_labels(
    labels_kji: NDArray[np.generic], wanted: Sequence[int] | None, shown: str
) -> tuple[dict[int, int], tuple[str, ...]]:
    """The voxels of each label to evaluate on, and notes on those that were left out.

    That is those that are named, or else every label above 0 with at least :data:`FEWEST_VOXELS` voxels.

    Args:
        labels_kji: (K, J, I) of an integer type.
        wanted: the labels that the user named; None for all.
        shown: the name of the label map.

    Raises:
        InputError: there is none of those.
    """
    values, counts = np.unique(labels_kji[labels_kji > 0], return_counts=True)
    found = dict(zip(map(int, values), map(int, counts), strict=True))
    if wanted is not None:
        missing = [value for value in wanted if value not in found]
        if missing:
            raise InputError(f"{shown} has no label {missing[0]}; it has {listed(list(found)) or 'none'}")
        return {value: found[value] for value in dict.fromkeys(wanted)}, ()
    small = [value for value, count in found.items() if count < FEWEST_VOXELS]
    if len(small) == len(found):
        raise InputError(f"{shown} has no label with at least {FEWEST_VOXELS} voxels; name smaller ones with --label N")
    notes = (f"left out, with less than {FEWEST_VOXELS} voxels: label {listed(small)}",) if small else ()
    return {value: count for value, count in found.items() if value not in small}, notes
