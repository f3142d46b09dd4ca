"""Closed surfaces of segments: made when there is time, dropped before a write, and small ones for pictures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
from numpy.typing import NDArray
from vtk.util.numpy_support import vtk_to_numpy

from ..imaging.geometry import bounding_box, whole_box
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
    segmentation = segmentation_node.GetSegmentation()
    if segmentation.CreateRepresentation(CLOSED_SURFACE) and segmentation_node.GetDisplayNode() is not None:
        segmentation_node.GetDisplayNode().SetPreferredDisplayRepresentationName3D(CLOSED_SURFACE)


def drop_surfaces(segmentation_node: Any) -> None:
    """Take the surfaces of all segments away: while there is one, Slicer makes it anew within every write.

    Where a surface is all that there is of a segment, all of them stay.
    """
    segmentation = segmentation_node.GetSegmentation()
    source = segmentation.GetSourceRepresentationName()

    def is_only_copy(segment: Any) -> bool:
        has_surface = segment.GetRepresentation(CLOSED_SURFACE) is not None
        return has_surface and (source == CLOSED_SURFACE or segment.GetRepresentation(source) is None)

    if has_surfaces(segmentation_node) and not any(
        is_only_copy(segmentation.GetSegment(key)) for key in segmentation.GetSegmentIDs()
    ):
        segmentation.RemoveRepresentation(CLOSED_SURFACE)


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
    surface = _to_surface(label_image(coarse.astype(np.uint8), whole_box(coarse.shape), to_ras), smoothing)
    segment.AddRepresentation(CLOSED_SURFACE, surface)
    return surface


def _steps(shape_ijk: Sequence[int], spacing_mm: NDArray[np.float64], most_voxels: int) -> NDArray[np.int64]:
    """The number of voxels to go on along i, j, k, doubled where they are closest until few enough are left."""
    steps = np.ones(3, dtype=np.int64)
    while np.prod(np.ceil(shape_ijk / steps)) > most_voxels:
        steps[np.argmin(spacing_mm * steps)] *= 2
    return steps


def _to_surface(labelmap: Any, smoothing: float) -> Any:
    segment, segmentation = slicer.vtkSegment(), slicer.vtkSegmentation()
    segment.AddRepresentation(BINARY_LABELMAP, labelmap)
    segment.SetLabelValue(1)
    segmentation.SetSourceRepresentationName(BINARY_LABELMAP)
    segmentation.AddSegment(segment, "1")
    rule = slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule
    segmentation.SetConversionParameter(rule.GetSmoothingFactorParameterName(), str(smoothing))
    segmentation.CreateRepresentation(CLOSED_SURFACE, True)
    return segment.GetRepresentation(CLOSED_SURFACE)
