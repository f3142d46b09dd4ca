"""The client whose work is done by a process of its own: it can be killed and restarted, and loses nothing."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..core.classify_request import ClassifyRequest
from ..core.errors import Cancelled, FoundationSegError, InferenceError, VolumeMissingError
from ..core.progress import ProgressReport
from ..core.requests import DownloadRequest, Request
from ..core.volume import Volume, require_image
from .classification_documents import classify_to_frame
from .documents import download_to_frame, error_from_frame, progress_from_frame, request_to_frame, volume_to_frame
from .frames import Frame
from .link import Link, LinkLost
from .messages import Event, Failed, Progressed
from .settings import Patience, WorkerSettings, worker_command
from .work import Work

# A worker that ends this often in a row at the same step has a reason that a restart does not remove.
_MAX_DEATHS = 5
# One that is killed may have been in somebody's way; by whom cannot be told: for want of memory, Linux does it too.
_MAX_KILLS = 25
_SIGKILL = 9
# To find out that one hangs takes minutes.
_MAX_HANGS = 2
_REAP_S = 0.2  # a launcher passes on the exit code of the worker, if it is let


@dataclass(slots=True)
class ProcessClient:
    """A client with one worker process, which starts when it is first needed. See :class:`~.client.Client`.

    For one thread. No method waits for the worker's work but :meth:`wait`, :meth:`stop` and :meth:`close`; what happens
    between calls of :meth:`poll` waits in the sockets. One request is under way at a time: the newest.

    Attributes:
        settings: what the worker is told.
        command: how it is started.
        patience: how long to wait for what.
        inherited: the environment that the worker starts with; this process's own, unless given. Another Python than
            Slicer's must not get what Slicer's launcher has set.
    """

    settings: WorkerSettings = field(default_factory=WorkerSettings)
    command: Sequence[str] = field(default_factory=worker_command)
    patience: Patience = field(default_factory=Patience)
    inherited: Mapping[str, str] | None = None
    _link: Link | None = None
    _events: deque[Event] = field(default_factory=deque)
    _volumes: dict[str, Volume] = field(default_factory=dict)
    _sent: set[str] = field(default_factory=set)
    _work: Work | None = None
    _model_id: str | None = None
    _tickets: int = 0
    _ending: tuple[int, float] | None = None

    @property
    def is_busy(self) -> bool:
        """See :attr:`Client.is_busy`."""
        link = self._link
        under_way = link is not None and (not link.is_connected or link.is_sending)
        return bool(self._events) or self._work is not None or self._ending is not None or under_way

    @property
    def worker_pid(self) -> int | None:
        """The number of the worker's process; None while there is none."""
        return None if self._link is None else self._link.process.pid

    def prepare(self, model_id: str) -> None:
        """See :meth:`Client.prepare`."""
        self._model_id = model_id
        self._ask_link(Frame({"type": "prepare", "model": model_id}))

    def send_volume(self, volume: Volume) -> None:
        """See :meth:`Client.send_volume`. The voxels must stay as they are until the image is removed.

        The bytes travel as :meth:`poll` is called; what this method takes is the image's fingerprint and checks, about
        0.3 s for 157 MB at the first time.
        """
        if volume.key not in self._volumes:
            require_image(volume)
        self._volumes[volume.key] = volume
        if self._ensure_link() is not None:
            self._transfer(volume.key)

    def remove_volume(self, volume_key: str) -> None:
        """See :meth:`Client.remove_volume`."""
        self._volumes.pop(volume_key, None)
        if volume_key in self._sent and self._link is not None:
            self._sent.discard(volume_key)
            self._link.send(Frame({"type": "remove_volume", "key": volume_key}))

    def submit(self, request: Request) -> None:
        """See :meth:`Client.submit`; returns at once. A worker that dies over a request is replaced and asked again."""
        self._drop("a newer request took its place", self.patience.supersede_s)
        extent = None
        if not isinstance(request, DownloadRequest):
            self._model_id = request.model_id
            if request.volume_key not in self._volumes:
                self._events.append(Failed(request.request_id, VolumeMissingError()))
                return
            extent = self._volumes[request.volume_key].geometry.box
        self._tickets += 1
        self._work = Work(request, self._tickets, extent)
        if self._ensure_link() is not None:
            self._send_work()

    def cancel(self, request_id: int) -> None:
        """See :meth:`Client.cancel`. A worker that does not stop in time is killed."""
        work = self._work
        if work is not None and work.request.request_id == request_id:
            is_download = isinstance(work.request, DownloadRequest)
            why = "the download was stopped on request" if is_download else "stopped on request; nothing was changed"
            self._drop(why, self.patience.cancel_s)

    def poll(self) -> tuple[Event, ...]:
        """See :meth:`Client.poll`."""
        if self._link is not None:
            try:
                for frame in self._link.receive():
                    self._take(frame)
                self._check_clocks(self._link)
            except LinkLost as loss:
                self._recover(loss)
        events = tuple(self._events)
        self._events.clear()
        return events

    def wait(self, timeout_s: float) -> None:
        """See :meth:`Client.wait`."""
        if self._link is not None and not self._events:
            self._link.wait(timeout_s)

    def stop(self) -> None:
        """See :meth:`Client.stop`. Waits for at most as long as the patience allows."""
        self._drop("the worker was stopped", 0)
        link, self._link, self._ending = self._link, None, None
        self._sent.clear()
        if link is not None:
            link.end(self.patience.stop_s)

    def close(self) -> None:
        """See :meth:`Client.close`."""
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
        self._events.append(Failed(work.request.request_id, Cancelled(why)))
        if self._link is not None:
            self._link.send(Frame({"type": "cancel", "ticket": work.ticket}))
            if work.point is not None and work.point.stage != "load":
                self._ending = (work.ticket, time.monotonic() + within_s)

    def _ensure_link(self) -> Link | None:
        """The running worker, started if need be; None if it cannot be, and the request has failed by that."""
        if self._link is None:
            self._sent.clear()
            try:
                self._link = Link.start(self.command, self.settings.to_document(), self.inherited)
            except LinkLost as loss:
                self._fail(InferenceError(str(loss)))
        return self._link

    def _ask_link(self, frame: Frame) -> None:
        link = self._ensure_link()
        if link is not None:
            link.send(frame)

    def _transfer(self, volume_key: str) -> None:
        if volume_key not in self._sent and self._link is not None:
            self._link.send(volume_to_frame(self._volumes[volume_key]))
            self._sent.add(volume_key)

    def _send_work(self) -> None:
        work, link = self._work, self._link
        if work is None or link is None:
            return
        if isinstance(work.request, DownloadRequest):
            link.send(download_to_frame(work.request, work.ticket))
        elif work.request.volume_key not in self._volumes:
            self._fail(VolumeMissingError())  # removed meanwhile
        else:
            self._transfer(work.request.volume_key)
            to_frame = classify_to_frame if isinstance(work.request, ClassifyRequest) else request_to_frame
            link.send(to_frame(work.request, work.ticket))

    def _take(self, frame: Frame) -> None:
        try:
            self._take_known(frame)
        except (FoundationSegError, KeyError, TypeError, ValueError) as error:
            raise LinkLost("the worker sent something that cannot be understood") from error

    def _take_known(self, frame: Frame) -> None:
        kind, ticket = frame.header["type"], frame.header.get("ticket")
        has_ended = kind in ("answered", "classified", "downloaded", "failed")
        if has_ended and self._ending is not None and self._ending[0] == ticket:
            self._ending = None
        work = self._work
        if work is None or ticket != work.ticket:
            return  # of a request that was dropped, or a mere sign of life
        if kind == "progress":
            work.point, work.stirred = progress_from_frame(frame), time.monotonic()
            self._events.append(Progressed(work.request.request_id, work.point))
        elif kind == "failed":
            self._take_failure(work, error_from_frame(frame))
        else:
            self._events.append(work.answer(frame))
            self._work = None

    def _take_failure(self, work: Work, error: FoundationSegError) -> None:
        request, is_missing = work.request, isinstance(error, VolumeMissingError)
        if not isinstance(request, DownloadRequest) and is_missing and not work.has_asked_twice:
            # The worker let go of the image for want of memory.
            work.has_asked_twice = True
            self._sent.discard(request.volume_key)
            self._send_work()
        else:
            self._fail(error)

    def _fail(self, error: FoundationSegError) -> None:
        work, self._work = self._work, None
        if work is not None:
            self._events.append(Failed(work.request.request_id, error))

    def _check_clocks(self, link: Link) -> None:
        """Find out what hangs.

        Raises:
            LinkLost: the worker does.
        """
        now, patience = time.monotonic(), self.patience
        if not link.is_connected and now > link.started + patience.start_s:
            raise LinkLost(f"the worker did not start within {patience.start_s:.0f} s", link.log_tail())
        if self._ending is not None and now > self._ending[1]:
            raise LinkLost("the worker did not stop in time")
        is_expected = self._work is not None or link.is_sending
        if is_expected and link.is_connected and now > link.heard + patience.silence_s:
            raise LinkLost(f"the worker gave no sign of life for {patience.silence_s:.0f} s", link.log_tail())
        if self._work is not None and now > self._work.stirred + patience.stall_s:
            raise LinkLost(f"the worker made no progress for {patience.stall_s:.0f} s", link.log_tail())

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

    def _goes_on(self, work: Work, loss: LinkLost, code: int | None) -> bool:
        """Whether a request is asked again; otherwise it has failed."""
        work.deaths = work.deaths + 1 if work.point == work.died_at else 1
        work.died_at, work.point, work.stirred = work.point, None, time.monotonic()
        work.restarts += 1
        limit = _MAX_DEATHS if loss.has_ended else _MAX_HANGS
        if loss.has_ended and code == -_SIGKILL:
            limit = _MAX_KILLS
        if work.restarts < _MAX_KILLS and work.deaths < limit:
            self._events.append(Progressed(work.request.request_id, ProgressReport("restart", work.deaths, 0)))
            return True
        how = f" with code {code}" if loss.has_ended else ""
        step = "at the same step" if work.died_at else "before its first step"
        error = InferenceError(f"the worker failed {work.restarts} times {step} ({loss}{how}); is there enough memory?")
        if loss.log:
            error.add_note(loss.log)
        self._fail(error)
        return False
