"""An off-screen window, its pixels, and the PNG file."""

import ctypes.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import vtk
from numpy.typing import NDArray
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from ...core.errors import OutputError


def open_window(width: int, height: int) -> Any:
    """A ``vtkRenderWindow`` that draws off screen, without a display server.

    Raises:
        OutputError: this machine offers no OpenGL. Found out here because VTK itself would crash on the first frame.
    """
    with _silent_log():
        window = vtk.vtkRenderWindow()
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
class Frame:
    """One panel of the picture: a window with a view and, above it, a bar in the view's colour.

    Attributes:
        window: the ``vtkRenderWindow``.
        view: the ``vtkRenderer`` below the bar.
        bar: the ``vtkRenderer`` of the bar.
    """

    window: Any
    view: Any
    bar: Any


def open_frame(width: int, height: int, bar_height: int, colour: tuple[float, float, float]) -> Frame:
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
    return Frame(window, view, bar)


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


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write (height, width, 3) colours, first row at the top.

    Raises:
        OutputError: the folder is missing or cannot be written to.
    """
    height, width, colours = pixels.shape
    image = vtk.vtkImageData()
    image.SetDimensions(width, height, 1)
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(pixels[::-1]).reshape(-1, colours)))
    writer = vtk.vtkPNGWriter()
    writer.WriteToMemoryOn()
    writer.SetInputData(image)
    writer.Write()
    # Through Python, because VTK reports a failure on the terminal only.
    try:
        path.write_bytes(vtk_to_numpy(writer.GetResult()).tobytes())
    except OSError as error:
        raise OutputError(f"the picture cannot be written to {path.name}: {error.strerror}") from error
