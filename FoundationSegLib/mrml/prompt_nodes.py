"""Prompts as Slicer's own markups nodes and back, and the shapes that stand for them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import slicer
import slicer.util
import vtk
from numpy.typing import ArrayLike, NDArray

from ..codec import frozen
from ..imaging.geometry import AXES, Axis, Geometry, as_vector, round_index
from ..prompts import kinds
from ..prompts.placement import rectangle_corners
from .terminology import Colour

# Bright on grey images, and apart in lightness for those who see no difference between red and green.
COLOURS: Mapping[kinds.Polarity, Colour] = {
    kinds.Polarity.POSITIVE: (0.35, 1.0, 0.45),
    kinds.Polarity.NEGATIVE: (1.0, 0.3, 0.2),
}

_ACTIVE: Colour = (1.0, 0.9, 0.2)
_GLYPHS: Mapping[kinds.Polarity, str] = {kinds.Polarity.POSITIVE: "ThickCross2D", kinds.Polarity.NEGATIVE: "Dash2D"}
# In percent of the screen's diagonal, as Slicer counts glyphs, and in parts of a glyph. Lines are as wide as Slicer's
# own, 0.2 of a glyph of 3: it draws them as bands, which have gaps where they are much narrower than two pixels.
_POINT_SIZE, _CORNER_SIZE, _LINE_THICKNESS = 3.0, 1.0, 0.6
_FADING_MM = 0.1


def style_node(node: Any, prompt: kinds.Prompt, own_colour: Colour | None = None) -> None:
    """Give the display of a markups node the look of its prompt; it must have one.

    Positive prompts have the colour of their segment where one is given. They are drawn in slice views alone.
    """
    _style_display(node.GetDisplayNode(), prompt, own_colour)


def _style_display(display: Any, prompt: kinds.Prompt, own_colour: Colour | None) -> None:
    is_own = prompt.polarity is kinds.Polarity.POSITIVE and own_colour is not None
    colour = own_colour if is_own else COLOURS[prompt.polarity]
    display.SetVisibility3D(False)
    display.SetColor(*colour)
    display.SetSelectedColor(*colour)  # of control points that are "selected", as all of them are at first
    display.SetActiveColor(*_ACTIVE)
    display.SetPointLabelsVisibility(False)
    display.SetPropertiesLabelVisibility(False)
    display.SetHandlesInteractive(False)
    display.SetFillVisibility(False)
    display.SetSnapMode(display.SnapModeUnconstrained)
    is_point = isinstance(prompt, kinds.PointPrompt)
    display.SetGlyphTypeFromString(_GLYPHS[prompt.polarity] if is_point else "Square2D")
    display.SetUseGlyphScale(True)
    display.SetGlyphScale(_POINT_SIZE if is_point else _CORNER_SIZE)
    display.SetLineThickness(_LINE_THICKNESS)
    # Behind the start of the fading, Slicer turns green lines orange, towards the other polarity
    # (vtkSlicerMarkupsWidgetRepresentation2D::UpdateDistanceColorMap): it starts where they end.
    display.SetLineColorFadingStart(display.GetLineColorFadingEnd() - _FADING_MM)


ShapeKind = Literal["point", "curve", "loop", "block"]
Points = NDArray[np.float64]

# Nobody moves a point by less than this; Slicer keeps the centre of a region of interest in single precision.
_UNMOVED_MM = 1e-3
# The corners of a block, i fastest: True where one lies at the high end along i, j, k. And those around a flat one.
_IS_HIGH = (np.arange(8)[:, None] >> np.arange(3)) % 2 == 1
_AROUND = ((0, 2, 6, 4), (0, 1, 5, 4), (0, 1, 3, 2))
# A way along the twelve edges of a block through its corners, whose bits say low or high along i, j, k.
_EDGES = (0, 1, 3, 2, 0, 4, 5, 7, 6, 4, 5, 1, 3, 7, 6, 2)
_ORTHOGONAL = 1e-6


@frozen(eq=False)
class Shape:
    """The drawing of a prompt.

    Attributes:
        kind: a point; an open or a closed line; or a block, whose points are its eight corners, i fastest.
        points: (N, 3) float64, RAS in mm.
    """

    kind: ShapeKind
    points: Points

    def is_at(self, points: ArrayLike) -> bool:
        """True where these are its points."""
        others = np.asarray(points, np.float64).reshape(-1, 3)
        return self.points.shape == others.shape and bool(np.abs(self.points - others).max(initial=0) <= _UNMOVED_MM)


def shape_of(prompt: kinds.Prompt, geometry: Geometry) -> Shape | None:
    """The shape of a prompt; None for masks, texts and classes, which have no place of their own.

    A box of several slices is a block, or, on a sheared grid, a line along its edges: Slicer's regions of interest
    have right angles.
    """
    if isinstance(prompt, kinds.PointPrompt):
        return Shape("point", np.array([prompt.position]))
    if isinstance(prompt, kinds.ScribblePrompt):
        return Shape("curve", np.array(prompt.points))
    if isinstance(prompt, kinds.LassoPrompt):
        return Shape("loop", np.array(prompt.points))
    if not isinstance(prompt, kinds.BoxPrompt):
        return None
    if isinstance(prompt.plane, kinds.ObliquePlane):
        return Shape("loop", rectangle_corners(prompt.corners, prompt.plane))
    ends = geometry.nearest_voxel(prompt.corners)
    low, high = ends.min(axis=0) - 0.5, ends.max(axis=0) + 0.5
    corners, flat = np.where(_IS_HIGH, high, low), _flat_axis(prompt, ends)
    if flat is not None:
        corners = corners[[*_AROUND[flat]]]
        corners[:, flat] = ends[0, flat]
        return Shape("loop", geometry.to_ras(corners))
    axes = geometry.ijk_to_ras[:3, :3] / np.array(geometry.spacing_mm)
    if np.abs(axes.T @ axes - np.eye(3)).max() <= _ORTHOGONAL:
        return Shape("block", geometry.to_ras(corners))
    return Shape("curve", geometry.to_ras(corners[list(_EDGES)]))


def moved_prompt(prompt: kinds.Prompt, points: ArrayLike, geometry: Geometry) -> kinds.Prompt | None:
    """The prompt after the points of its shape were moved, added or removed; None where nothing is left of it.

    A shape that was moved as a whole takes its slice or its plane along. A single point stays on the slice or plane of
    its prompt. Of a box, the corner opposite the one that was moved stays.
    """
    shape, new = shape_of(prompt, geometry), np.asarray(points, np.float64).reshape(-1, 3)
    if shape is None or shape.is_at(new):
        return prompt
    if isinstance(prompt, kinds.PointPrompt):
        return _moved_point(prompt, new[0]) if len(new) else None
    if isinstance(prompt, kinds.BoxPrompt):
        return _moved_box(prompt, shape, new, geometry) if len(new) == len(shape.points) else prompt
    if isinstance(prompt, kinds.ScribblePrompt | kinds.LassoPrompt):
        fewest = 3 if isinstance(prompt, kinds.LassoPrompt) else 1
        return _moved_stroke(prompt, shape, new, geometry) if len(new) >= fewest else None
    return prompt


def _moved_point(prompt: kinds.PointPrompt, position: Points) -> kinds.PointPrompt:
    plane = prompt.plane
    if isinstance(plane, kinds.ObliquePlane):
        plane = _plane_through(plane, position)
    return replace(prompt, position=as_vector(position), plane=plane)


def _moved_stroke(
    prompt: kinds.ScribblePrompt | kinds.LassoPrompt, shape: Shape, new: Points, geometry: Geometry
) -> kinds.ScribblePrompt | kinds.LassoPrompt:
    plane = prompt.plane
    as_a_whole = _shift(shape.points, new) is not None
    if isinstance(plane, kinds.ObliquePlane):
        if as_a_whole:
            plane = _plane_through(plane, new[0])
        new = _onto_plane(new, plane)
    else:
        new = _onto_slice(new, new[0] if as_a_whole else shape.points[0], plane or "k", geometry)
    return replace(prompt, points=tuple(as_vector(point) for point in new), plane=plane)


def _moved_box(prompt: kinds.BoxPrompt, shape: Shape, new: Points, geometry: Geometry) -> kinds.BoxPrompt:
    shift = _shift(shape.points, new)
    if isinstance(prompt.plane, kinds.ObliquePlane):
        return _moved_rectangle(prompt, shape, new, shift)
    flat = _flat_axis(prompt, geometry.nearest_voxel(prompt.corners))
    if shift is not None:
        corners = [as_vector(np.asarray(corner) + shift) for corner in prompt.corners]
        return replace(prompt, corners=(corners[0], corners[1]))
    ends = geometry.to_ijk(_opposite_ends(shape, new))
    low, high = ends.min(axis=0) + 0.5, ends.max(axis=0) - 0.5
    voxels = np.array([round_index(low), np.maximum(round_index(low), round_index(high))])
    if flat is not None:
        voxels[:, flat] = geometry.nearest_voxel(prompt.corners[0])[flat]
    first, last = geometry.to_ras(voxels)
    return replace(prompt, corners=(as_vector(first), as_vector(last)))


def _moved_rectangle(prompt: kinds.BoxPrompt, shape: Shape, new: Points, shift: Points | None) -> kinds.BoxPrompt:
    plane = prompt.plane
    if not isinstance(plane, kinds.ObliquePlane):
        return prompt
    if shift is not None:
        plane = _plane_through(plane, new[0])
        ends = new[[0, 2]]
    else:
        ends = _onto_plane(np.array(_opposite_ends(shape, new)), plane)
    return replace(prompt, corners=(as_vector(ends[0]), as_vector(ends[1])), plane=plane)


def _opposite_ends(shape: Shape, new: Points) -> tuple[Points, Points]:
    """The corner that was moved most, where it is now, and the one opposite it, where it was."""
    if shape.kind == "block":  # a region of interest moves many corners at once, and both ends are where it says
        return new[0], new[7]
    moved = int(np.argmax(np.linalg.norm(new - shape.points, axis=1)))
    old = shape.points
    opposite = old[(moved + 2) % 4] if len(old) == 4 else old[_EDGES.index(7 - _EDGES[moved])]
    return new[moved], opposite


def _shift(old: Points, new: Points) -> Points | None:
    """The vector by which all points were moved; None where they were not moved alike."""
    if old.shape != new.shape:
        return None
    mean = (new - old).mean(axis=0)
    return mean if np.abs(new - old - mean).max() <= _UNMOVED_MM else None


def _onto_slice(points: Points, reference: Points, axis: Axis, geometry: Geometry) -> Points:
    """The points, those off the slice of a reference put onto it along the axis; the others stay bit for bit."""
    n = AXES.index(axis)
    index_ijk, index = geometry.to_ijk(points), geometry.to_ijk(reference)[n]
    off = round_index(index_ijk[:, n]) != round_index(index)
    index_ijk[off, n] = index
    return np.where(off[:, None], geometry.to_ras(index_ijk), points)


def _onto_plane(points: Points, plane: kinds.ObliquePlane) -> Points:
    normal = np.array(plane.normal) / np.linalg.norm(plane.normal)
    away = (points - plane.origin) @ normal
    away[np.abs(away) <= _UNMOVED_MM] = 0
    return points - away[:, None] * normal


def _plane_through(plane: kinds.ObliquePlane, position: Points) -> kinds.ObliquePlane:
    normal = np.array(plane.normal) / np.linalg.norm(plane.normal)
    return replace(plane, origin=as_vector(plane.origin + normal * ((position - plane.origin) @ normal)))


def _flat_axis(prompt: kinds.BoxPrompt, ends: NDArray[np.int64]) -> int | None:
    """The axis across which the box between two voxels is one slice thick; its own where there are several."""
    thin = np.flatnonzero(ends[0] == ends[1]).tolist()
    own = AXES.index(prompt.plane) if prompt.plane in AXES else None
    return own if own in thin else next(iter(thin), None)


PROMPT_ATTRIBUTE = "FoundationSeg.Prompt"
SEGMENT_ATTRIBUTE = "FoundationSeg.Segment"
SEGMENTATION_ROLE = "FoundationSeg.Segmentation"

_CLASSES: Mapping[ShapeKind, str] = {
    "point": "vtkMRMLMarkupsFiducialNode",
    "curve": "vtkMRMLMarkupsCurveNode",
    "loop": "vtkMRMLMarkupsClosedCurveNode",
    "block": "vtkMRMLMarkupsROINode",
}


@frozen
class PromptOwner:
    """The owner of a prompt: the id of its segment, and the prompt's key there."""

    segment_id: str
    key: str


def add_prompt_node(segmentation_node: Any, owner: PromptOwner, prompt: kinds.Prompt, shape: Shape, name: str) -> Any:
    """A new markups node in the scene of a segmentation, under its parent transform.

    Its name says segment, number and kind of the prompt; nothing depends on it later, so users may rename it.
    It is complete before the scene has it: each later change would have all of Slicer's views and lists look again.
    """
    scene = segmentation_node.GetScene()
    node = getattr(slicer, _CLASSES[shape.kind])()
    sign = " (negative)" if prompt.polarity is kinds.Polarity.NEGATIVE else ""
    node.SetName(scene.GenerateUniqueName(f"{name} {prompt.kind}{sign}"))
    node.SetAttribute(SEGMENT_ATTRIBUTE, owner.segment_id)
    node.SetAttribute(PROMPT_ATTRIBUTE, owner.key)
    if shape.kind in ("curve", "loop"):
        node.SetCurveTypeToLinear()
    display = scene.CreateNodeByClass(f"vtkMRMLMarkups{'ROI' if shape.kind == 'block' else ''}DisplayNode")
    display.UnRegister(None)  # as all that is created by class
    _style_display(display, prompt, segment_colour(segmentation_node, owner.segment_id))
    node.SetAndObserveDisplayNodeID(scene.AddNode(display).GetID())
    node.SetNodeReferenceID(SEGMENTATION_ROLE, segmentation_node.GetID())
    node.SetAndObserveTransformNodeID(segmentation_node.GetTransformNodeID())
    if shape.kind != "block":
        draw(node, prompt, shape)
    scene.AddNode(node)
    if shape.kind == "block":  # its display has to be there
        draw(node, prompt, shape)
    return node


def segment_colour(segmentation_node: Any, segment_id: str) -> Colour | None:
    """The colour of a segment; None where there is none of that id."""
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    return segment.GetColor() if segment is not None else None


def draw(node: Any, prompt: kinds.Prompt, shape: Shape) -> None:
    """Put the points of a node where its prompt has them; how it looks is left alone."""
    with slicer.util.NodeModify(node):
        if shape.kind == "block":
            _place_block(node, shape.points)
        else:
            points = shape.points.tolist()
            node.SetFixedNumberOfControlPoints(False)
            while node.GetNumberOfControlPoints() > len(points):
                node.RemoveNthControlPoint(node.GetNumberOfControlPoints() - 1)
            for n, position in enumerate(points):
                if n < node.GetNumberOfControlPoints():
                    node.SetNthControlPointPosition(n, position)
                else:
                    node.AddControlPoint(position, "")
            # A point stays one, and a box keeps its corners; strokes may gain and lose points.
            node.SetFixedNumberOfControlPoints(prompt.kind in ("point", "box"))


def can_show(node: Any, shape: Shape) -> bool:
    """True where a node is of the class that a shape needs."""
    return node.IsA(_CLASSES[shape.kind]) and (shape.kind != "curve" or not node.IsA(_CLASSES["loop"]))


def drawn_points(node: Any, shape: Shape) -> Points:
    """The points of a node now, (N, 3), RAS in mm before its parent transform, in the order of its shape's.

    Points whose position was taken away are left out.
    """
    if shape.kind == "block":
        return _block_points(node, is_mirrored=_handedness(shape.points) < 0)
    points = [
        node.GetNthControlPointPosition(n)
        for n in range(node.GetNumberOfControlPoints())
        if node.GetNthControlPointPositionStatus(n) == slicer.vtkMRMLMarkupsNode.PositionDefined
    ]
    return np.array(points, np.float64).reshape(-1, 3)


def prompt_nodes(segmentation_node: Any) -> Iterator[tuple[PromptOwner, Any]]:
    """The nodes that stand for prompts of a segmentation, in the order of the scene; a copy that a user made, too."""
    scene, segmentation_id = segmentation_node.GetScene(), segmentation_node.GetID()
    nodes = scene.GetNodesByClass("vtkMRMLMarkupsNode")
    nodes.UnRegister(None)  # as slicer.util.getNodesByClass does: the collection is handed over
    for n in range(nodes.GetNumberOfItems()):
        node = nodes.GetItemAsObject(n)
        owner = owner_of(node)
        if owner is not None and node.GetNodeReferenceID(SEGMENTATION_ROLE) == segmentation_id:
            yield owner, node


def owner_of(node: Any) -> PromptOwner | None:
    """The prompt that a node stands for; None for one that is not ours."""
    if not node.IsA("vtkMRMLMarkupsNode"):
        return None
    segment_id, key = node.GetAttribute(SEGMENT_ATTRIBUTE), node.GetAttribute(PROMPT_ATTRIBUTE)
    return PromptOwner(segment_id, key) if segment_id and key else None


def release_node(node: Any) -> None:
    """Make a node one of the user's, that stands for no prompt."""
    node.RemoveAttribute(SEGMENT_ATTRIBUTE)
    node.RemoveAttribute(PROMPT_ATTRIBUTE)
    node.RemoveNodeReferenceIDs(SEGMENTATION_ROLE)


def _place_block(node: Any, points: Points) -> None:
    """A region of interest has its own right-handed axes; those of a mirrored grid get their third turned round."""
    edges = points[[1, 2, 4]] - points[0]
    size = np.linalg.norm(edges, axis=1)
    axes = (edges / size[:, None]).T
    if _handedness(points) < 0:
        axes[:, 2] *= -1
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes, points.mean(axis=0)
    node.GetObjectToNodeMatrix().DeepCopy(slicer.util.vtkMatrixFromArray(matrix))
    node.SetCenter(vtk.vtkVector3d(*matrix[:3, 3]))
    node.SetSize(*size)
    node.GetDisplayNode().SetRotationHandleVisibility(False)


def _block_points(node: Any, is_mirrored: bool) -> Points:
    matrix = slicer.util.arrayFromVTKMatrix(node.GetObjectToNodeMatrix())
    half = np.array(node.GetSize()) / 2
    signs = np.array([(i, j, -k if is_mirrored else k) for k in (-1, 1) for j in (-1, 1) for i in (-1, 1)])
    return (signs * half) @ matrix[:3, :3].T + matrix[:3, 3]


def _handedness(points: Points) -> float:
    return float(np.linalg.det(points[[1, 2, 4]] - points[0]))
