"""What the worker hears and says: the connection, what is to be done, and the cancels that must not wait their turn."""

import contextlib
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import NoReturn

from ..core.progress import CancelToken
from .frames import Frame, FrameError, FrameReader, encode_frame

_MAX_VOLUME = 2**36
_LAST_BREATH_S = 1.0


@dataclass(slots=True)
class Channel:
    """The connection to the client, as the worker sees it: it waits, and several threads may send."""

    connection: socket.socket
    _reader: FrameReader = field(default_factory=lambda: FrameReader(_MAX_VOLUME))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, frame: Frame) -> None:
        """Send a message; a client that is gone is found out by :meth:`receive`."""
        with self._lock, contextlib.suppress(OSError):
            for part in encode_frame(frame):
                self.connection.sendall(part)

    def receive(self) -> Frame | None:
        """The next message; None where the client is gone."""
        with contextlib.suppress(OSError, EOFError):
            return self._reader.read(self.connection)
        return None


@dataclass(slots=True)
class Inbox:
    """Reads in a thread of its own, so that a cancel is seen while the main thread computes.

    Attributes:
        frames: what the main thread is to do, in order; None at the end.
        idle_token: cancelled by whatever comes, for work that nobody has asked for.
    """

    channel: Channel
    frames: "queue.SimpleQueue[Frame | None]" = field(default_factory=queue.SimpleQueue)
    idle_token: CancelToken = field(default_factory=CancelToken)
    _tokens: dict[int, CancelToken] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def token(self, ticket: int) -> CancelToken:
        """The token of a request."""
        with self._lock:
            return self._tokens.setdefault(ticket, CancelToken())

    def forget(self, ticket: int) -> None:
        """Let go of the token of a request that is done."""
        with self._lock:
            self._tokens.pop(ticket, None)

    def read(self) -> None:
        """Read until the client is gone; then stop everything, the process included."""
        try:
            while (frame := self.channel.receive()) is not None:
                self._take(frame)
        except (FrameError, KeyError, TypeError, MemoryError) as error:
            traceback.print_exception(error)
        finally:
            self._end()

    def _take(self, frame: Frame) -> None:
        if frame.header["type"] == "cancel":
            with self._lock:
                token = self._tokens.get(frame.header["ticket"])
            if token is not None:
                token.cancel()
            return
        if "ticket" in frame.header:  # a request: it can be cancelled before its turn comes
            self.token(frame.header["ticket"])
        self.frames.put(frame)
        self.idle_token.cancel()

    def _end(self) -> None:
        self.frames.put(None)
        self.idle_token.cancel()
        with self._lock:
            for token in self._tokens.values():
                token.cancel()
        time.sleep(_LAST_BREATH_S)  # for what has to be put away, such as half a download
        leave()


def leave() -> NoReturn:
    """End this process at once, and whatever it has started.

    The frameworks' own ways of ending take their time, and sometimes crash.
    """
    sys.stderr.flush()
    if sys.platform != "win32" and os.getpgrp() == os.getsid(0):  # the group is the worker's own
        os.killpg(0, signal.SIGKILL)
    os._exit(0)
