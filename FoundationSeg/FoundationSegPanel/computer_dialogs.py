"""The two dialogs about this computer: its settings, and the diagnosis for somebody who helps."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.errors import FoundationSegError
from FoundationSegLib.progress import bytes_text

from .model_installer import ModelInstaller
from .settings import DEVICES, LEAST_MEMORY_MB, Settings, software
from .widgets import Dialog, fill_table, set_up_table, slot

Fact = tuple[str, str]  # a label and its text


class SettingsDialog(Dialog):
    """The worker's Python, device, memory, and the folder of the models."""

    def __init__(self, installer: ModelInstaller, parent: Any = None) -> None:
        """Build it; :meth:`show` shows it."""
        super().__init__("Settings", _("Settings of FoundationSeg"), parent)
        self._installer = installer
        ui = self.ui
        texts = {"auto": _("Automatic"), "cuda": _("NVIDIA graphics card"), "mps": _("Apple graphics"), "cpu": _("CPU")}
        for device in DEVICES:
            ui.deviceBox.addItem(texts[device])
        ui.memoryBox.minimum = LEAST_MEMORY_MB
        self._connect(ui.pythonButton, self._choose_python)
        self._connect(ui.folderButton, self._choose_folder)
        self._connect(ui.saveButton, self._save)
        self._connect(ui.cancelButton, self.dialog.reject)
        ui.usualButton.connect("clicked()", lambda: self._fill(Settings()))

    def show(self) -> None:
        """Show the settings as they are."""
        self._fill(self._installer.settings)
        self.raise_dialog()

    def _fill(self, settings: Settings) -> None:
        ui = self.ui
        ui.pythonEdit.text = settings.worker_python
        ui.deviceBox.currentIndex = DEVICES.index(settings.device)
        ui.memoryBox.value = settings.memory_mb
        ui.folderEdit.text = settings.store_folder
        ui.encodeAheadBox.checked = settings.encode_ahead

    def _save(self) -> None:
        ui = self.ui
        settings = replace(
            self._installer.settings,
            worker_python=ui.pythonEdit.text.strip(),
            device=DEVICES[ui.deviceBox.currentIndex],
            memory_mb=ui.memoryBox.value,
            store_folder=ui.folderEdit.text.strip(),
            encode_ahead=ui.encodeAheadBox.checked,
        )
        self._installer.change_settings(settings)
        self.dialog.accept()

    def _choose_python(self) -> None:
        path = qt.QFileDialog.getOpenFileName(self.dialog, _("The Python that runs the models"))
        self.ui.pythonEdit.text = path or self.ui.pythonEdit.text

    def _choose_folder(self) -> None:
        path = qt.QFileDialog.getExistingDirectory(self.dialog, _("Folder of the models"))
        self.ui.folderEdit.text = path or self.ui.folderEdit.text


class DiagnosisDialog(Dialog):
    """Versions, devices and memory on one page, to be copied where somebody asks for help."""

    def __init__(self, installer: ModelInstaller, parent: Any = None) -> None:
        """Build it; :meth:`show` shows it."""
        super().__init__("Diagnosis", _("Diagnosis"), parent)
        self._installer = installer
        self._facts: list[Fact] = []
        ui = self.ui
        set_up_table(ui.factsTable, [_("What"), _("Found")], stretch=1)
        self._connect(ui.foldersCheckBox, self._fill, "toggled(bool)")
        self._connect(ui.copyButton, self._copy)
        self._connect(ui.refreshButton, self._inspect)
        self._connect(ui.closeButton, self.dialog.close)

    def show(self) -> None:
        """Show the dialog, and ask for everything."""
        self.raise_dialog()
        self._inspect()

    def report(self, error: FoundationSegError) -> None:
        """Show an error."""
        self.ui.messageLabel.text = str(error)
        self.ui.refreshButton.enabled = True

    @property
    def text(self) -> str:
        """The text to copy: no folders, no names of persons."""
        return "".join(f"{label}: {text}\n" for label, text in self._facts)

    def _inspect(self) -> None:
        self.ui.messageLabel.text = _("Asking PyTorch for the devices, which takes some seconds...")
        self.ui.refreshButton.enabled = self.ui.copyButton.enabled = False
        self._installer.refresh(devices=True, on_end=self._take)

    @slot
    def _take(self) -> None:
        installer = self._installer
        report = installer.python if installer.problem is None else installer.problem
        if report is None:  # the settings were changed meanwhile, and the new Python is still being asked
            return
        self._facts = facts(installer.installation.diagnosis(software(), report))
        self.ui.messageLabel.text = _("The copied text names no folder and no person.")
        self.ui.refreshButton.enabled = self.ui.copyButton.enabled = True
        self._fill()

    def _fill(self, *_args: Any) -> None:
        folders = self._folders() if self.ui.foldersCheckBox.checked else []
        fill_table(self.ui.factsTable, [*self._facts, *folders])
        self.ui.factsTable.resizeRowsToContents()

    def _folders(self) -> list[Fact]:
        installer = self._installer
        return [
            (_("Folder of the models"), str(installer.installation.store.folder)),
            (_("Program of the Python"), installer.settings.worker_python or sys.executable),
            (_("Program of Slicer"), str(slicer.app.applicationFilePath())),
        ]

    def _copy(self) -> None:
        qt.QGuiApplication.clipboard().setText(self.text)
        self.ui.messageLabel.text = _("Copied.")


def facts(diagnosis: Mapping[str, Any]) -> list[Fact]:
    """Return a diagnosis as labels and texts; without folders and names of persons."""
    return [
        *diagnosis["software"].items(),
        *_python_facts(diagnosis),
        *_store_facts(diagnosis),
        (_("Offline mode"), _("on: nothing is downloaded") if diagnosis["is_offline"] else _("off")),
    ]


def _python_facts(diagnosis: Mapping[str, Any]) -> Iterator[Fact]:
    label, python = _("Python for the models"), diagnosis["python"]
    kind = _("Slicer's own") if diagnosis["is_own_python"] else _("another one")
    if python is None:
        yield label, _("{which}: no answer ({reason})").format(which=kind, reason=diagnosis["problem"])
        return
    yield label, _("{which}, {version}").format(which=kind, version=python["version"])
    yield _("System"), python["system"]
    if python["is_managed"]:
        yield _("Note"), _("its packages belong to the operating system; pip adds none to it")
    if python["devices"] is not None:
        yield from _device_facts(python["devices"])
    for name, version in python["packages"].items():
        yield name, version or _("not installed")


def _device_facts(devices: Mapping[str, Any]) -> Iterator[Fact]:
    if devices["problem"]:
        yield _("PyTorch"), _("cannot be used: {reason}").format(reason=devices["problem"])
    for device in devices["devices"]:
        text = device["name"]
        if device["bytes"]:
            text = _("{name}, {size}").format(name=text, size=bytes_text(device["bytes"]))
        if device["free_bytes"] is not None:
            text = _("{device}, {size} free").format(device=text, size=bytes_text(device["free_bytes"]))
        yield _("Device {kind}").format(kind=device["kind"]), text
    yield _("Graphics driver"), devices["driver"] or _("none found")
    yield _("CUDA of PyTorch"), devices["runtime"] or _("none")


def _store_facts(diagnosis: Mapping[str, Any]) -> Iterator[Fact]:
    usual, own = _("the usual folder"), _("a folder of the user's choice")
    yield _("Models are in"), usual if diagnosis["store_is_usual"] else own
    sizes = bytes_text(diagnosis["store_bytes"]), bytes_text(diagnosis["free_bytes"])
    yield _("They take"), _("{size}; {free} are free").format(size=sizes[0], free=sizes[1])
    texts = {"ready": _("ready"), "partial": _("partly downloaded"), "absent": _("another version than this one needs")}
    for model, status in diagnosis["models"].items():
        yield model, texts.get(status, _("damaged"))
