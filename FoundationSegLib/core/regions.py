"""Where changes may happen: around a prompt, on a range of slices, in a box. Outside, a segment stays as it was."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .geometry import EMPTY_BOX, Axis, Box, Geometry, Vector, array_axis
from .placement import place_box, prompt_positions
from .prompts import BoxPrompt, MaskPrompt, PointPrompt, Prompt, ScribblePrompt

_SAMPLES_PER_RADIUS = 2  # of a stroke, between its points: the spheres around them overlap by more than half


@dataclass(frozen=True, slots=True)
class AroundPrompt:
    """As far as ``radius_mm`` around what was prompted.

    Around points and strokes that is a distance; around boxes, lassos and masks a box that is wider by the radius on
    every side. A text or a class has no place and is not limited.

    Raises:
        InputError: the radius is not above 0.
    """

    radius_mm: float

    def __post_init__(self) -> None:
        if not self.radius_mm > 0:
            raise InputError(f"the radius around a prompt must be above 0, not {self.radius_mm} mm")


@dataclass(frozen=True, slots=True)
class SliceRange:
    """The slices ``start`` to before ``stop`` across an axis.

    Raises:
        InputError: there is no slice in between.
    """

    axis: Axis
    start: int
    stop: int

    def __post_init__(self) -> None:
        if self.stop <= self.start:
            raise InputError(f"there is no slice from {self.start} to before {self.stop}")


@dataclass(frozen=True, slots=True)
class InsideBox:
    """The voxels of a box."""

    box: Box


Region = AroundPrompt | SliceRange | InsideBox


def slab(axis: Axis, start: int, stop: int, geometry: Geometry) -> Box:
    """The box of whole slices across an axis; what lies outside the image is left out."""
    low, high = [0, 0, 0], list(geometry.shape_kji)
    low[array_axis(axis)], high[array_axis(axis)] = start, stop
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2])).intersection(geometry.box)


def inside_region(region: Region, prompts: Sequence[Prompt], geometry: Geometry, box: Box) -> NDArray[np.bool_]:
    """Which voxels of a box a region holds: a new (K, J, I) boolean array of the shape of the box.

    ``prompts`` are those that :class:`AroundPrompt` means, RAS in mm.
    """
    inside = np.zeros(box.shape_kji, np.bool_)
    if isinstance(region, SliceRange):
        _fill(inside, slab(region.axis, region.start, region.stop, geometry), box)
    elif isinstance(region, InsideBox):
        _fill(inside, region.box, box)
    else:
        for prompt in prompts:
            _add_surroundings(inside, prompt, region.radius_mm, geometry, box)
    return inside


def _fill(inside: NDArray[np.bool_], part: Box, box: Box) -> None:
    inside[part.intersection(box).relative_to(box).slices] = True


def _add_surroundings(
    inside: NDArray[np.bool_], prompt: Prompt, radius_mm: float, geometry: Geometry, box: Box
) -> None:
    if isinstance(prompt, PointPrompt):
        _add_sphere(inside, prompt.position, radius_mm, geometry, box)
    elif isinstance(prompt, ScribblePrompt):
        for position in _along(prompt.points, radius_mm / _SAMPLES_PER_RADIUS):
            _add_sphere(inside, position, radius_mm, geometry, box)
    else:
        extent = prompt_extent(prompt, geometry)
        _fill(inside, wider_box(extent, radius_mm, geometry) if extent is not None else box, box)


def _along(points: Sequence[Vector], step_mm: float) -> list[Vector]:
    """Positions along a stroke, no further apart than the step."""
    found = [points[0]]
    for first, second in itertools.pairwise(points):
        count = max(1, int(np.ceil(np.linalg.norm(np.subtract(second, first)) / step_mm)))
        found += [tuple(np.add(first, np.subtract(second, first) * n / count)) for n in range(1, count + 1)]
    return found


def _add_sphere(inside: NDArray[np.bool_], centre: Vector, radius_mm: float, geometry: Geometry, box: Box) -> None:
    voxel = geometry.nearest_voxel(centre)[::-1].tolist()
    around = Box((voxel[0], voxel[1], voxel[2]), (voxel[0] + 1, voxel[1] + 1, voxel[2] + 1))
    part = wider_box(around, radius_mm, geometry).intersection(box)
    if part.is_empty:
        return
    index_kji = np.indices(part.shape_kji).reshape(3, -1).T + part.start_kji
    distance = np.linalg.norm(geometry.to_ras(index_kji[:, ::-1]) - centre, axis=1)
    inside[part.relative_to(box).slices] |= (distance <= radius_mm).reshape(part.shape_kji)


def wider_box(box: Box, radius_mm: float, geometry: Geometry) -> Box:
    """The box with all that is nearer than a radius, cut to the image; sheared grids included."""
    # The distance between two planes of voxels is one over the length of their normal in index space.
    i, j, k = (int(np.ceil(radius_mm * n)) for n in np.linalg.norm(geometry.ras_to_ijk[:3, :3], axis=1))
    (k0, j0, i0), (k1, j1, i1) = box.start_kji, box.stop_kji
    return Box((k0 - k, j0 - j, i0 - i), (k1 + k, j1 + j, i1 + i)).intersection(geometry.box)


def prompt_extent(prompt: Prompt, geometry: Geometry) -> Box | None:
    """The smallest box around what a prompt names, cut to the image; None for texts and classes, which have no place.

    Raises:
        PromptError: a box that is none.
    """
    if isinstance(prompt, BoxPrompt):
        return place_box(prompt, geometry).box
    if isinstance(prompt, MaskPrompt):
        return prompt.voxels.box if prompt.voxels is not None else EMPTY_BOX
    positions = prompt_positions(prompt)
    if not positions:
        return None
    index_kji = geometry.nearest_voxel(positions)[:, ::-1]
    (k0, j0, i0), (k1, j1, i1) = index_kji.min(axis=0).tolist(), (index_kji.max(axis=0) + 1).tolist()
    return Box((k0, j0, i0), (k1, j1, i1)).intersection(geometry.box)
