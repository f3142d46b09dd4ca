"""Gestures of the mouse in a slice view as values, and from them to prompts in space. No VTK here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..codec import frozen
from ..imaging.geometry import AXES, Axis, Geometry, Vector, as_vector, round_index
from ..prompts.kinds import BoxPrompt, LassoPrompt, ObliquePlane, Plane, PointPrompt, Polarity, Prompt, ScribblePrompt
from ..prompts.oblique import parallel_axis
from ..prompts.placement import require_inside

Pixel = tuple[float, float]
GestureKind = Literal["point", "box", "scribble", "lasso"]
# "corners" draws a box, too: by two clicks, or as "box" does.
ToolKind = Literal["point", "box", "scribble", "lasso", "corners"]

TOOL_KINDS: tuple[ToolKind, ...] = ("point", "box", "scribble", "lasso", "corners")

# A hand shakes by so much between press and release; Qt's own threshold for a drag is 10.
_CLICK_PX = 3.0
# A stroke keeps the points without which it would run this far beside the hand's: half a pixel cannot be seen, and
# Slicer draws a curve of 20 control points at once, one of 500 slowly.
_STROKE_PX = 0.5
# A pen sends hundreds of moves a second. As the stroke grows, so many of its points are simplified at a time, finer
# than the whole at its end, so that each move costs the same.
_PART_POINTS, _PART_PX = 64, 0.25


@frozen
class Gesture:
    """A drawing, finished or not.

    Attributes:
        kind: what is drawn.
        polarity: fixed when the button went down.
        path: the place of a point; the first and the last corner of a box; the way of a scribble or a lasso.
    """

    kind: GestureKind
    polarity: Polarity
    path: tuple[Pixel, ...]


@frozen
class Idle:
    """No button is down that concerns us."""


@frozen
class Drawing:
    """A gesture is under way.

    Attributes:
        gesture: as far as it is drawn.
        start: where the button went down first.
        repeated: that was the second press of a double click.
        by_corners: a click sets the first corner only.
        is_hovering: the first corner is set, and no button is down.
        simplified: how many points of the path are simplified already.
    """

    gesture: Gesture
    start: Pixel
    repeated: bool = False
    by_corners: bool = False
    is_hovering: bool = False
    simplified: int = 0


@frozen
class AwaitingRelease:
    """The gesture was cancelled, and the button is still down."""


State = Idle | Drawing | AwaitingRelease


@frozen
class Reaction:
    """The result of an event.

    Attributes:
        state: the next state.
        finished: the gesture that this event completed.
        swallow: True where nobody else may act on the event.
        is_mere_click: a box or a lasso was clicked where it has to be drawn.
    """

    state: State
    finished: Gesture | None = None
    swallow: bool = True
    is_mere_click: bool = False


def press(kind: ToolKind, polarity: Polarity, at: Pixel, repeated: bool = False) -> Reaction:
    """The button goes down: a gesture begins. One whose release was lost is forgotten."""
    by_corners = kind == "corners"
    gesture = Gesture("box" if kind == "corners" else kind, polarity, (at,))
    return Reaction(Drawing(gesture, at, repeated, by_corners))


def press_again(state: Drawing, at: Pixel) -> Reaction:
    """The button goes down for the second corner: the box is finished, or forgotten where both corners are one."""
    if math.dist(state.start, at) < _CLICK_PX:
        return Reaction(AwaitingRelease())
    return Reaction(AwaitingRelease(), finished=_drawn_to(state, at))


def move(state: State, at: Pixel) -> Reaction:
    """The mouse moves; without a gesture, it is none of our business."""
    if not isinstance(state, Drawing):
        return Reaction(state, swallow=False)
    gesture, done = _drawn_to(state, at), state.simplified
    if len(gesture.path) - done > _PART_POINTS:
        part = simplified(gesture.path[done:], _PART_PX)
        gesture = replace(gesture, path=(*gesture.path[:done], *part))
        done = len(gesture.path) - 1
    return Reaction(replace(state, gesture=gesture, simplified=done), swallow=not state.is_hovering)


def release(state: State, at: Pixel) -> Reaction:
    """The button goes up: the gesture is finished, or was none.

    None are: the second click of a double click, a box or a lasso that was clicked and not drawn, a lasso that
    encloses nothing.
    """
    if not isinstance(state, Drawing):
        return Reaction(Idle(), swallow=isinstance(state, AwaitingRelease))
    gesture = _drawn_to(state, at)
    path = (*state.gesture.path, state.start, at)
    clicked = max(math.dist(state.start, pixel) for pixel in path) < _CLICK_PX
    if clicked and state.by_corners and not state.repeated:
        return Reaction(replace(state, is_hovering=True))
    if clicked and (state.repeated or gesture.kind in ("box", "lasso")):
        return Reaction(Idle(), is_mere_click=not state.repeated)
    if gesture.kind in ("scribble", "lasso"):
        gesture = replace(gesture, path=simplified(gesture.path, _STROKE_PX))
    if gesture.kind == "lasso" and not _encloses_something(gesture.path):
        return Reaction(Idle())
    return Reaction(Idle(), finished=gesture)


def cancel(state: State) -> Reaction:
    """Escape, or the view has changed: nothing is drawn, and the release to come, if any, is nobody's."""
    if isinstance(state, Drawing) and state.is_hovering:
        return Reaction(Idle())
    if isinstance(state, Drawing):
        return Reaction(AwaitingRelease())
    return Reaction(state, swallow=False)


def _drawn_to(state: Drawing, at: Pixel) -> Gesture:
    gesture = state.gesture
    if gesture.kind == "point":
        return replace(gesture, path=(at,))
    if gesture.kind == "box":
        return replace(gesture, path=(state.start, at))
    return gesture if gesture.path[-1] == at else replace(gesture, path=(*gesture.path, at))


def simplified(path: Sequence[Pixel], tolerance_px: float) -> tuple[Pixel, ...]:
    """The points of a path from which it is nowhere further than a tolerance; first and last are kept.

    Ramer's rule (Computer Graphics and Image Processing 1, 1972): of a stretch, the point furthest from the straight
    line is kept, and both sides are looked at in turn.
    """
    points = np.asarray(path, np.float64).reshape(-1, 2)
    corners = {0, len(points) - 1}
    stretches = [(0, len(points) - 1)]
    while stretches:
        first, last = stretches.pop()
        if last - first < 2:
            continue
        distances = _distances_to_segment(points[first + 1 : last], points[first], points[last])
        furthest = int(np.argmax(distances))
        if distances[furthest] > tolerance_px:
            middle = first + 1 + furthest
            corners.add(middle)
            stretches += [(first, middle), (middle, last)]
    return tuple(path[n] for n in sorted(corners))


def _distances_to_segment(
    points: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]
) -> NDArray[np.float64]:
    along = end - start
    length2 = float(along @ along)
    parts = np.clip((points - start) @ along / length2, 0, 1) if length2 else np.zeros(len(points))
    return np.linalg.norm(points - start - parts[:, None] * along, axis=1)


def _encloses_something(path: Sequence[Pixel]) -> bool:
    """True where a closed path has an area of some pixels; both loops of an eight count."""
    if len(path) < 3:
        return False
    x, y = np.asarray(path, np.float64).T
    extent = np.ptp(x), np.ptp(y)
    area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    return min(extent) >= _CLICK_PX and (area >= _CLICK_PX**2 or len(path) > 3)


# A pixel can lie exactly between two voxels: in a view fitted to its volume at full zoom every pixel does. Rounding
# errors of the matrices (below 1e-9 voxels) must not choose, differently each time: such a place belongs to the higher
# voxel, as the rule for prompts says, and is moved there by this part of a voxel.
_BORDER_VOXELS = 1e-7


@dataclass(frozen=True, eq=False)
class ViewPlane:
    """A slice view over a volume, as it was at one moment.

    Attributes:
        xy_to_ras: (4, 4) float64; from pixels (x, y, 0, 1) to mm in the volume's own RAS.
        size_px: width and height of the view.
        geometry: the volume's grid.
    """

    xy_to_ras: NDArray[np.float64]
    size_px: tuple[int, int]
    geometry: Geometry

    def is_same(self, other: "ViewPlane") -> bool:
        """True where both show the same place of the same grid."""
        return (
            self.size_px == other.size_px
            and self.geometry == other.geometry
            and np.array_equal(self.xy_to_ras, other.xy_to_ras)
        )

    def clamped(self, at: Pixel) -> Pixel:
        """The pixel of the view nearest to a place, for mice that left the view with the button down."""
        x, y = (float(min(max(n, 0), size - 1)) for n, size in zip(at, self.size_px, strict=True))
        return x, y

    @cached_property
    def axis(self) -> Axis | None:
        """The axis whose slices the view shows; None for an oblique view."""
        right, up = (self.geometry.ras_to_ijk[:3, :3] @ self.xy_to_ras[:3, :2]).T
        return parallel_axis(np.cross(right, up), self.geometry)

    @cached_property
    def plane(self) -> Plane:
        """The plane of a prompt that is placed here.

        The origin of an oblique plane is the point nearest to the middle of the volume, so that panning and zooming do
        not change it.
        """
        if self.axis is not None:
            return self.axis
        right, up = self.xy_to_ras[:3, 0], self.xy_to_ras[:3, 1]
        normal = np.cross(right, up)
        normal /= np.linalg.norm(normal)
        middle = self.geometry.to_ras((np.array(self.geometry.shape_kji[::-1]) - 1) / 2)
        origin = middle - normal * ((middle - self.xy_to_ras[:3, 3]) @ normal)
        return ObliquePlane(as_vector(origin), as_vector(normal), as_vector(up / np.linalg.norm(up)))

    def index_ijk(self, pixels: Sequence[Pixel]) -> NDArray[np.float64]:
        """The continuous voxel indices of pixels, (N, 3); in a view of slices, all on the slice of the first."""
        flat = np.asarray(pixels, np.float64).reshape(-1, 2)
        flat = np.column_stack([flat, np.zeros(len(flat)), np.ones(len(flat))])
        index_ijk = self.geometry.to_ijk(flat @ self.xy_to_ras[:3].T)
        if self.axis is not None:
            n = AXES.index(self.axis)
            index_ijk[:, n] = index_ijk[0, n]
        borders = np.floor(index_ijk) + 0.5
        return np.where(np.abs(index_ijk - borders) < _BORDER_VOXELS, borders + _BORDER_VOXELS, index_ijk)

    def positions(self, pixels: Sequence[Pixel]) -> tuple[Vector, ...]:
        """The RAS positions in mm of pixels."""
        return tuple(as_vector(position) for position in self.geometry.to_ras(self.index_ijk(pixels)))

    def distances_mm(self, positions_ras: ArrayLike) -> NDArray[np.float64]:
        """The distances, (N,) in mm, of RAS positions, (N, 3), from the plane of the view."""
        positions = np.asarray(positions_ras, np.float64).reshape(-1, 3)
        normal = np.cross(self.xy_to_ras[:3, 0], self.xy_to_ras[:3, 1])
        return np.abs((positions - self.xy_to_ras[:3, 3]) @ (normal / np.linalg.norm(normal)))

    def pixels(self, positions_ras: ArrayLike) -> NDArray[np.float64]:
        """The pixels, (N, 2), of RAS positions, (N, 3) in mm, seen along the view's normal."""
        positions = np.asarray(positions_ras, np.float64).reshape(-1, 3)
        return (positions - self.xy_to_ras[:3, 3]) @ np.linalg.inv(self.xy_to_ras[:3, :3]).T[:, :2]


def prompt_of(gesture: Gesture, view: ViewPlane, radius_mm: float | None = None) -> Prompt:
    """The prompt that a finished gesture means.

    In a view of slices a box lies along the voxel axes, between the voxels under its two ends. In an oblique view its
    corners are opposite ones of the rectangle as drawn, whose sides run along ``up`` and across it.

    Args:
        gesture: in pixels of the view.
        view: where it was drawn.
        radius_mm: of a scribble; None for the default, half the smallest in-plane spacing.

    Raises:
        PromptError: it lies wholly outside the volume, or is a box that is one voxel wide.
    """
    positions, polarity, plane = view.positions(gesture.path), gesture.polarity, view.plane
    if gesture.kind == "point":
        prompt: Prompt = PointPrompt(positions[0], polarity, plane)
    elif gesture.kind == "box":
        prompt = BoxPrompt((positions[0], positions[-1]), polarity, plane)
    elif gesture.kind == "scribble":
        prompt = ScribblePrompt(positions, radius_mm, polarity, plane)
    else:
        prompt = LassoPrompt(positions, polarity, plane)
    require_inside(prompt, view.geometry)
    return prompt


def rectangle(path: Sequence[Pixel]) -> tuple[Pixel, Pixel, Pixel, Pixel]:
    """The corners in turn of the upright rectangle between the first and the last place of a path."""
    (left, bottom), (right, top) = path[0], path[-1]
    return (left, bottom), (right, bottom), (right, top), (left, top)


def box_outline(path: Sequence[Pixel], view: ViewPlane) -> NDArray[np.float64]:
    """The four corners in pixels, (4, 2), of what a box drawn there holds: whole voxels, their borders included."""
    if view.axis is None:
        return np.array(rectangle(path))
    ends = round_index(view.index_ijk((path[0], path[-1])))
    low, high = ends.min(axis=0) - 0.5, ends.max(axis=0) + 0.5
    n = AXES.index(view.axis)
    a, b = (m for m in range(3) if m != n)
    corners = np.tile(ends[0].astype(np.float64), (4, 1))
    corners[:, a] = low[a], high[a], high[a], low[a]
    corners[:, b] = low[b], low[b], high[b], high[b]
    return view.pixels(view.geometry.to_ras(corners))
