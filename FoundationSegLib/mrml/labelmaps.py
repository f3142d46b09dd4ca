"""Label maps of segments in the voxels of their image: read, merged, turned, and kept where they are on it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from ..errors import GeometryError
from ..imaging.geometry import EMPTY_BOX, Box, Geometry, GridMatch
from ..imaging.masks import PackedMask
from .volumes import geometry_from_node, parent_to_world, share_parent_transform

BINARY_LABELMAP = "Binary labelmap"
OTHERS = ("Closed surface", "Fractional labelmap", "Planar contour")  # further representations of segments

Labels = NDArray[np.integer]


def read_labels(labelmap: Any, geometry: Geometry, box: Box) -> Labels:
    """The label values of a label map in a box of the volume, whatever the label map's own extent and grid.

    Returns:
        (K, J, I) of the shape of ``box``, zero where the label map does not reach; on another grid than the volume's
        the label of the nearest voxel. May be a view of the label map: not to be written to, not to be kept.
    """
    match = match_grid(labelmap, geometry)
    if match is None:
        resampled, reference = slicer.vtkOrientedImageData(), oriented_image(box, geometry.ijk_to_ras)
        slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
            labelmap, reference, resampled
        )
        return read_labels(resampled, geometry, box)
    common = match.box.intersection(box)
    if common.is_empty:
        return np.zeros(box.shape_kji, np.uint8)
    array = match.turned(_array(labelmap))[common.relative_to(match.box).slices]
    if common == box:
        return array
    labels = np.zeros(box.shape_kji, array.dtype)
    labels[common.relative_to(box).slices] = array
    return labels


def occupied_box(labelmap: Any, geometry: Geometry) -> Box:
    """The part of the volume that the label map may reach into; the whole volume if it lies on another grid."""
    match = match_grid(labelmap, geometry)
    return geometry.box if match is None else match.box.intersection(geometry.box)


def match_grid(labelmap: Any, geometry: Geometry) -> GridMatch | None:
    """Find the voxels of a label map among those of the volume, none for an empty one. See :meth:`Geometry.match`."""
    if is_empty(labelmap):
        return GridMatch(EMPTY_BOX, (0, 1, 2), ())
    i0, i1, j0, j1, k0, k1 = labelmap.GetExtent()
    box = Box((k0, j0, i0), (k1 + 1, j1 + 1, i1 + 1))
    matrix = image_to_world(labelmap)
    if matrix.tolist() == geometry.ijk_to_ras.tolist():  # several times in each edit: quicker than numpy's own
        return GridMatch(box, (0, 1, 2), ())
    matrix[:3, 3] += matrix[:3, :3] @ (i0, j0, k0)
    return geometry.match(Geometry(matrix, box.shape_kji))


def is_on_grid(labelmap: Any, geometry: Geometry) -> bool:
    """True where the label map counts the volume's voxels in the volume's order and directions, or is still empty."""
    match = match_grid(labelmap, geometry)
    return match is not None and match.is_same_order


def mask_image(mask: PackedMask, labelmap: Any, geometry: Geometry, is_inverse: bool = False) -> Any:
    """The mask, or the rest of its box, as an oriented image that Slicer merges into a label map as it is.

    Slicer compares matrices to within 1e-4 and resamples the *existing* label map where they differ more: the image
    therefore takes the label map's own matrix and voxel numbers, and the volume's only where it is still empty.

    Raises:
        GeometryError: the label map lies on another grid than the volume.
    """
    match = match_grid(labelmap, geometry)
    if match is None or not match.is_same_order:
        raise GeometryError("the segment was drawn on another grid than the volume: resample it in the Segment Editor")
    box, matrix = mask.box, geometry.ijk_to_ras
    if not match.box.is_empty:
        first = match.box.start_kji
        i, j, k = labelmap.GetExtent()[::2]
        box, matrix = box.shifted((k - first[0], j - first[1], i - first[2])), image_to_world(labelmap)
    image = oriented_image(box, matrix)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    if mask.bits:
        flat = _array(image).reshape(-1)
        flat[:] = np.unpackbits(np.frombuffer(mask.bits, np.uint8), count=flat.size)
        flat ^= is_inverse
    return image


def place_empty_labelmaps(segmentation: Any, ijk_to_ras: NDArray[np.float64]) -> None:
    """Give the label maps without voxels that grid and a byte a voxel; segments that share one share the new one.

    Both matter when Slicer saves. It resamples all segments to the grid of the first layer, and an empty label map
    fresh from Slicer has the grid of the identity: segments behind it would come out of the file maimed
    (`vtkSegmentation::CollapseBinaryLabelmaps`; 132 of 177 voxels in a test). And without a type it counts as double
    precision, which then becomes the type of the file. They are replaced and not changed in place, because changing
    one makes Slicer drop the surfaces of all segments.
    """

    def is_placed(labelmap: Any) -> bool:
        has_type = labelmap.GetPointData().GetScalars() is not None
        return has_type and np.allclose(image_to_world(labelmap), ijk_to_ras, rtol=0, atol=1e-9)

    empty = {item for item in _labelmaps(segmentation) if is_empty(item) and not is_placed(item)}
    replace_labelmaps(segmentation, {item: empty_labelmap(ijk_to_ras) for item in empty})


def empty_labelmap(ijk_to_ras: NDArray[np.float64]) -> Any:
    """A label map of that grid without voxels, of a byte a voxel."""
    return label_image(np.zeros(EMPTY_BOX.shape_kji, np.uint8), EMPTY_BOX, ijk_to_ras)


def turned_labelmaps(segmentation: Any, geometry: Geometry) -> dict[Any, Any]:
    """For each label map whose voxels are the volume's counted in other directions: the same in the volume's.

    Slicer turns a left-handed volume round when it reads one, and leaves the segmentation that was saved with it as it
    is. Every voxel keeps its position in space and its label; nothing is resampled.
    """
    matches = {item: match_grid(item, geometry) for item in _labelmaps(segmentation)}
    return {
        labelmap: label_image(match.turned(_array(labelmap)), match.box, geometry.ijk_to_ras)
        for labelmap, match in matches.items()
        if match is not None and not match.is_same_order
    }


def replace_labelmaps(segmentation: Any, replacements: Mapping[Any, Any]) -> None:
    """Give segments other label maps in place of theirs; those that share one share the new one."""
    for segment_id in segmentation.GetSegmentIDs() if replacements else ():
        segment = segmentation.GetSegment(segment_id)
        labelmap = segment.GetRepresentation(BINARY_LABELMAP)
        if labelmap in replacements:
            segment.AddRepresentation(BINARY_LABELMAP, replacements[labelmap])


def _labelmaps(segmentation: Any) -> list[Any]:
    segments = map(segmentation.GetSegment, segmentation.GetSegmentIDs())
    labelmaps = dict.fromkeys(segment.GetRepresentation(BINARY_LABELMAP) for segment in segments)
    return [labelmap for labelmap in labelmaps if labelmap is not None]


def is_empty(labelmap: Any) -> bool:
    """True where the label map has no voxels at all, as a new segment's has not."""
    return labelmap is None or labelmap.IsEmpty() or labelmap.GetPointData().GetScalars() is None


def _array(labelmap: Any) -> Labels:
    scalars = numpy_support.vtk_to_numpy(labelmap.GetPointData().GetScalars())
    return scalars.reshape(labelmap.GetDimensions()[::-1])


def oriented_image(box: Box, image_to_world: NDArray[np.float64]) -> Any:
    """A `vtkOrientedImageData` without voxels yet: its extent is the box, its matrix (4, 4) that from IJK to RAS."""
    image = slicer.vtkOrientedImageData()
    (k0, j0, i0), (k1, j1, i1) = box.start_kji, box.stop_kji
    image.SetExtent(i0, i1 - 1, j0, j1 - 1, k0, k1 - 1)
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(image_to_world))
    return image


def label_image(labels_kji: Labels, box: Box, image_to_world: NDArray[np.float64]) -> Any:
    """An :func:`oriented_image` with a copy of labels, (K, J, I) of the shape of the box."""
    image = oriented_image(box, image_to_world)
    image.AllocateScalars(numpy_support.get_vtk_array_type(labels_kji.dtype), 1)
    if labels_kji.size:
        _array(image)[...] = labels_kji
    return image


def image_to_world(labelmap: Any) -> NDArray[np.float64]:
    """The (4, 4) matrix from voxel indices (i, j, k) of a label map to RAS in mm."""
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    return np.array(matrix.GetData()).reshape(4, 4)


_REFERENCE_GEOMETRY = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()

# Transform of the volume, transform of the segmentation, the volume's matrix, the segmentation's reference geometry.
_NodeState = tuple[str | None, str | None, tuple[float, ...], str]


class Alignment:
    """Keeps a segmentation under the parent transform of its image, and tells when the user moved one of them alone.

    Segments are written in the image's own RAS: both nodes have to be under the same parent transform. When only the
    image is put under a transform or taken out, its segmentation follows. When "Harden transform" moved coordinates
    from the transform into a node and nothing moved in the world, the segmentation is brought into the image's
    coordinates again. When the user moved the segmentation relative to the image, nothing is changed until both agree.

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
            if not np.allclose(to_volume, np.eye(4), rtol=0, atol=1e-9):  # in the world they stay where they are
                self._segmentation_node.ApplyTransformMatrix(slicer.util.vtkMatrixFromArray(to_volume))
            share_parent_transform(self._volume_node, self._segmentation_node)
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

    def _is_on(self, grid: Geometry) -> bool:
        return all(is_on_grid(labelmap, grid) for labelmap in _labelmaps(self._segmentation_node.GetSegmentation()))

    def _has_voxels(self) -> bool:
        segmentation = self._segmentation_node.GetSegmentation()
        if segmentation.GetSourceRepresentationName() != BINARY_LABELMAP:
            return segmentation.GetNumberOfSegments() > 0
        return not all(map(is_empty, _labelmaps(segmentation)))

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
