"""The settings of this computer: the worker's Python, device, memory, and where the models are."""

from dataclasses import replace
from typing import Any

import qt
from slicer.i18n import tr as _

from .dialogs import make_dialog
from .model_desk import ModelDesk
from .settings import DEVICES, LEAST_MEMORY_MB, Settings


class SettingsDialog:
    """The dialog.

    Attributes:
        dialog: the window.
        ui: its widgets.
    """

    def __init__(self, desk: ModelDesk, parent: Any = None) -> None:
        """Build it; :meth:`show` shows it."""
        self._desk = desk
        self.dialog, self.ui = make_dialog("Settings", _("Settings of FoundationSeg"), parent)
        ui = self.ui
        texts = {"auto": _("Automatic"), "cuda": _("NVIDIA graphics card"), "mps": _("Apple graphics"), "cpu": _("CPU")}
        for device in DEVICES:
            ui.deviceBox.addItem(texts[device])
        ui.memoryBox.minimum = LEAST_MEMORY_MB
        ui.pythonButton.connect("clicked()", self._choose_python)
        ui.folderButton.connect("clicked()", self._choose_folder)
        ui.saveButton.connect("clicked()", self._save)
        ui.cancelButton.connect("clicked()", self.dialog.reject)
        ui.usualButton.connect("clicked()", self._show_usual)

    def show(self) -> None:
        """Show the settings as they are."""
        self._fill(self._desk.settings)
        self.dialog.show()
        self.dialog.raise_()

    def close(self) -> None:
        """Take the dialog away for good."""
        self.dialog.close()
        self.dialog.deleteLater()

    def _fill(self, settings: Settings) -> None:
        ui = self.ui
        ui.pythonEdit.text = settings.worker_python
        ui.deviceBox.currentIndex = DEVICES.index(settings.device)
        ui.memoryBox.value = settings.memory_mb
        ui.folderEdit.text = settings.store_folder
        ui.encodeAheadBox.checked = settings.encode_ahead

    def _show_usual(self) -> None:
        self._fill(Settings())

    def _save(self) -> None:
        ui = self.ui
        self._desk.change_settings(
            replace(
                self._desk.settings,
                worker_python=ui.pythonEdit.text.strip(),
                device=DEVICES[ui.deviceBox.currentIndex],
                memory_mb=ui.memoryBox.value,
                store_folder=ui.folderEdit.text.strip(),
                encode_ahead=ui.encodeAheadBox.checked,
            )
        )
        self.dialog.accept()

    def _choose_python(self) -> None:
        path = qt.QFileDialog.getOpenFileName(self.dialog, _("The Python that runs the models"))
        if path:
            self.ui.pythonEdit.text = path

    def _choose_folder(self) -> None:
        path = qt.QFileDialog.getExistingDirectory(self.dialog, _("Folder of the models"))
        if path:
            self.ui.folderEdit.text = path
