"""The panels of an overview: slices and surfaces, drawn by Slicer's own views."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util.numpy_support import vtk_to_numpy

from ..surfaces import CLOSED_SURFACE, add_coarse_surface
from ..terminology import Colour
from ..volumes import parent_to_world
from .legend import BLACK, WHITE, Pen, PictureSegment, direction_letters, sample
from .stage import Stage, show_with

_FILL_OPACITY = 0.35
_RULER_PART = 0.3
_OPPOSITE = str.maketrans("LRAPSI", "RLPAIS")


@dataclass(frozen=True, slots=True)
class SlicePreset:
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


AXIAL = SlicePreset("Axial", "Red")
SAGITTAL = SlicePreset("Sagittal", "Yellow")
CORONAL = SlicePreset("Coronal", "Green")


def style_segments(stage: Stage, line_px: int) -> None:
    """Translucent fields with opaque outlines of that many pixels, in every slice view."""
    display = stage.segmentation_node.GetDisplayNode()
    display.SetOpacity2DFill(_FILL_OPACITY)
    display.SetOpacity2DOutline(1.0)
    display.SetSliceIntersectionThickness(line_px)


class SlicePanel:
    """A slice view of a stage in a renderer that is already part of a window."""

    def __init__(self, stage: Stage, renderer: Any, preset: SlicePreset) -> None:
        self._renderer = renderer
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(stage.application_logic)
        stage.application_logic.GetSliceLogics().AddItem(self._logic)
        self._logic.SetMRMLScene(stage.scene)
        self._logic.AddSliceNode(preset.layout_name).SetOrientation(preset.preset)
        self._logic.ResizeSliceNode(*renderer.GetSize())
        self._logic.GetSliceCompositeNode().SetBackgroundVolumeID(stage.volume_node.GetID())
        self._logic.FitSliceToBackground()
        # Before the overlay: what is translucent replaces whatever is drawn later, instead of blending with it.
        renderer.AddViewProp(image_actor(self._logic))
        segments_2d = slicer.vtkMRMLSegmentationsDisplayableManager2D()
        self._overlay = show_with(stage, renderer, self._logic.GetSliceNode(), segments_2d)

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

    def label(self, pen: Pen, pixel_mm: float | None = None, sides: tuple[str, str] | None = None) -> None:
        """Write the patient's directions at the edges and draw a ruler.

        Args:
            pen: writes in this panel.
            pixel_mm: the side of a pixel of an image without millimetres: the ruler counts pixels then.
            sides: the letters at the right and the lower edge of an image without directions; may be empty.
        """
        width, height = self._renderer.GetSize()
        right, up = self.slice_to_ras[:3, 0], self.slice_to_ras[:3, 1]
        margin = pen.font_px * 0.4
        self._draw_ruler(pen, margin, pixel_mm)
        rightwards, downwards = sides if sides is not None else map(direction_letters, (right, -up))
        pen.write(rightwards.translate(_OPPOSITE), (margin, height / 2), ("left", "centre"), halo=True)
        pen.write(rightwards, (width - margin, height / 2), ("right", "centre"), halo=True)
        pen.write(downwards.translate(_OPPOSITE), (width / 2, height - margin), ("centre", "top"), halo=True)
        pen.write(downwards, (width / 2, margin), ("centre", "bottom"), halo=True)

    def _draw_ruler(self, pen: Pen, margin: float, pixel_mm: float | None) -> None:
        width, _ = self._renderer.GetSize()
        scale = width / self._logic.GetSliceNode().GetFieldOfView()[0] * (pixel_mm or 1.0)
        length = round_length(_RULER_PART * width / scale)
        left, right = 2 * margin, 2 * margin + length * scale
        thickness, edge = pen.font_px / 7, pen.font_px / 18
        pen.fill((left - edge, 2 * margin - edge, right + edge, 2 * margin + thickness + edge), BLACK)
        pen.fill((left, 2 * margin, right, 2 * margin + thickness), WHITE)
        if pixel_mm is not None:
            text = f"{length:g} pixels"
        else:
            text = f"{length / 10:g} cm" if length >= 10 else f"{length:g} mm"
        pen.write(text, ((left + right) / 2, 2 * margin + 2 * thickness), ("centre", "bottom"), halo=True)


def round_length(length: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above a length."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(step for step in (1, 2, 5) if step * power <= length * (1 + 1e-9)) * power)


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


_SEE_THROUGH = 0.3
# A segment counts as hidden where another is in front of this part of it, on a raster of so many cells a side.
_HIDDEN = 0.75
_CELLS = 32
_SEEN_POINTS = 10_000
# From anterior, a little from above and from the patient's left: the patient's right is on the left.
_AZIMUTH, _ELEVATION = np.radians(18.0), np.radians(15.0)
# Twice that many layers: enough for a segment within a segment within a segment.
_PEELS = 2
_FILLED = 0.92
# Steps of five per cent; at the last, an eighth of the size, a legend of most of the panel has been passed.
_SMALLER = 40
_PLACED_POINTS = 5_000


def view_axes() -> NDArray[np.float64]:
    """(3, 3): rows are image right, image up and towards the viewer, unit vectors in the world."""
    right = np.array([-np.cos(_AZIMUTH), -np.sin(_AZIMUTH), 0.0])
    front = np.array([-np.sin(_AZIMUTH), np.cos(_AZIMUTH), 0.0])
    towards = np.cos(_ELEVATION) * front + np.sin(_ELEVATION) * np.array([0.0, 0.0, 1.0])
    return np.array([right, np.cross(towards, right), towards])


def show_surfaces(stage: Stage, segments: Sequence[PictureSegment]) -> NDArray[np.float64]:
    """Give every segment of the stage its surface, and let those be seen through that hide others.

    Returns:
        (N, 3) float64: the corners of all surfaces in the world; for a segment without any, its voxels. (0, 3) without
        segments.
    """
    display, to_world = stage.segmentation_node.GetDisplayNode(), parent_to_world(stage.segmentation_node)
    display.SetPreferredDisplayRepresentationName3D(CLOSED_SURFACE)
    for segment_id in see_through(segments, view_axes()):
        display.SetSegmentOpacity3D(segment_id, _SEE_THROUGH)
    points = [np.empty((0, 3))]
    for segment in segments:
        surface = add_coarse_surface(stage.segmentation_node.GetSegmentation().GetSegment(segment.segment_id))
        if surface.GetNumberOfPoints():
            corners = vtk_to_numpy(surface.GetPoints().GetData())
            points.append(corners @ to_world[:3, :3].T + to_world[:3, 3])
        else:
            points.append(segment.points_ras)
    return np.concatenate(points)


def see_through(segments: Sequence[PictureSegment], view_axes: NDArray[np.float64]) -> frozenset[str]:
    """The ids of the segments to draw translucent, so that those behind or inside them are seen.

    That is every segment that hides three quarters of a smaller one from the viewer, and every segment at least
    half as large as the smallest of those: with a nodule in one lung, both lungs.

    Args:
        segments: the segments.
        view_axes: (3, 3), rows are image right, image up and towards the viewer, unit vectors in the world.
    """
    if not segments:
        return frozenset()
    views = [sample(segment.points_ras, _SEEN_POINTS) @ view_axes.T for segment in segments]
    low = np.min([view.min(axis=0) for view in views], axis=0)
    span = np.max([view.max(axis=0) for view in views], axis=0) - low
    cell = max(float(span[:2].max()) / _CELLS, 1e-6)
    cells = [((view[:, :2] - low[:2]) / cell).astype(np.int64) for view in views]
    fronts = [_front(cell_xy, view[:, 2]) for cell_xy, view in zip(cells, views, strict=True)]
    hiding = [
        outer.volume_mm3
        for outer, front in zip(segments, fronts, strict=True)
        for inner, cell_xy, view in zip(segments, cells, views, strict=True)
        if inner.volume_mm3 < outer.volume_mm3 and (front[cell_xy[:, 0], cell_xy[:, 1]] > view[:, 2]).mean() > _HIDDEN
    ]
    return frozenset(segment.segment_id for segment in segments if hiding and segment.volume_mm3 >= min(hiding) / 2)


def _front(cells: NDArray[np.int64], depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """The part of a segment that is nearest to the viewer, on a square raster; -inf beside it."""
    nearest = np.full((_CELLS + 1, _CELLS + 1), -np.inf)
    np.maximum.at(nearest, (cells[:, 0], cells[:, 1]), depth)
    return nearest


class SurfacePanel:
    """The surfaces of a stage in a renderer that is already part of a window, seen from the front."""

    def __init__(self, stage: Stage, renderer: Any) -> None:
        self._renderer = renderer
        view_node = slicer.vtkMRMLViewNode()
        view_node.SetLayoutName("1")
        view_node.SetBoxVisible(False)
        view_node.SetAxisLabelsVisible(False)
        self._group = show_with(
            stage,
            renderer,
            stage.scene.AddNode(view_node),
            slicer.vtkMRMLCameraDisplayableManager(),  # the next one crashes without it
            slicer.vtkMRMLViewDisplayableManager(),
            slicer.vtkMRMLSegmentationsDisplayableManager3D(),
        )
        vtk.vtkLightKit().AddLightsToRenderer(renderer)
        # Translucent surfaces in their true order.
        renderer.SetUseDepthPeeling(True)
        renderer.SetMaximumNumberOfPeels(_PEELS)
        renderer.SetOcclusionRatio(0.0)

    def fit(self, points: NDArray[np.float64], legend: tuple[float, float]) -> None:
        """Turn the camera, and fill what a legend of that width and height in the upper left corner leaves free."""
        _, up, towards = view_axes()
        camera = self._renderer.GetActiveCamera()
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        camera.SetFocalPoint(*middle)
        camera.SetPosition(*(middle + towards))
        camera.SetViewUp(*up)
        self._renderer.ResetCamera(*np.stack([points.min(axis=0), points.max(axis=0)], axis=1).ravel())
        corner = 2 * np.array(legend) / self._renderer.GetSize()
        centre, zoom = fit_beside(self._project(sample(points, _PLACED_POINTS)), (corner[0], corner[1]))
        camera.Zoom(zoom)
        camera.SetWindowCenter(*centre)
        self._renderer.ResetCameraClippingRange()

    def _project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Project points: (N, 3) in the world to (N, 2) in -1..1 across the panel."""
        aspect = self._renderer.GetTiledAspectRatio()
        camera = self._renderer.GetActiveCamera()
        matrix = slicer.util.arrayFromVTKMatrix(camera.GetCompositeProjectionTransformMatrix(aspect, -1, 1))
        drawn = points @ matrix[:, :3].T + matrix[:, 3]
        return drawn[:, :2] / drawn[:, 3:]


def fit_beside(drawn: NDArray[np.float64], corner: tuple[float, float]) -> tuple[NDArray[np.float64], float]:
    """The largest zoom, and the nearest place to the middle, at which points keep clear of the upper left corner.

    Args:
        drawn: (N, 2), where the points are now, in -1..1 across the panel and up.
        corner: width and height of what is there, in the same unit.

    Returns:
        The camera's window centre, (2,), and the factor to zoom by.
    """
    middle, extent = (drawn.min(axis=0) + drawn.max(axis=0)) / 2, np.maximum(np.ptp(drawn, axis=0), 1e-6)
    largest = _FILLED * float((2 / extent).min())
    for zoom in largest * 0.95 ** np.arange(_SMALLER):
        slack = np.maximum(0, 1 - extent * zoom / 2 / _FILLED)
        for right, down in sorted(product(np.linspace(0, 1, 9), repeat=2), key=lambda part: sum(part)):
            target = slack * (right, -down)
            moved = (drawn - middle) * zoom + target
            if not ((moved[:, 0] < corner[0] - 1) & (moved[:, 1] > 1 - corner[1])).any():
                return middle * zoom - target, zoom
    return middle * largest, largest


def label_sides(pen: Pen) -> None:
    """Write which side of the patient is left and right in the lower corners of a panel."""
    width, _ = pen.renderer.GetSize()
    margin, right = pen.font_px * 0.4, view_axes()[0]
    pen.write(direction_letters(-right), (margin, margin), ("left", "bottom"), halo=True)
    pen.write(direction_letters(right), (width - margin, margin), ("right", "bottom"), halo=True)
