"""Which model answers, what a person should know of it before, and the dialogs that make it ready."""

import html
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.errors import CheckpointError, PackageError
from FoundationSegLib.installation.inspection import has_nvidia_driver
from FoundationSegLib.session.segment_store import Refused

from .choices import ChoiceBox
from .diagnosis_dialog import DiagnosisDialog
from .first_run import FirstRun
from .model_desk import ModelDesk
from .model_texts import commercial_text, size_text, state_text
from .models_dialog import ModelsDialog
from .settings_dialog import SettingsDialog
from .slots import slot

if TYPE_CHECKING:
    from .panel import Panel

_WITH_GRAPHICS_CARD = "sam2.1-hiera-tiny"
_WITHOUT = "lite-medsam"


class ModelPart:
    """The model chooser, with the chosen card at a glance."""

    def __init__(self, panel: "Panel") -> None:
        self._panel, self._ui = panel, panel.ui
        self.tell = panel.tell
        self.desk = ModelDesk(panel.logic.restartWorker, panel.logic.cards())
        self.desk.observe(self.show)
        self._cards = panel.logic.runnableCards("segment")
        self._box = ChoiceBox(self._ui.modelBox, self._chosen)
        self._box.fill([(card.id, card.title) for card in self._cards.values()])
        # Without loading torch nobody can say more; the diagnosis does.
        self._suitable = _WITH_GRAPHICS_CARD if has_nvidia_driver() else _WITHOUT
        self._dialogs: dict[str, Any] = {}
        self._has_looked = False
        self._ui.modelsButton.connect("clicked()", self._show_models)
        self._ui.readyButton.connect("clicked()", self._set_up)
        self._ui.diagnosisButton.connect("clicked()", self._show_diagnosis)
        self._ui.settingsButton.connect("clicked()", self._show_settings)

    @property
    def card(self) -> ModelCard | None:
        """The chosen model; the one that suits this computer where none was chosen."""
        wanted = self._panel.parameters.modelId if self._panel.parameters is not None else ""
        return self._cards.get(wanted or self._suitable) or next(iter(self._cards.values()), None)

    @property
    def is_ready(self) -> bool:
        """False where something is known to be missing for the chosen model."""
        card = self.card
        return card is not None and self.desk.readiness(card.id).is_ready

    def look(self) -> None:
        """Look what the worker's Python has, the first time that the module is entered; nothing is imported for it."""
        if not self._has_looked:
            self._has_looked = True
            self.desk.refresh()

    def show(self) -> None:
        """Show the chosen model, and whether it can be used."""
        if self._panel.parameters is None:
            return
        card = self.card
        self._box.show(card.id if card is not None else "")
        if card is None:
            self._ui.cardLabel.setText(_("This version can run no model."))
            self._ui.readyButton.setVisible(False)
            return
        readiness = self.desk.readiness(card.id)
        self._ui.cardLabel.setText(glance(card, state_text(readiness)))
        self._ui.cardLabel.setToolTip(details(card))
        self._ui.readyButton.setVisible(not readiness.is_ready)
        self._ui.readyButton.setText(_("Set up {title}…").format(title=card.title))

    def set_up(self) -> None:
        """Show what is missing for the chosen model, and offer to get it. Only after a click of the user's."""
        if self.card is not None:
            self.set_up_model(self.card.id)

    def set_up_model(self, model_id: str) -> None:
        """Show what is missing for a model, and offer to get it."""
        dialog = FirstRun(self.desk, model_id, slicer.util.mainWindow(), self._is_set_up)
        self._open("set up", dialog).show()

    def close(self) -> None:
        """Close the dialogs, and end what they have under way."""
        for dialog in self._dialogs.values():
            dialog.close()
        self._dialogs.clear()
        self.desk.close()

    def _open(self, name: str, dialog: Any) -> Any:
        if name in self._dialogs:
            self._dialogs[name].close()
        self._dialogs[name] = dialog
        return dialog

    def _is_set_up(self) -> None:
        """What failed because the model was missing is asked again."""
        panel = self._panel
        panel.follow()
        outcome, session = panel.desk.outcome, panel.desk.session
        was_missing = isinstance(outcome, Refused) and isinstance(outcome.error, CheckpointError | PackageError)
        if session is not None and was_missing:
            session.retry()

    @slot
    def _chosen(self, model_id: str) -> None:
        self._panel.parameters.modelId = model_id

    @slot
    def _set_up(self) -> None:
        self.set_up()

    @slot
    def _show_models(self) -> None:
        dialog = ModelsDialog(self.desk, self.set_up_model, slicer.util.mainWindow())
        self._open("models", dialog).show(self.card.id if self.card is not None else "")

    @slot
    def _show_diagnosis(self) -> None:
        self._open("diagnosis", DiagnosisDialog(self.desk, slicer.util.mainWindow())).show()

    @slot
    def _show_settings(self) -> None:
        self._open("settings", SettingsDialog(self.desk, slicer.util.mainWindow())).show()


def glance(card: ModelCard, state: str) -> str:
    """A card in two lines of rich text; :func:`details` has the rest."""
    use = _("{name}, commercial use: {use}").format(name=card.license.name, use=commercial_text(card.license))
    facts = (", ".join(card.prompts), use, size_text(card))
    told = html.escape(" · ".join(facts))
    return f"{html.escape(card.good_at)}<br><small>{told}</small> · <b>{html.escape(state)}</b>"


def details(card: ModelCard) -> str:
    """What else a person should know of a model, as rich text for a tooltip."""
    lines = (
        (_("Bad at"), card.bad_at),
        (_("Trained on"), ", ".join(card.modalities) or _("no medical images")),
        (_("Also takes, translated"), ", ".join(card.translations) or _("nothing")),
        (_("Licence"), card.license.note),
        (_("Cite"), card.citation),
    )
    return "<br>".join(f"<b>{html.escape(name)}:</b> {html.escape(text)}" for name, text in lines if text)
