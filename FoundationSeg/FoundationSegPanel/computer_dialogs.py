"""The dialogs about this computer, its settings and the diagnosis; and the agents that the settings let in."""

import itertools
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.errors import FoundationSegError, InferenceError, InputError, OutputError
from FoundationSegLib.mrml.files import SUFFIX, write_segmentation
from FoundationSegLib.progress import bytes_text
from FoundationSegLib.requests.agent_calls import AgentAnswer, AllowedFolders, ServedCall, ServeRequest
from FoundationSegLib.worker.client import Poller
from FoundationSegLib.worker.process_client import ProcessClient
from FoundationSegLib.worker.protocol import Event, Failed, Failure, PartlyAnswered, ServedReply

from .model_installer import ModelInstaller
from .parameters import PanelState
from .settings import DEVICES, LEAST_MEMORY_MB, Settings, software
from .widgets import Dialog, Part, Report, error_text, fill_table, is_image, set_up_table, slot

Fact = tuple[str, str]  # a label and its text
_AGENTS_MS = 50
_SHOWN_CALLS = 20


class SettingsDialog(Dialog):
    """The worker's Python, device, memory, the folder of the models, and the switch for agents."""

    def __init__(self, installer: ModelInstaller, agents: "AgentsPart", parent: Any = None) -> None:
        """Build it; :meth:`show` shows it."""
        super().__init__("Settings", _("Settings of FoundationSeg"), parent)
        self._installer, self._agents = installer, agents
        ui = self.ui
        texts = {"auto": _("Automatic"), "cuda": _("NVIDIA graphics card"), "mps": _("Apple graphics"), "cpu": _("CPU")}
        for device in DEVICES:
            ui.deviceBox.addItem(texts[device])
        ui.memoryBox.minimum = LEAST_MEMORY_MB
        self._connect(ui.pythonButton, self._choose_python)
        self._connect(ui.folderButton, lambda: self._choose_folder(ui.folderEdit, _("Folder of the models")))
        self._connect(ui.packagesButton, lambda: self._choose_folder(ui.packagesEdit, _("Folder of private packages")))
        self._connect(ui.agentFolderButton, lambda: self._choose_folder(ui.agentFolderEdit, _("Folder of agents")))
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
        ui.packagesEdit.text = settings.packages_folder
        ui.encodeAheadBox.checked = settings.encode_ahead
        ui.agentFolderEdit.text = settings.agent_folder
        ui.agentsBox.checked = self._agents.is_serving

    def _save(self) -> None:
        ui = self.ui
        settings = replace(
            self._installer.settings,
            worker_python=ui.pythonEdit.text.strip(),
            device=DEVICES[ui.deviceBox.currentIndex],
            memory_mb=ui.memoryBox.value,
            store_folder=ui.folderEdit.text.strip(),
            packages_folder=ui.packagesEdit.text.strip(),
            encode_ahead=ui.encodeAheadBox.checked,
            agent_folder=ui.agentFolderEdit.text.strip(),
        )
        serves = ui.agentsBox.checked
        if serves and not settings.agents_agreed:
            text = _(
                "An agent may send pictures, names and measurements of the images in this scene to a remote model. "
                "Let agents in only where all images of the scene may leave this computer. They see and change the "
                "scene until you stop them."
            )
            if not slicer.util.confirmOkCancelDisplay(text, _("Agents"), self.dialog):
                ui.agentsBox.checked = False
                return
            settings = replace(settings, agents_agreed=True)
        self._installer.change_settings(settings)
        self.dialog.accept()
        if serves != self._agents.is_serving:
            (self._agents.start if serves else self._agents.stop)()

    def _choose_python(self) -> None:
        path = qt.QFileDialog.getOpenFileName(self.dialog, _("The Python that runs the models"))
        self.ui.pythonEdit.text = path or self.ui.pythonEdit.text

    def _choose_folder(self, edit: Any, title: str) -> None:
        edit.text = qt.QFileDialog.getExistingDirectory(self.dialog, title) or edit.text


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
        self.ui.messageLabel.text = error_text(error)
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


class AgentsPart(Part):
    """Agents in the open scene: a process of its own serves them; each call is shown, and undone like a click.

    Args:
        ui, state, report: see :class:`~.widgets.Part`.
        open_client: opens the client of the serving process; one of the Python for the models unless given.
    """

    def __init__(
        self, ui: Any, state: PanelState, report: Report, open_client: Callable[[], ProcessClient] | None = None
    ) -> None:
        super().__init__(ui, state, report)
        self._open_client = open_client or (lambda: state.installer.installation.open_client())
        self._timer = qt.QTimer()
        self._timer.setInterval(_AGENTS_MS)
        self._timer.connect("timeout()", self._tick)
        self._client: ProcessClient | None = None
        self._poller: Poller | None = None
        self._session: Any = None
        self._call: ServedCall | None = None
        self._address = self._token = ""
        self._shown: list[str] = []
        self._connect(ui.agentsCopyButton, self._copy)
        self._connect(ui.agentsStopButton, self.stop)

    @property
    def is_serving(self) -> bool:
        """True while agents may use the scene, or soon may."""
        return self._client is not None

    def start(self) -> None:
        """Let agents in."""
        from FoundationSegLib.agent_session import AgentSession

        store = self._state.installer.installation.store
        self._session = AgentSession(self._controller, SceneImages(self._state), store)
        self._client, self._token = self._open_client(), secrets.token_urlsafe(32)
        self._poller, self._shown = Poller(self._client, self._apply, self._timer.stop), []
        self._client.submit(ServeRequest(1, 0, self._token))
        self._timer.start()
        self.show()

    def stop(self) -> None:
        """Let no agent in any more; a call that is under way is taken back."""
        client, self._client, self._address, self._call = self._client, None, "", None
        if client is not None:
            self._poller.stop()
            self._session.stop()
            client.close()
        self.show()

    def show(self) -> None:
        """Show who may use the scene, and the last call."""
        ui = self._ui
        ui.agentsFrame.setVisible(self.is_serving)
        ui.agentsCopyButton.setEnabled(bool(self._address))
        waiting = _("Agents may use this scene.") if self._address else _("Agents are let in soon…")
        ui.agentsLabel.setText(self._shown[-1] if self._shown else waiting)
        ui.agentsLabel.setToolTip("\n".join(self._shown[-_SHOWN_CALLS:]))

    def _copy(self) -> None:
        text = f"{self._address}\nAuthorization: Bearer {self._token}"
        qt.QGuiApplication.clipboard().setText(text)

    @slot
    def _tick(self) -> None:
        self._poller.tick()
        if self._call is not None:
            self._answer(self._session.poll)

    def _apply(self, event: Event) -> None:
        if isinstance(event, PartlyAnswered) and event.part.call is None:
            self._address = f"http://127.0.0.1:{event.part.port}/mcp"
            self.show()
        elif isinstance(event, PartlyAnswered):
            self._call = call = event.part
            self._note(_("Agent: {tool} …").format(tool=call.tool))
            self._answer(lambda: self._session.begin(call.call))
        elif isinstance(event, Failed):
            self.stop()
            self.report(event.error)

    def _answer(self, ask: Callable[[], AgentAnswer | None]) -> None:
        """Reply to the call, if its answer is there; a defect is told to both, and ends nothing."""
        call, answer, failure = self._call, None, InferenceError("a defect of FoundationSeg; its log says more")
        is_over = True
        try:
            answer = ask()
            is_over = answer is not None
        except FoundationSegError as error:
            failure = error
        finally:
            if is_over and call is not None and self._client is not None:
                self._call = None
                self._client.reply(ServedReply(call.call_id, answer, None if answer else Failure.of(failure)))
                self._note(_("Agent: {tool}: {result}").format(tool=call.tool, result=_("done") if answer else failure))

    def _note(self, text: str) -> None:
        if self._shown and self._shown[-1].endswith("…"):
            self._shown.pop()
        self._shown = [*self._shown, text][-_SHOWN_CALLS:]
        self.show()


class SceneImages:
    """The images of the scene by their names, or by node ids where a name comes twice."""

    def __init__(self, state: PanelState) -> None:
        self._state = state
        self._written: set[Path] = set()

    def _nodes(self) -> dict[str, Any]:
        nodes = list(filter(is_image, slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")))
        names = [node.GetName() for node in nodes]
        return {name if names.count(name) == 1 else node.GetID(): node for name, node in zip(names, nodes, strict=True)}

    def names(self) -> Sequence[str]:
        """List the images."""
        return list(self._nodes())

    def use(self, name: str, card: ModelCard | None, intensity: str) -> None:
        """Have the panel work on an image, as if the user had chosen it."""
        node, parameters = self._nodes().get(name), self._state.parameters
        if node is None or parameters is None:
            text = _("the scene has no image '{name}'; list_images names the images")
            raise InputError(text.format(name=name[:60]))
        if parameters.volume is not node:
            parameters.volume = node
        if card is not None:
            parameters.modelId, parameters.intensity = card.id, intensity
        self._state.sync()
        self._state.prepare()
        self._state.sync()

    def export(self, file: str) -> str:
        """Write the segmentation that is worked on into the folder of agents."""
        folder = self._state.installer.settings.agent_folder
        if not folder:
            raise InputError(_("the user has named no folder for exports in the settings"))
        folders = AllowedFolders.of((Path(folder),))
        path = folders.path_to_write(file, self._written)
        if not path.name.endswith(SUFFIX):
            raise OutputError(
                _("in Slicer, segments are exported to a file that ends in {ending}").format(ending=SUFFIX)
            )
        temporary = next(t for n in itertools.count() if not (t := path.with_name(f".fseg-{n}{SUFFIX}")).exists())
        try:
            write_segmentation(self._state.controller.segmentation_node, temporary)
            temporary.replace(path)
        except OSError as error:
            text = _("{name} cannot be written: {reason}").format(name=path.name, reason=error.strerror)
            raise OutputError(text) from error
        finally:
            temporary.unlink(missing_ok=True)
        self._written.add(path)
        return folders.name(path)
