"""Which part of a slice a classifier sees: a square in millimetres, so that the aspect is kept, black where it ends."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .geometry import AXES, Axis, Box, Geometry, array_axis

_LARGEST_SIDE = 8192  # pixels; a grid of needles would need more to become a square, and is stretched instead


@dataclass(frozen=True, slots=True)
class Frame:
    """A rectangle of a stored slice in whole voxels, half-open; it may reach out of the slice.

    Attributes:
        rows, columns: the first and the one after the last, along the slice's two axes in array order.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows and of columns."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    def cut(self, plane: NDArray[np.uint8], inside: "Frame") -> NDArray[np.uint8]:
        """This part of a stored slice, (rows, columns) or (rows, columns, 3); black outside of another frame."""
        cut = np.zeros((*self.shape, *plane.shape[2:]), plane.dtype)
        shown = _overlap(self, _overlap(inside, Frame((0, plane.shape[0]), (0, plane.shape[1]))))
        cut[shown.relative_to(self).slices] = plane[shown.slices]
        return cut

    def relative_to(self, other: "Frame") -> "Frame":
        """The frame as counted from the first row and column of another."""
        (r0, r1), (c0, c1), r, c = self.rows, self.columns, other.rows[0], other.columns[0]
        return Frame((r0 - r, r1 - r), (c0 - c, c1 - c))

    @property
    def slices(self) -> tuple[slice, slice]:
        """The index that cuts this frame out of a slice that holds it."""
        return slice(*self.rows), slice(*self.columns)


def _overlap(one: Frame, other: Frame) -> Frame:
    def line(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        start = max(a[0], b[0])
        return start, max(start, min(a[1], b[1]))

    return Frame(line(one.rows, other.rows), line(one.columns, other.columns))


def frame_of(box: Box, axis: Axis) -> Frame:
    """What a box covers of the slices across an axis."""
    (r0, c0), (r1, c1) = (
        tuple(n for position, n in enumerate(corner) if position != array_axis(axis))
        for corner in (box.start_kji, box.stop_kji)
    )
    return Frame((r0, r1), (c0, c1))


def widened(frame: Frame, margin: float) -> Frame:
    """The frame with a margin on each side, of that part of its longer side and of one voxel at least."""
    more = max(1, round(max(frame.shape) * margin)) if margin else 0
    return Frame((frame.rows[0] - more, frame.rows[1] + more), (frame.columns[0] - more, frame.columns[1] + more))


def square(frame: Frame, geometry: Geometry, axis: Axis) -> Frame:
    """The smallest frame around this one, about the same centre, that is as high as wide in mm, to the voxel."""
    i, j, k = geometry.spacing_mm
    row_mm, column_mm = (mm for name, mm in zip(("k", "j", "i"), (k, j, i), strict=True) if name != axis)
    rows, columns = frame.shape
    side_mm = max(rows * row_mm, columns * column_mm)
    return Frame(_grown(frame.rows, side_mm / row_mm), _grown(frame.columns, side_mm / column_mm))


def _grown(line: tuple[int, int], length: float) -> tuple[int, int]:
    wanted = min(round(length), max(_LARGEST_SIDE, line[1] - line[0]))
    missing = max(0, wanted - (line[1] - line[0]))
    return line[0] - missing // 2, line[1] + missing - missing // 2


def slice_frame(geometry: Geometry, axis: Axis) -> Frame:
    """All of a slice across an axis."""
    return frame_of(geometry.box, axis)


def slice_count(geometry: Geometry, axis: Axis) -> int:
    """The number of slices across an axis."""
    return geometry.shape_kji[2 - AXES.index(axis)]
