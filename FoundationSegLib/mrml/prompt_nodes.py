"""Prompts as Slicer's own markups: a point list, an open or a closed curve, or a region of interest for each.

A node knows its prompt by two attributes and a node reference, which Slicer saves and keeps up with when it renames
nodes on import. Nothing here is of a class of ours: a scene opens the same without FoundationSeg.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk

from ..core.prompts import Polarity, Prompt, prompt_kind
from .prompt_looks import style_node
from .prompt_shapes import Points, Shape, ShapeKind

PROMPT_ATTRIBUTE = "FoundationSeg.Prompt"
SEGMENT_ATTRIBUTE = "FoundationSeg.Segment"
SEGMENTATION_ROLE = "FoundationSeg.Segmentation"

_CLASSES: Mapping[ShapeKind, str] = {
    "point": "vtkMRMLMarkupsFiducialNode",
    "curve": "vtkMRMLMarkupsCurveNode",
    "loop": "vtkMRMLMarkupsClosedCurveNode",
    "block": "vtkMRMLMarkupsROINode",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a prompt belongs: the id of its segment, and its key there."""

    segment_id: str
    key: str


def add_prompt_node(segmentation_node: Any, place: Place, prompt: Prompt, shape: Shape, name: str) -> Any:
    """A new markups node in the scene of a segmentation, under its parent transform."""
    scene = segmentation_node.GetScene()
    node = getattr(slicer, _CLASSES[shape.kind])()
    node.SetName(scene.GenerateUniqueName(name))
    node.SetAttribute(SEGMENT_ATTRIBUTE, place.segment_id)
    node.SetAttribute(PROMPT_ATTRIBUTE, place.key)
    if shape.kind in ("curve", "loop"):
        node.SetCurveTypeToLinear()
    scene.AddNode(node)
    node.SetNodeReferenceID(SEGMENTATION_ROLE, segmentation_node.GetID())
    node.SetAndObserveTransformNodeID(segmentation_node.GetTransformNodeID())
    node.CreateDefaultDisplayNodes()
    style_node(node, prompt)
    draw(node, prompt, shape)
    return node


def node_name(segment_name: str, number: int, prompt: Prompt) -> str:
    """What a new node is called; nobody looks at it later, so users may rename it."""
    sign = " (negative)" if prompt.polarity is Polarity.NEGATIVE else ""
    return f"{segment_name} - {number} {prompt_kind(prompt)}{sign}"


def draw(node: Any, prompt: Prompt, shape: Shape) -> None:
    """Put the points of a node where its prompt has them; how it looks is left alone."""
    with slicer.util.NodeModify(node):
        if shape.kind == "block":
            _place_block(node, shape.points)
        else:
            _place_points(node, shape.points)
            # A point stays one, and a box keeps its corners; strokes may gain and lose points.
            node.SetFixedNumberOfControlPoints(prompt_kind(prompt) in ("point", "box"))


def can_show(node: Any, shape: Shape) -> bool:
    """True where a node is of the class that a shape needs."""
    return node.IsA(_CLASSES[shape.kind]) and (shape.kind != "curve" or not node.IsA(_CLASSES["loop"]))


def drawn_points(node: Any, shape: Shape) -> Points:
    """The points of a node now, (N, 3), RAS in mm before its parent transform, in the order of its shape's.

    Points whose position was taken away are left out.
    """
    if shape.kind == "block":
        return _block_points(node, is_mirrored=_handedness(shape.points) < 0)
    defined = (n for n in range(node.GetNumberOfControlPoints()) if _is_defined(node, n))
    points = [node.GetNthControlPointPosition(n) for n in defined]
    return np.array(points, np.float64).reshape(-1, 3)


def prompt_nodes(segmentation_node: Any) -> Iterator[tuple[Place, Any]]:
    """The nodes that stand for prompts of a segmentation, in the order of the scene; a copy that a user made, too."""
    scene, segmentation_id = segmentation_node.GetScene(), segmentation_node.GetID()
    nodes = scene.GetNodesByClass("vtkMRMLMarkupsNode")
    nodes.UnRegister(None)  # as slicer.util.getNodesByClass does: the collection is handed over
    for n in range(nodes.GetNumberOfItems()):
        node = nodes.GetItemAsObject(n)
        place = place_of(node)
        if place is not None and node.GetNodeReferenceID(SEGMENTATION_ROLE) == segmentation_id:
            yield place, node


def place_of(node: Any) -> Place | None:
    """Which prompt a node stands for; None for one that is not ours."""
    if not node.IsA("vtkMRMLMarkupsNode"):
        return None
    segment_id, key = node.GetAttribute(SEGMENT_ATTRIBUTE), node.GetAttribute(PROMPT_ATTRIBUTE)
    return Place(segment_id, key) if segment_id and key else None


def release_node(node: Any) -> None:
    """Make a node one of the user's, that stands for no prompt."""
    node.RemoveAttribute(SEGMENT_ATTRIBUTE)
    node.RemoveAttribute(PROMPT_ATTRIBUTE)
    node.RemoveNodeReferenceIDs(SEGMENTATION_ROLE)


def _is_defined(node: Any, n: int) -> bool:
    return node.GetNthControlPointPositionStatus(n) == slicer.vtkMRMLMarkupsNode.PositionDefined


def _place_points(node: Any, points: Points) -> None:
    node.SetFixedNumberOfControlPoints(False)
    while node.GetNumberOfControlPoints() > len(points):
        node.RemoveNthControlPoint(node.GetNumberOfControlPoints() - 1)
    for n, position in enumerate(points.tolist()):
        if n < node.GetNumberOfControlPoints():
            node.SetNthControlPointPosition(n, position)
        else:
            node.AddControlPoint(position, "")


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
