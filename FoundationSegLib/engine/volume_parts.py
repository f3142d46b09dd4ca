"""From prompts in space to what they say about a volume, in its voxels."""

from collections.abc import Sequence

from ..errors import PromptError
from ..imaging.geometry import Geometry
from ..models.protocols import VolumeBox, VolumePart, VolumePoint, VolumePrompt, VolumeVoxels, VolumeWords
from ..prompts.drawing import lasso_voxels, scribble_voxels
from ..prompts.kinds import (
    BoxPrompt,
    ClassPrompt,
    LassoPrompt,
    MaskPrompt,
    PointPrompt,
    Polarity,
    Prompt,
    ScribblePrompt,
    prompt_kind,
)
from ..prompts.placement import place_box, require_inside, require_voxels


def place_in_volume(prompts: Sequence[Prompt], places: Sequence[str], geometry: Geometry) -> VolumePrompt:
    """Prompts in RAS as what they say about a volume.

    Args:
        prompts: of one segment, of kinds that the model understands.
        places: where each stands in its document.
        geometry: the image.

    Raises:
        PromptError: a prompt lies outside the image, or nothing says where the segment is.
    """
    for prompt, place in zip(prompts, places, strict=True):
        require_inside(prompt, geometry, place)
    parts = tuple(_part(prompt, geometry, place) for prompt, place in zip(prompts, places, strict=True))
    if not any(part.positive for part in parts):
        kind = prompt_kind(prompts[0])
        raise PromptError(f"a negative {kind} alone does not say where the segment is", f"{places[0]}.polarity")
    return VolumePrompt(parts)


def _part(prompt: Prompt, geometry: Geometry, place: str) -> VolumePart:
    positive = prompt.polarity is Polarity.POSITIVE
    if isinstance(prompt, PointPrompt):
        i, j, k = geometry.nearest_voxel(prompt.position).tolist()
        return VolumePoint((k, j, i), positive, place)
    if isinstance(prompt, BoxPrompt):
        return VolumeBox(place_box(prompt, geometry, place).box, positive, place)
    if isinstance(prompt, ScribblePrompt):
        return VolumeVoxels("scribble", scribble_voxels(prompt, geometry, place), positive, place)
    if isinstance(prompt, LassoPrompt):
        return VolumeVoxels("lasso", lasso_voxels(prompt, geometry, place), positive, place)
    if isinstance(prompt, MaskPrompt):
        return VolumeVoxels("mask", require_voxels(prompt, geometry, place), positive, place)
    if isinstance(prompt, ClassPrompt):
        return VolumeWords("class", prompt.name, positive, place)
    return VolumeWords("text", prompt.text, positive, place)
