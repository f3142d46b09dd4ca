"""The protocol between a client and the process that works for it: frames, tasks, messages and events.

A client (:mod:`.client`, :mod:`.process_client`) is given a request, and tells by events what becomes of it::

    client = ProcessClient(WorkerSettings(), worker_command())
    client.submit(InspectRequest(1, ("torch",)))       # any request of the table of tasks
    for event in client.poll():                        # Progressed ..., then one Answered or Failed; all with number 1
        ...
    report = ask(client, InspectRequest(2, ("torch",)))  # the same for a script, which waits

:data:`TASKS` is the table: the name of each task, the type of its request and of its answer. :mod:`.server` has the
functions that do them, in the process. The header of a message has the ``type``, and from a request on the ``ticket``
that names it to the process. From the client come ``request``, ``reply``, ``cancel``, ``prepare``,
``volume`` and ``remove_volume``; from the process ``hello`` (with the secret), ``alive``, ``progress``, ``answer`` and
``failure``. Values in them are those of :mod:`FoundationSegLib.codec`.

It is read by Pythons that have no package yet: standard library alone.

A message is a frame: a JSON header and raw bytes. Nothing is ever unpickled.
"""

import json
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from types import NoneType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .. import errors
from ..codec import frozen, mutable, pack, room_for, unpack
from ..errors import FoundationSegError, InferenceError, PromptError
from ..installation.inspection import PythonReport
from ..installation.packages import PackagePlan
from ..progress import ProgressReport
from ..requests import maintenance
from ..requests.agent_calls import AgentAnswer

if TYPE_CHECKING:
    from ..imaging.volume import Volume

# "FSW" and the version of the frames; length of the header, length of the payload.
_PREFIX = struct.Struct("<4sIQ")
_MAGIC = b"FSW2"

Buffer = bytes | bytearray | memoryview


class FrameError(Exception):
    """The bytes that came are not a frame, or one beyond the limits."""


@frozen
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


@mutable
class FrameReader:
    """Puts frames together from whatever arrives.

    ``max_payload`` and ``max_header`` are the largest that are accepted, in bytes: memory is set aside before the
    bytes come.
    """

    max_payload: int
    max_header: int = 64 * 2**20  # a lasso of a million points
    _target: bytearray | memoryview = field(default_factory=lambda: bytearray(_PREFIX.size))
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
            self._target, self._filled = room_for(self._lengths[1]), 0
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


T = TypeVar("T")


class Request(Protocol):
    """A request of the table of tasks."""

    @property
    def request_id(self) -> int:
        """A number that the events repeat; the caller makes it unique among the requests of a client."""


@frozen
class Progressed:
    """A request is under way."""

    request_id: int
    report: ProgressReport


@frozen
class Answered:
    """A request is answered; ``answer`` is of the type that the table of tasks names."""

    request_id: int
    answer: Any = None


@frozen
class Failed:
    """A request could not be answered, or was stopped (:class:`~FoundationSegLib.errors.Cancelled`)."""

    request_id: int
    error: FoundationSegError


@frozen
class PartlyAnswered:
    """A part of an answer, of the type that the table of tasks names. The whole follows."""

    request_id: int
    part: Any


Event = Progressed | PartlyAnswered | Answered | Failed


@frozen
class Task:
    """One kind of work.

    Attributes:
        request, answer: their types.
        is_repeated: where the process is lost, the next one is asked the same. What changes a computer's packages or
            checkpoints fails instead, and its cancel is told when it has really stopped.
        cancel_s: of a task that is not repeated, how long it may take to stop before it is killed, in seconds.
        part: the type of the parts that come before the answer; None where there are none.
    """

    request: type
    answer: Any
    is_repeated: bool = False
    cancel_s: float = 2.0
    part: Any = None


def _predict() -> Task:
    from ..requests.segmentation import PartialPrediction, Prediction, PredictRequest

    return Task(PredictRequest, Prediction, is_repeated=True, part=PartialPrediction)


def _classify() -> Task:
    from ..requests.classification import ClassifyRequest
    from ..requests.classification_answer import Classification

    return Task(ClassifyRequest, Classification, is_repeated=True)


def _embed() -> Task:
    from ..requests.classification import Embeddings, EmbedRequest

    return Task(EmbedRequest, Embeddings, is_repeated=True)


def _learn_head() -> Task:
    from ..requests.heads import LearnedHead, LearnHeadRequest

    return Task(LearnHeadRequest, LearnedHead, is_repeated=True)


def _adapt() -> Task:
    from ..requests.adaptation import Adaptation, AdaptRequest

    return Task(AdaptRequest, Adaptation, is_repeated=True)


def _similar() -> Task:
    from ..requests.adaptation import SimilarObjects, SimilarRequest

    return Task(SimilarRequest, SimilarObjects, is_repeated=True)


def _serve() -> Task:
    from ..requests.agent_calls import ServedCall, ServeRequest

    return Task(ServeRequest, NoneType, part=ServedCall)


# By name. Types that need numpy are imported when their task is looked up.
TASKS: Mapping[str, Callable[[], Task]] = {
    "inspect": lambda: Task(maintenance.InspectRequest, PythonReport),
    "plan": lambda: Task(maintenance.PlanPackagesRequest, PackagePlan),
    # pip may be putting files in their places, which it should end.
    "install": lambda: Task(maintenance.InstallPackagesRequest, PackagePlan, cancel_s=60.0),
    "download": lambda: Task(maintenance.DownloadRequest, NoneType, is_repeated=True),
    "import": lambda: Task(maintenance.ImportRequest, NoneType),
    "remove": lambda: Task(maintenance.RemoveRequest, maintenance.RemovedCheckpoints),
    "remove_packages": lambda: Task(maintenance.RemovePackagesRequest, maintenance.RemovedCheckpoints, cancel_s=60.0),
    "predict": _predict,
    "classify": _classify,
    "embed": _embed,
    "learn_head": _learn_head,
    "adapt": _adapt,
    "similar": _similar,
    "serve": _serve,
}


# Those that are methods of an engine, which answers them in line, too.
ENGINE_TASKS = ("predict", "classify", "embed", "adapt", "similar", "download")


def task_of(request: Request) -> tuple[str, Task]:
    """The name and the task of a request.

    Raises:
        TypeError: it is none of the table.
    """
    for name, task in ((name, find()) for name, find in TASKS.items()):
        if type(request) is task.request:
            return name, task
    raise TypeError(f"{type(request).__name__} is no request of the table of tasks")


def volume_keys_of(request: Request) -> tuple[str, ...]:
    """The keys of the images that a request is about."""
    key = getattr(request, "volume_key", None)
    return (key,) if key is not None else getattr(request, "volume_keys", ())


def message(kind: str, value: Any = None, **header: Any) -> Message:
    """A message with a value; bytes and arrays of the value are not copied, and must stay as they are until sent."""
    document, parts = pack(value)
    return Message({"type": kind, **header, "value": document}, parts)


def value_of(frame: Message, kind: type[T] | Any) -> T:
    """The value of a message; its arrays are read-only views of the frame's payload.

    Raises:
        DocumentError: it is no value of that type.
        KeyError: the message has no value.
    """
    return unpack(kind, frame.header["value"], frame.payload, str(frame.header["type"]))


def request_message(request: Request, ticket: int) -> Message:
    """A request; ``ticket`` is what all messages about it will carry."""
    return message("request", request, task=task_of(request)[0], ticket=ticket)


def volume_message(volume: "Volume") -> Message:
    """An image, with its fingerprint and checksum; its name and the notes about its file stay here."""
    frame = message("volume", volume, key=volume.key, checksum=volume.checksum)
    frame.header["value"].update(name="", notes=[])
    return frame


@frozen
class Failure:
    """An error as it crosses between processes; ``detail`` is for developers, such as a traceback."""

    kind: str
    message: str
    location: str = ""
    detail: str = ""

    @staticmethod
    def of(error: FoundationSegError, detail: str = "") -> "Failure":
        """The failure that an error makes."""
        location = error.location if isinstance(error, PromptError) else ""
        return Failure(type(error).__name__, str(error), location, detail)

    def error(self) -> FoundationSegError:
        """The error, of the class it had; one that this version does not know is an :class:`InferenceError`.

        The detail is a note of the exception: it is shown with a traceback and nowhere else.
        """
        kind = getattr(errors, self.kind, None)
        error: FoundationSegError
        if kind is PromptError:
            error = PromptError(self.message.removeprefix(f"{self.location}: "), self.location)
        elif isinstance(kind, type) and issubclass(kind, FoundationSegError):
            error = kind(self.message)
        else:
            error = InferenceError(self.message)
        if self.detail:
            error.add_note(self.detail)
        return error


@frozen
class ServedReply:
    """A reply to a :class:`~FoundationSegLib.requests.agent_calls.ServedCall`: its answer, or why there is none."""

    call_id: int
    answer: AgentAnswer | None
    failure: Failure | None = None
