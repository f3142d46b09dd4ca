"""What the mouse draws in a slice view, as values: presses, moves and releases become a gesture. No VTK here.

Places are pixels from the lower left corner of the view, x to the right and y up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..core.prompts import Polarity

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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Idle:
    """No button is down that concerns us."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A gesture is under way.

    Attributes:
        gesture: as far as it is drawn.
        start: where the button went down first.
        repeated: that was the second press of a double click.
        by_corners: a click sets the first corner only.
        is_hovering: the first corner is set, and no button is down.
    """

    gesture: Gesture
    start: Pixel
    repeated: bool = False
    by_corners: bool = False
    is_hovering: bool = False


@dataclass(frozen=True, slots=True)
class Spent:
    """The gesture was cancelled, and the button is still down."""


State = Idle | Drawing | Spent


@dataclass(frozen=True, slots=True)
class Reaction:
    """What follows from an event.

    Attributes:
        state: the next state.
        finished: the gesture that this event completed.
        swallow: True where nobody else may act on the event.
    """

    state: State
    finished: Gesture | None = None
    swallow: bool = True


def press(kind: ToolKind, polarity: Polarity, at: Pixel, repeated: bool = False) -> Reaction:
    """The button goes down: a gesture begins. One whose release was lost is forgotten."""
    by_corners = kind == "corners"
    gesture = Gesture("box" if kind == "corners" else kind, polarity, (at,))
    return Reaction(Drawing(gesture, at, repeated, by_corners))


def press_again(state: Drawing, at: Pixel) -> Reaction:
    """The button goes down for the second corner: the box is finished, or forgotten where both corners are one."""
    if math.dist(state.start, at) < _CLICK_PX:
        return Reaction(Spent())
    return Reaction(Spent(), finished=_drawn_to(state, at))


def move(state: State, at: Pixel) -> Reaction:
    """The mouse moves; without a gesture, it is none of our business."""
    if not isinstance(state, Drawing):
        return Reaction(state, swallow=False)
    return Reaction(replace(state, gesture=_drawn_to(state, at)), swallow=not state.is_hovering)


def release(state: State, at: Pixel) -> Reaction:
    """The button goes up: the gesture is finished, or was none.

    None are: the second click of a double click, a box or a lasso that was clicked and not drawn, a lasso that
    encloses nothing.
    """
    if not isinstance(state, Drawing):
        return Reaction(Idle(), swallow=isinstance(state, Spent))
    gesture = _drawn_to(state, at)
    whole = (*state.gesture.path, state.start, at)
    clicked = max(math.dist(state.start, place) for place in whole) < _CLICK_PX
    if clicked and state.by_corners and not state.repeated:
        return Reaction(replace(state, is_hovering=True))
    if clicked and (state.repeated or gesture.kind in ("box", "lasso")):
        return Reaction(Idle())
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
        return Reaction(Spent())
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
    kept = {0, len(points) - 1}
    stretches = [(0, len(points) - 1)]
    while stretches:
        first, last = stretches.pop()
        if last - first < 2:
            continue
        distances = _distances_to_segment(points[first + 1 : last], points[first], points[last])
        furthest = int(np.argmax(distances))
        if distances[furthest] > tolerance_px:
            middle = first + 1 + furthest
            kept.add(middle)
            stretches += [(first, middle), (middle, last)]
    return tuple(path[n] for n in sorted(kept))


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
