"""A mouse for a slice view: the events that Slicer's views get, at places in RAS or in pixels."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import vtk


class ViewMouse:
    """Places are three numbers (RAS in mm) or two (pixels of the view, from the lower left)."""

    def __init__(self, rig: Any, after: Callable[[], None]) -> None:
        self._rig, self._after = rig, after

    def pixels(self, place: Sequence[float]) -> tuple[float, float]:
        """Where a place is in the view.

        Raises:
            AssertionError: it is more than half a millimetre in front of or behind the slice.
        """
        if len(place) == 2:
            return place[0], place[1]
        inverse = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self._rig.slice_node.GetXYToRAS(), inverse)
        x, y, depth, _one = inverse.MultiplyPoint((*place, 1.0))
        to_ras = self._rig.slice_node.GetXYToRAS()
        thickness = sum(to_ras.GetElement(row, 2) ** 2 for row in range(3)) ** 0.5
        if abs(depth) * thickness > 0.5:
            raise AssertionError(f"{tuple(place)} is not in the slice that the view shows")
        return x, y

    def press(self, place: Sequence[float], **keys: bool) -> None:
        """Press the left button; ``ctrl``, ``shift`` and ``alt`` say which keys are held."""
        self._rig.press(self.pixels(place), **keys)
        self._after()

    def move(self, place: Sequence[float], **keys: bool) -> None:
        self._rig.event("MouseMoveEvent", self.pixels(place), **keys)
        self._after()

    def release(self, place: Sequence[float], **keys: bool) -> None:
        self._rig.release(self.pixels(place), **keys)
        self._after()

    def click(self, place: Sequence[float], **keys: bool) -> None:
        self.press(place, **keys)
        self.release(place, **keys)

    def drag(self, *way: Sequence[float], steps: int = 4, **keys: bool) -> None:
        """Press at the first place, pass by the others, release at the last."""
        stops = [self.pixels(place) for place in way]
        self.press(stops[0], **keys)
        for (x0, y0), (x1, y1) in pairwise(stops):
            for n in range(1, steps + 1):
                self.move((x0 + (x1 - x0) * n / steps, y0 + (y1 - y0) * n / steps), **keys)
        self.release(stops[-1], **keys)

    def key(self, name: str, place: Sequence[float] | None = None, ctrl: bool = False, shift: bool = False) -> None:
        """Press a key over the view, by its name in VTK ("Escape", "Return", "z")."""
        at = None if place is None else self.pixels(place)
        self._rig.event("KeyPressEvent", at, ctrl=ctrl, shift=shift, key=name)
        self._after()
