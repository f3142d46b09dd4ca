"""Voxels shown in the slice views that no segment has yet: slices as they are found, or changes to be confirmed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import slicer

from ..imaging.geometry import Geometry
from ..imaging.masks import EMPTY_MASK, PackedMask, SegmentChange, merge_masks
from ..prompts.kinds import Polarity
from ..session.session import Session
from .labelmaps import BINARY_LABELMAP, label_image
from .prompt_nodes import COLOURS
from .scene import remove_node
from .terminology import Colour

NODE_NAME = "FoundationSeg preview"
_FILL_OPACITY = 0.4


class VoxelPreview:
    """A segmentation node that is hidden from lists and never saved. It is replaced as a whole at each change.

    Slicer's subject hierarchy complains about segments of hidden nodes; it hears of none, since they are there first.
    """

    def __init__(self) -> None:
        self._node: Any = None
        self._parts: dict[str, tuple[PackedMask, Colour]] = {}

    @property
    def node(self) -> Any:
        """The node; None while nothing is shown."""
        is_there = self._node is not None and self._node.GetScene() is not None
        return self._node if is_there else None

    def show_changes(self, segmentation_node: Any, geometry: Geometry, changes: Sequence[SegmentChange]) -> None:
        """Show what segments of an image's grid would gain and lose, in the colours of the signs of prompts."""
        gained, lost = ([getattr(change, side) for change in changes] for side in ("gained", "lost"))
        self._parts = {
            "gained": (merge_masks(gained), COLOURS[Polarity.POSITIVE]),
            "lost": (merge_masks(lost), COLOURS[Polarity.NEGATIVE]),
        }
        self._draw(segmentation_node, geometry)

    def add_segments(self, segmentation_node: Any, geometry: Geometry, masks: Mapping[str, PackedMask]) -> None:
        """Show further voxels of segments, by their ids, in their colours, beside those that are shown."""
        for segment_id, mask in masks.items():
            segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
            if segment is not None:
                before = self._parts[segment_id][0] if segment_id in self._parts else EMPTY_MASK
                self._parts[segment_id] = merge_masks((before, mask)), segment.GetColor()
        self._draw(segmentation_node, geometry)

    def settle(self, session: Session | None) -> None:
        """Show nothing any more, unless a session still propagates, or waits to be confirmed."""
        if session is None or (session.confirmation is None and not session.is_propagating):
            self.clear()

    def clear(self) -> None:
        """Show nothing."""
        self._parts = {}
        self._remove()

    def _remove(self) -> None:
        node, self._node = self.node, None
        if node is not None:
            remove_node(node)

    def _draw(self, segmentation_node: Any, geometry: Geometry) -> None:
        self._remove()
        parts = {name: part for name, part in self._parts.items() if not part[0].box.is_empty}
        scene = segmentation_node.GetScene()
        if not parts or scene is None:
            return
        display, node = slicer.vtkMRMLSegmentationDisplayNode(), slicer.vtkMRMLSegmentationNode()
        for own_node in (display, node):
            own_node.SetHideFromEditors(True)
            own_node.SetSaveWithScene(False)
        display.SetVisibility3D(False)
        display.SetOpacity2DFill(_FILL_OPACITY)
        node.SetName(NODE_NAME)
        node.GetSegmentation().SetSourceRepresentationName(BINARY_LABELMAP)
        for name, (mask, colour) in parts.items():
            segment = slicer.vtkSegment()
            segment.SetName(name)
            segment.SetColor(*colour)
            labels = mask.unpack().astype(np.uint8)
            segment.AddRepresentation(BINARY_LABELMAP, label_image(labels, mask.box, geometry.ijk_to_ras))
            node.GetSegmentation().AddSegment(segment, name)
        node.SetAndObserveDisplayNodeID(scene.AddNode(display).GetID())
        node.SetAndObserveTransformNodeID(segmentation_node.GetTransformNodeID())
        self._node = scene.AddNode(node)
