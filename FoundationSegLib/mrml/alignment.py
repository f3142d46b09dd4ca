"""Alignment of a segmentation with its image, whatever is done to either in the Transforms module.

Segments are written in the image's own RAS: both nodes have to be under the same parent transform. When only the image
is put under a transform or taken out, its segmentation follows. When "Harden transform" moved coordinates from the
transform into a node and nothing moved in the world, the segmentation is brought into the image's coordinates again.
When the user moved the segmentation relative to the image, nothing is changed until both agree.
"""

from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from numpy.typing import NDArray

from ..errors import GeometryError
from ..imaging.geometry import Geometry
from .labelmaps import BINARY_LABELMAP, is_empty, is_on_grid
from .volumes import geometry_from_node, parent_to_world, share_parent_transform

_REFERENCE_GEOMETRY = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()

# Transform of the volume, transform of the segmentation, the volume's matrix, the segmentation's reference geometry.
_NodeState = tuple[str | None, str | None, tuple[float, ...], str]


class Alignment:
    """Keeps a segmentation under the parent transform of its image, and tells when the user moved one of them alone.

    "Harden transform" changes the reference geometry that Slicer keeps with a segmentation, taking it out of a
    transform does not: that tells the two apart.

    Attributes:
        geometry: the grid of the image, in its own RAS, when both were last aligned.

    Raises:
        GeometryError: a parent transform of the volume is not linear, or the segmentation has segments and is under
            another transform than the volume. Nothing is changed then.
    """

    def __init__(self, segmentation_node: Any, volume_node: Any) -> None:
        self._segmentation_node, self._volume_node = segmentation_node, volume_node
        if not np.array_equal(parent_to_world(volume_node), parent_to_world(segmentation_node)) and self._has_voxels():
            raise GeometryError(
                f"'{segmentation_node.GetName()}' and '{volume_node.GetName()}' are under different transforms, and "
                "taking the volume's would move the segments: put both under the same one, or harden both, first"
            )
        share_parent_transform(volume_node, segmentation_node)
        self.geometry = geometry_from_node(volume_node)
        self.remember()

    @property
    def is_segmentation_untouched(self) -> bool:
        """True while the segmentation is under the transform, and in the coordinates, in which it was last aligned."""
        return self._state()[1::2] == self._aligned[1::2]

    @property
    def is_image_in_place(self) -> bool:
        """True while the volume has the coordinates in which it was last aligned, under a linear transform or none."""
        parent = self._volume_node.GetParentTransformNode()
        has_same_grid = self._state()[2] == self._aligned[2]
        return has_same_grid and (parent is None or bool(parent.IsTransformToWorldLinear()))

    def remember(self) -> None:
        """Take the nodes as they are now for aligned."""
        self._aligned = self._state()

    def settle(self) -> None:
        """Bring the segmentation under the volume's parent transform where nobody moved it relative to the volume.

        Raises:
            GeometryError: a parent transform is not linear, or one of the nodes was moved relative to the other.
                Nothing is changed then.
        """
        parent = self._volume_node.GetParentTransformNode()
        is_linear = parent is None or parent.IsTransformToWorldLinear()
        if is_linear and self._state() == self._aligned:
            return
        to_volume = np.linalg.inv(parent_to_world(self._volume_node)) @ parent_to_world(self._segmentation_node)
        grid = geometry_from_node(self._volume_node)
        has_same_parent = parent is self._segmentation_node.GetParentTransformNode()
        is_same_grid = grid.almost_equals(self.geometry)
        segments_ras = to_volume @ self._hardened() @ self.geometry.ijk_to_ras
        if Geometry(segments_ras, self.geometry.shape_kji).almost_equals(grid):
            self._take_coordinates(to_volume)
        elif self.is_segmentation_untouched and is_same_grid:
            share_parent_transform(self._volume_node, self._segmentation_node)
        elif not (has_same_parent and is_same_grid and self._is_on(grid)):
            raise self._error()
        if grid != self.geometry:
            self.geometry = grid
        self.remember()

    def _state(self) -> _NodeState:
        matrix = vtk.vtkMatrix4x4()
        self._volume_node.GetIJKToRASMatrix(matrix)
        segmentation = self._segmentation_node.GetSegmentation()
        return (
            self._volume_node.GetTransformNodeID(),
            self._segmentation_node.GetTransformNodeID(),
            matrix.GetData(),
            segmentation.GetConversionParameter(_REFERENCE_GEOMETRY),
        )

    def _hardened(self) -> NDArray[np.float64]:
        """The (4, 4) matrix by which the segments were moved in their own RAS since both were last aligned."""
        before, now = _matrix(self._aligned[3]), _matrix(self._state()[3])
        return np.eye(4) if before is None or now is None else now @ np.linalg.inv(before)

    def _take_coordinates(self, to_volume: NDArray[np.float64]) -> None:
        """Give the segments the volume's parent transform; in the world they stay where they are."""
        if not np.allclose(to_volume, np.eye(4), rtol=0, atol=1e-9):
            self._segmentation_node.ApplyTransformMatrix(slicer.util.vtkMatrixFromArray(to_volume))
        share_parent_transform(self._volume_node, self._segmentation_node)

    def _is_on(self, grid: Geometry) -> bool:
        return all(is_on_grid(labelmap, grid) for labelmap in self._labelmaps())

    def _has_voxels(self) -> bool:
        segmentation = self._segmentation_node.GetSegmentation()
        is_labelmap = segmentation.GetSourceRepresentationName() == BINARY_LABELMAP
        return any(not is_labelmap or not is_empty(labelmap) for labelmap in self._labelmaps())

    def _labelmaps(self) -> list[Any]:
        segmentation = self._segmentation_node.GetSegmentation()
        segments = (segmentation.GetSegment(key) for key in segmentation.GetSegmentIDs())
        return [segment.GetRepresentation(BINARY_LABELMAP) for segment in segments]

    def _error(self) -> GeometryError:
        image, segments = self._volume_node.GetName(), self._segmentation_node.GetName()
        if self.is_segmentation_untouched:
            return GeometryError(
                f"the image '{image}' was moved, and its segments in '{segments}' lie elsewhere now: "
                "move the image back, or choose a new segmentation"
            )
        return GeometryError(
            f"the segmentation '{segments}' was moved relative to the image '{image}': put both under the same "
            "transform again, or go on with a new segmentation; nothing is changed until then"
        )


def _matrix(reference_geometry: str) -> NDArray[np.float64] | None:
    """The (4, 4) matrix of a reference geometry as Slicer writes it (16 numbers, then the extent); None without one."""
    numbers = [number for number in reference_geometry.split(";") if number]
    matrix = np.array(numbers[:16], np.float64)
    return matrix.reshape(4, 4) if matrix.size == 16 and abs(np.linalg.det(matrix.reshape(4, 4))) > 0 else None
