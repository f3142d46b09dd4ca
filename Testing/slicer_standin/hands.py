"""A user's hands and eyes: widgets that a user could use, a mouse for slice views, and a picture of both."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtTest import QTest

from Testing.slicer_standin.proxy import unwrap


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
        q.window().activateWindow()
        q.setFocus()
        self.process_events()
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


class ViewMouse:
    """Places are three numbers (RAS in mm) or two (pixels of the view, from the lower left)."""

    def __init__(self, rig: Any, after: Callable[[], None]) -> None:
        self._rig, self._after = rig, after

    def pixels(self, place: Sequence[float]) -> tuple[float, float]:
        """Where a place is in the view.

        Raises:
            AssertionError: it is more than half a millimetre in front of or behind the slice.
        """
        if len(place) == 2:
            return place[0], place[1]
        inverse = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self._rig.slice_node.GetXYToRAS(), inverse)
        x, y, depth, _one = inverse.MultiplyPoint((*place, 1.0))
        to_ras = self._rig.slice_node.GetXYToRAS()
        thickness = sum(to_ras.GetElement(row, 2) ** 2 for row in range(3)) ** 0.5
        if abs(depth) * thickness > 0.5:
            raise AssertionError(f"{tuple(place)} is not in the slice that the view shows")
        return x, y

    def press(self, place: Sequence[float], **keys: bool) -> None:
        """Press the left button; ``ctrl``, ``shift`` and ``alt`` say which keys are held."""
        self._rig.press(self.pixels(place), **keys)
        self._after()

    def move(self, place: Sequence[float], **keys: bool) -> None:
        self._rig.event("MouseMoveEvent", self.pixels(place), **keys)
        self._after()

    def release(self, place: Sequence[float], **keys: bool) -> None:
        self._rig.release(self.pixels(place), **keys)
        self._after()

    def click(self, place: Sequence[float], **keys: bool) -> None:
        self.press(place, **keys)
        self.release(place, **keys)

    def drag(self, *way: Sequence[float], steps: int = 4, **keys: bool) -> None:
        """Press at the first place, pass by the others, release at the last."""
        stops = [self.pixels(place) for place in way]
        self.press(stops[0], **keys)
        for (x0, y0), (x1, y1) in pairwise(stops):
            for n in range(1, steps + 1):
                self.move((x0 + (x1 - x0) * n / steps, y0 + (y1 - y0) * n / steps), **keys)
        self.release(stops[-1], **keys)


_GAP = 6


def compose(widget: QtWidgets.QWidget, views: list[QtGui.QImage]) -> QtGui.QImage:
    """The widget on the left; the views on the right, two in a row."""
    panel = widget.grab().toImage()
    columns = min(2, len(views)) or 1
    rows = [views[n : n + columns] for n in range(0, len(views), columns)]
    width = panel.width() + sum(_GAP + view.width() for view in (rows[0] if rows else []))
    height = max(panel.height(), sum(row[0].height() + _GAP for row in rows) - _GAP if rows else 0)
    picture = QtGui.QImage(width, height, QtGui.QImage.Format.Format_RGB888)
    picture.fill(QtGui.QColor(40, 40, 40))
    painter = QtGui.QPainter(picture)
    painter.drawImage(0, 0, panel)
    top = 0
    for row in rows:
        left = panel.width() + _GAP
        for view in row:
            painter.drawImage(left, top, view)
            left += view.width() + _GAP
        top += row[0].height() + _GAP
    painter.end()
    return picture
