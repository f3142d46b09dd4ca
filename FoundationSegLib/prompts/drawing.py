"""Voxels that strokes and lassos cover: for models that are shown the drawing itself."""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import PromptError
from ..imaging.geometry import AXES, EMPTY_BOX, Box, Geometry, Vector, as_vector
from ..imaging.masks import PackedMask, pack_mask
from .capabilities import is_within
from .kinds import LassoPrompt, ObliquePlane, ScribblePrompt
from .placement import slice_axis, slice_number
from .prompts_file import join_location
from .regions import slab, wider_box

_STEPS_PER_VOXEL = 4  # positions along a stroke at which the voxel below counts, however thin the stroke is
_PIECE_VOXELS = 16  # a stroke is looked at in pieces: the box around a long slanted one holds mostly other voxels

Piece = tuple[NDArray[np.float64], NDArray[np.float64]]


def scribble_voxels(prompt: ScribblePrompt, geometry: Geometry, location: str = "") -> PackedMask:
    """The voxels of a stroke: those that it passes through, and those whose centres are within its radius.

    On a slice the stroke keeps to that slice; in an oblique plane it is as thick across the plane as along it.

    Raises:
        PromptError: the stroke lies on several slices, or wholly outside the image.
    """
    at = join_location(location, "points")
    room, across = geometry.box, geometry.spacing_mm
    if not isinstance(prompt.plane, ObliquePlane):
        axis = slice_axis(prompt, location)
        index = slice_number(prompt.points, axis, geometry, at)
        room = slab(axis, index, index + 1, geometry)
        across = as_vector([np.inf if other == axis else mm for other, mm in zip(AXES, across, strict=True)])
    radius_mm = prompt.radius_mm or min(across) / 2
    pieces = list(_pieces(prompt.points, radius_mm, geometry))
    reach = [wider_box(Box.around(geometry.to_ijk(piece)), radius_mm, geometry) for piece in pieces]
    box = EMPTY_BOX
    for piece_box in reach:
        box = box.union(piece_box.intersection(room))
    voxels = np.zeros(box.shape_kji, np.bool_)
    for piece, piece_box in zip(pieces, reach, strict=True):
        _add_piece(voxels, piece, radius_mm, geometry, box, piece_box.intersection(room))
    mask = pack_mask(voxels, box.start_kji)
    if mask.box.is_empty:
        raise PromptError("too little of the scribble lies inside the image", at)
    return mask


def _pieces(points: tuple[Vector, ...], radius_mm: float, geometry: Geometry) -> Iterator[Piece]:
    """The straight pieces of a stroke near the image, from RAS to RAS; a single point is a piece of no length."""
    low, high = (np.array(corner[::-1], np.float64) for corner in (geometry.box.start_kji, geometry.box.stop_kji))
    # What is further away than the stroke is thick reaches no voxel, be it a thousand metres long.
    margin = np.ceil(radius_mm * np.linalg.norm(geometry.ras_to_ijk[:3, :3], axis=1)) + 1
    with np.errstate(over="ignore", invalid="ignore"):
        stroke = geometry.to_ijk(points)
        for start, end in itertools.pairwise(stroke if len(stroke) > 1 else np.repeat(stroke, 2, axis=0)):
            ends = _clipped(start, end, low - margin, high + margin)
            if ends is not None:
                count = max(1, int(np.ceil(np.abs(ends[1] - ends[0]).max() / _PIECE_VOXELS)))
                marks = geometry.to_ras(np.linspace(*ends, count + 1))
                yield from itertools.pairwise(marks)


def _clipped(
    start: NDArray[np.float64], end: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> Piece | None:
    """The part of a straight line that lies in a box, after Liang and Barsky; None where none does."""
    first, last, way = 0.0, 1.0, end - start
    for n in range(3):
        if not np.isfinite(way[n]):
            return None
        if way[n] == 0:
            if not low[n] <= start[n] <= high[n]:
                return None
            continue
        near, far = sorted(((low[n] - start[n]) / way[n], (high[n] - start[n]) / way[n]))
        first, last = max(first, near), min(last, far)
    return (start + first * way, start + last * way) if first <= last else None


def _add_piece(
    voxels: NDArray[np.bool_], piece: Piece, radius_mm: float, geometry: Geometry, box: Box, reach: Box
) -> None:
    if reach.is_empty:
        return
    start, end = piece
    part = voxels[reach.relative_to(box).slices]
    away = geometry.to_ras(_centres(reach)) - start
    way = end - start
    length = float(way @ way)
    share = np.clip(away @ way / length, 0, 1) if length else np.zeros(len(away))
    distance = np.linalg.norm(away - share[:, None] * way, axis=1)
    part |= (distance <= radius_mm).reshape(part.shape)
    count = int(np.ceil(np.abs(geometry.to_ijk(end) - geometry.to_ijk(start)).max() * _STEPS_PER_VOXEL)) + 1
    passed = geometry.nearest_voxel(np.linspace(start, end, count + 1))[:, ::-1] - reach.start_kji
    passed = passed[((passed >= 0) & (passed < reach.shape_kji)).all(axis=1)]
    part[tuple(passed.T)] = True


def lasso_voxels(prompt: LassoPrompt, geometry: Geometry, location: str = "") -> PackedMask:
    """The voxels whose centres lie inside a lasso: on its slice, or nearest to its oblique plane.

    Raises:
        PromptError: it lies on several slices, or there is no voxel inside it.
    """
    at = join_location(location, "points")
    if isinstance(prompt.plane, ObliquePlane):
        mask = _inside_oblique(prompt, geometry)
    else:
        axis = slice_axis(prompt, location)
        layer = slab(axis, index := slice_number(prompt.points, axis, geometry, at), index + 1, geometry)
        outline = geometry.to_ijk(prompt.points)
        box = Box.around(outline).intersection(layer)
        others = [n for n in range(3) if AXES[n] != axis]
        within = is_within(_centres(box)[:, others], outline[:, others])
        mask = pack_mask(within.reshape(box.shape_kji), box.start_kji)
    if mask.box.is_empty:
        raise PromptError("no voxel of the image lies inside the lasso", at)
    return mask


def _inside_oblique(prompt: LassoPrompt, geometry: Geometry) -> PackedMask:
    """Slice by slice of the image: all voxels around a large lasso at once would take gigabytes."""
    points = np.asarray(prompt.points)
    origin = points.mean(axis=0)
    right, down, normal = np.linalg.svd(points - origin, full_matrices=False)[2]
    thickness = float(np.abs(normal @ geometry.ijk_to_ras[:3, :3]).max())
    outline = np.stack([(points - origin) @ right, (points - origin) @ down], axis=1)
    box = wider_box(Box.around(geometry.to_ijk(points)), thickness, geometry)
    covered = np.zeros(box.shape_kji, np.bool_)
    for number, plane in enumerate(covered, start=box.start_kji[0]):
        layer = slab("k", number, number + 1, geometry).intersection(box)
        away = geometry.to_ras(_centres(layer)) - origin
        near = np.flatnonzero(np.abs(away @ normal) <= thickness / 2)
        plane.reshape(-1)[near] = is_within(np.stack([away[near] @ right, away[near] @ down], axis=1), outline)
    return pack_mask(covered, box.start_kji)


def _centres(box: Box) -> NDArray[np.float64]:
    """The centres of a box's voxels as (i, j, k), (n, 3), in the order of the array."""
    index_kji = np.indices(box.shape_kji).reshape(3, -1).T + box.start_kji
    return index_kji[:, ::-1].astype(np.float64)
