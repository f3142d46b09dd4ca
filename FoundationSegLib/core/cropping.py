"""A model that sees a part of the image only: the image, the prompts and the answers of a box, and back again."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .combination import cut_out
from .errors import InputError, PromptError
from .geometry import EMPTY_BOX, Box, Geometry
from .mask import EMPTY_MASK, PackedMask, pack_mask
from .placement import positions_place, prompt_positions, require_inside
from .prompts import MaskPrompt, Prompt, SegmentPrompts
from .prompts_document import join_place
from .regions import AroundPrompt, InsideBox, Region, prompt_extent, slab, wider_box
from .volume import Volume


def seen_box(region: Region, prompts: Sequence[Prompt], geometry: Geometry) -> Box:
    """The box of the image that a model sees where it is limited to a region.

    ``prompts`` are those that :class:`~.regions.AroundPrompt` means; words have no place, and are about all of it.

    Raises:
        InputError: no voxel of the image is inside.
    """
    if isinstance(region, InsideBox):
        box = region.box.intersection(geometry.box)
    elif isinstance(region, AroundPrompt):
        box = around_prompts(prompts, region.radius_mm, geometry)
    else:
        box = slab(region.axis, region.start, region.stop, geometry)
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
            place = f"segments[{n}].prompts[{m}]"
            if isinstance(prompt, MaskPrompt) and prompt.voxels is not None:
                prompt = replace(prompt, voxels=_cropped_mask(prompt.voxels, box, place, notes))
            elif prompt_positions(prompt):
                _require_in_region(prompt, geometry, grid, place)
            prompts.append(prompt)
        cropped.append(SegmentPrompts(segment.name, tuple(prompts)))
    return tuple(cropped), tuple(notes)


def _cropped_mask(mask: PackedMask, box: Box, place: str, notes: list[str]) -> PackedMask:
    part = pack_mask(cut_out(mask, common := mask.box.intersection(box)), common.relative_to(box).start_kji)
    if part.box.is_empty and not mask.box.is_empty:
        raise PromptError("lies wholly outside the region of interest", join_place(place, "file"))
    if part.voxels < mask.voxels:
        notes.append(f"{place}: cut to the region of interest")
    return part


def _require_in_region(prompt: Prompt, geometry: Geometry, grid: Geometry, place: str) -> None:
    require_inside(prompt, geometry, place)
    try:
        require_inside(prompt, grid, place)
    except PromptError as error:
        raise PromptError("lies wholly outside the region of interest", positions_place(prompt, place)) from error


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
        if np.prod(_grown(inner, middle, whole).shape_kji, dtype=np.int64) <= voxels:
            low = middle
        else:
            high = middle - 1
    return _grown(inner, low, whole)


def _grown(box: Box, margin: int, whole: Box) -> Box:
    (k0, j0, i0), (k1, j1, i1) = box.start_kji, box.stop_kji
    grown = Box((k0 - margin, j0 - margin, i0 - margin), (k1 + margin, j1 + margin, i1 + margin))
    return grown.intersection(whole)
