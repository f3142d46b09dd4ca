"""Slices turned the way a radiologist sees them: what medical models were trained on, however a volume is stored."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..imaging.geometry import AXES, Axis, Geometry
from ..models.protocols import BoxXyxy, SliceMask, SlicePoint, SlicePrompt

# Where columns and rows lead in RAS, by the direction that the slice faces: left is to the right of the image,
# posterior or inferior is below; a sagittal slice has anterior to its left.
_WANTED = {
    "R": ((0.0, -1.0, 0.0), (0.0, 0.0, -1.0)),
    "A": ((-1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "S": ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
}


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a stored slice is turned before a model sees it: rows and columns exchanged first, then either reversed."""

    transposed: bool = False
    rows_reversed: bool = False
    columns_reversed: bool = False

    def turn(self, stored: NDArray[Any]) -> NDArray[Any]:
        """A stored slice, (rows, columns) or (rows, columns, 3), as it is seen; contiguous."""
        seen = stored.swapaxes(0, 1) if self.transposed else stored
        return np.ascontiguousarray(self._reversed(seen))

    def turn_back(self, seen: NDArray[Any]) -> NDArray[Any]:
        """The stored slice that looks like this."""
        stored = self._reversed(seen)
        return np.ascontiguousarray(stored.swapaxes(0, 1) if self.transposed else stored)

    def turn_box(self, box: BoxXyxy, shape: tuple[int, int]) -> BoxXyxy:
        """A box of a stored slice of (rows, columns) voxels, as it is seen; both corners inside the box."""
        x0, y0, x1, y1 = box
        rows, columns = shape
        if self.transposed:
            x0, y0, x1, y1, rows, columns = y0, x0, y1, x1, columns, rows
        if self.rows_reversed:
            y0, y1 = rows - 1 - y1, rows - 1 - y0
        if self.columns_reversed:
            x0, x1 = columns - 1 - x1, columns - 1 - x0
        return x0, y0, x1, y1

    def turn_point(self, point: SlicePoint, shape: tuple[int, int]) -> SlicePoint:
        """A point of a stored slice of (rows, columns) voxels, as it is seen."""
        x, y, _, _ = self.turn_box((point.x, point.y, point.x, point.y), shape)
        return SlicePoint(x, y, point.positive)

    def turn_prompt(self, prompt: SlicePrompt, shape: tuple[int, int]) -> SlicePrompt:
        """A prompt on a stored slice of (rows, columns) voxels, as it is seen."""
        return SlicePrompt(
            prompt.box and self.turn_box(prompt.box, shape),
            tuple(self.turn_point(point, shape) for point in prompt.points),
            prompt.mask and SliceMask.pack(self.turn(prompt.mask.unpack())),
        )

    def _reversed(self, seen: NDArray[Any]) -> NDArray[Any]:
        return seen[:: -1 if self.rows_reversed else 1, :: -1 if self.columns_reversed else 1]


AS_STORED = Orientation()


def is_rising(geometry: Geometry, axis: Axis) -> bool:
    """True where slice numbers across an axis rise towards the right, the front or the head."""
    direction = geometry.ijk_to_ras[:3, AXES.index(axis)]
    return bool(direction[np.argmax(np.abs(direction))] > 0)


def radiological(geometry: Geometry, axis: Axis) -> Orientation:
    """How to turn the slices across an axis so that they look as on a radiologist's screen, to the nearest quarter.

    Oblique slices are turned like the anatomical ones that they are nearest to.
    """
    linear = geometry.ijk_to_ras[:3, :3]
    directions = dict(zip("ijk", (linear / np.linalg.norm(linear, axis=0)).T, strict=True))
    along, across = (directions[other] for other in AXES if other != axis)  # of a slice's columns and of its rows
    facing = "RAS"[int(np.argmax(np.abs(np.cross(along, across))))]
    right, down = map(np.array, _WANTED[facing])
    transposed = abs(across @ right) + abs(along @ down) > abs(along @ right) + abs(across @ down)
    if transposed:
        along, across = across, along
    return Orientation(bool(transposed), bool(across @ down < 0), bool(along @ right < 0))
