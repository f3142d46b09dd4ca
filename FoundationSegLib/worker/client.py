"""The client: one interface, whoever does the work. Here: the one that works in line, for scripts and tests."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ..core.errors import Cancelled, FoundationSegError
from ..core.progress import CancelToken, Progress, ProgressReport
from ..core.requests import Prediction, PredictRequest
from ..core.volume import Volume
from .messages import Answered, Event, Failed, Progressed


class Client(Protocol):
    """What a session, a panel or a command talks to."""

    def send_volume(self, volume: Volume) -> None:
        """Hand over an image once; requests name it by its key.

        Raises:
            InputError: there is nothing to segment in it.
        """
        ...

    def submit(self, request: PredictRequest) -> None:
        """Ask. A later request makes an earlier one that was not begun yet pointless: it fails as cancelled."""
        ...

    def cancel(self, request_id: int) -> None:
        """Stop a request; its last event is a failure by :class:`~FoundationSegLib.core.errors.Cancelled`."""
        ...

    def poll(self) -> tuple[Event, ...]:
        """What happened since the last call, oldest first. Never blocks."""
        ...

    def close(self) -> None:
        """End the work and let go of everything. May be called twice."""
        ...


class Answering(Protocol):
    """What an in-line client needs of an engine."""

    def add_volume(self, volume: Volume) -> None:
        """Take in an image."""
        ...

    def predict(self, request: PredictRequest, progress: Progress) -> Prediction:
        """Answer a request."""
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
    _tokens: dict[int, CancelToken] = field(default_factory=dict)

    def send_volume(self, volume: Volume) -> None:
        """See :meth:`Client.send_volume`."""
        self.engine.add_volume(volume)

    def submit(self, request: PredictRequest) -> None:
        """See :meth:`Client.submit`; returns when the request is answered or has failed."""
        token = self._tokens.setdefault(request.request_id, CancelToken())

        def report(progress: ProgressReport) -> None:
            self._events.append(Progressed(request.request_id, progress))
            if self.on_progress is not None:
                self.on_progress(progress)

        try:
            prediction = self.engine.predict(request, Progress(report, token))
        except FoundationSegError as error:
            self._events.append(Failed(request.request_id, error))
        else:
            self._events.append(Answered(request.request_id, prediction))
        finally:
            self._tokens.pop(request.request_id, None)  # a callback may have closed the client

    def cancel(self, request_id: int) -> None:
        """See :meth:`Client.cancel`; to be called from a progress callback, or before :meth:`submit`."""
        self._tokens.setdefault(request_id, CancelToken()).cancel()

    def poll(self) -> tuple[Event, ...]:
        """See :meth:`Client.poll`."""
        events = tuple(self._events)
        self._events.clear()
        return events

    def close(self) -> None:
        """See :meth:`Client.close`."""
        self._events.clear()
        self._tokens.clear()


def ask(client: Client, request: PredictRequest) -> Prediction:
    """Submit a request and wait for its answer; events of other requests are dropped. For scripts, not for panels.

    Raises:
        FoundationSegError: whatever the request failed with.
    """
    client.submit(request)
    for event in client.poll():
        if event.request_id != request.request_id:
            continue
        if isinstance(event, Answered):
            return event.prediction
        if isinstance(event, Failed):
            raise event.error
    raise Cancelled("the client was closed before the answer came")
