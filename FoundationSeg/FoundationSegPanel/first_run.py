"""The first run: one dialog that says what a model still needs, and gets it after a click. It never opens by itself."""

import platform
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.errors import Cancelled, FoundationSegError
from FoundationSegLib.installation.readiness import Step
from FoundationSegLib.progress import ProgressReport, bytes_text

from .dialogs import fill_row, make_dialog
from .license_dialog import LicenseDialog
from .model_desk import ModelDesk
from .model_texts import lack_text, progress_text
from .needs import Row, planned_rows, rows
from .set_up_run import SetUp


class FirstRun:
    """The dialog for one model.

    Attributes:
        dialog: the window.
        ui: its widgets.
        license: the dialog with the terms, shown where they have to be accepted.
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
        self._run = SetUp(desk, self._card, self)
        self._note = ""  # what was said last of something that has happened
        self.dialog, self.ui = make_dialog("FirstRun", _("Set up {title}").format(title=self._card.title), parent)
        self.license = LicenseDialog(self._card, self._run.accept, self._run.decline, self.dialog)
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
        self.license.close()
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
        ui.logEdit.visible = False
        ui.progressBar.visible = False
        ui.ownPythonButton.connect("toggled(bool)", self._choose_kind)
        ui.usePythonButton.connect("clicked()", self._use_other)
        ui.weightsCheckBox.connect("toggled(bool)", self._choose_weights)
        ui.sizesButton.connect("clicked()", self._ask_sizes)
        ui.extensionsButton.connect("clicked()", self._open_extensions)
        ui.installButton.connect("clicked()", self._begin)
        ui.stopButton.connect("clicked()", self._stop)
        ui.closeButton.connect("clicked()", self.dialog.close)
        self.dialog.connect("finished(int)", self._leave)

    # What is shown

    def _show_state(self) -> None:
        """Show what is missing now, and which buttons make sense."""
        ui, desk, run = self.ui, self._desk, self._run
        own, step = desk.settings.is_own_python, run.step
        self._fill(rows(self._card, run.readiness, is_own_python=own, with_weights=run.with_weights))
        ui.placesLabel.text = self._places()
        can_begin = desk.python is not None and step not in ("blocked", "gate", "done") and not run.lacks_extension
        ui.installButton.enabled = can_begin and not desk.work and not run.is_working
        ui.installButton.text = _("Continue") if run.has_begun else _("Install")
        ui.sizesButton.enabled = ui.installButton.enabled and step == "packages"
        ui.stopButton.enabled = run.is_working
        has_extensions = hasattr(slicer.app, "openExtensionsManagerDialog")  # a Slicer can be built without
        ui.extensionsButton.visible = run.lacks_extension and has_extensions
        ui.closeButton.text = _("Close") if step == "done" else _("Cancel")
        ui.pythonGroup.enabled = ui.weightsCheckBox.enabled = not run.is_working
        wants_other = bool(ui.otherPythonButton.checked)
        ui.pythonPathEdit.enabled = ui.usePythonButton.enabled = wants_other
        if wants_other and own:
            ui.installButton.enabled = ui.sizesButton.enabled = False
        ui.progressBar.visible = run.is_working
        if not run.is_working:
            self._say(self._note or self._obstacle(step))

    def _obstacle(self, step: Step) -> str:
        """What stands in the way of a start, where something does."""
        desk, run = self._desk, self._run
        if self.ui.otherPythonButton.checked and desk.settings.is_own_python:
            return _("Choose the program of the other Python, and press Use.")
        if desk.problem is not None:
            return str(desk.problem)
        if desk.python is None:
            return _("Asking the other Python what it has...")
        if desk.work:
            return _("Something else is being downloaded or installed; please wait.")
        if step == "done":
            return _("Everything that {title} needs is here.").format(title=self._card.title)
        if run.lacks_extension:
            return _(
                "PyTorch comes with Slicer's extension 'PyTorch', which is not installed. Install it with the "
                "Extensions Manager and start Slicer again, or choose another Python."
            )
        if step in ("blocked", "gate"):
            return " ".join(lack_text(lack, self._card) for lack in run.readiness.lacks)
        return ""

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
        if line and line != self.ui.logEdit.plainText.rpartition("\n")[2]:
            self.ui.logEdit.appendPlainText(line)
            self.ui.logEdit.visible = True

    # What the user does

    def _choose_kind(self, is_own: bool) -> None:
        if is_own:
            self._use("")
        else:
            self._show_state()

    def _use_other(self) -> None:
        """A program is started only after this click, and not while somebody still types its name."""
        path = str(self.ui.pythonPathEdit.currentPath).strip()
        if Path(path).is_file():
            self._use(path)
        else:
            self._note = _("There is no such program: {path}").format(path=path)
            self._show_state()

    def _use(self, path: str) -> None:
        self._note = ""
        self._desk.change_settings(replace(self._desk.settings, worker_python=path))
        self._show_state()

    def _choose_weights(self, is_wanted: bool) -> None:
        self._run.with_weights = is_wanted
        self._show_state()

    def _open_extensions(self) -> None:
        slicer.app.openExtensionsManagerDialog()

    def _begin(self) -> None:
        self._note = ""
        self._run.begin()

    def _stop(self) -> None:
        self._say(_("Stopping..."))
        self._run.stop()

    def _leave(self, *_args: Any) -> None:
        self._desk.forget(self._show_state)
        self._run.leave()

    def _ask_sizes(self) -> None:
        self._note = ""
        self._run.ask_sizes(self._show_plan)

    def _show_plan(self, plan: Any) -> None:
        found, total = planned_rows(plan)
        known = _("pip would download {size} of packages.").format(size=bytes_text(total))
        self._note = known if total else _("pip does not say how large the packages are.")
        self._show_state()
        self._fill(found)

    # What the run tells

    def work(self, text: str) -> None:
        """A step begins."""
        self.ui.progressBar.setRange(0, 0)
        self._log(text)
        self._say(text)
        self._show_state()

    def progress(self, report: ProgressReport) -> None:
        """A step goes on."""
        if report.stage == "packages":
            self._log(report.item)
            return
        self.ui.progressBar.setRange(0, 1000 if report.total else 0)
        self.ui.progressBar.setValue(round(1000 * report.done / report.total) if report.total else 0)
        self._say(progress_text(report, self._card.title))

    def ask_license(self) -> None:
        """The terms have to be accepted."""
        self.license.show()

    def stand(self) -> None:
        """Nothing is under way any more."""
        self._show_state()

    def fail(self, error: FoundationSegError) -> None:
        """A step failed, or was stopped."""
        if isinstance(error, Cancelled):
            self._note = _("Stopped. What has arrived is kept; Continue goes on from there.")
        else:
            self._note = _("This did not work: {reason}").format(reason=error)
        self._log(self._note)
        self._desk.refresh()
        self._show_state()

    def ready(self) -> None:
        """All is done."""
        self._log(_("{title} is ready.").format(title=self._card.title))
        self._on_ready()
