"""The segments of a picture: what they are called, how large they are, where to cut them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util.numpy_support import vtk_to_numpy

from ..labelmaps import BINARY_LABELMAP
from ..volumes import parent_to_world

# Enough to find where a segment is largest: all voxels of a small one, a sample of a large one.
_MOST_POINTS = 50_000
# A segment counts as shown where the cut has this part of the area of its largest cut.
_SHOWN = 0.2
# A segment counts as hidden where another is in front of this part of it, on a raster of so many cells a side.
_HIDDEN = 0.75
_CELLS = 32
_SEEN_POINTS = 10_000


@dataclass(frozen=True, eq=False, slots=True)
class Subject:
    """One segment that has voxels.

    Attributes:
        segment_id, name: Slicer's.
        colour: red, green, blue in 0..1.
        volume_mm3: the volume of its voxels in the world.
        points_ras: (N, 3) float64, voxel centres in the world; a sample where there are many.
    """

    segment_id: str
    name: str
    colour: tuple[float, float, float]
    volume_mm3: float
    points_ras: NDArray[np.float64]


def list_subjects(segmentation_node: Any) -> tuple[Subject, ...]:
    """The segments with at least one voxel, in Slicer's order."""
    segmentation = segmentation_node.GetSegmentation()
    to_world = parent_to_world(segmentation_node)
    found = (_measure(segmentation, segment_id, to_world) for segment_id in segmentation.GetSegmentIDs())
    return tuple(subject for subject in found if subject is not None)


def _measure(segmentation: Any, segment_id: str, to_world: NDArray[np.float64]) -> Subject | None:
    segment = segmentation.GetSegment(segment_id)
    labelmap = segment.GetRepresentation(BINARY_LABELMAP)
    if labelmap is None or labelmap.GetPointData().GetScalars() is None:
        return None
    inside = np.flatnonzero(vtk_to_numpy(labelmap.GetPointData().GetScalars()) == segment.GetLabelValue())
    if not inside.size:
        return None
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    to_ras = to_world @ slicer.util.arrayFromVTKMatrix(matrix)
    points = _indices_ijk(sample(inside, _MOST_POINTS), labelmap) @ to_ras[:3, :3].T + to_ras[:3, 3]
    volume_mm3 = inside.size * float(abs(np.linalg.det(to_ras[:3, :3])))
    return Subject(segment_id, segment.GetName() or segment_id, segment.GetColor(), volume_mm3, points)


def sample(places: NDArray[Any], count: int) -> NDArray[Any]:
    """At most that many rows, always the same ones; at random, because every n-th voxel may miss whole slices."""
    if len(places) <= count:
        return places
    return places[np.random.default_rng(0).integers(0, len(places), count)]


def _indices_ijk(flat: NDArray[np.int64], labelmap: Any) -> NDArray[np.int64]:
    """The (N, 3) voxel indices of places in the array of an image that starts at its own extent."""
    columns, rows, slices = labelmap.GetDimensions()
    start = np.array(labelmap.GetExtent()[::2])
    k, j, i = np.unravel_index(flat, (slices, rows, columns))
    return np.stack([i, j, k], axis=1) + start


def choose_offset(
    subjects: Sequence[Subject], normal: NDArray[np.float64], ijk_to_world: NDArray[np.float64]
) -> float | None:
    """Where to cut so that the most segments show, and the largest part of each; None without segments.

    Candidates are the slices of the volume axis nearest to the normal. A segment shows where the cut has at least
    a fifth of its largest area; among cuts that show as many, the highest mean of the relative areas wins, so that
    a nodule counts as much as a lung.

    Args:
        subjects: the segments.
        normal: (3,) unit vector in the world.
        ijk_to_world: (4, 4), of the volume.

    Returns:
        The distance in mm of the plane from the world's origin along the normal.
    """
    if not subjects:
        return None
    step, start = _slice_step(normal, ijk_to_world), float(ijk_to_world[:3, 3] @ normal)
    numbers = [np.rint((subject.points_ras @ normal - start) / step).astype(np.int64) for subject in subjects]
    first = min(int(n.min()) for n in numbers)
    count = max(int(n.max()) for n in numbers) - first + 1
    areas = np.array([np.bincount(n - first, minlength=count) for n in numbers])
    relative = areas / areas.max(axis=1, keepdims=True)
    score = (relative >= _SHOWN).sum(axis=0) + relative.mean(axis=0) / 2
    return start + (first + int(score.argmax())) * step


def _slice_step(normal: NDArray[np.float64], ijk_to_world: NDArray[np.float64]) -> float:
    axes = ijk_to_world[:3, :3]
    lengths = np.abs(normal @ axes)
    return float(lengths[np.argmax(lengths / np.linalg.norm(axes, axis=0))])


def see_through(subjects: Sequence[Subject], view_axes: NDArray[np.float64]) -> frozenset[str]:
    """The ids of the segments to draw translucent, so that those behind or inside them are seen.

    That is every segment that hides three quarters of a smaller one from the viewer, and every segment at least
    half as large as the smallest of those: with a nodule in one lung, both lungs.

    Args:
        subjects: the segments.
        view_axes: (3, 3), rows are image right, image up and towards the viewer, unit vectors in the world.
    """
    if not subjects:
        return frozenset()
    views = [sample(subject.points_ras, _SEEN_POINTS) @ view_axes.T for subject in subjects]
    low = np.min([view.min(axis=0) for view in views], axis=0)
    span = np.max([view.max(axis=0) for view in views], axis=0) - low
    cell = max(float(span[:2].max()) / _CELLS, 1e-6)
    cells = [((view[:, :2] - low[:2]) / cell).astype(np.int64) for view in views]
    fronts = [_front(place, view[:, 2]) for place, view in zip(cells, views, strict=True)]
    hiding = [
        outer.volume_mm3
        for outer, front in zip(subjects, fronts, strict=True)
        for inner, place, view in zip(subjects, cells, views, strict=True)
        if inner.volume_mm3 < outer.volume_mm3 and (front[place[:, 0], place[:, 1]] > view[:, 2]).mean() > _HIDDEN
    ]
    return frozenset(subject.segment_id for subject in subjects if hiding and subject.volume_mm3 >= min(hiding) / 2)


def _front(cells: NDArray[np.int64], depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """What of a segment is nearest to the viewer, on a square raster; -inf beside it."""
    nearest = np.full((_CELLS + 1, _CELLS + 1), -np.inf)
    np.maximum.at(nearest, (cells[:, 0], cells[:, 1]), depth)
    return nearest
