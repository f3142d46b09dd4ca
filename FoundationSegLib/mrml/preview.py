"""What a slice view shows while the button is down: lines on top of the view, gone with the gesture."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import vtk
from numpy.typing import NDArray

from ..core.prompts import Polarity
from .gestures import Gesture
from .prompt_looks import COLOURS
from .view_plane import ViewPlane, box_outline

Line = NDArray[np.float64]

_RADIUS_PX = 8.0
_SIGN_PX = 4.5
_DASH_PX, _GAP_PX = 9.0, 6.0
_CIRCLE = np.linspace(0.0, 2 * np.pi, 25)
_DARK = (0.0, 0.0, 0.0)


def preview_lines(gesture: Gesture, view: ViewPlane) -> list[Line]:
    """The lines that show an unfinished gesture, each (N, 2) in pixels of the view.

    A point is a circle with a plus or a minus, a box the borders of the voxels it holds, a scribble its way, a lasso
    its closed way. Lines of negative prompts are dashed, so that colour is not all that tells them apart.
    """
    if gesture.kind == "point":
        return _sign(gesture.path[0], gesture.polarity)
    if gesture.kind == "box":
        way = _closed(box_outline(gesture.path, view))
    elif gesture.kind == "lasso":
        way = _closed(np.asarray(gesture.path))
    else:
        way = np.asarray(gesture.path)
    return _dashes(way) if gesture.polarity is Polarity.NEGATIVE else [way]


def _sign(at: tuple[float, float], polarity: Polarity) -> list[Line]:
    centre = np.asarray(at)
    circle = centre + _RADIUS_PX * np.column_stack([np.cos(_CIRCLE), np.sin(_CIRCLE)])
    across = centre + np.array([[-_SIGN_PX, 0.0], [_SIGN_PX, 0.0]])
    upright = centre + np.array([[0.0, -_SIGN_PX], [0.0, _SIGN_PX]])
    return [circle, across] if polarity is Polarity.NEGATIVE else [circle, across, upright]


def _closed(way: Line) -> Line:
    return np.concatenate([way, way[:1]])


def _dashes(way: Line) -> list[Line]:
    """A way cut into dashes; VTK's own stipples are not drawn in two dimensions."""
    reached = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(way, axis=0), axis=1))])
    dashes = []
    for start in np.arange(0.0, reached[-1], _DASH_PX + _GAP_PX):
        end = min(start + _DASH_PX, reached[-1])
        within = reached[(reached > start) & (reached < end)]
        stops = np.concatenate([[start], within, [end]])
        dashes.append(np.column_stack([np.interp(stops, reached, way[:, n]) for n in range(2)]))
    return dashes


class Preview:
    """Lines in one renderer of a slice view, a dark line under each coloured one."""

    def __init__(self, renderer: Any) -> None:
        self._renderer = renderer
        self._shape = vtk.vtkPolyData()
        self._actors = [self._add(4.0), self._add(2.0)]

    def show(self, lines: Sequence[Line], polarity: Polarity) -> None:
        """Draw these lines, in pixels of the renderer, instead of the ones before."""
        points, cells = vtk.vtkPoints(), vtk.vtkCellArray()
        for line in lines:
            places = [points.InsertNextPoint(float(x), float(y), 0.0) for x, y in line]
            for start, end in pairwise(places):
                cells.InsertNextCell(2)
                cells.InsertCellPoint(start)
                cells.InsertCellPoint(end)
        self._shape.SetPoints(points)
        self._shape.SetLines(cells)
        self._shape.Modified()
        for actor, colour in zip(self._actors, (_DARK, COLOURS[polarity]), strict=True):
            actor.GetProperty().SetColor(*colour)

    def remove(self) -> None:
        """Take the lines out of the view."""
        for actor in self._actors:
            self._renderer.RemoveViewProp(actor)

    def _add(self, width_px: float) -> Any:
        mapper = vtk.vtkPolyDataMapper2D()
        mapper.SetInputData(self._shape)
        actor = vtk.vtkActor2D()
        actor.SetMapper(mapper)
        actor.PickableOff()
        actor.GetProperty().SetLineWidth(width_px)
        actor.GetProperty().SetDisplayLocationToForeground()
        self._renderer.AddViewProp(actor)
        return actor
