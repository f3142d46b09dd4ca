"""The diagnosis: versions, devices and memory on one page, to be copied where somebody asks for help."""

import sys
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.errors import FoundationSegError

from .diagnosis_texts import Fact, as_text, facts
from .dialogs import fill_row, make_dialog
from .model_desk import ModelDesk
from .settings import software
from .slots import slot


class DiagnosisDialog:
    """The dialog.

    Attributes:
        dialog: the window.
        ui: its widgets.
    """

    def __init__(self, desk: ModelDesk, parent: Any = None) -> None:
        """Build it; :meth:`show` shows it."""
        self._desk = desk
        self._facts: list[Fact] = []
        self.dialog, self.ui = make_dialog("Diagnosis", _("Diagnosis"), parent)
        ui = self.ui
        ui.factsTable.setColumnCount(2)
        ui.factsTable.setHorizontalHeaderLabels([_("What"), _("Found")])
        header = ui.factsTable.horizontalHeader()
        header.setSectionResizeMode(0, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(1, qt.QHeaderView.Stretch)
        ui.factsTable.verticalHeader().hide()
        ui.foldersCheckBox.connect("toggled(bool)", self._fill)
        ui.copyButton.connect("clicked()", self._copy)
        ui.refreshButton.connect("clicked()", self._ask)
        ui.closeButton.connect("clicked()", self.dialog.close)

    def show(self) -> None:
        """Show the dialog, and ask for everything."""
        self.dialog.show()
        self.dialog.raise_()
        self._ask()

    def close(self) -> None:
        """Take the dialog away for good."""
        self.dialog.close()
        self.dialog.deleteLater()

    def tell(self, error: FoundationSegError) -> None:
        """Show an error."""
        self.ui.messageLabel.text = str(error)
        self.ui.refreshButton.enabled = True

    @property
    def text(self) -> str:
        """What is copied: no folders, no names of persons."""
        return as_text(self._facts)

    @slot
    def _ask(self) -> None:
        self.ui.messageLabel.text = _("Asking PyTorch for the devices, which takes some seconds...")
        self.ui.refreshButton.enabled = False
        self.ui.copyButton.enabled = False
        self._desk.refresh(devices=True, on_end=self._take)

    @slot
    def _take(self) -> None:
        desk = self._desk
        answer = desk.python if desk.problem is None else desk.problem
        if answer is None:  # the settings were changed meanwhile, and the new Python is still being asked
            return
        self._facts = facts(desk.installation.diagnosis(software(), answer))
        self.ui.messageLabel.text = _("The copied text names no folder and no person.")
        self.ui.refreshButton.enabled = True
        self.ui.copyButton.enabled = True
        self._fill()

    def _fill(self, *_args: Any) -> None:
        shown = [*self._facts, *(self._folders() if self.ui.foldersCheckBox.checked else [])]
        self.ui.factsTable.setRowCount(len(shown))
        for row, fact in enumerate(shown):
            fill_row(self.ui.factsTable, row, fact)
        self.ui.factsTable.resizeRowsToContents()

    def _folders(self) -> list[Fact]:
        settings = self._desk.settings
        return [
            (_("Folder of the models"), str(self._desk.store.folder)),
            (_("Program of the Python"), settings.worker_python or sys.executable),
            (_("Program of Slicer"), str(slicer.app.applicationFilePath())),
        ]

    @slot
    def _copy(self) -> None:
        qt.QGuiApplication.clipboard().setText(self.text)
        self.ui.messageLabel.text = _("Copied.")
