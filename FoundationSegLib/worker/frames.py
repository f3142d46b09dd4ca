"""Frames: how a message travels over a stream of bytes. A JSON header and raw bytes; nothing is ever unpickled."""

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# "FSW" and the version of the frames; length of the header, length of the payload.
_PREFIX = struct.Struct("<4sIQ")
_MAGIC = b"FSW2"

Buffer = bytes | bytearray | memoryview


class FrameError(Exception):
    """The bytes that came are not a frame, or one beyond the limits."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message: ``header`` is plain JSON values, ``parts`` are raw bytes, which arrive as one part."""

    header: Mapping[str, Any]
    parts: Sequence[Buffer] = ()

    @property
    def payload(self) -> Buffer:
        """The raw bytes, all parts in a row."""
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)


def encode_frame(frame: Message) -> list[memoryview]:
    """The bytes to send, part by part; none of the frame's parts is copied.

    Raises:
        ValueError, TypeError: the header holds values that JSON does not know, such as NaN.
    """
    header = json.dumps(frame.header, allow_nan=False, default=_plain).encode()
    parts = [memoryview(part) for part in frame.parts]
    prefix = _PREFIX.pack(_MAGIC, len(header), sum(part.nbytes for part in parts))
    return [memoryview(prefix + header), *(part for part in parts if part.nbytes)]


def _plain(value: Any) -> Any:
    """A number of numpy's as one of Python's."""
    if hasattr(value, "dtype") and hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not for a header")


@dataclass(slots=True)
class FrameReader:
    """Puts frames together from whatever arrives.

    ``max_payload`` and ``max_header`` are the largest that are accepted, in bytes: memory is set aside before the
    bytes come.
    """

    max_payload: int
    max_header: int = 64 * 2**20  # a lasso of a million points
    _target: bytearray = field(default_factory=lambda: bytearray(_PREFIX.size))
    _filled: int = 0
    _header: dict[str, Any] | None = None
    _lengths: tuple[int, int] | None = None

    def read(self, connection: socket.socket) -> Message | None:
        """The next frame; None where a connection that does not wait has no more for now.

        Raises:
            EOFError: the other side has ended.
            FrameError: the other side does not speak this protocol.
            OSError: the connection is broken.
        """
        while True:
            while self._filled < len(self._target):
                try:
                    count = connection.recv_into(memoryview(self._target)[self._filled :])
                except (BlockingIOError, InterruptedError):
                    return None
                if count == 0:
                    raise EOFError("the connection was closed")
                self._filled += count
            frame = self._next_part()
            if frame is not None:
                return frame

    def _next_part(self) -> Message | None:
        """Go on from a part that is complete; the frame, if that was its last."""
        if self._lengths is None:
            self._lengths = self._read_prefix()
            self._expect(self._lengths[0])
        elif self._header is None:
            self._header = _read_header(self._target)
            self._expect(self._lengths[1])
        else:
            frame = Message(self._header, (self._target,))
            self._lengths = self._header = None
            self._expect(_PREFIX.size)
            return frame
        return None

    def _read_prefix(self) -> tuple[int, int]:
        magic, header, payload = _PREFIX.unpack(self._target)
        if magic != _MAGIC or header > self.max_header or payload > self.max_payload:
            raise FrameError("the other side does not speak this protocol")
        return header, payload

    def _expect(self, length: int) -> None:
        self._target, self._filled = bytearray(length), 0


def _read_header(raw: bytearray) -> dict[str, Any]:
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise FrameError("a header is not JSON") from error
    if not isinstance(header, dict):
        raise FrameError("a header is not a JSON object")
    return header
