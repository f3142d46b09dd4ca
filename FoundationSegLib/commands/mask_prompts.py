"""The masks that a prompts file names: their files, their voxels, and what a report says of them."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import GeometryError, InputError, PromptError
from ..imaging.geometry import Geometry, whole_box
from ..imaging.masks import PackedMask, pack_mask
from ..prompts.kinds import MaskPrompt, Prompt, PromptSet


def mask_files(prompts: PromptSet, folder: Path) -> tuple[Path, ...]:
    """The files of the mask prompts, each once; ``folder`` is that of the prompts file."""
    every = (prompt for segment in prompts.segments for prompt in segment.prompts)
    return tuple(dict.fromkeys(folder / prompt.file for prompt in every if isinstance(prompt, MaskPrompt)))


def without_folders(prompts: PromptSet) -> PromptSet:
    """The same prompts as reports tell of them: of the files of mask prompts their names alone."""

    def told(prompt: Prompt) -> Prompt:
        return replace(prompt, file=re.split(r"[/\\]", prompt.file)[-1]) if isinstance(prompt, MaskPrompt) else prompt

    segments = (replace(segment, prompts=tuple(map(told, segment.prompts))) for segment in prompts.segments)
    return replace(prompts, segments=tuple(segments))


def read_masks(prompts: PromptSet, folder: Path, geometry: Geometry) -> PromptSet:
    """The same prompts with the voxels of each mask prompt.

    Args:
        prompts: the prompts.
        folder: that of the prompts file, which the mask files are relative to.
        geometry: the image; a mask must be on its grid, but may be a crop of it or reach beyond.

    Raises:
        PromptError: a mask file cannot be read, has no such segment, or is on another grid.
    """
    return replace(
        prompts,
        segments=tuple(
            replace(
                segment,
                prompts=tuple(
                    _with_voxels(prompt, folder, geometry, f"segments[{n}].prompts[{m}]")
                    if isinstance(prompt, MaskPrompt)
                    else prompt
                    for m, prompt in enumerate(segment.prompts)
                ),
            )
            for n, segment in enumerate(prompts.segments)
        ),
    )


def _with_voxels(prompt: MaskPrompt, folder: Path, geometry: Geometry, place: str) -> MaskPrompt:
    try:
        mask = read_mask(folder / prompt.file, prompt.segment, geometry)
    except (InputError, GeometryError) as error:
        raise PromptError(str(error), f"{place}.file") from error
    return replace(prompt, voxels=mask)


def read_mask(path: Path, segment_name: str, geometry: Geometry) -> PackedMask:
    """The voxels of a segment of a file, in those of an image; what lies outside of the image is left out.

    Raises:
        InputError, GeometryError: the file cannot be read, has no such segment, or is on another grid.
    """
    from ..io.segmentations import read_mask_prompt

    mask, grid = read_mask_prompt(path, segment_name)
    offset = geometry.offset_of(grid)  # a segmentation is often saved without its empty margin
    if offset is None:
        raise GeometryError("the mask is not on the grid of the image; resample it to the image first")
    inside = whole_box(mask.shape).intersection(geometry.box.shifted((-offset[0], -offset[1], -offset[2])))
    k, j, i = np.add(inside.start_kji, offset).tolist()
    return pack_mask(mask[inside.slices], (k, j, i))
