"""The client: one interface, whoever does the work. Here: the one that works in line, for tests and simple scripts."""

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, overload

from ..core.classification import Classification
from ..core.classify_request import ClassifyRequest
from ..core.errors import Cancelled, FoundationSegError
from ..core.progress import CancelToken, Progress, ProgressReport
from ..core.requests import DownloadRequest, Prediction, PredictRequest, Request
from ..core.volume import Volume
from .messages import Answered, Classified, Downloaded, Event, Failed, Progressed


class Client(Protocol):
    """What a session, a panel or a command talks to. One request is under way at a time: the newest.

    That holds for downloads, too: a prediction ends one that is under way, and what has arrived of it is kept. Who
    wants to predict meanwhile has another client download.
    """

    @property
    def is_busy(self) -> bool:
        """True while there is, or may come, something to poll for."""
        ...

    def prepare(self, model_id: str) -> None:
        """Say which model will be asked for, so that it is loaded meanwhile. Nothing is downloaded for it."""
        ...

    def send_volume(self, volume: Volume) -> None:
        """Hand over an image once; requests name it by its key.

        Raises:
            InputError: there is nothing to segment in it.
        """
        ...

    def remove_volume(self, volume_key: str) -> None:
        """Let go of an image; it is no error if it was never sent."""
        ...

    def submit(self, request: Request) -> None:
        """Ask for a prediction, a classification or a download.

        Whatever was asked before and is not answered yet fails as cancelled.
        """
        ...

    def cancel(self, request_id: int) -> None:
        """Stop the request that is under way: its last event is a failure by
        :class:`~FoundationSegLib.core.errors.Cancelled`. Any other number is left alone.
        """
        ...

    def poll(self) -> tuple[Event, ...]:
        """What happened since the last call, oldest first. Never waits."""
        ...

    def wait(self, timeout_s: float) -> None:
        """Wait until there may be something to poll for, or the time is over. For scripts, not for panels."""
        ...

    def stop(self) -> None:
        """End the process that works, if there is one, for example before packages are installed.

        Images stay registered, and the next request starts a new one.
        """
        ...

    def close(self) -> None:
        """End the work and let go of everything. May be called twice."""
        ...


class Answering(Protocol):
    """What an in-line client needs of an engine."""

    def add_volume(self, volume: Volume) -> None:
        """Take in an image."""
        ...

    def remove_volume(self, volume_key: str) -> None:
        """Let go of an image."""
        ...

    def prepare(self, model_id: str, progress: Progress) -> None:
        """Load a model that will be asked for."""
        ...

    def predict(self, request: PredictRequest, progress: Progress) -> Prediction:
        """Answer a request."""
        ...

    def classify(self, request: ClassifyRequest, progress: Progress) -> Classification:
        """Answer a request to classify."""
        ...

    def download(self, request: DownloadRequest, progress: Progress) -> None:
        """Download a model's checkpoint; what has arrived is kept where it is stopped."""
        ...


@dataclass(slots=True)
class InlineClient:
    """A client whose work is done inside :meth:`submit`, in the caller's own process and thread.

    Attributes:
        engine: who answers.
        on_progress: told of each progress report at once, since nobody can poll meanwhile; the same reports are
            among the events.
    """

    engine: Answering
    on_progress: Callable[[ProgressReport], None] | None = None
    _events: deque[Event] = field(default_factory=deque)
    _work: tuple[int, CancelToken] | None = None
    _volume_keys: set[str] = field(default_factory=set)

    @property
    def is_busy(self) -> bool:
        """See :attr:`Client.is_busy`."""
        return bool(self._events)

    def prepare(self, model_id: str) -> None:
        """See :meth:`Client.prepare`; a model that cannot be loaded fails the request that needs it."""
        with contextlib.suppress(FoundationSegError):
            self.engine.prepare(model_id, Progress())

    def send_volume(self, volume: Volume) -> None:
        """See :meth:`Client.send_volume`."""
        self.engine.add_volume(volume)
        self._volume_keys.add(volume.key)

    def remove_volume(self, volume_key: str) -> None:
        """See :meth:`Client.remove_volume`."""
        self._volume_keys.discard(volume_key)
        self.engine.remove_volume(volume_key)

    def submit(self, request: Request) -> None:
        """See :meth:`Client.submit`; returns when the request is answered or has failed."""
        token = CancelToken()
        self._work = request.request_id, token

        def report(progress: ProgressReport) -> None:
            self._events.append(Progressed(request.request_id, progress))
            if self.on_progress is not None:
                self.on_progress(progress)

        try:
            self._events.append(self._answer(request, Progress(report, token)))
        except FoundationSegError as error:
            self._events.append(Failed(request.request_id, error))
        finally:
            self._work = None

    def _answer(self, request: Request, progress: Progress) -> Event:
        if isinstance(request, DownloadRequest):
            self.engine.download(request, progress)
            return Downloaded(request.request_id)
        if isinstance(request, ClassifyRequest):
            return Classified(request.request_id, self.engine.classify(request, progress))
        return Answered(request.request_id, self.engine.predict(request, progress))

    def cancel(self, request_id: int) -> None:
        """See :meth:`Client.cancel`; to be called from a progress callback."""
        if self._work is not None and self._work[0] == request_id:
            self._work[1].cancel()

    def poll(self) -> tuple[Event, ...]:
        """See :meth:`Client.poll`."""
        events = tuple(self._events)
        self._events.clear()
        return events

    def wait(self, timeout_s: float) -> None:
        """See :meth:`Client.wait`: there is nobody to wait for."""

    def stop(self) -> None:
        """See :meth:`Client.stop`: there is no process."""

    def close(self) -> None:
        """See :meth:`Client.close`."""
        for volume_key in list(self._volume_keys):
            self.remove_volume(volume_key)
        self._events.clear()


_WAIT_S = 0.2  # a KeyboardInterrupt is seen between two of them


OnProgress = Callable[[ProgressReport], None]


@overload
def ask(client: Client, request: PredictRequest, on_progress: OnProgress | None = None) -> Prediction: ...
@overload
def ask(client: Client, request: ClassifyRequest, on_progress: OnProgress | None = None) -> Classification: ...
@overload
def ask(client: Client, request: DownloadRequest, on_progress: OnProgress | None = None) -> None: ...
def ask(client: Client, request: Request, on_progress: OnProgress | None = None) -> Prediction | Classification | None:
    """Submit a request and wait for its answer; events of other requests are dropped. For scripts, not for panels.

    Returns the prediction or the classification; None once a download is done. ``on_progress`` is told of each report
    as it comes; of a client that works in line, all of them at the end.

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
                    return event.prediction
                if isinstance(event, Classified):
                    return event.classification
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, Downloaded):
                    return None
                if on_progress is not None:
                    on_progress(event.report)
            client.wait(_WAIT_S)
    finally:  # where it was interrupted, nobody waits for the answer any more, and the number may come again
        client.cancel(request.request_id)
        client.poll()
    raise Cancelled("the client was closed before the answer came")
