"""The closed surfaces of the segments, made by Slicer's own conversion, from no more voxels than a picture shows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from ...core.geometry import bounding_box
from ..labelmaps import BINARY_LABELMAP
from ..volumes import parent_to_world
from .stage import Stage
from .subjects import Subject

CLOSED_SURFACE = "Closed surface"
# A panel has under a million pixels: more voxels would cost seconds and show nothing.
_MOST_VOXELS = 1_000_000
# Smoothing would shrink smaller segments to nothing: they keep the surface of their voxels.
_FEW_VOXELS = 64
_SMOOTHING = 0.5


def make_surfaces(stage: Stage, subjects: Sequence[Subject]) -> None:
    """Give every segment of the stage its surface."""
    segmentation = stage.segmentation_node.GetSegmentation()
    for subject in subjects:
        segment = segmentation.GetSegment(subject.segment_id)
        smoothing = _SMOOTHING if len(subject.points_ras) > _FEW_VOXELS else 0.0
        segment.AddRepresentation(CLOSED_SURFACE, _to_surface(_coarse_labelmap(segment), smoothing))


def surface_points(stage: Stage, subjects: Sequence[Subject]) -> NDArray[np.float64]:
    """(N, 3) float64: the corners of all surfaces in the world; for a segment without any, its voxels."""
    segmentation = stage.segmentation_node.GetSegmentation()
    to_world = parent_to_world(stage.segmentation_node)
    found = []
    for subject in subjects:
        surface = segmentation.GetSegment(subject.segment_id).GetRepresentation(CLOSED_SURFACE)
        if surface.GetNumberOfPoints():
            corners = vtk_to_numpy(surface.GetPoints().GetData())
            found.append(corners @ to_world[:3, :3].T + to_world[:3, 3])
        else:
            found.append(subject.points_ras)
    return np.concatenate(found)


def _coarse_labelmap(segment: Any) -> Any:
    """The segment's voxels as a ``vtkOrientedImageData`` of 0 and 1: its box alone, of a large one every n-th voxel."""
    labelmap = segment.GetRepresentation(BINARY_LABELMAP)
    columns, rows, slices = labelmap.GetDimensions()
    labels = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(slices, rows, columns)
    mask = labels == segment.GetLabelValue()
    box = bounding_box(mask)
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    to_ras = slicer.util.arrayFromVTKMatrix(matrix)
    steps = _steps(box.shape_kji[::-1], np.linalg.norm(to_ras[:3, :3], axis=0))
    start = np.array(labelmap.GetExtent()[::2]) + box.start_kji[::-1]
    to_ras[:3, 3] += to_ras[:3, :3] @ start
    to_ras[:3, :3] *= steps
    return _oriented_image(mask[box.slices][:: steps[2], :: steps[1], :: steps[0]], to_ras)


def _steps(shape_ijk: Sequence[int], spacing_mm: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many voxels to go on along i, j, k, doubled where they are closest until few enough are left."""
    steps = np.ones(3, dtype=np.int64)
    while np.prod(np.ceil(shape_ijk / steps)) > _MOST_VOXELS:
        steps[np.argmin(spacing_mm * steps)] *= 2
    return steps


def _oriented_image(mask_kji: NDArray[np.bool_], to_ras: NDArray[np.float64]) -> Any:
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*mask_kji.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(mask_kji.astype(np.uint8).ravel(), deep=True))
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(to_ras.ravel())
    image.SetImageToWorldMatrix(matrix)
    return image


def _to_surface(labelmap: Any, smoothing: float) -> Any:
    segment = slicer.vtkSegment()
    segment.AddRepresentation(BINARY_LABELMAP, labelmap)
    segment.SetLabelValue(1)
    segmentation = slicer.vtkSegmentation()
    segmentation.SetSourceRepresentationName(BINARY_LABELMAP)
    segmentation.AddSegment(segment, "1")
    rule = slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule
    segmentation.SetConversionParameter(rule.GetSmoothingFactorParameterName(), str(smoothing))
    segmentation.CreateRepresentation(CLOSED_SURFACE, True)
    return segment.GetRepresentation(CLOSED_SURFACE)
