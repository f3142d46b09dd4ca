"""The worker: one process that owns the device and the models, and answers one client.

It starts with the standard library and numpy alone; torch is imported by the first request that needs it, which a
download does not. It ends where its connection ends, whatever it is doing.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from ..core.errors import FoundationSegError, InferenceError
from ..core.progress import CancelToken, Progress, ProgressReport
from .classification_documents import classification_to_frame, classify_from_frame
from .client import Answering
from .documents import (
    download_from_frame,
    downloaded_to_frame,
    error_to_frame,
    prediction_to_frame,
    progress_to_frame,
    request_from_frame,
    volume_from_frame,
)
from .frames import Frame, FrameError
from .inbox import Channel, Inbox, leave
from .settings import WorkerSettings

_CONNECT_S = 10.0
_SIGN_OF_LIFE_S = 2.0
_REPORT_S = 0.03  # more reports a second than a screen shows pictures are of no use


class AnsweringAhead(Answering, Protocol):
    """What the worker needs of an engine."""

    def encode_ahead(self, progress: Progress) -> bool:
        """Do a little of what the next request may need; False where there is nothing to do."""
        ...


MakeEngine = Callable[[WorkerSettings], AnsweringAhead]


@dataclass(slots=True)
class Worker:
    """Does what the inbox holds, one thing after the other.

    Attributes:
        make_engine: makes what answers, when the first message comes.
        encode_ahead: whether to do, while idle, what may be wanted later.
        parent: the number of the process that is not to be outlived, if any.
    """

    channel: Channel
    inbox: Inbox
    make_engine: Callable[[], AnsweringAhead]
    encode_ahead: bool
    parent: int | None = None
    _engine: AnsweringAhead | None = None
    _refused: dict[str, FoundationSegError] = field(default_factory=dict)
    _is_at_work: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Work until the client is gone."""
        threading.Thread(target=self._give_signs_of_life, daemon=True).start()
        while (frame := self._next()) is not None:
            self._is_at_work.set()
            try:
                self._do(frame)
            except Exception as error:  # whatever went wrong, the worker goes on
                self._report_unexpected(frame, error)
            finally:
                self._is_at_work.clear()

    def _next(self) -> Frame | None:
        """The next thing to do; until there is one, what may be wanted later."""
        while self.encode_ahead and self._engine is not None and self.inbox.frames.empty():
            self.inbox.idle_token = token = CancelToken()
            if not self.inbox.frames.empty():
                break  # it came between the two lines above, and cancelled the token before
            try:
                if not self._engine.encode_ahead(Progress(token=token)):
                    break
            except Exception:  # nobody asked for it; a request that needs it will fail by itself
                break
        return self.inbox.frames.get()

    def _do(self, frame: Frame) -> None:
        kind = frame.header["type"]
        if kind in ("predict", "classify", "download"):
            self._answer(frame)
        elif kind == "volume":
            self._add_volume(frame)
        elif kind == "remove_volume":
            self._need_engine().remove_volume(frame.header["key"])
        elif kind == "prepare":
            with contextlib.suppress(FoundationSegError):  # a request that needs it will fail by itself
                self._need_engine().prepare(frame.header["model"], Progress())

    def _need_engine(self) -> AnsweringAhead:
        if self._engine is None:
            self._engine = self.make_engine()
        return self._engine

    def _add_volume(self, frame: Frame) -> None:
        """Keep an image; one that cannot be kept fails the requests that name it."""
        key = frame.header["key"]
        self._refused.pop(key, None)
        try:
            self._need_engine().add_volume(volume_from_frame(frame))
        except FoundationSegError as error:
            self._refused[key] = error
        except (FrameError, MemoryError) as error:
            self._refused[key] = InferenceError(f"the worker could not take in the image: {error or 'out of memory'}")

    def _answer(self, frame: Frame) -> None:
        ticket = frame.header["ticket"]
        progress = Progress(_Reports(self.channel, ticket).send, self.inbox.token(ticket))
        answers = {"predict": self._predict, "classify": self._classify, "download": self._download}
        answer_to = answers[frame.header["type"]]
        try:
            answer = answer_to(frame, progress)
        except FoundationSegError as error:
            answer = error_to_frame(error, ticket, traceback.format_exc())
        finally:
            self.inbox.forget(ticket)
        self.channel.send(answer)

    def _predict(self, frame: Frame, progress: Progress) -> Frame:
        self._require_taken(frame)
        prediction = self._need_engine().predict(request_from_frame(frame), progress)
        return prediction_to_frame(prediction, frame.header["ticket"])

    def _classify(self, frame: Frame, progress: Progress) -> Frame:
        self._require_taken(frame)
        classification = self._need_engine().classify(classify_from_frame(frame), progress)
        return classification_to_frame(classification, frame.header["ticket"])

    def _require_taken(self, frame: Frame) -> None:
        if frame.header["volume"] in self._refused:
            raise self._refused[frame.header["volume"]]

    def _download(self, frame: Frame, progress: Progress) -> Frame:
        self._need_engine().download(download_from_frame(frame), progress)
        return downloaded_to_frame(frame.header["ticket"])

    def _report_unexpected(self, frame: Frame, error: Exception) -> None:
        traceback.print_exception(error)
        if "ticket" in frame.header:
            what = "the download" if frame.header["type"] == "download" else "the model"
            reason = f"{type(error).__name__}: {error}"
            failure = InferenceError(f"{what} failed in a way that was not foreseen ({reason})")
            self.channel.send(error_to_frame(failure, frame.header["ticket"], traceback.format_exc()))

    def _give_signs_of_life(self) -> None:
        while True:
            if self._is_at_work.is_set():
                self.channel.send(Frame({"type": "alive"}))
            if self.parent is not None and _is_gone(self.parent):
                leave()  # a fork of it still holds the connection, or it would have been found out by that
            time.sleep(_SIGN_OF_LIFE_S)


def _is_gone(pid: int) -> bool:
    """Whether a process of the same user has ended; always False on Windows, where a fork does not exist."""
    if sys.platform == "win32":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@dataclass(slots=True)
class _Reports:
    """Sends reports of progress, but not more than can be seen; the first and the last of a stage in any case."""

    channel: Channel
    ticket: int
    _stage: str = ""
    _sent: float = 0.0

    def send(self, report: ProgressReport) -> None:
        now = time.monotonic()
        if report.stage != self._stage or report.done == report.total or now > self._sent + _REPORT_S:
            self._stage, self._sent = report.stage, now
            self.channel.send(progress_to_frame(report, self.ticket))


def _engine(settings: WorkerSettings) -> AnsweringAhead:
    from ..core.cards import read_catalogue
    from ..engine.engine import engine_within
    from ..hub.store import Store, default_store_folder

    store = Store(settings.store_folder or default_store_folder())
    return engine_within(settings.budget, read_catalogue(), store, settings.device, settings.box_rule)


def _connect(told: Mapping[str, Any]) -> Channel:
    connection = socket.create_connection(("127.0.0.1", told["port"]), timeout=_CONNECT_S)
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    channel = Channel(connection)
    channel.send(Frame({"type": "hello", "secret": told["secret"]}))
    return channel


def main(make_engine: MakeEngine = _engine) -> NoReturn:
    """Serve the client that started this process: what it has to know comes through its standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the client, which ends this process in its own way
    told = json.load(sys.stdin)
    channel = _connect(told)
    settings = WorkerSettings.from_document(told["settings"])
    inbox = Inbox(channel)
    threading.Thread(target=inbox.read, daemon=True).start()
    Worker(channel, inbox, lambda: make_engine(settings), settings.encode_ahead, told["parent"]).run()
    leave()


if __name__ == "__main__":
    main()
