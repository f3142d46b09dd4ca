"""Words in pictures: labels, scales and the legend."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import vtk
from numpy.typing import NDArray

from .subjects import Subject

Colour = tuple[float, float, float]
Anchor = tuple[Literal["left", "centre", "right"], Literal["bottom", "centre", "top"]]

WHITE: Colour = (1.0, 1.0, 1.0)
BLACK: Colour = (0.0, 0.0, 0.0)
_POSITIVE, _NEGATIVE = "RAS", "LPI"
# A direction names every axis that it leans to by more than 20 degrees.
_LEANS = 0.34
_HORIZONTAL = {"left": 0, "centre": 1, "right": 2}
_VERTICAL = {"bottom": 0, "centre": 1, "top": 2}


@dataclass(frozen=True, slots=True)
class Pen:
    """Writes on one renderer.

    Attributes:
        renderer: the ``vtkRenderer`` of a panel.
        font_px: the height of the text in pixels.
    """

    renderer: Any
    font_px: int

    def write(
        self,
        text: str,
        place: tuple[float, float],
        anchor: Anchor = ("left", "bottom"),
        colour: Colour = WHITE,
        halo: bool = False,
    ) -> None:
        """Put one line of text with the anchored corner of it at a place; a halo keeps it legible on an image."""
        if halo:
            reach = max(1, round(self.font_px / 18))
            for right, up in product((-reach, 0, reach), repeat=2):
                self._put(text, (place[0] + right, place[1] + up), anchor, BLACK)
        self._put(text, place, anchor, colour)

    def _put(self, text: str, place: tuple[float, float], anchor: Anchor, colour: Colour) -> None:
        actor = self._actor(text)
        actor.SetPosition(round(place[0]), round(place[1]))
        style = actor.GetTextProperty()
        style.SetColor(*colour)
        style.SetJustification(_HORIZONTAL[anchor[0]])
        style.SetVerticalJustification(_VERTICAL[anchor[1]])
        self.renderer.AddViewProp(actor)

    def width(self, text: str) -> float:
        """The width of a line of text in pixels."""
        if not text:
            return 0.0
        size = [0.0, 0.0]
        self._actor(text).GetSize(self.renderer, size)
        return size[0]

    def shorten(self, text: str, width: float) -> str:
        """The text, or as much of its beginning as fits into a width with an ellipsis."""
        if self.width(text) <= width:
            return text
        lengths = range(len(text) - 1, 0, -1)
        return next((t for t in (text[:n].rstrip() + "…" for n in lengths) if self.width(t) <= width), "…")

    def _actor(self, text: str) -> Any:
        actor = vtk.vtkTextActor()
        actor.SetInput(_plain(text))
        style = actor.GetTextProperty()
        style.SetFontFamilyToArial()
        style.SetBold(True)
        style.SetFontSize(self.font_px)
        return actor

    def fill(self, corners: tuple[float, float, float, float], colour: Colour, opacity: float = 1.0) -> None:
        """Fill a rectangle: left, bottom, right, top."""
        left, bottom, right, top = corners
        outline = ((left, bottom), (right, bottom), (right, top), (left, top))
        actor = _polygon(outline)
        actor.GetProperty().SetColor(*colour)
        actor.GetProperty().SetOpacity(opacity)
        self.renderer.AddViewProp(actor)


def _plain(text: str) -> str:
    """One line that VTK draws as it is: dollar signs and bars would make a formula, and its font has Latin letters."""
    line = " ".join(text.split()).replace("|", "¦").encode("cp1252", "replace").decode("cp1252")
    return line.replace("$", r"\$")


def _polygon(outline: Sequence[tuple[float, float]]) -> Any:
    points, cells = vtk.vtkPoints(), vtk.vtkCellArray()
    cells.InsertNextCell(len(outline))
    for x, y in outline:
        cells.InsertCellPoint(points.InsertNextPoint(x, y, 0.0))
    shape = vtk.vtkPolyData()
    shape.SetPoints(points)
    shape.SetPolys(cells)
    mapper = vtk.vtkPolyDataMapper2D()
    mapper.SetInputData(shape)
    actor = vtk.vtkActor2D()
    actor.SetMapper(mapper)
    return actor


def direction_letters(direction: NDArray[np.float64]) -> str:
    """The patient's directions that a (3,) vector points to, the strongest first: ``"L"``, or ``"LA"`` if oblique."""
    unit = direction / np.linalg.norm(direction)
    order = [axis for axis in np.argsort(-np.abs(unit)) if abs(unit[axis]) > _LEANS][:2]
    return "".join((_POSITIVE if unit[axis] > 0 else _NEGATIVE)[axis] for axis in order)


_BACKGROUND_OPACITY = 0.45
_WIDEST_PART = 0.3
_TALLEST_PART = 0.55


@dataclass(frozen=True, slots=True)
class _Row:
    colour: Colour | None
    name: str
    amount: str


def draw_legend(pen: Pen, subjects: Sequence[Subject], with_volumes: bool = True) -> tuple[float, float]:
    """Draw it in the upper left corner of a panel; a last row ``+n`` counts the segments that found no room.

    Returns:
        The width and height that it takes from the corner, in pixels, with a margin.
    """
    rows = _rows(pen, subjects, with_volumes)
    if not rows:
        return 0.0, 0.0
    line, space = pen.font_px * 1.5, pen.font_px * 0.6
    _, top = pen.renderer.GetSize()
    names = max(pen.width(row.name) for row in rows)
    amounts = max(pen.width(row.amount) for row in rows) + 2 * space if with_volumes else 0.0
    right, bottom = line + names + amounts + 2 * space, top - 2 * space - line * len(rows)
    pen.fill((space, bottom, right, top - space), BLACK, _BACKGROUND_OPACITY)
    for number, row in enumerate(rows):
        middle = top - 1.5 * space - line * (number + 0.5)
        if row.colour is not None:
            pen.fill((1.6 * space, middle - space * 0.6, 2.8 * space, middle + space * 0.6), row.colour)
        pen.write(row.name, (1.6 * space + line, middle), ("left", "centre"))
        pen.write(row.amount, (right - space, middle), ("right", "centre"))
    return right + space, top - bottom + space


def _rows(pen: Pen, subjects: Sequence[Subject], with_volumes: bool) -> list[_Row]:
    width, height = pen.renderer.GetSize()
    room = max(2, int(_TALLEST_PART * height / (pen.font_px * 1.5)))
    shown = subjects if len(subjects) <= room else subjects[: room - 1]
    rows = [
        _Row(s.colour, pen.shorten(s.name, _WIDEST_PART * width), format_volume(s.volume_mm3) if with_volumes else "")
        for s in shown
    ]
    if len(shown) < len(subjects):
        rows.append(_Row(None, f"+{len(subjects) - len(shown)}", ""))
    return rows


def format_volume(volume_mm3: float) -> str:
    """Millilitres with three digits, or all digits where there are more before the point: ``"0.042 ml"``."""
    volume_ml = volume_mm3 / 1000
    return f"{volume_ml:.0f} ml" if volume_ml >= 100 else f"{volume_ml:.3g} ml"
