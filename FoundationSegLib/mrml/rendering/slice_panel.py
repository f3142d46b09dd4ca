"""A slice view: Slicer's slice logic and its segmentation overlay in one renderer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from .labels import BLACK, WHITE, Colour, Pen, direction_letters
from .stage import Stage, show_with

_FILL_OPACITY = 0.35
_RULER_PART = 0.3


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of Slicer's three orientation presets, with the name and colour of the view that users know it by.

    Attributes:
        preset: the name of the preset.
        layout_name: the name of Slicer's view; its colour too.
    """

    preset: str
    layout_name: str

    @property
    def colour(self) -> Colour:
        """Of the bar above the view, as in Slicer."""
        return getattr(slicer.vtkMRMLSliceNode, f"Get{self.layout_name}Color")()


AXIAL = Orientation("Axial", "Red")
SAGITTAL = Orientation("Sagittal", "Yellow")
CORONAL = Orientation("Coronal", "Green")


def style_segments(stage: Stage, line_px: int) -> None:
    """Translucent fields with opaque outlines of that many pixels, in every slice view."""
    display = stage.segmentation_node.GetDisplayNode()
    display.SetOpacity2DFill(_FILL_OPACITY)
    display.SetOpacity2DOutline(1.0)
    display.SetSliceIntersectionThickness(line_px)


class SlicePanel:
    """A slice view of a stage in a renderer that is already part of a window."""

    def __init__(self, stage: Stage, renderer: Any, orientation: Orientation) -> None:
        self._renderer = renderer
        self._logic = _add_logic(stage, orientation)
        self._logic.ResizeSliceNode(*renderer.GetSize())
        self._logic.GetSliceCompositeNode().SetBackgroundVolumeID(stage.volume_node.GetID())
        self._logic.FitSliceToBackground()
        # Before the overlay: what is translucent replaces whatever is drawn later, instead of blending with it.
        renderer.AddViewProp(image_actor(self._logic))
        manager = slicer.vtkMRMLSegmentationsDisplayableManager2D()
        self._overlay = show_with(stage, renderer, self._logic.GetSliceNode(), manager)

    @property
    def slice_to_ras(self) -> NDArray[np.float64]:
        """(4, 4): columns are image right, image up, normal and centre, in the world."""
        return slicer.util.arrayFromVTKMatrix(self._logic.GetSliceNode().GetSliceToRAS())

    def turn_to_volume(self) -> None:
        """Lay the view into the slices of the volume instead of the patient's axes."""
        self._logic.RotateSliceToLowestVolumeAxes()
        self._logic.FitSliceToBackground()

    def move_to(self, offset_mm: float) -> None:
        """Cut at a distance from the world's origin along the normal."""
        self._logic.SetSliceOffset(offset_mm)
        self._logic.UpdatePipeline()

    def label(self, pen: Pen) -> None:
        """Write the patient's directions at the edges and draw a ruler."""
        width, height = self._renderer.GetSize()
        right, up = self.slice_to_ras[:3, 0], self.slice_to_ras[:3, 1]
        margin = pen.font_px * 0.4
        pen.write(direction_letters(-right), (margin, height / 2), ("left", "centre"), halo=True)
        pen.write(direction_letters(right), (width - margin, height / 2), ("right", "centre"), halo=True)
        pen.write(direction_letters(up), (width / 2, height - margin), ("centre", "top"), halo=True)
        pen.write(direction_letters(-up), (width / 2, margin), ("centre", "bottom"), halo=True)
        self._draw_ruler(pen, margin)

    def _draw_ruler(self, pen: Pen, margin: float) -> None:
        width, _ = self._renderer.GetSize()
        pixels_per_mm = width / self._logic.GetSliceNode().GetFieldOfView()[0]
        length_mm = round_length(_RULER_PART * width / pixels_per_mm)
        left, right = 2 * margin, 2 * margin + length_mm * pixels_per_mm
        thickness, edge = pen.font_px / 7, pen.font_px / 18
        pen.fill((left - edge, 2 * margin - edge, right + edge, 2 * margin + thickness + edge), BLACK)
        pen.fill((left, 2 * margin, right, 2 * margin + thickness), WHITE)
        text = f"{length_mm / 10:g} cm" if length_mm >= 10 else f"{length_mm:g} mm"
        pen.write(text, ((left + right) / 2, 2 * margin + 2 * thickness), ("centre", "bottom"), halo=True)


def round_length(length: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above a length."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(step for step in (1, 2, 5) if step * power <= length * (1 + 1e-9)) * power)


def _add_logic(stage: Stage, orientation: Orientation) -> Any:
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLApplicationLogic(stage.application_logic)
    stage.application_logic.GetSliceLogics().AddItem(logic)
    logic.SetMRMLScene(stage.scene)
    logic.AddSliceNode(orientation.layout_name).SetOrientation(orientation.preset)
    return logic


def image_actor(logic: Any) -> Any:
    """The grey or colour image: the slice logic computes it, but Slicer's window widgets are what draws it."""
    mapper = vtk.vtkImageMapper()
    mapper.SetColorWindow(255)
    mapper.SetColorLevel(127.5)
    mapper.SetInputConnection(logic.GetImageDataConnection())
    actor = vtk.vtkActor2D()
    actor.SetMapper(mapper)
    actor.GetProperty().SetDisplayLocationToBackground()
    return actor
