"""CTK's widgets, with the behaviour that was seen in Slicer: which signals come, in which order, and which do not."""

from pathlib import Path
from typing import Any, ClassVar

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Signal

from Testing.gui.standin import Standin, standin


@standin("ctkCollapsibleButton")
class CollapsibleButton(Standin, QtWidgets.QAbstractButton):
    """A button with contents. Collapsed means unchecked; a child hidden by the product stays hidden when it opens."""

    contentsCollapsed = Signal(bool)
    remembered: ClassVar[dict[str, Any]] = {
        "collapsedHeight": 14,
        "flat": False,
        "contentsFrameShape": 0,
        "contentsFrameShadow": 16,
        "contentsLineWidth": 1,
        "contentsMidLineWidth": 0,
        "buttonTextAlignment": 129,
        "indicatorAlignment": 129,
    }

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._hidden: list[QtWidgets.QWidget] = []
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
        self._show_children(opened)
        self.contentsCollapsed.emit(not opened)

    def _show_children(self, shown: bool) -> None:
        children = self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindChildOption.FindDirectChildrenOnly)
        if shown:
            for child in self._hidden:
                child.setVisible(True)
            self._hidden = []
            return
        now = [child for child in children if child.isVisibleTo(self)]
        self._hidden += now
        for child in now:
            child.setVisible(False)

    def sizeHint(self) -> QtCore.QSize:
        wanted = super().sizeHint() if self.layout() is None else self.layout().sizeHint()
        return QtCore.QSize(max(wanted.width(), 80), 22 if self.collapsed else max(wanted.height(), 22))

    def paintEvent(self, event: Any) -> None:
        painter = QtGui.QPainter(self)
        painter.fillRect(0, 0, self.width(), 20, self.palette().button())
        painter.drawText(6, 15, ("▸ " if self.collapsed else "▾ ") + self.text().replace("&", ""))
        painter.drawRect(0, 0, self.width() - 1, self.height() - 1)


@standin("ctkCheckBox")
class CheckBox(Standin, QtWidgets.QCheckBox):
    pass


@standin("ctkPushButton")
class PushButton(Standin, QtWidgets.QPushButton):
    remembered: ClassVar[dict[str, Any]] = {"buttonTextAlignment": 132, "iconAlignment": 1, "elideMode": 3}


@standin("ctkMessageBox")
class MessageBox(Standin, QtWidgets.QMessageBox):
    remembered: ClassVar[dict[str, Any]] = {
        "dontShowAgain": False,
        "dontShowAgainSettingsKey": "",
        "dontShowAgainVisible": False,
    }


@standin("ctkComboBox")
class ComboBox(Standin, QtWidgets.QComboBox):
    """The default text is only drawn while nothing is chosen."""

    returnRelease = Signal()
    remembered: ClassVar[dict[str, Any]] = {
        "defaultText": "",
        "defaultIcon": QtGui.QIcon(),
        "forceDefault": False,
        "elideMode": 3,
        "scrollWheelEffect": 1,
    }

    @property
    def currentUserDataAsString(self) -> str:
        value = self.currentData()
        return "" if value is None else str(value)

    @currentUserDataAsString.setter
    def currentUserDataAsString(self, value: str) -> None:
        self.setCurrentUserDataAsString(value)

    def setCurrentUserDataAsString(self, value: str) -> None:
        index = self.findData(value)
        if index >= 0:
            self.setCurrentIndex(index)


@standin("ctkCollapsibleGroupBox")
class CollapsibleGroupBox(Standin, QtWidgets.QGroupBox):
    remembered: ClassVar[dict[str, Any]] = {"collapsedHeight": 0}

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.setCheckable(True)
        self.toggled.connect(self._show_children)

    @property
    def collapsed(self) -> bool:
        return not self.isChecked()

    @collapsed.setter
    def collapsed(self, value: bool) -> None:
        self.setChecked(not value)

    def _show_children(self, shown: bool) -> None:
        for child in self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindChildOption.FindDirectChildrenOnly):
            child.setVisible(shown)


@standin("ctkPathLineEdit")
class PathLineEdit(Standin, QtWidgets.QWidget):
    """A path to type. Emptied, it says only that the input is not valid any more, not that the path changed."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    remembered: ClassVar[dict[str, Any]] = {
        "label": "",
        "filters": 24663,
        "options": 0,
        "settingKey": "",
        "showBrowseButton": True,
        "showHistoryButton": True,
        "sizeAdjustPolicy": 2,
        "minimumContentsLength": 0,
        "nameFilters": [],
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

    def comboBox(self) -> QtWidgets.QComboBox:
        return self._combo

    def addCurrentPathToHistory(self) -> None:
        if self.currentPath and self._combo.findText(self.currentPath) < 0:
            self._combo.addItem(self.currentPath)

    def _changed(self, text: str) -> None:
        if text:
            self.currentPathChanged.emit(text)
        if bool(text) != self._valid:
            self._valid = bool(text)
            self.validInputChanged.emit(self._valid)


@standin("ctkDirectoryButton")
class DirectoryButton(Standin, QtWidgets.QWidget):
    directoryChanged = Signal(str)
    directorySelected = Signal(str)
    remembered: ClassVar[dict[str, Any]] = {"caption": "", "acceptMode": 0}

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*[value for value in arguments if not isinstance(value, str)])
        self._directory = next((value for value in arguments if isinstance(value, str)), ".")
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._button = QtWidgets.QPushButton(self._directory, self)
        row.addWidget(self._button)

    @property
    def directory(self) -> str:
        return self._directory

    @directory.setter
    def directory(self, path: str) -> None:
        path = str(Path(path))
        if path != self._directory:
            self._directory = path
            self._button.setText(path)
            self.directoryChanged.emit(path)


@standin("ctkColorPickerButton")
class ColorPickerButton(Standin, QtWidgets.QPushButton):
    colorChanged = Signal(QtGui.QColor)
    remembered: ClassVar[dict[str, Any]] = {"displayColorName": True, "dialogOptions": 0}

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*[value for value in arguments if not isinstance(value, (QtGui.QColor, str))])
        self._color = QtGui.QColor("black")

    @property
    def color(self) -> QtGui.QColor:
        return self._color

    @color.setter
    def color(self, value: QtGui.QColor) -> None:
        self.setColor(value)

    def setColor(self, value: QtGui.QColor) -> None:
        if value != self._color:
            self._color = QtGui.QColor(value)
            self.colorChanged.emit(self._color)
