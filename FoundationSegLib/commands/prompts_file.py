"""Reading a prompts file: JSON, decoded strictly."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import GeometryError, InputError, PromptError
from ..core.geometry import Geometry, whole_box
from ..core.mask import pack_mask
from ..core.prompts import MaskPrompt, Prompt, PromptSet
from ..core.prompts_document import parse_prompts

_MOST_DIGITS = 400  # more than any finite number has


def read_prompts(path: Path) -> PromptSet:
    """The prompts of a file.

    Raises:
        InputError: the file cannot be read.
        PromptError: it is no JSON, or not of the form that the README describes; the message names the place.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name}: is not a text file") from error
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read: {error.strerror or error}") from error
    try:
        return parse_prompts(_decode(text))
    except PromptError as error:
        raise PromptError(f"{path.name}: {error}") from error


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
    from ..io.segmentations import read_mask_prompt

    try:
        mask, grid = read_mask_prompt(folder / prompt.file, prompt.segment)
    except (InputError, GeometryError) as error:
        raise PromptError(str(error), f"{place}.file") from error
    offset = geometry.offset_of(grid)  # a segmentation is often saved without its empty margin
    if offset is None:
        raise PromptError("the mask is not on the grid of the image; resample it to the image first", f"{place}.file")
    inside = whole_box(mask.shape).intersection(geometry.box.shifted((-offset[0], -offset[1], -offset[2])))
    k, j, i = np.add(inside.start_kji, offset).tolist()
    return replace(prompt, voxels=pack_mask(mask[inside.slices], (k, j, i)))


def _decode(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_without_twins, parse_int=_whole_number)
    except (ValueError, RecursionError) as error:
        raise PromptError(f"is no JSON: {error}") from error


def _whole_number(digits: str) -> float:
    """Python refuses to read thousands of digits as a whole number; as a real one they are infinite, and named so."""
    return int(digits) if len(digits) < _MOST_DIGITS else float(digits)


def _without_twins(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """JSON allows a field twice and keeps the last: here that would lose a prompt without a word."""
    document: dict[str, Any] = {}
    for name, value in pairs:
        if name in document:
            raise PromptError(f"the field {name!r} stands twice in one object")
        document[name] = value
    return document
