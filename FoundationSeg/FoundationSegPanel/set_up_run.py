"""The steps from a wanted model to one that can be used, one after the other; each can fail, be stopped, repeated."""

import importlib.util
from collections.abc import Callable
from typing import Any, Protocol

import qt
from slicer.i18n import tr as _

from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.errors import Cancelled, FoundationSegError, PackageError
from FoundationSegLib.installation.packages import FROM_EXTENSION
from FoundationSegLib.installation.readiness import Readiness, Step, next_step
from FoundationSegLib.mrml.packages import find_torch_logic, install_torch
from FoundationSegLib.progress import ProgressReport

from .model_desk import ModelDesk, Told
from .slots import slot

_PAINT_MS = 200  # what is said before Slicer stands still has to be on the screen by then


class Listener(Protocol):
    """Who shows how it goes on."""

    def work(self, text: str) -> None:
        """A step begins."""
        ...

    def progress(self, report: ProgressReport) -> None:
        """A step goes on."""
        ...

    def ask_license(self) -> None:
        """The terms have to be accepted; :meth:`SetUp.accept` or :meth:`SetUp.decline` is called then."""
        ...

    def stand(self) -> None:
        """Nothing is under way any more: there is nothing left to do, or nothing that could be done."""
        ...

    def fail(self, error: FoundationSegError) -> None:
        """A step failed, or was stopped, and nothing is under way any more."""
        ...

    def ready(self) -> None:
        """All is done."""
        ...


class SetUp:
    """The run for one model.

    Attributes:
        is_working: a step is under way.
        has_begun: something was begun before, so that a start is a continuation.
        with_weights: the checkpoint is wanted, too.
    """

    def __init__(self, desk: ModelDesk, card: ModelCard, listener: Listener) -> None:
        """Nothing is begun yet."""
        self.is_working = self.has_begun = False
        self.with_weights = True
        self._desk, self._card, self._listener = desk, card, listener
        self._finished: Step | None = None  # the step that has just ended well
        self._accepts_license = self._is_left = False
        self._paint = qt.QTimer()
        self._paint.setSingleShot(True)
        self._paint.setInterval(_PAINT_MS)
        self._paint.connect("timeout()", self._install_torch)

    @property
    def readiness(self) -> Readiness:
        """What is missing now."""
        return self._desk.readiness(self._card.id)

    @property
    def step(self) -> Step:
        """What would be next."""
        own = self._desk.settings.is_own_python
        step = next_step(self.readiness, is_own_python=own, with_weights=self.with_weights)
        return "weights" if step == "license" and self._accepts_license else step

    @property
    def lacks_extension(self) -> bool:
        """True where PyTorch is next, and the extension that installs it is not there."""
        return self.step == "torch" and importlib.util.find_spec("PyTorchUtils") is None

    @slot
    def begin(self) -> None:
        """Do what is missing, step by step."""
        self.has_begun, self._is_left = True, False
        self._finished = None
        self._go_on()

    def stop(self) -> None:
        """Stop the step that is under way, if there is one; it fails as cancelled."""
        if self._paint.active:
            self._paint.stop()
            self._fail(Cancelled("stopped on request"))
        elif self.is_working:
            self._desk.cancel()

    def leave(self) -> None:
        """Stop; nobody is told any more."""
        self._is_left = True
        self._paint.stop()
        if self.is_working:
            self.is_working = False
            self._desk.cancel()

    @slot
    def accept(self) -> None:
        """The user accepts the terms."""
        self._accepts_license = True
        self._go_on()

    def decline(self) -> None:
        """The user does not."""
        self._fail(PackageError(_("the licence was not accepted, so the model is not downloaded")))

    @slot
    def ask_sizes(self, on_plan: Callable[[Any], None]) -> None:
        """Ask pip what it would install; nothing is."""

        def take(plan: Any) -> None:
            self.is_working = False
            on_plan(plan)

        self._is_left = False
        self._work(_("Asking the Python Package Index..."))
        self._desk.plan_packages(self.readiness.missing_packages, self._told(take), self._card.id)

    def _go_on(self) -> None:
        """Begin the next step; whatever is there already is left out."""
        step = self.step
        if step == self._finished:
            self._fail(PackageError(_("it went well, but this is still missing: ") + _missing(self.readiness)))
        elif step == "torch":
            self._work(_("PyTorch is being installed. Slicer does not react until that is done; please wait."))
            self._paint.start()
        elif step == "packages":
            self._install_packages()
        elif step == "license":
            self._listener.ask_license()
        elif step == "weights":
            self._work(_("Downloading {title}...").format(title=self._card.title))
            self._desk.download(
                self._card.id, self._told(self._finish("weights")), accept_license=self._accepts_license
            )
        else:
            self.is_working = False
            self._listener.stand()
            if step == "done":
                self._listener.ready()

    @slot
    def _install_torch(self) -> None:
        self._desk.stop_workers()
        try:
            install_torch(find_torch_logic(), self._card.packages)
        except FoundationSegError as error:
            self._fail(error)
        else:
            self._finish("torch")({})

    def _install_packages(self) -> None:
        from slicer.packaging import isPipInstallInProgress  # not there before somebody imports it

        own = self._desk.settings.is_own_python
        if own and isPipInstallInProgress():
            self._fail(PackageError(_("another extension is installing packages; try again when it is done")))
            return
        self._work(_("Installing Python packages..."))
        elsewhere = FROM_EXTENSION if own else ()
        told = self._told(self._finish("packages"))
        self._desk.install_packages(self.readiness.missing_packages, told, self._card.id, elsewhere)

    def _told(self, on_done: Callable[[Any], None]) -> Told:
        return Told(on_done, self._fail, self._report)

    def _work(self, text: str) -> None:
        self.is_working = True
        self._listener.work(text)

    def _finish(self, step: Step) -> Callable[[Any], None]:
        def on_done(_result: Any) -> None:
            if self.is_working:
                self._finished = step
                self._desk.refresh(on_end=self._go_on_if_wanted)

        return on_done

    @slot
    def _go_on_if_wanted(self) -> None:
        if self.is_working:
            self._go_on()

    def _report(self, report: ProgressReport) -> None:
        if self.is_working:
            self._listener.progress(report)

    def tell(self, error: FoundationSegError) -> None:
        """Something went wrong, be it a defect: the run ends with it."""
        self._fail(error)

    def _fail(self, error: FoundationSegError) -> None:
        self.is_working = False
        if not self._is_left:
            self._listener.fail(error)


def _missing(readiness: Readiness) -> str:
    return ", ".join(readiness.missing_packages) or ", ".join(lack.need for lack in readiness.lacks)
