"""Volumes turned so that their axes run to the right, the front and the head, as models of volumes were trained."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .geometry import Geometry, Shape


@dataclass(frozen=True, slots=True)
class Turn:
    """How to turn the array of a volume: axes exchanged first, then reversed. No voxel changes its value.

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
        """The (K, J, I) array that turns into this one; a view."""
        k, j, i = np.argsort(self.axes).tolist()
        return self._reversed(turned_kji).transpose((k, j, i))

    def geometry(self, stored: Geometry) -> Geometry:
        """The grid of the turned volume: every voxel is where it was."""
        shape = tuple(stored.shape_kji[axis] for axis in self.axes)
        to_stored = np.zeros((4, 4))
        to_stored[3, 3] = 1
        for turned, (axis, is_reversed) in enumerate(zip(self.axes, self.is_reversed, strict=True)):
            to_stored[2 - axis, 2 - turned] = -1 if is_reversed else 1
            to_stored[2 - axis, 3] = shape[turned] - 1 if is_reversed else 0
        return Geometry(stored.ijk_to_ras @ to_stored, (shape[0], shape[1], shape[2]))

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
