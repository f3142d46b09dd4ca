"""The model chooser with the chosen card at a glance, and the catalogue with every model's state."""

import html
from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.api import Readiness
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.errors import Cancelled, CheckpointError, FoundationSegError, PackageError
from FoundationSegLib.progress import ProgressReport, TimeLeft, bytes_text
from FoundationSegLib.session.segment_store import Refused

from . import model_texts
from .computer_dialogs import AgentsPart, DiagnosisDialog, SettingsDialog
from .model_installer import Callbacks, ModelInstaller
from .parameters import PanelState
from .setup_dialog import LicenseDialog, SetupDialog
from .widgets import Dialog, Part, Report, error_text, fill_row, set_up_table, show_fraction, time_left_text


class ModelPart(Part):
    """The model chooser, and the dialogs that make a model ready."""

    def __init__(self, ui: Any, state: PanelState, report: Report) -> None:
        super().__init__(ui, state, report)
        self._installer, self.agents = state.installer, AgentsPart(ui, state, report)
        self._installer.observe(self.show)
        self._box = self._choice_box(ui.modelBox, "modelId")
        self._dialogs: dict[str, Dialog] = {}
        self._has_inspected = False
        self._connect(ui.modelsButton, self._show_models)
        self._connect(ui.readyButton, self.set_up)
        self._connect(ui.diagnosisButton, lambda: self._open("diagnosis", DiagnosisDialog).show())
        self._connect(ui.settingsButton, lambda: self._open("settings", SettingsDialog, self.agents).show())

    def inspect_once(self) -> None:
        """Inspect the worker's Python the first time that the module is entered; nothing is imported for it."""
        if not self._has_inspected:
            self._has_inspected = True
            self._installer.refresh()

    def show(self) -> None:
        """Show the chosen model, and whether it can be used."""
        if self._parameters is None:
            return
        ui, card = self._ui, self._state.card
        self._box.fill([(card.id, card.title) for card in self._state.cards.values()])
        self._box.show(card.id if card is not None else "")
        if card is None:
            ui.cardLabel.setText(_("This version can run no model."))
            ui.setupFrame.setVisible(False)
            return
        readiness = self._installer.readiness(card.id)
        ui.cardLabel.setText(glance(card, model_texts.state_text(readiness)))
        ui.cardLabel.setToolTip(details(card))
        ui.setupFrame.setVisible(not readiness.is_ready)
        ui.setupLabel.setText(model_texts.blocking_html(readiness, card))
        ui.readyButton.setText(_("Set up…"))

    def set_up(self) -> None:
        """Show what is missing for the chosen model, and offer to get it. Only after a click of the user's."""
        if self._state.card is not None:
            self.set_up_model(self._state.card.id)

    def set_up_model(self, model_id: str) -> None:
        """Show what is missing for a model, and offer to get it."""
        self._open("set up", SetupDialog, model_id, self._is_set_up).show()

    def close(self) -> None:
        """Close the dialogs, and end what they have under way."""
        for dialog in self._dialogs.values():
            dialog.close()
        self._dialogs.clear()
        self.agents.stop()
        self._installer.close()

    def _open(self, name: str, dialog_class: Callable[..., Any], *arguments: Any) -> Any:
        if name in self._dialogs:
            self._dialogs[name].close()
        self._dialogs[name] = dialog_class(self._installer, *arguments, parent=slicer.util.mainWindow())
        return self._dialogs[name]

    def _is_set_up(self) -> None:
        """Ask again what failed because the model was missing."""
        controller = self._controller
        controller.on_update("choices")
        outcome, session = controller.outcome, controller.session
        was_missing = isinstance(outcome, Refused) and isinstance(outcome.error, CheckpointError | PackageError)
        if session is not None and was_missing:
            session.retry()

    def _use(self, card: ModelCard) -> None:
        """Choose a model for its task."""
        if self._parameters is not None:
            setattr(self._parameters, "modelId" if card.task == "segment" else "classifyModelId", card.id)

    def _show_models(self) -> None:
        dialog = self._open("models", ModelsDialog, self.set_up_model, self._use)
        dialog.show(self._state.card.id if self._state.card is not None else "")


def glance(card: ModelCard, state: str) -> str:
    """Return a card in two lines of rich text; :func:`details` has the rest."""
    commercial = model_texts.commercial_text(card.license)
    use = _("{name}, commercial use: {use}").format(name=card.license.name, use=commercial)
    facts = html.escape(" · ".join((", ".join(card.prompts), use, model_texts.size_text(card))))
    return f"{html.escape(card.good_at)}<br><small>{facts}</small> · <b>{html.escape(state)}</b>"


def details(card: ModelCard) -> str:
    """Return what else a person should know of a model, as rich text for a tooltip."""
    lines = (
        (_("Bad at"), card.bad_at),
        (_("Trained on"), ", ".join(card.modalities) or _("no medical images")),
        (_("Also takes, translated"), ", ".join(card.translations) or _("nothing")),
        (_("Licence"), card.license.note),
        (_("Cite"), card.citation),
    )
    return "<br>".join(f"<b>{html.escape(name)}:</b> {html.escape(text)}" for name, text in lines if text)


class ModelsDialog(Dialog):
    """The catalogue: every model with its state; download, import, removal."""

    def __init__(
        self,
        installer: ModelInstaller,
        on_set_up: Callable[[str], None],
        on_use: Callable[[ModelCard], None] = lambda _card: None,
        parent: Any = None,
    ) -> None:
        """Build it; :meth:`show` shows it.

        Args:
            installer: the models on this computer.
            on_set_up: opens the set-up of a model, by its id.
            on_use: chooses a model in the panel.
            parent: the window it belongs to.
        """
        super().__init__("Models", _("Models"), parent)
        self._installer = installer
        # The models that this version can run come first.
        self._cards = sorted(
            installer.catalogue.values(), key=lambda card: not installer.readiness(card.id).is_possible
        )
        self.license: LicenseDialog | None = None
        self._card_text = ""
        self._on_use = on_use
        self._time_left = TimeLeft()
        self._build(on_set_up)
        installer.observe(self._show_state)

    def show(self, model_id: str = "") -> None:
        """Show the dialog, with a model chosen if one is named."""
        if model_id:
            self.ui.modelsTable.selectRow([card.id for card in self._cards].index(model_id))
        self.raise_dialog()
        self._installer.refresh()

    def close(self) -> None:
        """Take the dialog away for good."""
        self._installer.forget(self._show_state)
        self._close_license()
        super().close()

    def _build(self, on_set_up: Callable[[str], None]) -> None:
        ui = self.ui
        headings = [_("Model"), _("State"), _("Task"), _("Prompts"), _("Fits this computer")]
        headings += [_("Download"), _("Licence"), _("Commercial use")]
        set_up_table(ui.modelsTable, headings, stretch=0)
        ui.modelsTable.setRowCount(len(self._cards))
        ui.splitter.setSizes([380, 200])
        problem = self._installer.catalogue_problem
        if problem:
            self._say(_("Your own model cards are left out: {reason}").format(reason=problem))
        self._connect(ui.modelsTable, self._show_card, "itemSelectionChanged()")
        buttons = (
            ui.useButton,
            ui.setUpButton,
            ui.downloadButton,
            ui.importButton,
            ui.removeButton,
            ui.removeAllButton,
        )
        self._tips = {button: button.toolTip for button in buttons}
        self._connect(ui.filterEdit, self._filter, "textChanged(QString)")
        self._connect(ui.useButton, self._use)
        self._connect(ui.setUpButton, lambda: on_set_up(self._card.id))
        self._connect(ui.downloadButton, self._download)
        self._connect(ui.importButton, self._import)
        self._connect(ui.removeButton, self._remove)
        self._connect(ui.removeAllButton, lambda: self._ask_and_remove(self._installer.removable()))
        self._connect(ui.openFolderButton, self._open_folder)
        self._connect(ui.stopButton, self._installer.cancel)
        self._connect(ui.closeButton, self.dialog.close)
        self._show_state()
        ui.modelsTable.selectRow(0)

    @property
    def _card(self) -> ModelCard:
        """The chosen model."""
        return self._cards[max(0, self.ui.modelsTable.currentRow())]

    def _show_state(self) -> None:
        lacking: dict[str, None] = {}
        for row, card in enumerate(self._cards):
            readiness = self._installer.readiness(card.id)
            missing = readiness.missing_packages if readiness.is_possible else ()
            lacking |= dict.fromkeys(map(model_texts.package_title, missing))
            state = model_texts.state_text(readiness, with_packages=False)
            texts = (card.title, state, model_texts.task_text(card), ", ".join(card.prompts))
            terms = (model_texts.size_text(card), card.license.name, model_texts.commercial_text(card.license))
            fill_row(self.ui.modelsTable, row, (*texts, model_texts.fits_text(readiness), *terms))
        text = _("Some models need Python packages that are not here yet: {names}. 'Set up' installs them.")
        self.ui.packagesLabel.text = text.format(names=", ".join(lacking))
        self.ui.packagesLabel.visible = bool(lacking)
        self._show_card()

    def _show_card(self) -> None:
        """Show the chosen model, and which buttons make sense for it."""
        ui, readiness = self.ui, self._installer.readiness(self._card.id)
        text = model_texts.card_html(self._card, readiness)
        if text != self._card_text:  # a browser scrolls back to its start with every new text
            self._card_text = text
            ui.cardBrowser.setHtml(text)
        is_free, weights = not self._installer.task, readiness.requirement("weights")
        busy = "" if is_free else _("Something is being downloaded or installed. Wait for its end, or stop it.")
        state, nothing = model_texts.state_text(readiness), _("Nothing of this model is stored here.")
        stored = _("The model is stored here already.")
        missing = nothing if weights is not None and not weights.items else ""
        downloads = "" if _can_download(readiness) else stored if weights is None else state
        reasons = {
            ui.useButton: "" if readiness.is_possible else state,
            ui.setUpButton: busy or (_("The model is ready.") if readiness.is_ready else self._obstacle(readiness)),
            ui.downloadButton: busy or downloads,
            ui.importButton: busy or ("" if weights is not None else stored),
            ui.removeButton: busy or missing,
            ui.removeAllButton: busy,
        }
        for button, reason in reasons.items():
            button.enabled = not reason
            button.toolTip = reason or self._tips[button]
        ui.stopButton.enabled = ui.progressBar.visible = not is_free

    def _obstacle(self, readiness: Readiness) -> str:
        return "" if readiness.is_possible else model_texts.state_text(readiness)

    def _filter(self, text: str) -> None:
        """Hide the models of which no cell has the text."""
        table = self.ui.modelsTable
        for row in range(table.rowCount):
            cells = (table.item(row, column).text() for column in range(table.columnCount))
            table.setRowHidden(row, not any(text.lower() in cell.lower() for cell in cells))

    def _use(self) -> None:
        self._on_use(self._card)
        self._say(_("{title} is chosen in the panel.").format(title=self._card.title))

    def _say(self, text: str) -> None:
        self.ui.messageLabel.text = text

    def _download(self) -> None:
        card = self._card

        def download(accepts: bool) -> None:
            self._installer.download(
                card.id, self._callbacks(card, _("{title} is downloaded.")), accept_license=accepts
            )

        self._with_license(card, download)

    def _import(self) -> None:
        card = self._card
        title = _("Folder with the files of {title}").format(title=card.title)
        source = str(qt.QFileDialog.getExistingDirectory(self.dialog, title))

        def begin(accepts: bool) -> None:
            callbacks = self._callbacks(card, _("{title} is imported."))
            self._installer.import_checkpoint(card.id, source, callbacks, accept_license=accepts)

        if source:
            self._with_license(card, begin)

    def _with_license(self, card: ModelCard, go_on: Callable[[bool], None]) -> None:
        """Go on, with whether the terms were accepted just now; they are asked for if they have to be."""
        if self._installer.readiness(card.id).requirement("license") is None:
            go_on(False)
            return
        self._close_license()
        declined = _("The licence was not accepted; nothing was downloaded.")
        self.license = LicenseDialog(card, lambda: go_on(True), lambda: self._say(declined), self.dialog)
        self.license.show()

    def _close_license(self) -> None:
        if self.license is not None:
            self.license.close()
            self.license = None

    def _remove(self) -> None:
        self._ask_and_remove([(card, size) for card, size in self._installer.removable() if card.id == self._card.id])

    def _ask_and_remove(self, stored: list[tuple[ModelCard, int]]) -> None:
        if not stored:
            self._say(_("There is no downloaded model."))
            return
        lines = [_("{title}: {size}").format(title=card.title, size=bytes_text(size)) for card, size in stored]
        total = bytes_text(sum(size for _card, size in stored))
        question = _("Delete from this computer ({size} in all)?").format(size=total)
        text = "\n".join([question, "", *lines, "", _("They can be downloaded again at any time.")])
        if slicer.util.confirmOkCancelDisplay(text, _("Delete downloaded models"), self.dialog):
            callbacks = Callbacks(
                lambda result: self._say(_("{size} freed.").format(size=bytes_text(result.bytes_freed))), self.report
            )
            self._installer.remove_checkpoints([card.id for card, _size in stored], callbacks)

    def _open_folder(self) -> None:
        folder = self._installer.installation.store.folder
        folder.mkdir(parents=True, exist_ok=True)
        if not qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder))):
            self._say(_("No program opens folders here; the models are in {folder}").format(folder=folder))

    def _callbacks(self, card: ModelCard, success: str) -> Callbacks:
        def show(report: ProgressReport) -> None:
            show_fraction(self.ui.progressBar, report)
            self._time_left.note(report)
            self._say(f"{model_texts.progress_text(report, card.title)} · {time_left_text(self._time_left.seconds())}")

        self._time_left.note(None)
        self.ui.progressBar.setRange(0, 0)
        return Callbacks(lambda _result: self._say(success.format(title=card.title)), self.report, show)

    def report(self, error: FoundationSegError) -> None:
        """Show an error."""
        stopped = _("Stopped. What has arrived is kept; the next download goes on from there.")
        failed = _("This did not work: {reason}").format(reason=error_text(error))
        self._say(stopped if isinstance(error, Cancelled) else failed)


def _can_download(readiness: Readiness) -> bool:
    lacks_client = any(text.startswith("huggingface_hub") for text in readiness.missing_packages)
    return readiness.is_possible and readiness.requirement("weights") is not None and not lacks_client
