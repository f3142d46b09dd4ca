"""Prompts drawn as markups: a folder, and one node each, watched for what users do to them."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import slicer
import vtk

from ..imaging.geometry import Geometry
from ..prompts.kinds import Prompt
from .prompt_nodes import (
    PromptOwner,
    add_prompt_node,
    can_show,
    draw,
    drawn_points,
    moved_prompt,
    node_name,
    prompt_nodes,
    release_node,
    shape_of,
    style_node,
)
from .prompt_records import KeptPrompt, PromptRecord, common_start
from .scene import Observers, remove_node

FOLDER_NAME = "Prompts"
_FOLDER_ATTRIBUTE = "FoundationSeg.Prompts"


def put_into_folder(segmentation_node: Any, node: Any) -> None:
    """Move a node into the folder, which is made where there is none; a scene without a hierarchy gets one."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(segmentation_node.GetScene())
    if hierarchy is None:
        return
    parent = _item(hierarchy, segmentation_node)
    folder = _find(hierarchy, parent) or _make(hierarchy, parent)
    item = _item(hierarchy, node)
    if hierarchy.GetItemParent(item) != folder:
        hierarchy.SetItemParent(item, folder)


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
    """Remove the empty folder of a segmentation that has gone; in Slicer's application it has gone with it."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    parent = hierarchy.GetItemByDataNode(segmentation_node) if hierarchy else 0
    folder = _find(hierarchy, parent) if parent else 0
    if folder and not _children(hierarchy, folder):
        hierarchy.RemoveItem(folder)


def _item(hierarchy: Any, node: Any) -> int:
    """The item of a node. In Slicer's application there is one from the start; without it, nobody makes them."""
    return hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)


def _make(hierarchy: Any, parent: int) -> int:
    folder = hierarchy.CreateFolderItem(parent, FOLDER_NAME)
    hierarchy.SetItemAttribute(folder, _FOLDER_ATTRIBUTE, "1")
    hierarchy.SetItemExpanded(folder, False)
    return folder


def _find(hierarchy: Any, parent: int) -> int:
    """By its attribute, so that users may rename it; 0 if there is none."""
    folders = (item for item in _children(hierarchy, parent) if hierarchy.HasItemAttribute(item, _FOLDER_ATTRIBUTE))
    return next(folders, 0)


def _children(hierarchy: Any, parent: int) -> list[int]:
    ids = vtk.vtkIdList()
    hierarchy.GetItemChildren(parent, ids)
    return [ids.GetId(n) for n in range(ids.GetNumberOfIds())]


class PromptPictures:
    """The markups of one segmentation's prompts.

    Markups that are there already, in a scene that was opened, are taken over; of several for one prompt the first,
    the others are the user's copies and are left to them.

    Args:
        segmentation_node: whose prompts they are.
        geometry: the grid of the image.
        on_moved: told when somebody else moved the points of a node: its place, and the prompt as it is now, or None
            where nothing is left of it. While the mouse drags, nothing is told.
    """

    def __init__(
        self, segmentation_node: Any, geometry: Geometry, on_moved: Callable[[PromptOwner, Prompt | None], None]
    ) -> None:
        self._scene = segmentation_node.GetScene()
        self._segmentation_node = segmentation_node
        self._geometry = geometry
        self._on_moved = on_moved
        self._nodes: dict[PromptOwner, Any] = {}
        self._prompts: dict[PromptOwner, Prompt] = {}
        self._observers: dict[PromptOwner, Observers] = {}
        self._dragged: set[PromptOwner] = set()
        self._moved: set[PromptOwner] = set()  # by others, and not drawn anew since
        self._drawn: dict[str, tuple[KeptPrompt, ...]] = {}  # as they are drawn, unless others moved or removed some
        self._shown: Collection[str] | None = None
        self._is_drawing = False
        for place, node in prompt_nodes(segmentation_node):
            if place in self._nodes:
                release_node(node)
            else:
                self._adopt(place, node)

    def use_geometry(self, geometry: Geometry) -> None:
        """Draw on another grid from now on."""
        self._geometry = geometry

    @property
    def nodes(self) -> dict[PromptOwner, Any]:
        """The markups nodes, by what they stand for."""
        return dict(self._nodes)

    def draw_segment(self, segment_id: str, segment_name: str, record: PromptRecord) -> None:
        """Draw what changed in the record of a segment: new nodes, moved ones, fewer ones. Looks are left alone."""
        before = self._drawn.pop(segment_id, ())
        same = common_start(before, record.prompts)
        with self._drawing():
            if same < len(before) or not before:
                self._remove_others(segment_id, {kept.key for kept in record.prompts})
            for number, kept in enumerate(record.prompts[same:], start=same + 1):
                name = node_name(segment_name, number, kept.prompt)
                self._draw_prompt(PromptOwner(segment_id, kept.key), kept.prompt, name)
        self._drawn[segment_id] = record.prompts

    def show(self, segment_ids: Collection[str] | None) -> None:
        """Show the prompts of these segments and hide those of the others, also of prompts to come; None: show all."""
        self._shown = None if segment_ids is None else frozenset(segment_ids)
        for place, node in self._nodes.items():
            node.SetDisplayVisibility(self._is_shown(place))

    def forget(self, node: Any) -> PromptOwner | None:
        """Watch a node no more that was removed from the scene; its place, if it was one of these."""
        place = next((place for place, kept in self._nodes.items() if kept is node), None)
        if place is not None:
            self._release(place)
        return place

    def remove_all(self) -> None:
        """Remove the nodes and their folder from the scene: the segmentation has gone."""
        with self._drawing():
            for place in list(self._nodes):
                self._remove(place)
        remove_folder(self._scene, self._segmentation_node)

    def stop(self) -> None:
        """Watch no more; the nodes stay."""
        for place in list(self._nodes):
            self._release(place)

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Take what nodes report in here for our own doing."""
        before, self._is_drawing = self._is_drawing, True
        try:
            yield
        finally:
            self._is_drawing = before

    def _remove_others(self, segment_id: str, keys: Collection[str]) -> None:
        """Remove the nodes of prompts that a segment has no more."""
        places = [place for place in self._nodes if place.segment_id == segment_id and place.key not in keys]
        for place in places:
            self._remove(place)

    def _draw_prompt(self, place: PromptOwner, prompt: Prompt, name: str) -> None:
        if self._prompts.get(place) == prompt and place not in self._moved:
            return
        self._moved.discard(place)
        shape, node = shape_of(prompt, self._geometry), self._nodes.get(place)
        if node is not None and (shape is None or not can_show(node, shape)):
            self._remove(place)
            node = None
        if shape is None:
            return
        if node is None:
            node = add_prompt_node(self._segmentation_node, place, prompt, shape, name)
            put_into_folder(self._segmentation_node, node)
            node.SetDisplayVisibility(self._is_shown(place))
            self._adopt(place, node)
        elif not shape.is_at(drawn_points(node, shape)):
            draw(node, prompt, shape)
        before = self._prompts.get(place, prompt)
        if before.polarity is not prompt.polarity:
            style_node(node, prompt)
        self._prompts[place] = prompt

    def _is_shown(self, place: PromptOwner) -> bool:
        return self._shown is None or place.segment_id in self._shown

    def _adopt(self, place: PromptOwner, node: Any) -> None:
        """Watch a node. A drag with the mouse reports every step; only where it ends counts."""
        self._nodes[place] = node
        observers = self._observers[place] = Observers()
        markups = slicer.vtkMRMLMarkupsNode
        observers.add(node, markups.PointStartInteractionEvent, self._drag_started, place)
        observers.add(node, markups.PointEndInteractionEvent, self._drag_ended, place)
        for event in (markups.PointModifiedEvent, markups.PointRemovedEvent, markups.PointPositionUndefinedEvent):
            observers.add(node, event, self._points_changed, place)

    def _drag_started(self, place: PromptOwner) -> None:
        self._dragged.add(place)

    def _drag_ended(self, place: PromptOwner) -> None:
        self._dragged.discard(place)
        self._points_changed(place)

    def _points_changed(self, place: PromptOwner) -> None:
        node, prompt = self._nodes.get(place), self._prompts.get(place)
        if self._is_drawing or place in self._dragged or node is None or prompt is None:
            return
        shape = shape_of(prompt, self._geometry)
        if shape is None:
            return
        points = drawn_points(node, shape)
        if not shape.is_at(points):
            self._moved.add(place)
            self._drawn.pop(place.segment_id, None)
            self._on_moved(place, moved_prompt(prompt, points, self._geometry))

    def _remove(self, place: PromptOwner) -> None:
        node = self._nodes[place]
        self._release(place)
        take_from_folder(self._scene, node)
        remove_node(node)

    def _release(self, place: PromptOwner) -> None:
        del self._nodes[place]
        self._drawn.pop(place.segment_id, None)
        self._prompts.pop(place, None)
        self._dragged.discard(place)
        self._observers.pop(place).remove()
