"""What the panel and its dialogs know of the models on this computer, and how they come and go. One for the module."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from FoundationSegLib.api import (
    DeviceReport,
    Installation,
    PythonReport,
    Readiness,
    Store,
    inspect_python,
    package_names,
)
from FoundationSegLib.catalog.catalogue import card_folder, read_catalogue
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.errors import Cancelled, CardError, FoundationSegError
from FoundationSegLib.progress import ProgressReport
from FoundationSegLib.requests.maintenance import (
    DownloadRequest,
    ImportRequest,
    InspectRequest,
    InstallPackagesRequest,
    PlanPackagesRequest,
    RemoveRequest,
)
from FoundationSegLib.worker.process import Timeouts
from FoundationSegLib.worker.process_client import ProcessClient
from FoundationSegLib.worker.protocol import Request, task_of

from .background_task import BackgroundTask
from .settings import Settings, installation, read_settings, write_settings

# What is over may be killed, a download goes on where it was, and nothing has to wait for the end of its process.
_STOP_S = 0.03


Cards = tuple[dict[str, ModelCard], CardError | None]


def read_cards() -> Cards:
    """Every card; a wrong one of the user's own does not take the others away."""
    try:
        return read_catalogue(), None
    except CardError as error:
        return read_catalogue(card_folder()), error


@dataclass(frozen=True, slots=True)
class Told:
    """Who is told of a piece of work.

    Attributes:
        done: called with its result at the end, if that is good.
        failed: called with the error at the end, if it is not.
        progress: called with each report.
    """

    done: Callable[[Any], None]
    failed: Callable[[FoundationSegError], None]
    progress: Callable[[ProgressReport], None] = lambda _: None


class ModelDesk:
    """The settings, the catalogue, the store and the worker's Python; and the one piece of work on them at a time.

    Each piece of work has a process of its own, so that segmenting goes on meanwhile.

    Attributes:
        settings: as they are now; changed by :meth:`change_settings` alone.
        catalogue: every card by its id.
        catalogue_problem: why the user's own cards are left out; None where they are not.
        python: what the worker's Python has; None until that is known.
        problem: why the worker's Python gave no answer; None if it did.
        work: the name of the task that is under way, as in the worker's table of tasks; empty for none.
        model_id: the model that it is about, if any.
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
            cards: what :func:`read_cards` returned; it is called unless given.
            open_client: opens the client of a download.
        """
        self.settings = read_settings()
        self.catalogue, self.catalogue_problem = cards or read_cards()
        self.python: PythonReport | None = None
        self.problem: FoundationSegError | None = None
        self.work = ""
        self.model_id = ""
        self._devices: DeviceReport | None = None
        self._stop_worker, self._open_client = stop_worker, open_client
        self._observers: list[Callable[[], None]] = []
        self._inspection, self._task = BackgroundTask(), BackgroundTask()
        self._told: Told | None = None
        self._numbers = 0

    @property
    def installation(self) -> Installation:
        """The checkpoints and the Python that the settings name."""
        return installation(self.settings)

    @property
    def store(self) -> Store:
        """The store of checkpoints."""
        return self.installation.store

    @property
    def devices(self) -> DeviceReport | None:
        """What the worker's Python can compute on; None until a diagnosis has asked."""
        return self._devices

    def observe(self, callback: Callable[[], None]) -> None:
        """Have somebody told whenever anything of this may have changed."""
        self._observers.append(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Tell somebody no more; it is no error if nobody did."""
        if callback in self._observers:
            self._observers.remove(callback)

    def notify(self) -> None:
        """Tell everybody that something may have changed."""
        for callback in list(self._observers):
            callback()

    def change_settings(self, settings: Settings) -> None:
        """Keep other settings; workers are ended, and start again as they say when they are needed."""
        if settings == self.settings:
            return
        has_other_python = settings.worker_python != self.settings.worker_python
        self.settings = settings
        write_settings(settings)
        self.stop_workers()
        if has_other_python:
            self.python = self.problem = self._devices = None
            self.refresh()
        else:
            self.notify()

    def card(self, model_id: str) -> ModelCard:
        """The card of a model of the catalogue."""
        return self.catalogue[model_id]

    def readiness(self, model_id: str) -> Readiness:
        """What is missing before a model can be used, as far as it is known; quick."""
        return self.installation.readiness(self.catalogue[model_id], self.python)

    def removable(self) -> list[tuple[ModelCard, int]]:
        """The models of which anything is stored, with what each takes, in bytes."""
        return self.installation.removable(self.catalogue.values())

    def refresh(self, *, devices: bool = False, on_end: Callable[[], None] = lambda: None) -> None:
        """Ask the worker's Python again what it has; everybody is told at the end.

        Slicer's own is asked at once; another Python, and what it can compute on, in a process of its own.
        """
        names = package_names(self.catalogue)
        if self.settings.is_own_python and not devices:
            self._inspection.close()
            self._take_report(inspect_python(names), on_end)
            return

        def fail(error: FoundationSegError) -> None:
            self.python, self.problem = None, error
            self.notify()
            on_end()

        request = InspectRequest(self._next_number(), names, devices)
        self._inspection.run(self._package_client(), request, lambda report: self._take_report(report, on_end), fail)

    def _take_report(self, report: PythonReport, on_end: Callable[[], None]) -> None:
        self._devices = report.devices or self._devices
        self.python, self.problem = replace(report, devices=self._devices), None
        self.notify()
        on_end()

    def plan_packages(self, requirements: Sequence[str], told: Told, model_id: str) -> None:
        """Begin to ask pip what it would install into the worker's Python; the result is a ``PackagePlan``."""
        request = PlanPackagesRequest(self._next_number(), tuple(requirements))
        self._begin(request, self._package_client(), told, model_id)

    def install_packages(
        self, requirements: Sequence[str], told: Told, model_id: str, from_elsewhere: Sequence[str] = ()
    ) -> None:
        """Begin to install packages into the worker's Python; workers are ended first.

        ``from_elsewhere`` names packages that must not come from pip.
        """
        self.stop_workers()
        request = InstallPackagesRequest(self._next_number(), tuple(requirements), tuple(from_elsewhere))
        self._begin(request, self._package_client(), told, model_id)

    def import_checkpoint(self, model_id: str, source: str, told: Told, *, accept_license: bool) -> None:
        """Begin to bring a checkpoint in from a folder or an archive."""
        request = ImportRequest(self._next_number(), model_id, Path(source), accept_license)
        self._begin(request, self._store_client(), told, model_id)

    def remove_checkpoints(self, model_ids: Sequence[str], told: Told) -> None:
        """Begin to remove everything that is stored of some models; the worker lets go of them first.

        The result is a ``RemovedCheckpoints``.
        """
        self.stop_workers()
        self._begin(RemoveRequest(self._next_number(), tuple(model_ids)), self._store_client(), told)

    def download(self, model_id: str, told: Told, *, accept_license: bool = False) -> None:
        """Begin to download a checkpoint, or what is missing of it."""
        request = DownloadRequest(self._next_number(), model_id, accept_license)
        self._begin(request, self._open_client(self.installation, Timeouts(stop_s=_STOP_S)), told, model_id)

    def cancel(self) -> None:
        """Stop what is under way; it fails as cancelled. What has arrived of a download is kept."""
        self._task.cancel()

    def stop_workers(self) -> None:
        """End the panel's worker and a download; the worker starts again when it is needed."""
        self._stop_worker()
        if self.work == "download":
            self._task.close()
            self._end_badly(Cancelled("the download was stopped, since the worker was"))

    def close(self) -> None:
        """End whatever is under way; nobody is told."""
        self._observers.clear()
        self._told = None
        self._inspection.close()
        self._task.close()

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _package_client(self) -> ProcessClient:
        """A client of the worker's Python, whose packages it is about."""
        return self.installation.open_client(Timeouts(stop_s=_STOP_S))

    def _store_client(self) -> ProcessClient:
        """A client of Slicer's own Python: checkpoints can be moved where the worker's Python is missing."""
        return replace(self.installation, python="", inherited=None).open_client(Timeouts(stop_s=_STOP_S))

    def _begin(self, request: Request, client: ProcessClient, told: Told, model_id: str = "") -> None:
        """Begin a request; it takes the place of the one under way."""
        if self.work:
            self.cancel()
            self._task.close()
            self._end_badly(Cancelled("something else took its place"))
        self.work, self.model_id, self._told = task_of(request)[0], model_id, told
        self.notify()
        self._task.run(client, request, self._end_well, self._end_badly, told.progress)

    def _end_well(self, result: Any) -> None:
        told = self._end()
        if told is not None:
            told.done(result)

    def _end_badly(self, error: FoundationSegError) -> None:
        told = self._end()
        if told is not None:
            told.failed(error)

    def _end(self) -> Told | None:
        """Nothing is under way any more; what the store has may be other than before."""
        told, self._told = self._told, None
        self.work = self.model_id = ""
        self.notify()
        return told
