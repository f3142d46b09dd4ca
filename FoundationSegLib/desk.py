"""What a panel does, without a single widget: one session after the other on nodes of the scene.

The desk holds what the user has chosen, opens the session with the first thing that needs it, and lets go of it when
its nodes go. A panel shows what the desk knows (:mod:`.desk_actions` is what the user can do); so does a test.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from . import __version__
from .catalog.model_cards import ModelCard
from .errors import Cancelled, FoundationSegError, GoneError, InputError
from .imaging.volume import Volume
from .mrml.reference_image import belongs_to, hide_other_images, own_segmentation, require_own, show_all_images
from .mrml.scene_recovery import SceneRecovery
from .mrml.session_prompts import SessionPrompts
from .mrml.session_store import SceneStore
from .mrml.volumes import NodeImage, volume_from_node
from .progress import ProgressReport
from .prompts.regions import Region
from .session.segment_store import ImageChanged, Options, Outcome, OverlapPolicy, Refused, SegmentEdited
from .session.session import Session
from .session.steps import ModelChoice
from .worker.client import Client, deliver
from .worker.poller import Poller
from .worker.protocol import Event, Progressed, Request

# What is to be shown anew: the nodes are others; the segments or their prompts have changed; a request began, went on
# or ended; something was done, waits to be confirmed, or failed.
Told = Literal["nodes", "segments", "busy", "outcome"]


@dataclass(slots=True)
class Wishes:
    """What the user has chosen; holds for what comes after.

    Attributes:
        choice: the model; None while there is none.
        policy: who keeps voxels that two segments want.
        ask_above: see :class:`.core.session.Options`.
        region: what changes are limited to; None for no limit.
        masking_node: whose editable area is kept to; None for none.
        many_objects: each prompt makes a segment of its own.
        kind: what new segments are called.
    """

    choice: ModelChoice | None = None
    policy: OverlapPolicy = OverlapPolicy.PROTECT
    ask_above: float | None = 0.5
    region: Region | None = None
    masking_node: Any | None = None
    many_objects: bool = False
    kind: str = "Segment"


def _nobody(_: object) -> None:
    """For those who do not look."""


@dataclass(slots=True)
class Desk:
    """The work on one segmentation of one image at a time. To be used in Slicer's main thread alone.

    Attributes:
        client: who predicts.
        catalogue: every model's card by its id.
        start_timer, stop_timer: of the timer that calls :meth:`tick` while something is under way.
        on_told: told what is to be shown anew.
        wishes: what the user has chosen.
        volume_node, segmentation_node: what is worked on; None for none.
        session: None until something needs it.
        segment_id: the segment that is worked on; empty for none.
        outcome: what happened last.
        error: what the user must be told and that is no outcome, such as a markup that cannot be where it was put.
        report: how far the request is that is under way; None while none is.
        answer_s: how long the last answer took, from the question to the written segment.
    """

    client: Client
    catalogue: Mapping[str, ModelCard]
    start_timer: Callable[[], None]
    stop_timer: Callable[[], None]
    on_told: Callable[[Told], None] = _nobody
    wishes: Wishes = field(default_factory=Wishes)
    volume_node: Any = None
    segmentation_node: Any = None
    session: Session | None = None
    segment_id: str = ""
    outcome: Outcome | None = None
    error: FoundationSegError | None = None
    report: ProgressReport | None = None
    answer_s: float | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _store: SceneStore | None = None
    _prompts: SessionPrompts | None = None
    _recovery: SceneRecovery | None = None
    _volume: Volume | None = None
    _volume_stamp: Hashable = None
    _pump: Poller = field(init=False)
    _asked_at: float = 0.0
    _given_up: FoundationSegError | None = None
    _allowed: tuple[Any, Any] | None = None
    _used: dict[str, str] = field(default_factory=dict)
    _other: tuple[int, Callable[[Event], None]] | None = None

    def __post_init__(self) -> None:
        self._pump = Poller(self.client, self._take, self.stop_timer)

    @property
    def owes_surfaces(self) -> bool:
        """True once surfaces that somebody made were dropped for a change, and are to be made anew."""
        return self._store is not None and self._store.owes_surfaces

    @property
    def is_busy(self) -> bool:
        """True while an answer is awaited, the session's or another."""
        return self._other is not None or (self.session is not None and self.session.request_id is not None)

    def use(self, volume_node: Any, segmentation_node: Any) -> None:
        """Work on these nodes from now on; what is under way on others is stopped, and nothing of it is written."""
        if volume_node is self.volume_node and segmentation_node is self.segmentation_node:
            return
        self.leave()
        self._allowed = None
        if volume_node is not self.volume_node:
            self.drop_request()
            self._let_volume_go()
        self.volume_node, self.segmentation_node = volume_node, segmentation_node
        if volume_node is not None and volume_node.GetScene() is not None:
            hide_other_images(volume_node, segmentation_node)
            if segmentation_node is not None and belongs_to(segmentation_node, volume_node):
                self._used[volume_node.GetID()] = segmentation_node.GetID()
        self.on_told("nodes")

    @property
    def is_foreign(self) -> bool:
        """True where the chosen segmentation belongs to another image, and nobody has said to go on with it."""
        nodes = self.volume_node, self.segmentation_node
        return None not in nodes and nodes != self._allowed and not belongs_to(nodes[1], nodes[0])

    def own_segmentation(self, volume_node: Any) -> Any:
        """The segmentation of an image: the one that was worked on last, else the newest; None while there is none."""
        return own_segmentation(volume_node, self._used.get(volume_node.GetID(), ""))

    def allow_foreign(self) -> None:
        """Go on with a segmentation of another image; with the next prompt it belongs to this one."""
        self._allowed = self.volume_node, self.segmentation_node
        if None not in self._allowed:
            self._used[self.volume_node.GetID()] = self.segmentation_node.GetID()

    def require_own(self) -> None:
        """Refuse a segmentation of another image, unless :meth:`allow_foreign` was said.

        Raises:
            ForeignSegmentationError: the chosen segmentation belongs to another image.
        """
        if self.is_foreign:
            require_own(self.segmentation_node, self.volume_node)

    def leave(self) -> None:
        """End the session: its request is stopped; segments and prompts stay."""
        self._end()
        self.segment_id = ""

    def close(self) -> None:
        """Leave, let go of the image, and forget the nodes. The client stays as it is."""
        self.leave()
        self.drop_request()
        self._let_volume_go()
        if self.volume_node is not None and self.volume_node.GetScene() is not None:
            show_all_images(self.volume_node.GetScene())
        self.volume_node = self.segmentation_node = None
        if self.client.is_busy:  # with the end of what was stopped
            self.start_timer()

    def opened(self) -> Session:
        """The session on the nodes, going by what the user has chosen now.

        Raises:
            InputError, GeometryError: there is no image, one that cannot be segmented, or the segmentation does not
                fit it.
            ForeignSegmentationError: the segmentation belongs to another image (:meth:`allow_foreign`).
        """
        session, store = self.session, self._store
        if session is None or store is None or store.is_gone:
            self._end()
            session, store = self._open()
        wishes = self.wishes
        session.options.choice, session.options.policy = wishes.choice, wishes.policy
        session.options.ask_above = wishes.ask_above
        store.masking_node = wishes.masking_node
        return session

    def warm_up(self) -> None:
        """Load the model and hand the image over while the user still takes aim; tells of nothing that fails."""
        if self.wishes.choice is None or self.volume_node is None:
            return
        with contextlib.suppress(FoundationSegError):  # the first prompt says so
            volume = self._image()
            self.start_timer()
            self.client.prepare(self.wishes.choice.model_id)
            self.client.send_volume(volume)

    def tick(self) -> None:
        """What the timer calls; never waits."""
        self._pump.tick()

    def ask(self, request: Callable[[int], Request], on_event: Callable[[Event], None]) -> None:
        """Ask something that is no business of the session; what it waits for is stopped, and can be asked again.

        Args:
            request: makes the request of the number that it is given.
            on_event: told of all that comes of it.
        """
        self.drop_request()
        number = next(self._numbers)
        self._other = number, on_event
        self.client.submit(request(number))
        self.start_timer()
        self.on_told("busy")

    def image(self) -> Volume:
        """The image, which the client has then.

        Raises:
            InputError, GeometryError: there is none, or one that cannot be used.
        """
        volume = self._image()
        self.client.send_volume(volume)
        return volume

    def drop_request(self) -> None:
        """Stop what :meth:`ask` asked for."""
        if self._other is not None:
            self.client.cancel(self._other[0])
            self.start_timer()

    def settle_surfaces(self) -> None:
        """They were made anew, or are not wanted any more."""
        if self._store is not None:
            self._store.owes_surfaces = False

    def node_removed(self, node: Any) -> None:
        """A node is about to leave the scene: what is worked on it ends."""
        if node is not None and node in (self.volume_node, self.segmentation_node):
            volume = None if node is self.volume_node else self.volume_node
            self.use(volume, None if node is self.segmentation_node else self.segmentation_node)

    def _end(self) -> None:
        session, self.session = self.session, None
        prompts, self._prompts, self._store = self._prompts, None, None
        recovery, self._recovery = self._recovery, None
        if session is not None:
            session.discard()
        if prompts is not None:
            prompts.stop()
        if recovery is not None:
            recovery.close()
        self.outcome = self.error = self.report = None

    def _image(self) -> Volume:
        if self.volume_node is None:
            raise InputError("choose an image first")
        _require_there(self.volume_node)
        stamp = NodeImage(self.volume_node).stamp()
        if self._volume is None or stamp != self._volume_stamp:
            before, self._volume = self._volume, volume_from_node(self.volume_node)
            self._volume_stamp = stamp
            if before is not None and before.key != self._volume.key:
                self.client.remove_volume(before.key)
        return self._volume

    def _let_volume_go(self) -> None:
        if self._volume is not None:
            self.client.remove_volume(self._volume.key)
            self._volume = None

    def _open(self) -> tuple[Session, SceneStore]:
        volume = self._image()
        if self.segmentation_node is None:
            raise InputError("choose a segmentation first")
        _require_there(self.segmentation_node)
        self.require_own()
        store = SceneStore(self.segmentation_node, self.volume_node, defers_surfaces=True)
        prompts = SessionPrompts(self.segmentation_node, self.volume_node, self._refused)
        try:
            session = Session(
                volume,
                store,
                self.client,
                Options(),
                self._happened,
                self._requested,
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
        self._recovery = SceneRecovery(session, self.segmentation_node, on_error=self._refused)
        return session, store

    def _requested(self, _: Session) -> None:
        self._asked_at = time.perf_counter()
        self.start_timer()
        self.on_told("busy")

    def _take(self, event: Event) -> None:
        if self._other is not None and event.request_id == self._other[0]:
            on_event = self._other[1]
            if not isinstance(event, Progressed):
                self._other = None
            on_event(event)
        elif self.session is not None:
            if isinstance(event, Progressed) and event.request_id == self.session.request_id:
                self.report = event.report
            try:
                deliver(self.session, event)
            finally:
                self._tell_busy()
            return
        self._tell_busy()

    def _tell_busy(self) -> None:
        if not self.is_busy:
            self.report = None
        self.on_told("busy")

    def _happened(self, outcome: Outcome) -> None:
        self.outcome = outcome
        if isinstance(outcome, Refused) and not outcome.is_waiting:
            self.error = self._given_up = outcome.error
        elif self.error is not self._given_up:  # what was given up is said until somebody has read it
            self.error = None
        if isinstance(outcome, ImageChanged) and self.session is not None:
            self._volume = self.session.volume
        if isinstance(outcome, SegmentEdited) and outcome.kind == "predicted":
            self.answer_s = time.perf_counter() - self._asked_at
        if self._recovery is not None:
            self._recovery.note(outcome)
        self.on_told("outcome")

    def _refused(self, error: FoundationSegError) -> None:
        if not isinstance(error, Cancelled):
            self.error = error
            self.on_told("outcome")


def _require_there(node: Any) -> None:
    if node.GetScene() is None:
        raise GoneError(f"'{node.GetName()}' was deleted: choose another one")
