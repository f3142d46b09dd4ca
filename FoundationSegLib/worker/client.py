"""The client: one interface, whoever does the work; the in-line client for tests and simple scripts; the poller.

A timer calls the poller while something is under way, and it finds the end of that.
"""

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, Any, Protocol

from ..codec import mutable
from ..errors import Cancelled, FoundationSegError, InputError
from ..imaging.volume import Volume
from ..progress import CancelToken, Progress, ProgressReport
from ..requests.classification import ClassifyRequest, Embeddings, EmbedRequest
from ..requests.classification_answer import Classification
from ..requests.maintenance import DownloadRequest
from ..requests.segmentation import Prediction, PredictRequest
from .protocol import ENGINE_TASKS, Answered, Event, Failed, PartlyAnswered, Progressed, Request

if TYPE_CHECKING:
    from ..requests.adaptation import Adaptation, AdaptRequest, SimilarObjects, SimilarRequest

OnProgress = Callable[[ProgressReport], None]
_WAIT_S = 0.2  # a KeyboardInterrupt is seen between two of them


class Client(Protocol):
    """The interface that a session, a panel or a command works through. One request is under way at a time: the newest.

    That holds for downloads, too: a prediction ends one that is under way, and what has arrived of it is kept. To
    predict meanwhile, use another client for the download.
    """

    @property
    def is_busy(self) -> bool:
        """True while there is, or may come, something to poll for."""

    def prepare(self, model_id: str) -> None:
        """Say which model will be asked for, so that it is loaded meanwhile. Nothing is downloaded for it."""

    def send_volume(self, volume: Volume) -> None:
        """Hand over an image once; requests name it by its key.

        Raises:
            InputError: there is nothing to segment in it.
        """

    def remove_volume(self, volume_key: str) -> None:
        """Let go of an image; it is no error if it was never sent."""

    def submit(self, request: Request) -> None:
        """Begin a task: any request of :data:`.protocol.TASKS`.

        Whatever was asked before and is not answered yet fails as cancelled.
        """

    def finish(self, request_id: int) -> None:
        """Have a propagation that is under way end early: its answer is what was found until then.

        Any other request goes on, and any other number is left alone.
        """

    def cancel(self, request_id: int) -> None:
        """Stop the request that is under way: its last event is a failure by
        :class:`~FoundationSegLib.errors.Cancelled`. Any other number is left alone.
        """

    def poll(self) -> tuple[Event, ...]:
        """The events since the last call, oldest first. Never waits."""

    def wait(self, timeout_s: float) -> None:
        """Wait until there may be something to poll for, or the time is over. For scripts, not for panels."""

    def stop(self) -> None:
        """End the process that works, if there is one, for example before packages are installed.

        Images stay registered, and the next request starts a new one.
        """

    def close(self) -> None:
        """End the work and let go of everything. May be called twice."""


class InferenceEngine(Protocol):
    """The part of an engine that clients and the worker use."""

    def add_volume(self, volume: Volume) -> None:
        """Take in an image."""

    def remove_volume(self, volume_key: str) -> None:
        """Let go of an image."""

    def prepare(self, model_id: str, progress: Progress) -> None:
        """Load a model that will be asked for."""

    def predict(self, request: PredictRequest, progress: Progress) -> Prediction:
        """Answer a request."""

    def classify(self, request: ClassifyRequest, progress: Progress) -> Classification:
        """Answer a request to classify."""

    def embed(self, request: EmbedRequest, progress: Progress) -> Embeddings:
        """Encode slices and texts."""

    def adapt(self, request: "AdaptRequest", progress: Progress) -> "Adaptation":
        """Adapt a model to corrected segments."""

    def similar(self, request: "SimilarRequest", progress: Progress) -> "SimilarObjects":
        """Find objects like an example."""

    def download(self, request: DownloadRequest, progress: Progress) -> None:
        """Download a model's checkpoint; what has arrived is kept where it is stopped."""

    def encode_ahead(self, progress: Progress) -> bool:
        """Do a little of what the next request may need, in a worker; False where there is nothing to do."""


# The method of an engine for each request that is answered in line, by name, since adaptation is imported when needed.
_IN_LINE = {f"{task.capitalize()}Request": task for task in ENGINE_TASKS}


@mutable
class InlineClient:
    """A client whose work is done inside :meth:`submit`, in the caller's own process and thread.

    Attributes:
        engine: answers the requests.
        on_progress: called with each progress report at once, since nobody can poll meanwhile; the same reports are
            among the events.
    """

    engine: InferenceEngine
    on_progress: Callable[[ProgressReport], None] | None = None
    _events: deque[Event] = field(default_factory=deque)
    _work: tuple[int, CancelToken] | None = None
    _volume_keys: set[str] = field(default_factory=set)

    @property
    def is_busy(self) -> bool:
        """True while there are events to poll for."""
        return bool(self._events)

    def prepare(self, model_id: str) -> None:
        """Load a model now; one that cannot be loaded fails the request that needs it."""
        with contextlib.suppress(FoundationSegError):
            self.engine.prepare(model_id, Progress())

    def send_volume(self, volume: Volume) -> None:
        """Hand an image to the engine."""
        self.engine.add_volume(volume)
        self._volume_keys.add(volume.key)

    def remove_volume(self, volume_key: str) -> None:
        """Have the engine let go of an image."""
        self._volume_keys.discard(volume_key)
        self.engine.remove_volume(volume_key)

    def submit(self, request: Request) -> None:
        """Do a request; returns when it is answered or has failed."""
        token = CancelToken()
        self._work = request.request_id, token

        def report(progress: ProgressReport) -> None:
            self._events.append(Progressed(request.request_id, progress))
            if self.on_progress is not None:
                self.on_progress(progress)

        def tell_part(part: Any) -> None:
            self._events.append(PartlyAnswered(request.request_id, part))

        try:
            name = _IN_LINE.get(type(request).__name__)
            if name is None:
                raise InputError("packages and checkpoints are changed by a process of their own; use another client")
            answer = getattr(self.engine, name)(request, Progress(report, token, tell_part))
            self._events.append(Answered(request.request_id, answer))
        except FoundationSegError as error:
            self._events.append(Failed(request.request_id, error))
        finally:
            self._work = None

    def finish(self, request_id: int) -> None:
        """Have a propagation end early; to be called from a progress callback."""
        if self._work is not None and self._work[0] == request_id:
            self._work[1].finish()

    def cancel(self, request_id: int) -> None:
        """Stop the request that is under way; to be called from a progress callback."""
        if self._work is not None and self._work[0] == request_id:
            self._work[1].cancel()

    def poll(self) -> tuple[Event, ...]:
        """The events since the last call, oldest first."""
        events = tuple(self._events)
        self._events.clear()
        return events

    def wait(self, timeout_s: float) -> None:
        """Return at once: everything is done already."""

    def stop(self) -> None:
        """Do nothing: there is no process."""

    def close(self) -> None:
        """Let go of the images and the events. May be called twice."""
        for volume_key in list(self._volume_keys):
            self.remove_volume(volume_key)
        self._events.clear()


def ask(client: Client, request: Request, on_progress: OnProgress | None = None) -> Any:
    """Submit a request and wait for its answer; events of other requests are dropped. For scripts, not for panels.

    Returns the answer, of the type in :data:`.protocol.TASKS`. ``on_progress`` is called with each report as it comes;
    of a client that works in line, with all of them at the end.

    Raises:
        FoundationSegError: whatever the request failed with.
    """
    try:
        client.submit(request)
        while client.is_busy:
            for event in client.poll():
                if event.request_id != request.request_id:
                    continue
                if isinstance(event, Answered):
                    return event.answer
                if isinstance(event, Failed):
                    raise event.error
                if on_progress is not None and isinstance(event, Progressed):
                    on_progress(event.report)
            client.wait(_WAIT_S)
    finally:  # where it was interrupted, nobody waits for the answer any more, and the number may come again
        client.cancel(request.request_id)
        client.poll()
    raise Cancelled("the client was closed before the answer came")


class AskingSession(Protocol):
    """The part of :class:`FoundationSegLib.session.session.Session` that answers go to."""

    @property
    def request_id(self) -> int | None:
        """The number of the request that is out; None while there is none."""

    def answer(self, prediction: Prediction) -> None:
        """Take an answer in."""

    def fail(self, request_id: int, error: FoundationSegError) -> None:
        """Take a failure in."""

    def discard(self) -> bool:
        """Take back the request that is out."""


def deliver(session: AskingSession, event: Event) -> None:
    """Hand an event of the client to the session; those of other requests are left alone. For a panel's poller."""
    if isinstance(event, Answered) and isinstance(event.answer, Prediction):
        session.answer(event.answer)
    elif isinstance(event, Failed):
        session.fail(event.request_id, event.error)


def finish(session: AskingSession, client: Client) -> None:
    """Wait until the session has its answer. For scripts: give it to the session as what to do after each request.

    Raises:
        FoundationSegError: whatever the request failed with; the request is discarded.
    """
    try:
        while session.request_id is not None:
            for event in client.poll():
                is_its_failure = isinstance(event, Failed) and event.request_id == session.request_id
                deliver(session, event)
                if isinstance(event, Failed) and is_its_failure:
                    raise event.error
            if session.request_id is not None:
                if not client.is_busy:
                    raise Cancelled("the client was closed before the answer came")
                client.wait(_WAIT_S)
    except BaseException:
        session.discard()
        raise


@mutable
class Poller:
    """Takes events from a client to a function that applies them, at each tick of a timer::

        poller = Poller(client, apply, timer.stop)
        timer.connect("timeout()", poller.tick)
        client.submit(request)
        timer.start()

    Attributes:
        client: the client.
        apply: called with each event, oldest first.
        stop_timer: called when there is nothing more to come, and when the client itself raises: an exception in a
            timer's slot would otherwise be printed at every tick and end nothing.
    """

    client: Client
    apply: Callable[[Event], None]
    stop_timer: Callable[[], None]
    _waiting: deque[Event] = field(default_factory=deque)
    _is_applying: bool = False

    def stop(self) -> None:
        """Forget the events that are waiting, for example because the scene was closed."""
        self._waiting.clear()
        self.stop_timer()

    def tick(self) -> None:
        """Apply the events that have come; never waits.

        Applying an event may let the timer run meanwhile (a dialog does): such a tick does nothing, so that
        events are applied one after the other.

        Raises:
            Exception: whatever ``apply`` raised. The events after it are applied at the next tick.
        """
        if self._is_applying:
            return
        self._is_applying = True
        try:
            self._poll()
            while self._waiting:
                self.apply(self._waiting.popleft())
        finally:
            self._is_applying = False
            if not self._waiting and not self.client.is_busy:
                self.stop_timer()

    def _poll(self) -> None:
        try:
            self._waiting.extend(self.client.poll())
        except BaseException:
            self.stop_timer()
            raise
