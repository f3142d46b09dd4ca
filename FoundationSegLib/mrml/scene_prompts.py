"""The prompts of a segmentation in the scene: the records of its segments, drawn as markups that may be moved.

The record in a segment's tag is the truth, the markups are its picture. While an object of this class watches:

- a markup that is moved moves its prompt, once the mouse lets go; a box snaps to its voxels again;
- a markup that is deleted, or whose point is, removes its prompt;
- names, looks and folders are the user's to change;
- a segment that is deleted takes its prompts along; one that Slicer's undo brings back brings them back.

While nobody watches, markups are markups: the records stay as they are, and are drawn anew when somebody does.
One object watches a segmentation; :meth:`ScenePrompts.stop` it before the scene itself is destroyed.
"""

import json
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import slicer

from ..errors import FoundationSegError
from ..imaging.geometry import Geometry
from ..imaging.masks import checksum, pack_mask
from ..prompts.kinds import Prompt
from .labelmaps import Alignment
from .prompt_markups import PromptPictures
from .prompt_nodes import PromptOwner, owner_of
from .prompt_records import PromptRecord, RecordTags, record_text, recorded_geometry, transformed_record
from .scene import Observers
from .segments import read_segment
from .volumes import share_parent_transform

_SEGMENT_EVENTS = ("SegmentAdded", "SegmentRemoved", "SegmentModified")

OnChanged = Callable[[str, str, Prompt | None], None]


class ScenePrompts:
    """Keeps and draws the prompts of one segmentation on one volume.

    Args:
        segmentation_node: its segments' records are drawn at once.
        volume_node: the image; segmentation and markups are put under its parent transform, and follow it.
        on_changed: told when the user changed a prompt in the scene: segment id, key, and the prompt as it is now,
            or None where it was removed. The record has been written by then.
        on_image_moved: told that image and segments have other coordinates, as after "Harden transform", and that all
            records were taken along.
        on_error: told of what cannot be done in answer to an event: the volume was put under a transform that is not
            linear, a record is damaged.

    Raises:
        GeometryError: the volume is under a transform that is not linear, or its matrix cannot be inverted.
        InputError: the volume holds no image.
    """

    def __init__(
        self,
        segmentation_node: Any,
        volume_node: Any,
        on_changed: OnChanged | None = None,
        on_error: Callable[[FoundationSegError], None] | None = None,
        on_image_moved: Callable[[], None] | None = None,
    ) -> None:
        self._scene = segmentation_node.GetScene()
        self._segmentation_node = segmentation_node
        self._volume_node = volume_node
        self._on_changed = on_changed or (lambda segment_id, key, prompt: None)
        self._on_error = on_error or (lambda error: None)
        self._on_image_moved = on_image_moved or (lambda: None)
        self._records: dict[str, PromptRecord] = {}
        self._texts: dict[str, str | None] = {}
        self._tags: dict[str, RecordTags] = {}
        self._observers = Observers()
        self._is_writing = False
        self._alignment = Alignment(segmentation_node, volume_node)
        self._geometry = self._alignment.geometry
        self._pictures = PromptPictures(segmentation_node, self._geometry, self._changed)
        self._watch()
        self._read_segments()
        self.follow_image()

    @property
    def geometry(self) -> Geometry:
        """The grid of the image in whose RAS the records are."""
        return self._geometry

    @property
    def segment_ids(self) -> tuple[str, ...]:
        """The segments that keep prompts."""
        return tuple(segment_id for segment_id, record in self._records.items() if record.prompts)

    def record(self, segment_id: str) -> PromptRecord:
        """The prompts of a segment; an empty record where there are none."""
        return self._records.get(segment_id, PromptRecord())

    def set_record(self, segment_id: str, record: PromptRecord) -> None:
        """Keep a record in its segment, and draw what changed in it; nobody is told.

        Nothing happens where there is no such segment any more, or nobody watches.
        """
        if self._segment(segment_id) is not None and self._observers:
            self._write(segment_id, record)
            self._draw(segment_id)

    def set_aside(self, segment_id: str) -> None:
        """The record of a segment cannot be used as it is: what is kept there now stays beside the next one."""
        self._tags_of(segment_id).set_aside()

    def node(self, segment_id: str, key: str) -> Any:
        """The markups node of a prompt, or None."""
        return self._pictures.nodes.get(PromptOwner(segment_id, key))

    def show(self, segment_ids: Collection[str] | None = None) -> None:
        """Show the prompts of these segments and hide those of the others, also of prompts to come; None: show all."""
        self._pictures.show(segment_ids)

    def stop(self) -> None:
        """Watch no more; records and markups stay."""
        self._observers.remove()
        self._pictures.stop()

    def _changed(self, place: PromptOwner, prompt: Prompt | None) -> None:
        """A user moved or removed a markup."""
        before = self.record(place.segment_id)
        self.set_record(place.segment_id, before.changed(place.key, prompt))
        if before.prompt(place.key) != prompt:
            self._on_changed(place.segment_id, place.key, prompt)

    def _node_removed(self, node: Any) -> None:
        if node is self._segmentation_node:
            self._pictures.remove_all()
            self.stop()
            return
        place = self._pictures.forget(node)
        if place is not None and owner_of(node) == place and self._segment(place.segment_id) is not None:
            self._changed(place, None)

    def _read_segments(self) -> None:
        """Bring records and segments together after somebody added, removed, or changed segments."""
        if self._is_writing:
            return
        ids = self._segmentation_node.GetSegmentation().GetSegmentIDs()
        drawn = {place.segment_id for place in self._pictures.nodes}
        for segment_id in {*self._records, *self._texts, *drawn}.difference(ids):
            self._records.pop(segment_id, None)
            self._texts.pop(segment_id, None)
            self._tags.pop(segment_id, None)
            self._draw(segment_id)
        for segment_id in ids:
            self._read_segment(segment_id)

    def _read_segment(self, segment_id: str) -> None:
        text = record_text(self._segment(segment_id))
        if segment_id in self._texts and self._texts[segment_id] == text:
            return
        if segment_id in self._records:
            # Slicer's undo puts a segment's tags back, too; what the user said since is not undone with it.
            self._write(segment_id, self._records[segment_id])
            return
        self._texts[segment_id] = text
        try:
            # A segment without a record may get one yet: Slicer's undo adds segments first, and then their tags.
            if text is not None:
                record = self._tags_of(segment_id).read(self._segment(segment_id))
                self._records[segment_id] = self._taken_along(segment_id, record)
                if self._records[segment_id] is not record:
                    self._write(segment_id, self._records[segment_id])
        except FoundationSegError as error:
            self._on_error(error)
        else:
            self._draw(segment_id)

    def _write(self, segment_id: str, record: PromptRecord) -> None:
        segment, before = self._segment(segment_id), self._is_writing
        self._is_writing = True
        try:
            self._tags_of(segment_id).write(segment, record)
        finally:
            self._is_writing = before
        self._records[segment_id], self._texts[segment_id] = record, record_text(segment)

    def _tags_of(self, segment_id: str) -> RecordTags:
        if segment_id not in self._tags:
            self._tags[segment_id] = RecordTags()
        return self._tags[segment_id]

    def _draw(self, segment_id: str) -> None:
        segment = self._segment(segment_id)
        name = (segment and segment.GetName()) or segment_id
        self._pictures.draw_segment(segment_id, name, self.record(segment_id))

    def follow_image(self) -> None:
        """Keep segments and markups where they are on the image, whatever was done in the Transforms module."""
        try:
            self._alignment.settle()
        except FoundationSegError as error:
            self._on_error(error)
        if self._alignment.is_image_in_place:
            share_parent_transform(self._volume_node, *self._pictures.nodes.values())
        if self._alignment.geometry != self._geometry:
            self._take_records_along()
            self._on_image_moved()

    def _segmentation_transformed(self) -> None:
        if self._segmentation_node.GetParentTransformNode() is self._volume_node.GetParentTransformNode():
            self.follow_image()

    def use_alignment(self, alignment: Alignment) -> None:
        """Go by the alignment of whoever writes the segments: both have to know when they were aligned last."""
        self._alignment = alignment
        self.follow_image()

    def _take_records_along(self) -> None:
        before, self._geometry = self._geometry, self._alignment.geometry
        self._pictures.use_geometry(self._geometry)
        matrix = self._geometry.ijk_to_ras @ before.ras_to_ijk
        for segment_id, record in list(self._records.items()):
            self.set_record(segment_id, transformed_record(record, matrix, self._geometry))

    def _taken_along(self, segment_id: str, record: PromptRecord) -> PromptRecord:
        """The record on the image as it is now: both may have been hardened while nobody watched.

        The segment tells: it has the same voxels then, on another grid of the same shape. A mirrored grid is another
        image: Slicer turns left-handed ones round when it reads them.
        """
        before = recorded_geometry(record)
        if before is None or before.shape_kji != self._geometry.shape_kji or before.almost_equals(self._geometry):
            return record
        matrix = self._geometry.ijk_to_ras @ before.ras_to_ijk
        if np.linalg.det(matrix[:3, :3]) < 0:
            return record
        voxels = pack_mask(read_segment(self._segment(segment_id), self._geometry))
        if not record.steps or json.loads(record.steps).get("result") != f"{checksum(voxels):016x}":
            return record
        return transformed_record(record, matrix, self._geometry)

    def _segment(self, segment_id: str) -> Any:
        return self._segmentation_node.GetSegmentation().GetSegment(segment_id)

    def _watch(self) -> None:
        self._observers.add_for_nodes(self._scene, slicer.vtkMRMLScene.NodeRemovedEvent, self._node_removed)
        self._observers.add(self._scene, slicer.vtkMRMLScene.StartCloseEvent, self.stop)
        for event in _SEGMENT_EVENTS:
            code = getattr(slicer.vtkSegmentation, event)
            self._observers.add(self._segmentation_node, code, self._read_segments)
        transformed = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        self._observers.add(self._volume_node, transformed, self.follow_image)
        self._observers.add(self._segmentation_node, transformed, self._segmentation_transformed)
