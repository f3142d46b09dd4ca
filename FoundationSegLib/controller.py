"""The controller: all that a panel does, without a widget. One session after the other, on nodes of the scene.

The controller opens the session with the first action that needs it, and ends it when its nodes go.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from . import __version__
from .catalog.model_cards import ModelCard
from .errors import Cancelled, FoundationSegError, InputError
from .imaging.volume import Volume
from .mrml import segment_tags, volumes
from .mrml.scene_prompts import Later, SessionPrompts, has_prompts
from .mrml.segment_store import SceneStore
from .mrml.surfaces import VoxelPreview
from .mrml.volumes import NodeImage, SentImage, require_in_scene
from .progress import ProgressReport
from .prompts.kinds import Prompt, PromptSet
from .requests.segmentation import Propagation
from .session import segments
from .session.measures import SegmentSummary, summarize
from .session.segment_store import Confirmation, ImageChanged, Options, Outcome, Refused, SegmentEdited, UserOptions
from .session.session import Session
from .worker.client import Client, Poller, deliver
from .worker.protocol import Event, PartlyAnswered, Progressed, Request

if TYPE_CHECKING:
    from .session.recovery import RecoveryFile

# The part of a panel to update. "choices": read the parameter node again. "nodes": image or segmentation is another.
# "busy": a request began, went on or ended. "outcome": something was done, waits to be confirmed, or failed.
Update = Literal["choices", "nodes", "segments", "busy", "outcome"]


def _ignore(_: object) -> None:
    """Let an update pass."""


@dataclass(slots=True)
class SegmentationController:
    """The work on one segmentation of one image at a time. To be used in Slicer's main thread alone.

    Attributes:
        catalogue: every model's card by its id.
        start_timer, stop_timer: of the timer that calls :meth:`tick` while something is under way.
        on_update: called with the part to update.
        later: calls a function in a later turn of the event loop; prompts are drawn there. Unless given, at once.
        session, segment_id: None until something needs it; the selected segment, empty for none.
        outcome: the last thing that happened.
        error: a failure that is no outcome, such as a markup that cannot be where it was put.
        report: the progress of the request that is under way; None while none is.
        answer_s: seconds from the last question to the written segment.
        preview: voxels that no segment has yet: of a propagation that is under way, or to be confirmed.
        is_finishing: a propagation was told to end with what it has.
    """

    client: Client
    catalogue: Mapping[str, ModelCard]
    start_timer: Callable[[], None]
    stop_timer: Callable[[], None]
    on_update: Callable[[Update], None] = _ignore
    later: Later | None = None
    options: UserOptions = field(default_factory=UserOptions)
    volume_node: Any = None
    segmentation_node: Any = None
    session: Session | None = None
    segment_id: str = ""
    outcome: Outcome | None = None
    error: FoundationSegError | None = None
    report: ProgressReport | None = None
    answer_s: float | None = None
    preview: VoxelPreview = field(default_factory=VoxelPreview)
    is_finishing: bool = False
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _store: SceneStore | None = None
    _prompts: SessionPrompts | None = None
    _recovery: "RecoveryFile | None" = None
    _image: SentImage = field(init=False)
    _poller: Poller = field(init=False)
    _submitted_at: float = 0.0
    _given_up: FoundationSegError | None = None
    _allowed: tuple[Any, ...] | None = None
    _last_used: dict[str, str] = field(default_factory=dict)
    _other_request: tuple[int, Callable[[Event], None]] | None = None

    def __post_init__(self) -> None:
        self._image = SentImage(self.client.remove_volume)
        self._poller = Poller(self.client, self._apply, self.stop_timer)

    def use(self, volume_node: Any, segmentation_node: Any) -> None:
        """Work on these nodes from now on; what is under way on others is stopped, and nothing of it is written."""
        if volume_node is self.volume_node and segmentation_node is self.segmentation_node:
            return
        self.leave()
        self._allowed = None
        if volume_node is not self.volume_node:
            self.drop_request()
            self._image.drop()
        self.volume_node, self.segmentation_node = volume_node, segmentation_node
        if volume_node is not None and volume_node.GetScene() is not None:
            volumes.hide_other_images(volume_node, segmentation_node)
            if segmentation_node is not None and volumes.belongs_to(segmentation_node, volume_node):
                self._last_used[volume_node.GetID()] = segmentation_node.GetID()
        self.on_update("nodes")

    def node_removed(self, node: Any) -> None:
        """End the work on a node that is about to leave the scene."""
        if node is not None and node in (self.volume_node, self.segmentation_node):
            volume_node = None if node is self.volume_node else self.volume_node
            self.use(volume_node, None if node is self.segmentation_node else self.segmentation_node)

    def resume(self) -> None:
        """Open the session where segments have earlier prompts, or frames, so that they are shown and known."""
        node, is_open = self.segmentation_node, self.session is not None and not self.session.is_gone
        if not is_open and None not in (self.volume_node, node) and (has_prompts(node) or volumes.browser_of(node)):
            with contextlib.suppress(FoundationSegError):  # the first prompt says so
                self.open()
                self.on_update("segments")

    def handles(self) -> list[tuple[float, float, float]]:
        """The points of the selected segment's prompts that the mouse may drag, in the image's RAS mm."""
        return self._prompts.scene.handles(self.segment_id) if self._prompts is not None else []

    def show_prompts(self, is_shown: bool) -> None:
        """Show the prompts of visible segments, dimmed but for the selected one; or none of them."""
        if self._prompts is not None:
            self._prompts.scene.show_visible(is_shown, self.segment_id)

    @property
    def is_foreign(self) -> bool:
        """True where the chosen segmentation belongs to another image, and nobody has said to go on with it."""
        shown = self.volume_node, self.segmentation_node, self.volume_node and volumes.frame_of(self.volume_node)
        return None not in shown[:2] and shown != self._allowed and not volumes.belongs_to(shown[1], shown[0])

    def own_segmentation(self, volume_node: Any) -> Any:
        """Find an image's segmentation: the one that was worked on last, else the newest; None while there is none."""
        return volumes.own_segmentation(volume_node, self._last_used.get(volume_node.GetID(), ""))

    def allow_foreign(self) -> None:
        """Go on with a segmentation of another image; with the next prompt it belongs to this one."""
        if None not in (self.volume_node, self.segmentation_node):
            self._allowed = self.volume_node, self.segmentation_node, volumes.frame_of(self.volume_node)
            self._last_used[self.volume_node.GetID()] = self.segmentation_node.GetID()

    def require_own(self) -> None:
        """Raise a ForeignSegmentationError where :attr:`is_foreign`."""
        if self.is_foreign:
            volumes.require_own(self.segmentation_node, self.volume_node)

    @property
    def is_busy(self) -> bool:
        """True while an answer is awaited, the session's or another."""
        return self._other_request is not None or (self.session is not None and self.session.request_id is not None)

    def open(self) -> Session:
        """Return the session on the nodes, opened if need be, with the user's choices as they are now.

        Raises:
            InputError, GeometryError: there is no usable image, or the segmentation does not fit it.
            ForeignSegmentationError: the segmentation belongs to another image (:meth:`allow_foreign`).
        """
        session, store = self.session, self._store
        if session is None or store is None or store.is_gone:
            self._end()
            session, store = self._open()
        session.options.choice, session.options.policy = self.options.choice, self.options.policy
        session.options.ask_above = self.options.ask_above
        store.masking_node, store.save_state = self.options.masking_node, self.options.save_state
        return session

    def leave(self) -> None:
        """End the session: its request is stopped; segments and prompts stay."""
        self._end()
        self.segment_id = ""

    def close(self) -> None:
        """End the session, and drop the image and the nodes. The client stays as it is."""
        self.leave()
        self.drop_request()
        self._image.drop()
        if self.volume_node is not None and self.volume_node.GetScene() is not None:
            volumes.show_all_images(self.volume_node.GetScene())
        self.volume_node = self.segmentation_node = None
        if self.client.is_busy:  # with the end of what was stopped
            self.start_timer()

    def warm_up(self) -> None:
        """Load the model and send the image while the user still takes aim."""
        if self.options.choice is None or self.volume_node is None:
            return
        with contextlib.suppress(FoundationSegError):  # the first prompt says so
            volume = self._image.read(self.volume_node)
            self.start_timer()
            self.client.prepare(self.options.choice.model_id)
            self.client.send_volume(volume)

    def automatic_intensity(self) -> str:
        """Name the rule that the automatic intensity comes to; empty until the image was read."""
        return self._image.automatic_rule

    def tick(self) -> None:
        """Take answers in, for the timer; never waits."""
        self._poller.tick()

    def submit(self, request: Request, on_event: Callable[[Event], None]) -> None:
        """Submit a request that is none of the session's, with a number of its own; one under way is stopped."""
        self.drop_request()
        request = replace(request, request_id=next(self._numbers))
        self._other_request = request.request_id, on_event
        self.client.submit(request)
        self.start_timer()
        self.on_update("busy")

    def drop_request(self) -> None:
        """Stop the request of :meth:`submit`."""
        if self._other_request is not None:
            self.client.cancel(self._other_request[0])
            self.start_timer()

    def send_image(self) -> Volume:
        """Send the image to the client, and return it. Raises as :meth:`open`."""
        volume = self._image.read(self.volume_node)
        self.client.send_volume(volume)
        return volume

    def stop(self) -> None:
        """Stop what is under way. A propagation that has found something ends with that, and undo takes it back.

        Anything else is taken back as it was asked, and so is a propagation that is stopped a second time.
        """
        session = self.session
        if session is not None and session.is_propagating and self.preview.node is not None and not self.is_finishing:
            self.is_finishing = True
            self.client.finish(session.request_id)
            self.on_update("busy")
            return
        self.drop_request()
        self.discard()

    def discard(self) -> None:
        """Take back what was asked, waits or failed; nothing is changed."""
        if self.session is not None:
            self.session.discard()
        self.outcome = self.report = None
        self.preview.settle(self.session)
        self.on_update("outcome")

    @property
    def has_stale_surfaces(self) -> bool:
        """True while the surfaces of segments that were written are out of date."""
        return self._store is not None and bool(self._store.stale_surfaces)

    def make_next_surface(self) -> bool:
        """Make one of them anew; False where there is none. For when nothing else goes on: it takes up to a second."""
        return self._store is not None and self._store.make_next_surface()

    @property
    def selected_node_segment(self) -> Any:
        """The selected segment of the segmentation node; None for none."""
        node = self.segmentation_node
        return node.GetSegmentation().GetSegment(self.segment_id) if node is not None and self.segment_id else None

    def summary(self) -> SegmentSummary | None:
        """Summarize the selected segment; None while there is none, or no session yet."""
        return summarize(self.session, self.segment_id, self.catalogue)

    def select(self, segment_id: str) -> None:
        """Work on this segment from now on; each keeps its own steps and history."""
        if segment_id != self.segment_id:
            self.segment_id, outcome = segment_id, self.outcome
            if isinstance(outcome, SegmentEdited) and segment_id not in {*outcome.changes, *outcome.created}:
                self.outcome = None  # it speaks of another segment
            self.on_update("segments")

    def selected(self) -> segments.SegmentSession:
        """Return the selected segment. Raises an InputError if none is, and as :meth:`open`."""
        session = self.open()
        if self.segment_id not in session.segment_ids:
            raise InputError("select a segment first")
        return segments.SegmentSession(session, self.segment_id)

    def add_segment(self) -> str:
        """Add an empty segment and select it, with a number where its name is taken. Raises as `open`."""
        session = self.open()
        new = session.create(segments.free_segment(session, self.options.new_name))
        self.select(new)
        return new

    def lock(self, is_locked: bool) -> None:
        """Keep the selected segment from being changed by anything that FoundationSeg does, or allow it again."""
        if self.selected_node_segment is None:
            raise InputError("select a segment first")
        if is_locked and self.session is not None:
            segments.require_answered(self.session, self.segment_id)
        segment_tags.lock(self.selected_node_segment, is_locked)
        self.on_update("segments")

    def clear(self, segment_ids: Sequence[str], removes: bool = False) -> None:
        """Take voxels and prompts of segments away, or the segments themselves; undo brings all of it back.

        Raises an InputError where one is locked.
        """
        segments.clear_segments(self.open(), segment_ids, removes)
        if removes and self.segment_id in segment_ids:
            self.segment_id = ""
        self.on_update("segments")

    def take_withheld(self) -> None:
        """Give the selected segment the voxels that its neighbours kept from its last answer."""
        segments.take_withheld(self.open(), self.selected().segment_id)

    @property
    def can_undo(self) -> bool:
        """True where there is something to take back."""
        return self.session is not None and (
            bool(segments.last_deleted(self.session)) or self.session.can_undo(self.segment_id)
        )

    def undo(self) -> bool:
        """Take back the last change of the selected segment, or that segments were deleted if that came last.

        Returns False if there is nothing to take back. A segment that comes back is selected.
        """
        deleted = segments.last_deleted(self.session) if self.session is not None else ""
        segment_id = deleted or self.segment_id
        is_undone = self.session is not None and bool(segment_id) and self.open().undo(segment_id)
        if is_undone:
            self.select(segment_id)
        self.preview.settle(self.session)
        self.on_update("outcome")  # a request that was discarded leaves no outcome
        return is_undone

    def redo(self) -> bool:
        """Do the last undone change again; False if there is none."""
        return self.session is not None and bool(self.segment_id) and self.open().redo(self.segment_id)

    def accept(self) -> None:
        """Confirm what waits to be confirmed; otherwise the last change of the selected segment is right."""
        if self.session is not None and self.session.confirmation is not None:
            self.session.confirm()
        else:
            self.open().accept(self.selected().segment_id)

    def reject(self) -> None:
        """Reject the last change of the selected segment."""
        self.open().reject(self.selected().segment_id)
        self.on_update("outcome")

    def add_prompt(self, prompt: Prompt) -> None:
        """Give the selected segment a prompt; a new one where none is selected or each object is to have its own.

        Raises a FoundationSegError where it makes no sense; nothing has happened then.
        """
        session = self.open()
        if self.options.choice is None:
            raise InputError("choose a model first")
        self.select(segments.add_prompt(session, self.segment_id, prompt, self.options))
        self.on_update("segments")

    def add_words(self, words: Sequence[str]) -> None:
        """Segment these class names or texts in one request. Raises where the model does not understand them."""
        session = self.open()
        choice = session.options.choice
        card = self.catalogue.get(choice.model_id) if choice is not None else None
        self._select_last(segments.add_words(session, card, words, self.options.region))

    def import_prompts(self, prompts: PromptSet) -> None:
        """Give the prompts of a file to segments of the names in it, and select the last. Raises as `add_prompt`."""
        self._select_last(segments.import_prompts(self.open(), prompts, self.options.region))

    def propagate(self, propagation: Propagation) -> None:
        """Carry the selected segment on through the volume."""
        segment = self.selected()
        segment.limit(self.options.region)
        segment.propagate(propagation)

    def remove_prompts(self, keys: Sequence[str] = ()) -> None:
        """Take prompts of the selected segment back; without any, the last one."""
        segment = self.selected()
        segment.remove(*(keys or tuple(segment.prompts)[-1:]))

    def flip_prompts(self, keys: Sequence[str]) -> None:
        """Make positive prompts of the selected segment negative, negative ones positive."""
        self.selected().flip(*keys)

    def ask_again(self) -> None:
        """Ask the chosen model with the prompts of the selected segment."""
        segment = self.selected()
        if self.options.choice is None:
            raise InputError("choose a model first")
        segment.ask_again(self.options.choice)

    def _select_last(self, segment_ids: Sequence[str]) -> None:
        if segment_ids:
            self.segment_id = segment_ids[-1]
        self.on_update("segments")

    def _end(self) -> None:
        session, self.session = self.session, None
        while self.make_next_surface():
            pass
        prompts, self._prompts, self._store = self._prompts, None, None
        recovery, self._recovery = self._recovery, None
        if session is not None:
            session.discard()
        if prompts is not None:
            prompts.stop()
        if recovery is not None:
            recovery.close()
        self.preview.clear()
        self.outcome = self.error = self.report = None

    def _open(self) -> tuple[Session, SceneStore]:
        volume = self._image.read(self.volume_node)
        if self.segmentation_node is None:
            raise InputError("choose a segmentation first")
        require_in_scene(self.segmentation_node)
        self.require_own()
        store = SceneStore(self.segmentation_node, self.volume_node, defers_surfaces=True)
        prompts = SessionPrompts(self.segmentation_node, self.volume_node, self._report_refusal, self.later)
        try:
            session = Session(
                volume,
                store,
                self.client,
                Options(),
                self._take_outcome,
                self._note_request,
                image_source=NodeImage(self.volume_node),
                numbers=self._numbers,
                prompt_store=prompts,
                version=__version__,
            )
        except FoundationSegError:
            prompts.stop()
            raise
        prompts.follow(session)
        self.session, self._store, self._prompts = session, store, prompts
        from .mrml.scene_recovery import keep_session

        self._recovery = keep_session(session, self.segmentation_node, on_error=self._report_unkept)
        session.listeners += [store.describe, session.history.keep_steps, self._recovery.note]
        return session, store

    def _note_request(self, _: Session) -> None:
        self._submitted_at = time.perf_counter()
        self.start_timer()
        self.on_update("busy")

    def _apply(self, event: Event) -> None:
        try:
            if self._other_request is not None and event.request_id == self._other_request[0]:
                on_event = self._other_request[1]
                if isinstance(event, Progressed):
                    self.report = event.report
                else:
                    self._other_request = None
                on_event(event)
            elif self.session is not None:
                if isinstance(event, Progressed) and event.request_id == self.session.request_id:
                    self.report = event.report
                elif isinstance(event, PartlyAnswered) and event.request_id == self.session.request_id:
                    parts = dict(zip(self.session.asked_ids, event.part.masks, strict=True))
                    self.preview.add_segments(self.segmentation_node, self.session.volume.geometry, parts)
                deliver(self.session, event)
        finally:
            if not self.is_busy:
                self.report, self.is_finishing = None, False
            self.preview.settle(self.session)
            self.on_update("busy")

    def _take_outcome(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.preview.settle(self.session)
        if isinstance(outcome, Refused) and not outcome.is_waiting:
            self.error = self._given_up = outcome.error
        elif self.error is not self._given_up:  # what was given up is shown until somebody has read it
            self.error = None
        if isinstance(outcome, Confirmation) and self.session is not None:
            geometry, changes = self.session.volume.geometry, tuple(outcome.changes.values())
            self.preview.show_changes(self.segmentation_node, geometry, changes)
        if isinstance(outcome, ImageChanged) and self.session is not None:
            self._image.replace(self.session.volume)
        if isinstance(outcome, SegmentEdited) and outcome.kind == "predicted":
            self.answer_s = time.perf_counter() - self._submitted_at
        self.on_update("outcome")

    def _report_unkept(self, error: FoundationSegError) -> None:
        self.error = self._given_up = error  # shown beyond the outcome, which is told next
        self.on_update("outcome")

    def _report_refusal(self, error: FoundationSegError) -> None:
        if not isinstance(error, Cancelled):
            self.error = error
            self.on_update("outcome")
