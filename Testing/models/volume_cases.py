"""Volumes stored in every way: along RAS, as LPS, permuted, oblique, sheared, and of one slice."""

import numpy as np

from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume
from Testing.unit.strategies import rotation


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
