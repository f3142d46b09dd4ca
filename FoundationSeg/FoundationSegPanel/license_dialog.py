"""The terms of a model, and the user's word that they are accepted."""

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from FoundationSegLib.catalog.model_cards import ModelCard

from .dialogs import make_dialog
from .model_texts import terms_html


class LicenseDialog:
    """A dialog in front of its window, which waits for nobody.

    Attributes:
        dialog: the window.
        ui: its widgets.
    """

    def __init__(
        self, card: ModelCard, on_accept: Callable[[], None], on_decline: Callable[[], None], parent: Any = None
    ) -> None:
        """Build it; one of the two is called when it is closed."""
        self._on_accept, self._on_decline = on_accept, on_decline
        self.dialog, self.ui = make_dialog("License", _("Licence of {title}").format(title=card.title), parent)
        self.dialog.setWindowModality(qt.Qt.WindowModal)
        self.ui.termsBrowser.setHtml(terms_html(card))
        self.ui.agreeCheckBox.connect("toggled(bool)", self._may_accept)
        self.ui.acceptButton.connect("clicked()", self.dialog.accept)
        self.ui.declineButton.connect("clicked()", self.dialog.reject)
        self.dialog.connect("accepted()", self._on_accept)
        self.dialog.connect("rejected()", self._on_decline)

    def show(self) -> None:
        """Ask; nothing is agreed to yet."""
        self.ui.agreeCheckBox.checked = False
        self.ui.acceptButton.enabled = False
        self.dialog.show()
        self.dialog.raise_()

    def close(self) -> None:
        """Take it away without an answer."""
        self.dialog.blockSignals(True)
        self.dialog.close()
        self.dialog.deleteLater()

    def _may_accept(self, agrees: bool) -> None:
        self.ui.acceptButton.enabled = agrees
