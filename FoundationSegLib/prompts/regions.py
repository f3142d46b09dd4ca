"""Regions: limits for changes, and the part of an image that a model sees."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..codec import frozen
from ..errors import InputError, PromptError
from ..imaging.geometry import EMPTY_BOX, Axis, Box, Geometry, Vector, array_axis, as_shape
from ..imaging.masks import EMPTY_MASK, PackedMask, cut_out, pack_mask
from ..imaging.volume import Volume
from .kinds import BoxPrompt, MaskPrompt, PointPrompt, Prompt, ScribblePrompt, SegmentPrompts
from .placement import place_box, positions_location, prompt_positions, require_inside
from .prompts_file import join_location

_SAMPLES_PER_RADIUS = 2  # of a stroke, between its points: the spheres around them overlap by more than half


@frozen
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


@frozen
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
            raise InputError(f"the range {self.start}:{self.stop} holds no slice; its end must be above its start")


@frozen
class InsideBox:
    """The voxels of a box."""

    box: Box


Region = AroundPrompt | SliceRange | InsideBox


def slab(axis: Axis, start: int, stop: int, geometry: Geometry) -> Box:
    """The box of whole slices across an axis; what lies outside the image is left out."""
    low, high = [0, 0, 0], list(geometry.shape_kji)
    low[array_axis(axis)], high[array_axis(axis)] = start, stop
    return Box(as_shape(low), as_shape(high)).intersection(geometry.box)


def inside_region(region: Region, prompts: Sequence[Prompt], geometry: Geometry, box: Box) -> NDArray[np.bool_]:
    """Voxels of a box inside a region: a new (K, J, I) boolean array of the shape of the box.

    ``prompts`` are those that :class:`AroundPrompt` means, RAS in mm.
    """
    inside = np.zeros(box.shape_kji, np.bool_)
    if isinstance(region, AroundPrompt):
        for prompt in prompts:
            _add_surroundings(inside, prompt, region.radius_mm, geometry, box)
    else:
        _fill(inside, _box_of(region, geometry), box)
    return inside


def _box_of(region: SliceRange | InsideBox, geometry: Geometry) -> Box:
    if isinstance(region, InsideBox):
        return region.box.intersection(geometry.box)
    return slab(region.axis, region.start, region.stop, geometry)


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
    points_along = [points[0]]
    for first, second in itertools.pairwise(points):
        count = max(1, int(np.ceil(np.linalg.norm(np.subtract(second, first)) / step_mm)))
        points_along += [tuple(np.add(first, np.subtract(second, first) * n / count)) for n in range(1, count + 1)]
    return points_along


def _add_sphere(inside: NDArray[np.bool_], centre: Vector, radius_mm: float, geometry: Geometry, box: Box) -> None:
    part = wider_box(Box.around(geometry.to_ijk(centre)), radius_mm, geometry).intersection(box)
    if part.is_empty:
        return
    index_kji = np.indices(part.shape_kji).reshape(3, -1).T + part.start_kji
    distance = np.linalg.norm(geometry.to_ras(index_kji[:, ::-1]) - centre, axis=1)
    inside[part.relative_to(box).slices] |= (distance <= radius_mm).reshape(part.shape_kji)


def wider_box(box: Box, radius_mm: float, geometry: Geometry) -> Box:
    """The box with all that is nearer than a radius, cut to the image; sheared grids included."""
    # The distance between two planes of voxels is one over the length of their normal in index space.
    margin_ijk = np.ceil(radius_mm * np.linalg.norm(geometry.ras_to_ijk[:3, :3], axis=1))
    return box.grown(as_shape(margin_ijk[::-1])).intersection(geometry.box)


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
    return Box.around(geometry.to_ijk(positions)).intersection(geometry.box) if positions else None


def seen_box(region: Region, prompts: Sequence[Prompt], geometry: Geometry) -> Box:
    """The box of the image that a model sees where it is limited to a region.

    ``prompts`` are those that :class:`~.regions.AroundPrompt` means; words have no place, and are about all of it.

    Raises:
        InputError: no voxel of the image is inside.
    """
    if isinstance(region, AroundPrompt):
        box = around_prompts(prompts, region.radius_mm, geometry)
    else:
        box = _box_of(region, geometry)
    if box.is_empty:
        raise InputError("the region of interest lies outside the image")
    return box


def around_prompts(prompts: Sequence[Prompt], radius_mm: float, geometry: Geometry) -> Box:
    """The box around prompts, wider by a radius on every side; the whole image where one of them has no place."""
    box = EMPTY_BOX
    for prompt in prompts:
        extent = prompt_extent(prompt, geometry)
        if extent is None:
            return geometry.box
        box = box.union(extent)
    return wider_box(box, radius_mm, geometry) if not box.is_empty else geometry.box


def crop_geometry(geometry: Geometry, box: Box) -> Geometry:
    """The grid of a box of an image."""
    matrix = geometry.ijk_to_ras.copy()
    matrix[:3, 3] = geometry.to_ras(box.start_kji[::-1])
    return Geometry(matrix, box.shape_kji)


def crop_volume(volume: Volume, box: Box) -> Volume:
    """The part of an image in a box inside it; its voxels are those of the image.

    Raises:
        InputError: there is nothing to see in it.
    """
    part = volume.array_kji[box.slices]
    if part.min() == part.max():
        raise InputError(f"the region of interest is constant: every voxel is {part.flat[0]}; choose a larger one")
    return replace(volume, array_kji=part, geometry=crop_geometry(volume.geometry, box))


def crop_prompts(
    segments: Sequence[SegmentPrompts], box: Box, geometry: Geometry
) -> tuple[tuple[SegmentPrompts, ...], tuple[str, ...]]:
    """The prompts as they are on the grid of a box of the image, and notes on what of them lies beyond it.

    Raises:
        PromptError: a prompt lies wholly outside the box.
    """
    grid, cropped, notes = crop_geometry(geometry, box), [], []
    for n, segment in enumerate(segments):
        prompts: list[Prompt] = []
        for m, prompt in enumerate(segment.prompts):
            location = f"segments[{n}].prompts[{m}]"
            if isinstance(prompt, MaskPrompt) and prompt.voxels is not None:
                prompt = replace(prompt, voxels=_cropped_mask(prompt.voxels, box, location, notes))
            elif prompt_positions(prompt):
                _require_in_region(prompt, geometry, grid, location)
            prompts.append(prompt)
        cropped.append(SegmentPrompts(segment.name, tuple(prompts)))
    return tuple(cropped), tuple(notes)


def _cropped_mask(mask: PackedMask, box: Box, location: str, notes: list[str]) -> PackedMask:
    part = pack_mask(cut_out(mask, common := mask.box.intersection(box)), common.relative_to(box).start_kji)
    if part.box.is_empty and not mask.box.is_empty:
        raise PromptError("the prompt lies wholly outside the region of interest", join_location(location, "file"))
    if part.voxels < mask.voxels:
        notes.append(f"{location}: cut to the region of interest")
    return part


def _require_in_region(prompt: Prompt, geometry: Geometry, grid: Geometry, location: str) -> None:
    try:
        require_inside(prompt, grid, location)
    except PromptError as error:
        require_inside(prompt, geometry, location)
        at = positions_location(prompt, location)
        raise PromptError("the prompt lies wholly outside the region of interest", at) from error


def pasted(mask: PackedMask, box: Box) -> PackedMask:
    """A mask on the grid of a box, on that of the image."""
    return PackedMask(mask.box.shifted(box.start_kji), mask.bits) if not mask.box.is_empty else EMPTY_MASK


def is_within_reach(prompt: Prompt, box: Box, geometry: Geometry) -> bool:
    """True for a prompt that speaks of something in a box, or that has no place."""
    extent = prompt_extent(prompt, geometry)
    return extent is None or not extent.intersection(box).is_empty


def box_text(box: Box) -> str:
    """A box as a user reads it: ``i 0:40, j 5:60, k 3:10``, the first voxel and the first beyond."""
    bounds = zip("kji", box.start_kji, box.stop_kji, strict=True)
    return ", ".join(f"{axis} {start}:{stop}" for axis, start, stop in reversed(list(bounds)))


def largest_box_around(inner: Box, voxels: int, whole: Box) -> Box | None:
    """The box around an inner one, grown alike on all sides, that has no more than a number of voxels.

    None where the inner one itself has more.
    """
    if inner.is_empty or np.prod(inner.shape_kji, dtype=np.int64) > voxels:
        return None
    low, high = 0, max(whole.shape_kji)
    while low < high:  # the largest margin that still fits
        middle = (low + high + 1) // 2
        if np.prod(grown(inner, middle, whole).shape_kji, dtype=np.int64) <= voxels:
            low = middle
        else:
            high = middle - 1
    return grown(inner, low, whole)


def grown(box: Box, margin: int, whole: Box) -> Box:
    """Return a box that is wider by a margin of voxels on every side, cut to the whole."""
    return box.grown((margin, margin, margin)).intersection(whole)
