"""A scene of its own for one picture, so that nothing drawn or made for drawing touches the user's scene."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from ...core.errors import InputError
from ..labelmaps import BINARY_LABELMAP
from ..volumes import parent_to_world

# Above so many voxels, bringing two layers together takes longer than drawing both.
_WORTH_COLLAPSING = 20_000_000


@dataclass(frozen=True, slots=True)
class Stage:
    """What the views show. Keep it as long as they draw.

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
    for manager in managers:
        manager.SetMRMLApplicationLogic(stage.application_logic)
        group.AddDisplayableManager(manager)
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
    shown = source.GetScalarVolumeDisplayNode()
    if shown is not None and not shown.GetAutoWindowLevel():
        display.SetWindowLevel(shown.GetWindow(), shown.GetLevel())
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
    _prepare(node.GetSegmentation())
    scene.AddNode(node)
    node.SetAndObserveDisplayNodeID(scene.AddNode(slicer.vtkMRMLSegmentationDisplayNode()).GetID())
    _follow(scene, node, source)
    return node


def _prepare(segmentation: Any) -> None:
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
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(parent_to_world(source).ravel())
    transform = scene.AddNode(slicer.vtkMRMLLinearTransformNode())
    transform.SetMatrixTransformToParent(matrix)
    node.SetAndObserveTransformNodeID(transform.GetID())
