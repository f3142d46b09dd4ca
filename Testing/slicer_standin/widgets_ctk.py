"""CTK's widgets, with the behaviour that was seen in Slicer: which signals come, in which order, and which do not."""

from typing import Any, ClassVar

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Signal

from Testing.slicer_standin.standin import Standin, standin


@standin("ctkCollapsibleButton")
class CollapsibleButton(Standin, QtWidgets.QAbstractButton):
    """A button with contents. Collapsed means unchecked.

    A child that the product hides stays hidden when the section opens; one that it shows while the section is closed
    appears then. Nothing is hidden before the section is shown for the first time.
    """

    contentsCollapsed = Signal(bool)
    remembered: ClassVar[dict[str, Any]] = {
        "flat": False,
    }

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._ours = self._was_shown = False
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(4, 22, 4, 4)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Preferred)
        # Connected first: CTK says `contentsCollapsed` before `toggled`.
        self.toggled.connect(self._toggled)

    @property
    def collapsed(self) -> bool:
        return not self.isChecked()

    @collapsed.setter
    def collapsed(self, value: bool) -> None:
        self.setChecked(not value)

    def _toggled(self, opened: bool) -> None:
        self._show_children()
        self.contentsCollapsed.emit(not opened)

    def showEvent(self, event: QtGui.QShowEvent) -> None:
        super().showEvent(event)
        self._was_shown = True
        self._show_children()

    def childEvent(self, event: QtCore.QChildEvent) -> None:
        super().childEvent(event)
        if event.polished() and self._was_shown:
            self._show_children()

    def _show_children(self) -> None:
        self.setMaximumHeight(22 if self.collapsed and self._was_shown else 0xFFFFFF)
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                child.installEventFilter(self)
                self._show_child(child)

    def _show_child(self, child: QtWidgets.QWidget) -> None:
        if not self._was_shown:
            return
        attribute = QtCore.Qt.WidgetAttribute
        hidden = child.testAttribute(attribute.WA_WState_ExplicitShowHide) and child.isHidden()
        wanted = child.property("visibilityToParent")
        wanted = not hidden if wanted is None else wanted
        child.setProperty("visibilityToParent", wanted)
        self._ours = True
        child.setVisible(wanted and not self.collapsed)
        self._ours = False
        if wanted:
            child.setAttribute(attribute.WA_WState_ExplicitShowHide, False)

    def eventFilter(self, child: QtCore.QObject, event: QtCore.QEvent) -> bool:
        shown = {QtCore.QEvent.Type.ShowToParent: True, QtCore.QEvent.Type.HideToParent: False}.get(event.type())
        if shown is not None and not self._ours and isinstance(child, QtWidgets.QWidget):
            child.setProperty("visibilityToParent", shown)
            if shown:
                self._show_child(child)
        return False

    def sizeHint(self) -> QtCore.QSize:
        wanted = super().sizeHint() if self.layout() is None else self.layout().sizeHint()
        return QtCore.QSize(max(wanted.width(), 80), 22 if self.collapsed else max(wanted.height(), 22))

    def paintEvent(self, event: Any) -> None:
        painter = QtGui.QPainter(self)
        painter.fillRect(0, 0, self.width(), 20, self.palette().button())
        painter.drawText(6, 15, ("▸ " if self.collapsed else "▾ ") + self.text().replace("&", ""))
        painter.drawRect(0, 0, self.width() - 1, self.height() - 1)


@standin("ctkPathLineEdit")
class PathLineEdit(Standin, QtWidgets.QWidget):
    """A path to type. Emptied, it says only that the input is not valid any more, not that the path changed."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    remembered: ClassVar[dict[str, Any]] = {
        "label": "",
        "filters": 24663,
        "options": 0,
        "sizeAdjustPolicy": 2,
    }

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._combo = QtWidgets.QComboBox(self, editable=True)
        row.addWidget(self._combo)
        self._valid = False
        self._combo.editTextChanged.connect(self._changed)

    @property
    def currentPath(self) -> str:
        return self._combo.currentText()

    @currentPath.setter
    def currentPath(self, path: str) -> None:
        self._combo.setEditText(path)

    def setCurrentPath(self, path: str) -> None:
        self._combo.setEditText(path)

    def _changed(self, text: str) -> None:
        if text:
            self.currentPathChanged.emit(text)
        if bool(text) != self._valid:
            self._valid = bool(text)
            self.validInputChanged.emit(self._valid)
