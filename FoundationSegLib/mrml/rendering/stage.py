"""The stage: an off-screen window and the scene set up for a picture."""

import ctypes.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from ...errors import InputError, OutputError, write_failure
from ..labelmaps import BINARY_LABELMAP
from ..volumes import parent_to_world


def open_window(width: int, height: int) -> Any:
    """A ``vtkRenderWindow`` that draws off screen, without a display server.

    Raises:
        OutputError: this machine offers no OpenGL. Found out here because VTK itself would crash on the first frame.
    """
    with _silent_log():
        window = _window_class(os.environ.get("VTK_DEFAULT_OPENGL_WINDOW"))()
    # VTK tries X, then EGL, and ends with OSMesa whether that library exists or not; it is rarely installed.
    if window.IsA("vtkOSOpenGLRenderWindow") and ctypes.util.find_library("OSMesa") is None:
        raise OutputError(
            "the picture cannot be rendered: neither a display nor EGL is available; "
            "install Mesa's EGL (on Debian and Ubuntu: apt-get install libegl1 libgl1 libgl1-mesa-dri)"
        )
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(0)  # depth peeling needs single samples; edges are smoothed by drawing larger
    window.SetAlphaBitPlanes(1)
    window.SetSize(width, height)
    window.SetInteractor(vtk.vtkGenericRenderWindowInteractor())  # without one, displayable managers crash
    return window


@cache
def _window_class(_chosen: str | None) -> Any:
    """VTK's window for this machine, or of the class that the user chose; trying the display servers takes 30 ms."""
    return type(vtk.vtkRenderWindow())


@contextmanager
def _silent_log() -> Iterator[None]:
    """Keep VTK's log off the terminal: it warns of every display server that is not there."""
    before = vtk.vtkLogger.GetCurrentVerbosityCutoff()
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
    try:
        yield
    finally:
        vtk.vtkLogger.SetStderrVerbosity(before)


@dataclass(frozen=True, slots=True)
class PanelFrame:
    """One panel of the picture: a window with a view and, above it, a bar in the view's colour.

    Attributes:
        window: the ``vtkRenderWindow``.
        view: the ``vtkRenderer`` below the bar.
        bar: the ``vtkRenderer`` of the bar.
    """

    window: Any
    view: Any
    bar: Any


def open_frame(width: int, height: int, bar_height: int, colour: tuple[float, float, float]) -> PanelFrame:
    """A window of that many pixels, divided.

    Raises:
        OutputError: this machine offers no OpenGL.
    """
    window = open_window(width, height)
    split = 1 - bar_height / height
    view, bar = vtk.vtkRenderer(), vtk.vtkRenderer()
    view.SetViewport(0, 0, 1, split)
    bar.SetViewport(0, split, 1, 1)
    bar.SetBackground(*colour)
    for renderer in (view, bar):
        window.AddRenderer(renderer)
    return PanelFrame(window, view, bar)


def draw(window: Any) -> NDArray[np.uint8]:
    """Draw one frame; (height, width, 3) red, green, blue, first row at the top."""
    window.Render()
    pixels = vtk.vtkUnsignedCharArray()
    width, height = window.GetSize()
    window.GetRGBACharPixelData(0, 0, width - 1, height - 1, 1, pixels)
    return vtk_to_numpy(pixels).reshape(height, width, 4)[::-1, :, :3]


def shrink(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """The mean of every ``factor`` x ``factor`` pixels; (height, width, 3) in, both sides divided out."""
    height, width, colours = pixels.shape
    blocks = pixels.reshape(height // factor, factor, width // factor, factor, colours)
    area = factor * factor
    return ((blocks.sum(axis=(1, 3), dtype=np.uint16) + area // 2) // area).astype(np.uint8)


def encoded(pixels: NDArray[np.uint8], writer: Any = None) -> bytes:
    """Return (height, width, 3) colours, first row at the top, as a PNG's bytes, or as another writer has them."""
    height, width, colours = pixels.shape
    image = vtk.vtkImageData()
    image.SetDimensions(width, height, 1)
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(pixels[::-1]).reshape(-1, colours)))
    writer = writer or vtk.vtkPNGWriter()
    writer.WriteToMemoryOn()
    writer.SetInputData(image)
    writer.Write()
    return vtk_to_numpy(writer.GetResult()).tobytes()


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write (height, width, 3) colours, first row at the top.

    Raises:
        OutputError: the folder is missing or cannot be written to.
    """
    picture = encoded(pixels)
    # Through Python, because VTK reports a failure on the terminal only.
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise OutputError(f"the picture cannot be written to {path.name}: {write_failure(error)}") from error


# Above so many voxels, bringing two layers together takes longer than drawing both.
_WORTH_COLLAPSING = 20_000_000


@dataclass(frozen=True, slots=True)
class Stage:
    """The scene that the views show. Keep it as long as they draw.

    Attributes:
        scene: a private ``vtkMRMLScene``.
        application_logic: its ``vtkMRMLApplicationLogic``.
        volume_node: shares the voxels of the user's volume; has its own display.
        segmentation_node: a copy of the user's segmentation, with its own display.
    """

    scene: Any
    application_logic: Any
    volume_node: Any
    segmentation_node: Any


def set_stage(volume_node: Any, segmentation_node: Any, low: float | None, high: float | None) -> Stage:
    """Copy two nodes, where they are in the world, into a scene of their own.

    Raises:
        InputError: the volume has no voxels, or the segmentation no label maps and nothing to make them from.
        GeometryError: a parent transform is not linear.
    """
    if volume_node.GetImageData() is None:
        raise InputError("the volume is empty: there is nothing to draw")
    scene = slicer.vtkMRMLScene()
    application_logic = slicer.vtkMRMLApplicationLogic()
    application_logic.SetMRMLScene(scene)
    application_logic.SetSliceLogics(vtk.vtkCollection())
    return Stage(
        scene,
        application_logic,
        _copy_volume(scene, volume_node, low, high),
        _copy_segmentation(scene, segmentation_node),
    )


def show_with(stage: Stage, renderer: Any, view_node: Any, *managers: Any) -> Any:
    """Let displayable managers draw a view of the stage into a renderer; keep the group that is returned.

    Their factories are singletons, perhaps in use by an application, and are left alone.
    """
    group = slicer.vtkMRMLDisplayableManagerGroup()
    group.SetRenderer(renderer)
    for displayable in managers:
        displayable.SetMRMLApplicationLogic(stage.application_logic)
        group.AddDisplayableManager(displayable)
    group.SetMRMLDisplayableNode(view_node)
    return group


def ijk_to_world(stage: Stage) -> NDArray[np.float64]:
    """From the volume's voxel indices to the world's RAS, (4, 4) float64."""
    matrix = vtk.vtkMatrix4x4()
    stage.volume_node.GetIJKToRASMatrix(matrix)
    return parent_to_world(stage.volume_node) @ slicer.util.arrayFromVTKMatrix(matrix)


def dimensions_ijk(stage: Stage) -> tuple[int, int, int]:
    """The number of voxels of the volume along i, j, k."""
    return stage.volume_node.GetImageData().GetDimensions()


def _copy_volume(scene: Any, source: Any, low: float | None, high: float | None) -> Any:
    colour = source.GetImageData().GetNumberOfScalarComponents() >= 3
    node = slicer.vtkMRMLVectorVolumeNode() if colour else slicer.vtkMRMLScalarVolumeNode()
    matrix = vtk.vtkMatrix4x4()
    source.GetIJKToRASMatrix(matrix)
    node.SetIJKToRASMatrix(matrix)
    node.SetAndObserveImageData(source.GetImageData())
    scene.AddNode(node)
    node.SetAndObserveDisplayNodeID(_add_volume_display(scene, source, colour, low, high).GetID())
    _follow(scene, node, source)
    return node


def _add_volume_display(scene: Any, source: Any, colour: bool, low: float | None, high: float | None) -> Any:
    display = slicer.vtkMRMLVectorVolumeDisplayNode() if colour else slicer.vtkMRMLScalarVolumeDisplayNode()
    original = source.GetScalarVolumeDisplayNode()
    if original is not None and not original.GetAutoWindowLevel():
        display.SetWindowLevel(original.GetWindow(), original.GetLevel())
        display.AutoWindowLevelOff()
    if low is not None and high is not None:
        display.SetWindowLevelMinMax(low, high)
        display.AutoWindowLevelOff()
    grey = slicer.vtkMRMLColorTableNode()
    grey.SetTypeToGrey()
    display.SetAndObserveColorNodeID(scene.AddNode(grey).GetID())
    return scene.AddNode(display)


def _copy_segmentation(scene: Any, source: Any) -> Any:
    node = slicer.vtkMRMLSegmentationNode()
    node.SetName(source.GetName())
    node.GetSegmentation().DeepCopy(source.GetSegmentation())
    _make_labelmaps(node.GetSegmentation())
    scene.AddNode(node)
    node.SetAndObserveDisplayNodeID(scene.AddNode(slicer.vtkMRMLSegmentationDisplayNode()).GetID())
    _follow(scene, node, source)
    return node


def _make_labelmaps(segmentation: Any) -> None:
    """Make label maps where there are none; in as few layers as overlaps allow, because each is drawn by itself."""
    if not segmentation.GetNumberOfSegments():
        return
    if not segmentation.CreateRepresentation(BINARY_LABELMAP):
        raise InputError("the segmentation cannot be turned into label maps")
    first = segmentation.GetNthSegment(0).GetRepresentation(BINARY_LABELMAP)
    if segmentation.GetNumberOfLayers() > 1 and first.GetNumberOfPoints() < _WORTH_COLLAPSING:
        segmentation.CollapseBinaryLabelmaps(False)


def _follow(scene: Any, node: Any, source: Any) -> None:
    """Put a copy where its source is in the world."""
    transform = scene.AddNode(slicer.vtkMRMLLinearTransformNode())
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(parent_to_world(source)))
    node.SetAndObserveTransformNodeID(transform.GetID())
