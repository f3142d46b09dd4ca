"""Keys: they live only while the module is entered and a view has the focus, and none of them deletes a segment."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib import desk_actions

from .slots import slot

if TYPE_CHECKING:
    from .panel import Panel


class Keys:
    """The shortcuts of the views."""

    def __init__(self, panel: "Panel") -> None:
        self._panel = panel
        self.tell = panel.tell
        self._shortcuts: list[Any] = []
        self._table: tuple[tuple[str, str, Callable[[], None]], ...] = (
            ("1", _("point"), self._point),
            ("2", _("box"), self._box),
            ("3", _("scribble"), self._scribble),
            ("4", _("lasso"), self._lasso),
            ("X", _("positive or negative"), self._polarity),
            ("N", _("next segment"), self._next),
            ("Ctrl+Z", _("undo"), self._undo),
            ("Ctrl+Y", _("redo"), self._redo),
            ("Backspace", _("take the last prompt back"), self._remove),
            ("Return", _("accept the last change, or what waits to be confirmed"), self._accept),
        )
        names = {"Backspace": _("Backspace"), "Return": _("Enter")}
        lines = [f"<b>{names.get(key, key)}</b> {text}" for key, text, _do in self._table]
        lines.append(_("<b>Esc</b> forget what is being drawn"))
        lines.append(_("<b>Ctrl</b> while drawing: the other sign"))
        panel.ui.keysLabel.setText(_("Keys, while a view has the focus:") + "<br>" + "<br>".join(lines))

    def enable(self) -> None:
        """Make the shortcuts, on the area of the views alone."""
        manager = slicer.app.layoutManager()
        if self._shortcuts or manager is None or manager.viewport() is None:
            return
        for key, _text, method in self._table:
            shortcut = qt.QShortcut(manager.viewport())
            shortcut.setKey(qt.QKeySequence(key))
            shortcut.setContext(qt.Qt.WidgetWithChildrenShortcut)
            shortcut.connect("activated()", method)
            self._shortcuts.append(shortcut)

    def disable(self) -> None:
        """Take them away."""
        for shortcut in self._shortcuts:
            shortcut.setEnabled(False)
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []

    @slot
    def _point(self) -> None:
        self._panel.tools.toggle("point")

    @slot
    def _box(self) -> None:
        self._panel.tools.toggle("box")

    @slot
    def _scribble(self) -> None:
        self._panel.tools.toggle("scribble")

    @slot
    def _lasso(self) -> None:
        self._panel.tools.toggle("lasso")

    @slot
    def _polarity(self) -> None:
        self._panel.tools.toggle_polarity()

    @slot
    def _next(self) -> None:
        self._panel.segments.add(numbered=True)

    @slot
    def _undo(self) -> None:
        desk_actions.undo(self._panel.desk)

    @slot
    def _redo(self) -> None:
        desk_actions.redo(self._panel.desk)

    @slot
    def _remove(self) -> None:
        desk_actions.remove_prompts(self._panel.desk, ())

    @slot
    def _accept(self) -> None:
        self._panel.answer.accept()
