"""A 3-D view: the closed surfaces of the segments in one renderer."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from .labels import Pen, direction_letters
from .stage import Stage, show_with
from .subjects import Subject, sample, see_through
from .surfaces import CLOSED_SURFACE

_SEE_THROUGH = 0.3
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


def style_surfaces(stage: Stage, subjects: Sequence[Subject]) -> None:
    """Show surfaces, and let those be seen through that hide others."""
    display = stage.segmentation_node.GetDisplayNode()
    display.SetPreferredDisplayRepresentationName3D(CLOSED_SURFACE)
    for segment_id in see_through(subjects, view_axes()):
        display.SetSegmentOpacity3D(segment_id, _SEE_THROUGH)


class SurfacePanel:
    """The surfaces of a stage in a renderer that is already part of a window, seen from the front."""

    def __init__(self, stage: Stage, renderer: Any) -> None:
        self._renderer = renderer
        self._group = show_with(
            stage,
            renderer,
            _add_view_node(stage),
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
        place, zoom = fit_beside(self._project(sample(points, _PLACED_POINTS)), (corner[0], corner[1]))
        camera.Zoom(zoom)
        camera.SetWindowCenter(*place)
        self._renderer.ResetCameraClippingRange()

    def _project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where points are drawn: (N, 3) in the world to (N, 2) in -1..1 across the panel."""
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


def _add_view_node(stage: Stage) -> Any:
    node = slicer.vtkMRMLViewNode()
    node.SetLayoutName("1")
    node.SetBoxVisible(False)
    node.SetAxisLabelsVisible(False)
    return stage.scene.AddNode(node)


def label_sides(pen: Pen) -> None:
    """Write which side of the patient is left and right in the lower corners of a panel."""
    width, _ = pen.renderer.GetSize()
    margin, right = pen.font_px * 0.4, view_axes()[0]
    pen.write(direction_letters(-right), (margin, margin), ("left", "bottom"), halo=True)
    pen.write(direction_letters(right), (width - margin, margin), ("right", "bottom"), halo=True)
