"""The worker: one process that owns the device and the models, or changes packages, and serves one client.

It starts with the standard library alone; numpy comes with the first image, and torch with the first request that
needs it. It ends where its connection ends, whatever it is doing. Started by :class:`.process.Link`::

    python -P -m FoundationSegLib.worker.server   # and, on its standard input, {"port": ..., "secret": ..., ...}
"""

import contextlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from ..codec import from_document
from ..errors import DeviceLostError, FoundationSegError, InferenceError, PackageError
from ..installation import packages
from ..installation.inspection import PythonReport, inspect_python
from ..installation.private_environment import private_folder, search_path
from ..progress import CancelToken, Progress, ProgressReport
from ..requests import maintenance
from ..requests.agent_calls import ServeRequest
from ..requests.maintenance import WorkerSettings
from .protocol import (
    ENGINE_TASKS,
    TASKS,
    Failure,
    FrameError,
    FrameReader,
    Message,
    ServedReply,
    encode_frame,
    message,
    value_of,
    volume_keys_of,
)

if TYPE_CHECKING:
    from ..hub.store import Store
    from .client import InferenceEngine

    MakeEngine = Callable[[WorkerSettings], InferenceEngine]


class Workplace(Protocol):
    """The worker, as its tasks see it."""

    settings: WorkerSettings

    def need_engine(self) -> Any:
        """The engine, made if need be."""

    def next_reply(self, timeout_s: float) -> ServedReply | None:
        """The next reply to a call of an agent; None where none has come in time."""


Perform = Callable[[Any, Workplace, Progress], Any]


def open_store(settings: WorkerSettings) -> "Store":
    """The store of checkpoints that the settings name."""
    from ..hub.store import Store, default_store_folder

    return Store(settings.store_folder or default_store_folder())


def _inspect(request: maintenance.InspectRequest, workplace: Workplace, progress: Progress) -> PythonReport:
    """Look up the packages, and with them the devices, for which alone PyTorch is imported."""
    report = inspect_python(request.packages, workplace.settings.packages_folder)
    if not request.devices:
        return report
    progress.report(ProgressReport("devices", 0, 0))
    from ..engine.device import describe_devices

    return replace(report, devices=describe_devices())


def _plan(request: maintenance.PlanPackagesRequest, workplace: Workplace, progress: Progress) -> packages.PackagePlan:
    if private := private_folder(workplace.settings):
        return private.change(request.requirements, progress, is_plan=True)
    return packages.plan_packages(request.requirements, packages.PipTool(), progress)


def _install(
    request: maintenance.InstallPackagesRequest, workplace: Workplace, progress: Progress
) -> packages.PackagePlan:
    if private := private_folder(workplace.settings):
        return private.change(request.requirements, progress)
    note = packages.interrupted_installation()
    packages.repair_installation(note, packages.PipTool().reinstall, progress)
    plan = packages.plan_packages(request.requirements, packages.PipTool(), progress, size_of=lambda _: 0)
    unwanted = {packages.canonical(name) for name in request.from_elsewhere}
    coming = [package.name for package in plan.packages if packages.canonical(package.name) in unwanted]
    if coming:
        raise PackageError(f"{' and '.join(coming)} would come from pip; the extension 'PyTorch' has to install them")
    with packages.noted_installation(note, plan):
        packages.install_packages(plan, packages.PipTool(), progress)
    return plan


def _import(request: maintenance.ImportRequest, workplace: Workplace, progress: Progress) -> None:
    from ..catalog.catalogue import read_catalogue
    from ..catalog.model_cards import find_card
    from ..hub.exchange import import_adapted, import_checkpoint

    store, catalogue = open_store(workplace.settings), read_catalogue()
    if "+" in request.model_id:
        import_adapted(store, catalogue, request.model_id, request.source, progress)
        return
    card, accepts = find_card(catalogue, request.model_id), request.accept_license
    import_checkpoint(store, card, request.source, progress, accept_license=accepts)


def _remove(
    request: maintenance.RemoveRequest, workplace: Workplace, progress: Progress
) -> maintenance.RemovedCheckpoints:
    from ..catalog.catalogue import read_catalogue
    from ..catalog.model_cards import find_card
    from ..hub.plan import plan_removal, remove

    store, catalogue, freed = open_store(workplace.settings), read_catalogue(), 0
    for n, model_id in enumerate(request.model_ids):
        progress.step("remove", n, len(request.model_ids))
        card = find_card(catalogue, model_id)
        plan = plan_removal(store, card)
        remove(store, card, plan)
        freed += plan.bytes_freed
    return maintenance.RemovedCheckpoints(freed)


def _remove_packages(
    _: maintenance.RemovePackagesRequest, workplace: Workplace, progress: Progress
) -> maintenance.RemovedCheckpoints:
    private = private_folder(workplace.settings)
    return maintenance.RemovedCheckpoints(0 if private is None else private.remove(progress))


def _serve(request: ServeRequest, workplace: Workplace, progress: Progress) -> None:
    from ..mcp_server import serve_for_client

    serve_for_client(request, progress, workplace.next_reply)


def _learn_head(request: Any, workplace: Workplace, progress: Progress) -> Any:
    try:
        from ..evaluation.head_training import learn_from_table
    except ModuleNotFoundError as error:
        raise PackageError(f"labels are learned with the package {error.name}, which this Python lacks") from error
    from ..requests.classification import EmbedRequest, Subject

    engine = workplace.need_engine()

    def embed(volume: Any, texts: tuple[str, ...]) -> Any:
        engine.add_volume(volume)
        try:
            subject = Subject(request.axis)
            question = EmbedRequest(0, request.model_id, volume.key, subject, request.intensity, texts)
            return engine.embed(question, Progress(token=progress.token))
        finally:
            engine.remove_volume(volume.key)

    return learn_from_table(request, embed, progress)


def _by_engine(task: str) -> Perform:
    return lambda request, workplace, progress: getattr(workplace.need_engine(), task)(request, progress)


FUNCTIONS: Mapping[str, Perform] = {
    "inspect": _inspect,
    "plan": _plan,
    "install": _install,
    "import": _import,
    "remove": _remove,
    "remove_packages": _remove_packages,
    "serve": _serve,
    "learn_head": _learn_head,
    **{task: _by_engine(task) for task in ENGINE_TASKS},
}


_CONNECT_S = 10.0
_SIGN_OF_LIFE_S = 2.0
_REPORT_S = 0.03  # more reports a second than a screen shows pictures are of no use
_MAX_VOLUME = 2**36
_LAST_BREATH_S = 1.0


@dataclass(slots=True)
class Channel:
    """The connection to the client, as the worker sees it: it waits, and several threads may send."""

    connection: socket.socket
    _reader: FrameReader = field(default_factory=lambda: FrameReader(_MAX_VOLUME))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, frame: Message) -> None:
        """Send a message; a client that is gone is found out by :meth:`receive`."""
        with self._lock, contextlib.suppress(OSError):
            for part in encode_frame(frame):
                self.connection.sendall(part)

    def receive(self) -> Message | None:
        """The next message; None where the client is gone."""
        with contextlib.suppress(OSError, EOFError):
            return self._reader.read(self.connection)
        return None


@dataclass(slots=True)
class Inbox:
    """Reads in a thread of its own, so that a cancel is seen while the main thread computes.

    Attributes:
        frames: the messages that the main thread has to deal with, in order; None at the end.
        idle_token: cancelled by whatever comes, for work that nobody has asked for.
        replies: the messages that answer calls of agents.
        grace_s: how long the main thread may take to break off when the client is gone, in seconds.
    """

    channel: Channel
    frames: "queue.SimpleQueue[Message | None]" = field(default_factory=queue.SimpleQueue)
    idle_token: CancelToken = field(default_factory=CancelToken)
    replies: "queue.SimpleQueue[Message]" = field(default_factory=queue.SimpleQueue)
    grace_s: float = _LAST_BREATH_S
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
                self.take(frame)
        except (FrameError, KeyError, TypeError, MemoryError) as error:
            traceback.print_exception(error)
        finally:
            self.end()

    def take(self, frame: Message) -> None:
        """Put a message in the queue; to cancel and to finish early take effect at once."""
        if frame.header["type"] in ("cancel", "finish"):
            with self._lock:
                token = self._tokens.get(frame.header["ticket"])
            if token is not None:
                (token.cancel if frame.header["type"] == "cancel" else token.finish)()
            return
        if frame.header["type"] == "reply":
            self.replies.put(frame)
            return
        if "ticket" in frame.header:  # a request: it can be cancelled before its turn comes
            self.token(frame.header["ticket"])
        self.frames.put(frame)
        self.idle_token.cancel()

    def end(self) -> NoReturn:
        """Stop everything: the main thread has a moment to put away what it has, such as half a download."""
        self.frames.put(None)
        self.idle_token.cancel()
        with self._lock:
            for token in self._tokens.values():
                token.cancel()
        time.sleep(self.grace_s)
        leave()


def leave() -> NoReturn:
    """End this process at once, and whatever it has started.

    The frameworks' own ways of ending take their time, and sometimes crash.
    """
    sys.stderr.flush()
    if sys.platform != "win32" and os.getpgrp() == os.getsid(0):  # the group is the worker's own
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


@dataclass(slots=True)
class Worker:
    """Deals with the messages of the inbox, one after the other.

    Attributes:
        settings: settings that it was started with.
        make_engine: makes the engine, when something first needs it.
        parent: the number of the process that is not to be outlived, if any.
    """

    channel: Channel
    inbox: Inbox
    settings: WorkerSettings
    make_engine: "MakeEngine"
    parent: int | None = None
    _engine: "InferenceEngine | None" = None
    _refused: dict[str, FoundationSegError] = field(default_factory=dict)
    _is_at_work: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Work until the client is gone."""
        threading.Thread(target=self._give_signs_of_life, daemon=True).start()
        while (frame := self._next()) is not None:
            self._is_at_work.set()
            try:
                self._deal_with(frame)
            except Exception as error:  # whatever went wrong, the worker goes on
                self._report_unexpected(frame, error)
            finally:
                self._is_at_work.clear()

    def need_engine(self) -> "InferenceEngine":
        """The engine, made if need be."""
        if self._engine is None:
            self._engine = self.make_engine(self.settings)
        return self._engine

    def next_reply(self, timeout_s: float) -> ServedReply | None:
        """The next reply to a call of an agent; None where none has come in time."""
        with contextlib.suppress(queue.Empty):
            return value_of(self.inbox.replies.get(timeout=timeout_s), ServedReply)
        return None

    def _next(self) -> Message | None:
        """The next message; until there is one, work ahead."""
        while self.settings.encode_ahead and self._engine is not None and self.inbox.frames.empty():
            self.inbox.idle_token = token = CancelToken()
            if not self.inbox.frames.empty():
                break  # it came between the two lines above, and cancelled the token before
            try:
                if not self._engine.encode_ahead(Progress(token=token)):
                    break
            except Exception:  # nobody asked for it; a request that needs it will fail by itself
                break
        return self.inbox.frames.get()

    def _deal_with(self, frame: Message) -> None:
        kind = frame.header["type"]
        if kind == "request":
            self._answer(frame)
        elif kind == "volume":
            self._add_volume(frame)
        elif kind == "remove_volume":
            self.need_engine().remove_volume(frame.header["key"])
        elif kind == "prepare":
            with contextlib.suppress(FoundationSegError):  # a request that needs it will fail by itself
                self.need_engine().prepare(frame.header["model"], Progress())

    def _add_volume(self, frame: Message) -> None:
        """Keep an image; one that cannot be kept fails the requests that name it."""
        from ..imaging.volume import Volume

        key = frame.header["key"]
        self._refused.pop(key, None)
        try:
            volume = value_of(frame, Volume)
            if not volume.take_key(key, frame.header["checksum"]):
                raise InferenceError("the worker could not take in the image: the image changed on its way")
            self.need_engine().add_volume(volume)
        except FoundationSegError as error:
            self._refused[key] = error
        except MemoryError as error:
            self._refused[key] = InferenceError(f"the worker could not take in the image: {error or 'out of memory'}")

    def _answer(self, frame: Message) -> None:
        ticket, name = frame.header["ticket"], frame.header["task"]
        is_lost = False
        try:
            answer = message("answer", self._perform(name, frame), ticket=ticket)
        except FoundationSegError as error:
            answer = message("failure", Failure.of(error, traceback.format_exc()), ticket=ticket)
            is_lost = isinstance(error, DeviceLostError)
        finally:
            self.inbox.forget(ticket)
        self.channel.send(answer)
        if is_lost:
            leave()  # the device answers nobody in this process: the next request gets another

    def _perform(self, name: str, frame: Message) -> Any:
        task, ticket = TASKS[name](), frame.header["ticket"]
        request = value_of(frame, task.request)
        for key in volume_keys_of(request):
            if key in self._refused:
                raise self._refused[key]
        progress = Progress(
            _Reports(self.channel, ticket).send,
            self.inbox.token(ticket),
            lambda part: self.channel.send(message("partial", part, ticket=ticket)),
        )
        self.inbox.grace_s = _LAST_BREATH_S if task.is_repeated else task.cancel_s
        try:
            return FUNCTIONS[name](request, self, progress)
        finally:
            self.inbox.grace_s = _LAST_BREATH_S

    def _report_unexpected(self, frame: Message, error: Exception) -> None:
        traceback.print_exception(error)
        if "ticket" in frame.header:
            task = frame.header.get("task")
            subjects = dict.fromkeys(("predict", "classify", "embed"), "the model") | {"download": "the download"}
            reason = f"{type(error).__name__}: {error}"
            failure = InferenceError(f"{subjects.get(task, task)} failed in a way that was not foreseen ({reason})")
            failed = Failure.of(failure, "".join(traceback.format_exception(error)))
            self.channel.send(message("failure", failed, ticket=frame.header["ticket"]))

    def _give_signs_of_life(self) -> None:
        while True:
            if self._is_at_work.is_set():
                self.channel.send(message("alive"))
            if self.parent is not None and _is_gone(self.parent):
                self.inbox.end()  # a fork of it still holds the connection, or it would have been found out by that
            time.sleep(_SIGN_OF_LIFE_S)


def _is_gone(pid: int) -> bool:
    """True where a process of the same user has ended; always False on Windows, where a fork does not exist."""
    if sys.platform == "win32":
        return False
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)
    return False


@dataclass(slots=True)
class _Reports:
    """Sends reports of progress, not more than can be seen; the first and the last of a stage or item in any case."""

    channel: Channel
    ticket: int
    _step: tuple[str, str] = ("", "")
    _sent: float = 0.0

    def send(self, report: ProgressReport) -> None:
        now, step = time.monotonic(), (report.stage, report.item)
        if step != self._step or report.done == report.total or now > self._sent + _REPORT_S:
            self._step, self._sent = step, now
            self.channel.send(message("progress", report, ticket=self.ticket))


def open_engine(settings: WorkerSettings) -> "InferenceEngine":
    """Return an engine with the models of the cards, in this process."""
    from ..catalog.catalogue import read_catalogue
    from ..engine.engine import Engine

    store = open_store(settings)
    return Engine(read_catalogue(), store, settings.device, settings.box_rule, settings.budget)


def _connect(port: int, secret: str) -> Channel:
    connection = socket.create_connection(("127.0.0.1", port), timeout=_CONNECT_S)
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    channel = Channel(connection)
    channel.send(Message({"type": "hello", "secret": secret}))
    return channel


def main(make_engine: "MakeEngine" = open_engine) -> NoReturn:
    """Serve the client that started this process; the standard input says how to reach it."""
    signal.signal(signal.SIGINT, lambda *_: None)
    first_words = json.load(sys.stdin)
    channel = _connect(first_words["port"], first_words["secret"])
    settings = from_document(WorkerSettings, first_words["settings"], "settings")
    private = private_folder(settings)
    if private is not None:
        sys.path[:] = search_path(private.packages, sys.path)
    inbox = Inbox(channel)
    threading.Thread(target=inbox.read, daemon=True).start()
    Worker(channel, inbox, settings, make_engine, first_words["parent"]).run()
    leave()


if __name__ == "__main__":
    main()
