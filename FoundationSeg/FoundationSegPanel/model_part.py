"""Which model answers, and what a person should know of it before."""

import html
import shutil
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from FoundationSegLib.core.card_values import ModelCard

from .choices import ChoiceBox
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
        self._cards = panel.logic.runnableCards("segment")
        self._box = ChoiceBox(self._ui.modelBox, self._chosen)
        self._box.fill([(card.id, card.title) for card in self._cards.values()])
        # Without loading torch nobody can say more; the diagnosis does.
        self._suitable = _WITH_GRAPHICS_CARD if shutil.which("nvidia-smi") else _WITHOUT

    @property
    def card(self) -> ModelCard | None:
        """The chosen model; the one that suits this computer where none was chosen."""
        wanted = self._panel.parameters.modelId if self._panel.parameters is not None else ""
        return self._cards.get(wanted or self._suitable) or next(iter(self._cards.values()), None)

    def show(self) -> None:
        """Show the chosen model."""
        card = self.card
        self._box.show(card.id if card is not None else "")
        self._ui.cardLabel.setText(glance(card) if card is not None else _("This version can run no model."))
        self._ui.cardLabel.setToolTip(details(card) if card is not None else "")
        self._ui.readyButton.setVisible(False)

    @slot
    def _chosen(self, model_id: str) -> None:
        self._panel.parameters.modelId = model_id


def glance(card: ModelCard) -> str:
    """A card in two lines of rich text; :func:`details` has the rest."""
    commercial = {
        "yes": _("commercial use allowed"),
        "no": _("no commercial use"),
        "unclear": _("commercial use unclear"),
    }
    size = _("{size} MB").format(size=round(card.source.bytes / 1e6)) if card.source.bytes else _("size unknown")
    terms = f"{card.license.name}, {commercial[card.license.commercial_use]}"
    facts = (", ".join(card.prompts), terms, size)
    return f"{html.escape(card.good_at)}<br><small>{html.escape(' · '.join(facts))}</small>"


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
