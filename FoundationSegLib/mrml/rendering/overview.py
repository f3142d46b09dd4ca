"""The picture: three slice views and the surfaces, side by side as in Slicer's four-up layout."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from numpy.typing import NDArray

from ...errors import InputError
from ..terminology import Colour
from . import panels
from .legend import Pen, PictureSegment, direction_letters, draw_legend, list_segments
from .stage import PanelFrame, Stage, dimensions_ijk, draw, ijk_to_world, open_frame, set_stage, shrink, write_png

Pixels = NDArray[np.uint8]

# Everything is drawn this much larger and averaged: smooth edges for text, outlines and surfaces alike.
_OVERSAMPLING = 2
_SMALLEST = 200
_FONT_PART = 1 / 52
_GAP_PART = 1 / 300
_GAP_GREY = 40
_BAR_TEXT: Colour = (0.08, 0.08, 0.08)
# A segment counts as shown where the cut has this part of the area of its largest cut.
_SHOWN = 0.2


def render_overview(volume_node: Any, segmentation_node: Any, path: Path, **options: Any) -> None:
    """Write :func:`overview_pixels` as a PNG, which replaces what is at the path.

    Raises: as it, and an OutputError where the file cannot be written.
    """
    write_png(path, overview_pixels(volume_node, segmentation_node, **options))


def overview_pixels(
    volume_node: Any,
    segmentation_node: Any,
    *,
    size: tuple[int, int] = (1600, 1200),
    low: float | None = None,
    high: float | None = None,
    centre_ras: tuple[float, float, float] | None = None,
    in_pixels: bool = False,
    sides: tuple[str, str] | None = None,
) -> NDArray[np.uint8]:
    """Draw a volume with its segments by Slicer's own views in a scene of their own: (height, width, 3) colours.

    A volume of several slices is shown in an axial, a coronal and a sagittal view along the patient's axes,
    patient's right on image left, and as surfaces seen from the front, with the segments' volumes. A single slice
    is shown once, in its own plane. Segments that hold others are see-through in 3-D (:func:`~.panels.see_through`).
    Neither node is changed, and the user's scene gets no others.

    Args:
        volume_node: a ``vtkMRMLScalarVolumeNode`` or ``vtkMRMLVectorVolumeNode`` (red, green, blue).
        segmentation_node: a ``vtkMRMLSegmentationNode``; both may have linear parent transforms.
        size: width and height of the picture in pixels, each at least 200.
        low, high: the values drawn black and white; without them, the window of the volume's display.
        centre_ras: the slices go through this point of the world in mm; without it, each goes where most segments
            show (:func:`choose_offset`), and through the middle of the volume if there are none.
        in_pixels: the image has no millimetres, as PNG and JPEG: pixels are counted.
        sides: of an image without directions (:class:`~FoundationSegLib.imaging.volume.Volume`): no others are written.

    Raises:
        InputError: the picture would be too small, the volume is empty, or the segmentation cannot be drawn.
        GeometryError: a parent transform is not linear.
        OutputError: this machine offers no OpenGL.
    """
    if min(size) < _SMALLEST:
        raise InputError(f"a picture of {size[0]} x {size[1]} pixels is too small; each side needs {_SMALLEST}")
    stage = set_stage(volume_node, segmentation_node, low, high)
    overview = _Overview(stage, list_segments(stage.segmentation_node), size, centre_ras, in_pixels, sides)
    return overview.flat() if min(dimensions_ijk(stage)) == 1 else overview.four_up()


@dataclass(frozen=True)
class _Overview:
    stage: Stage
    segments: tuple[PictureSegment, ...]
    size: tuple[int, int]
    centre_ras: tuple[float, float, float] | None
    in_pixels: bool
    sides: tuple[str, str] | None
    shown: set[int] = field(default_factory=set)  # numbers of the segments in the views so far

    @cached_property
    def font_px(self) -> int:
        """In the final picture; follows the smaller side of a 4:3 picture."""
        return max(8, round(min(self.size[1], self.size[0] * 0.75) * _FONT_PART))

    def four_up(self) -> Pixels:
        """Axial and 3-D above coronal and sagittal."""
        panels.style_segments(self.stage, line_px=max(2, round(self.font_px / 7)))
        width, height = self.size
        gap = max(2, round(height * _GAP_PART))
        left = (width - gap) // 2
        top = round((height - gap) * self._top_part())
        right, bottom = width - gap - left, height - gap - top
        canvas = np.full((height, width, 3), _GAP_GREY, np.uint8)
        canvas[:top, :left] = self._slice(panels.AXIAL, (left, top))
        canvas[:top, -right:] = self._surfaces((right, top))
        canvas[-bottom:, :left] = self._slice(panels.CORONAL, (left, bottom))
        canvas[-bottom:, -right:] = self._slice(panels.SAGITTAL, (right, bottom))
        return canvas

    def flat(self) -> Pixels:
        """One view in the plane of the slice, with the legend in it."""
        panels.style_segments(self.stage, line_px=max(2, round(self.font_px / 5)))
        thin = int(np.argmin(dimensions_ijk(self.stage)))
        normal = np.abs(np.cross(*np.delete(ijk_to_world(self.stage)[:3, :3], thin, axis=1).T))
        preset = (panels.SAGITTAL, panels.CORONAL, panels.AXIAL)[int(np.argmax(normal))]
        frame = self._open(self.size, preset.colour)
        panel = panels.SlicePanel(self.stage, frame.view, preset)
        panel.turn_to_volume()
        self._finish(panel, frame, preset, float(self._middle() @ panel.slice_to_ras[:3, 2]))
        draw_legend(self._pen(frame.view), self.segments, with_volumes=False)
        return shrink(draw(frame.window), _OVERSAMPLING)

    def _top_part(self) -> float:
        """The part of the height that the axial view needs, compared with the two below it."""
        corners = np.array(list(product(*((-0.5, n - 0.5) for n in dimensions_ijk(self.stage)))))
        matrix = ijk_to_world(self.stage)
        _, front_to_back, foot_to_head = np.ptp(corners @ matrix[:3, :3].T, axis=0)
        return float(np.clip(front_to_back / (front_to_back + foot_to_head), 0.4, 0.6))

    def _slice(self, preset: panels.SlicePreset, size: tuple[int, int]) -> Pixels:
        frame = self._open(size, preset.colour)
        panel = panels.SlicePanel(self.stage, frame.view, preset)
        self._finish(panel, frame, preset, self._offset(panel.slice_to_ras[:3, 2]))
        return shrink(draw(frame.window), _OVERSAMPLING)

    def _finish(self, panel: panels.SlicePanel, frame: PanelFrame, preset: panels.SlicePreset, offset: float) -> None:
        panel.move_to(offset)
        pixel_mm = float(np.linalg.norm(ijk_to_world(self.stage)[:3, 0])) if self.in_pixels else None
        panel.label(self._pen(frame.view), pixel_mm, self.sides)
        if self.sides is None:
            self._title(frame, preset.preset, _position(panel.slice_to_ras[:3, 2], offset))
        else:
            width, height, depth = dimensions_ijk(self.stage)
            self._title(frame, "Image", f"{width} x {height} pixels" if depth == 1 else "")

    def _surfaces(self, size: tuple[int, int]) -> Pixels:
        frame = self._open(size, slicer.vtkMRMLViewNode.GetThreeDViewBlueColor())
        points = panels.show_surfaces(self.stage, self.segments)
        panel = panels.SurfacePanel(self.stage, frame.view)
        legend = draw_legend(self._pen(frame.view), self.segments, with_volumes=not self.in_pixels)
        if self.segments:
            panel.fit(points, legend)
        if self.sides is None:
            panels.label_sides(self._pen(frame.view))
        self._title(frame, "3D", "")
        return shrink(draw(frame.window), _OVERSAMPLING)

    def _offset(self, normal: NDArray[np.float64]) -> float:
        """The offset of a slice view: at the centre that was asked for, where most segments show, or in the middle."""
        if self.centre_ras is not None:
            return float(np.asarray(self.centre_ras) @ normal)
        offset = choose_offset(self.segments, normal, ijk_to_world(self.stage), self.shown)
        return float(self._middle() @ normal) if offset is None else offset

    def _middle(self) -> NDArray[np.float64]:
        """The centre of the volume in the world, (3,)."""
        matrix = ijk_to_world(self.stage)
        return matrix[:3, :3] @ ((np.array(dimensions_ijk(self.stage)) - 1) / 2) + matrix[:3, 3]

    def _open(self, size: tuple[int, int], colour: Colour) -> PanelFrame:
        bar = round(self.font_px * 1.5)
        return open_frame(size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING, bar * _OVERSAMPLING, colour)

    def _pen(self, renderer: Any) -> Pen:
        return Pen(renderer, self.font_px * _OVERSAMPLING)

    def _title(self, frame: PanelFrame, left: str, right: str) -> None:
        pen = self._pen(frame.bar)
        width, height = frame.bar.GetSize()
        margin, middle = pen.font_px * 0.6, height * 0.46
        pen.write(left, (margin, middle), ("left", "centre"), _BAR_TEXT)
        pen.write(right, (width - margin, middle), ("right", "centre"), _BAR_TEXT)


def choose_offset(
    segments: Sequence[PictureSegment],
    normal: NDArray[np.float64],
    ijk_to_world: NDArray[np.float64],
    shown: set[int] | None = None,
) -> float | None:
    """Choose a cut in which the most segments show, and the largest part of each; None without segments.

    Candidates are the slices of the volume axis nearest to the normal. A segment shows where the cut has at least
    a fifth of its largest area; among cuts that show as many, the highest mean of the relative areas wins, so that
    a nodule counts as much as a lung.

    Args:
        segments: the segments.
        normal: (3,) unit vector in the world.
        ijk_to_world: (4, 4), of the volume.
        shown: numbers of the segments that another view shows; one that none shows counts for more than all of them.
            Those of this cut are added.

    Returns:
        The distance in mm of the plane from the world's origin along the normal.
    """
    if not segments:
        return None
    step, start = _slice_step(normal, ijk_to_world), float(ijk_to_world[:3, 3] @ normal)
    numbers = [np.rint((segment.points_ras @ normal - start) / step).astype(np.int64) for segment in segments]
    first = min(int(n.min()) for n in numbers)
    count = max(int(n.max()) for n in numbers) - first + 1
    areas = np.array([np.bincount(n - first, minlength=count) for n in numbers])
    relative = areas / areas.max(axis=1, keepdims=True)
    shown, visible = set() if shown is None else shown, relative >= _SHOWN
    weights = [1 if number in shown else len(segments) + 1 for number in range(len(segments))]
    best = int((weights @ visible + relative.mean(axis=0) / 2).argmax())
    shown.update(np.flatnonzero(visible[:, best]).tolist())
    return start + (first + best) * step


def _slice_step(normal: NDArray[np.float64], ijk_to_world: NDArray[np.float64]) -> float:
    axes = ijk_to_world[:3, :3]
    lengths = np.abs(normal @ axes)
    return float(lengths[np.argmax(lengths / np.linalg.norm(axes, axis=0))])


def _position(normal: NDArray[np.float64], offset: float) -> str:
    """The position of a slice as text: ``"S 12.5 mm"``; the letter is that of the side it lies on, as in Slicer."""
    return f"{direction_letters(normal if offset >= 0 else -normal)} {abs(offset):.1f} mm"
