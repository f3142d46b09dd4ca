"""The segments of a session in the scene: made and deleted as the session says, their surfaces later."""

import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import slicer

from ..codec import frozen
from ..errors import InputError
from ..imaging.geometry import Box
from ..imaging.masks import EMPTY_MASK, Edit, PackedMask, SegmentChange, checksum, pack_mask
from ..session.segment_store import NewSegment, OverlapPolicy, SegmentEdited
from ..session.steps import AcceptStep
from . import segment_tags, volumes
from .labelmaps import BINARY_LABELMAP, occupied_box, place_empty_labelmaps
from .scene import remove_node
from .segments import SegmentWriter, read_segment
from .surfaces import has_surfaces, make_surface, surfaces_kept
from .terminology import Colour, distinct_colour, find_term

_FOLLOWED_ATTRIBUTE = "FoundationSeg.Followed"  # on the segmentation of a frame: checksums of what was written, by name


@frozen
class _Appearance:
    """Name, colour and term that a segment was made with: others mean that somebody changed it."""

    name: str
    colour: Colour
    terminology: str

    @staticmethod
    def of(segment: Any) -> "_Appearance":
        return _Appearance(segment.GetName(), tuple(segment.GetColor()), segment.GetTerminology())


class SceneStore(SegmentWriter):
    """The segments of a session (:class:`FoundationSegLib.session.segment_store.SegmentStore`) in a segmentation node.

    Attributes:
        masking_node: a `vtkMRMLSegmentEditorNode` whose editable area and intensity range are to be kept to ("same as
            Segment Editor"); None for none.
        defers_surfaces: surfaces are not made anew within a write, which takes up to seconds; who says so calls
            :meth:`make_next_surface` when there is time.
        stale_surfaces: the segments whose surfaces are out of date for that.
        save_state: called before the first change of each edit, so that the Segment Editor's undo has the segments as
            they are; None for nobody.
        has_foreign_undo: it was called.
    """

    def __init__(
        self, segmentation_node: Any, volume_node: Any, masking_node: Any | None = None, defers_surfaces: bool = False
    ) -> None:
        super().__init__(segmentation_node, volume_node)
        self.masking_node = masking_node
        self.defers_surfaces = defers_surfaces
        self.stale_surfaces: set[str] = set()
        self.save_state: Callable[[], None] | None = None
        self.has_foreign_undo = False
        self._left: Mapping[str, Hashable] | None = None  # the stamps after the last change of an edit under way
        self._made: dict[str, _Appearance] = {}
        self._removed: dict[str, tuple[Any, str, bool]] = {}

    def stamps(self) -> dict[str, Hashable]:
        """Each label map's own address and modification time, and the label in it: Slicer's undo puts in another one.

        None while the voxels cannot be read; no segment once all of them are gone.
        """
        if self.is_gone:
            return {}
        if not self.is_readable:
            return dict.fromkeys(self.segment_ids)
        stamps: dict[str, Hashable] = {}
        segmentation = self._node.GetSegmentation()
        for segment_id in segmentation.GetSegmentIDs():
            segment = segmentation.GetSegment(segment_id)
            labelmap = segment.GetRepresentation(BINARY_LABELMAP)
            labels = labelmap and (labelmap.GetAddressAsString(""), labelmap.GetMTime())
            stamps[segment_id] = labels, segment.GetLabelValue()
        return stamps

    def occupied(self, segment_id: str) -> Box:
        """A box that holds every voxel of the segment."""
        return occupied_box(self.labelmap(segment_id), self.geometry)

    def add(self, new: NewSegment) -> str:
        """Make an empty segment; the term goes by the kind, and numbered segments have colours of their own.

        One that :meth:`remove` has deleted comes back with all that it was, at its place in the list.
        """
        with self._undoable():
            return self._bring_back(new.segment_id) if new.segment_id in self._removed else self._make(new)

    def _make(self, new: NewSegment) -> str:
        term = find_term(new.kind or new.name)
        usual = None if new.number else term and term.colour
        made = self._made.get(new.segment_id)
        segment_id = self.add_segment(
            new.name,
            colour=made.colour if made is not None else distinct_colour(usual, self._node.GetSegmentation()),
            terminology=term.serialized if term else None,
            tags={segment_tags.GROUP_TAG: new.group} if new.group else None,
            segment_id=new.segment_id,
        )
        self._made[segment_id] = _Appearance.of(self.segment(segment_id))
        return segment_id

    def withdraw(self, segment_id: str) -> bool:
        """Delete a segment that was made here; who names, colours, codes, locks or draws one makes it his."""
        if not self.is_readable:
            return False
        segment = self.segment(segment_id)
        is_as_made = self._made.get(segment_id) == _Appearance.of(segment)
        if not is_as_made or self.is_locked(segment_id) or self.read(segment_id, self.occupied(segment_id)).any():
            return False
        with self._undoable():
            self._node.GetSegmentation().RemoveSegment(segment_id)
        return True

    def remove(self, segment_id: str) -> None:
        """Delete a segment whose voxels were taken away, and keep what else it is for :meth:`add`."""
        self.require_writable()
        segment, ids = self.segment(segment_id), (*self.segment_ids, "")
        self._removed[segment_id] = segment, ids[ids.index(segment_id) + 1], self.is_visible(segment_id)
        with self._undoable():
            self._node.GetSegmentation().RemoveSegment(segment_id)

    def _bring_back(self, segment_id: str) -> str:
        self.require_writable()
        segment, following, is_visible = self._removed.pop(segment_id)
        segmentation = self._node.GetSegmentation()
        segment.RemoveAllRepresentations()
        segmentation.AddSegment(segment, segment_id)
        if segmentation.GetSegment(following) is not None:  # in one step, Slicer's hierarchy moves it to the end again
            segmentation.SetSegmentIndex(segment_id, segmentation.GetSegmentIndex(following))
        place_empty_labelmaps(segmentation, self.geometry.ijk_to_ras)
        if not is_visible and self._node.GetDisplayNode() is not None:
            self._node.GetDisplayNode().SetSegmentVisibility(segment_id, False)
        return segment_id

    @contextmanager
    def _undoable(self) -> Iterator[None]:
        """Have the state before the first change of an edit saved for the Segment Editor's undo."""
        if self.save_state is not None and self._left != self.stamps():
            self.has_foreign_undo = True
            self.save_state()
        yield
        if self.save_state is not None:
            self._left = self.stamps()

    def unnoticed(self) -> AbstractContextManager[None]:
        """Return a context in which nobody takes notice of tags, where the Segment Editor's undo would."""
        return segment_tags.unnoticed(self._node.GetSegmentation()) if self.has_foreign_undo else nullcontext()

    def write_change(
        self, segment_id: str, change: SegmentChange, policy: OverlapPolicy, masking_node: Any | None = None
    ) -> Edit:
        """:meth:`SegmentWriter.write_change`, within the area of :attr:`masking_node`."""
        return super().write_change(segment_id, change, policy, masking_node or self.masking_node)

    def apply(self, edit: Edit) -> Edit:
        """Make exactly the changes of an edit. The session has just looked whether the segments are as they were."""
        self._require_readable()
        return self._carry_out(edit.changes)

    def _carry_out(self, possible: Mapping[str, SegmentChange]) -> Edit:
        keeps_surfaces = self.defers_surfaces and has_surfaces(self._node)
        with self._undoable(), surfaces_kept(self._node) if keeps_surfaces else nullcontext():
            edit = super()._carry_out(possible)
        if keeps_surfaces:
            self.stale_surfaces |= edit.changes.keys()
        return edit

    def make_next_surface(self) -> bool:
        """Make one surface anew that is out of date; False where there is none."""
        if not self.stale_surfaces or self.is_gone:
            return False
        make_surface(self._node, self.stale_surfaces.pop())
        return True

    def provenance(self, segment_id: str) -> Mapping[str, str]:
        """The origin of the segment, by the names of :data:`.segment_tags.PROVENANCE`."""
        return segment_tags.provenance(self.segment(segment_id))

    def describe(self, edited: SegmentEdited) -> None:
        """Keep in the segments' tags where they come from, and whether they were accepted as they are now."""
        self._left = None  # the edit has ended
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        for segment_id, state in edited.states.items():
            segment = self._node.GetSegmentation().GetSegment(segment_id)
            if segment is not None:
                with segment_tags.tagged_at_once(segment) as draft:  # each event has all views updated
                    segment_tags.set_provenance(draft, state.provenance)
                    is_accepted = bool(state.steps) and isinstance(state.steps[-1], AcceptStep)
                    if is_accepted != (logic.GetSegmentStatus(draft) == logic.Completed):
                        segment_tags.set_completed(draft, is_accepted)


class SegmentationSequence:
    """The segmentations of all frames of an image that a sequence browser shows.

    Args:
        volume_node: the image.
        node: the segmentation node in which the browser shows them; None until :meth:`write` makes it.

    Attributes:
        shown_frame: the number of the frame that was shown when this was made.

    Raises:
        InputError: the segmentation is no sequence of that browser, or its changes are not kept.
    """

    def __init__(self, volume_node: Any, node: Any = None) -> None:
        self._volume_node, self.node, self._browser = volume_node, node, volumes.browser_of(volume_node)
        self._values, self._sequence = volumes.index_values(self._browser), None
        self.shown_frame = int(self._browser.GetSelectedItemNumber())
        if node is not None:
            if volumes.browser_of(node) is not self._browser:
                raise InputError(f"'{node.GetName()}' is no sequence: choose the result of an earlier run, or none")
            volumes.require_saved(node)
            self._sequence = self._browser.GetSequenceNode(node)

    def read(self, names: Sequence[str], *, only_corrected: bool = False) -> dict[int, tuple[PackedMask, ...]]:
        """Read the segments of these names, by the numbers of frames.

        Args:
            names: in which order.
            only_corrected: leave out frames that are as :meth:`write` left them, with no segment locked or accepted.
        """
        geometry, frames = volumes.geometry_from_node(self._volume_node), {}
        for n in range(len(self._values)):
            if (node := self._data_node(n)) is None:
                continue
            segments = [_segment_of(node, name) for name in names]
            frames[n] = tuple(pack_mask(read_segment(s, geometry)) if s else EMPTY_MASK for s in segments)
            is_kept = any(s and (segment_tags.is_locked(s) or segment_tags.is_completed(s)) for s in segments)
            if only_corrected and not is_kept:
                written = json.loads(node.GetAttribute(_FOLLOWED_ATTRIBUTE) or "{}")
                if [written.get(name, 0) for name in names] == list(map(checksum, frames[n])):
                    del frames[n]
        return frames

    def write(
        self, names: Sequence[str], frames: Mapping[int, tuple[Sequence[PackedMask], Mapping[str, str]]]
    ) -> tuple[dict[int, tuple[PackedMask, ...]], Callable[[], None]]:
        """Write segments into frames, all or none; other segments and other frames stay as they are.

        Args:
            names: of the segments.
            frames: by their numbers, masks in the order of the names and their origin
                (:func:`.segment_tags.set_provenance`).

        Returns:
            These segments as they are now (:meth:`read`), and what takes it back: every frame is as it was, and a new
            sequence goes. That raises an InputError, and changes nothing, where frames, image or these segments were
            changed or removed since.

        Raises:
            InputError: frames, image or segmentation were removed meanwhile, or a segment cannot be written.
        """
        self._require_unchanged_frames("nothing was written, run it again")
        scene, draft, nodes = self._volume_node.GetScene(), slicer.vtkMRMLSegmentationNode(), {}
        scene.AddNode(draft)
        try:
            for n, (masks, origin) in frames.items():
                draft.CopyContent(self._data_node(n) or slicer.vtkMRMLSegmentationNode())
                self._draw(draft, dict(zip(names, masks, strict=True)), origin)
                draft.SetAttribute(volumes.FRAME_ATTRIBUTE, self._values[n])
                nodes[n] = _copy_of(draft)
        finally:
            remove_node(draft)
        name = f"{self._volume_node.GetName()} segmentation"
        is_new = self._sequence is None
        sequence = self._sequence or scene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
        before = {n: _copy_of(self._data_node(n)) for n in nodes}
        for n, node in nodes.items():
            sequence.SetDataNodeAtValue(node, self._values[n])
        if is_new:
            self._show(sequence)
        written = self.read(names)

        def take_back() -> None:
            self._require_unchanged_frames("nothing was undone")
            if self.read(names) != written:
                raise InputError("segments were changed since: nothing was undone")
            if is_new:
                node, self.node, self._sequence = self.node, None, None
                self._browser.RemoveSynchronizedSequenceNode(sequence.GetID())
                remove_node(node)
                remove_node(sequence)
                return
            for n, node in before.items():
                if node is None:
                    sequence.RemoveDataNodeAtValue(self._values[n])
                else:
                    sequence.SetDataNodeAtValue(node, self._values[n])

        return written, take_back

    def _require_unchanged_frames(self, consequence: str) -> None:
        for node in filter(None, (self._volume_node, self._browser, self.node, self._sequence)):
            volumes.require_in_scene(node)
        if volumes.index_values(self._browser) != self._values:
            raise InputError(f"frames were added or removed meanwhile: {consequence}")

    def _draw(self, draft: Any, masks: Mapping[str, PackedMask], origin: Mapping[str, str]) -> None:
        """Write masks into segments of these names, which have the same ids in all frames, and note what came of it."""
        writer, ids = SegmentWriter(draft, self._volume_node), {}
        for name in masks:
            if _segment_of(draft, name) is None:
                writer.add_segment(name, segment_id=name)
            ids[name] = draft.GetSegmentation().GetSegmentIdBySegment(_segment_of(draft, name))
            writer.write(ids[name], EMPTY_MASK)
        for name, mask in masks.items():
            writer.write(ids[name], mask)
            segment_tags.set_provenance(writer.segment(ids[name]), origin)
        written = {name: checksum(pack_mask(writer.read(key))) for name, key in ids.items()}
        draft.SetAttribute(_FOLLOWED_ATTRIBUTE, json.dumps(written))

    def _show(self, sequence: Any) -> None:
        """Have the browser show a new sequence beside the image, and keep what is changed in it."""
        browser, master, self._sequence = self._browser, self._browser.GetMasterSequenceNode(), sequence
        sequence.SetIndexName(master.GetIndexName())
        sequence.SetIndexUnit(master.GetIndexUnit())
        sequence.SetIndexType(master.GetIndexType())
        browser.AddSynchronizedSequenceNode(sequence)
        browser.SetSaveChanges(sequence, True)
        self.node = browser.GetProxyNode(sequence)
        self.node.SetReferenceImageGeometryParameterFromVolumeNode(self._volume_node)
        volumes.share_parent_transform(self._volume_node, self.node)

    def _data_node(self, number: int) -> Any:
        return self._sequence and self._sequence.GetDataNodeAtValue(self._values[number], True)


def _copy_of(segmentation_node: Any) -> Any:
    if segmentation_node is None:
        return None
    copy = slicer.vtkMRMLSegmentationNode()
    copy.CopyContent(segmentation_node)
    return copy


def _segment_of(segmentation_node: Any, name: str) -> Any:
    """The first segment of exactly that name; None where there is none."""
    segmentation = segmentation_node.GetSegmentation()
    segments = map(segmentation.GetSegment, segmentation.GetSegmentIDs())
    return next((segment for segment in segments if segment.GetName() == name), None)
