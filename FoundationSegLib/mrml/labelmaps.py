"""Segments as arrays in a volume's voxels, and masks as images that Slicer can merge."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from ..errors import GeometryError, InputError
from ..imaging.geometry import EMPTY_BOX, Box, Geometry, GridMatch
from ..imaging.masks import EMPTY_MASK, PackedMask, SegmentChange, change_between, pack_mask

BINARY_LABELMAP = "Binary labelmap"

Labels = NDArray[np.integer]


def read_labels(labelmap: Any, geometry: Geometry, box: Box) -> Labels:
    """The label values of a label map in a box of the volume, whatever the label map's own extent and grid.

    Returns:
        (K, J, I) of the shape of ``box``, zero where the label map does not reach; on another grid than the volume's
        the label of the nearest voxel. May be a view of the label map: not to be written to, not to be kept.
    """
    if is_empty(labelmap):
        return np.zeros(box.shape_kji, np.uint8)
    match = match_grid(labelmap, geometry)
    if match is None:
        resampled, reference = slicer.vtkOrientedImageData(), oriented_image(box, geometry.ijk_to_ras)
        slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
            labelmap, reference, resampled
        )
        return read_labels(resampled, geometry, box)
    array, common = match.turned(_array(labelmap)), match.box.intersection(box)
    if common == box:
        return array[box.relative_to(match.box).slices]
    labels = np.zeros(box.shape_kji, array.dtype)
    if not common.is_empty:
        labels[common.relative_to(box).slices] = array[common.relative_to(match.box).slices]
    return labels


def occupied_box(labelmap: Any, geometry: Geometry) -> Box:
    """The part of the volume that the label map may reach into; the whole volume if it lies on another grid."""
    if is_empty(labelmap):
        return EMPTY_BOX
    match = match_grid(labelmap, geometry)
    return geometry.box if match is None else match.box.intersection(geometry.box)


def match_grid(labelmap: Any, geometry: Geometry) -> GridMatch | None:
    """Find the voxels of a label map that has some among those of the volume. See :meth:`Geometry.match`."""
    i0, i1, j0, j1, k0, k1 = labelmap.GetExtent()
    box = Box((k0, j0, i0), (k1 + 1, j1 + 1, i1 + 1))
    matrix = image_to_world(labelmap)
    if np.array_equal(matrix, geometry.ijk_to_ras):
        return GridMatch(box, (0, 1, 2), ())
    matrix[:3, 3] += matrix[:3, :3] @ (i0, j0, k0)
    return geometry.match(Geometry(matrix, box.shape_kji))


def is_on_grid(labelmap: Any, geometry: Geometry) -> bool:
    """True where the label map counts the volume's voxels in the volume's order and directions, or is still empty."""
    match = None if is_empty(labelmap) else match_grid(labelmap, geometry)
    return is_empty(labelmap) or (match is not None and match.is_same_order)


def mask_image(mask: PackedMask, labelmap: Any, geometry: Geometry) -> Any:
    """The mask as an oriented image that Slicer merges into the label map without resampling it.

    Slicer compares matrices to within 1e-4 and resamples the *existing* label map where they differ more: the image
    therefore takes the label map's own matrix and voxel numbers, and the volume's only where it is still empty.

    Raises:
        GeometryError: the label map lies on another grid than the volume.
    """
    if not is_on_grid(labelmap, geometry):
        raise GeometryError("the segment was drawn on another grid than the volume: resample it in the Segment Editor")
    box, matrix = mask.box, geometry.ijk_to_ras
    if not is_empty(labelmap):
        first = match_grid(labelmap, geometry).box.start_kji
        i, j, k = labelmap.GetExtent()[::2]
        box, matrix = box.shifted((k - first[0], j - first[1], i - first[2])), image_to_world(labelmap)
    return label_image(mask.unpack().view(np.uint8), box, matrix)


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
    nothing = np.zeros(EMPTY_BOX.shape_kji, np.uint8)
    replace_labelmaps(segmentation, {item: label_image(nothing, EMPTY_BOX, ijk_to_ras) for item in empty})


def turned_labelmaps(segmentation: Any, geometry: Geometry) -> dict[Any, Any]:
    """For each label map whose voxels are the volume's counted in other directions: the same in the volume's.

    Slicer turns a left-handed volume round when it reads one, and leaves the segmentation that was saved with it as it
    is. Every voxel keeps its position in space and its label; nothing is resampled.
    """
    matches = {item: match_grid(item, geometry) for item in _labelmaps(segmentation) if not is_empty(item)}
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
    return slicer.util.arrayFromVTKMatrix(matrix)


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

    def difference(self, segment_id: str, mask: PackedMask, box: Box) -> SegmentChange:
        """The change that makes the segment equal to a mask inside the box; reads only where either has voxels."""
        occupied = occupied_box(self.labelmap(segment_id), self._geometry)
        region = mask.box.union(occupied.intersection(box))
        before = self.read_mask(segment_id, region)
        after = np.zeros_like(before)
        after[mask.box.relative_to(region).slices] = mask.unpack()
        return change_between(before, after, region.start_kji)

    def possible_part(self, segment_id: str, change: SegmentChange) -> SegmentChange:
        """The part of a change that is one: voxels to gain that the segment has not, and to lose that it has."""
        return SegmentChange(
            gained=self._part(segment_id, change.gained, inside=False),
            lost=self._part(segment_id, change.lost, inside=True),
        )

    def present_part(self, segment_id: str, change: SegmentChange) -> SegmentChange:
        """The part of a possible change that is there now."""
        return SegmentChange(
            gained=self._part(segment_id, change.gained, inside=True),
            lost=self._part(segment_id, change.lost, inside=False),
        )

    def _part(self, segment_id: str, mask: PackedMask, inside: bool) -> PackedMask:
        """The voxels of a mask that are inside the segment, or outside; the mask itself if all of them are."""
        if mask.box.is_empty:
            return mask
        voxels = np.frombuffer(mask.bits, np.uint8)
        segment = np.packbits(self.read_mask(segment_id, mask.box))
        part = voxels & segment if inside else voxels & ~segment
        if np.array_equal(part, voxels):
            return mask
        loose = PackedMask(mask.box, part.tobytes())
        return pack_mask(loose.unpack(), mask.box.start_kji)

    def without(self, mask: PackedMask, segment_ids: Iterable[str]) -> PackedMask:
        """The mask without the voxels of those segments; the mask itself if they have none of them."""
        voxels, has_changed = None, False
        for box, labels, ids in self._layers(segment_ids, mask.box):
            protected = np.any([labels == value for value in ids], axis=0)
            if protected.any():
                voxels = mask.unpack() if voxels is None else voxels
                part = voxels[box.relative_to(mask.box).slices]
                has_changed |= bool((part & protected).any())
                part &= ~protected
        return mask if voxels is None or not has_changed else pack_mask(voxels, mask.box.start_kji)

    def losses(self, mask: PackedMask, segment_ids: Iterable[str]) -> dict[str, SegmentChange]:
        """The voxels that each of those segments loses if the mask takes them; segments that lose none are left out."""
        voxels, changes = mask.unpack(), {}
        for box, labels, ids in self._layers(segment_ids, mask.box):
            part = voxels[box.relative_to(mask.box).slices]
            for value in set(np.unique(labels[part]).tolist()) & set(ids):
                lost = pack_mask((labels == value) & part, box.start_kji)
                changes[ids[value]] = SegmentChange(EMPTY_MASK, lost)
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
            if not is_on_grid(self.labelmap(segment_id), self._geometry):
                raise GeometryError(
                    f"the segment '{self.segment(segment_id).GetName()}' was drawn on another grid than the volume: "
                    "start a new segmentation, or resample this one in the Segment Editor (Specify geometry)"
                )

    def _layers(self, segment_ids: Iterable[str], box: Box) -> Iterator[tuple[Box, Labels, Mapping[int, str]]]:
        """The label maps of those segments, each once and only where it reaches into the box.

        Yields:
            The part of the box that the label map reaches, its labels there (K, J, I; not to be written to, not to be
            kept), and the ids of the segments by their label values.
        """
        values: dict[Any, dict[int, str]] = {}
        for segment_id in segment_ids:
            values.setdefault(self.labelmap(segment_id), {})[self.segment(segment_id).GetLabelValue()] = segment_id
        for labelmap, ids in values.items():
            common = occupied_box(labelmap, self._geometry).intersection(box)
            if not common.is_empty:
                yield common, read_labels(labelmap, self._geometry, common), ids
