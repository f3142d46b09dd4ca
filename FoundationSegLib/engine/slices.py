"""Slices of a volume: prompts placed on them, turned as a radiologist sees them, and stacked to a mask again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import PromptError
from ..imaging.geometry import AXES, Axis, Geometry, array_axis
from ..imaging.masks import EMPTY_MASK, PackedMask, pack_mask
from ..imaging.volume import Volume
from ..models.protocols import BoxXyxy, SliceMask, SlicePoint, SlicePrompt
from ..prompts.kinds import BoxPrompt, MaskPrompt, PointPrompt, Polarity, Prompt
from ..prompts.oblique import ViewGrid
from ..prompts.placement import mask_axis, place_box, require_inside, require_voxels, slice_axis

T = TypeVar("T")

PromptPart = BoxXyxy | SlicePoint | SliceMask

# Where columns and rows lead in RAS, by the direction that the slice faces: left is to the right of the image,
# posterior or inferior is below; a sagittal slice has anterior to its left.
_RADIOLOGICAL = {
    "R": ((0.0, -1.0, 0.0), (0.0, 0.0, -1.0)),
    "A": ((-1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "S": ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
}


@dataclass(frozen=True, slots=True)
class PartOnSlice:
    """A prompt's part on slice number ``index`` across ``axis``, in the pixels of the slice.

    ``location`` is where the prompt stands in its document, for messages.
    """

    axis: Axis
    index: int
    part: PromptPart
    location: str


@dataclass(frozen=True, slots=True)
class StackedBox:
    """A 3-D box: the same rectangle on each of the slices across its axis."""

    axis: Axis
    slices: range
    box: BoxXyxy


@dataclass(frozen=True, slots=True)
class SlicePrompts:
    """The prompts of a segment on slices: 3-D boxes, and parts in the order in which they were given."""

    boxes: tuple[StackedBox, ...]
    parts: tuple[PartOnSlice, ...]

    @property
    def axes(self) -> set[Axis]:
        """The axes across whose slices the prompts lie."""
        return set(map(attrgetter("axis"), (*self.boxes, *self.parts)))

    @property
    def last(self) -> tuple[Axis, range]:
        """The slices of the last prompt, near which the next one is likely."""
        if self.parts:
            return self.parts[-1].axis, range(self.parts[-1].index, self.parts[-1].index + 1)
        return self.boxes[-1].axis, self.boxes[-1].slices


def place_on_slices(
    prompts: Sequence[Prompt], locations: Sequence[str], geometry: Geometry
) -> tuple[SlicePrompts, list[int]]:
    """Place prompts, RAS in mm, on slices; return them with the numbers of those that were clipped to the image.

    Args:
        prompts: those of one segment, of kinds that the model understands.
        locations: where each stands in its document.
        geometry: the image.

    Raises:
        PromptError: a prompt lies outside the image, belongs to no single slice, or is of a kind that no slice has.
    """
    boxes: list[StackedBox] = []
    parts: list[PartOnSlice] = []
    clipped: list[int] = []
    for n, (prompt, location) in enumerate(zip(prompts, locations, strict=True)):
        if prompt.polarity is Polarity.NEGATIVE and not isinstance(prompt, PointPrompt):
            raise PromptError(f"a negative {prompt.kind} says nothing on a slice", f"{location}.polarity")
        if isinstance(prompt, BoxPrompt):
            placed = place_box(prompt, geometry, location)
            if placed.clipped:
                clipped.append(n)
            thin, start, stop = array_axis(placed.axis), placed.box.start_kji, placed.box.stop_kji
            row, column = (0 if thin else 1), (1 if thin == 2 else 2)
            corners = start[column], start[row], stop[column] - 1, stop[row] - 1
            if placed.is_2d:
                parts.append(PartOnSlice(placed.axis, start[thin], corners, location))
            else:
                boxes.append(StackedBox(placed.axis, placed.slices, corners))
        elif isinstance(prompt, PointPrompt):
            parts.append(_point_part(prompt, geometry, location))
        elif isinstance(prompt, MaskPrompt):
            parts += _mask_parts(prompt, geometry, location)
        else:
            raise PromptError(f"a {prompt.kind} says nothing on a slice", f"{location}.type")
    return SlicePrompts(tuple(boxes), tuple(parts)), clipped


def _point_part(prompt: PointPrompt, geometry: Geometry, location: str) -> PartOnSlice:
    """A click counts by the voxel that it lies in."""
    require_inside(prompt, geometry, location)
    axis = slice_axis(prompt, location)
    voxel_ijk = geometry.nearest_voxel(prompt.position).tolist()
    index = voxel_ijk.pop(AXES.index(axis))
    x, y = map(float, voxel_ijk)
    return PartOnSlice(axis, index, SlicePoint(x, y, prompt.polarity is Polarity.POSITIVE), location)


def _mask_parts(prompt: MaskPrompt, geometry: Geometry, location: str) -> Iterator[PartOnSlice]:
    """A mask speaks on every slice across its axis that it has voxels on."""
    voxels = require_voxels(prompt, geometry, location)
    axis = mask_axis(voxels)
    n = array_axis(axis)
    others = [other for other in range(3) if other != n]
    for index, mask in enumerate(np.moveaxis(voxels.unpack(), n, 0), start=voxels.box.start_kji[n]):
        if mask.any():
            whole = np.zeros([geometry.shape_kji[other] for other in others], np.bool_)
            whole[tuple(voxels.box.slices[other] for other in others)] = mask
            yield PartOnSlice(axis, index, SliceMask.pack(whole), location)


def extent(part: PromptPart) -> BoxXyxy | None:
    """Return the box around a box or a mask; None for a point or an empty mask, which have no extent."""
    if not isinstance(part, SliceMask):
        return None if isinstance(part, SlicePoint) else part
    rows, columns = np.nonzero(part.unpack())
    if not rows.size:
        return None
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def has_positive(points: Sequence[SlicePoint]) -> bool:
    """Return True where a point says that the object is there."""
    return any(point.positive for point in points)


def prompt_stages(parts: Sequence[PromptPart]) -> tuple[SlicePrompt, ...]:
    """Return the prompt as it grew part by part, from where it says where the object is; the last has all parts.

    A box takes the place of an earlier one, masks are joined.
    """
    stages: list[SlicePrompt] = []
    box, points, mask = None, (), None
    for part in parts:
        if isinstance(part, SlicePoint):
            points = (*points, part)
        elif isinstance(part, SliceMask):
            mask = part if mask is None else SliceMask.pack(mask.unpack() | part.unpack())
        else:
            box = part
        if box is not None or mask is not None or has_positive(points):
            stages.append(SlicePrompt(box, points, mask))
    return tuple(stages)


@dataclass(frozen=True, slots=True)
class SliceOrientation:
    """How a stored slice is turned before a model sees it: rows and columns exchanged first, then either reversed.

    A step of -1 stands for reversed rows or columns.
    """

    transposed: bool = False
    row_step: Literal[1, -1] = 1
    column_step: Literal[1, -1] = 1

    def turn(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Turn a stored slice, (rows, columns) or (rows, columns, 3), as it is seen; contiguous."""
        turned = stored.swapaxes(0, 1) if self.transposed else stored
        return np.ascontiguousarray(turned[:: self.row_step, :: self.column_step])

    def turn_back(self, turned: NDArray[Any]) -> NDArray[Any]:
        """Return the stored slice that looks like this."""
        stored = turned[:: self.row_step, :: self.column_step]
        return np.ascontiguousarray(stored.swapaxes(0, 1) if self.transposed else stored)

    def turn_box(self, box: BoxXyxy, shape: tuple[int, int]) -> BoxXyxy:
        """Turn a box of a stored slice of (rows, columns) voxels; both corners are inside the box."""
        x0, y0, x1, y1 = box
        rows, columns = shape
        if self.transposed:
            x0, y0, x1, y1, rows, columns = y0, x0, y1, x1, columns, rows
        if self.row_step < 0:
            y0, y1 = rows - 1 - y1, rows - 1 - y0
        if self.column_step < 0:
            x0, x1 = columns - 1 - x1, columns - 1 - x0
        return x0, y0, x1, y1

    def turn_points(self, points: Sequence[SlicePoint], shape: tuple[int, int]) -> tuple[SlicePoint, ...]:
        """Turn points of a stored slice of (rows, columns) voxels."""
        corners = [self.turn_box((point.x, point.y, point.x, point.y), shape) for point in points]
        return tuple(SlicePoint(x, y, point.positive) for (x, y, _, _), point in zip(corners, points, strict=True))

    def turn_prompt(self, prompt: SlicePrompt, shape: tuple[int, int]) -> SlicePrompt:
        """Turn a prompt on a stored slice of (rows, columns) voxels."""
        return SlicePrompt(
            prompt.box and self.turn_box(prompt.box, shape),
            prompt.points and self.turn_points(prompt.points, shape),
            prompt.mask and SliceMask.pack(self.turn(prompt.mask.unpack())),
        )


AS_STORED = SliceOrientation()


def is_rising(geometry: Geometry, axis: Axis) -> bool:
    """Return True where slice numbers across an axis rise towards the right, the front or the head."""
    direction = geometry.ijk_to_ras[:3, AXES.index(axis)]
    return bool(direction[np.argmax(np.abs(direction))] > 0)


def radiological(geometry: Geometry, axis: Axis) -> SliceOrientation:
    """Return how slices across an axis are turned to look as on a radiologist's screen, to the nearest quarter turn.

    Medical models were trained on such slices, however a volume is stored. Oblique slices are turned like the
    anatomical ones that they are nearest to.
    """
    linear = geometry.ijk_to_ras[:3, :3]
    directions = list((linear / np.linalg.norm(linear, axis=0)).T)
    del directions[AXES.index(axis)]
    along, across = directions  # of a slice's columns and of its rows
    facing = "RAS"[int(np.argmax(np.abs(np.cross(along, across))))]
    right, down = np.array(_RADIOLOGICAL[facing])
    transposed = abs(across @ right) + abs(along @ down) > abs(along @ right) + abs(across @ down)
    if transposed:
        along, across = across, along
    return SliceOrientation(bool(transposed), -1 if across @ down < 0 else 1, -1 if along @ right < 0 else 1)


def slice_of(volume: Volume, axis: Axis, index: int) -> NDArray[np.generic]:
    """Return a view of one slice, (rows, columns) or (rows, columns, 3): the remaining axes in array order."""
    return volume.array_kji[(*(slice(None),) * array_axis(axis), index)]


class ReformattedVolume(Volume):
    """An image in the grid of an oblique view: each slice is reformatted when it is looked at, and not kept."""

    array_kji: Any

    @classmethod
    def of(cls, volume: Volume, grid: ViewGrid) -> "ReformattedVolume":
        """Return an image as it looks in an oblique view."""
        return cls(_ReformattedSlices(volume, grid), grid.geometry)

    @property
    def key(self) -> str:
        """The key of the image, and the grid."""
        return self.array_kji.key


@dataclass(frozen=True, slots=True)
class _ReformattedSlices:
    """The voxels of an image at the places of another grid, slice by slice: linear between voxels, dark outside."""

    volume: Volume
    grid: ViewGrid

    @property
    def shape(self) -> tuple[int, ...]:
        return *self.grid.geometry.shape_kji, *self.volume.array_kji.shape[3:]

    @property
    def ndim(self) -> int:
        return self.volume.array_kji.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.volume.array_kji.dtype

    @property
    def key(self) -> str:
        return f"{self.volume.key}/{self.grid.geometry.ijk_to_ras[:3].tobytes().hex()}"

    def __getitem__(self, index: tuple[int]) -> NDArray[np.generic]:
        from scipy import ndimage

        (number,), array = index, self.volume.array_kji
        to_image = self.grid.to_image
        matrix, shift = to_image[2::-1, 2::-1], to_image[2::-1, 2] * number + to_image[2::-1, 3]
        seen = np.empty(self.shape[1:], array.dtype)
        for colour in np.ndindex(array.shape[3:]):
            seen[(..., *colour)] = ndimage.affine_transform(
                array[(..., *colour)], matrix, shift, (1, *self.shape[1:3]), order=1, mode="nearest"
            )[0]
        lowest = np.iinfo(array.dtype).min if array.dtype.kind in "iu" else np.finfo(array.dtype).min
        seen[~self.grid.in_image(number)] = lowest
        return seen


def stack_slices(axis: Axis, slices: Mapping[int, NDArray[np.bool_]]) -> PackedMask:
    """Stack stored slices across an axis, by their number, to a mask; all other slices are empty."""
    if not slices:
        return EMPTY_MASK
    n, low, high = array_axis(axis), min(slices), max(slices)
    planes = np.zeros((high - low + 1, *slices[low].shape), np.bool_)
    for index, mask in slices.items():
        planes[index - low] = mask
    return pack_mask(np.moveaxis(planes, 0, n), (low if n == 0 else 0, low if n == 1 else 0, low if n == 2 else 0))


def spread(items: Sequence[T], most: int) -> list[T]:
    """Return at most so many items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[n] for n in np.linspace(0, len(items) - 1, most).round().astype(int)]
