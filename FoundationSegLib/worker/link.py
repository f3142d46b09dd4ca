"""A link: one worker process and the connection to it, seen from the side that never waits.

The worker calls back on the loopback interface and proves by a secret, which it got through its standard input, that
it is the process that was started. Nothing here waits for it; :meth:`Link.wait` does, and :meth:`Link.end` for as long
as it is told.
"""

import contextlib
import hmac
import json
import os
import secrets
import selectors
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from .frames import Frame, FrameError, FrameReader, encode_frame
from .processes import kill_tree, spawn

_HELLO = 2**12  # of a stranger, no more than this is read
_FLUSH = 2**23  # what one call sends at most: some milliseconds
_MAX_PAYLOAD = 2**31  # of the worker: the bits of a mask, eight voxels a byte
_LOG_TAIL = 4000
_MAX_LOG = 2**24


class LinkLost(Exception):
    """The worker has ended, hangs, or does not speak the protocol. The message says which, for the user.

    ``log`` is the end of what the worker had printed, for developers; ``has_ended`` is true where it ended by itself or
    by the hand of somebody else.
    """

    def __init__(self, message: str, log: str = "", *, has_ended: bool = False) -> None:
        super().__init__(message)
        self.log = log
        self.has_ended = has_ended


@dataclass(slots=True)
class Link:
    """A worker that was started. Made by :meth:`start`; ended by :meth:`end`.

    Attributes:
        process: the process that was started.
        started: when, on the monotonic clock, in seconds.
        heard: when it last gave a sign of life.
    """

    process: subprocess.Popen[bytes]
    started: float
    heard: float
    _log: IO[bytes]
    _listener: socket.socket
    _secret: str
    _connection: socket.socket | None = None
    _reader: FrameReader = field(default_factory=lambda: FrameReader(0))
    _callers: list[tuple[socket.socket, FrameReader]] = field(default_factory=list)
    _outgoing: deque[memoryview] = field(default_factory=deque)

    @staticmethod
    def start(
        command: Sequence[str], settings: Mapping[str, Any], inherited: Mapping[str, str] | None = None
    ) -> "Link":
        """Start a worker; returns at once. ``inherited``: see :func:`~.processes.environment`.

        Raises:
            LinkLost: the process cannot be started.
        """
        secret = secrets.token_hex(32)
        try:
            with contextlib.ExitStack() as undo:
                log = undo.enter_context(tempfile.TemporaryFile())
                listener = undo.enter_context(socket.create_server(("127.0.0.1", 0)))
                listener.setblocking(False)
                process = spawn(command, log, log, inherited)
                undo.pop_all()
        except OSError as error:
            raise LinkLost(f"the worker cannot be started: {error.strerror or type(error).__name__}") from error
        port = listener.getsockname()[1]
        told = {"port": port, "secret": secret, "parent": os.getpid(), "settings": dict(settings)}
        assert process.stdin is not None  # it was asked for
        with contextlib.suppress(OSError), process.stdin:  # it may have ended already, which is found out soon
            process.stdin.write(json.dumps(told).encode())
        now = time.monotonic()
        return Link(process, now, now, log, listener, secret)

    @property
    def is_connected(self) -> bool:
        """True once the worker has called back."""
        return self._connection is not None

    @property
    def is_sending(self) -> bool:
        """True while bytes are on their way out."""
        return bool(self._outgoing)

    def send(self, frame: Frame) -> None:
        """Send a message as soon as the worker takes it; its payload must stay as it is until then."""
        if not self._outgoing:
            self.heard = time.monotonic()  # from now on, it has something to say
        self._outgoing.extend(memoryview(part) for part in encode_frame(frame) if len(part))

    def receive(self) -> Iterator[Frame]:
        """What has arrived; then what can be sent is sent. Never waits.

        Raises:
            LinkLost: there will be nothing more.
        """
        if self._connection is None:
            self._accept()
            self._require_alive()
        if self._connection is None:
            return
        self._trim_log()
        try:
            while (frame := self._reader.read(self._connection)) is not None:
                self.heard = time.monotonic()
                yield frame
            self._flush(self._connection)
        except (OSError, EOFError) as error:
            raise LinkLost("the worker has ended", self.log_tail(), has_ended=True) from error
        except FrameError as error:
            raise LinkLost(str(error), self.log_tail()) from error

    def wait(self, timeout_s: float) -> None:
        """Wait until there may be something to receive, or the time is over."""
        with selectors.DefaultSelector() as waiting:
            if self._connection is None:
                for caller in (self._listener, *(caller for caller, _ in self._callers)):
                    waiting.register(caller, selectors.EVENT_READ)
                waiting.select(min(timeout_s, 0.05))
            else:
                writes = selectors.EVENT_WRITE if self._outgoing else 0
                waiting.register(self._connection, selectors.EVENT_READ | writes)
                waiting.select(timeout_s)

    def end(self, stop_s: float) -> int | None:
        """Tell the worker to end, and after ``stop_s`` seconds kill it, with all its children.

        Returns the exit code, negative for a signal, of one that ended before it was killed here; otherwise None.
        """
        if self._connection is not None:
            with contextlib.suppress(OSError):
                # Closing alone would not do where a fork of this process still has the connection.
                self._connection.shutdown(socket.SHUT_RDWR)
            self._connection.close()
        for connection in (self._listener, *(caller for caller, _ in self._callers)):
            connection.close()
        code = None
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self.process.wait(stop_s)
        finally:  # a second Ctrl-C does not leave it behind
            kill_tree(self.process)
            self._log.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        return code

    def log_tail(self) -> str:
        """The end of what the worker has printed."""
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - _LOG_TAIL))
        return self._log.read().decode(errors="replace")

    def _trim_log(self) -> None:
        """Start the log again where a library has filled it: it shares its place with the worker's output."""
        if os.fstat(self._log.fileno()).st_size > _MAX_LOG:
            self._log.seek(0)
            self._log.truncate()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # nobody more, or one who hung up before
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                self._callers.append((connection, FrameReader(0, _HELLO)))
        for caller in list(self._callers):
            if self._is_our_worker(caller):
                return

    def _is_our_worker(self, caller: tuple[socket.socket, FrameReader]) -> bool:
        """Whether a caller has proved to be the worker; one that is somebody else is shown out."""
        connection, reader = caller
        try:
            hello = reader.read(connection)
        except (OSError, EOFError, FrameError):
            hello = Frame({})
        if hello is None:
            return False
        self._callers.remove(caller)
        offered = str(hello.header.get("secret", "")).encode(errors="replace")
        if not hmac.compare_digest(offered, self._secret.encode()):
            connection.close()
            return False
        with contextlib.suppress(OSError):  # macOS, where it has ended already: found out by the next read
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection, self._reader, self.heard = connection, FrameReader(_MAX_PAYLOAD), time.monotonic()
        self._listener.close()
        for stranger, _ in self._callers:
            stranger.close()
        self._callers.clear()
        return True

    def _flush(self, connection: socket.socket) -> None:
        sent = 0
        while self._outgoing and sent < _FLUSH:
            part = self._outgoing[0]
            try:
                count = connection.send(part[:_FLUSH])
            except (BlockingIOError, InterruptedError):
                return
            sent += count
            self.heard = time.monotonic()
            if count == len(part):
                self._outgoing.popleft()
            else:
                self._outgoing[0] = part[count:]

    def _require_alive(self) -> None:
        if self._connection is None and self.process.poll() is not None:
            raise LinkLost("the worker has ended", self.log_tail(), has_ended=True)
