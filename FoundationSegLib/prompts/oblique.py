"""Oblique views: the grid of planes at an angle to the image's axes, prompts on it, and masks back on the image."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..codec import frozen
from ..errors import InputError, PromptError
from ..imaging.geometry import AXES, EMPTY_BOX, Axis, Box, Geometry, Vector, as_vector, round_index
from ..imaging.masks import EMPTY_MASK, PackedMask, connected_part, pack_mask
from .kinds import BoxPrompt, ObliquePlane, PointPrompt, Prompt, SegmentPrompts
from .placement import positions_location, prompt_positions, require_inside
from .prompts_file import join_location

# A plane shows the slices of an axis where, from one end of the volume to the other, it leaves a slice by at most this
# part of the distance to the next. Directions rounded to six decimals, as in DICOM, leave it by 0.005 at most in a
# thousand voxels; a view turned by a tenth of a degree shows other voxels than the slice (0.9 in 512 cubic ones).
PARALLEL_VOXELS = 0.01

_DIRECTION_DECIMALS = 6  # of a direction: views that differ by rounding errors alone share a grid
_MATRIX_DECIMALS = 9  # a thousand voxels away that is a millionth of one
_ROUNDING = 1e-6  # of a pixel or slice; a plane just between two slices belongs to the higher one
_LARGEST_SLICE = 2**24  # pixels; models see a million at most, and each takes up to 40 bytes on its way there
_FEWEST_ACROSS = 4  # pixels; a model cannot tell a shape in a narrower strip


def image_axis(plane: ObliquePlane, geometry: Geometry) -> Axis | None:
    """The axis whose slices a plane shows along the other two axes, to :data:`PARALLEL_VOXELS`; None for others."""
    right, up = (geometry.ras_to_ijk[:3, :3] @ vector for vector in (np.cross(plane.up, plane.normal), plane.up))
    axis = parallel_axis(np.cross(right, up), geometry)
    return axis if axis is not None and parallel_axis(up, geometry) is not None else None


def parallel_axis(direction_ijk: NDArray[np.float64], geometry: Geometry) -> Axis | None:
    """The axis that a direction in voxel indices runs along, all through the image; None for none."""
    share = np.abs(direction_ijk)
    n = int(np.argmax(share))
    others = [m for m in range(3) if m != n]
    deviation = share[others] / share[n] @ np.array(geometry.shape_kji[::-1])[others]
    return AXES[n] if deviation <= PARALLEL_VOXELS else None


@frozen
class ViewGrid:
    """The grid in which an image is seen in oblique planes of one orientation.

    i runs across the view and j down, in square pixels of the image's finest spacing. k runs along the normal, towards
    the right, the front or the head, in steps of one voxel; of a view that is turned within the image's slices it has
    these slices.

    Attributes:
        image: the grid of the image.
        geometry: the grid of the view; it covers the image.
    """

    image: Geometry
    geometry: Geometry

    @property
    def description(self) -> str:
        """The size of the grid, for notes."""
        (slices, rows, columns), (pixel_mm, _, slice_mm) = self.geometry.shape_kji, self.geometry.spacing_mm
        return f"{columns} x {rows} pixels of {pixel_mm:.3g} mm, {slices} slices {slice_mm:.3g} mm apart"

    @property
    def nearest_axis(self) -> Axis:
        """The axis of the image whose slices are most like those of the view."""
        return AXES[int(np.argmax(np.abs(self.image.ras_to_ijk[:3, :3] @ self.geometry.ijk_to_ras[:3, 2])))]

    @property
    def to_view(self) -> NDArray[np.float64]:
        """The (4, 4) matrix from voxels of the image to pixels and slices of the view.

        Rounded, as :attr:`to_image` is, so that an image which was saved and read has the same answer.
        """
        return np.round(self.geometry.ras_to_ijk @ self.image.ijk_to_ras, _MATRIX_DECIMALS)

    @property
    def to_image(self) -> NDArray[np.float64]:
        """The (4, 4) matrix from pixels and slices of the view to voxels of the image."""
        return np.round(self.image.ras_to_ijk @ self.geometry.ijk_to_ras, _MATRIX_DECIMALS)

    def depth(self, plane: ObliquePlane) -> float:
        """Where a plane lies along the normal, in slices."""
        return float(self.geometry.to_ijk(plane.origin)[2])

    def slice_number(self, plane: ObliquePlane) -> int:
        """The slice nearest to a plane."""
        return int(round_index(self.depth(plane) + _ROUNDING))

    def reach(self, *planes: ObliquePlane) -> dict[int, tuple[float, float]]:
        """How far planes lie off their slices: the lowest and the highest, in slices, by the numbers of these."""
        reach: dict[int, tuple[float, float]] = {}
        for plane in planes:
            number = self.slice_number(plane)
            off = self.depth(plane) - number
            low, high = reach.get(number, (off, off))
            reach[number] = min(low, off), max(high, off)
        return reach

    def on_slice(self, prompt: Prompt, plane: ObliquePlane, location: str = "") -> Prompt:
        """A prompt that lies in a plane, on the slice of this grid that is nearest to it.

        Raises:
            PromptError: it lies outside the image or off its plane.
        """
        require_inside(prompt, self.image, location)
        index_ijk = self.geometry.to_ijk(prompt_positions(prompt))
        furthest = float(np.abs(index_ijk[:, 2] - self.depth(plane)).max())
        if furthest > 0.5 + _ROUNDING:
            away = f"{furthest * self.geometry.spacing_mm[2]:.1f} mm"
            raise PromptError(f"a position lies {away} off the plane", join_location(location, "plane"))
        index_ijk = np.round(index_ijk, 6) + 3 * _ROUNDING / 10  # so that no position lies just between two pixels
        index_ijk[:, 2] = self.slice_number(plane)
        positions = [as_vector(position) for position in self.geometry.to_ras(index_ijk)]
        if isinstance(prompt, PointPrompt):
            return replace(prompt, position=positions[0], plane="k")
        if isinstance(prompt, BoxPrompt):
            return replace(prompt, corners=(positions[0], positions[1]), plane="k")
        return replace(prompt, points=tuple(positions), plane="k")

    def in_image(self, number: int) -> NDArray[np.bool_]:
        """The pixels of a slice, (rows, columns), that lie in the image."""
        to_image = self.to_image
        _, rows, columns = self.geometry.shape_kji
        y, x = np.arange(rows)[:, None], np.arange(columns)[None]
        inside = np.ones((rows, columns), np.bool_)
        for (across, down, deep, shift), size in zip(to_image[:3], self.image.shape_kji[::-1], strict=True):
            index = across * x + down * y + (deep * number + shift)
            inside &= (index >= -0.5 - _ROUNDING) & (index <= size - 0.5 + _ROUNDING)
        return inside

    def require_visible(self, number: int, location: str) -> None:
        """Make sure that a model can see something in a slice.

        Raises:
            PromptError: it lies beside the image, or cuts next to nothing out of it.
        """
        inside = self.in_image(number)
        rows, columns = (int(np.count_nonzero(inside.any(axis=axis))) for axis in (1, 0))
        if not rows:
            raise PromptError("the plane does not cut the image: draw in a view that does", location)
        if np.count_nonzero(inside) / max(rows, columns) < _FEWEST_ACROSS:
            width, height = (f"{count * self.geometry.spacing_mm[0]:.1f}" for count in (columns, rows))
            message = f"the plane cuts only a narrow strip out of the image ({width} x {height} mm), in which no model"
            raise PromptError(f"{message} can see a shape: draw in a view that shows more of it", location)

    def near(self, plane: ObliquePlane, box: Box) -> NDArray[np.bool_]:
        """The voxels of a box of the image that a plane goes through, (K, J, I)."""
        return np.abs(self._depth(box) - self.depth(plane)) <= self._half_voxel

    def written_back(self, mask: PackedMask, reach: Mapping[int, tuple[float, float]] | None = None) -> PackedMask:
        """The voxels of the image whose centres lie nearest to the pixels of a mask on this grid.

        Seen along the normal: a slice reaches half a voxel to either side, unless another one with pixels is nearer, so
        that nothing is left out that it goes through. Holes that the mask of a single slice has not are closed, and one
        that is smaller than the distance between voxels gets those that its pixels lie in.

        Args:
            mask: on this grid.
            reach: of slices beside which somebody drew (:meth:`reach`): they are written where those planes go through,
                which else would show holes; and in between, where the next slice has pixels, too.
        """
        box = self._reach(mask.box) if not mask.box.is_empty else EMPTY_BOX
        if box.is_empty:
            return EMPTY_MASK
        pixels, start_k = mask.unpack(), mask.box.start_kji[0]
        filled = np.flatnonzero(pixels.any(axis=(1, 2))) + start_k
        between = (filled[1:] + filled[:-1]) / 2
        offsets = np.array([(reach or {}).get(number, (0.0, 0.0)) for number in filled.tolist()])
        is_alone = ~(np.isin(filled - 1, filled) | np.isin(filled + 1, filled))
        offsets[~is_alone] = np.sort(np.column_stack([offsets, np.zeros(len(filled))]))[~is_alone][:, [0, 2]]
        to_view, half = self.to_view, self._half_voxel
        lowest, highest = filled + offsets[:, 0] - half, filled + offsets[:, 1] + half
        voxels = np.zeros(box.shape_kji, np.bool_)
        for k in range(box.start_kji[0], box.stop_kji[0]):  # all at once would take gigabytes
            depth = self._depth(Box((k, *box.start_kji[1:]), (k + 1, *box.stop_kji[1:])))[0]
            j, i = np.nonzero((depth >= lowest[0]) & (depth <= highest[-1]))
            nearest = np.searchsorted(between, depth[j, i])
            is_reached = (depth[j, i] >= lowest[nearest]) & (depth[j, i] <= highest[nearest])
            index_kji = np.stack([np.full(len(j), k), j + box.start_kji[1], i + box.start_kji[2]], axis=1)
            columns, rows = round_index(index_kji[:, ::-1] @ to_view[:2, :3].T + to_view[:2, 3]).T
            at = np.stack([filled[nearest], rows, columns], axis=1) - mask.box.start_kji
            is_set = _inside(at, pixels.shape) & is_reached
            is_set[is_set] = pixels[tuple(at[is_set].T)]
            voxels[tuple((index_kji[is_set] - box.start_kji).T)] = True
        is_empty = not voxels.any()
        for number, off, alone in zip(filled.tolist(), offsets.tolist(), is_alone, strict=True):
            for distance in {*off} if is_empty or alone else ():
                start = (number + distance, *mask.box.start_kji[1:])
                self._close(voxels, box, pixels[number - start_k], start, is_empty)
        return pack_mask(voxels, box.start_kji)

    def _close(
        self, voxels: NDArray[np.bool_], box: Box, pixels: NDArray[np.bool_], first_kji: Vector, everything: bool
    ) -> None:
        """Set the voxels of a box where a view shows holes that its pixels have not, or all that have a pixel."""
        to_image = self.to_image
        margin = int(np.ceil(np.abs(np.linalg.inv(to_image[:3, :3])).sum(axis=1).max())) + 1
        drawn = np.pad(pixels, margin)
        rows, columns = np.indices(drawn.shape)
        first = (first_kji[2] - margin, first_kji[1] - margin, first_kji[0])
        index_ijk = np.stack([columns, rows, np.zeros_like(rows)], axis=-1).reshape(-1, 3) + first
        index_kji = round_index(index_ijk @ to_image[:3, :3].T + to_image[:3, 3])[:, ::-1] - box.start_kji
        is_inside = _inside(index_kji, voxels.shape)
        shown = is_inside.copy()
        shown[is_inside] = voxels[tuple(index_kji[is_inside].T)]
        missing = drawn if everything else _enclosed(shown.reshape(drawn.shape)) & ~_enclosed(drawn)
        voxels[tuple(index_kji[is_inside & missing.reshape(-1)].T)] = True

    def rectangle(self, box: Box, plane: ObliquePlane) -> PackedMask:
        """The voxels of the image in a box of pixels of this grid that was drawn in a plane."""
        return self.written_back(pack_mask(np.ones(box.shape_kji, np.bool_), box.start_kji), self.reach(plane))

    @property
    def _half_voxel(self) -> float:
        """Half the extent of a voxel of the image along the normal, in slices."""
        return float(np.abs(self.to_view[2, :3]).sum()) / 2 + _ROUNDING

    def _depth(self, box: Box) -> NDArray[np.float64]:
        """The slice numbers, not rounded, of the voxels in a box of the image, (K, J, I)."""
        across, down, deep, shift = self.to_view[2]
        k, j, i = (
            np.arange(start, stop, dtype=np.float64) for start, stop in zip(box.start_kji, box.stop_kji, strict=True)
        )
        return (deep * k + shift)[:, None, None] + (down * j)[:, None] + across * i

    def _reach(self, box: Box) -> Box:
        """The box of the image around a box of this grid, with what lies within half a voxel of its slices."""
        low, high = np.array(box.start_kji[::-1]) - 0.5, np.array(box.stop_kji[::-1]) - 0.5
        low[2] -= self._half_voxel + 0.5  # a plane lies half a slice off its own at most
        high[2] += self._half_voxel + 0.5
        reach = Box.around(self.image.to_ijk(self.geometry.to_ras(_corners(low, high))))
        return reach.grown((1, 1, 1)).intersection(self.image.box)


def _corners(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """The eight corners, (8, 3), of what lies between two."""
    return np.stack(np.meshgrid(*np.stack([low, high], axis=1)), axis=-1).reshape(-1, 3)


def _inside(index_kji: NDArray[np.int64], shape_kji: tuple[int, ...]) -> NDArray[np.bool_]:
    return ((index_kji >= 0) & (index_kji < shape_kji)).all(axis=1)


def _enclosed(pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels that are not set, and that nothing leads to from the corner."""
    free = pack_mask(~pixels[None])
    return ~pixels & ~connected_part(free, free.box, [(0, 0, 0)]).expand((1, *pixels.shape))[0]


def view_grid(plane: ObliquePlane, image: Geometry) -> ViewGrid:
    """The grid of all planes with the orientation of this one.

    Raises:
        InputError: a slice of it would be too large.
    """
    normal, up = (np.asarray(vector) / np.linalg.norm(vector) for vector in (plane.normal, plane.up))
    up = up - normal * (normal @ up)
    up = np.round(up / np.linalg.norm(up), _DIRECTION_DECIMALS)
    normal = np.round(normal, _DIRECTION_DECIMALS)
    normal /= np.linalg.norm(normal)
    up -= normal * (normal @ up)
    up /= np.linalg.norm(up)
    right = np.cross(up, normal)
    if normal[np.argmax(np.abs(normal))] < 0:
        normal = -normal
    sizes = np.array(image.shape_kji[::-1])
    pixel_mm = min(mm for mm, size in zip(image.spacing_mm, sizes, strict=True) if size > 1 or sizes.max() == 1)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([right, -up, normal], axis=1)
    matrix[:3, :2] *= pixel_mm
    matrix[:3, 2] /= np.linalg.norm(image.ras_to_ijk[:3, :3] @ normal)
    matrix[:3, 3] = image.to_ras((sizes - 1) // 2)
    corners = image.to_ras(_corners(np.full(3, -0.5), sizes - 0.5))
    extent = (corners - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T
    low = np.ceil(extent.min(axis=0) - _ROUNDING)
    columns, rows, slices = (np.floor(extent.max(axis=0) + _ROUNDING) - low + 1).astype(int).tolist()
    if rows * columns > _LARGEST_SLICE:
        size = f"{columns} x {rows} pixels of {pixel_mm:.3g} mm"
        message = f"the image has {size} in this oblique view, more than can be reformatted"
        raise InputError(f"{message}: limit the model to a region of interest")
    matrix[:3, 3] += matrix[:3, :3] @ low
    return ViewGrid(image, Geometry(matrix, (slices, rows, columns)))


def place_in_view(prompt: Prompt, image: Geometry, location: str = "") -> tuple[ViewGrid | None, Prompt]:
    """The grid of the view that a prompt was drawn in, and the prompt on that; None along the image's own slices.

    Raises:
        PromptError: it lies outside the image or off its plane.
        InputError: a slice of the grid would be too large.
    """
    plane = getattr(prompt, "plane", None)
    if not isinstance(plane, ObliquePlane):
        return None, prompt
    axis = image_axis(plane, image)
    if axis is not None:
        return None, replace(prompt, plane=axis)
    grid = view_grid(plane, image)
    return grid, grid.on_slice(prompt, plane, location)


@frozen
class ViewPart:
    """The prompts of a request that lie in planes of one orientation.

    Attributes:
        grid: the grid of these planes; None for the image's own.
        segments: the segments with such prompts, on that grid.
        numbers: of each of these segments its number in the request, and those of its prompts there.
        reaches: of each of these segments, how far its prompts were drawn off their slices (:meth:`ViewGrid.reach`).
    """

    grid: ViewGrid | None
    segments: tuple[SegmentPrompts, ...]
    numbers: tuple[tuple[int, tuple[int, ...]], ...]
    reaches: tuple[Mapping[int, tuple[float, float]], ...] = ()

    def in_request(self, text: str) -> str:
        """A message about these segments, with the numbers that segments and prompts have in the request."""

        def numbered(match: re.Match[str]) -> str:
            segment, prompts = self.numbers[int(match[1])]
            return f"segments[{segment}]" + (f".prompts[{prompts[int(match[2])]}]" if match[2] else "")

        return re.sub(r"segments\[(\d+)\](?:\.prompts\[(\d+)\])?", numbered, text)

    def masks(self, masks: Sequence[PackedMask], count: int) -> tuple[PackedMask, ...]:
        """Masks of these segments on the image's grid, among those of all the ``count`` segments of the request."""
        whole = [EMPTY_MASK] * count
        for n, (mask, (number, _)) in enumerate(zip(masks, self.numbers, strict=True)):
            whole[number] = mask if self.grid is None else self.grid.written_back(mask, self.reaches[n])
        return tuple(whole)


def views_of(segments: Sequence[SegmentPrompts], image: Geometry) -> list[ViewPart]:
    """The prompts of segments, RAS in mm, by the views that they were drawn in; that of the last prompt comes last.

    Raises:
        PromptError: a prompt lies outside the image or off its plane, or its plane shows next to nothing of the image.
        InputError: a slice of a view would be too large.
    """
    views: dict[ViewGrid | None, dict[int, list[tuple[int, Prompt]]]] = {}
    visible: set[tuple[ViewGrid, int]] = set()
    for n, segment in enumerate(segments):
        for m, prompt in enumerate(segment.prompts):
            location = f"segments[{n}].prompts[{m}]"
            grid, on_grid = place_in_view(prompt, image, location)
            if grid is not None:
                number = grid.slice_number(prompt.plane)
                if (grid, number) not in visible:
                    grid.require_visible(number, positions_location(prompt, location))
                    visible.add((grid, number))
            views[grid] = views.pop(grid, {})
            views[grid].setdefault(n, []).append((m, on_grid))
    parts = []
    for grid, by_segment in views.items():
        numbers, on_view, reaches = [], [], []
        for n, prompts in by_segment.items():
            numbers.append((n, tuple(m for m, _ in prompts)))
            if grid is not None:
                reaches.append(grid.reach(*(segments[n].prompts[m].plane for m, _ in prompts)))
            on_view.append(SegmentPrompts(segments[n].name, tuple(prompt for _, prompt in prompts)))
        parts.append(ViewPart(grid, tuple(on_view), tuple(numbers), tuple(reaches)))
    return parts
