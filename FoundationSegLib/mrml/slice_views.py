"""Slicer's slice views as the tool sees them: an interactor, a slice node, a composite node."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer.util

from ..core.errors import GeometryError
from .gestures import Pixel
from .view_plane import ViewPlane
from .volumes import geometry_from_node, parent_to_world


@dataclass(frozen=True, eq=False, slots=True)
class SliceView:
    """One slice view.

    Attributes:
        interactor: the ``vtkRenderWindowInteractor`` of its window.
        slice_node: the ``vtkMRMLSliceNode``.
        composite_node: the ``vtkMRMLSliceCompositeNode``: which volumes it shows.
        request_render: draws the view soon, in Slicer ``sliceWidget.sliceView().scheduleRender``; unless given, the
            window is drawn at once.
    """

    interactor: Any
    slice_node: Any
    composite_node: Any
    request_render: Callable[[], None] | None = None

    def render(self) -> None:
        """Show what has changed."""
        if self.request_render is not None:
            self.request_render()
        elif (window := self.interactor.GetRenderWindow()) is not None:
            window.Render()

    def renderer_at(self, event_position: Pixel) -> Any:
        """The renderer under a place of the window, as Slicer finds it (vtkMRMLViewInteractorStyle); None outside."""
        return self.interactor.FindPokedRenderer(*(round(n) for n in event_position))

    def shows(self, volume_node: Any) -> bool:
        """True where the volume is in the background, or in a foreground that is not fully transparent."""
        shown, volume_id = self.composite_node, volume_node.GetID()
        if volume_id is None:
            return False
        in_front = shown.GetForegroundVolumeID() == volume_id and shown.GetForegroundOpacity() > 0
        return in_front or shown.GetBackgroundVolumeID() == volume_id

    def plane(self, volume_node: Any) -> ViewPlane:
        """Where the view cuts the volume, in the volume's own RAS, before its parent transforms.

        Raises:
            InputError: the volume holds no image.
            GeometryError: a parent transform is not linear, or a matrix cannot be inverted.
        """
        xy_to_world = slicer.util.arrayFromVTKMatrix(self.slice_node.GetXYToRAS())
        try:
            xy_to_ras = np.linalg.inv(parent_to_world(volume_node)) @ xy_to_world
        except np.linalg.LinAlgError:
            name = volume_node.GetName()
            raise GeometryError(f"the parent transform of '{name}' flattens space: take the volume out of it") from None
        width, height, _ = self.slice_node.GetDimensions()
        return ViewPlane(xy_to_ras, (width, height), geometry_from_node(volume_node))


def slice_view(slice_logic: Any, interactor: Any, request_render: Callable[[], None] | None = None) -> SliceView:
    """The view of a ``vtkMRMLSliceLogic``; in Slicer, ``sliceWidget.sliceLogic()`` and ``sliceView().interactor()``."""
    return SliceView(interactor, slice_logic.GetSliceNode(), slice_logic.GetSliceCompositeNode(), request_render)
