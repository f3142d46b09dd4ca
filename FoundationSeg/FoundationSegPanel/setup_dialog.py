"""The set-up of a model: what it still needs, and the steps that get it after a click. It never opens by itself."""

import importlib.util
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.api import FROM_EXTENSION, PackagePlan, Readiness, Step, canonical, next_step, requirement_name
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.errors import Cancelled, FoundationSegError, PackageError
from FoundationSegLib.progress import ProgressReport, TimeLeft, bytes_text

from .model_installer import Callbacks, ModelInstaller
from .model_texts import effort_text, needed_rows, planned_rows, progress_text, requirement_text, terms_html
from .widgets import Dialog, error_text, fill_table, set_up_table, show_fraction, slot, time_left_text

_PAINT_MS = 200  # what is said before Slicer stands still has to be on the screen by then


def install_torch(requirements: Sequence[str]) -> None:
    """Have Slicer's PyTorch extension install PyTorch, after the user has agreed. It blocks the main thread.

    Args:
        requirements: the model's; those of what the extension installs are passed on.

    Raises:
        PackageError: the extension is not there, or PyTorch was not installed.
    """
    texts = {canonical(requirement_name(text)): text for text in requirements}
    ranges = {f"{name}VersionRequirement": texts[name][len(name) :] for name in FROM_EXTENSION if name in texts}
    try:
        from PyTorchUtils import PyTorchUtilsLogic
    except ImportError as error:
        hint = _("install the extension 'PyTorch' with Slicer's Extensions Manager first, and restart")
        raise PackageError(hint) from error
    try:
        is_installed = PyTorchUtilsLogic().installTorch(askConfirmation=False, **ranges) is not None
    except (RuntimeError, OSError, ImportError, ValueError, subprocess.SubprocessError) as error:
        raise PackageError(_("PyTorch could not be installed; Slicer's Python console says why")) from error
    if not is_installed:
        raise PackageError(_("PyTorch was not installed; Slicer's Python console says why"))


class LicenseDialog(Dialog):
    """The terms of a model, and the user's word that they are accepted, in front of a window that does not wait."""

    def __init__(
        self, card: ModelCard, on_accept: Callable[[], None], on_decline: Callable[[], None], parent: Any = None
    ) -> None:
        """Build it; one of the two is called when it is closed."""
        super().__init__("License", _("Licence of {title}").format(title=card.title), parent)
        self.dialog.setWindowModality(qt.Qt.WindowModal)
        self.ui.termsBrowser.setHtml(terms_html(card))
        self.ui.agreeCheckBox.connect("toggled(bool)", self.ui.acceptButton.setEnabled)
        self.ui.acceptButton.connect("clicked()", self.dialog.accept)
        self.ui.declineButton.connect("clicked()", self.dialog.reject)
        self.dialog.connect("accepted()", on_accept)
        self.dialog.connect("rejected()", on_decline)

    def show(self) -> None:
        """Ask; nothing is agreed to yet."""
        self.ui.agreeCheckBox.checked = False
        self.ui.acceptButton.enabled = False
        self.raise_dialog()

    def close(self) -> None:
        """Take it away without an answer."""
        self.dialog.blockSignals(True)
        super().close()


class ModelSetup:
    """The steps from a chosen model to one that can be used, one after the other; each can fail, be stopped, repeated.

    The view shows each step, its progress and its end. Where it asks for the licence, :meth:`accept` or
    :meth:`decline` is called then.

    Attributes:
        is_working: a step is under way.
        has_begun: something was begun before, so that a start is a continuation.
        with_weights: the checkpoint is to be downloaded, too.
    """

    def __init__(self, installer: ModelInstaller, card: ModelCard, view: "SetupDialog") -> None:
        """Begin nothing yet."""
        self.is_working = self.has_begun = False
        self.with_weights = True
        self._installer, self._card, self._view = installer, card, view
        self._last_step: Step | None = None  # the step that has just ended well
        self._accepts_license = self._is_left = False
        self._paint = qt.QTimer()
        self._paint.setSingleShot(True)
        self._paint.setInterval(_PAINT_MS)
        self._paint.connect("timeout()", self._install_torch)

    @property
    def readiness(self) -> Readiness:
        """The requirements that are missing now."""
        return self._installer.readiness(self._card.id)

    @property
    def step(self) -> Step:
        """The next step."""
        is_own = self._installer.settings.uses_extension
        step = next_step(self.readiness, is_own_python=is_own, with_weights=self.with_weights)
        return "weights" if step == "license" and self._accepts_license else step

    @property
    def lacks_extension(self) -> bool:
        """True where PyTorch is next, and the extension that installs it is not there."""
        return self.step == "torch" and importlib.util.find_spec("PyTorchUtils") is None

    @slot
    def begin(self) -> None:
        """Do what is missing, step by step."""
        self.has_begun, self._is_left, self._last_step = True, False, None
        self._go_on()

    def stop(self) -> None:
        """Stop the step that is under way, if there is one; it fails as cancelled."""
        if self._paint.active:
            self._paint.stop()
            self.report(Cancelled("stopped on request"))
        elif self.is_working:
            self._installer.cancel()

    def leave(self) -> None:
        """Stop; nothing is shown any more."""
        self._is_left = True
        self._paint.stop()
        if self.is_working:
            self.is_working = False
            self._installer.cancel()

    @slot
    def accept(self) -> None:
        """Go on: the user accepts the terms."""
        self._accepts_license = True
        self._go_on()

    def decline(self) -> None:
        """End: the user does not accept the terms."""
        self.report(PackageError(_("the licence was not accepted, so the model is not downloaded")))

    @slot
    def ask_sizes(self, on_plan: Callable[[PackagePlan], None]) -> None:
        """Ask pip what it would install; nothing is."""

        def take(plan: PackagePlan) -> None:
            self.is_working = False
            on_plan(plan)

        self._is_left = False
        self._begin_step(_("Asking the Python Package Index..."))
        self._installer.plan_packages(self.readiness.missing_packages, self._callbacks(take))

    @slot
    def repair(self) -> None:
        """Bring back what is missing of the private packages that were installed."""
        self.has_begun, self._is_left = True, False
        self._begin_step(_("Repairing the private packages..."))
        self._installer.install_packages((), self._callbacks(self._end))

    @slot
    def remove(self) -> None:
        """Remove the private packages."""
        self._is_left = False
        self._begin_step(_("Removing the private packages..."))
        self._installer.remove_packages(self._callbacks(self._end))

    def _end(self, _result: Any) -> None:
        self.is_working = False
        self._installer.refresh(on_end=lambda: self._view.show_end(None))

    def report(self, error: FoundationSegError) -> None:
        """End with an error, be it a defect."""
        self.is_working = False
        if not self._is_left:
            self._view.show_end(error)

    def _go_on(self) -> None:
        """Begin the next step; whatever is there already is left out."""
        step, card = self.step, self._card
        if step == self._last_step:
            lacks = self.readiness.missing_packages or [requirement.need for requirement in self.readiness.missing]
            self.report(PackageError(_("it went well, but this is still missing: ") + ", ".join(lacks)))
        elif step == "torch":
            self._begin_step(_("PyTorch is being installed. Slicer does not react until that is done; please wait."))
            self._paint.start()
        elif step == "packages":
            self._install_packages()
        elif step == "license":
            self._view.ask_license()
        elif step == "weights":
            self._begin_step(_("Downloading {title}...").format(title=card.title))
            callbacks = self._callbacks(self._finish("weights"))
            self._installer.download(card.id, callbacks, accept_license=self._accepts_license)
        else:
            self.is_working = False
            self._view.show_end(None, is_ready=step == "done")

    @slot
    def _install_torch(self) -> None:
        self._installer.stop_workers()
        install_torch(self._card.packages)
        self._finish("torch")(None)

    def _install_packages(self) -> None:
        from slicer.packaging import isPipInstallInProgress  # not there before somebody imports it

        is_own = self._installer.settings.uses_extension
        if is_own and isPipInstallInProgress():
            raise PackageError(_("another extension is installing packages; try again when it is done"))
        self._begin_step(_("Installing Python packages..."))
        from_elsewhere = FROM_EXTENSION if is_own else ()
        callbacks = self._callbacks(self._finish("packages"))
        self._installer.install_packages(self.readiness.missing_packages, callbacks, from_elsewhere)

    def _callbacks(self, on_done: Callable[[Any], None]) -> Callbacks:
        return Callbacks(on_done, self.report, self._show_progress)

    def _begin_step(self, text: str) -> None:
        self.is_working = True
        self._view.show_step(text)

    def _finish(self, step: Step) -> Callable[[Any], None]:
        def on_done(_result: Any) -> None:
            if self.is_working:
                self._last_step = step
                self._installer.refresh(on_end=self._go_on_if_working)

        return on_done

    @slot
    def _go_on_if_working(self) -> None:
        if self.is_working:
            self._go_on()

    def _show_progress(self, report: ProgressReport) -> None:
        if self.is_working:
            self._view.show_progress(report)


class SetupDialog(Dialog):
    """The dialog for one model.

    Attributes:
        license: the dialog with the terms, shown where they have to be accepted.
        setup: the steps.
    """

    def __init__(
        self, installer: ModelInstaller, model_id: str, on_ready: Callable[[], None] = lambda: None, parent: Any = None
    ) -> None:
        """Build it; :meth:`show` shows it.

        Args:
            installer: the models on this computer.
            model_id: the chosen model.
            on_ready: called once the model can be used.
            parent: the window it belongs to.
        """
        self._installer, self._card, self._on_ready = installer, installer.catalogue[model_id], on_ready
        super().__init__("Setup", _("Set up {title}").format(title=self._card.title), parent)
        self.setup = ModelSetup(installer, self._card, self)
        self._time_left = TimeLeft()
        self._note = ""  # the last message about something that has happened
        self.license = LicenseDialog(self._card, self.setup.accept, self.setup.decline, self.dialog)
        self._build()

    def show(self) -> None:
        """Show the dialog, and look what is missing."""
        self._installer.forget(self._show_state)
        self._installer.observe(self._show_state)
        self.raise_dialog()
        self._installer.refresh()

    def close(self) -> None:
        """Stop what is under way, and take the dialog away for good."""
        self._leave()
        self.license.close()
        super().close()

    def _build(self) -> None:
        ui = self.ui
        set_up_table(ui.neededTable, [_("What"), _("Download"), _("From")], stretch=0)
        ui.introLabel.text = _(
            "Models run on this computer, in a program of their own beside Slicer. No image leaves the computer. "
            "Nothing is installed before you press Install."
        )
        settings = self._installer.settings
        ui.pythonPathEdit.currentPath = settings.worker_python
        (ui.ownPythonButton if settings.is_own_python else ui.otherPythonButton).checked = True
        ui.logEdit.visible = False
        ui.progressBar.visible = False
        ui.ownPythonButton.connect("toggled(bool)", self._python_toggled)
        ui.usePythonButton.connect("clicked()", self._use_other)
        ui.weightsCheckBox.connect("toggled(bool)", self._weights_toggled)
        ui.privateCheckBox.connect("clicked(bool)", lambda on: self._change(packages_in="private" if on else "python"))
        ui.wheelsEdit.currentPath = settings.wheels_folder
        ui.wheelsEdit.connect("currentPathChanged(QString)", self._wheels_changed)
        ui.repairButton.connect("clicked()", self._repair)
        ui.removeButton.connect("clicked()", self._remove)
        ui.sizesButton.connect("clicked()", self._ask_sizes)
        ui.extensionsButton.connect("clicked()", lambda: slicer.app.openExtensionsManagerDialog())
        ui.installButton.connect("clicked()", self._begin)
        ui.stopButton.connect("clicked()", self._stop)
        ui.closeButton.connect("clicked()", self.dialog.close)
        self.dialog.connect("finished(int)", self._leave)

    def _show_state(self) -> None:
        """Show what is missing now, and which buttons make sense."""
        ui, installer, setup = self.ui, self._installer, self.setup
        settings, step, root = installer.settings, setup.step, installer.settings.packages_root
        origin = {"is_own_python": settings.uses_extension, "is_private": root is not None}
        self._fill(needed_rows(self._card, setup.readiness, with_weights=setup.with_weights, **origin))
        ui.placesLabel.text = self._places()
        ui.privateCheckBox.checked = root is not None
        ui.repairButton.enabled = ui.removeButton.enabled = root is not None and root.is_dir() and not installer.task
        chooses_other = bool(ui.otherPythonButton.checked)
        can_begin = installer.python is not None and step not in ("blocked", "gate", "done")
        is_free = not installer.task and not setup.is_working and not (chooses_other and settings.is_own_python)
        ui.installButton.enabled = can_begin and is_free and not setup.lacks_extension
        ui.installButton.text = _("Continue") if setup.has_begun else _("Install")
        ui.sizesButton.enabled = ui.installButton.enabled and step == "packages"
        ui.stopButton.enabled = ui.progressBar.visible = setup.is_working
        has_extensions = hasattr(slicer.app, "openExtensionsManagerDialog")  # a Slicer can be built without
        ui.extensionsButton.visible = setup.lacks_extension and has_extensions
        ui.closeButton.text = _("Close") if step == "done" else _("Cancel")
        ui.pythonGroup.enabled = ui.weightsCheckBox.enabled = not setup.is_working
        ui.pythonPathEdit.enabled = ui.usePythonButton.enabled = chooses_other
        if not setup.is_working:
            self._say(self._note or self._obstacle(step))

    def _obstacle(self, step: Step) -> str:
        """Return what stands in the way of a start, where something does."""
        installer, setup = self._installer, self.setup
        if self.ui.otherPythonButton.checked and installer.settings.is_own_python:
            return _("Choose the program of the other Python, and press Use.")
        if installer.problem is not None:
            return str(installer.problem)
        if installer.python is None:
            return _("Asking the other Python what it has...")
        if installer.task:
            return _("Something else is being downloaded or installed; please wait.")
        if step == "done":
            return _("Everything that {title} needs is here.").format(title=self._card.title)
        if setup.lacks_extension:
            return _(
                "PyTorch comes with Slicer's extension 'PyTorch', which is not installed. Install it with the "
                "Extensions Manager and start Slicer again, or choose another Python."
            )
        if step in ("blocked", "gate"):
            return " ".join(requirement_text(requirement, self._card) for requirement in setup.readiness.missing)
        return ""

    def _fill(self, rows: Sequence[Sequence[str]]) -> None:
        fill_table(self.ui.neededTable, rows)
        self.ui.neededTable.resizeRowsToContents()
        self.ui.neededTable.visible = bool(rows)

    def _places(self) -> str:
        settings, folder = self._installer.settings, self._installer.installation.store.folder
        python = _("Slicer's own Python") if settings.is_own_python else settings.worker_python
        root = settings.packages_root
        if root is not None:
            text = _("Packages go into {packages}, which nothing else uses, for {python}; models into {folder}.")
            text += " " + _("Slicer's own packages stay as they are.")
        else:
            text = _("Packages go into {python}, models into {folder}.")
        text = text.format(packages=root, python=python, folder=folder)
        if settings.uses_extension:
            text += " " + _(
                "What Slicer itself needs is left as it is. While the PyTorch extension installs PyTorch, which takes "
                "some minutes, Slicer does not react."
            )
        setup = self.setup
        return f"{effort_text(self._card, setup.readiness, with_weights=setup.with_weights)} {text}".strip()

    def _say(self, text: str) -> None:
        self.ui.messageLabel.text = text
        self.ui.messageLabel.visible = bool(text)

    def _log(self, line: str) -> None:
        if line and line != self.ui.logEdit.plainText.rpartition("\n")[2]:
            self.ui.logEdit.appendPlainText(line)
            self.ui.logEdit.visible = True

    def _python_toggled(self, is_own: bool) -> None:
        if is_own:
            self._use("")
        else:
            self._show_state()

    def _use_other(self) -> None:
        """Use another Python. It is started only after this click, and not while somebody still types its name."""
        path = str(self.ui.pythonPathEdit.currentPath).strip()
        inside = (Path(path) / name for name in ("bin/python", "python.exe", "Scripts/python.exe"))
        program = next((program for program in (Path(path), *inside) if program.is_file()), None)
        if program is not None:
            self._use(str(program))
        else:
            self._note = _("There is no such program: {path}").format(path=path)
            self._show_state()

    def _use(self, path: str) -> None:
        self._change(worker_python=path, packages_in="")

    def _change(self, **choices: str) -> None:
        self._note = ""
        self._installer.change_settings(replace(self._installer.settings, **choices))
        self._show_state()

    def _wheels_changed(self, path: str) -> None:
        if not path or Path(path).is_dir():  # it is called at each letter
            self._change(wheels_folder=str(path))

    def _repair(self) -> None:
        self._note = _("The private packages are whole.")
        self.setup.repair()

    def _remove(self) -> None:
        text = _("Remove the private packages for this kind of Python? Models stay; packages can be installed again.")
        if slicer.util.confirmOkCancelDisplay(text, _("Remove the private packages"), self.dialog):
            self._note = _("The private packages were removed.")
            self.setup.remove()

    def _weights_toggled(self, with_weights: bool) -> None:
        self.setup.with_weights = with_weights
        self._show_state()

    def _begin(self) -> None:
        self._note = ""
        self.setup.begin()

    def _stop(self) -> None:
        self._say(_("Stopping..."))
        self.setup.stop()

    def _leave(self, *_args: Any) -> None:
        self._installer.forget(self._show_state)
        self.setup.leave()

    def _ask_sizes(self) -> None:
        self._note = ""
        self.setup.ask_sizes(self._show_plan)

    def _show_plan(self, plan: PackagePlan) -> None:
        total = sum(package.bytes for package in plan.packages)
        size = _("pip would download {size} of packages.").format(size=bytes_text(total))
        self._note = size if total else _("pip does not say how large the packages are.")
        self._show_state()
        self._fill(planned_rows(plan))

    def show_step(self, text: str) -> None:
        """Show that a step begins."""
        self.ui.progressBar.setRange(0, 0)
        self._time_left.note(None)
        self._log(text)
        self._say(text)
        self._show_state()

    def show_progress(self, report: ProgressReport) -> None:
        """Show that a step goes on."""
        if report.stage == "packages":
            self._log(report.item)
            if report.total:
                show_fraction(self.ui.progressBar, report)
            return
        show_fraction(self.ui.progressBar, report)
        self._time_left.note(report)
        left = time_left_text(self._time_left.seconds())
        self._say(f"{progress_text(report, self._card.title)} · {left}")

    def ask_license(self) -> None:
        """Show the terms."""
        self.license.show()

    def show_end(self, error: FoundationSegError | None, is_ready: bool = False) -> None:
        """Show that nothing is under way any more."""
        if error is not None:
            stopped = _("Stopped. What has arrived is kept; Continue goes on from there.")
            failed = _("This did not work: {reason}").format(reason=error_text(error))
            self._note = stopped if isinstance(error, Cancelled) else failed
            self._log(self._note)
            self._installer.refresh()
        self._show_state()
        if is_ready:
            self._log(_("{title} is ready.").format(title=self._card.title))
            self._on_ready()
