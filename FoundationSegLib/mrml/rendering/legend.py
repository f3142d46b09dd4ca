"""Words in pictures: the segments with their colours and volumes, labels, and the patient's directions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import vtk
from numpy.typing import NDArray
from vtk.util.numpy_support import vtk_to_numpy

from ..labelmaps import BINARY_LABELMAP, image_to_world, is_empty
from ..terminology import Colour
from ..volumes import parent_to_world

Anchor = tuple[Literal["left", "centre", "right"], Literal["bottom", "centre", "top"]]

WHITE: Colour = (1.0, 1.0, 1.0)
BLACK: Colour = (0.0, 0.0, 0.0)
_POSITIVE, _NEGATIVE = "RAS", "LPI"
# A direction names every axis that it leans to by more than 20 degrees.
_LEANS = 0.34
_HORIZONTAL = {"left": 0, "centre": 1, "right": 2}
_VERTICAL = {"bottom": 0, "centre": 1, "top": 2}
# Enough to find where a segment is largest: all voxels of a small one, a sample of a large one.
_MOST_POINTS = 50_000


@dataclass(frozen=True, eq=False, slots=True)
class PictureSegment:
    """One segment that has voxels.

    Attributes:
        segment_id, name: Slicer's.
        colour: red, green, blue in 0..1.
        volume_mm3: the volume of its voxels in the world.
        points_ras: (N, 3) float64, voxel centres in the world; a sample where there are many.
    """

    segment_id: str
    name: str
    colour: Colour
    volume_mm3: float
    points_ras: NDArray[np.float64]


def list_segments(segmentation_node: Any) -> tuple[PictureSegment, ...]:
    """The segments with at least one voxel, in Slicer's order."""
    segmentation = segmentation_node.GetSegmentation()
    to_world = parent_to_world(segmentation_node)
    segments = (_measure(segmentation, segment_id, to_world) for segment_id in segmentation.GetSegmentIDs())
    return tuple(segment for segment in segments if segment is not None)


def _measure(segmentation: Any, segment_id: str, to_world: NDArray[np.float64]) -> PictureSegment | None:
    segment = segmentation.GetSegment(segment_id)
    labelmap = segment.GetRepresentation(BINARY_LABELMAP)
    if is_empty(labelmap):
        return None
    inside = np.flatnonzero(vtk_to_numpy(labelmap.GetPointData().GetScalars()) == segment.GetLabelValue())
    if not inside.size:
        return None
    to_ras = to_world @ image_to_world(labelmap)
    index_kji = np.unravel_index(sample(inside, _MOST_POINTS), labelmap.GetDimensions()[::-1])
    index_ijk = np.stack(index_kji[::-1], axis=1) + labelmap.GetExtent()[::2]
    volume_mm3 = inside.size * float(abs(np.linalg.det(to_ras[:3, :3])))
    points = index_ijk @ to_ras[:3, :3].T + to_ras[:3, 3]
    return PictureSegment(segment_id, segment.GetName() or segment_id, segment.GetColor(), volume_mm3, points)


def sample(rows: NDArray[Any], count: int) -> NDArray[Any]:
    """At most that many rows, always the same ones; at random, because every n-th voxel may miss whole slices."""
    if len(rows) <= count:
        return rows
    return rows[np.random.default_rng(0).integers(0, len(rows), count)]


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
        position: tuple[float, float],
        anchor: Anchor = ("left", "bottom"),
        colour: Colour = WHITE,
        halo: bool = False,
    ) -> None:
        """Put one line of text with the anchored corner of it at a position; a halo keeps it legible on an image."""
        reach = max(1, round(self.font_px / 18))
        around = product((-reach, 0, reach), repeat=2) if halo else ()
        for (right, up), shade in (*((offset, BLACK) for offset in around), ((0, 0), colour)):
            actor = self._actor(text)
            actor.SetPosition(round(position[0] + right), round(position[1] + up))
            style = actor.GetTextProperty()
            style.SetColor(*shade)
            style.SetJustification(_HORIZONTAL[anchor[0]])
            style.SetVerticalJustification(_VERTICAL[anchor[1]])
            self.renderer.AddViewProp(actor)

    def width(self, text: str) -> float:
        """The width of a line of text in pixels."""
        size = [0.0, 0.0]
        if text:
            self._actor(text).GetSize(self.renderer, size)
        return size[0]

    def shorten(self, text: str, width: float) -> str:
        """The text, or as much of its beginning as fits into a width with an ellipsis."""
        if self.width(text) <= width:
            return text
        lengths = range(len(text) - 1, 0, -1)
        return next((t for t in (text[:n].rstrip() + "…" for n in lengths) if self.width(t) <= width), "…")

    def _actor(self, text: str) -> Any:
        # Dollar signs and bars would make a formula, and VTK's font has Latin letters.
        line = " ".join(text.split()).replace("|", "¦").encode("cp1252", "replace").decode("cp1252")
        actor = vtk.vtkTextActor()
        actor.SetInput(line.replace("$", r"\$"))
        style = actor.GetTextProperty()
        style.SetFontFamilyToArial()
        style.SetBold(True)
        style.SetFontSize(self.font_px)
        return actor

    def fill(self, corners: tuple[float, float, float, float], colour: Colour, opacity: float = 1.0) -> None:
        """Fill a rectangle: left, bottom, right, top."""
        left, bottom, right, top = corners
        points, cells = vtk.vtkPoints(), vtk.vtkCellArray()
        cells.InsertNextCell(4)
        for x, y in ((left, bottom), (right, bottom), (right, top), (left, top)):
            cells.InsertCellPoint(points.InsertNextPoint(x, y, 0.0))
        shape, mapper, actor = vtk.vtkPolyData(), vtk.vtkPolyDataMapper2D(), vtk.vtkActor2D()
        shape.SetPoints(points)
        shape.SetPolys(cells)
        mapper.SetInputData(shape)
        actor.SetMapper(mapper)
        actor.GetProperty().SetColor(*colour)
        actor.GetProperty().SetOpacity(opacity)
        self.renderer.AddViewProp(actor)


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


def draw_legend(pen: Pen, segments: Sequence[PictureSegment], with_volumes: bool = True) -> tuple[float, float]:
    """Draw it in the upper left corner of a panel; a last row ``+n`` counts the segments that found no room.

    Returns:
        The width and height that it takes from the corner, in pixels, with a margin.
    """
    rows = _rows(pen, segments, with_volumes)
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


def _rows(pen: Pen, segments: Sequence[PictureSegment], with_volumes: bool) -> list[_Row]:
    width, height = pen.renderer.GetSize()
    most = max(2, int(_TALLEST_PART * height / (pen.font_px * 1.5)))
    count = len(segments) if len(segments) <= most else most - 1
    rows = [
        _Row(s.colour, pen.shorten(s.name, _WIDEST_PART * width), format_volume(s.volume_mm3) if with_volumes else "")
        for s in segments[:count]
    ]
    return rows if count == len(segments) else [*rows, _Row(None, f"+{len(segments) - count}", "")]


def format_volume(volume_mm3: float) -> str:
    """Millilitres with three digits, or all digits where there are more before the point: ``"0.042 ml"``."""
    volume_ml = volume_mm3 / 1000
    return f"{volume_ml:.0f} ml" if volume_ml >= 100 else f"{volume_ml:.3g} ml"
