"""The prompts of a segmentation in the scene: records in tags, drawn as markups; and the steps of a session in both.

The record in a segment's tag is the truth, the markups are its picture. While somebody watches:

- a markup that is moved moves its prompt, once the mouse lets go; a box snaps to its voxels again;
- a markup that is deleted, or whose point is, removes its prompt;
- names, looks and folders are the user's to change;
- a segment that is deleted takes its prompts along; one that Slicer's undo brings back brings them back.

While nobody watches, markups are markups: the records stay as they are, and are drawn anew when somebody does.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import slicer

from ..errors import FoundationSegError, InputError
from ..imaging.masks import MaskTable, checksum, pack_mask
from ..prompts.kinds import Prompt
from ..prompts.prompts_file import bare
from ..session import steps as session_steps
from ..session.segment_store import SavedSegment
from ..session.segments import SegmentSession
from ..session.session import Session
from ..session.tracking import Memo
from . import segment_tags
from .labelmaps import Alignment
from .prompt_markups import PromptPictures
from .prompt_nodes import PromptOwner, owner_of
from .scene import Observers
from .segment_store import SceneStore
from .segments import read_segment
from .volumes import browser_of, frame_of, share_parent_transform

OnChanged = Callable[[str, str, Prompt | None], None]
Later = Callable[[Callable[[], None]], None]


class ScenePrompts:
    """Keeps and draws the prompts of one segmentation on one volume.

    One object watches a segmentation; :meth:`stop` it before the scene itself is destroyed. While a sequence shows
    another frame of the image, nothing is drawn, read or written.

    Attributes:
        geometry: the grid of the image in whose RAS the records are.
        undrawn: the segments whose records are not drawn yet.
        alignment: keeps the segmentation on the image. Whoever writes the segments goes by the same one: both have to
            know when they were aligned last.

    Args:
        segmentation_node: its segments' records are drawn at once.
        volume_node: the image; segmentation and markups are put under its parent transform, and follow it.
        on_changed: told when the user changed a prompt in the scene: segment id, key, and the prompt as it is now,
            or None where it was removed. The record has been written by then.
        on_image_moved: told that image and segments have other coordinates, as after "Harden transform", and that all
            records were taken along.
        on_error: told of what cannot be done in answer to an event: the volume was put under a transform that is not
            linear, a record is damaged.
        later: calls a function in a later turn of the event loop. Markups are drawn there, since Slicer takes long to
            add a node, and before the scene is saved. The records are written at once. Unless given, both are.

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
        later: Later | None = None,
    ) -> None:
        self._segmentation_node, self._volume_node = segmentation_node, volume_node
        self._scene = segmentation_node.GetScene()
        self._on_changed = on_changed or (lambda segment_id, key, prompt: None)
        self._on_error = on_error or (lambda error: None)
        self._on_image_moved = on_image_moved or (lambda: None)
        self._records: dict[str, segment_tags.PromptRecord] = {}
        self._texts: dict[str, str] = {}  # of the records, as the tags have them
        self._tags: dict[str, segment_tags.RecordTags] = defaultdict(lambda: segment_tags.RecordTags(self.geometry.box))
        self._observers = Observers()
        self._is_watching, self._is_writing = True, False
        self._browser, self._frame, self._was_away = browser_of(volume_node), frame_of(volume_node), False
        self.undrawn: dict[str, None] = {}
        self._later = later
        self.alignment = Alignment(segmentation_node, volume_node)
        self.geometry = self.alignment.geometry
        self._pictures = PromptPictures(segmentation_node, self.geometry, self._changed)
        self._watch()
        self._read_segments()
        self.follow_image()

    @property
    def segment_ids(self) -> tuple[str, ...]:
        """The segments that keep prompts."""
        return tuple(segment_id for segment_id, record in self._records.items() if record.prompts)

    def record(self, segment_id: str) -> segment_tags.PromptRecord:
        """The prompts of a segment; an empty record where there are none."""
        return self._records.get(segment_id, segment_tags.PromptRecord())

    def set_record(self, segment_id: str, record: segment_tags.PromptRecord) -> None:
        """Keep a record in its segment, and draw what changed in it; nobody is told.

        Nothing happens where there is no such segment any more, or nobody watches.
        """
        segment = self._segmentation_node.GetSegmentation().GetSegment(segment_id)
        if segment is not None and self._is_watching and not (self._browser and self._is_away()):
            self._write(segment_id, segment, record)
            if self._later is None:
                self._pictures.draw_segment(segment_id, segment.GetName() or segment_id, record)
            else:
                self._draw_soon(segment_id)

    def _draw_soon(self, segment_id: str) -> None:
        self.undrawn[segment_id] = None
        if self._later is None:
            self.draw()
        else:
            self._later(self.draw)

    def draw(self) -> None:
        """Draw the records that are not drawn yet."""
        if self._browser and self._is_away():
            return
        undrawn, self.undrawn = self.undrawn, {}
        for segment_id in undrawn if self._is_watching else ():
            segment = self._segment(segment_id)
            name = (segment and segment.GetName()) or segment_id
            self._pictures.draw_segment(segment_id, name, self.record(segment_id))

    def set_aside(self, segment_id: str) -> None:
        """The record of a segment cannot be used as it is: what is kept there now stays beside the next one."""
        self._tags[segment_id].set_aside()

    def node(self, segment_id: str, key: str) -> Any:
        """The markups node of a prompt, or None."""
        self.draw()
        return self._pictures.node(PromptOwner(segment_id, key))

    def show(self, segment_ids: Collection[str] | None = None) -> None:
        """Show the prompts of these segments and hide those of the others, also of prompts to come; None: show all."""
        self._pictures.show(segment_ids)

    def handles(self, segment_id: str) -> list[tuple[float, float, float]]:
        """The points of a segment's visible prompts that may be dragged: points and corners of boxes, in RAS mm."""
        points = []
        for node in self._pictures.nodes_of(segment_id):
            if node.GetDisplayVisibility() and node.GetFixedNumberOfControlPoints():
                count = node.GetNumberOfControlPoints()
                points += [tuple(node.GetNthControlPointPosition(n)) for n in range(count)]
        return points

    def show_visible(self, is_shown: bool, active: str) -> None:
        """Show the prompts of segments that are visible, dimmed but for the ``active`` one; or none of them."""
        display = self._segmentation_node.GetDisplayNode()
        ids = self._segmentation_node.GetSegmentation().GetSegmentIDs()
        is_shown = is_shown and (display is None or bool(display.GetVisibility()))
        visible = [key for key in ids if is_shown and (display is None or display.GetSegmentVisibility(key))]
        self._pictures.show(visible, active)

    def stop(self) -> None:
        """Watch no more; records and markups stay."""
        if not self._scene.IsClosing():
            self.draw()
        self._is_watching = False
        self._observers.remove()
        self._pictures.stop()

    def _changed(self, owner: PromptOwner, prompt: Prompt | None) -> None:
        """A user moved or removed a markup."""
        before = self.record(owner.segment_id)
        self.set_record(owner.segment_id, before.changed(owner.key, prompt))
        if before.prompt(owner.key) != prompt:
            self._on_changed(owner.segment_id, owner.key, prompt)

    def _node_removed(self, node: Any) -> None:
        if node is self._segmentation_node:
            self.undrawn = {}
            self._pictures.remove_all()
            self.stop()
            return
        owner = self._pictures.forget(node)
        if owner is not None and owner_of(node) == owner and self._segment(owner.segment_id) is not None:
            self._changed(owner, None)

    def _read_segments(self) -> None:
        """Bring records and segments together after somebody added, removed, or changed segments."""
        if self._is_writing or (self._browser and self._is_away()):
            return
        segmentation = self._segmentation_node.GetSegmentation()
        ids = segmentation.GetSegmentIDs()
        for segment_id in {*self._records, *self._texts, *self._pictures.pictures}.difference(ids):
            self._records.pop(segment_id, None)
            self._texts.pop(segment_id, None)
            self._tags.pop(segment_id, None)
            self._draw_soon(segment_id)
        for segment_id in ids:
            segment = segmentation.GetSegment(segment_id)
            text = segment_tags.raw_tag(segment, segment_tags.RECORD_TAG)
            if self._texts.get(segment_id) != text:
                self._read_segment(segment_id, segment, text)

    def _is_away(self) -> bool:
        """True while another frame is shown; the markups of this one go with it, and come back with it."""
        is_away = frame_of(self._volume_node) != self._frame
        if is_away != self._was_away and self._is_watching:
            self._was_away = is_away
            if is_away:
                self._pictures.remove_all()
            else:  # drawn alone: the segmentation may still be that of the other frame
                self.undrawn |= dict.fromkeys(self._records)
        return is_away

    def _read_segment(self, segment_id: str, segment: Any, text: str) -> None:
        record = self._records.get(segment_id)
        if record is not None:
            # Slicer's undo puts a segment's tags back, too; what the user said since is not undone with it.
            with segment_tags.unnoticed(self._segmentation_node.GetSegmentation()):
                self._write(segment_id, segment, record)
            return
        self._texts[segment_id], record = text, segment_tags.PromptRecord()
        try:
            # A segment without a record may get one yet: Slicer's undo adds segments first, and then their tags.
            if text:
                kept = self._tags[segment_id].read(segment)
                self._records[segment_id] = record = self._taken_along(segment, kept)
                if record is not kept:
                    self._write(segment_id, segment, record)
        except FoundationSegError as error:
            self._on_error(error)
        else:
            self._draw_soon(segment_id)

    def _write(self, segment_id: str, segment: Any, record: segment_tags.PromptRecord) -> None:
        before, self._is_writing = self._is_writing, True
        try:
            with segment_tags.tagged_at_once(segment) as draft:
                self._tags[segment_id].write(draft, record)
        finally:
            self._is_writing = before
        self._records[segment_id] = record
        self._texts[segment_id] = segment_tags.raw_tag(segment, segment_tags.RECORD_TAG)

    def follow_image(self) -> None:
        """Keep segments and markups where they are on the image, whatever was done in the Transforms module."""
        if self._browser and self._is_away():
            return
        try:
            self.alignment.settle()
        except FoundationSegError as error:
            self._on_error(error)
        if self.alignment.is_image_in_place:
            share_parent_transform(self._volume_node, *self._pictures.nodes)
        before, self.geometry = self.geometry, self.alignment.geometry
        if self.geometry != before:
            self._pictures.geometry = self.geometry
            matrix = self.geometry.ijk_to_ras @ before.ras_to_ijk
            for segment_id, record in list(self._records.items()):
                self.set_record(segment_id, segment_tags.transformed_record(record, matrix, self.geometry))
            self._on_image_moved()

    def _segmentation_transformed(self) -> None:
        if self._segmentation_node.GetParentTransformNode() is self._volume_node.GetParentTransformNode():
            self.follow_image()

    def _taken_along(self, segment: Any, record: segment_tags.PromptRecord) -> segment_tags.PromptRecord:
        """The record on the image as it is now: both may have been hardened while nobody watched.

        The segment tells: it has the same voxels then, on another grid of the same shape. A mirrored grid is another
        image: Slicer turns left-handed ones round when it reads them.
        """
        before = segment_tags.recorded_geometry(record)
        if before is None or before.shape_kji != self.geometry.shape_kji or before.almost_equals(self.geometry):
            return record
        matrix = self.geometry.ijk_to_ras @ before.ras_to_ijk
        if np.linalg.det(matrix[:3, :3]) < 0 or not record.steps:
            return record
        voxels = pack_mask(read_segment(segment, self.geometry))
        if json.loads(record.steps).get("result") != f"{checksum(voxels):016x}":
            return record
        return segment_tags.transformed_record(record, matrix, self.geometry)

    def _segment(self, segment_id: str) -> Any:
        return self._segmentation_node.GetSegmentation().GetSegment(segment_id)

    def _watch(self) -> None:
        scene = self._scene
        self._observers.add_for_nodes(scene, slicer.vtkMRMLScene.NodeRemovedEvent, self._node_removed)
        self._observers.add(scene, slicer.vtkMRMLScene.StartSaveEvent, self.draw)
        self._observers.add(scene, slicer.vtkMRMLScene.StartCloseEvent, self.stop)
        segmentation = slicer.vtkSegmentation
        for event in (segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified):
            self._observers.add(self._segmentation_node, event, self._read_segments)
        transformed = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        self._observers.add(self._volume_node, transformed, self.follow_image)
        self._observers.add(self._volume_node, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent, self.draw)
        self._observers.add(self._segmentation_node, transformed, self._segmentation_transformed)


@dataclass(slots=True)
class _Texts:
    """Texts that are written for one segment, of which only what changed is worked out again.

    Attributes:
        masks: what the steps refer to.
        prompts: prompts as records keep them.
        steps: each step as JSON text, and the keys of the masks that it refers to.
    """

    masks: MaskTable = field(default_factory=MaskTable)
    prompts: Memo[session_steps.ActivePrompt, segment_tags.KeptPrompt] = field(init=False)
    steps: Memo[session_steps.Step, tuple[str, tuple[str, ...]]] = field(init=False)

    def __post_init__(self) -> None:
        self.prompts = Memo(lambda active: segment_tags.KeptPrompt(active.key, bare(active.prompt)))
        self.steps = Memo(self._step)

    def _step(self, step: session_steps.Step) -> tuple[str, tuple[str, ...]]:
        entry = session_steps.step_to_document(step, self.masks)
        return segment_tags.to_text(entry), tuple(session_steps.mask_keys(entry))


def has_prompts(segmentation_node: Any) -> bool:
    """True where a segment keeps prompts, perhaps of an earlier session."""
    segmentation = segmentation_node.GetSegmentation()
    return any(segmentation.GetSegment(key).HasTag(segment_tags.RECORD_TAG) for key in segmentation.GetSegmentIDs())


class SessionPrompts:
    """Keeps the steps of a segmentation's segments in the scene, and tells the session what the user moves there.

    It is a :class:`FoundationSegLib.session.segment_store.PromptStore`. The steps are the truth. A segment's record has
    them, and as its prompts what they come to, with those that wait for an answer. Where the two differ, somebody
    changed prompts while no session was there, or the scene was saved before an answer came: prompts and voxels are
    both taken as they are then.

    Without a session (:meth:`follow`), or once it has lost its nodes, prompts that the user moves are kept as they are.

    Attributes:
        scene: the prompts as they are drawn.

    Args:
        segmentation_node, volume_node: as :class:`ScenePrompts`, whose errors are raised here.
        on_error: told of what cannot be done in answer to an event, such as a prompt that was moved out of the image,
            or in a segment that is locked: its markup is put back then.
        later: as :class:`ScenePrompts`; what was answered is drawn before that is told.
    """

    def __init__(
        self,
        segmentation_node: Any,
        volume_node: Any,
        on_error: Callable[[FoundationSegError], None] | None = None,
        later: Later | None = None,
    ) -> None:
        self._on_error = on_error or (lambda error: None)
        self._session: Session | None = None
        self._being_told: PromptOwner | None = None
        self._texts: dict[str, _Texts] = defaultdict(_Texts)
        self.scene = ScenePrompts(
            segmentation_node, volume_node, self._changed, self._on_error, self._image_moved, later
        )
        self._grid = segment_tags.grid_setting(self.scene.geometry)

    def follow(self, session: Session) -> None:
        """Show what waits for an answer in a session that keeps its steps here, and tell it what the user moves."""
        self._session = session
        session.on_queued = self._draw
        if isinstance(session.store, SceneStore):
            self.scene.alignment = session.store.alignment
            self.scene.follow_image()

    def stop(self) -> None:
        """Watch the scene no more; records and markups stay."""
        self.scene.stop()
        self._session = None

    def read(self, segment_id: str) -> Mapping[str, Any] | None:
        """Read the steps of a segment as JSON values; None where there are none, or only those of another grid."""
        record = self.scene.record(segment_id)
        if record == segment_tags.PromptRecord():
            return None
        document, masks = None, MaskTable(self.scene.geometry.box)
        steps: session_steps.Steps = ()
        try:
            document = self._document(segment_id, record)
            if document is not None:
                steps = session_steps.parse_steps(document, masks)
            more = _differences(session_steps.state_of(steps), record, self._key_being_told(segment_id))
        except FoundationSegError as error:
            self.scene.set_aside(segment_id)
            self._on_error(error)
            document, steps, more = None, (), _differences(session_steps.SegmentState(), record, None)
        if document is not None and not more:
            return document
        return session_steps.steps_to_document((*steps, *more), masks)

    def _document(self, segment_id: str, record: segment_tags.PromptRecord) -> Mapping[str, Any] | None:
        """The steps of a record with their masks; None where there are none of this grid."""
        if not record.steps:
            return None
        recorded = segment_tags.recorded_geometry(record)
        if recorded is None or not recorded.almost_equals(self.scene.geometry):
            self.scene.set_aside(segment_id)
            return None
        try:
            masks = {key: json.loads(text) for key, text in record.masks.items()}
        except ValueError as error:
            raise InputError("the masks of the steps are damaged") from error
        return {**json.loads(record.steps), "masks": masks}

    def write(self, segment_id: str, saved: SavedSegment) -> None:
        """Keep a segment's steps in its record, and draw its prompts."""
        if self.scene.alignment.geometry is not self.scene.geometry:
            self.scene.follow_image()
        if self.scene.undrawn:
            self.scene.draw()
        before, state, shown = self.scene.record(segment_id), saved.state, saved.state
        if self._session is not None and segment_id in self._session.queued_targets():
            shown = self._session.state(segment_id)
        texts = self._texts[segment_id]
        if texts.masks is not saved.masks:
            texts = self._texts[segment_id] = _Texts(saved.masks)
        steps: list[str] = []
        masks: dict[str, str] = {}
        for text, keys in texts.steps.of(state.steps):
            steps.append(text)
            for key in keys:
                if key in saved.masks:  # those of older steps may have gone
                    masks[key] = before.masks.get(key) or segment_tags.to_text(saved.masks.to_document([key])[key])
        record = segment_tags.PromptRecord(
            tuple(texts.prompts.of(shown.prompts)),
            state.choice.model_id if state.choice is not None else "",
            {**before.settings, **self._grid},
            f'{{"version":{session_steps.VERSION},"steps":[{",".join(steps)}],"result":{segment_tags.to_text(saved.result)}}}',
            masks,
        )
        self.scene.set_record(segment_id, record)

    def _draw(self, segment_id: str) -> None:
        """Draw what the session's steps come to now, those that wait for an answer included."""
        if self._session is None:
            return
        prompts = tuple(self._texts[segment_id].prompts.of(self._session.state(segment_id).prompts))
        record = self.scene.record(segment_id)
        if record.prompts != prompts:
            self.scene.set_record(segment_id, replace(record, prompts=prompts))

    def _key_being_told(self, segment_id: str) -> str | None:
        place = self._being_told
        return place.key if place is not None and place.segment_id == segment_id else None

    def _image_moved(self) -> None:
        """Image and segments have other coordinates, and so have the records; the session's steps follow."""
        self._grid = segment_tags.grid_setting(self.scene.geometry)
        if self._session is not None:
            self._session.detect_external_changes()

    def _changed(self, segment_id: str, key: str, prompt: Prompt | None) -> None:
        """The user moved or removed a markup."""
        session = self._session
        if session is None or session.is_gone:
            return
        segment = SegmentSession(session, segment_id)
        self._being_told = PromptOwner(segment_id, key)  # if the session meets it only now: as before
        try:
            if prompt is not None:
                segment.move(key, prompt)
            elif key in segment.prompts:
                segment.remove(key)
        except FoundationSegError as error:
            if segment_id in session.known_ids:
                self._draw(segment_id)
            self._on_error(error)
        finally:
            self._being_told = None


def _differences(
    now: session_steps.SegmentState, record: segment_tags.PromptRecord, key_being_told: str | None
) -> session_steps.Steps:
    """The steps that lead to the prompts of a record."""
    before = {held.key: bare(held.prompt) for held in now.prompts}
    after = {kept.key: bare(kept.prompt) for kept in record.prompts}
    removed = (session_steps.PromptRemoved(key) for key in before if key not in after and key != key_being_told)
    changed = (key for key in after if key in before and after[key] != before[key] and key != key_being_told)
    moved = (session_steps.PromptMoved(key, after[key]) for key in changed)
    added = (session_steps.PromptAdded(key, prompt) for key, prompt in after.items() if key not in before)
    return (*removed, *moved, *added)
