"""The bytes of one answer, read in a thread of their own so that whoever waits for them can stop at any time."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.progress import Progress
from .online import POLL_S, http_package

CHUNK = 1 << 20  # bytes; the next one is read while one is hashed and written, and no more than that


class StreamFailed(Exception):
    """There is no answer, or no more of it; ``error`` says why, as the HTTP package does."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.error = error


@dataclass(frozen=True, slots=True)
class Head:
    """An answer before its body; ``hub_headers`` are those of the Hub itself, before it redirected to its storage."""

    status: int
    headers: Mapping[str, str]
    hub_headers: Mapping[str, str]


@dataclass(slots=True)
class Stream:
    """One request and its answer. What has come can be taken at once, however little it is."""

    _changed: threading.Condition = field(default_factory=threading.Condition)
    _head: Head | None = None
    _body: bytearray = field(default_factory=bytearray)
    _error: Exception | None = None
    _has_ended: bool = False
    _is_left: bool = False

    @staticmethod
    @contextlib.contextmanager
    def open(url: str, headers: Mapping[str, str], timeout_s: float) -> "Iterator[Stream]":
        """Ask for an address on the session of the Hub's client; what was not read when this ends is left behind."""
        stream = Stream()
        threading.Thread(target=stream._read, args=(url, dict(headers), timeout_s), daemon=True).start()
        try:
            yield stream
        finally:
            with stream._changed:
                stream._is_left = True
                stream._changed.notify_all()

    def head(self, progress: Progress) -> Head:
        """The answer's head.

        Raises:
            StreamFailed: there is none.
            Cancelled: the user stopped it.
        """
        self._wait(progress)
        if self._head is None:
            raise StreamFailed(self._error)
        return self._head

    def chunks(self, progress: Progress) -> Iterator[bytes]:
        """The body as it comes, in pieces of about :data:`CHUNK` bytes at most.

        Raises:
            StreamFailed: the connection broke; everything that had come before was handed out.
            Cancelled: the user stopped it.
        """
        while True:
            self._wait(progress)
            with self._changed:
                chunk, self._body = self._body, bytearray()
                self._changed.notify_all()
            if chunk:
                yield bytes(chunk)
            elif self._has_ended:
                break
        if self._error is not None:
            raise StreamFailed(self._error)

    def _wait(self, progress: Progress) -> None:
        """Wait until there is something: the head at first, then a part of the body or its end."""
        is_first = self._head is None
        with self._changed:
            while True:
                progress.check()
                if self._has_ended or self._body or (is_first and self._head is not None):
                    return
                self._changed.wait(POLL_S)

    def _read(self, url: str, headers: dict[str, str], timeout_s: float) -> None:
        from huggingface_hub.utils import get_session

        http, error = http_package(), None
        try:
            with get_session().stream("GET", url, headers=headers, timeout=timeout_s) as response:
                first = response.history[0] if response.history else response
                with self._changed:
                    self._head = Head(response.status_code, dict(response.headers), dict(first.headers))
                    self._changed.notify_all()
                self._read_body(response)
        except (http.HTTPError, http.InvalidURL, OSError, RuntimeError, ValueError) as caught:
            error = caught
        finally:
            with self._changed:
                self._error, self._has_ended = error, True
                self._changed.notify_all()

    def _read_body(self, response: Any) -> None:
        for piece in response.iter_bytes():
            with self._changed:
                self._body += piece
                self._changed.notify_all()
                while len(self._body) >= CHUNK and not self._is_left:
                    self._changed.wait()
                if self._is_left:
                    return
