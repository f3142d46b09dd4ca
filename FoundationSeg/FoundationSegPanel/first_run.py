"""The first run: one dialog that says what a model still needs, and gets it after a click. It never opens by itself."""

import importlib.util
import platform
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.core.errors import Cancelled, FoundationSegError, PackageError
from FoundationSegLib.core.packages import FROM_EXTENSION
from FoundationSegLib.core.progress import ProgressReport
from FoundationSegLib.core.readiness import Readiness
from FoundationSegLib.core.set_up import Step, next_step
from FoundationSegLib.core.sizes import bytes_text
from FoundationSegLib.mrml.packages import find_torch_logic, install_torch

from .dialogs import fill_row, make_dialog
from .license_dialog import LicenseDialog
from .model_desk import ModelDesk, Told
from .model_texts import lack_text, progress_text
from .needs import Row, planned_rows, rows

_PAINT_MS = 200  # what is said before Slicer stands still has to be on the screen by then


class FirstRun:
    """The dialog for one model.

    Attributes:
        dialog: the window.
        ui: its widgets.
    """

    def __init__(
        self, desk: ModelDesk, model_id: str, parent: Any = None, on_ready: Callable[[], None] = lambda: None
    ) -> None:
        """Build it; :meth:`show` shows it.

        Args:
            desk: what is known of models.
            model_id: the one that is wanted.
            parent: the window it belongs to.
            on_ready: called once the model can be used.
        """
        self._desk, self._card, self._on_ready = desk, desk.card(model_id), on_ready
        self._is_working = False
        self._finished: Step | None = None  # the step that has just ended well
        self._accepts_license = False
        self.dialog, self.ui = make_dialog("FirstRun", _("Set up {title}").format(title=self._card.title), parent)
        self._license = LicenseDialog(self._card, self._accept, self._decline, self.dialog)
        self._build()

    def show(self) -> None:
        """Show the dialog, and look what is missing."""
        self._desk.forget(self._show_state)
        self._desk.observe(self._show_state)
        self.dialog.show()
        self.dialog.raise_()
        self._desk.refresh()

    def close(self) -> None:
        """Stop what is under way, and take the dialog away for good."""
        self._leave()
        self._license.close()
        self.dialog.close()
        self.dialog.deleteLater()

    def _build(self) -> None:
        ui = self.ui
        ui.neededTable.setColumnCount(3)
        ui.neededTable.setHorizontalHeaderLabels([_("What"), _("Download"), _("From")])
        header = ui.neededTable.horizontalHeader()
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        header.setSectionResizeMode(1, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(2, qt.QHeaderView.ResizeToContents)
        ui.neededTable.verticalHeader().hide()
        ui.introLabel.text = _(
            "Models run on this computer, in a program of their own beside Slicer. No image leaves the computer. "
            "Nothing is installed before you press Install."
        )
        settings = self._desk.settings
        ui.pythonPathEdit.currentPath = settings.worker_python
        (ui.ownPythonButton if settings.is_own_python else ui.otherPythonButton).checked = True
        ui.ownPythonButton.connect("toggled(bool)", self._choose_python)
        ui.pythonPathEdit.connect("currentPathChanged(QString)", self._choose_python)
        ui.weightsCheckBox.connect("toggled(bool)", self._show_state)
        ui.sizesButton.connect("clicked()", self._ask_sizes)
        ui.extensionsButton.connect("clicked()", self._open_extensions)
        ui.installButton.connect("clicked()", self._begin)
        ui.stopButton.connect("clicked()", self._stop)
        ui.closeButton.connect("clicked()", self.dialog.close)
        self.dialog.connect("finished(int)", self._leave)
        ui.logEdit.visible = False
        self._say("")

    # What is shown

    def _show_state(self, *_args: Any) -> None:
        """Show what is missing now, and which buttons make sense."""
        ui, desk = self.ui, self._desk
        readiness = desk.readiness(self._card.id)
        self._fill(
            rows(
                self._card,
                readiness,
                is_own_python=desk.settings.is_own_python,
                with_weights=bool(ui.weightsCheckBox.checked),
            )
        )
        ui.placesLabel.text = self._places()
        step = self._next(readiness)
        can_begin = desk.python is not None and step not in ("blocked", "done") and not self._lacks_extension(step)
        ui.installButton.enabled = can_begin and not self._is_working and not desk.work
        ui.installButton.text = _("Continue") if self._finished or self.ui.logEdit.plainText else _("Install")
        ui.stopButton.enabled = self._is_working
        has_extensions = hasattr(slicer.app, "openExtensionsManagerDialog")  # a Slicer can be built without
        ui.extensionsButton.visible = has_extensions and self._lacks_extension(step)
        ui.sizesButton.enabled = ui.installButton.enabled and step == "packages"
        ui.closeButton.text = _("Close") if step == "done" else _("Cancel")
        for widget in (ui.pythonGroup, ui.weightsCheckBox):
            widget.enabled = not self._is_working
        ui.progressBar.visible = self._is_working
        if not self._is_working:
            self._explain(readiness, step)

    def _explain(self, readiness: Readiness, step: Step) -> None:
        """Say what stands in the way of a start, where something does and nothing else has been said."""
        if self._desk.problem is not None:
            self._say(str(self._desk.problem))
        elif self._desk.python is None:
            self._say(_("Asking the other Python what it has..."))
        elif self._desk.work:
            self._say(_("Something else is being downloaded or installed; please wait."))
        elif step == "done":
            self._say(_("Everything that {title} needs is here.").format(title=self._card.title))
        elif self._lacks_extension(step):
            self._say(
                _(
                    "PyTorch comes with Slicer's extension 'PyTorch', which is not installed. Install it with the "
                    "Extensions Manager and start Slicer again, or choose another Python below."
                )
            )
        elif step in ("blocked", "gate"):
            self._say(" ".join(lack_text(lack, self._card) for lack in readiness.lacks))
        elif self.ui.messageLabel.text in _passing():
            self._say("")

    def _fill(self, found: list[Row]) -> None:
        table = self.ui.neededTable
        table.setRowCount(len(found))
        for n, row in enumerate(found):
            fill_row(table, n, row)
        table.resizeRowsToContents()

    def _places(self) -> str:
        desk = self._desk
        python = _("Slicer's own Python") if desk.settings.is_own_python else desk.settings.worker_python
        text = _("Packages go into {python}, models into {folder}.").format(python=python, folder=desk.store.folder)
        if desk.settings.is_own_python:
            text += " " + _(
                "What Slicer itself needs is left as it is. While the PyTorch extension installs PyTorch, which takes "
                "some minutes, Slicer does not react."
            )
        if desk.settings.is_own_python and sys.platform == "darwin" and platform.machine() == "x86_64":
            text += " " + _("For this kind of Slicer on a Mac there is no current PyTorch: choose another Python.")
        return text

    def _say(self, text: str) -> None:
        self.ui.messageLabel.text = text
        self.ui.messageLabel.visible = bool(text)

    def _log(self, line: str) -> None:
        if line:
            self.ui.logEdit.appendPlainText(line)
            self.ui.logEdit.visible = True

    # What the user does

    def _choose_python(self, *_args: Any) -> None:
        own = bool(self.ui.ownPythonButton.checked)
        path = str(self.ui.pythonPathEdit.currentPath).strip()
        if own or Path(path).is_file():
            self._finished = None
            self._say("")
            self._desk.change_settings(replace(self._desk.settings, worker_python="" if own else path))
        elif path:
            self._say(_("There is no such program: {path}").format(path=path))

    def _open_extensions(self) -> None:
        slicer.app.openExtensionsManagerDialog()

    def _begin(self) -> None:
        self._finished = None
        self._go_on()

    def _stop(self) -> None:
        self._say(_("Stopping..."))
        self._desk.cancel()

    def _leave(self, *_args: Any) -> None:
        self._desk.forget(self._show_state)
        if self._is_working:
            self._is_working = False
            self._desk.cancel()

    def _ask_sizes(self) -> None:
        requirements = list(self._desk.readiness(self._card.id).missing_packages)
        self._work(_("Asking the Python Package Index..."))
        self._run("plan_packages", {"requirements": requirements}, self._show_plan)

    def _show_plan(self, plan: Any) -> None:
        self._is_working = False
        self._show_state()
        found, total = planned_rows(plan)
        self._fill(found)
        known = _("pip would download {size} of packages.").format(size=bytes_text(total))
        self._say(known if total else _("pip does not say how large the packages are."))

    # The steps

    def _next(self, readiness: Readiness) -> Step:
        step = next_step(
            readiness,
            is_own_python=self._desk.settings.is_own_python,
            with_weights=bool(self.ui.weightsCheckBox.checked),
        )
        return "weights" if step == "license" and self._accepts_license else step

    def _lacks_extension(self, step: Step) -> bool:
        return step == "torch" and importlib.util.find_spec("PyTorchUtils") is None

    def _go_on(self) -> None:
        """Begin the next step; whatever is there already is left out."""
        readiness = self._desk.readiness(self._card.id)
        step = self._next(readiness)
        if step == self._finished:
            self._fail(PackageError(_("it went well, but this is still missing: ") + _list(readiness)))
        elif step == "done":
            self._is_working = False
            self._log(_("{title} is ready.").format(title=self._card.title))
            self._show_state()
            self._on_ready()
        elif step == "torch":
            self._work(_("PyTorch is being installed. Slicer does not react until that is done; please wait."))
            qt.QTimer.singleShot(_PAINT_MS, self._install_torch)
        elif step == "packages":
            if slicer.packaging.isPipInstallInProgress():
                self._fail(PackageError(_("another extension is installing packages; try again when it is done")))
                return
            self._work(_("Installing Python packages..."))
            elsewhere = list(FROM_EXTENSION) if self._desk.settings.is_own_python else []
            asked = {"requirements": list(readiness.missing_packages), "from_elsewhere": elsewhere}
            self._run("install_packages", asked, self._finish("packages"))
        elif step == "license":
            self._license.show()
        elif step == "weights":
            self._work(_("Downloading {title}...").format(title=self._card.title))
            told = Told(self._finish("weights"), self._fail, self._show_progress)
            self._desk.download(self._card.id, told, accept_license=self._accepts_license)
        else:
            self._is_working = False
            self._show_state()

    def _install_torch(self) -> None:
        self._desk.stop_workers()
        try:
            install_torch(find_torch_logic(), self._card.packages)
        except FoundationSegError as error:
            self._fail(error)
        else:
            self._finish("torch")({})

    def _run(self, task: Any, arguments: dict[str, Any], on_done: Callable[[Any], None]) -> None:
        try:
            self._desk.run(task, arguments, Told(on_done, self._fail, self._show_progress), self._card.id)
        except FoundationSegError as error:
            self._fail(error)

    def _accept(self) -> None:
        self._accepts_license = True
        self._go_on()

    def _decline(self) -> None:
        self._is_working = False
        self._show_state()
        self._say(_("The licence was not accepted, so the model is not downloaded."))

    def _work(self, text: str) -> None:
        self._is_working = True
        self.ui.progressBar.setRange(0, 0)
        self._log(text)
        self._say(text)
        self._show_state()

    def _finish(self, step: Step) -> Callable[[Any], None]:
        def on_done(_result: Any) -> None:
            self._finished = step
            self._desk.refresh(on_end=self._go_on)

        return on_done

    def _show_progress(self, report: ProgressReport) -> None:
        if report.stage == "packages":
            last = self.ui.logEdit.plainText.rpartition("\n")[2]
            if report.item != last:
                self._log(report.item)
            return
        self.ui.progressBar.setRange(0, 1000 if report.total else 0)
        self.ui.progressBar.setValue(round(1000 * report.done / report.total) if report.total else 0)
        self._say(progress_text(report, self._card.title))

    def _fail(self, error: FoundationSegError) -> None:
        self._is_working = False
        self._show_state()
        if isinstance(error, Cancelled):
            text = _("Stopped. What has arrived is kept; Continue goes on from there.")
        else:
            text = _("This did not work: {reason}").format(reason=error)
        self._log(text)
        self._say(text)
        self._desk.refresh()


def _list(readiness: Readiness) -> str:
    return ", ".join(readiness.missing_packages) or ", ".join(lack.need for lack in readiness.lacks)


def _passing() -> tuple[str, ...]:
    """What is said only until the next thing is known."""
    return (
        "",
        _("Asking the other Python what it has..."),
        _("Something else is being downloaded or installed; please wait."),
    )
