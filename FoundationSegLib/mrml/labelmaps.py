"""Segments as arrays in a volume's voxels, and masks as images that Slicer can merge."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from ..errors import GeometryError, InputError
from ..imaging.geometry import EMPTY_BOX, Box, Geometry, Shape, whole_box
from ..imaging.masks import EMPTY_MASK, PackedMask, SegmentChange, change_between, pack_mask

BINARY_LABELMAP = "Binary labelmap"

# The part of a voxel by which two grids may differ and still be the same. Files round: a NIfTI's single precision
# moves a voxel 300 mm away from the origin by 3e-5 mm.
_SAME_VOXEL = 1e-3


def read_labels(labelmap: Any, geometry: Geometry, box: Box) -> NDArray[np.integer]:
    """The label values of a label map in a box of the volume, whatever the label map's own extent and grid.

    Returns:
        (K, J, I) of the shape of ``box``, zero where the label map does not reach; on another grid than the volume's
        the label of the nearest voxel. May be a view of the label map: not to be written to, not to be kept.
    """
    if is_empty(labelmap):
        return np.zeros(box.shape_kji, np.uint8)
    offset = grid_offset(labelmap, geometry)
    if offset is None:
        return read_labels(_resampled(labelmap, geometry, box), geometry, box)
    return _cut_out(_array(labelmap), _extent_box(labelmap).shifted(offset), box)


def occupied_box(labelmap: Any, geometry: Geometry) -> Box:
    """The part of the volume that the label map may reach into; the whole volume if it lies on another grid."""
    if is_empty(labelmap):
        return EMPTY_BOX
    offset = grid_offset(labelmap, geometry)
    if offset is None:
        return geometry.box
    return _extent_box(labelmap).shifted(offset).intersection(geometry.box)


def grid_offset(labelmap: Any, geometry: Geometry) -> Shape | None:
    """What to add to a voxel index (k, j, i) of the label map to get the volume's; None if the grids differ.

    The grids are the same where every voxel centre of the label map falls on one of the (continued) volume grid,
    axis by axis. An empty label map has the volume's grid.
    """
    if is_empty(labelmap) or _matrix(labelmap).GetData() == tuple(geometry.ijk_to_ras.flat):
        return 0, 0, 0
    start, stop = _extent_box(labelmap).start_kji, _extent_box(labelmap).stop_kji
    corners = [(i, j, k) for k in (start[0], stop[0]) for j in (start[1], stop[1]) for i in (start[2], stop[2])]
    to_ras = image_to_world(labelmap)
    moved = geometry.to_ijk(np.asarray(corners) @ to_ras[:3, :3].T + to_ras[:3, 3]) - corners
    shift = np.rint(moved.mean(axis=0))
    if np.abs(moved - shift).max() > _SAME_VOXEL:
        return None
    i, j, k = (int(n) for n in shift)
    return k, j, i


def mask_image(mask: PackedMask, labelmap: Any, geometry: Geometry) -> Any:
    """The mask as an oriented image that Slicer merges into the label map without resampling it.

    Slicer compares matrices to within 1e-4 and resamples the *existing* label map where they differ more: the image
    therefore takes the label map's own matrix and voxel numbers, and the volume's only where it is still empty.

    Raises:
        GeometryError: the label map lies on another grid than the volume.
    """
    offset = grid_offset(labelmap, geometry)
    if offset is None:
        raise GeometryError("the segment was drawn on another grid than the volume: resample it in the Segment Editor")
    matrix = geometry.ijk_to_ras if is_empty(labelmap) else image_to_world(labelmap)
    image = oriented_image(mask.box.shifted((-offset[0], -offset[1], -offset[2])), matrix)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    voxels = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    voxels[:] = np.unpackbits(np.frombuffer(mask.bits, np.uint8), count=voxels.size)
    return image


def place_empty_labelmaps(segmentation: Any, ijk_to_ras: NDArray[np.float64]) -> None:
    """Give the label maps without voxels that grid and a byte a voxel; segments that share one share the new one.

    Both matter when Slicer saves. It resamples all segments to the grid of the first layer, and an empty label map
    fresh from Slicer has the grid of the identity: segments behind it would come out of the file maimed
    (`vtkSegmentation::CollapseBinaryLabelmaps`; 132 of 177 voxels in a test). And without a type it counts as double
    precision, which then becomes the type of the file. They are replaced and not changed in place, because changing
    one makes Slicer drop the surfaces of all segments.
    """
    placed: dict[Any, Any] = {}
    for segment_id in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segment_id)
        labelmap = segment.GetRepresentation(BINARY_LABELMAP)
        if labelmap is not None and is_empty(labelmap) and not _is_placed(labelmap, ijk_to_ras):
            if labelmap not in placed:
                placed[labelmap] = oriented_image(EMPTY_BOX, ijk_to_ras)
                placed[labelmap].AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
            segment.AddRepresentation(BINARY_LABELMAP, placed[labelmap])


def turned_labelmaps(segmentation: Any, geometry: Geometry) -> dict[Any, Any]:
    """For each label map whose voxels are the volume's counted in other directions: the same in the volume's.

    Slicer turns a left-handed volume round when it reads one, and leaves the segmentation that was saved with it as it
    is. Every voxel keeps its place in space and its label; nothing is resampled.
    """
    found: dict[Any, Any] = {}
    for segment_id in segmentation.GetSegmentIDs():
        labelmap = segmentation.GetSegment(segment_id).GetRepresentation(BINARY_LABELMAP)
        if labelmap is not None and labelmap not in found and grid_offset(labelmap, geometry) is None:
            turned = _turned(labelmap, geometry)
            if turned is not None:
                found[labelmap] = turned
    return found


def take_labelmaps(segmentation: Any, turned: Mapping[Any, Any]) -> None:
    """Give segments the label maps of :func:`turned_labelmaps`; those that share one share the new one."""
    for segment_id in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segment_id)
        labelmap = segment.GetRepresentation(BINARY_LABELMAP)
        if labelmap in turned:
            segment.AddRepresentation(BINARY_LABELMAP, turned[labelmap])


def _turned(labelmap: Any, geometry: Geometry) -> Any | None:
    """The label map on the volume's grid; None where its voxels lie beside those of the (continued) grid."""
    (k0, j0, i0), (k1, j1, i1) = _extent_box(labelmap).start_kji, _extent_box(labelmap).stop_kji
    corners = np.array([(i, j, k) for k in (k0, k1 - 1) for j in (j0, j1 - 1) for i in (i0, i1 - 1)])
    to_ras = image_to_world(labelmap)
    there = geometry.to_ijk(corners @ to_ras[:3, :3].T + to_ras[:3, 3])
    axes = np.rint(geometry.ras_to_ijk[:3, :3] @ to_ras[:3, :3])  # which of the volume's each of its axes is
    is_turn = np.array_equal(np.abs(axes).sum(axis=0), [1, 1, 1]) and np.array_equal(np.abs(axes @ axes.T), np.eye(3))
    if not is_turn or np.abs(there - np.rint(there)).max() > _SAME_VOXEL:
        return None
    order = np.abs(axes).argmax(axis=1)
    labels = _array(labelmap).transpose(2, 1, 0).transpose(order)
    backwards = [n for n in range(3) if axes[n, order[n]] < 0]
    labels_kji = np.flip(labels, backwards).transpose(2, 1, 0)
    i, j, k = np.rint(there.min(axis=0)).astype(int).tolist()
    image = oriented_image(whole_box(labels_kji.shape).shifted((k, j, i)), geometry.ijk_to_ras)
    image.AllocateScalars(labelmap.GetScalarType(), 1)
    _array(image)[...] = labels_kji
    return image


def _is_placed(labelmap: Any, ijk_to_ras: NDArray[np.float64]) -> bool:
    has_type = labelmap.GetPointData().GetScalars() is not None
    return has_type and np.allclose(image_to_world(labelmap), ijk_to_ras, rtol=0, atol=1e-9)


def is_empty(labelmap: Any) -> bool:
    """True where the label map has no voxels at all, as a new segment's has not."""
    return labelmap is None or labelmap.IsEmpty() or labelmap.GetPointData().GetScalars() is None


def _array(labelmap: Any) -> NDArray[np.integer]:
    scalars = numpy_support.vtk_to_numpy(labelmap.GetPointData().GetScalars())
    return scalars.reshape(labelmap.GetDimensions()[::-1])


def _cut_out(array: NDArray[np.integer], place: Box, box: Box) -> NDArray[np.integer]:
    """The part of an array that lies at ``place`` which falls into ``box``, filled up with zeros."""
    common = place.intersection(box)
    if common == box:
        return array[box.relative_to(place).slices]
    labels = np.zeros(box.shape_kji, array.dtype)
    if not common.is_empty:
        labels[common.relative_to(box).slices] = array[common.relative_to(place).slices]
    return labels


def _resampled(labelmap: Any, geometry: Geometry, box: Box) -> Any:
    target = slicer.vtkOrientedImageData()
    reference = oriented_image(box, geometry.ijk_to_ras)
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(labelmap, reference, target)
    return target


def oriented_image(box: Box, image_to_world: NDArray[np.float64]) -> Any:
    """A `vtkOrientedImageData` without voxels yet: its extent is the box, its matrix (4, 4) that from IJK to RAS."""
    image = slicer.vtkOrientedImageData()
    (k0, j0, i0), (k1, j1, i1) = box.start_kji, box.stop_kji
    image.SetExtent(i0, i1 - 1, j0, j1 - 1, k0, k1 - 1)
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(image_to_world))
    return image


def image_to_world(labelmap: Any) -> NDArray[np.float64]:
    """The (4, 4) matrix from voxel indices (i, j, k) of a label map to RAS in mm."""
    return slicer.util.arrayFromVTKMatrix(_matrix(labelmap))


def _matrix(labelmap: Any) -> Any:
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    return matrix


def _extent_box(labelmap: Any) -> Box:
    i0, i1, j0, j1, k0, k1 = labelmap.GetExtent()
    return Box((k0, j0, i0), (k1 + 1, j1 + 1, i1 + 1))


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A label map that several segments share, cut down to a box of the volume.

    Attributes:
        box: the part of the volume that was asked for and that the label map reaches.
        labels: (K, J, I) label values in the box; not to be written to, not to be kept.
        segment_ids: the segments that were asked for, by their label values.
    """

    box: Box
    labels: NDArray[np.integer]
    segment_ids: Mapping[int, str]


class SegmentReader:
    """Reads the segments of one segmentation in the voxels of one volume.

    Segments are read as Slicer keeps them, whatever the extent, the layer and the label value of each; those on
    another grid than the volume's by the nearest voxel. Both sides are taken in their own RAS: they should share one
    parent transform.
    """

    def __init__(self, segmentation_node: Any, geometry: Geometry) -> None:
        self._node = segmentation_node
        self._geometry = geometry

    @property
    def geometry(self) -> Geometry:
        """The volume's grid, in which all masks and edits are given."""
        return self._geometry

    @property
    def segment_ids(self) -> tuple[str, ...]:
        """The ids of all segments, in Slicer's order."""
        return tuple(self._node.GetSegmentation().GetSegmentIDs())

    def segment(self, segment_id: str) -> Any:
        """The `vtkSegment` of that id, for its name, colour and :mod:`.segment_tags`.

        Raises:
            InputError: there is none (any more).
        """
        segment = self._node.GetSegmentation().GetSegment(segment_id)
        if segment is None:
            raise InputError(f"the segmentation has no segment with the id '{segment_id}': choose another one")
        return segment

    def labelmap(self, segment_id: str) -> Any:
        """The `vtkOrientedImageData` that holds the segment, alone or with others; None if there is none yet."""
        return self.segment(segment_id).GetRepresentation(BINARY_LABELMAP)

    def read_mask(self, segment_id: str, box: Box | None = None) -> NDArray[np.bool_]:
        """The segment in a box of the volume (the whole volume unless given): a new (K, J, I) boolean array.

        Raises:
            InputError: there is no such segment.
            GeometryError: the box reaches out of the volume.
        """
        labels = read_labels(self.labelmap(segment_id), self._geometry, self.inside(box))
        return labels == self.segment(segment_id).GetLabelValue()

    def difference(self, segment_id: str, wanted: PackedMask, box: Box) -> SegmentChange:
        """What would make the segment equal to ``wanted`` inside the box; looks only where either has voxels."""
        occupied = occupied_box(self.labelmap(segment_id), self._geometry)
        region = wanted.box.union(occupied.intersection(box))
        before = self.read_mask(segment_id, region)
        after = np.zeros_like(before)
        after[wanted.box.relative_to(region).slices] = wanted.unpack()
        return change_between(before, after, region.start_kji)

    def possible(self, segment_id: str, change: SegmentChange) -> SegmentChange:
        """The part of a change that is one: voxels to gain that the segment has not, and to lose that it has."""
        return SegmentChange(
            gained=self._those(segment_id, change.gained, inside=False),
            lost=self._those(segment_id, change.lost, inside=True),
        )

    def made(self, segment_id: str, change: SegmentChange) -> SegmentChange:
        """The part of a possible change that is there now."""
        return SegmentChange(
            gained=self._those(segment_id, change.gained, inside=True),
            lost=self._those(segment_id, change.lost, inside=False),
        )

    def _those(self, segment_id: str, mask: PackedMask, inside: bool) -> PackedMask:
        """The voxels of a mask that are inside the segment, or outside; the mask itself if all of them are."""
        if mask.box.is_empty:
            return mask
        voxels = np.frombuffer(mask.bits, np.uint8)
        there = np.packbits(self.read_mask(segment_id, mask.box))
        found = voxels & there if inside else voxels & ~there
        if np.array_equal(found, voxels):
            return mask
        loose = PackedMask(mask.box, found.tobytes())
        return pack_mask(loose.unpack(), mask.box.start_kji)

    def without(self, mask: PackedMask, segment_ids: Iterable[str]) -> PackedMask:
        """The mask without the voxels of those segments; the mask itself if they have none of them."""
        voxels, has_changed = None, False
        for layer in self._layers(segment_ids, mask.box):
            taken = _has_any(layer.labels, layer.segment_ids)
            if taken.any():
                voxels = mask.unpack() if voxels is None else voxels
                part = voxels[layer.box.relative_to(mask.box).slices]
                has_changed |= bool((part & taken).any())
                part &= ~taken
        return mask if voxels is None or not has_changed else pack_mask(voxels, mask.box.start_kji)

    def taken(self, mask: PackedMask, segment_ids: Iterable[str]) -> dict[str, SegmentChange]:
        """What each of those segments loses if the mask takes its voxels; segments that lose nothing are left out."""
        voxels, changes = mask.unpack(), {}
        for layer in self._layers(segment_ids, mask.box):
            part = voxels[layer.box.relative_to(mask.box).slices]
            for value in set(np.unique(layer.labels[part]).tolist()) & set(layer.segment_ids):
                lost = pack_mask((layer.labels == value) & part, layer.box.start_kji)
                changes[layer.segment_ids[value]] = SegmentChange(EMPTY_MASK, lost)
        return changes

    def inside(self, box: Box | None) -> Box:
        """The box, or that of the whole volume in place of None.

        Raises:
            GeometryError: the box reaches out of the volume.
        """
        if box is None:
            return self._geometry.box
        if not self._geometry.box.contains(box):
            raise GeometryError(f"the box {box} reaches out of the volume of shape {self._geometry.shape_kji}")
        return box

    def require_grid(self, segment_ids: Iterable[str]) -> None:
        """Make sure that those segments can be written without resampling what they hold.

        Raises:
            GeometryError: one lies on another grid than the volume.
        """
        for segment_id in segment_ids:
            if grid_offset(self.labelmap(segment_id), self._geometry) is None:
                raise GeometryError(
                    f"the segment '{self.segment(segment_id).GetName()}' was drawn on another grid than the volume: "
                    "start a new segmentation, or resample this one in the Segment Editor (Specify geometry)"
                )

    def _layers(self, segment_ids: Iterable[str], box: Box) -> Iterator[Layer]:
        """The layers of those segments, each once and only where it reaches into the box."""
        values: dict[Any, dict[int, str]] = {}
        for segment_id in segment_ids:
            values.setdefault(self.labelmap(segment_id), {})[self.segment(segment_id).GetLabelValue()] = segment_id
        for labelmap, ids in values.items():
            common = occupied_box(labelmap, self._geometry).intersection(box)
            if not common.is_empty:
                yield Layer(common, read_labels(labelmap, self._geometry, common), ids)


def _has_any(labels: NDArray[np.integer], values: Iterable[int]) -> NDArray[np.bool_]:
    """Where one of the values stands; for a few values faster than `numpy.isin`."""
    first, *rest = values
    found = labels == first
    for value in rest:
        found |= labels == value
    return found
