"""Segments of a segmentation node: read and written in the voxels of a volume node, by scripts and by sessions.

Slicer's segmentations logic writes them, as it does for the Segment Editor, in the box that changes and nowhere else.
The Segment Editor's own settings are kept to for those who ask for it. Slicer computes the editable area and the
intensity range for the whole volume at every edit, which takes up to a second; here they are computed in that box, too.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import slicer
from numpy.typing import NDArray

from ..errors import GeometryError, GoneError, InputError
from ..imaging.geometry import Box, Geometry
from ..imaging.masks import EMPTY_MASK, Edit, PackedMask, SegmentChange, change_between, pack_mask
from ..session.segment_store import OverlapPolicy
from . import labelmaps, segment_tags
from .labelmaps import oriented_image, read_labels
from .terminology import Colour, distinct_colour, find_term
from .volumes import FRAME_ATTRIBUTE, browser_of, frame_of, geometry_from_node, require_saved, volume_from_node


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


def read_segment(segment: Any, geometry: Geometry, box: Box | None = None) -> NDArray[np.bool_]:
    """A `vtkSegment` in a box of a volume (all of it unless given), as Slicer keeps it: a new (K, J, I) boolean array.

    Whatever the extent, the layer and the label value; on another grid than the volume's by the nearest voxel.
    """
    labels = labelmaps.read_labels(
        segment.GetRepresentation(labelmaps.BINARY_LABELMAP), geometry, geometry.box if box is None else box
    )
    return labels == segment.GetLabelValue()


def _file_with_image(segmentation_node: Any, volume_node: Any) -> None:
    """Put a segmentation that nobody has filed into the study or folder of its image, as the Segment Editor does."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(segmentation_node.GetScene())
    item, image = map(hierarchy.GetItemByDataNode, (segmentation_node, volume_node)) if hierarchy else (0, 0)
    if item and image and hierarchy.GetItemParent(item) == hierarchy.GetSceneItemID():
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(image))


class SegmentWriter:
    """Reads and writes the segments of one segmentation in the voxels of one volume.

    Everything goes through `vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment`, which adds to one segment or
    takes from it: no other one is overwritten, and the user's Segment Editor settings neither change nor matter. Its
    replacing mode is never used: with an extent it clears the rest of the segment.

    The segmentation takes the volume's grid as its reference geometry, and the volume's parent transform. In a sequence
    it belongs to the frame that is shown; while another one is, there is nothing to read or write here. Segments
    whose voxels are the volume's, but counted in other directions, are turned round (:func:`.turned_labelmaps`).

    Attributes:
        geometry: the volume's grid, in which all boxes, masks and edits are given.
        alignment: keeps the segments where they are on the image.

    Raises:
        InputError: the volume holds no image, the segmentation is kept as something else than binary label maps, or a
            sequence shows it that does not keep changes.
        GeometryError: a parent transform of the volume is not linear, or the segmentation has segments that were drawn
            on another grid or under another transform than the volume's. Nothing is changed then.
    """

    def __init__(self, segmentation_node: Any, volume_node: Any) -> None:
        self._node, self._volume_node, self._scene = segmentation_node, volume_node, segmentation_node.GetScene()
        self.geometry = geometry_from_node(volume_node)
        self._browser, self._frame = browser_of(volume_node), frame_of(volume_node)
        require_saved(segmentation_node)
        segmentation = segmentation_node.GetSegmentation()
        turned = labelmaps.turned_labelmaps(segmentation, self.geometry)
        self._require_labelmaps()
        self._require_grid(key for key in self.segment_ids if self.labelmap(key) not in turned)
        self.alignment = labelmaps.Alignment(segmentation_node, volume_node)
        labelmaps.replace_labelmaps(segmentation, turned)
        segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
        if self._frame != (segmentation_node.GetAttribute(FRAME_ATTRIBUTE) or ""):
            segmentation_node.SetAttribute(FRAME_ATTRIBUTE, self._frame)
        self.alignment.remember()
        labelmaps.place_empty_labelmaps(segmentation, self.geometry.ijk_to_ras)
        _file_with_image(segmentation_node, volume_node)

    @property
    def is_gone(self) -> bool:
        """True once a node was deleted or the scene was closed, and while a sequence shows another frame."""
        scenes = self._node.GetScene(), self._volume_node.GetScene()
        is_deleted = self._scene is None or scenes[0] is not self._scene or scenes[1] is not self._scene
        return is_deleted or (self._browser is not None and frame_of(self._volume_node) != self._frame)

    @property
    def segment_ids(self) -> tuple[str, ...]:
        """The ids of all segments, in Slicer's order."""
        return tuple(self._node.GetSegmentation().GetSegmentIDs())

    def segment(self, segment_id: str) -> Any:
        """The `vtkSegment` of that id, for its name, colour and :mod:`.segment_tags`.

        Raises:
            InputError: there is none (any more).
        """
        segment = self._node.GetSegmentation().GetSegment(segment_id)
        if segment is None:
            raise InputError(f"the segmentation has no segment with the id '{segment_id}': choose another one")
        return segment

    def is_locked(self, segment_id: str) -> bool:
        """True for a segment that may not be written."""
        return segment_tags.is_locked(self.segment(segment_id))

    def is_visible(self, segment_id: str) -> bool:
        """True for a segment that is shown, as Slicer's segment editor logic sees it."""
        display = self._node.GetDisplayNode()
        return display is None or bool(display.GetSegmentVisibility(segment_id))

    def name(self, segment_id: str) -> str:
        """The name that the user calls the segment by."""
        return self.segment(segment_id).GetName() or ""

    def labelmap(self, segment_id: str) -> Any:
        """The `vtkOrientedImageData` that holds the segment, alone or with others; None if there is none yet."""
        return self.segment(segment_id).GetRepresentation(labelmaps.BINARY_LABELMAP)

    def read(self, segment_id: str, box: Box | None = None) -> NDArray[np.bool_]:
        """The segment in a box of the volume (the whole volume unless given): a new (K, J, I) boolean array.

        Raises:
            InputError: there is no such segment.
            GeometryError: the box reaches out of the volume.
        """
        if box is not None and not self.geometry.box.contains(box):
            raise GeometryError(f"the box {box} reaches out of the volume of shape {self.geometry.shape_kji}")
        return read_segment(self.segment(segment_id), self.geometry, box)

    def difference(self, segment_id: str, mask: PackedMask, box: Box) -> SegmentChange:
        """The change that makes the segment equal to a mask inside the box; reads only where either has voxels."""
        occupied = labelmaps.occupied_box(self.labelmap(segment_id), self.geometry)
        region = mask.box.union(occupied.intersection(box))
        before = self.read(segment_id, region)
        after = np.zeros_like(before)
        after[mask.box.relative_to(region).slices] = mask.unpack()
        return change_between(before, after, region.start_kji)

    def without(self, mask: PackedMask, segment_ids: Iterable[str]) -> PackedMask:
        """The mask without the voxels of those segments; the mask itself if they have none of them."""
        voxels, has_changed = None, False
        for box, labels, ids in self._layers(segment_ids, mask.box):
            protected = labels == next(iter(ids)) if len(ids) == 1 else np.isin(labels, list(ids))
            if protected.any():
                voxels = mask.unpack() if voxels is None else voxels
                part = voxels[box.relative_to(mask.box).slices]
                has_changed |= bool((part & protected).any())
                part &= ~protected
        return mask if voxels is None or not has_changed else pack_mask(voxels, mask.box.start_kji)

    def losses(self, mask: PackedMask, segment_ids: Iterable[str]) -> dict[str, SegmentChange]:
        """The voxels that each of those segments loses if the mask takes them; segments that lose none are left out."""
        changes: dict[str, SegmentChange] = {}
        for box, labels, ids in self._layers(segment_ids, mask.box):
            part = mask.unpack()[box.relative_to(mask.box).slices]
            for value in set(np.unique(labels[part]).tolist()) & set(ids):
                lost = pack_mask((labels == value) & part, box.start_kji)
                changes[ids[value]] = SegmentChange(EMPTY_MASK, lost)
        return changes

    @property
    def is_readable(self) -> bool:
        """False where the segments are no binary label maps, or the user moved them relative to the volume."""
        try:
            self.require_writable()
        except GeometryError:
            return self.alignment.is_segmentation_untouched
        except InputError:
            return False
        return True

    def require_writable(self) -> None:
        """Make sure that segments can be read and written where they belong.

        Raises:
            GoneError: a node was deleted, or a sequence shows another frame.
            InputError: they are kept as something else than binary label maps now.
            GeometryError: the user moved them relative to the volume, or the volume relative to them.
        """
        if self.is_gone:
            raise GoneError("the volume or the segmentation was deleted, or shows another frame: nothing was written")
        self._require_labelmaps()
        self.alignment.settle()
        if self.alignment.geometry is not self.geometry and self.alignment.geometry != self.geometry:
            self.geometry = self.alignment.geometry
            labelmaps.place_empty_labelmaps(self._node.GetSegmentation(), self.geometry.ijk_to_ras)

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
        segment.SetColor(colour or distinct_colour(term and term.colour, segmentation))
        segment.SetColorAutoGenerated(False)
        if terminology or term:
            segment.SetTerminology(terminology or term.serialized)
        for tag, value in (tags or {}).items():
            segment_tags.write_tag(segment, tag, value)
        if not any(map(segmentation.ContainsRepresentation, labelmaps.OTHERS)):  # Slicer would make them of nothing
            segment.AddRepresentation(labelmaps.BINARY_LABELMAP, labelmaps.empty_labelmap(self.geometry.ijk_to_ras))
        segmentation.AddSegment(segment, "" if segmentation.GetSegment(segment_id) else segment_id)
        labelmaps.place_empty_labelmaps(segmentation, self.geometry.ijk_to_ras)
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
        box = self.geometry.box if box is None else box
        is_packed = isinstance(mask, PackedMask)
        if not (box.contains(mask.box) if is_packed else mask.shape == box.shape_kji):
            raise GeometryError(f"the mask does not fit its box {box}")
        packed = mask if is_packed else pack_mask(mask, box.start_kji)
        return self.write_change(segment_id, self.difference(segment_id, packed, box), policy, masking_node)

    def write_change(
        self,
        segment_id: str,
        change: SegmentChange,
        policy: OverlapPolicy = OverlapPolicy.PROTECT,
        masking_node: Any | None = None,
    ) -> Edit:
        """Make a change whose gained voxels the segment has not, and whose lost voxels it has; otherwise :meth:`write`.

        For those who know the segment as it is: nothing is compared first.
        """
        self.require_writable()
        if self.is_locked(segment_id):
            raise InputError(f"the segment '{self.name(segment_id)}' is locked: unlock it first")
        if masking_node is not None:
            change = editable(change, segment_id, self._node, self._volume_node, masking_node)
        keeping: list[str] = []
        losing: list[str] = []
        for other in self.segment_ids if policy is not OverlapPolicy.ALLOW else ():
            if other == segment_id or (policy is OverlapPolicy.OVERWRITE_VISIBLE and not self.is_visible(other)):
                continue
            is_protected = policy is OverlapPolicy.PROTECT
            is_kept = is_protected or (policy is not OverlapPolicy.OVERWRITE and self.is_locked(other))
            (keeping if is_kept else losing).append(other)
        gained = self.without(change.gained, keeping)
        changes = self.losses(gained, losing) if losing else {}
        return self._carry_out(changes | {segment_id: SegmentChange(gained, change.lost)})

    def apply(self, edit: Edit) -> Edit:
        """Undo or redo: make exactly the changes of an edit, whatever is locked or in the way.

        Returns:
            What really changed; the same edit, unless somebody else changed the segments in between.

        Raises:
            InputError: a segment of the edit does not exist any more; nothing is written then.
            GeometryError: a box reaches out of the volume, or a segment lies on another grid; nothing is written then.
        """
        self._require_readable()
        return self._carry_out({key: self._part(key, change, is_made=False) for key, change in edit.changes.items()})

    def _require_readable(self) -> None:
        if not self.is_readable:
            self.require_writable()

    def _layers(
        self, segment_ids: Iterable[str], box: Box
    ) -> Iterator[tuple[Box, labelmaps.Labels, Mapping[int, str]]]:
        """The label maps of those segments, each once and only where it reaches into the box.

        Yields the part of the box that it reaches, its labels there (K, J, I; not to be written to nor to be kept), and
        the ids of the segments by their label values.
        """
        values: dict[Any, dict[int, str]] = {}
        for segment_id in segment_ids:
            segment = self.segment(segment_id)
            ids = values.setdefault(segment.GetRepresentation(labelmaps.BINARY_LABELMAP), {})
            ids[segment.GetLabelValue()] = segment_id
        for labelmap, ids in values.items():
            common = labelmaps.occupied_box(labelmap, self.geometry).intersection(box)
            if not common.is_empty:
                yield common, labelmaps.read_labels(labelmap, self.geometry, common), ids

    def _carry_out(self, possible: Mapping[str, SegmentChange]) -> Edit:
        """Make changes, and return what of them is there afterwards, voxel by voxel."""
        try:
            self._require_grid(possible)
        except GeometryError:  # of a fractional label map Slicer makes one that counts in other directions
            segmentation = self._node.GetSegmentation()
            labelmaps.replace_labelmaps(segmentation, labelmaps.turned_labelmaps(segmentation, self.geometry))
            self._require_grid(possible)
        # All removing comes first: Slicer opens a new layer where a gained voxel still belongs to a layer's neighbour.
        for segment_id, change in possible.items():
            self._modify(segment_id, change.lost, is_gained=False)
        for segment_id, change in possible.items():
            self._modify(segment_id, change.gained, is_gained=True)
        present: dict[str, SegmentChange] = {}
        for segment_id, change in possible.items():
            part = self._part(segment_id, change, is_made=True)
            if not part.is_empty:
                present[segment_id] = part
        if not present and not all(change.is_empty for change in possible.values()):
            raise InputError("Slicer did not write the segment: see its error log, or start a new segmentation")
        return Edit(present)

    def _modify(self, segment_id: str, mask: PackedMask, is_gained: bool) -> None:
        """Add a mask to a segment, or take it away.

        With an extent Slicer does not go through the whole label map. Where no other segment is in the label map, it
        need not look whose voxels it takes away, either, which takes three times as long.
        """
        if not mask.box.is_empty:
            logic, segmentation = slicer.vtkSlicerSegmentationsModuleLogic, self._node.GetSegmentation()
            segment = self.segment(segment_id)
            image = labelmaps.mask_image(mask, self.labelmap(segment_id), self.geometry, is_inverse=not is_gained)
            mode = logic.MODE_MERGE_MASK if is_gained else logic.MODE_MERGE_MIN
            is_alone = segmentation.GetNumberOfLayers() == segmentation.GetNumberOfSegments()
            logic.SetBinaryLabelmapToSegment(image, self._node, segment_id, mode, image.GetExtent(), is_alone)
            if logic.GetSegmentStatus(segment) == logic.NotStarted:
                logic.SetSegmentStatus(segment, logic.InProgress)

    def _part(self, segment_id: str, change: SegmentChange, is_made: bool) -> SegmentChange:
        """The part of a change that is made by now, or that can be; its masks themselves where that is all of them."""
        masks = []
        for mask, is_inside in ((change.gained, is_made), (change.lost, not is_made)):
            if not mask.box.is_empty:
                voxels = np.frombuffer(mask.bits, np.uint8)
                segment = np.packbits(self.read(segment_id, mask.box))
                part = voxels & segment if is_inside else voxels & ~segment
                if not np.array_equal(part, voxels):
                    mask = pack_mask(PackedMask(mask.box, part.tobytes()).unpack(), mask.box.start_kji)
            masks.append(mask)
        return SegmentChange(*masks)

    def _require_grid(self, segment_ids: Iterable[str]) -> None:
        """Make sure that those segments can be written without resampling what they hold.

        Raises:
            GeometryError: one lies on another grid than the volume.
        """
        for segment in map(self.segment, segment_ids):
            if not labelmaps.is_on_grid(segment.GetRepresentation(labelmaps.BINARY_LABELMAP), self.geometry):
                raise GeometryError(
                    f"the segment '{segment.GetName()}' was drawn on another grid than the volume: "
                    "start a new segmentation, or resample this one in the Segment Editor (Specify geometry)"
                )

    def _require_labelmaps(self) -> None:
        kind = self._node.GetSegmentation().GetSourceRepresentationName()
        if kind != labelmaps.BINARY_LABELMAP:
            raise InputError(
                f"the segmentation '{self._node.GetName()}' is kept as {kind.lower()}: make the binary label map its "
                "source in the Segmentations module, or start a new one"
            )
