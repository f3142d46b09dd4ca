"""Closed surfaces of segments: made one by one when there is time, kept while writing, and small ones for pictures."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util.numpy_support import vtk_to_numpy

from ..imaging.geometry import Box, bounding_box
from .labelmaps import BINARY_LABELMAP, image_to_world, label_image

CLOSED_SURFACE: str = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()

# A panel of a picture has under a million pixels: more voxels would cost seconds and show nothing.
_MOST_VOXELS = 1_000_000
# Smoothing would shrink smaller segments to nothing: they keep the surface of their voxels.
_FEW_VOXELS = 64
_SMOOTHING = 0.5


def has_surfaces(segmentation_node: Any) -> bool:
    """True while a segment has a surface, made by whomever."""
    return bool(segmentation_node.GetSegmentation().ContainsRepresentation(CLOSED_SURFACE))


def make_surfaces(segmentation_node: Any) -> None:
    """Give every segment a surface, those that have one keep it, and show them; takes up to seconds."""
    for segment_id in begin_surfaces(segmentation_node):
        make_surface(segmentation_node, segment_id)


def begin_surfaces(segmentation_node: Any) -> tuple[str, ...]:
    """Have surfaces shown, empty ones where there are none yet. Returns the segments for :func:`make_surface`.

    All segments have one then: while one has not, Slicer's 3-D views make those of all, at every change.
    """
    segmentation, display = segmentation_node.GetSegmentation(), segmentation_node.GetDisplayNode()
    ids = segmentation.GetSegmentIDs()
    missing = tuple(key for key in ids if segmentation.GetSegment(key).GetRepresentation(CLOSED_SURFACE) is None)
    _put_back(segmentation, {})
    if display is not None and ids:
        display.SetPreferredDisplayRepresentationName3D(CLOSED_SURFACE)
    return missing


def make_surface(segmentation_node: Any, segment_id: str) -> None:
    """Make the surface of one segment anew, with the segmentation's own settings; nothing without voxels or surface."""
    segmentation = segmentation_node.GetSegmentation()
    segment = segmentation.GetSegment(segment_id)
    surface = segment.GetRepresentation(CLOSED_SURFACE) if segment is not None else None
    labelmap = segment.GetRepresentation(BINARY_LABELMAP) if segment is not None else None
    if surface is not None and labelmap is not None:
        parameters = segmentation.SerializeAllConversionParameters()
        surface.ShallowCopy(_to_surface(labelmap, segment.GetLabelValue(), parameters))
        segment.Modified()


@contextmanager
def surfaces_kept(segmentation_node: Any) -> Iterator[None]:
    """Keep all surfaces as they are while segments are written: Slicer makes them anew within each write.

    Afterwards the surfaces of segments that were written are out of date. Where a surface is all that there is of a
    segment, nothing is done.
    """
    segmentation = segmentation_node.GetSegmentation()
    ids = segmentation.GetSegmentIDs() if _can_drop(segmentation) else ()
    surfaces = {key: segmentation.GetSegment(key).GetRepresentation(CLOSED_SURFACE) for key in ids}
    if surfaces:
        segmentation.RemoveRepresentation(CLOSED_SURFACE)
    try:
        yield
    finally:
        if surfaces:
            _put_back(segmentation, surfaces)


def _put_back(segmentation: Any, surfaces: Mapping[str, Any]) -> None:
    """Give segments without a surface theirs, or an empty one. The first segment, by which views go, comes last."""
    for segment_id in reversed(segmentation.GetSegmentIDs()):
        segment = segmentation.GetSegment(segment_id)
        if segment.GetRepresentation(CLOSED_SURFACE) is None:
            segment.AddRepresentation(CLOSED_SURFACE, surfaces.get(segment_id) or vtk.vtkPolyData())


def drop_surfaces(segmentation_node: Any) -> None:
    """Take the surfaces of all segments away. Where a surface is all that there is of a segment, all of them stay."""
    segmentation = segmentation_node.GetSegmentation()
    if _can_drop(segmentation):
        segmentation.RemoveRepresentation(CLOSED_SURFACE)


def _can_drop(segmentation: Any) -> bool:
    """True where there are surfaces, and each segment is more than that."""
    source = segmentation.GetSourceRepresentationName()

    def is_only_copy(segment: Any) -> bool:
        has_surface = segment.GetRepresentation(CLOSED_SURFACE) is not None
        return has_surface and (source == CLOSED_SURFACE or segment.GetRepresentation(source) is None)

    has_any = bool(segmentation.ContainsRepresentation(CLOSED_SURFACE))
    return has_any and not any(is_only_copy(segmentation.GetSegment(key)) for key in segmentation.GetSegmentIDs())


def add_coarse_surface(segment: Any, most_voxels: int = _MOST_VOXELS) -> Any:
    """Give a `vtkSegment` with voxels a surface for a picture, and return it (``vtkPolyData``).

    It is made of the segment's own box; of one with more than ``most_voxels``, of every n-th voxel.
    """
    labelmap = segment.GetRepresentation(BINARY_LABELMAP)
    labels = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(labelmap.GetDimensions()[::-1])
    mask = labels == segment.GetLabelValue()
    box, to_ras = bounding_box(mask), image_to_world(labelmap)
    steps = _steps(box.shape_kji[::-1], np.linalg.norm(to_ras[:3, :3], axis=0), most_voxels)
    to_ras[:3, 3] += to_ras[:3, :3] @ (np.array(labelmap.GetExtent()[::2]) + box.start_kji[::-1])
    to_ras[:3, :3] *= steps
    coarse = mask[box.slices][:: steps[2], :: steps[1], :: steps[0]]
    smoothing = _SMOOTHING if np.count_nonzero(mask) > _FEW_VOXELS else 0.0
    image = label_image(coarse.astype(np.uint8), Box((0, 0, 0), coarse.shape), to_ras)
    surface = _to_surface(image, 1, smoothing=smoothing)
    segment.AddRepresentation(CLOSED_SURFACE, surface)
    return surface


def _steps(shape_ijk: Sequence[int], spacing_mm: NDArray[np.float64], most_voxels: int) -> NDArray[np.int64]:
    """The number of voxels to go on along i, j, k, doubled where they are closest until few enough are left."""
    steps = np.ones(3, dtype=np.int64)
    while np.prod(np.ceil(shape_ijk / steps)) > most_voxels:
        steps[np.argmin(spacing_mm * steps)] *= 2
    return steps


def _to_surface(labelmap: Any, label: int, parameters: str = "", smoothing: float | None = None) -> Any:
    """The surface of a label in a label map, with serialized conversion parameters or a smoothing factor."""
    segment, segmentation = slicer.vtkSegment(), slicer.vtkSegmentation()
    segment.AddRepresentation(BINARY_LABELMAP, labelmap)
    segment.SetLabelValue(label)
    segmentation.SetSourceRepresentationName(BINARY_LABELMAP)
    segmentation.AddSegment(segment, "1")
    if parameters:
        segmentation.DeserializeConversionParameters(parameters)
    if smoothing is not None:
        rule = slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule
        segmentation.SetConversionParameter(rule.GetSmoothingFactorParameterName(), str(smoothing))
    segmentation.CreateRepresentation(CLOSED_SURFACE, True)
    return segment.GetRepresentation(CLOSED_SURFACE)
