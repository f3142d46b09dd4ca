"""The catalogue: every model with its state; download, import, removal."""

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.errors import Cancelled, FoundationSegError
from FoundationSegLib.installation.readiness import Readiness
from FoundationSegLib.progress import ProgressReport, bytes_text

from .dialogs import fill_row, make_dialog
from .license_dialog import LicenseDialog
from .model_desk import ModelDesk, Told
from .model_texts import card_html, commercial_text, progress_text, size_text, state_text
from .slots import slot


class ModelsDialog:
    """The dialog.

    Attributes:
        dialog: the window.
        ui: its widgets.
    """

    def __init__(self, desk: ModelDesk, on_set_up: Callable[[str], None], parent: Any = None) -> None:
        """Build it; :meth:`show` shows it.

        Args:
            desk: what is known of models.
            on_set_up: opens the first run for a model, by its id.
            parent: the window it belongs to.
        """
        self._desk, self._on_set_up = desk, on_set_up
        # What this version can run comes first.
        self._cards = sorted(desk.catalogue.values(), key=lambda card: not desk.readiness(card.id).is_possible)
        self._license: LicenseDialog | None = None
        self._shown = ""
        self.dialog, self.ui = make_dialog("Models", _("Models"), parent)
        self._build()
        desk.observe(self._show_state)

    def show(self, model_id: str = "") -> None:
        """Show the dialog, with a model chosen if one is named."""
        if model_id:
            self.ui.modelsTable.selectRow([card.id for card in self._cards].index(model_id))
        self.dialog.show()
        self.dialog.raise_()
        self._desk.refresh()

    def close(self) -> None:
        """Take the dialog away for good."""
        self._desk.forget(self._show_state)
        self._close_license()
        self.dialog.close()
        self.dialog.deleteLater()

    def _build(self) -> None:
        ui = self.ui
        headings = [_("Model"), _("State"), _("Download"), _("Licence"), _("Commercial use")]
        ui.modelsTable.setColumnCount(len(headings))
        ui.modelsTable.setHorizontalHeaderLabels(headings)
        ui.modelsTable.setRowCount(len(self._cards))
        header = ui.modelsTable.horizontalHeader()
        for column in range(len(headings)):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents if column else qt.QHeaderView.Stretch)
        ui.modelsTable.verticalHeader().hide()
        ui.splitter.setSizes([380, 200])
        problem = self._desk.catalogue_problem
        own_cards = _("Your own model cards are left out: {reason}")
        ui.messageLabel.text = own_cards.format(reason=problem) if problem else ""
        ui.modelsTable.connect("itemSelectionChanged()", self._show_card)
        ui.setUpButton.connect("clicked()", self._set_up)
        ui.downloadButton.connect("clicked()", self._download)
        ui.importButton.connect("clicked()", self._import)
        ui.removeButton.connect("clicked()", self._remove)
        ui.removeAllButton.connect("clicked()", self._remove_all)
        ui.openFolderButton.connect("clicked()", self._open_folder)
        ui.stopButton.connect("clicked()", self._desk.cancel)
        ui.closeButton.connect("clicked()", self.dialog.close)
        self._show_state()
        ui.modelsTable.selectRow(0)

    # What is shown

    @property
    def _card(self) -> ModelCard:
        """The chosen model."""
        return self._cards[max(0, self.ui.modelsTable.currentRow())]

    def _show_state(self) -> None:
        for row, card in enumerate(self._cards):
            state = state_text(self._desk.readiness(card.id))
            commercial = commercial_text(card.license)
            fill_row(self.ui.modelsTable, row, (card.title, state, size_text(card), card.license.name, commercial))
        self._show_card()

    @slot
    def _show_card(self) -> None:
        """Show the chosen model, and which buttons make sense for it."""
        ui, desk, card = self.ui, self._desk, self._card
        readiness = desk.readiness(card.id)
        text = card_html(card, readiness)
        if text != self._shown:  # a browser scrolls back to its start with every new text
            self._shown = text
            ui.cardBrowser.setHtml(text)
        is_free = not desk.work
        ui.setUpButton.enabled = is_free and readiness.is_possible and not readiness.is_ready
        ui.downloadButton.enabled = is_free and self._can_download(readiness)
        ui.importButton.enabled = is_free and readiness.lack("weights") is not None
        ui.removeButton.enabled = is_free and self._has_files(readiness)
        ui.removeAllButton.enabled = is_free
        ui.stopButton.enabled = not is_free
        ui.progressBar.visible = not is_free

    def _can_download(self, readiness: Readiness) -> bool:
        lacks_client = any(text.startswith("huggingface_hub") for text in readiness.missing_packages)
        return readiness.is_possible and readiness.lack("weights") is not None and not lacks_client

    def _has_files(self, readiness: Readiness) -> bool:
        lack = readiness.lack("weights")
        return lack is None or bool(lack.items)

    def _say(self, text: str) -> None:
        self.ui.messageLabel.text = text

    # What the user does

    @slot
    def _set_up(self) -> None:
        self._on_set_up(self._card.id)

    @slot
    def _download(self) -> None:
        card = self._card
        self._with_license(card, lambda accepts: self._begin_download(card, accepts))

    def _begin_download(self, card: ModelCard, accepts: bool) -> None:
        self._desk.download(card.id, self._told(card, _("{title} is downloaded.")), accept_license=accepts)

    def _with_license(self, card: ModelCard, go_on: Callable[[bool], None]) -> None:
        """Go on, with whether the terms were accepted just now; they are asked for if they have to be."""
        if self._desk.readiness(card.id).lack("license") is None:
            go_on(False)
            return
        self._close_license()
        declined = _("The licence was not accepted; nothing was downloaded.")
        self._license = LicenseDialog(card, lambda: go_on(True), lambda: self._say(declined), self.dialog)
        self._license.show()

    def _close_license(self) -> None:
        if self._license is not None:
            self._license.close()
            self._license = None

    @slot
    def _import(self) -> None:
        card = self._card
        title = _("Folder with the files of {title}").format(title=card.title)
        source = str(qt.QFileDialog.getExistingDirectory(self.dialog, title))
        if source:
            self._with_license(card, lambda accepts: self._begin_import(card, source, accepts))

    def _begin_import(self, card: ModelCard, source: str, accepts: bool) -> None:
        told = self._told(card, _("{title} is imported."))
        self._desk.import_checkpoint(card.id, source, told, accept_license=accepts)

    @slot
    def _remove(self) -> None:
        self._ask_and_remove([(card, size) for card, size in self._desk.removable() if card.id == self._card.id])

    @slot
    def _remove_all(self) -> None:
        self._ask_and_remove(self._desk.removable())

    def _ask_and_remove(self, found: list[tuple[ModelCard, int]]) -> None:
        if not found:
            self._say(_("There is no downloaded model."))
            return
        lines = [_("{title}: {size}").format(title=card.title, size=bytes_text(size)) for card, size in found]
        total = bytes_text(sum(size for _card, size in found))
        question = _("Delete from this computer ({size} in all)?").format(size=total)
        text = "\n".join([question, "", *lines, "", _("They can be downloaded again at any time.")])
        if slicer.util.confirmOkCancelDisplay(text, _("Delete downloaded models"), self.dialog):
            told = Told(self._show_freed, self._fail, lambda _report: None)
            self._desk.remove_checkpoints([card.id for card, _size in found], told)

    def _show_freed(self, result: Any) -> None:
        self._say(_("{size} freed.").format(size=bytes_text(result.bytes_freed)))

    @slot
    def _open_folder(self) -> None:
        folder = self._desk.store.folder
        folder.mkdir(parents=True, exist_ok=True)
        if not qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder))):
            self._say(_("No program opens folders here; the models are in {folder}").format(folder=folder))

    # How it goes on

    def _told(self, card: ModelCard, good: str) -> Told:
        def show(report: ProgressReport) -> None:
            self.ui.progressBar.setRange(0, 1000 if report.total else 0)
            self.ui.progressBar.setValue(round(1000 * report.done / report.total) if report.total else 0)
            self._say(progress_text(report, card.title))

        self.ui.progressBar.setRange(0, 0)
        return Told(lambda _result: self._say(good.format(title=card.title)), self._fail, show)

    def tell(self, error: FoundationSegError) -> None:
        """Show an error."""
        self._fail(error)

    def _fail(self, error: FoundationSegError) -> None:
        is_stopped = isinstance(error, Cancelled)
        stopped = _("Stopped. What has arrived is kept; the next download goes on from there.")
        self._say(stopped if is_stopped else _("This did not work: {reason}").format(reason=error))
