"""A loaded image: its voxels, its place in space, and what its source said about the intensities."""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .geometry import Geometry


@dataclass(frozen=True, eq=False)
class Volume:
    """One image, two- or three-dimensional, grey or colour.

    Attributes:
        array_kji: (K, J, I) of any integer or floating type for grey values, or (K, J, I, 3) for red, green and
            blue. A single slice has a K of 1. Not copied, and not to be written to.
        geometry: the grid of the first three axes.
        modality: the DICOM modality code (``"CT"``, ``"MR"``, ...) where the source names one, otherwise None.
        window_level: (width, centre) that the source or the display suggests, in the unit of the voxels.
        name: what to call the image; no path, no patient.
        notes: what had to be done to read it, for the report.

    Raises:
        InputError: the array's shape or type does not fit.
    """

    array_kji: NDArray[np.generic]
    geometry: Geometry
    modality: str | None = None
    window_level: tuple[float, float] | None = None
    name: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        array = self.array_kji
        if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] != 3):
            raise InputError(f"an image needs three axes, and three colours if any, not the shape {array.shape}")
        if array.dtype.kind not in "iuf":
            raise InputError(f"voxels must be whole or real numbers, not {array.dtype}")
        if self.window_level is not None and not all(map(math.isfinite, self.window_level)):
            raise InputError(f"the display window {self.window_level} is not made of numbers")
        if array.shape[:3] != self.geometry.shape_kji:
            raise InputError(f"voxels {array.shape[:3]} and geometry {self.geometry.shape_kji} do not agree")

    @property
    def is_colour(self) -> bool:
        """True for red, green and blue."""
        return self.array_kji.ndim == 4

    @cached_property
    def key(self) -> str:
        """A fingerprint of voxels, type and grid: equal keys mean the same image; 32 hexadecimal digits.

        Computed at first use (about 0.2 s for 157 MB) and kept.
        """
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.array_kji.dtype.str}{self.array_kji.shape}".encode())
        digest.update(self.geometry.ijk_to_ras.tobytes())
        for plane in self.array_kji:
            digest.update(np.ascontiguousarray(plane).data)
        return digest.hexdigest()


def require_image(volume: Volume) -> None:
    """Make sure that there is something to see in the image.

    Raises:
        InputError: a voxel is NaN or infinite, or all voxels are equal.
    """
    array = volume.array_kji
    if array.dtype.kind == "f":
        bad = sum(int(np.count_nonzero(~np.isfinite(plane))) for plane in array)
        if bad:
            raise InputError(f"the image has {bad} values that are not a number or infinite; replace them first")
    if array.min() == array.max():
        raise InputError(f"the image is constant: every voxel is {array.flat[0]}; there is nothing to segment")
