"""The pump: what a timer of the panel calls while something is under way, and how it finds its end."""

from collections.abc import Callable
from dataclasses import dataclass

from .client import Client
from .messages import Event


@dataclass(slots=True)
class Pump:
    """Takes events from a client to whoever applies them, at each tick of a timer.

    Attributes:
        client: who works.
        apply: told of each event, oldest first.
        stop_timer: called when there is nothing more to come, and when :attr:`apply` raises: an exception in a timer's
            slot would otherwise be printed at every tick and end nothing.
    """

    client: Client
    apply: Callable[[Event], None]
    stop_timer: Callable[[], None]

    def tick(self) -> None:
        """Apply what is ready; never waits.

        Raises:
            Exception: whatever ``apply`` raised. The events after it are applied at the next tick.
        """
        waiting = list(self.client.poll())
        try:
            while waiting:
                self.apply(waiting.pop(0))
        except BaseException:
            self.stop_timer()
            raise
        if not self.client.is_busy:
            self.stop_timer()
