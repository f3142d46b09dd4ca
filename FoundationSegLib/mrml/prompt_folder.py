"""The folder of a segmentation's prompts in subject hierarchy.

Slicer's plugin for segmentations leaves items below a segmentation alone that are no segments
(qSlicerSubjectHierarchySegmentationsPlugin::onSegmentRemoved).
"""

from typing import Any

import slicer
import vtk

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
