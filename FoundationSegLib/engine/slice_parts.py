"""From prompts in space to what they say on the slices of a volume, in the pixels of the slice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import PromptError
from ..imaging.geometry import AXES, Axis, Geometry, array_axis
from ..models.protocols import BoxXyxy, SliceMask, SlicePoint, SlicePrompt
from ..prompts.kinds import BoxPrompt, MaskPrompt, PointPrompt, Polarity, Prompt, prompt_kind
from ..prompts.placement import (
    PlacedBox,
    mask_axis,
    place_box,
    require_inside,
    require_voxels,
    slice_axis,
    slice_number,
)

PartOfPrompt = BoxXyxy | SlicePoint | SliceMask


@dataclass(frozen=True, slots=True)
class SlicePart:
    """What one prompt says on one slice: number ``index`` across ``axis``.

    ``place`` is where the prompt stands in its document, for messages.
    """

    axis: Axis
    index: int
    part: PartOfPrompt
    place: str


@dataclass(frozen=True, slots=True)
class VolumeBox:
    """A 3-D box: the same rectangle on each of the slices across its axis."""

    axis: Axis
    slices: range
    box: BoxXyxy


@dataclass(frozen=True, slots=True)
class Placed:
    """The prompts of a segment: 3-D boxes, and parts on slices in the order in which they were given."""

    volume_boxes: tuple[VolumeBox, ...]
    parts: tuple[SlicePart, ...]

    @property
    def axes(self) -> set[Axis]:
        """The axes across whose slices the prompts lie."""
        return {one.axis for one in (*self.volume_boxes, *self.parts)}

    @property
    def last(self) -> tuple[Axis, range]:
        """The slices that the last prompt is on, for a guess of where the next one will be."""
        if self.parts:
            return self.parts[-1].axis, range(self.parts[-1].index, self.parts[-1].index + 1)
        return self.volume_boxes[-1].axis, self.volume_boxes[-1].slices


def place_prompts(prompts: Sequence[Prompt], places: Sequence[str], geometry: Geometry) -> Placed:
    """Prompts in RAS as what they say on slices.

    Raises:
        PromptError: a prompt lies outside the image, belongs to no single slice, or is of a kind that no slice has.
    """
    boxes: list[VolumeBox] = []
    parts: list[SlicePart] = []
    for prompt, place in zip(prompts, places, strict=True):
        if prompt.polarity is Polarity.NEGATIVE and not isinstance(prompt, PointPrompt):
            raise PromptError(f"a negative {prompt_kind(prompt)} says nothing on a slice", f"{place}.polarity")
        if isinstance(prompt, BoxPrompt):
            placed = place_box(prompt, geometry, place)
            if placed.is_2d:
                parts.append(SlicePart(placed.axis, placed.slices.start, rectangle(placed), place))
            else:
                boxes.append(VolumeBox(placed.axis, placed.slices, rectangle(placed)))
        elif isinstance(prompt, PointPrompt):
            parts.append(_point(prompt, geometry, place))
        elif isinstance(prompt, MaskPrompt):
            parts += _mask_slices(prompt, geometry, place)
        else:
            raise PromptError(f"a {prompt_kind(prompt)} says nothing on a slice", f"{place}.type")
    return Placed(tuple(boxes), tuple(parts))


def rectangle(placed: PlacedBox) -> BoxXyxy:
    """A box in the pixels of its slices: x along the later array axis, y along the earlier; corners inside."""
    rows, columns = (axis for axis in range(3) if axis != array_axis(placed.axis))
    start, stop = placed.box.start_kji, placed.box.stop_kji
    return start[columns], start[rows], stop[columns] - 1, stop[rows] - 1


def _point(prompt: PointPrompt, geometry: Geometry, place: str) -> SlicePart:
    """A click counts by the voxel that it lies in."""
    require_inside(prompt, geometry, place)
    axis = slice_axis(prompt, place)
    index = slice_number((prompt.position,), axis, geometry, f"{place}.position")
    voxel = geometry.nearest_voxel(prompt.position)
    x, y = (float(voxel[n]) for n in range(3) if n != AXES.index(axis))
    return SlicePart(axis, index, SlicePoint(x, y, prompt.polarity is Polarity.POSITIVE), place)


def _mask_slices(prompt: MaskPrompt, geometry: Geometry, place: str) -> Iterator[SlicePart]:
    """A mask speaks on every slice across its axis that it has voxels on."""
    voxels = require_voxels(prompt, geometry, place)
    axis = mask_axis(voxels)
    n = array_axis(axis)
    others = [other for other in range(3) if other != n]
    for index, mask in enumerate(np.moveaxis(voxels.unpack(), n, 0), start=voxels.box.start_kji[n]):
        if mask.any():
            whole = np.zeros([geometry.shape_kji[other] for other in others], np.bool_)
            whole[tuple(voxels.box.slices[other] for other in others)] = mask
            yield SlicePart(axis, index, SliceMask.pack(whole), place)


def with_part(prompt: SlicePrompt, part: PartOfPrompt) -> SlicePrompt:
    """A prompt with one part more; a box takes the place of an earlier one, masks are joined."""
    if isinstance(part, SlicePoint):
        return SlicePrompt(prompt.box, (*prompt.points, part), prompt.mask)
    if isinstance(part, SliceMask):
        known = part if prompt.mask is None else SliceMask.pack(prompt.mask.unpack() | part.unpack())
        return SlicePrompt(prompt.box, prompt.points, known)
    return SlicePrompt(part, prompt.points, prompt.mask)


def extent(part: PartOfPrompt) -> BoxXyxy | None:
    """Where a box or a mask says that the object is; None for what says nothing of its extent."""
    if not isinstance(part, SliceMask):
        return None if isinstance(part, SlicePoint) else part
    rows, columns = np.nonzero(part.unpack())
    if not rows.size:
        return None
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def is_answerable(prompt: SlicePrompt) -> bool:
    """True where the prompt says where the object is, and not only where it is not."""
    return prompt.box is not None or prompt.mask is not None or any(point.positive for point in prompt.points)


def grown(parts: Sequence[PartOfPrompt]) -> tuple[SlicePrompt, ...]:
    """The prompt as it grew part by part, as far as each stage could be answered; the last has all of them."""
    stages: list[SlicePrompt] = []
    prompt = SlicePrompt()
    for part in parts:
        prompt = with_part(prompt, part)
        if is_answerable(prompt):
            stages.append(prompt)
    return tuple(stages)
