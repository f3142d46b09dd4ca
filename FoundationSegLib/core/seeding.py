"""One model's result as what another starts from: masks that come before all other prompts of a segment."""

from collections.abc import Sequence

from .prompts import MaskPrompt, PromptSet, SegmentPrompts
from .requests import Prediction

_RESULT = "result"  # mask prompts name a file; the voxels of these were never in any


def seeds_of(names: Sequence[str], prediction: Prediction) -> tuple[MaskPrompt, ...]:
    """What was found, as seeds; segments of which nothing was found are none.

    ``names`` are those of the segments, in the order in which they were asked for.
    """
    found = zip(names, prediction.segments, strict=True)
    return tuple(MaskPrompt(_RESULT, name, voxels=one.mask) for name, one in found if not one.mask.box.is_empty)


def seeded(prompts: PromptSet, seeds: Sequence[MaskPrompt]) -> PromptSet:
    """The same prompts, with the seed of the same name before those of each segment that has one.

    Where there are no prompts at all, each seed is a segment: the model is asked what it makes of it. Seeds of
    segments that are not prompted are left out otherwise: nobody asked for a change of them.
    """
    if not prompts.segments:
        return PromptSet(tuple(SegmentPrompts(seed.segment, (seed,)) for seed in seeds), prompts.space)
    by_name = {seed.segment: seed for seed in seeds}
    segments = tuple(
        SegmentPrompts(one.name, (by_name[one.name], *one.prompts)) if one.name in by_name else one
        for one in prompts.segments
    )
    return PromptSet(segments, prompts.space)
