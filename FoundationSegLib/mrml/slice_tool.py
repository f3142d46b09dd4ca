"""The slice tool: the mouse in slice views becomes prompts (press, drag, release). VTK's events only, no Qt."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from numpy.typing import ArrayLike, NDArray

from ..codec import frozen
from ..errors import FoundationSegError, GeometryError, InputError
from ..prompts.kinds import Polarity, Prompt
from . import gestures
from .prompt_nodes import COLOURS
from .scene import Observers
from .volumes import geometry_from_node, parent_to_world


@frozen(eq=False)
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

    def renderer_at(self, event_position: gestures.Pixel) -> Any:
        """The renderer under a place of the window, as Slicer finds it (vtkMRMLViewInteractorStyle); None outside."""
        return self.interactor.FindPokedRenderer(*(round(n) for n in event_position))

    def shows(self, volume_node: Any) -> bool:
        """True where the volume is in the background, or in a foreground that is not fully transparent."""
        composite, volume_id = self.composite_node, volume_node.GetID()
        if volume_id is None:
            return False
        in_front = composite.GetForegroundVolumeID() == volume_id and composite.GetForegroundOpacity() > 0
        return in_front or composite.GetBackgroundVolumeID() == volume_id

    def plane(self, volume_node: Any) -> gestures.ViewPlane:
        """The plane in which the view cuts the volume, in the volume's own RAS, before its parent transforms.

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
        return gestures.ViewPlane(xy_to_ras, (width, height), geometry_from_node(volume_node))


def slice_view(slice_logic: Any, interactor: Any, request_render: Callable[[], None] | None = None) -> SliceView:
    """The view of a ``vtkMRMLSliceLogic``; in Slicer, ``sliceWidget.sliceLogic()`` and ``sliceView().interactor()``."""
    return SliceView(interactor, slice_logic.GetSliceNode(), slice_logic.GetSliceCompositeNode(), request_render)


Line = NDArray[np.float64]

_RADIUS_PX = 8.0
_SIGN_PX = 4.5
_DASH_PX, _GAP_PX = 9.0, 6.0
_CIRCLE = np.linspace(0.0, 2 * np.pi, 25)
_DARK = (0.0, 0.0, 0.0)


def preview_lines(gesture: gestures.Gesture, view: gestures.ViewPlane) -> list[Line]:
    """The lines that show an unfinished gesture, each (N, 2) in pixels of the view.

    A point is a circle with a plus or a minus, a box the borders of the voxels it holds, a scribble its path, a lasso
    its closed path. Lines of negative prompts are dashed, so that colour is not all that tells them apart.
    """
    if gesture.kind == "point":
        return _sign(gesture.path[0], gesture.polarity)
    path = gestures.box_outline(gesture.path, view) if gesture.kind == "box" else np.asarray(gesture.path)
    if gesture.kind != "scribble":
        path = np.concatenate([path, path[:1]])
    return _dashes(path) if gesture.polarity is Polarity.NEGATIVE else [path]


def _sign(at: tuple[float, float], polarity: Polarity) -> list[Line]:
    centre = np.asarray(at)
    circle = centre + _RADIUS_PX * np.column_stack([np.cos(_CIRCLE), np.sin(_CIRCLE)])
    across = centre + np.array([[-_SIGN_PX, 0.0], [_SIGN_PX, 0.0]])
    upright = centre + np.array([[0.0, -_SIGN_PX], [0.0, _SIGN_PX]])
    return [circle, across] if polarity is Polarity.NEGATIVE else [circle, across, upright]


def _dashes(path: Line) -> list[Line]:
    """A path cut into dashes; VTK's own stipples are not drawn in two dimensions."""
    reached = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    dashes = []
    for start in np.arange(0.0, reached[-1], _DASH_PX + _GAP_PX):
        end = min(start + _DASH_PX, reached[-1])
        within = reached[(reached > start) & (reached < end)]
        stops = np.concatenate([[start], within, [end]])
        dashes.append(np.column_stack([np.interp(stops, reached, path[:, n]) for n in range(2)]))
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
            numbers = [points.InsertNextPoint(float(x), float(y), 0.0) for x, y in line]
            for start, end in pairwise(numbers):
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


# As near as a mouse has to come to a control point; who starts a box beside a corner means a new one.
_HANDLE_PX = 5.0
_ON_SLICE_MM = 0.5
_INTERACTION = "vtkMRMLInteractionNodeSingleton"


class SliceTool:
    """Listens to slice views while it is enabled, and hands finished prompts to a callback.

    Ctrl turns the polarity round; on macOS it is Cmd, because Qt calls that key Ctrl there (QVTKInteractorAdapter
    passes ``Qt::ControlModifier`` on). A view that shows another volume, and every view while the user
    places markups with Slicer's own tool are left alone. It stops by itself when its volume or the scene goes.

    Attributes:
        handles: returns the points of prompts that may be dragged, (N, 3), RAS mm: a press there is Slicer's.
        on_hover: told when the mouse comes to one of them in a view, or leaves it.

    Args:
        on_prompt: gets each prompt: RAS in mm of the volume before its parent transforms, with polarity and plane.
        on_refused: gets the error of a gesture that meant no prompt, among them a `GeometryError` where the volume
            is under a transform that is not linear, and those that ``on_prompt`` raised.
    """

    def __init__(
        self, on_prompt: Callable[[Prompt], None], on_refused: Callable[[FoundationSegError], None] | None = None
    ) -> None:
        self._on_prompt = on_prompt
        self.refuse = on_refused or (lambda error: None)
        self._kind: gestures.ToolKind = "point"
        self._volume_node: Any = None
        self._views: list[_ListeningView] = []
        self._observers = Observers()
        self._scene: Any = None
        self.polarity = Polarity.POSITIVE
        self.radius_mm: float | None = None
        self.handles: Callable[[], ArrayLike] = tuple
        self.on_hover: Callable[[SliceView, bool], None] = lambda view, is_over: None

    @property
    def is_enabled(self) -> bool:
        """True while the mouse draws prompts."""
        return self._volume_node is not None

    @property
    def kind(self) -> gestures.ToolKind:
        """The kind of prompt that the mouse draws; setting it cancels a gesture under way."""
        return self._kind

    @kind.setter
    def kind(self, kind: gestures.ToolKind) -> None:
        self.cancel()
        self._kind = kind

    def enable(self, volume_node: Any, views: Iterable[SliceView], kind: gestures.ToolKind | None = None) -> None:
        """Draw prompts on a volume in these views, and in no others; call again when the layout has changed."""
        self.disable()
        self._kind = kind or self._kind
        self._volume_node = volume_node
        self._scene = volume_node.GetScene()
        self._views = [_ListeningView(view, self) for view in views]
        self._observers.add_for_nodes(self._scene, slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, self._node_removed)
        self._observers.add(self._scene, slicer.vtkMRMLScene.StartCloseEvent, self.disable)

    def disable(self) -> None:
        """Leave the mouse to Slicer; a gesture under way is cancelled."""
        for view in self._views:
            view.stop()
        self._observers.remove()
        self._views, self._scene, self._volume_node = [], None, None

    def cancel(self) -> None:
        """Forget the gesture under way, if there is one."""
        for view in self._views:
            view.cancel()

    def polarity_for(self, ctrl: bool) -> Polarity:
        """The polarity of a prompt that a press begins now."""
        if not ctrl:
            return self.polarity
        return Polarity.POSITIVE if self.polarity is Polarity.NEGATIVE else Polarity.NEGATIVE

    def plane_of(self, view: SliceView) -> gestures.ViewPlane | None:
        """The plane in which a view cuts the volume; None where the tool does not act.

        Raises:
            InputError: the volume has lost its image.
            GeometryError: a parent transform of the volume is not linear, or a matrix cannot be inverted.
        """
        if self._volume_node is None or self._is_placing_markups() or not view.shows(self._volume_node):
            return None
        return view.plane(self._volume_node)

    def finish(self, gesture: gestures.Gesture, plane: gestures.ViewPlane) -> None:
        """Hand a finished gesture on as a prompt."""
        try:
            self._on_prompt(gestures.prompt_of(gesture, plane, self.radius_mm))
        except FoundationSegError as error:
            self.refuse(error)

    def _is_placing_markups(self) -> bool:
        node = self._scene.GetNodeByID(_INTERACTION)
        return node is not None and node.GetCurrentInteractionMode() == slicer.vtkMRMLInteractionNode.Place

    def _node_removed(self, node: Any) -> None:
        if node is self._volume_node:
            self.disable()
            return
        for view in [view for view in self._views if view.uses(node)]:
            view.stop()
            self._views.remove(view)


class _ListeningView:
    """The observers of one slice view, and the gesture that is drawn in it."""

    def __init__(self, view: SliceView, tool: SliceTool) -> None:
        self._view = view
        self._tool = tool
        self._state: gestures.State = gestures.Idle()
        self._plane: gestures.ViewPlane | None = None
        self._renderer: Any = None
        self._preview: Preview | None = None
        self._is_hovering = False
        self._observers = Observers()
        for event, react, *arguments in (
            ("LeftButtonPressEvent", self._pressed, False),
            # For the second press of a double click, Qt sends this event and no press (QVTKInteractorAdapter).
            ("LeftButtonDoubleClickEvent", self._pressed, True),
            ("MouseMoveEvent", self._moved),
            ("LeftButtonReleaseEvent", self._released),
            ("KeyPressEvent", self._key_pressed),
            ("RightButtonPressEvent", self._interrupted),
            ("MiddleButtonPressEvent", self._interrupted),
            ("MouseWheelForwardEvent", self._interrupted),
            ("MouseWheelBackwardEvent", self._interrupted),
        ):
            self._observers.add_first(view.interactor, event, react, *arguments)

    def uses(self, node: Any) -> bool:
        return node is self._view.slice_node or node is self._view.composite_node

    def stop(self) -> None:
        self.cancel()
        self._observers.remove()

    def cancel(self) -> None:
        self._apply(gestures.cancel(self._state))

    def _pressed(self, repeated: bool) -> bool:
        interactor, state = self._view.interactor, self._state
        has_modifier = bool(interactor.GetShiftKey() or interactor.GetAltKey())
        if self._is_drawing() and isinstance(state, gestures.Drawing) and state.is_hovering and not has_modifier:
            return self._apply(gestures.press_again(state, self._pixel()))
        self._tool.cancel()  # in all views: a first corner may wait in another one
        self._state = gestures.Idle()
        if has_modifier:
            return False
        try:
            self._plane = self._tool.plane_of(self._view)
        except FoundationSegError as error:
            self._tool.refuse(error)
            return True
        self._renderer = self._view.renderer_at(interactor.GetEventPosition())
        if self._plane is None or self._renderer is None:
            return False
        if not interactor.GetControlKey() and self._is_over_handle(self._pixel()):
            self._plane = self._renderer = None
            return False  # Slicer moves it
        polarity = self._tool.polarity_for(bool(interactor.GetControlKey()))
        return self._apply(gestures.press(self._tool.kind, polarity, self._pixel(), repeated))

    def _moved(self) -> bool:
        if isinstance(self._state, gestures.Idle):
            self._hover()
        return self._is_drawing() and self._apply(gestures.move(self._state, self._pixel()))

    def _hover(self) -> None:
        """Tell whether a press would move a point of a prompt, or draw, where that has changed."""
        interactor, is_over = self._view.interactor, False
        with suppress(FoundationSegError):
            self._plane = self._tool.plane_of(self._view)
            self._renderer = self._view.renderer_at(interactor.GetEventPosition())
            if self._plane is not None and self._renderer is not None:
                is_over = self._is_over_handle(self._pixel())
        self._plane = self._renderer = None
        if is_over != self._is_hovering:
            self._is_hovering = is_over
            self._tool.on_hover(self._view, is_over)

    def _is_over_handle(self, pixel: gestures.Pixel) -> bool:
        """True where the mouse is on a point of a prompt that can be dragged."""
        points = np.asarray(self._tool.handles(), np.float64).reshape(-1, 3)
        if self._plane is None or not len(points):
            return False
        on_slice = self._plane.distances_mm(points) <= _ON_SLICE_MM
        near = np.linalg.norm(self._plane.pixels(points) - pixel, axis=1) <= _HANDLE_PX
        return bool((on_slice & near).any())

    def _released(self) -> bool:
        return self._apply(gestures.release(self._state, self._pixel() if self._is_drawing() else (0.0, 0.0)))

    def _key_pressed(self) -> bool:
        return self._view.interactor.GetKeySym() == "Escape" and self._apply(gestures.cancel(self._state))

    def _interrupted(self) -> bool:
        """Another button or the wheel during a gesture: it is cancelled, and the view stays where it is."""
        return self._apply(gestures.cancel(self._state))

    def _is_drawing(self) -> bool:
        """True during a gesture; one whose view has changed in the meantime is cancelled."""
        if not isinstance(self._state, gestures.Drawing) or self._plane is None:
            return False
        try:
            plane = self._tool.plane_of(self._view)
        except FoundationSegError:
            plane = None
        if plane is None or not plane.is_same(self._plane):
            self.cancel()
        return isinstance(self._state, gestures.Drawing)

    def _pixel(self) -> gestures.Pixel:
        """The mouse in pixels of the view, whose renderer may begin elsewhere than the window."""
        x, y = self._view.interactor.GetEventPosition()
        left, bottom = self._renderer.GetOrigin()
        return self._plane.clamped((x - left, y - bottom)) if self._plane else (x, y)

    def _apply(self, reaction: gestures.Reaction) -> bool:
        plane, self._state = self._plane, reaction.state
        self._show()
        if reaction.is_mere_click:
            shape = "outline" if self._tool.kind == "lasso" else "box"
            self._tool.refuse(InputError(f"nothing was drawn: press, drag the {shape} around the object, and let go"))
        if reaction.finished is not None and plane is not None:
            # Last, because the callback may do anything, also disable this tool.
            self._tool.finish(reaction.finished, plane)
        return reaction.swallow

    def _show(self) -> None:
        if isinstance(self._state, gestures.Drawing) and self._plane is not None:
            if self._preview is None:
                self._preview = Preview(self._renderer)
            gesture = self._state.gesture
            self._preview.show(preview_lines(gesture, self._plane), gesture.polarity)
        elif self._preview is not None:
            self._preview.remove()
            self._preview = self._renderer = self._plane = None
        else:
            return
        self._view.render()
