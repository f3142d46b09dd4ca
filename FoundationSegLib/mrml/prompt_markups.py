"""Prompts drawn as markups: a folder, and one node each, watched for what users do to them."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import slicer
import vtk

from ..imaging.geometry import Geometry
from ..prompts.kinds import Prompt
from .prompt_nodes import (
    SEGMENTATION_ROLE,
    PromptOwner,
    add_prompt_node,
    can_show,
    draw,
    drawn_points,
    moved_prompt,
    owner_of,
    prompt_nodes,
    release_node,
    segment_colour,
    shape_of,
    style_node,
)
from .scene import Observers, remove_node
from .segment_tags import PromptRecord

FOLDER_NAME = "Prompts"
_FOLDER_ATTRIBUTE = "FoundationSeg.Prompts"


def put_into_folder(segmentation_node: Any, node: Any) -> None:
    """Move a node into the folder, which is made where there is none; a scene without a hierarchy gets one.

    In Slicer's application every node has an item from the start; without it, nobody makes them. The folder lies beside
    the segmentation: of all items below that, Slicer takes those that are no segments for removed ones, and says so in
    its log whenever it updates them all (qSlicerSubjectHierarchySegmentationsPlugin::updateAllSegmentsFromMRML).
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(segmentation_node.GetScene())
    if hierarchy is None:
        return
    root = hierarchy.GetSceneItemID()
    parent = hierarchy.GetItemByDataNode(segmentation_node) or hierarchy.CreateItem(root, segmentation_node)
    beside = hierarchy.GetItemParent(parent)
    folder = _find_folder(hierarchy, beside, segmentation_node.GetID())
    if not folder:
        folder = hierarchy.CreateFolderItem(beside, f"{FOLDER_NAME}: {segmentation_node.GetName()}")
        hierarchy.SetItemAttribute(folder, _FOLDER_ATTRIBUTE, segmentation_node.GetID())
        hierarchy.SetItemExpanded(folder, False)
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(root, node)
    if hierarchy.GetItemParent(item) != folder:
        hierarchy.SetItemParent(item, folder)


def lift_folder(segmentation_node: Any) -> None:
    """Put the folder beside the segmentation that an earlier version put below it."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(segmentation_node.GetScene())
    parent = hierarchy.GetItemByDataNode(segmentation_node) if hierarchy else 0
    folder = _find_folder(hierarchy, parent) if parent else 0
    if folder:
        hierarchy.SetItemAttribute(folder, _FOLDER_ATTRIBUTE, segmentation_node.GetID())
        hierarchy.SetItemParent(folder, hierarchy.GetItemParent(parent))


def take_from_folder(scene: Any, node: Any) -> None:
    """Remove the item of a node that is to be removed; an empty folder stays, as one that the user made would.

    Not to be called when somebody else removes the node: that may be the hierarchy itself, in the middle of removing a
    branch, and it crashes when items go behind its back (vtkMRMLSubjectHierarchyNode::RemoveItem).
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(node) if hierarchy else 0
    if item:
        hierarchy.RemoveItem(item, False, False)


def remove_folder(scene: Any, segmentation_node: Any) -> None:
    """Remove the empty folder of a segmentation that has gone."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    root, children = hierarchy.GetSceneItemID() if hierarchy else 0, vtk.vtkIdList()
    folder = _find_folder(hierarchy, root, segmentation_node.GetID(), True) if hierarchy else 0
    if folder:
        hierarchy.GetItemChildren(folder, children)
        if not children.GetNumberOfIds():
            hierarchy.RemoveItem(folder)


def _find_folder(hierarchy: Any, parent: int, segmentation_id: str = "", is_deep: bool = False) -> int:
    """The folder by its attribute, so that users may rename it, of any segmentation unless one is named; 0 for none."""
    children = vtk.vtkIdList()
    hierarchy.GetItemChildren(parent, children, is_deep)
    for n in range(children.GetNumberOfIds()):
        item = children.GetId(n)
        owner = hierarchy.GetItemAttribute(item, _FOLDER_ATTRIBUTE)
        if owner and segmentation_id in ("", owner):
            return int(item)
    return 0


@dataclass(slots=True)
class _Picture:
    """A markups node and the prompt that it shows; None until it was drawn.

    Attributes:
        is_dragged: the mouse has hold of it.
        is_moved: others moved it, and it was not drawn anew since.
    """

    node: Any
    prompt: Prompt | None = None
    is_dragged: bool = False
    is_moved: bool = False
    observers: Observers = field(default_factory=Observers)


_DIMMED = 0.35  # opacity of prompts of segments that are not worked on


def remove_orphans(scene: Any) -> None:
    """Remove the markups of prompts whose segmentation has left the scene, however it went."""
    for node in slicer.util.getNodesByClass("vtkMRMLMarkupsNode", scene):
        if owner_of(node) is not None and node.GetNodeReference(SEGMENTATION_ROLE) is None:
            take_from_folder(scene, node)
            remove_node(node)


class PromptPictures:
    """The markups of one segmentation's prompts.

    Markups that are there already, in a scene that was opened, are taken over; of several for one prompt the first,
    the others are the user's copies and are left to them.

    Attributes:
        geometry: the grid of the image, on which is drawn from now on.
        pictures: the markups by segment and key; none where a segment has no more.

    Args:
        segmentation_node: whose prompts they are.
        on_moved: told when somebody else moved the points of a node: its owner, and the prompt as it is now, or None
            where nothing is left of it. While the mouse drags, nothing is told.
    """

    def __init__(
        self, segmentation_node: Any, geometry: Geometry, on_moved: Callable[[PromptOwner, Prompt | None], None]
    ) -> None:
        self.geometry = geometry
        self._segmentation_node, self._scene = segmentation_node, segmentation_node.GetScene()
        self._on_moved = on_moved
        self.pictures: dict[str, dict[str, _Picture]] = defaultdict(dict)
        self._shown: Collection[str] | None = None
        self._active: str | None = None
        self._is_drawing = False
        lift_folder(segmentation_node)
        for owner, node in prompt_nodes(segmentation_node):
            if owner.key in self.pictures[owner.segment_id]:
                release_node(node)
            else:
                self._adopt(owner, node)

    @property
    def nodes(self) -> list[Any]:
        """The markups nodes."""
        return [picture.node for pictures in self.pictures.values() for picture in pictures.values()]

    def nodes_of(self, segment_id: str) -> list[Any]:
        """The markups nodes of a segment's prompts."""
        return [picture.node for picture in self.pictures[segment_id].values()]

    def node(self, owner: PromptOwner) -> Any:
        """The markups node of a prompt, or None."""
        picture = self.pictures[owner.segment_id].get(owner.key)
        return picture and picture.node

    def draw_segment(self, segment_id: str, segment_name: str, record: PromptRecord) -> None:
        """Draw what changed in the record of a segment: new nodes, moved ones, fewer ones. Looks are left alone."""
        others = dict(self.pictures[segment_id])
        with self._drawing():
            for number, kept in enumerate(record.prompts, start=1):
                picture = others.pop(kept.key, None)
                if picture is None or picture.prompt is not kept.prompt or picture.is_moved:
                    name = f"{segment_name} - {number}"
                    self._draw_prompt(PromptOwner(segment_id, kept.key), picture, kept.prompt, name)
            for key in others:
                self._remove(PromptOwner(segment_id, key))

    def show(self, segment_ids: Collection[str] | None, active: str | None = None) -> None:
        """Show the prompts of these segments and hide those of the others, also of prompts to come; None: show all.

        Those of other segments than the ``active`` one are dimmed; None: of no segment.
        """
        shown = None if segment_ids is None else frozenset(segment_ids)
        if (shown, active) == (self._shown, self._active):
            return
        self._shown, self._active = shown, active
        for segment_id, pictures in self.pictures.items():
            opacity = 1.0 if active in (None, segment_id) else _DIMMED
            for picture in pictures.values():
                picture.node.SetDisplayVisibility(self._shown is None or segment_id in self._shown)
                if picture.node.GetDisplayNode() is not None:
                    picture.node.GetDisplayNode().SetOpacity(opacity)

    def forget(self, node: Any) -> PromptOwner | None:
        """Watch a node no more that was removed from the scene; its owner, if it was one of these."""
        for segment_id, pictures in self.pictures.items():
            for key, picture in pictures.items():
                if picture.node is node:
                    self._release(owner := PromptOwner(segment_id, key))
                    return owner
        return None

    def remove_all(self) -> None:
        """Remove the nodes and their folder from the scene: the segmentation has gone."""
        with self._drawing():
            for owner in self._owners():
                self._remove(owner)
        remove_folder(self._scene, self._segmentation_node)

    def stop(self) -> None:
        """Watch no more; the nodes stay."""
        for owner in self._owners():
            self._release(owner)

    def _owners(self) -> list[PromptOwner]:
        return [PromptOwner(segment_id, key) for segment_id, keys in self.pictures.items() for key in keys]

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Take what nodes report in here for our own doing."""
        before, self._is_drawing = self._is_drawing, True
        try:
            yield
        finally:
            self._is_drawing = before

    def _draw_prompt(self, owner: PromptOwner, picture: _Picture | None, prompt: Prompt, name: str) -> None:
        if picture is not None and picture.prompt == prompt and not picture.is_moved:
            return
        shape = shape_of(prompt, self.geometry)
        if picture is not None and (shape is None or not can_show(picture.node, shape)):
            self._remove(owner)
            picture = None
        if shape is None:
            return
        if picture is None:
            node = add_prompt_node(self._segmentation_node, owner, prompt, shape, name)
            put_into_folder(self._segmentation_node, node)
            node.SetDisplayVisibility(self._shown is None or owner.segment_id in self._shown)
            node.GetDisplayNode().SetOpacity(1.0 if self._active in (None, owner.segment_id) else _DIMMED)
            picture = self._adopt(owner, node)
        else:
            if not shape.is_at(drawn_points(picture.node, shape)):
                draw(picture.node, prompt, shape)
            if picture.prompt is not None and picture.prompt.polarity is not prompt.polarity:
                style_node(picture.node, prompt, segment_colour(self._segmentation_node, owner.segment_id))
        picture.prompt, picture.is_moved = prompt, False

    def _adopt(self, owner: PromptOwner, node: Any) -> _Picture:
        """Watch a node. A drag with the mouse reports every step; only where it ends counts."""
        picture = self.pictures[owner.segment_id][owner.key] = _Picture(node)
        markups, add = slicer.vtkMRMLMarkupsNode, picture.observers.add
        add(node, markups.PointStartInteractionEvent, self._drag_started, picture)
        add(node, markups.PointEndInteractionEvent, self._drag_ended, owner, picture)
        for event in (markups.PointModifiedEvent, markups.PointRemovedEvent, markups.PointPositionUndefinedEvent):
            add(node, event, self._points_changed, owner, picture)
        return picture

    def _drag_started(self, picture: _Picture) -> None:
        picture.is_dragged = True

    def _drag_ended(self, owner: PromptOwner, picture: _Picture) -> None:
        picture.is_dragged = False
        self._points_changed(owner, picture)

    def _points_changed(self, owner: PromptOwner, picture: _Picture) -> None:
        shape = shape_of(picture.prompt, self.geometry) if picture.prompt is not None else None
        if self._is_drawing or picture.is_dragged or picture.prompt is None or shape is None:
            return
        points = drawn_points(picture.node, shape)
        if not shape.is_at(points):
            picture.is_moved = True
            self._on_moved(owner, moved_prompt(picture.prompt, points, self.geometry))

    def _remove(self, owner: PromptOwner) -> None:
        node = self._release(owner)
        take_from_folder(self._scene, node)
        remove_node(node)

    def _release(self, owner: PromptOwner) -> Any:
        picture = self.pictures[owner.segment_id].pop(owner.key)
        picture.observers.remove()
        return picture.node
