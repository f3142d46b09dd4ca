"""Between a session and a client: answers to whoever asked, waiting for scripts, and never waiting for panels."""

from typing import Protocol

from ..core.errors import Cancelled, FoundationSegError
from ..core.requests import Prediction
from .client import Client
from .messages import Answered, Event, Failed

_WAIT_S = 0.2  # a KeyboardInterrupt is seen between two of them


class Asking(Protocol):
    """The part of :class:`FoundationSegLib.core.session.Session` that answers go to."""

    @property
    def request_id(self) -> int | None:
        """The number of the request that is out; None while there is none."""
        ...

    def answer(self, prediction: Prediction) -> None:
        """Take an answer in."""
        ...

    def fail(self, request_id: int, error: FoundationSegError) -> None:
        """Take a failure in."""
        ...

    def discard(self) -> bool:
        """Take back what was asked."""
        ...


def deliver(session: Asking, event: Event) -> None:
    """Hand an event of the client to the session; what is none of its business is left alone. For a panel's pump."""
    if isinstance(event, Answered):
        session.answer(event.prediction)
    elif isinstance(event, Failed):
        session.fail(event.request_id, event.error)


def finish(session: Asking, client: Client) -> None:
    """Wait until the session has its answer. For scripts: give it to the session as what to do after each request.

    Raises:
        FoundationSegError: whatever the request failed with; what was asked is discarded.
    """
    asked = session.request_id
    try:
        while session.request_id is not None:
            for event in client.poll():
                asked = session.request_id
                deliver(session, event)
                if isinstance(event, Failed) and event.request_id == asked:
                    raise event.error
            if session.request_id is not None:
                if not client.is_busy:
                    raise Cancelled("the client was closed before the answer came")
                client.wait(_WAIT_S)
    except BaseException:
        session.discard()
        raise
