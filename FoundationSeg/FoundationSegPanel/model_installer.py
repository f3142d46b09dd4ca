"""The models on this computer, and how they come and go. One installer for the module."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt

from FoundationSegLib.api import DeviceReport, Installation, PythonReport, Readiness, inspect_python, package_names
from FoundationSegLib.catalog.catalogue import card_folder, read_catalogue
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.codec import frozen
from FoundationSegLib.errors import Cancelled, CardError, FoundationSegError
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.progress import ProgressReport
from FoundationSegLib.requests import maintenance
from FoundationSegLib.worker.client import Poller
from FoundationSegLib.worker.process import Timeouts
from FoundationSegLib.worker.process_client import ProcessClient
from FoundationSegLib.worker.protocol import Answered, Event, Progressed, Request, task_of

from .settings import Settings, installation, read_settings, write_settings

_INTERVAL_MS = 50
_NUMBER = 1  # of a request; each has a client of its own
# A finished process may be killed, a download goes on from where it was, and nothing has to wait for the end of either.
_STOP_S = 0.03

Cards = tuple[dict[str, ModelCard], CardError | None]


def read_cards() -> Cards:
    """Read every card; a wrong one of the user's own does not take the others away."""
    try:
        return read_catalogue(), None
    except CardError as error:
        return read_catalogue(card_folder()), error


@frozen
class Callbacks:
    """The functions called for a task: ``done`` with its result or ``failed`` at its end, ``progress`` with reports."""

    done: Callable[[Any], None]
    failed: Callable[[FoundationSegError], None]
    progress: Callable[[ProgressReport], None] = lambda _: None


class BackgroundTask:
    """One request at a time, each with a process of its own, looked after by a timer; the next one ends it."""

    def __init__(self) -> None:
        self._timer = qt.QTimer()
        self._timer.setInterval(_INTERVAL_MS)
        self._timer.connect("timeout()", self._tick)
        self._client: ProcessClient | None = None
        self._poller: Poller | None = None
        self._request_id = 0

    @property
    def worker_pid(self) -> int | None:
        """The number of the process; None while there is none."""
        return None if self._client is None else self._client.worker_pid

    def run(self, client: ProcessClient, request: Request, callbacks: Callbacks) -> None:
        """Begin a request; the client is closed at its end."""
        self.close()

        def apply(event: Event) -> None:
            if self._client is not client:
                return
            if isinstance(event, Progressed):
                callbacks.progress(event.report)
                return
            self.close()
            if isinstance(event, Answered):
                callbacks.done(event.answer)
            else:
                callbacks.failed(event.error)

        def stop_timer() -> None:
            if self._client in (client, None):
                self._timer.stop()

        self._client, self._poller, self._request_id = client, Poller(client, apply, stop_timer), request.request_id
        client.submit(request)
        self._timer.start()

    def cancel(self) -> None:
        """Stop the request; it fails as cancelled as soon as it has stopped."""
        if self._client is not None:
            self._client.cancel(self._request_id)

    def close(self) -> None:
        """End the request, if there is one; nothing is called for it any more."""
        self._timer.stop()
        client, self._client, self._poller = self._client, None, None
        if client is not None:
            client.close()

    def _tick(self) -> None:
        if self._poller is not None:
            self._poller.tick()


class ModelInstaller:
    """The settings, the catalogue, the store and the worker's Python; and the one task on them at a time.

    Each task has a process of its own, so that segmenting goes on meanwhile.

    Attributes:
        settings: as they are now; changed by :meth:`change_settings` alone.
        catalogue: every card by its id.
        catalogue_problem: why the user's own cards are left out; None where they are not.
        python: the packages of the worker's Python; None until they are known.
        problem: why the worker's Python gave no answer; None if it did.
        task: the name of the task that is under way, as in the worker's table of tasks; empty for none.
    """

    def __init__(
        self,
        stop_worker: Callable[[], None] = lambda: None,
        cards: Cards | None = None,
        open_client: Callable[[Installation, Timeouts], ProcessClient] = Installation.open_client,
    ) -> None:
        """Read the settings; nothing is asked yet.

        Args:
            stop_worker: ends the panel's own worker, which must not run while packages are installed, and which
                starts anew with other settings.
            cards: the result of :func:`read_cards`; it is called unless given.
            open_client: opens the client of a download.
        """
        self.settings = read_settings()
        self.catalogue, self.catalogue_problem = cards or read_cards()
        self.python: PythonReport | None = None
        self.problem: FoundationSegError | None = None
        self.task = ""
        self._devices: DeviceReport | None = None
        self._stop_worker, self._open_client = stop_worker, open_client
        self._observers: list[Callable[[], None]] = []
        self._inspection, self._background = BackgroundTask(), BackgroundTask()
        self._callbacks: Callbacks | None = None

    @property
    def installation(self) -> Installation:
        """The checkpoints and the Python that the settings name."""
        return installation(self.settings)

    @property
    def worker_pids(self) -> list[int]:
        """The processes of the task and of the inspection that are under way."""
        pids = (self._background.worker_pid, self._inspection.worker_pid)
        return [pid for pid in pids if pid is not None]

    def observe(self, callback: Callable[[], None]) -> None:
        """Call a function whenever anything of this may have changed."""
        self._observers.append(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Call a function no more; it is no error if it never was."""
        if callback in self._observers:
            self._observers.remove(callback)

    def notify(self) -> None:
        """Call all observers."""
        for callback in list(self._observers):
            callback()

    def change_settings(self, settings: Settings) -> None:
        """Keep other settings; workers are ended, and start again as they say when they are needed."""
        if settings == self.settings:
            return
        has_other_python = (settings.worker_python, settings.packages_root) != (
            self.settings.worker_python,
            self.settings.packages_root,
        )
        self.settings = settings
        write_settings(settings)
        self.stop_workers()
        if has_other_python:
            self.python = self.problem = self._devices = None
            self.refresh()
        else:
            self.notify()

    def readiness(self, model_id: str) -> Readiness:
        """Assess what is missing before a model can be used, as far as it is known; quick."""
        return self.installation.readiness(self.catalogue[model_id], self.python)

    def removable(self) -> list[tuple[ModelCard, int]]:
        """List the models of which anything is stored, with what each takes, in bytes."""
        return self.installation.removable(self.catalogue.values())

    def refresh(self, *, devices: bool = False, on_end: Callable[[], None] = lambda: None) -> None:
        """Inspect the worker's Python again; all observers are called at the end.

        Slicer's own is inspected at once; another Python, and its devices, in a process of its own.
        """

        def take(report: PythonReport) -> None:
            self._devices = report.devices or self._devices
            self.python, self.problem = replace(report, devices=self._devices), None
            self.notify()
            on_end()

        def fail(error: FoundationSegError) -> None:
            self.python, self.problem = None, error
            self.notify()
            on_end()

        names = package_names(self.catalogue)
        if self.settings.is_own_python and not devices:
            self._inspection.close()
            take(inspect_python(names, self.settings.packages_root))
        else:
            request = maintenance.InspectRequest(_NUMBER, names, devices)
            self._inspection.run(self._package_client(), request, Callbacks(take, fail))

    def plan_packages(self, requirements: Sequence[str], callbacks: Callbacks) -> None:
        """Begin to ask pip what it would install into the worker's Python; the result is a ``PackagePlan``."""
        self._begin(maintenance.PlanPackagesRequest(_NUMBER, tuple(requirements)), self._package_client(), callbacks)

    def install_packages(
        self, requirements: Sequence[str], callbacks: Callbacks, from_elsewhere: Sequence[str] = ()
    ) -> None:
        """Begin to install packages into the worker's Python; workers are ended first.

        ``from_elsewhere`` names packages that must not come from pip.
        """
        self.stop_workers()
        request = maintenance.InstallPackagesRequest(_NUMBER, tuple(requirements), tuple(from_elsewhere))
        self._begin(request, self._package_client(), callbacks)

    def remove_packages(self, callbacks: Callbacks) -> None:
        """Begin to remove the private packages; workers are ended first. The result is a ``RemovedCheckpoints``."""
        self.stop_workers()
        self._begin(maintenance.RemovePackagesRequest(_NUMBER), self._package_client(), callbacks)

    def import_checkpoint(self, model_id: str, source: str, callbacks: Callbacks, *, accept_license: bool) -> None:
        """Begin to bring a checkpoint in from a folder or an archive."""
        request = maintenance.ImportRequest(_NUMBER, model_id, Path(source), accept_license)
        self._begin(request, self._store_client(), callbacks)

    def remove_checkpoints(self, model_ids: Sequence[str], callbacks: Callbacks) -> None:
        """Begin to remove everything that is stored of some models; workers are ended first.

        The result is a ``RemovedCheckpoints``.
        """
        self.stop_workers()
        self._begin(maintenance.RemoveRequest(_NUMBER, tuple(model_ids)), self._store_client(), callbacks)

    def download(self, model_id: str, callbacks: Callbacks, *, accept_license: bool = False) -> None:
        """Begin to download a checkpoint, or what is missing of it."""
        request = maintenance.DownloadRequest(_NUMBER, model_id, accept_license)
        self._begin(request, self._open_client(self.installation, Timeouts(stop_s=_STOP_S)), callbacks)

    def adapt(self, request: Request, volumes: Sequence[Volume], callbacks: Callbacks) -> None:
        """Begin to adapt a model to segments of these images; the result is an ``Adaptation`` that waits to be kept."""
        from FoundationSegLib.api_adaptation import settings_for

        settings = settings_for(volumes, self.installation.settings)
        client = self._open_client(replace(self.installation, settings=settings), Timeouts(stop_s=_STOP_S))
        for volume in volumes:
            client.send_volume(volume)
        self._begin(request, client, callbacks)

    def learn_head(self, request: Request, callbacks: Callbacks) -> None:
        """Begin to learn labels from a table of images; the result is a ``LearnedHead`` that is not kept yet."""
        self._begin(request, self._open_client(self.installation, Timeouts(stop_s=_STOP_S)), callbacks)

    def add_card(self, card: ModelCard) -> None:
        """List a model that was just made; the panel's worker is ended, since it reads the cards when it starts."""
        self.catalogue[card.id] = card
        self._stop_worker()
        self.notify()

    def cancel(self) -> None:
        """Stop the task; it fails as cancelled. What has arrived of a download is kept."""
        self._background.cancel()

    def stop_workers(self) -> None:
        """End the panel's worker and a download; the worker starts again when it is needed."""
        self._stop_worker()
        if self.task == "download":
            self._replace(Cancelled("the download was stopped, since the worker was"))

    def close(self) -> None:
        """End whatever is under way; nothing is called for it."""
        self._observers.clear()
        self._callbacks = None
        self._inspection.close()
        self._background.close()

    def _package_client(self) -> ProcessClient:
        """A client of the worker's Python, whose packages it is about."""
        return self.installation.open_client(Timeouts(stop_s=_STOP_S))

    def _store_client(self) -> ProcessClient:
        """A client of Slicer's own Python: checkpoints can be moved where the worker's Python is missing."""
        return replace(self.installation, python="", inherited=None).open_client(Timeouts(stop_s=_STOP_S))

    def _begin(self, request: Request, client: ProcessClient, callbacks: Callbacks) -> None:
        """Begin a task; it takes the place of the one under way."""
        if self.task:
            self._background.cancel()
            self._replace(Cancelled("something else took its place"))
        self.task, self._callbacks = task_of(request)[0], callbacks
        self.notify()
        self._background.run(client, request, Callbacks(self._finish, self._fail, callbacks.progress))

    def _replace(self, reason: Cancelled) -> None:
        self._background.close()
        self._fail(reason)

    def _finish(self, result: Any) -> None:
        self._end(lambda callbacks: callbacks.done(result))

    def _fail(self, error: FoundationSegError) -> None:
        self._end(lambda callbacks: callbacks.failed(error))

    def _end(self, call: Callable[[Callbacks], None]) -> None:
        """Note that nothing is under way any more; the store may have other files than before."""
        callbacks, self._callbacks, self.task = self._callbacks, None, ""
        self.notify()
        if callbacks is not None:
            call(callbacks)
