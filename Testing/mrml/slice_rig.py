"""A slice view as Slicer has it, off screen: logic, window, interactor, Slicer's own interaction style and managers."""

import numpy as np
import slicer
import vtk

from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.rendering.panels import image_actor
from FoundationSegLib.mrml.rendering.stage import draw, open_window, write_png
from FoundationSegLib.mrml.slice_tool import SliceTool, slice_view
from FoundationSegLib.mrml.volumes import add_volume_node

MANAGERS = ("vtkMRMLCrosshairDisplayableManager", "vtkMRMLScalarBarDisplayableManager")


class SliceRig:
    """One view, and a mouse and a keyboard to use it with.

    ``viewport`` is where the view's renderer lies in the window, as a part of it: left, bottom, right, top. Without
    ``style`` Slicer does not react to the mouse: its own reactions crash once the slice node is gone.
    """

    def __init__(
        self, headless, size=(400, 300), name="Red", viewport=(0, 0, 1, 1), managers=MANAGERS, draws=False, style=True
    ):
        self.scene = headless.scene
        application = headless.application_logic
        if application.GetSliceLogics() is None:
            application.SetSliceLogics(vtk.vtkCollection())
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(application)
        application.GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(self.scene)
        self.slice_node = self.logic.AddSliceNode(name)
        self.slice_node.SetOrientation("Axial")
        self.composite_node = self.logic.GetSliceCompositeNode()
        self.window = open_window(*size)
        self.renderer = vtk.vtkRenderer()
        self.renderer.SetViewport(*viewport)
        self.window.AddRenderer(self.renderer)
        self.interactor = self.window.GetInteractor()
        self.interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self.logic.ResizeSliceNode(*self.renderer.GetSize())
        self.draws = draws
        self.group = slicer.vtkMRMLDisplayableManagerGroup()
        self.group.SetRenderer(self.renderer)
        for manager in managers:
            made = getattr(slicer, manager)()
            made.SetMRMLApplicationLogic(application)
            self.group.AddDisplayableManager(made)
        self.group.SetMRMLDisplayableNode(self.slice_node)
        self.style = slicer.vtkMRMLSliceViewInteractorStyle()
        self.style.SetSliceLogic(self.logic)
        self.style.SetDisplayableManagers(self.group)
        if style:
            self.style.SetInteractor(self.interactor)
        self.renders = 0
        self.view = slice_view(self.logic, self.interactor, self._rendered)

    def _rendered(self):
        self.renders += 1

    def show(self, volume_node, fit=True):
        self.composite_node.SetBackgroundVolumeID(volume_node.GetID() if volume_node else None)
        if fit:
            self.logic.FitSliceToBackground()
        if self.draws:
            # Slicer's view widget does this; the connection is there once there is a volume.
            self.renderer.AddViewProp(image_actor(self.logic))
            self.draws = False

    def event(self, name, at=None, ctrl=False, shift=False, alt=False, key=None):
        """``at`` is in pixels of the view."""
        if at is not None:
            left, bottom = self.renderer.GetOrigin()
            place = round(at[0] + left), round(at[1] + bottom)
            self.interactor.SetEventInformation(*place, ctrl, shift)
        self.interactor.SetAltKey(alt)
        if key:
            self.interactor.SetKeyEventInformation(ctrl, shift, "\0", 0, key)
        self.interactor.InvokeEvent(name)

    def press(self, at, **keys):
        self.event("MouseMoveEvent", at, **keys)
        self.event("LeftButtonPressEvent", at, **keys)

    def release(self, at, **keys):
        self.event("LeftButtonReleaseEvent", at, **keys)

    def drag(self, *way, **keys):
        self.press(way[0], **keys)
        for at in way[1:]:
            self.event("MouseMoveEvent", at, **keys)
        self.release(way[-1], **keys)

    def lines(self):
        """The number of the tool's actors in the view that draw lines."""
        props = self.renderer.GetViewProps()
        found = [props.GetItemAsObject(n) for n in range(props.GetNumberOfItems())]
        return sum(
            prop.IsA("vtkActor2D")
            and isinstance(prop.GetMapper(), vtk.vtkPolyDataMapper2D)
            and prop.GetMapper().GetInput() is not None
            and prop.GetProperty().GetLineWidth() in (2.0, 4.0)
            for prop in found
        )

    def picture(self, path):
        self.logic.UpdatePipeline()
        pixels = draw(self.window)
        write_png(path, pixels)
        return pixels.astype(int)


def add_volume(scene, shape=(40, 50, 60)):
    """60 x 50 x 80 mm along the patient's left, posterior and superior, from the origin."""
    voxels = np.arange(np.prod(shape), dtype=np.int32).reshape(shape) % 999
    return add_volume_node(scene, Volume(voxels, Geometry(np.diag([-1.0, -1, 2, 1]), shape), name="CT"))


class UsedTool:
    """A tool, and what it handed on."""

    def __init__(self):
        self.prompts, self.errors = [], []
        self.tool = SliceTool(self.prompts.append, self.errors.append)
