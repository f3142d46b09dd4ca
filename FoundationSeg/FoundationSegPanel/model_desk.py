"""What the panel and its dialogs know of the models on this computer, and how they come and go. One for the module."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import qt

from FoundationSegLib import model_management
from FoundationSegLib.core.cards import ModelCard, card_folder, read_catalogue
from FoundationSegLib.core.errors import Cancelled, CardError, FoundationSegError
from FoundationSegLib.core.inspection import DeviceReport, PythonReport, inspect_python
from FoundationSegLib.core.progress import ProgressReport
from FoundationSegLib.core.readiness import Readiness
from FoundationSegLib.core.requests import DownloadRequest
from FoundationSegLib.worker.errand import Errand, Task
from FoundationSegLib.worker.messages import Event, Failed, Progressed
from FoundationSegLib.worker.process_client import ProcessClient
from FoundationSegLib.worker.pump import Pump
from FoundationSegLib.worker.settings import Patience, worker_command

from .errand_timer import ErrandTimer
from .settings import Settings, inherited_environment, open_client, read_settings, store_folder, write_settings

_INTERVAL_MS = 50
_STOP_S = 0.03  # a download that is killed goes on where it was, and nobody has to wait for its end


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

    Downloads have a client of their own, so that segmenting goes on meanwhile.

    Attributes:
        settings: as they are now; changed by :meth:`change_settings` alone.
        catalogue: every card by its id.
        catalogue_problem: why the user's own cards are left out; None where they are not.
        python: what the worker's Python has; None until that is known.
        problem: why the worker's Python gave no answer; None if it did.
        work: what is under way, ``"download"`` or the name of the errand; empty for nothing.
        model_id: the model that it is about, if any.
    """

    def __init__(self, stop_worker: Callable[[], None] = lambda: None, cards: Cards | None = None) -> None:
        """Read the settings; nothing is asked yet.

        Args:
            stop_worker: ends the panel's own worker, which must not run while packages are installed, and which
                starts anew with other settings.
            cards: what :func:`read_cards` returned; it is called unless given.
        """
        self.settings = read_settings()
        self.catalogue, self.catalogue_problem = cards or read_cards()
        self.python: PythonReport | None = None
        self.problem: FoundationSegError | None = None
        self.work = ""
        self.model_id = ""
        self._devices: DeviceReport | None = None
        self._stop_worker = stop_worker
        self._observers: list[Callable[[], None]] = []
        self._inspection, self._errands = ErrandTimer(), ErrandTimer()
        self._client: ProcessClient | None = None
        self._pump: Pump | None = None
        self._told: Told | None = None
        self._numbers = 0
        self._timer = qt.QTimer()
        self._timer.setInterval(_INTERVAL_MS)
        self._timer.connect("timeout()", self._tick)

    @property
    def store(self) -> model_management.Store:
        """Where the checkpoints are."""
        return model_management.open_store(store_folder(self.settings))

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
        self._stop_worker()
        self._close_client()
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
        inherited = inherited_environment(self.settings)
        card = self.catalogue[model_id]
        return model_management.readiness(card, self.store, self.python, self.settings.device, inherited)

    def removable(self) -> list[tuple[ModelCard, int]]:
        """The models of which anything is stored, with what each takes, in bytes."""
        return model_management.removable(self.store, self.catalogue.values())

    def refresh(self, *, devices: bool = False, on_end: Callable[[], None] = lambda: None) -> None:
        """Ask the worker's Python again what it has; everybody is told at the end.

        Slicer's own is asked at once; another Python, and what it can compute on, in a process of its own.
        """
        names = model_management.package_names(self.catalogue)
        if self.settings.is_own_python and not devices:
            self._inspection.close()
            self._take_report(inspect_python(names), on_end)
            return

        def fail(error: FoundationSegError) -> None:
            self.python, self.problem = None, error
            self.notify()
            on_end()

        try:
            errand = model_management.start_inspection(
                names,
                devices=devices,
                python=self.settings.worker_python,
                inherited=inherited_environment(self.settings),
            )
        except FoundationSegError as error:
            fail(error)
            return
        self._inspection.run(errand, lambda result: self._take_report(PythonReport.from_document(result), on_end), fail)

    def _take_report(self, report: PythonReport, on_end: Callable[[], None]) -> None:
        self._devices = report.devices or self._devices
        self.python, self.problem = replace(report, devices=self._devices), None
        self.notify()
        on_end()

    def run(self, task: Task, arguments: dict[str, Any], told: Told, model_id: str = "") -> None:
        """Begin an errand: with packages in the worker's Python, otherwise in Slicer's own.

        Raises:
            FoundationSegError: it cannot be started.
        """
        is_about_packages = task in ("plan_packages", "install_packages")
        python = self.settings.worker_python if is_about_packages else ""
        inherited = inherited_environment(self.settings) if is_about_packages else None
        if task == "install_packages":
            self.stop_workers()
        self._give_up()
        errand = Errand.start(worker_command(python, "errand_main"), task, arguments, inherited)
        self._begin(task, model_id, told)
        self._errands.run(errand, self._end_well, self._end_badly, told.progress)

    def import_checkpoint(self, model_id: str, source: str, told: Told, *, accept_license: bool) -> None:
        """Begin to bring a checkpoint in from a folder or an archive."""
        arguments = {"model": model_id, "source": source, "accept_license": accept_license}
        self.run("import_checkpoint", arguments | {"store": str(self.store.folder)}, told, model_id)

    def remove_checkpoints(self, model_ids: list[str], told: Told) -> None:
        """Begin to remove everything that is stored of some models; the worker lets go of them first."""
        self.stop_workers()
        self.run("remove_checkpoints", {"models": model_ids, "store": str(self.store.folder)}, told)

    def download(self, model_id: str, told: Told, *, accept_license: bool = False) -> None:
        """Begin to download a checkpoint, or what is missing of it."""
        self._give_up()
        self._numbers += 1
        if self._client is None:
            self._client = open_client(self.settings, Patience(stop_s=_STOP_S))
            self._pump = Pump(self._client, self._take_event, self._timer.stop)
        self._begin("download", model_id, told)
        self._client.submit(DownloadRequest(self._numbers, model_id, accept_license))
        self._timer.start()

    def cancel(self) -> None:
        """Stop what is under way; it fails as cancelled. What has arrived of a download is kept."""
        self._errands.cancel()
        if self._client is not None:
            self._client.cancel(self._numbers)

    def stop_workers(self) -> None:
        """End the panel's worker and that of the downloads; both start again when they are needed."""
        self._stop_worker()
        self._close_client()

    def close(self) -> None:
        """End whatever is under way; nobody is told."""
        self._observers.clear()
        self._told = None
        self._inspection.close()
        self._errands.close()
        self._close_client()

    def _close_client(self) -> None:
        self._timer.stop()
        client, self._client, self._pump = self._client, None, None
        if client is not None:
            client.close()
        if self.work == "download":
            self._end_badly(Cancelled("the download was stopped, since the worker was"))

    def _tick(self) -> None:
        if self._pump is not None:
            self._pump.tick()

    def _take_event(self, event: Event) -> None:
        told = self._told
        if event.request_id != self._numbers or self.work != "download" or told is None:
            return
        if isinstance(event, Progressed):
            told.progress(event.report)
        elif isinstance(event, Failed):
            self._end_badly(event.error)
        else:
            self._end_well({})

    def _give_up(self) -> None:
        """Something else takes the place of what is under way."""
        if self.work:
            self.cancel()
            self._errands.close()
            self._end_badly(Cancelled("something else took its place"))

    def _begin(self, work: str, model_id: str, told: Told) -> None:
        self.work, self.model_id, self._told = work, model_id, told
        self.notify()

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
