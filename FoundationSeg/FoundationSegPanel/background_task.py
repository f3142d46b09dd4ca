"""A request in a process of its own, looked after by a timer, so that nothing waits for it."""

from collections.abc import Callable
from typing import Any

import qt

from FoundationSegLib.errors import FoundationSegError
from FoundationSegLib.progress import ProgressReport
from FoundationSegLib.worker.poller import Poller
from FoundationSegLib.worker.process_client import ProcessClient
from FoundationSegLib.worker.protocol import Answered, Event, Progressed, Request

_INTERVAL_MS = 50


class BackgroundTask:
    """One request at a time, each with a process that ends with it; the next one stops the one under way."""

    def __init__(self) -> None:
        self._timer = qt.QTimer()
        self._timer.setInterval(_INTERVAL_MS)
        self._timer.connect("timeout()", self._tick)
        self._client: ProcessClient | None = None
        self._poller: Poller | None = None
        self._request_id = 0

    @property
    def worker_pid(self) -> int | None:
        """The number of the process; None while there is none."""
        return None if self._client is None else self._client.worker_pid

    def run(
        self,
        client: ProcessClient,
        request: Request,
        on_done: Callable[[Any], None],
        on_failed: Callable[[FoundationSegError], None],
        on_progress: Callable[[ProgressReport], None] = lambda _: None,
    ) -> None:
        """Begin a request; one of ``on_done`` (with the answer) and ``on_failed`` is called at its end.

        The client is closed at the end.
        """
        self.close()

        def apply(event: Event) -> None:
            if self._client is not client:
                return
            if isinstance(event, Progressed):
                on_progress(event.report)
                return
            self.close()
            if isinstance(event, Answered):
                on_done(event.answer)
            else:
                on_failed(event.error)

        def stop_timer() -> None:
            if self._client in (client, None):
                self._timer.stop()

        self._client, self._poller, self._request_id = client, Poller(client, apply, stop_timer), request.request_id
        client.submit(request)
        self._timer.start()

    def cancel(self) -> None:
        """Stop the request; it fails as cancelled as soon as it has stopped."""
        if self._client is not None:
            self._client.cancel(self._request_id)

    def close(self) -> None:
        """End the request, if there is one; nothing is called for it any more."""
        self._timer.stop()
        client, self._client, self._poller = self._client, None, None
        if client is not None:
            client.close()

    def _tick(self) -> None:
        if self._poller is not None:
            self._poller.tick()
