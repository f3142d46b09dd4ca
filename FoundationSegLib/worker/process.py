"""Processes that work for a client: how one starts, with which environment, how it is reached, and how it ends.

The process calls back on the loopback interface and proves by a secret, which it got through its standard input, that
it is the one that was started. Nothing here waits for it but :meth:`Link.wait`, and :meth:`Link.end` for as long as it
is asked to.
"""

import contextlib
import hmac
import json
import os
import platform
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import IO, Any

from ..codec import frozen, mutable, to_document
from ..folders import user_folder
from ..requests.maintenance import WorkerSettings
from .protocol import FrameError, FrameReader, Message, encode_frame

_HELLO = 2**12  # of a stranger, no more than this is read
_FLUSH = 2**23  # what one call sends at most: some milliseconds
_MAX_PAYLOAD = 2**31  # of the worker: the bits of a mask, eight voxels a byte
_LOG_TAIL = 4000
_MAX_LOG = 2**24

_LIBRARY_PLACE = Path(__file__).resolve().parents[2]
# Nothing is reported to anybody, and nothing looked up in the network, but for downloads the user asked for.
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRUE = ("1", "ON", "YES", "TRUE")  # as the Hub's client reads it
_ENVIRONMENT = {
    **dict.fromkeys(_OFFLINE, "1"),
    # glibc would give the memory of every activation back to the system, and get it anew: an organ of 14 slices takes
    # 6.2 s instead of 6.8. Images, larger than the first number of bytes, are given back.
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**29),
    "MALLOC_TOP_PAD_": str(2**26),
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "PYTHONUTF8": "1",
}


@frozen
class Timeouts:
    """Times in seconds after which a worker counts as lost.

    Attributes:
        start_s: from the start of the process to its first word; a virus scanner may read all of Python first.
        silence_s: without a sign of life while it works; importing torch from a cold disk is one long silence.
        stall_s: without any progress on a request.
        cancel_s: from cancelling to the end of the computation.
        supersede_s: from a newer request to the end of the computation of the older one.
        stop_s: from hanging up to the end of the process.
    """

    start_s: float = 60.0
    silence_s: float = 120.0
    stall_s: float = 900.0
    cancel_s: float = 2.0
    supersede_s: float = 30.0
    stop_s: float = 1.0


@frozen
class RetryPolicy:
    """Limits on starting a process anew before the request that it was lost over is given up.

    Attributes:
        deaths: ends in a row at the same step; more have a reason that a restart does not remove.
        kills: ends by a kill, which may come from somebody it was in the way of. Linux kills for want of memory, too.
        hangs: times that it hung; to find that out takes minutes.
    """

    deaths: int = 5
    kills: int = 25
    hangs: int = 2


def worker_command(python: Path | str = "") -> tuple[str, ...]:
    """The command that starts a process of ours with a Python, or with the running one; in Slicer that is PythonSlicer.

    Some builds of Slicer do not know their own Python's path: there PythonSlicer is looked for, as a command.
    ``-P``: modules are not looked for in the working folder. A Mac's program for both kinds of processor runs as the
    native one, which Slicer, being translated itself, would not choose.
    """
    program = str(python) or sys.executable or shutil.which("PythonSlicer") or "PythonSlicer"
    is_translated = bool(python) and sys.platform == "darwin" and platform.machine() == "x86_64"
    native = ("/usr/bin/arch", "-arm64") if is_translated else ()
    return (*native, program, "-P", "-m", f"{__package__}.server")


def wants_offline(inherited: Mapping[str, str] | None = None) -> bool:
    """True where the user's own offline mode is on: then nothing is downloaded, not even on request."""
    inherited = os.environ if inherited is None else inherited
    return any(inherited.get(name, "").upper() in _TRUE for name in _OFFLINE)


def environment(inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process of ours: it finds the library, reports nothing, and looks nothing up.

    ``inherited`` is what it has from the process that starts it; all of that process's own, unless given.
    """
    offline, inherited = wants_offline(inherited), os.environ if inherited is None else inherited
    paths = [str(_LIBRARY_PLACE), *filter(None, [inherited.get("PYTHONPATH")])]
    # What the user asks to be downloaded may be, unless the user's own offline mode is on.
    allowed = {"FOUNDATIONSEG_ALLOW_DOWNLOAD": "0" if offline else "1"}
    # torch would make a folder for compiled code among the temporary files, and leave it there.
    compiled = {"TORCHINDUCTOR_CACHE_DIR": str(user_folder("cache", "", "FoundationSeg/torchinductor"))}
    return {**compiled, **inherited, **_ENVIRONMENT, **allowed, "PYTHONPATH": os.pathsep.join(paths)}


def spawn(
    command: Sequence[str], log: IO[bytes], inherited: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a process with a group of its own: the terminal's Ctrl-C is not for it, and it ends with its children.

    Its standard input is a pipe; all that it prints goes to the log.

    Raises:
        OSError: it cannot be started.
    """
    if sys.platform == "win32":
        # Without the first, a console would open before the user.
        apart: dict[str, Any] = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    else:
        apart = {"start_new_session": True}
    env = environment(inherited)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env, **apart)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children; PythonSlicer may be a launcher, and the worker its child."""
    if sys.platform == "win32":
        if process.poll() is None:
            taskkill = Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", "taskkill.exe")
            command = (str(taskkill), "/T", "/F", "/PID", str(process.pid))
            no_window = subprocess.CREATE_NO_WINDOW
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(command, capture_output=True, creationflags=no_window, check=False, timeout=2)
    else:
        # Also where it has ended: the group lives as long as one of its children does.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


class LinkLost(Exception):
    """The worker has ended, hangs, or does not speak the protocol. The message says which, for the user.

    ``log`` is the end of what the worker had printed, for developers; ``has_ended`` is true where it ended by itself or
    by the hand of somebody else, ``has_started`` where it had called back before.
    """

    def __init__(self, message: str, log: str = "", *, has_ended: bool = False, has_started: bool = True) -> None:
        super().__init__(message)
        self.log = log
        self.has_ended = has_ended
        self.has_started = has_started


@mutable
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
    def start(command: Sequence[str], settings: WorkerSettings, inherited: Mapping[str, str] | None = None) -> "Link":
        """Start a worker; returns at once. ``inherited``: see :func:`environment`.

        Raises:
            LinkLost: the process cannot be started.
        """
        secret = secrets.token_hex(32)
        try:
            with contextlib.ExitStack() as undo:
                log = undo.enter_context(tempfile.TemporaryFile())
                listener = undo.enter_context(socket.create_server(("127.0.0.1", 0)))
                listener.setblocking(False)
                process = spawn(command, log, inherited)
                undo.pop_all()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            message = f"the Python {Path(command[0]).name!r} cannot be started: {reason}"
            raise LinkLost(message, has_started=False) from error
        port = listener.getsockname()[1]
        first_words = {"port": port, "secret": secret, "parent": os.getpid(), "settings": to_document(settings)}
        assert process.stdin is not None  # it was asked for
        with contextlib.suppress(OSError), process.stdin:  # it may have ended already, which is found out soon
            process.stdin.write(json.dumps(first_words).encode())
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

    def send(self, frame: Message) -> None:
        """Send a message as soon as the worker takes it; its payload must stay as it is until then.

        What it takes at once leaves at once: until :meth:`receive` is called again, Slicer may draw for a while.
        """
        if not self._outgoing:
            self.heard = time.monotonic()  # from now on, it has something to say
        self._outgoing.extend(encode_frame(frame))
        if self._connection is not None:
            with contextlib.suppress(OSError):  # receive will say what happened
                self._flush(self._connection)

    def receive(self) -> Iterator[Message]:
        """The messages that have arrived; then what can be sent is sent. Never waits.

        Raises:
            LinkLost: there will be nothing more.
        """
        if self._connection is None:
            self._accept()
        if self._connection is None:
            if self.process.poll() is not None:
                raise LinkLost("the worker has ended", self.log_tail(), has_ended=True, has_started=False)
            return
        if os.fstat(self._log.fileno()).st_size > _MAX_LOG:
            # A library has filled it: it is begun again, for it shares its place with the worker's output.
            self._log.seek(0)
            self._log.truncate()
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

    def end(self, stop_s: float, *, kills: bool = True) -> int | None:
        """Hang up, by which the worker ends, and after ``stop_s`` seconds kill it, with all its children.

        One that is not killed ends by itself, when what it may not break off is done.
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
            if kills:
                kill_tree(self.process)
            self._log.close()
        if kills:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
        elif code is None:
            self.process.returncode = 0  # it is on its own now; Python would warn that it still runs
        return code

    def log_tail(self) -> str:
        """The last words that the worker has printed, 4000 bytes at most."""
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - _LOG_TAIL))
        return self._log.read().decode(errors="replace")

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
        """True where a caller has proved to be the worker; one that is somebody else is shown out."""
        connection, reader = caller
        try:
            hello = reader.read(connection)
        except (OSError, EOFError, FrameError):
            hello = Message({})
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
