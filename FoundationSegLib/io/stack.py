"""Where a stack of slices lies: their order, their one matrix, and whether there is one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.errors import GeometryError

# Steps between slices count as equal up to this part of the usual step, or up to this length where it is more: two
# positions rounded to hundredths, as some scanners write them, make a step wrong by 0.01 mm.
_STEP_TOLERANCE = 0.01
_STEP_TOLERANCE_MM = 0.011
# Slices closer than this share a place; the finest micro-CT has steps ten times as large.
_SAME_PLACE_MM = 1e-4
# Sideways drift of a step, as a part of its length, from which a stack counts as tilted: 0.06 degrees.
_SMALLEST_TILT = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """A placed stack.

    Attributes:
        order: the given slices from the first to the last along the normal.
        matrix_lps: (4, 4) float64, voxel index (i, j, k) to LPS in mm.
        notes: a tilt that was found.
    """

    order: tuple[int, ...]
    matrix_lps: NDArray[np.float64]
    notes: tuple[str, ...]


def place_slices(positions_lps: ArrayLike, orientation: Sequence[float], spacing_ij: Sequence[float]) -> Stack:
    """Order slices along their normal and find the matrix of the volume that they make.

    A gantry tilt (every slice shifted sideways by the same amount) becomes a sheared matrix.

    Args:
        positions_lps: (N, 3), the centre of each slice's first voxel in mm, N at least 2 (DICOM 0020,0032).
        orientation: direction of the i axis, then of the j axis, in LPS (DICOM 0020,0037).
        spacing_ij: distance between voxel centres along i and j, in mm.

    Raises:
        GeometryError: slices share a place, gaps differ, or slices are shifted sideways by different amounts; the
            message counts slices from 1 along the normal.
    """
    positions = np.asarray(positions_lps, dtype=np.float64)
    across, down = (_unit(orientation[n : n + 3]) for n in (0, 3))
    normal = _unit(np.cross(across, down))
    order = np.argsort(positions @ normal, kind="stable")
    steps = np.diff(positions[order], axis=0)
    _check_steps(steps, steps @ normal)
    step, notes = _mean_step(steps.mean(axis=0), normal)
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack((across * spacing_ij[0], down * spacing_ij[1], step))
    matrix[:3, 3] = positions[order[0]]
    return Stack(tuple(int(n) for n in order), matrix, notes)


def _unit(vector: ArrayLike) -> NDArray[np.float64]:
    direction = np.asarray(vector, dtype=np.float64)
    length = np.linalg.norm(direction)
    if not length > 0:
        raise GeometryError("the slices' orientation is not a pair of directions at an angle")
    return direction / length


def _check_steps(steps: NDArray[np.float64], gaps: NDArray[np.float64]) -> None:
    count = len(steps) + 1
    twins = np.flatnonzero(gaps < _SAME_PLACE_MM)
    if twins.size:
        raise GeometryError(
            f"{twins.size + 1} or more of the {count} slices share a position (first: slices {twins[0] + 1} and "
            f"{twins[0] + 2}): duplicates, or several time points in one series; keep one set"
        )
    usual = float(np.median(gaps))
    tolerance = max(_STEP_TOLERANCE * usual, _STEP_TOLERANCE_MM)
    wrong = np.flatnonzero(np.abs(gaps - usual) > tolerance)
    if wrong.size:
        n = int(wrong[0])
        raise GeometryError(
            f"the slices are unevenly spaced: {gaps[n]:.4g} mm between slices {n + 1} and {n + 2} of {count} instead "
            f"of {usual:.4g} mm; a slice may be missing"
        )
    crooked = np.flatnonzero(np.linalg.norm(steps - np.median(steps, axis=0), axis=1) > tolerance)
    if crooked.size:
        n = int(crooked[0])
        raise GeometryError(
            f"the slices do not lie in a row: slice {n + 2} of {count} is shifted sideways against slice {n + 1} "
            "differently from the others"
        )


def _mean_step(step: NDArray[np.float64], normal: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """The step from slice to slice: along the normal unless the stack is really tilted."""
    along = float(step @ normal)
    sideways = float(np.linalg.norm(step - along * normal))
    if sideways <= _SMALLEST_TILT * along:
        return along * normal, ()
    angle = np.degrees(np.arctan2(sideways, along))
    return step, (f"the slices are tilted by {angle:.1f} degrees (gantry tilt); the volume's grid is sheared to match",)
