"""All prompts of a segmentation at once: into the values of a prompts file, and out of them, where no session is.

A session has its own (:func:`..core.objects.import_prompts`, :func:`..core.objects.export_prompts`), which also ask.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..core.errors import InputError
from ..core.geometry import Geometry
from ..core.placement import prompts_in_ras
from ..core.prompts import PromptSet, SegmentPrompts
from .prompt_records import KeptPrompt, read_record
from .scene_prompts import ScenePrompts


def prompts_from_nodes(segmentation_node: Any) -> PromptSet:
    """The prompts of every segment that keeps some, in Slicer's order, RAS in mm.

    Raises:
        InputError: there are none, or two segments with prompts have one name: a prompts file cannot tell them apart.
        PromptError: what a segment keeps is damaged.
    """
    segmentation = segmentation_node.GetSegmentation()
    found: dict[str, SegmentPrompts] = {}
    for segment_id in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segment_id)
        prompts = tuple(kept.prompt for kept in read_record(segment).prompts)
        name = segment.GetName()
        if prompts and name in found:
            raise InputError(f"two segments are called '{name}': rename one of them first")
        if prompts:
            found[name] = SegmentPrompts(name, prompts)
    if not found:
        raise InputError(f"no segment of '{segmentation_node.GetName()}' has prompts")
    return PromptSet(tuple(found.values()))


def prompts_to_nodes(
    prompts: PromptSet, geometry: Geometry, scene_prompts: ScenePrompts, segment_id_of: Callable[[str], str]
) -> dict[str, str]:
    """Give segments the prompts of a prompts file in place of their own, and draw them; model and settings stay.

    Args:
        prompts: in RAS or in voxels.
        geometry: the image.
        scene_prompts: of the segmentation.
        segment_id_of: the id of the segment of a name; it makes one where there is none, as
            ``SegmentWriter.add_segment`` does.

    Returns:
        Segment ids by name.
    """
    ids = {}
    for segment in prompts_in_ras(prompts, geometry).segments:
        segment_id = segment_id_of(segment.name)
        kept = tuple(KeptPrompt(str(n), prompt) for n, prompt in enumerate(segment.prompts, start=1))
        scene_prompts.set_record(segment_id, replace(scene_prompts.record(segment_id), prompts=kept))
        ids[segment.name] = segment_id
    return ids


def segment_id_by_name(segmentation_node: Any, name: str) -> str | None:
    """The id of the first segment of that name, or None."""
    segmentation = segmentation_node.GetSegmentation()
    return next((key for key in segmentation.GetSegmentIDs() if segmentation.GetSegment(key).GetName() == name), None)
