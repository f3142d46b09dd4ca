"""A loaded image: its voxels, its place in space, and the volume turned to the axes that models expect."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codec import frozen
from ..errors import InputError, counted
from .geometry import Geometry, Shape

# On the node of a picture that Slicer has loaded, and in the header of files that keep such attributes.
IN_PIXELS = "FoundationSeg.InPixels"


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
        in_pixels: True for an image of unknown size, as PNG and JPEG: it is measured in pixels.
        sides: of a slice whose place in the patient is unknown, as an X-ray's: the letters of the patient's sides where
            i and j end, empty where these are unknown, too. None for an image with directions.
        body_part: the DICOM Body Part Examined, where the source names one.

    Raises:
        InputError: the array's shape or type does not fit.
    """

    array_kji: NDArray[np.generic]
    geometry: Geometry
    modality: str | None = None
    window_level: tuple[float, float] | None = None
    name: str = ""
    notes: tuple[str, ...] = ()
    in_pixels: bool = False
    sides: tuple[str, str] | None = None
    body_part: str = ""

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

    @property
    def voxel_ml(self) -> float | None:
        """The volume of a voxel; None in pixels, and for what has no place in the patient: an X-ray has no depth."""
        return None if self.in_pixels or self.sides is not None else self.geometry.voxel_volume_mm3 / 1000

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

    @property
    def checksum(self) -> str:
        """A sum over all voxels, which shows whether they arrived; 16 hexadecimal digits.

        Takes a tenth of the time of :attr:`key`.
        """
        planes = enumerate(map(np.ascontiguousarray, self.array_kji), start=1)
        return f"{sum(number * _sum_of_bits(plane) for number, plane in planes) % 2**64:016x}"

    def take_key(self, key: str, checksum: str) -> bool:
        """Take over the key of an image that came from another process; False where the voxels have another sum."""
        is_whole = self.checksum == checksum
        if is_whole:
            self.__dict__["key"] = key
        return is_whole


def _sum_of_bits(plane: NDArray[np.generic]) -> int:
    """The sum of a contiguous array's bytes, eight at a time as one number, modulo 2^64."""
    data = plane.reshape(-1).view(np.uint8)
    whole = data.size // 8 * 8
    return int(data[:whole].view(np.uint64).sum(dtype=np.uint64)) + int(data[whole:].sum(dtype=np.uint64))


def require_image(volume: Volume) -> None:
    """Make sure that there is something to see in the image.

    Raises:
        InputError: a voxel is NaN or infinite, or all voxels are equal.
    """
    array = volume.array_kji
    if array.dtype.kind == "f":
        bad = sum(int(np.count_nonzero(~np.isfinite(plane))) for plane in array)
        if bad:
            verb = "is" if bad == 1 else "are"
            raise InputError(
                f"the image has {counted(bad, 'value')} that {verb} not a number or infinite; replace them first"
            )
    if array.min() == array.max():
        raise InputError(f"the image is constant: every voxel is {array.flat[0]}; there is nothing to segment")


@frozen
class Turn:
    """Turn of a volume's array: axes exchanged first, then reversed. No voxel changes its value.

    Attributes:
        axes: the axis of the stored array (0 for k, 1 for j, 2 for i) that becomes each axis of the turned one.
        is_reversed: whether each axis of the turned array runs against the stored one.
    """

    axes: Shape = (0, 1, 2)
    is_reversed: tuple[bool, bool, bool] = (False, False, False)

    def turn(self, stored_kji: NDArray[Any]) -> NDArray[Any]:
        """A (K, J, I) array turned; a view of it, to be copied where something needs it contiguous."""
        return self._reversed(stored_kji.transpose(self.axes))

    def turn_back(self, turned_kji: NDArray[Any]) -> NDArray[Any]:
        """The (K, J, I) array that turns into this one, further axes as they are; a view."""
        k, j, i = np.argsort(self.axes).tolist()
        return self._reversed(turned_kji).transpose((k, j, i, *range(3, turned_kji.ndim)))

    def geometry(self, stored: Geometry) -> Geometry:
        """The grid of the turned volume: every voxel is where it was."""
        shape = tuple(stored.shape_kji[axis] for axis in self.axes)
        to_stored = np.zeros((4, 4))
        to_stored[3, 3] = 1
        for turned, (axis, is_reversed) in enumerate(zip(self.axes, self.is_reversed, strict=True)):
            to_stored[2 - axis, 2 - turned] = -1 if is_reversed else 1
            to_stored[2 - axis, 3] = shape[turned] - 1 if is_reversed else 0
        return Geometry(stored.ijk_to_ras @ to_stored, (shape[0], shape[1], shape[2]))

    def spans_back(self, turned: Sequence[tuple[float, float]], shape_kji: Shape) -> tuple[tuple[float, float], ...]:
        """Stretches of the turned array's axes, from edge to edge, along those of the stored one of this shape."""
        spans = {}
        for axis, is_reversed, (start, stop) in zip(self.axes, self.is_reversed, turned, strict=True):
            length = shape_kji[axis]
            spans[axis] = (length - stop, length - start) if is_reversed else (start, stop)
        return spans[0], spans[1], spans[2]

    def _reversed(self, array: NDArray[Any]) -> NDArray[Any]:
        k, j, i = (slice(None, None, -1 if is_reversed else 1) for is_reversed in self.is_reversed)
        return array[k, j, i]


def towards_ras(geometry: Geometry) -> Turn:
    """The turn after which i, j and k run most nearly to the right, the front and the head.

    The rule is that of ``nibabel.orientations.io_orientation``, which others' preprocessing goes by: axes are compared
    after the shear is taken out, and the one that is surest of its direction chooses first.
    """
    directions = geometry.ijk_to_ras[:3, :3] / np.linalg.norm(geometry.ijk_to_ras[:3, :3], axis=0)
    left, _, right = np.linalg.svd(directions)
    straight = left @ right
    axes, is_reversed = [0, 0, 0], [False, False, False]
    for axis in np.argsort(-(straight**2).max(axis=0), kind="stable").tolist():  # i, j, k as 0, 1, 2
        column = straight[:, axis]
        towards = int(np.argmax(np.abs(column)))
        axes[2 - towards], is_reversed[2 - towards] = 2 - axis, bool(column[towards] < 0)
        straight[towards] = 0
    return Turn((axes[0], axes[1], axes[2]), (is_reversed[0], is_reversed[1], is_reversed[2]))
