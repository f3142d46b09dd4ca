"""Slicer's segment editor: its logic with settings of our own, and the user's own settings for those who ask for them.

That logic computes the editable area and the intensity range for the whole volume at every edit, which takes up to a
second; here they are computed in the box that changes.
"""

from typing import Any

import numpy as np
import slicer
from numpy.typing import NDArray

from ..errors import InputError
from ..imaging.geometry import Box
from ..imaging.masks import EMPTY_MASK, PackedMask, SegmentChange, pack_mask
from .labelmaps import oriented_image, read_labels
from .volumes import geometry_from_node, volume_from_node

EDITOR_TAG = "FoundationSeg"


def editor_logic(segmentation_node: Any, volume_node: Any) -> Any:
    """A segment editor logic for a segmentation on a volume, with an editor node of our own."""
    scene = segmentation_node.GetScene()
    logic = slicer.vtkSlicerSegmentEditorLogic()
    logic.SetMRMLApplicationLogic(slicer.modules.segmentations.logic().GetMRMLApplicationLogic())
    logic.SetMRMLScene(scene)
    node = _editor_node(scene)
    node.SetAndObserveSegmentationNode(segmentation_node)
    node.SetAndObserveSourceVolumeNode(volume_node)
    logic.SetSegmentEditorNode(node)
    return logic


def _editor_node(scene: Any) -> Any:
    """Our own settings: nothing masked, nothing overwritten (a fresh node would overwrite all other segments)."""
    node = scene.GetSingletonNode(EDITOR_TAG, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.vtkMRMLSegmentEditorNode()
        node.SetSingletonTag(EDITOR_TAG)
        node.SetSaveWithScene(False)
        scene.AddNode(node)
    node.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteNone)
    node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere)
    node.SetSourceVolumeIntensityMask(False)
    return node


def editable(
    change: SegmentChange, segment_id: str, segmentation_node: Any, volume_node: Any, masking_node: Any
) -> SegmentChange:
    """The part of a change that the settings of a `vtkMRMLSegmentEditorNode` allow, gains and losses alike.

    Raises:
        InputError: the settings name a segment that is not in this segmentation.
    """

    def allowed(mask: PackedMask) -> PackedMask:
        if mask.box.is_empty:
            return EMPTY_MASK
        area = _area(segment_id, mask.box, segmentation_node, volume_node, masking_node)
        return pack_mask(mask.unpack() & area & _in_range(mask.box, volume_node, masking_node), mask.box.start_kji)

    return SegmentChange(allowed(change.gained), allowed(change.lost))


def _area(
    segment_id: str, box: Box, segmentation_node: Any, volume_node: Any, masking_node: Any
) -> NDArray[np.bool_] | np.bool_:
    mode = masking_node.GetMaskMode()
    if mode == slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere:
        return np.True_
    geometry = geometry_from_node(volume_node)
    reference, mask = oriented_image(box, geometry.ijk_to_ras), slicer.vtkOrientedImageData()
    mask_segment_id = _mask_segment_id(segmentation_node, masking_node, mode)
    if not segmentation_node.GenerateEditMask(mask, mode, reference, segment_id, mask_segment_id):
        raise InputError("the editable area cannot be computed: choose another one in the Segment Editor")
    return read_labels(mask, geometry, box) == 0


def _mask_segment_id(segmentation_node: Any, masking_node: Any, mode: int) -> str:
    segment_id = masking_node.GetMaskSegmentID() or ""
    if mode != slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment:
        return ""
    if segmentation_node.GetSegmentation().GetSegment(segment_id) is None:
        raise InputError("the editable area is a segment of another segmentation: choose one of this segmentation")
    return segment_id


def _in_range(box: Box, volume_node: Any, masking_node: Any) -> NDArray[np.bool_] | np.bool_:
    if not masking_node.GetSourceVolumeIntensityMask():
        return np.True_
    volume = volume_from_node(volume_node)
    # Slicer looks at the first component of a colour volume.
    voxels = volume.array_kji[box.slices][..., 0] if volume.is_colour else volume.array_kji[box.slices]
    low, high = masking_node.GetSourceVolumeIntensityMaskRange()
    return (voxels >= low) & (voxels <= high)
