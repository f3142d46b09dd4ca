"""Volumes stored in every way: noise on many grids, and one image under many headers, voxel for voxel."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from FoundationSegLib.imaging.geometry import Geometry, Vector, as_vector
from FoundationSegLib.imaging.volume import Volume
from Testing.unit.strategies import rotation

# Of the shared images, for tests of models of whole volumes.
FILES = (
    *("TotalSegmentator/example_ct.nii.gz", "TotalSegmentator/example_ct_sm.nii.gz", "dcmqi/ct-3slice"),
    *("pyradiomics/lung1_crop_image.nrrd", "MedSAM2/deeplesion_000015_HU.nii.gz"),
    *("MONAI/prostate_ep2d_diff_adc_oblique.nii.gz", "pyradiomics/brain1_image.nrrd"),
)


def _matrix(linear: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = (12.5, -20.0, 300.25)
    return matrix


SPACING = np.diag([0.9, 1.1, 2.0])
MATRICES = {
    "RAS": _matrix(SPACING),
    "LPS": _matrix(np.diag([-1.0, -1.0, 1.0]) @ SPACING),
    "permuted": _matrix(np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]]) @ SPACING),
    "oblique": _matrix(rotation((0.3, -0.2, 0.4)) @ np.diag([-1.0, 1.0, 1.0]) @ SPACING),
    "halves": _matrix(np.diag([0.75, -0.75, 3.0])),  # every other voxel lies midway between two of 1.5 mm
    "sheared": _matrix(SPACING @ np.array([[1, 0, 0], [0, 1, 0.4], [0, 0, 1]])),
}


def noise(name: str, shape_kji: tuple[int, int, int] = (26, 36, 40), seed: int = 0) -> Volume:
    """A volume of noise in Hounsfield units, the first half of its slices in air."""
    array = np.random.default_rng(seed).normal(0, 300, shape_kji).astype(np.int16)
    array[: shape_kji[0] // 2] = -1000
    return Volume(array, Geometry(MATRICES[name], shape_kji), "CT")


# What numbers of the new array axes (k, j, i) are in the old one, which of them are reversed, and the turn in space.
_TURN = np.array([[0.9, -0.3, 0.2], [0.2, 0.9, 0.4], [-0.3, -0.3, 0.9]])
HEADERS: dict[str, tuple[tuple[int, int, int], tuple[bool, bool, bool], bool]] = {
    "as stored": ((0, 1, 2), (False, False, False), False),
    "LPS": ((0, 1, 2), (False, True, True), False),
    "upside down": ((0, 1, 2), (True, False, False), False),
    "sagittal": ((2, 0, 1), (False, True, False), False),
    "coronal": ((1, 0, 2), (True, True, False), False),
    "oblique": ((0, 1, 2), (False, False, True), True),
    "oblique and permuted": ((1, 2, 0), (True, False, False), True),
}


@dataclass(frozen=True)
class Header:
    """The same image as it could have been stored as well.

    Attributes:
        volume: the image.
        turn: (4, 4), from where a place was in RAS to where it is now.
    """

    name: str
    volume: Volume
    turn: NDArray[np.float64]

    def moved(self, position: Vector) -> Vector:
        """Where a place of the image as stored is now, RAS in mm."""
        return as_vector(self.turn[:3, :3] @ position + self.turn[:3, 3])

    def stored(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """An array on the grid of the image as stored, along the new axes."""
        order, reverse, _ = HEADERS[self.name]
        return np.flip(array.transpose(order), [n for n in range(3) if reverse[n]])

    def back(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """An array on the new grid, along the axes of the image as stored."""
        order, reverse, _ = HEADERS[self.name]
        return np.flip(array, [n for n in range(3) if reverse[n]]).transpose(np.argsort(order))


def under(name: str, volume: Volume) -> Header:
    """An image under one of :data:`HEADERS`."""
    order, reverse, is_oblique = HEADERS[name]
    turn = np.eye(4)
    if is_oblique:
        turn[:3, :3] = np.linalg.svd(_TURN)[0] @ np.linalg.svd(_TURN)[2]
        turn[:3, 3] = (11.0, -7.0, 3.0)
    header = Header(name, volume, turn)
    array = np.ascontiguousarray(header.stored(volume.array_kji))
    # The old index (i, j, k, 1) of a new one, column by column.
    matrix, origin = np.zeros((4, 4)), np.zeros(3)
    for new, old in enumerate(order):
        step = np.zeros(3)
        step[2 - old] = -1 if reverse[new] else 1
        matrix[:3, 2 - new] = step
        origin[2 - old] = volume.geometry.shape_kji[old] - 1 if reverse[new] else 0
    matrix[:3, 3], matrix[3, 3] = origin, 1
    k, j, i = array.shape
    geometry = Geometry(turn @ volume.geometry.ijk_to_ras @ matrix, (k, j, i))
    return replace(header, volume=replace(volume, array_kji=array, geometry=geometry))
