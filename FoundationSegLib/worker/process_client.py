"""The client whose work is done by a process of its own: it can be killed and restarted, and loses nothing."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from ..codec import mutable
from ..errors import Cancelled, FoundationSegError, GeometryError, InferenceError, InputError, VolumeMissingError
from ..imaging.geometry import Box, array_axis
from ..imaging.volume import Volume, require_image
from ..progress import ProgressReport
from ..requests.classification import ClassifyRequest
from ..requests.classification_answer import Classification
from ..requests.maintenance import DownloadRequest, WorkerSettings
from ..requests.segmentation import Prediction, PredictRequest
from . import protocol
from .process import Link, LinkLost, RetryPolicy, Timeouts, worker_command
from .protocol import Message

_SIGKILL = 9
_REAP_S = 0.2  # a launcher passes on the exit code of the worker, if it is let


@mutable
class _Work:
    """The request that is under way.

    Attributes:
        request: the request.
        task: its row of the table.
        ticket: names it to the worker; numbers of requests may come again.
        extent: the box of the image that it is about; None for a task that is about none.
        stirred: when something was last heard of it, on the monotonic clock, in seconds.
        point: the last report of progress, ``died_at`` that of the worker that died last.
        deaths: how often in a row it ended at that point, ``restarts`` how often in all.
        has_asked_twice: the worker had let go of the image, and was sent it again.
        stop_by: when it has to have stopped; None while nobody cancelled it, and for a task that is repeated.
    """

    request: protocol.Request
    task: protocol.Task
    ticket: int
    extent: Box | None = None
    stirred: float = field(default_factory=time.monotonic)
    point: ProgressReport | None = None
    died_at: ProgressReport | None = None
    deaths: int = 0
    restarts: int = 0
    has_asked_twice: bool = False
    stop_by: float | None = None

    @property
    def volume_keys(self) -> tuple[str, ...]:
        """The images that the request is about."""
        return protocol.volume_keys_of(self.request)


@mutable
class ProcessClient:
    """A :class:`~.client.Client` with one worker process, which starts when it is first needed.

    For one thread. No method waits for the worker's work but :meth:`wait`, :meth:`stop` and :meth:`close`; what happens
    between calls of :meth:`poll` waits in the sockets. One request is under way at a time: the newest.

    Work that may not be broken off by the end of another (an installation) is for a client of its own.

    Attributes:
        settings: settings that the worker starts with.
        command: how it is started.
        timeouts: how long to wait before it counts as lost.
        inherited: the environment that the worker starts with; this process's own, unless given. Another Python than
            Slicer's must not get what Slicer's launcher has set.
        retries: how often a request is asked again.
    """

    settings: WorkerSettings = field(default_factory=WorkerSettings)
    command: Sequence[str] = field(default_factory=worker_command)
    timeouts: Timeouts = field(default_factory=Timeouts)
    inherited: Mapping[str, str] | None = None
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    _link: Link | None = None
    _events: deque[protocol.Event] = field(default_factory=deque)
    _volumes: dict[str, Volume] = field(default_factory=dict)
    _sent: set[str] = field(default_factory=set)
    _work: _Work | None = None
    _model_id: str | None = None
    _tickets: int = 0
    _ending: tuple[int, float] | None = None

    @property
    def is_busy(self) -> bool:
        """True while there is, or may come, something to poll for."""
        link = self._link
        under_way = link is not None and (not link.is_connected or link.is_sending)
        return bool(self._events) or self._work is not None or self._ending is not None or under_way

    @property
    def worker_pid(self) -> int | None:
        """The number of the worker's process; None while there is none."""
        return None if self._link is None else self._link.process.pid

    def prepare(self, model_id: str) -> None:
        """Start the worker, and have it load a model that will be asked for. Nothing is downloaded for it."""
        self._model_id = model_id
        link = self._ensure_link()
        if link is not None:
            link.send(protocol.message("prepare", model=model_id))

    def send_volume(self, volume: Volume) -> None:
        """Hand over an image once. The voxels must stay as they are until the image is removed.

        The bytes travel as :meth:`poll` is called; what this method takes is the image's fingerprint and checks, about
        0.3 s for 157 MB at the first time.
        """
        if volume.key not in self._volumes:
            require_image(volume)
        self._volumes[volume.key] = volume
        if self._ensure_link() is not None:
            self._transfer(volume.key)

    def remove_volume(self, volume_key: str) -> None:
        """Let go of an image; it is no error if it was never sent."""
        self._volumes.pop(volume_key, None)
        if volume_key in self._sent and self._link is not None:
            self._sent.discard(volume_key)
            self._link.send(protocol.message("remove_volume", key=volume_key))

    def submit(self, request: protocol.Request) -> None:
        """Begin a request; returns at once. A worker that dies over it is replaced, and asked again.

        A task that is not repeated fails with an :class:`~FoundationSegLib.errors.InputError` instead.
        """
        self._drop("a newer request took its place", self.timeouts.supersede_s)
        self._tickets += 1
        work = _Work(request, protocol.task_of(request)[1], self._tickets)
        if not all(key in self._volumes for key in work.volume_keys):
            self._events.append(protocol.Failed(request.request_id, VolumeMissingError()))
            return
        if isinstance(request, PredictRequest | ClassifyRequest):
            self._model_id = request.model_id
            work.extent = self._volumes[request.volume_key].geometry.box
        self._work = work
        if self._ensure_link() is not None:
            self._send_work()

    def finish(self, request_id: int) -> None:
        """Have the request that is under way end early, with what was found so far for its answer."""
        work = self._work
        if work is not None and work.request.request_id == request_id and self._link is not None:
            self._link.send(protocol.message("finish", ticket=work.ticket))

    def reply(self, reply: protocol.ServedReply) -> None:
        """Reply to a call of an agent, which came as a part of the request that is under way."""
        if self._work is not None and self._link is not None:
            self._link.send(protocol.message("reply", reply))

    def cancel(self, request_id: int) -> None:
        """Stop the request that is under way. A worker that does not stop in time is killed."""
        work = self._work
        if work is None or work.request.request_id != request_id:
            return
        if work.task.is_repeated:
            is_download = isinstance(work.request, DownloadRequest)
            why = "the download was stopped on request" if is_download else "stopped on request; nothing was changed"
            self._drop(why, self.timeouts.cancel_s)
        elif work.stop_by is None and self._link is not None:
            work.stop_by = time.monotonic() + work.task.cancel_s
            self._link.send(protocol.message("cancel", ticket=work.ticket))

    def poll(self) -> tuple[protocol.Event, ...]:
        """The events since the last call, oldest first. Never waits."""
        if self._link is not None:
            try:
                for frame in self._link.receive():
                    self._take(frame)
                self._check_clocks(self._link)
            except LinkLost as loss:
                self._recover(loss)
            except (FoundationSegError, KeyError, TypeError, ValueError):
                self._recover(LinkLost("the worker sent something that cannot be understood"))
        events = tuple(self._events)
        self._events.clear()
        return events

    def wait(self, timeout_s: float) -> None:
        """Wait until there may be something to poll for, or the time is over."""
        if self._link is not None and not self._events:
            self._link.wait(timeout_s)

    def stop(self) -> None:
        """End the worker; waits for at most as long as the timeouts allow. Images stay registered.

        A process that changes packages or checkpoints is not killed: it breaks off in good order, and ends by itself.
        """
        is_careful = self._work is not None and not self._work.task.is_repeated
        self._drop("the worker was stopped", 0)
        link, self._link, self._ending = self._link, None, None
        self._sent.clear()
        if link is not None:
            link.end(self.timeouts.stop_s, kills=not (is_careful and link.is_connected))

    def close(self) -> None:
        """End the worker and let go of everything. May be called twice."""
        self.stop()
        self._volumes.clear()
        self._events.clear()
        self._model_id = None

    def _drop(self, why: str, within_s: float) -> None:
        """Give up the request that is under way: it has failed from now on, whatever the worker still says.

        The worker has some time to end the computation. While it starts or loads a model it is left alone: the next
        request needs that too.
        """
        work, self._work = self._work, None
        if work is None:
            return
        self._events.append(protocol.Failed(work.request.request_id, Cancelled(why)))
        if self._link is not None:
            self._link.send(protocol.message("cancel", ticket=work.ticket))
            if work.point is not None and work.point.stage != "load":
                grace_s = 0.0 if work.task.is_repeated else work.task.cancel_s
                self._ending = (work.ticket, time.monotonic() + max(within_s, grace_s))

    def _ensure_link(self) -> Link | None:
        """The running worker, started if need be; None if it cannot be, and the request has failed by that."""
        if self._link is None:
            self._sent.clear()
            try:
                self._link = Link.start(self.command, self.settings, self.inherited)
            except LinkLost as loss:
                is_repeated = self._work is None or self._work.task.is_repeated
                self._fail(InferenceError(str(loss)) if is_repeated else InputError(str(loss)))
        return self._link

    def _transfer(self, volume_key: str) -> None:
        if volume_key not in self._sent and self._link is not None:
            self._link.send(protocol.volume_message(self._volumes[volume_key]))
            self._sent.add(volume_key)

    def _send_work(self) -> None:
        work, link = self._work, self._link
        if work is None or link is None:
            return
        if not all(key in self._volumes for key in work.volume_keys):
            self._fail(VolumeMissingError())  # removed meanwhile
            return
        for key in work.volume_keys:
            self._transfer(key)
        link.send(protocol.request_message(work.request, work.ticket))

    def _take(self, frame: Message) -> None:
        kind, ticket = frame.header["type"], frame.header.get("ticket")
        if kind in ("answer", "failure") and self._ending is not None and self._ending[0] == ticket:
            self._ending = None
        work = self._work
        if work is None or ticket != work.ticket:
            return  # of a request that was dropped, or a mere sign of life
        if kind == "progress":
            work.point, work.stirred = protocol.value_of(frame, ProgressReport), time.monotonic()
            self._events.append(protocol.Progressed(work.request.request_id, work.point))
        elif kind == "partial":
            work.stirred = time.monotonic()
            part = protocol.value_of(frame, work.task.part)
            self._events.append(protocol.PartlyAnswered(work.request.request_id, part))
        elif kind == "failure":
            self._take_failure(work, protocol.value_of(frame, protocol.Failure).error())
        elif kind != "answer":
            raise ValueError(f"{kind!r} is no message about a request")
        elif work.stop_by is not None:
            self._fail(Cancelled("stopped on request, when it was done"))
        else:
            answer = protocol.value_of(frame, work.task.answer)
            _require_fit(work, answer)
            self._events.append(protocol.Answered(work.request.request_id, answer))
            self._work = None

    def _take_failure(self, work: _Work, error: FoundationSegError) -> None:
        if work.volume_keys and isinstance(error, VolumeMissingError) and not work.has_asked_twice:
            # The worker let go of the image for want of memory.
            work.has_asked_twice = True
            self._sent.difference_update(work.volume_keys)
            self._send_work()
        else:
            self._fail(error)

    def _fail(self, error: FoundationSegError) -> None:
        work, self._work = self._work, None
        if work is not None:
            self._events.append(protocol.Failed(work.request.request_id, error))

    def _check_clocks(self, link: Link) -> None:
        """Notice a worker that hangs.

        Raises:
            LinkLost: it does.
        """
        now, timeouts, work = time.monotonic(), self.timeouts, self._work
        stops = [by for by in (self._ending and self._ending[1], work and work.stop_by) if by is not None]
        if any(now > by for by in stops):
            raise LinkLost("the worker did not stop in time")
        if not link.is_connected and now > link.started + timeouts.start_s:
            reason = f"the worker did not start within {timeouts.start_s:.0f} s"
            raise LinkLost(reason, link.log_tail(), has_started=False)
        is_expected = work is not None or link.is_sending
        if is_expected and link.is_connected and now > link.heard + timeouts.silence_s:
            raise LinkLost(f"the worker gave no sign of life for {timeouts.silence_s:.0f} s", link.log_tail())
        if work is not None and work.task.is_repeated and now > work.stirred + timeouts.stall_s:
            raise LinkLost(f"the worker made no progress for {timeouts.stall_s:.0f} s", link.log_tail())

    def _recover(self, loss: LinkLost) -> None:
        """Put a new worker in the place of a lost one, and ask it again what the lost one was asked."""
        lost, self._link = self._link, None
        was_deaf, self._ending = self._ending is not None, None
        code = None if lost is None else lost.end(_REAP_S if loss.has_ended else 0)
        if self._work is not None and self._goes_on(self._work, loss, code):
            if self._ensure_link() is not None:
                self._send_work()
        elif was_deaf and self._model_id is not None:
            self.prepare(self._model_id)  # the next request should not have to wait for it

    def _goes_on(self, work: _Work, loss: LinkLost, code: int | None) -> bool:
        """True where a request is asked again; otherwise it has failed."""
        if not work.task.is_repeated:
            self._fail_with_log(_reason(loss, code) if work.stop_by is None else Cancelled("stopped on request"), loss)
            return False
        work.deaths = work.deaths + 1 if work.point == work.died_at else 1
        work.died_at, work.point, work.stirred = work.point, None, time.monotonic()
        work.restarts += 1
        limit = self.retries.deaths if loss.has_ended else self.retries.hangs
        if loss.has_ended and code == -_SIGKILL:
            limit = self.retries.kills
        if work.restarts < self.retries.kills and work.deaths < limit:
            self._events.append(protocol.Progressed(work.request.request_id, ProgressReport("restart", work.deaths, 0)))
            return True
        how = f" with code {code}" if loss.has_ended else ""
        step = "at the same step" if work.died_at else "before its first step"
        text = f"the worker failed {work.restarts} times {step} ({loss}{how}); is there enough memory?"
        self._fail_with_log(InferenceError(text), loss)
        return False

    def _fail_with_log(self, error: FoundationSegError, loss: LinkLost) -> None:
        if loss.log:
            error.add_note(loss.log)
        self._fail(error)


def _reason(loss: LinkLost, code: int | None) -> FoundationSegError:
    """Why a Python did not do what is not asked again."""
    if not loss.has_ended:
        return InputError(str(loss))
    if code is not None and code < 0:
        return InputError(
            f"the process was ended from outside (signal {-code}), or met a fault of this Python; try again"
        )
    if not loss.has_started and ("nknown option: -P" in loss.log or "option -P" in loss.log):
        return InputError("this Python is too old; it has to be 3.11 or newer")
    if not loss.has_started and "FoundationSegLib" in loss.log and "No module named" in loss.log:
        return InputError(
            "this Python does not find FoundationSeg; it may be in a sandbox that does not see its folders"
        )
    how = "" if code is None else f" with code {code}"
    return InputError(f"this Python ended{how} before it had an answer; is it a Python?")


def _require_fit(work: _Work, answer: Any) -> None:
    """Make sure that an answer is one to the request.

    Raises:
        ValueError: it is about another number of segments, or other labels.
        GeometryError: a mask or a slice lies outside of the image.
    """
    request, extent = work.request, work.extent
    if isinstance(request, PredictRequest) and isinstance(answer, Prediction) and extent is not None:
        if len(answer.segments) != len(request.segments):
            raise ValueError("there are more or fewer segments than were asked for")
        if not all(extent.contains(segment.mask.box) for segment in answer.segments):
            raise GeometryError("a mask reaches out of the image")
    if isinstance(request, ClassifyRequest) and isinstance(answer, Classification) and extent is not None:
        names = tuple(score.name for score in answer.scores)
        if names != request.labels.names or answer.axis != request.subject.axis:
            raise ValueError("the answer is about other labels than were asked for")
        count = extent.stop_kji[array_axis(answer.axis)]
        if not all(0 <= index < count for part in (answer, *answer.evidence) for index in part.slices):
            raise GeometryError("a slice lies outside of the image")
