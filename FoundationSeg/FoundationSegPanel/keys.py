"""The keys: shortcuts of the main window while the module is entered, their list, and the dialog that changes them."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.codec import frozen

from .widgets import Dialog, Report, set_up_table, slot

_GROUP = "FoundationSeg/keys"
# Keys belong to the text while one of these has the focus: letters, Backspace, and Return, which ends the input.
_TEXT_FIELDS = ("QLineEdit", "QAbstractSpinBox", "QTextEdit", "QPlainTextEdit", "QKeySequenceEdit")


@frozen
class KeyAction:
    """An action with a key.

    Attributes:
        name: in the settings.
        usual_key: the key until the user chooses another; as Qt writes it.
        text: the action in a few words.
        act: does it. None of them deletes a segment.
    """

    name: str
    usual_key: str
    text: str
    act: Callable[[], object]

    @property
    def key(self) -> str:
        """The key that the user has chosen, or the usual one; empty for none."""
        return str(qt.QSettings().value(f"{_GROUP}/{self.name}", self.usual_key))

    def choose(self, key: str) -> None:
        """Keep a key; the usual one is not kept."""
        if key == self.usual_key:
            qt.QSettings().remove(f"{_GROUP}/{self.name}")
        else:
            qt.QSettings().setValue(f"{_GROUP}/{self.name}", key)


class Keys:
    """The shortcuts. They live while the module is entered, whatever has the focus, except where text is written.

    Args:
        ui: the widgets of the panel; a label lists the keys.
        report: shows the user an error.
        actions: all actions that have a key.
    """

    def __init__(self, ui: Any, report: Report, actions: Sequence[KeyAction]) -> None:
        self.report, self._ui, self._actions = report, ui, actions
        self._shortcuts: list[Any] = []
        self._dialog: KeysDialog | None = None
        ui.keysButton.connect("clicked()", self._show_dialog)
        self._list()

    def enable(self) -> None:
        """Make the shortcuts, on the main window; on the area of the views where there is none."""
        if self._shortcuts:
            return
        manager = slicer.app.layoutManager()
        owner = slicer.util.mainWindow() or (manager.viewport() if manager is not None else None)
        if owner is None:
            return
        for action in self._actions:
            if action.key:
                shortcut = qt.QShortcut(owner)
                shortcut.setKey(qt.QKeySequence(action.key))
                for signal in ("activated()", "activatedAmbiguously()"):
                    shortcut.connect(signal, lambda act=action.act: self._act(act))
                self._shortcuts.append(shortcut)
        slicer.app.connect("focusChanged(QWidget*,QWidget*)", self._focus_changed)

    def disable(self) -> None:
        """Take the shortcuts away."""
        if self._shortcuts:
            slicer.app.disconnect("focusChanged(QWidget*,QWidget*)", self._focus_changed)
        for shortcut in self._shortcuts:
            shortcut.setEnabled(False)
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []

    def close(self) -> None:
        """Take the shortcuts and the dialog away for good."""
        self.disable()
        if self._dialog is not None:
            self._dialog.close()

    def _focus_changed(self, _before: Any, now: Any) -> None:
        is_text = now is not None and (
            any(now.inherits(name) for name in _TEXT_FIELDS) or (now.inherits("QComboBox") and now.editable)
        )
        for shortcut in self._shortcuts:
            shortcut.setEnabled(not is_text)

    def _list(self) -> None:
        names = {"Backspace": _("Backspace"), "Return": _("Enter")}
        lines = [f"<b>{names.get(one.key, one.key)}</b> {one.text}" for one in self._actions if one.key]
        lines += [_("<b>Esc</b> forget what is being drawn"), _("<b>Ctrl</b> while drawing: the other sign")]
        self._ui.keysLabel.setText("<br>".join(lines))

    @slot
    def _show_dialog(self) -> None:
        if self._dialog is None:
            self._dialog = KeysDialog(self._actions, self._changed, slicer.util.mainWindow())
        self._dialog.show()

    def _changed(self) -> None:
        self._list()
        if self._shortcuts:
            self.disable()
            self.enable()

    @slot
    def _act(self, act: Callable[[], object]) -> None:
        act()


class KeysDialog(Dialog):
    """All keys in one table, each to be changed by pressing another.

    Args:
        actions: all actions that have a key.
        on_change: called once other keys were chosen.
        parent: the window it belongs to.
    """

    def __init__(self, actions: Sequence[KeyAction], on_change: Callable[[], None], parent: Any = None) -> None:
        super().__init__("Keys", _("Keys of FoundationSeg"), parent)
        self._actions, self._on_change, ui = actions, on_change, self.ui
        set_up_table(ui.keysTable, [_("Action"), _("Key")], stretch=0)
        ui.keysTable.setRowCount(len(actions))
        self._edits = [qt.QKeySequenceEdit() for _action in actions]
        for row, (action, edit) in enumerate(zip(actions, self._edits, strict=True)):
            item = qt.QTableWidgetItem(action.text)
            item.setFlags(qt.Qt.ItemIsEnabled)
            ui.keysTable.setItem(row, 0, item)
            ui.keysTable.setCellWidget(row, 1, edit)
        self._connect(ui.usualButton, lambda: self._fill([action.usual_key for action in actions]))
        self._connect(ui.saveButton, self._save)
        self._connect(ui.cancelButton, self.dialog.reject)

    def show(self) -> None:
        """Show the keys as they are."""
        self._fill([action.key for action in self._actions])
        self.raise_dialog()

    def _fill(self, keys: Sequence[str]) -> None:
        self.ui.messageLabel.text = ""
        for edit, key in zip(self._edits, keys, strict=True):
            edit.setKeySequence(qt.QKeySequence(key))

    def _save(self) -> None:
        keys = [str(edit.keySequence.toString()) for edit in self._edits]
        twice = [key for key, count in Counter(keys).items() if key and count > 1]
        if twice:
            text = _("{key} stands for several actions. Give each a key of its own.")
            self.ui.messageLabel.text = text.format(key=twice[0])
            return
        for action, key in zip(self._actions, keys, strict=True):
            action.choose(key)
        self._on_change()
        self.dialog.accept()
