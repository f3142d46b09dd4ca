"""The poller: a timer calls it while something is under way, and it finds the end of that."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from .client import Client
from .protocol import Event


@dataclass(slots=True)
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
