"""From prompts to voxels: rounding, clipping, thin boxes, and the planes that 2-D models look at."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..codec import frozen
from ..errors import GeometryError, PromptError
from ..imaging.geometry import AXES, Axis, Box, Geometry, Vector, as_vector, round_index
from ..imaging.masks import PackedMask
from . import kinds
from .prompts_file import join_location


def prompts_in_ras(prompts: kinds.PromptSet, geometry: Geometry) -> kinds.PromptSet:
    """The same prompts with RAS positions; those that are in RAS come back as they are.

    Corners of boxes are rounded to voxels first, so that they name the same voxels on the way back.
    """
    if prompts.space == "ras":
        return prompts
    segments = tuple(
        kinds.SegmentPrompts(segment.name, tuple(_prompt_in_ras(prompt, geometry) for prompt in segment.prompts))
        for segment in prompts.segments
    )
    return kinds.PromptSet(segments, "ras")


def _prompt_in_ras(prompt: kinds.Prompt, geometry: Geometry) -> kinds.Prompt:
    def to_ras(index_ijk: Vector) -> Vector:
        return as_vector(geometry.to_ras(index_ijk))

    if isinstance(prompt, kinds.BoxPrompt):
        first, second = (to_ras(as_vector(round_index(corner))) for corner in prompt.corners)
        moved: kinds.Prompt = replace(prompt, corners=(first, second))
    elif isinstance(prompt, kinds.PointPrompt):
        moved = replace(prompt, position=to_ras(prompt.position))
    elif isinstance(prompt, kinds.ScribblePrompt | kinds.LassoPrompt):
        moved = replace(prompt, points=tuple(to_ras(point) for point in prompt.points))
    else:
        return prompt
    plane = moved.plane
    if isinstance(plane, kinds.ObliquePlane):  # normals transform with the transposed inverse, directions directly
        normal, up = geometry.ras_to_ijk[:3, :3].T @ plane.normal, geometry.ijk_to_ras[:3, :3] @ plane.up
        return replace(moved, plane=kinds.ObliquePlane(to_ras(plane.origin), as_vector(normal), as_vector(up)))
    return moved


def box_prompt(box: Box, geometry: Geometry) -> kinds.BoxPrompt:
    """A prompt, RAS in mm, for a box of voxels that is not empty."""
    first, last = box.start_kji[::-1], np.array(box.stop_kji[::-1]) - 1
    return kinds.BoxPrompt((as_vector(geometry.to_ras(first)), as_vector(geometry.to_ras(last))))


@frozen
class PlacedBox:
    """A box prompt in voxels.

    Attributes:
        box: the voxels of the prompt that lie in the image; never empty.
        axis: the axis that a 2-D box is thin in, or that a 3-D box is to be cut along.
        is_2d: True for a box on one slice.
        clipped: True where a part of the prompt lies outside the image.
    """

    box: Box
    axis: Axis
    is_2d: bool
    clipped: bool

    @property
    def slices(self) -> range:
        """The slice numbers that the box covers along its axis."""
        n = 2 - AXES.index(self.axis)
        return range(self.box.start_kji[n], self.box.stop_kji[n])


def place_box(prompt: kinds.BoxPrompt, geometry: Geometry, location: str = "") -> PlacedBox:
    """The voxels of a box prompt: corners rounded to the nearest voxel, then cut to the image.

    Of a rectangle in an oblique plane these are the voxels of the box around it.

    Args:
        prompt: a box whose corners are RAS in mm.
        geometry: the image.
        place: where the prompt stands in its document, for messages.

    Raises:
        PromptError: the box is one voxel thick in two or three axes, lies wholly outside, or names a plane
            that is not the axis it is thin in.
    """
    at, plane = f"{location}.corners" if location else "corners", prompt.plane
    corners: ArrayLike = prompt.corners
    if isinstance(plane, kinds.ObliquePlane):
        corners, plane = rectangle_corners(prompt.corners, plane), None
    try:
        box = Box.around(geometry.to_ijk(corners))
    except GeometryError as error:
        raise PromptError("the prompt is at no position in space", at) from error
    thin = thin_axes(box)
    if len(thin) > 1:
        message = f"the box is one voxel thick along {' and '.join(thin)}: it needs two or more in two directions"
        raise PromptError(message, at)
    axis = thin[0] if thin else plane or "k"
    if plane not in (None, axis):
        message = f"the box is thin along {axis}, so it is on no slice of {plane}"
        raise PromptError(message, join_location(location, "plane"))
    inside = box.intersection(geometry.box)
    if inside.is_empty:
        raise PromptError(_outside_message(geometry), at)
    return PlacedBox(inside, axis, is_2d=bool(thin), clipped=inside != box)


def rectangle_corners(corners: Sequence[Vector], plane: kinds.ObliquePlane) -> NDArray[np.float64]:
    """The four corners in turn, (4, 3), of a rectangle whose sides run along ``up`` of its plane and across it."""
    first, last = np.array(corners)
    normal = np.array(plane.normal) / np.linalg.norm(plane.normal)
    up = np.array(plane.up) - normal * (normal @ plane.up)
    rise = up * ((last - first) @ up / (up @ up))
    return np.array([first, last - rise, last, first + rise])


def thin_axes(box: Box) -> list[Axis]:
    """The axes along which a box is one voxel thick."""
    thin = []
    for axis, size in zip(AXES, reversed(box.shape_kji), strict=True):
        if size == 1:
            thin.append(axis)
    return thin


def mask_axis(mask: PackedMask) -> Axis:
    """The axis across which a mask speaks on slices: that which it is thin in, as for a box, else k."""
    thin = thin_axes(mask.box)
    return thin[0] if len(thin) == 1 else "k"


def slice_axis(prompt: kinds.PointPrompt | kinds.ScribblePrompt | kinds.LassoPrompt, location: str = "") -> Axis:
    """The axis across which the slice of a 2-D prompt lies: k, unless its plane says otherwise.

    Raises:
        PromptError: the plane is oblique, and so no slice of the volume.
    """
    if isinstance(prompt.plane, kinds.ObliquePlane):
        message = "an oblique plane is no slice of the image; name an axis"
        raise PromptError(message, join_location(location, "plane"))
    return prompt.plane or "k"


def slice_number(positions: Sequence[Vector], axis: Axis, geometry: Geometry, location: str = "") -> int:
    """The slice across an axis that all these RAS positions lie on, inside the image or not.

    Raises:
        PromptError: they lie on several.
    """
    numbers = geometry.nearest_voxel(positions)[:, AXES.index(axis)]
    if (numbers != numbers[0]).any():
        message = f"the prompt lies on the slices {numbers.min()} to {numbers.max()} of {axis}, not on one"
        raise PromptError(f"{message} (its plane says across which axis)", location)
    return int(numbers[0])


def require_voxels(prompt: kinds.MaskPrompt, geometry: Geometry, location: str = "") -> PackedMask:
    """The voxels of a mask prompt.

    Raises:
        PromptError: its file was not read, it is empty, or it does not fit the image.
    """
    if prompt.voxels is None:
        raise PromptError("the file was not read", join_location(location, "file"))
    if prompt.voxels.box.is_empty:
        raise PromptError(f"the segment {prompt.segment!r} is empty", join_location(location, "segment"))
    if not geometry.box.contains(prompt.voxels.box):
        raise PromptError("the mask does not fit the image", join_location(location, "file"))
    return prompt.voxels


def _outside_message(geometry: Geometry) -> str:
    k, j, i = geometry.shape_kji
    low, high = (geometry.to_ras(corner) for corner in ((0, 0, 0), (i - 1, j - 1, k - 1)))
    first, last = (", ".join(f"{n:.1f}" for n in corner) for corner in (low, high))
    return f"the prompt lies wholly outside the image ({i} x {j} x {k} voxels, from RAS {first} to {last} mm)"


def prompt_positions(prompt: kinds.Prompt) -> tuple[Vector, ...]:
    """Every position that a prompt names, RAS in mm; none for masks, texts and classes."""
    if isinstance(prompt, kinds.BoxPrompt):
        return prompt.corners
    if isinstance(prompt, kinds.ScribblePrompt | kinds.LassoPrompt):
        return prompt.points
    return (prompt.position,) if isinstance(prompt, kinds.PointPrompt) else ()


def positions_location(prompt: kinds.Prompt, location: str) -> str:
    """Where the positions of a prompt stand, that itself stands at a place."""
    if isinstance(prompt, kinds.BoxPrompt):
        return join_location(location, "corners")
    return join_location(location, "position" if isinstance(prompt, kinds.PointPrompt) else "points")


def require_inside(prompt: kinds.Prompt, geometry: Geometry, location: str = "") -> bool:
    """Make sure that a prompt touches the image; True where a part of it lies outside.

    Points count by their voxel, boxes, scribbles and lassos by the box around their voxels: a lasso may go around
    the image. Other kinds always fit.

    Raises:
        PromptError: it has no positions, lies wholly outside, or is a lasso that is not planar.
    """
    if isinstance(prompt, kinds.MaskPrompt | kinds.TextPrompt | kinds.ClassPrompt):
        return False
    positions, at = prompt_positions(prompt), positions_location(prompt, location)
    if not positions or any(len(position) != 3 for position in positions):
        raise PromptError("the prompt needs at least one position, of three numbers each", at)
    if isinstance(prompt, kinds.BoxPrompt):
        return place_box(prompt, geometry, location).clipped
    if isinstance(prompt, kinds.LassoPrompt):
        _require_planar(prompt, geometry, at)
    try:
        box = Box.around(geometry.to_ijk(positions))
    except GeometryError as error:
        raise PromptError("the prompt is at no position in space", at) from error
    inside = box.intersection(geometry.box)
    if inside.is_empty:
        raise PromptError(_outside_message(geometry), at)
    return inside != box


def require_all_inside(prompts: kinds.PromptSet, geometry: Geometry) -> None:
    """Make sure that each prompt, in RAS, touches the image. Raises as :func:`require_inside`, with its location."""
    for n, segment in enumerate(prompts.segments):
        for m, prompt in enumerate(segment.prompts):
            require_inside(prompt, geometry, f"segments[{n}].prompts[{m}]")


def _require_planar(lasso: kinds.LassoPrompt, geometry: Geometry, location: str) -> None:
    """No point of a lasso may be further from the plane through all of them than half the smallest spacing."""
    points = np.asarray(lasso.points)
    with np.errstate(over="ignore", invalid="ignore"):
        points = points - points.mean(axis=0)
    if not np.isfinite(points).all():
        raise PromptError("the prompt is at no position in space", location)
    normal = np.linalg.svd(points, full_matrices=False)[2][-1]
    furthest = float(np.abs(points @ normal).max())
    if furthest > min(geometry.spacing_mm) / 2:
        raise PromptError(f"a lasso must be planar; a point lies {furthest:.1f} mm out of its plane", location)
