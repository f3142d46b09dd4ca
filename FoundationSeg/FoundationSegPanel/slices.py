"""The slice views of the layout, and the names of slices: plane, number, and the offset that the view shows."""

from collections.abc import Iterable, Sequence
from typing import Any

import slicer
from slicer.i18n import tr as _

from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.geometry import AXES, Axis, Geometry, array_axis, round_index
from FoundationSegLib.mrml.slice_tool import SliceView, slice_view
from FoundationSegLib.mrml.volumes import geometry_from_node, parent_to_world
from FoundationSegLib.prompts.kinds import WORDS, ObliquePlane, Prompt
from FoundationSegLib.prompts.placement import prompt_positions
from FoundationSegLib.requests.classification import Subject


def view_names() -> Iterable[str]:
    """Name the slice views of the layout."""
    manager = slicer.app.layoutManager()
    return manager.sliceViewNames() if manager is not None else ()


def _slice_widgets() -> list[Any]:
    return [widget for name in view_names() if (widget := slicer.app.layoutManager().sliceWidget(name)) is not None]


def slice_views() -> list[SliceView]:
    """Return the slice views of the layout."""
    views = ((widget.sliceLogic(), widget.sliceView()) for widget in _slice_widgets())
    return [slice_view(logic, view.interactor(), view.scheduleRender) for logic, view in views]


def show_cursor(cursor: Any, slice_node: Any = None) -> None:
    """Give the slice views a cursor, or the one of a slice node; None gives them Slicer's back."""
    for widget in _slice_widgets():
        if slice_node in (None, widget.mrmlSliceNode()):
            if cursor is None:
                widget.sliceView().unsetViewCursor()
            else:
                widget.sliceView().setViewCursor(cursor)


def is_shown(volume_node: Any) -> bool:
    """Return True where a slice view of the layout shows the image."""
    return any(view.shows(volume_node) for view in slice_views())


def slice_in_view(volume_node: Any, axis: Axis | None = None) -> Subject:
    """Return the slice of the image in the first view that shows one of its slices, across the axis where it is named.

    Raises:
        InputError, GeometryError: no view shows one.
    """
    for view in slice_views():
        plane = view.plane(volume_node) if volume_node is not None and view.shows(volume_node) else None
        if plane is not None and plane.axis is not None and axis in (None, plane.axis):
            middle = (plane.size_px[0] / 2, plane.size_px[1] / 2)
            n = int(round_index(plane.index_ijk((middle,))[0])[AXES.index(plane.axis)])
            if 0 <= n < plane.geometry.shape_kji[array_axis(plane.axis)]:
                return Subject(plane.axis, n, n + 1)
    raise InputError(_("No view shows a slice of this image. Show it in a view, along its slices."))


def slice_text(volume_node: Any, axis: Axis, number: int) -> str:
    """Name a slice by its plane, its number as in Slicer's Data Probe, and its offset as in the bar of the view."""
    plane, offset = _plane_and_offset(volume_node, axis, number)
    return _("{plane}, slice {number} ({offset})").format(plane=plane, number=number, offset=offset)


def range_text(volume_node: Any, first: int, last: int) -> str:
    """Name the offsets at the ends of a range of slices across the axis k, as the bar of the view shows them."""
    ends = (_plane_and_offset(volume_node, "k", number)[1] for number in (first, last))
    return _("{first} to {last}").format(**dict(zip(("first", "last"), ends, strict=True)))


def prompt_text(prompt: Prompt, volume_node: Any) -> str:
    """Name the position of a prompt by its slices; its words where it has no position."""
    if isinstance(prompt, WORDS):
        return getattr(prompt, "text", "") or getattr(prompt, "name", "")
    positions = prompt_positions(prompt)
    if not positions:
        return ""
    plane = getattr(prompt, "plane", None)
    if isinstance(plane, ObliquePlane):
        x, y, z, _scale = parent_to_world(volume_node) @ (*positions[0], 1.0)
        return _("oblique, at R {x} A {y} S {z} mm").format(x=f"{x:.0f}", y=f"{y:.0f}", z=f"{z:.0f}")
    index_ijk = round_index(geometry_from_node(volume_node).to_ijk(positions))
    first, last = index_ijk.min(axis=0), index_ijk.max(axis=0)
    thin = [axis for n, axis in enumerate(AXES) if first[n] == last[n]]
    axis: Axis = plane if plane in AXES else "k" if "k" in thin or not thin else thin[0]
    n = AXES.index(axis)
    if first[n] == last[n]:
        return slice_text(volume_node, axis, int(first[n]))
    name = _plane_and_offset(volume_node, axis, 0)[0]
    return _("{plane}, slices {first} to {last}").format(plane=name, first=int(first[n]), last=int(last[n]))


def _plane_and_offset(volume_node: Any, axis: Axis, number: int) -> tuple[str, str]:
    geometry = geometry_from_node(volume_node)
    to_world = parent_to_world(volume_node) @ geometry.ijk_to_ras
    n = max(range(3), key=lambda row: abs(to_world[row, AXES.index(axis)]))
    offset_mm = (to_world @ (*slice_middle(geometry, axis, number), 1.0))[n]
    return (_("sagittal"), _("coronal"), _("axial"))[n], f"{'RAS'[n]} {offset_mm:.1f} mm"


def slice_middle(geometry: Geometry, axis: Axis, number: int) -> tuple[float, ...]:
    """Return the middle of a slice, as an index IJK in voxels."""
    sizes = dict(zip(AXES, reversed(geometry.shape_kji), strict=True))
    return tuple(number if other == axis else (size - 1) / 2 for other, size in sizes.items())


def show_slice(volume_node: Any, axis: Axis, number: int) -> None:
    """Have the views that show slices across an axis show this one."""
    geometry = geometry_from_node(volume_node)
    world = parent_to_world(volume_node) @ geometry.ijk_to_ras @ (*slice_middle(geometry, axis, number), 1.0)
    for view in slice_views():
        plane = view.plane(volume_node) if view.shows(volume_node) else None
        if plane is not None and plane.axis == axis:
            view.slice_node.JumpSliceByOffsetting(*world[:3])


def jump_to(volume_node: Any, position_ras: Sequence[float]) -> None:
    """Have all slice views show a position of an image, in its own RAS, in mm."""
    world = parent_to_world(volume_node) @ (*position_ras, 1.0)
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        node.JumpSliceByOffsetting(*world[:3])


def draw_view_under_mouse() -> None:
    """Draw the slice view that the user works in at once, before the others."""
    for view in (widget.sliceView() for widget in _slice_widgets()):
        if view.underMouse():
            view.forceRender()
