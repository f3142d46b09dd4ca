"""One picture of a panel and the slice views beside it."""

from PySide6 import QtGui, QtWidgets

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
