"""Between a session and the prompts in the scene: steps are kept with their segment, markups moved change steps.

The steps are the truth. A segment's record (:mod:`.prompt_records`) has them among its settings, and as its prompts
what they come to, with those that wait for an answer. Where the two differ, somebody changed prompts while no session
was there, or the scene was saved before an answer came: prompts and voxels are both taken as they are then.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import FoundationSegError, InputError
from ..imaging.masks import MaskTable
from ..prompts.kinds import Prompt, bare
from ..session.segment_store import SavedSegment
from ..session.segments import SegmentSession
from ..session.session import Session
from ..session.steps import (
    VERSION,
    ActivePrompt,
    PromptAdded,
    PromptMoved,
    PromptRemoved,
    SegmentState,
    Step,
    Steps,
    mask_keys,
    parse_steps,
    state_of,
    step_to_document,
    steps_to_document,
)
from .prompt_nodes import PromptOwner
from .prompt_records import KeptPrompt, PrefixMemo, PromptRecord, grid_setting, recorded_geometry, to_text
from .scene_prompts import ScenePrompts
from .segments import SceneStore


@dataclass(slots=True)
class _Texts:
    """Texts that are written for one segment, of which only what changed is worked out again.

    Attributes:
        masks: what the steps refer to.
        prompts: prompts as records keep them.
        steps: each step as JSON text, and the keys of the masks that it refers to.
    """

    masks: MaskTable = field(default_factory=MaskTable)
    prompts: PrefixMemo[ActivePrompt, KeptPrompt] = field(
        default_factory=lambda: PrefixMemo(lambda held: KeptPrompt(held.key, bare(held.prompt)))
    )
    steps: PrefixMemo[Step, tuple[str, tuple[str, ...]]] = field(init=False)

    def __post_init__(self) -> None:
        self.steps = PrefixMemo(self._step)

    def _step(self, step: Step) -> tuple[str, tuple[str, ...]]:
        entry = step_to_document(step, self.masks)
        return to_text(entry), tuple(key for key in mask_keys(entry) if key)


class SessionPrompts:
    """Keeps the steps of a segmentation's segments in the scene. See
    :class:`FoundationSegLib.session.segment_store.PromptStore`.

    Without a session (:meth:`follow`), or once it has lost its nodes, prompts that the user moves are kept as they are.

    Attributes:
        scene: the prompts as they are drawn.

    Args:
        segmentation_node, volume_node: as :class:`.scene_prompts.ScenePrompts`, whose errors are raised here.
        on_error: told of what cannot be done in answer to an event, such as a prompt that was moved out of the image,
            or in a segment that is locked: its markup is put back then.
    """

    def __init__(
        self,
        segmentation_node: Any,
        volume_node: Any,
        on_error: Callable[[FoundationSegError], None] | None = None,
    ) -> None:
        self._on_error = on_error or (lambda error: None)
        self._session: Session | None = None
        self._being_told: PromptOwner | None = None
        self._texts: dict[str, _Texts] = {}
        self.scene = ScenePrompts(segmentation_node, volume_node, self._changed, self._on_error, self._image_moved)
        self._grid = grid_setting(self.scene.geometry)

    def follow(self, session: Session) -> None:
        """Show what waits for an answer in a session that keeps its steps here, and tell it what the user moves."""
        self._session = session
        session.on_queued = self._draw
        if isinstance(session.store, SceneStore):
            self.scene.use_alignment(session.store.alignment)

    def stop(self) -> None:
        """Watch the scene no more; records and markups stay."""
        self.scene.stop()
        self._session = None

    def read(self, segment_id: str) -> Mapping[str, Any] | None:
        """Read the steps of a segment as JSON values; None where there are none, or only those of another grid."""
        record = self.scene.record(segment_id)
        if record == PromptRecord():
            return None
        document, masks = None, MaskTable(self.scene.geometry.box)
        steps: Steps = ()
        try:
            document = self._document(segment_id, record)
            if document is not None:
                steps = parse_steps(document, masks)
            more = _differences(state_of(steps), record, self._key_being_told(segment_id))
        except FoundationSegError as error:
            self.scene.set_aside(segment_id)
            self._on_error(error)
            document, steps, more = None, (), _differences(SegmentState(), record, None)
        if document is not None and not more:
            return document
        return steps_to_document((*steps, *more), masks)

    def _document(self, segment_id: str, record: PromptRecord) -> Mapping[str, Any] | None:
        """The steps of a record with their masks; None where there are none of this grid."""
        if not record.steps:
            return None
        recorded = recorded_geometry(record)
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
        self.scene.follow_image()
        before = self.scene.record(segment_id)
        texts = self._texts.get(segment_id)
        if texts is None or texts.masks is not saved.masks:
            texts = self._texts[segment_id] = _Texts(saved.masks)
        written = texts.steps.of(saved.state.steps)
        keys = {key for _, of_step in written for key in of_step}
        masks = {key: before.masks.get(key) or to_text(saved.masks.to_document([key])[key]) for key in keys}
        steps = ",".join(text for text, _ in written)
        self.scene.set_record(
            segment_id,
            PromptRecord(
                self._shown(segment_id, saved.state),
                saved.state.choice.model_id if saved.state.choice is not None else "",
                {**before.settings, **self._grid},
                f'{{"version":{VERSION},"steps":[{steps}],"result":{to_text(saved.result)}}}',
                masks,
            ),
        )

    def _draw(self, segment_id: str) -> None:
        """Draw what the session's steps come to now."""
        prompts = self._shown(segment_id, None)
        record = self.scene.record(segment_id)
        if record.prompts != prompts:
            self.scene.set_record(segment_id, replace(record, prompts=prompts))

    def _shown(self, segment_id: str, now: SegmentState | None) -> tuple[KeptPrompt, ...]:
        if self._session is not None and (now is None or segment_id in self._session.queued_targets()):
            now = self._session.state(segment_id)
        if segment_id not in self._texts:
            self._texts[segment_id] = _Texts()
        return tuple(self._texts[segment_id].prompts.of((now or SegmentState()).prompts))

    def _key_being_told(self, segment_id: str) -> str | None:
        place = self._being_told
        return place.key if place is not None and place.segment_id == segment_id else None

    def _image_moved(self) -> None:
        """Image and segments have other coordinates, and so have the records; the session's steps follow."""
        self._grid = grid_setting(self.scene.geometry)
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


def _differences(now: SegmentState, record: PromptRecord, key_being_told: str | None) -> Steps:
    """The steps that lead to the prompts of a record."""
    before = {held.key: bare(held.prompt) for held in now.prompts}
    after = {kept.key: bare(kept.prompt) for kept in record.prompts}
    removed = (PromptRemoved(key) for key in before if key not in after and key != key_being_told)
    changed = (key for key in after if key in before and after[key] != before[key] and key != key_being_told)
    moved = (PromptMoved(key, after[key]) for key in changed)
    added = (PromptAdded(key, prompt) for key, prompt in after.items() if key not in before)
    return (*removed, *moved, *added)
