"""The editable area and the intensity range of a Segment Editor, for those who ask for them.

Slicer's own editor logic computes both for the whole volume at every edit, which takes up to a second; here they are
computed in the box that changes.
"""

from collections.abc import Container, Mapping
from typing import Any

import numpy as np
import slicer
from numpy.typing import NDArray

from ..errors import GeometryError, InputError
from ..imaging.geometry import Box
from ..imaging.masks import EMPTY_MASK, Edit, PackedMask, SegmentChange, pack_mask
from ..session.segment_store import OverlapPolicy
from . import segment_tags
from .alignment import Alignment
from .labelmaps import (
    BINARY_LABELMAP,
    SegmentReader,
    mask_image,
    oriented_image,
    place_empty_labelmaps,
    read_labels,
    replace_labelmaps,
    turned_labelmaps,
)
from .segment_tags import Colour, find_term, generic_colour
from .volumes import geometry_from_node, volume_from_node


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


EDITOR_TAG = "FoundationSeg"


class SegmentWriter(SegmentReader):
    """Reads and writes the segments of one segmentation in the voxels of one volume.

    Everything goes through Slicer's segment editor logic, with a segment editor node of our own (singleton tag
    ``FoundationSeg``) in `OverwriteNone` and without masks, so the user's Segment Editor settings neither change nor
    matter. `ModificationModeSet` is never used: with an extent it clears the rest of the segment.

    The segmentation takes the volume's grid as its reference geometry, and the volume's parent transform. Segments
    whose voxels are the volume's, but counted in other directions, are turned round (:func:`.turned_labelmaps`).

    Raises:
        InputError: the volume holds no image, or the segmentation is kept as something else than binary label maps.
        GeometryError: a parent transform of the volume is not linear, or the segmentation has segments that were drawn
            on another grid or under another transform than the volume's. Nothing is changed then.
    """

    def __init__(self, segmentation_node: Any, volume_node: Any) -> None:
        super().__init__(segmentation_node, geometry_from_node(volume_node))
        self._volume_node = volume_node
        turned = turned_labelmaps(segmentation_node.GetSegmentation(), self._geometry)
        self._require_labelmaps()
        self._require_fit(turned)
        self.alignment = Alignment(segmentation_node, volume_node)
        replace_labelmaps(segmentation_node.GetSegmentation(), turned)
        segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
        self.alignment.remember()
        place_empty_labelmaps(segmentation_node.GetSegmentation(), self._geometry.ijk_to_ras)
        self._logic = _editor_logic(segmentation_node, volume_node)

    @property
    def is_readable(self) -> bool:
        """False where :meth:`require_readable` raises."""
        try:
            self.require_readable()
        except (InputError, GeometryError):
            return False
        return True

    def require_readable(self) -> None:
        """Make sure that the segments are binary label maps in the coordinates in which they are read.

        Raises:
            InputError: they are kept as something else now.
            GeometryError: the user moved them relative to the volume.
        """
        self._require_labelmaps()
        try:
            self._settle()
        except GeometryError:
            if not self.alignment.is_segmentation_untouched:
                raise

    def require_writable(self) -> None:
        """:meth:`require_readable`, and the volume has not been moved relative to the segments either."""
        self._require_labelmaps()
        self._settle()

    def add_segment(
        self,
        name: str,
        *,
        colour: Colour | None = None,
        terminology: str | None = None,
        tags: Mapping[str, str] | None = None,
        segment_id: str = "",
    ) -> str:
        """Add an empty segment and return its id, which Slicer chooses at random unless one is given that is free.

        The segment gets a layer of its own: an edit then costs what the segment's extent costs, and no voxel of a
        neighbour is ever rewritten. Slicer puts layers together again when it saves.

        Args:
            name: as the user sees it; need not be unique.
            colour: red, green, blue from 0 to 1; unless given, that of the term, else one by the segment's number.
            terminology: in Slicer's serialised form; unless given, looked up by the name.
            tags: segment tags by their whole names.
            segment_id: the id that it had once.
        """
        self.require_writable()
        term = find_term(name)
        segmentation = self._node.GetSegmentation()
        segment = slicer.vtkSegment()
        segment.SetName(name)
        segment.SetNameAutoGenerated(False)
        segment.SetColor(colour or (term and term.colour) or generic_colour(segmentation.GetNumberOfSegments()))
        segment.SetColorAutoGenerated(False)
        if terminology or term:
            segment.SetTerminology(terminology or term.serialized)
        for tag, value in (tags or {}).items():
            segment_tags.write_tag(segment, tag, value)
        segmentation.AddSegment(segment, "" if segmentation.GetSegment(segment_id) else segment_id)
        place_empty_labelmaps(segmentation, self._geometry.ijk_to_ras)
        return segmentation.GetSegmentIdBySegment(segment)

    def write(
        self,
        segment_id: str,
        mask: PackedMask | NDArray[np.bool_],
        box: Box | None = None,
        policy: OverlapPolicy = OverlapPolicy.PROTECT,
        masking_node: Any | None = None,
    ) -> Edit:
        """Make the segment equal to the mask inside a box, and leave it alone outside.

        Args:
            segment_id: the segment to change.
            mask: a packed mask that lies in the box, or a (K, J, I) array of the shape of the box.
            box: the part of the volume that the mask speaks about; the whole volume unless given.
            policy: who keeps the voxels that other segments have.
            masking_node: a `vtkMRMLSegmentEditorNode` whose editable area and intensity range are to be kept to.

        Returns:
            What really changed, read back from Slicer: this segment, and those that lost voxels to it; segments that
            did not change are not in it.

        Raises:
            InputError: there is no such segment, or it is locked.
            GeometryError: box or mask reach out of the volume, do not fit each other, or a segment to be changed lies
                on another grid. Nothing is written then.
        """
        self.require_writable()
        self._require_unlocked(segment_id)
        box = self.inside(box)
        change = self.difference(segment_id, _packed(mask, box), box)
        return self.write_change(segment_id, change, policy, masking_node)

    def write_change(
        self,
        segment_id: str,
        change: SegmentChange,
        policy: OverlapPolicy = OverlapPolicy.PROTECT,
        masking_node: Any | None = None,
    ) -> Edit:
        """Make a change whose gained voxels the segment has not, and whose lost voxels it has; otherwise :meth:`write`.

        For those who know the segment as it is: nothing is compared first. That holds for :meth:`apply_known`, too.
        """
        self.require_writable()
        self._require_unlocked(segment_id)
        if masking_node is not None:
            change = editable(change, segment_id, self._node, self._volume_node, masking_node)
        keeping, losing = self._others(segment_id, policy)
        gained = self.without(change.gained, keeping)
        return self._carry_out(self.losses(gained, losing) | {segment_id: SegmentChange(gained, change.lost)})

    def apply(self, edit: Edit) -> Edit:
        """Undo or redo: make exactly the changes of an edit, whatever is locked or in the way.

        Returns:
            What really changed; the same edit, unless somebody else changed the segments in between.

        Raises:
            InputError: a segment of the edit does not exist any more; nothing is written then.
            GeometryError: a box reaches out of the volume, or a segment lies on another grid; nothing is written then.
        """
        self.require_readable()
        return self._carry_out({key: self.possible_part(key, change) for key, change in edit.changes.items()})

    def apply_known(self, edit: Edit) -> Edit:
        """:meth:`apply` for those who know that the segments are as the edit needs them."""
        self.require_readable()
        return self._carry_out(edit.changes)

    def _others(self, segment_id: str, policy: OverlapPolicy) -> tuple[list[str], list[str]]:
        """The ids of the segments that keep contested voxels, and of those that lose them."""
        others = [other for other in self.segment_ids if other != segment_id]
        if policy is OverlapPolicy.PROTECT_LOCKED:
            locked = {other for other in others if segment_tags.is_locked(self.segment(other))}
            return sorted(locked), [other for other in others if other not in locked]
        keeping = others if policy is OverlapPolicy.PROTECT else []
        return keeping, others if policy is OverlapPolicy.OVERWRITE else []

    def _carry_out(self, possible: Mapping[str, SegmentChange]) -> Edit:
        """Make changes, and return what of them is there afterwards, voxel by voxel."""
        self.require_grid(possible)
        # All removing comes first: Slicer opens a new layer where a gained voxel still belongs to a layer's neighbour.
        for segment_id, change in possible.items():
            self._modify(segment_id, change.lost, self._logic.ModificationModeRemove)
        for segment_id, change in possible.items():
            self._modify(segment_id, change.gained, self._logic.ModificationModeAdd)
        present = {key: self.present_part(key, change) for key, change in possible.items()}
        edit = Edit({segment_id: change for segment_id, change in present.items() if not change.is_empty})
        if not edit.changes and any(not change.is_empty for change in possible.values()):
            raise InputError("Slicer did not write the segment: see its error log, or start a new segmentation")
        return edit

    def _modify(self, segment_id: str, mask: PackedMask, mode: int) -> None:
        if not mask.box.is_empty:
            image = mask_image(mask, self.labelmap(segment_id), self._geometry)
            self._logic.ModifySegmentByLabelmap(self._node, segment_id, image, mode, False, True)

    def _require_unlocked(self, segment_id: str) -> None:
        segment = self.segment(segment_id)
        if segment_tags.is_locked(segment):
            raise InputError(f"the segment '{segment.GetName()}' is locked: unlock it first")

    def _require_labelmaps(self) -> None:
        kind = self._node.GetSegmentation().GetSourceRepresentationName()
        if kind != BINARY_LABELMAP:
            raise InputError(
                f"the segmentation '{self._node.GetName()}' is kept as {kind.lower()}: make the binary label map its "
                "source in the Segmentations module, or start a new one"
            )

    def _require_fit(self, turned: Container[Any]) -> None:
        self.require_grid(key for key in self.segment_ids if self.labelmap(key) not in turned)

    def _settle(self) -> None:
        self.alignment.settle()
        if self.alignment.geometry is not self._geometry and self.alignment.geometry != self._geometry:
            self._geometry = self.alignment.geometry
            place_empty_labelmaps(self._node.GetSegmentation(), self._geometry.ijk_to_ras)


def _packed(mask: PackedMask | NDArray[np.bool_], box: Box) -> PackedMask:
    fits = box.contains(mask.box) if isinstance(mask, PackedMask) else mask.shape == box.shape_kji
    if not fits:
        raise GeometryError(f"the mask does not fit its box {box}")
    return mask if isinstance(mask, PackedMask) else pack_mask(mask, box.start_kji)


def _editor_logic(segmentation_node: Any, volume_node: Any) -> Any:
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
