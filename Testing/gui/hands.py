"""What a user does with widgets: only with those that a user could use."""

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtTest import QTest

from Testing.gui.proxy import unwrap


class Hands:
    """Part of a desk: it has ``process_events`` and ``slice_widget``."""

    def click(self, button: Any) -> None:
        """Click a button or trigger an action, if the user can: it is shown and enabled."""
        self._usable(button)
        button.trigger() if button.inherits("QAction") else button.click()
        self.process_events()

    def choose(self, combo: Any, what: Any) -> None:
        """Choose an entry of a combo box by its text, or a node in a node selector."""
        self._usable(combo)
        if combo.inherits("qMRMLNodeComboBox"):
            combo.setCurrentNode(what)
        else:
            index = combo.findText(what)
            if index < 0:
                texts = [combo.itemText(n) for n in range(combo.count)]
                raise AssertionError(f"no entry {what!r} among {texts}")
            combo.setCurrentIndex(index)
            combo.activated(index)
        self.process_events()

    def type(self, field: Any, text: str, enter: bool = False) -> None:
        """Type a text into a line edit or a spin box, key by key, instead of what is there."""
        self._usable(field)
        q = unwrap(field)
        q.selectAll()
        QTest.keyClicks(q, text)
        if enter:
            QTest.keyClick(q, QtCore.Qt.Key.Key_Return)
        self.process_events()

    def press_key(self, widget: Any, keys: str) -> None:
        """Press a key, like "Ctrl+Z", while a widget or, by its name, a slice view has the focus."""
        q = self.slice_widget(widget).view if isinstance(widget, str) else unwrap(widget)
        q.window().activateWindow()
        q.setFocus()
        self.process_events()
        combination = QtGui.QKeySequence(keys)[0]
        QTest.keyClick(q, combination.key(), combination.keyboardModifiers())
        QTest.keyRelease(q, QtCore.Qt.Key.Key_Control)  # or Qt would go on believing that they are held
        self.process_events()

    def _usable(self, widget: Any) -> None:
        q = unwrap(widget)
        shown = q.isVisible() if isinstance(q, (QtWidgets.QWidget, QtGui.QAction)) else True
        if not (q.isEnabled() and shown):
            raise AssertionError(f"a user cannot use {widget!r}: enabled {q.isEnabled()}, shown {shown}")
