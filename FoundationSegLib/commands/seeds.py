"""`--seed-from`: the segments of a file that a model starts from."""

from pathlib import Path

from ..catalog.class_lists import listed
from ..errors import InputError
from ..prompts.kinds import MaskPrompt, PromptSet
from ..requests.segmentation import seeded
from .interrupts import interrupts_wait


def with_seeds(prompts: PromptSet, path: Path | None) -> PromptSet:
    """The prompts with the segments of a file as their seeds, whose voxels are still to be read.

    Raises:
        InputError: the file cannot be read, or none of its segments is prompted.
    """
    if path is None:
        return prompts
    with interrupts_wait():
        from ..io.segmentations import segment_names

    names = segment_names(path)
    found = seeded(prompts, [MaskPrompt(str(path.absolute()), name) for name in names])
    if prompts.segments and found == prompts:
        prompted = listed([segment.name for segment in prompts.segments])
        raise InputError(f"{path.name} has no segment that is prompted; it has: {listed(names)}; not: {prompted}")
    return found
