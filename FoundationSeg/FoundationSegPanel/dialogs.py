"""What every dialog has in common: it comes from a ``.ui`` file, belongs to a window, and runs no loop of its own."""

from pathlib import Path
from typing import Any

import qt
import slicer

_UI_FOLDER = Path(__file__).resolve().parents[1] / "Resources" / "UI"


def make_dialog(name: str, title: str, parent: Any) -> tuple[Any, Any]:
    """A dialog that is not shown yet, and its widgets by their names.

    Args:
        name: the file in ``Resources/UI``, without its ending; its outermost widget is a QWidget.
        title: of the window.
        parent: the window it belongs to, and closes with; None without a main window.
    """
    dialog = qt.QDialog(parent)
    dialog.setWindowTitle(title)
    content = slicer.util.loadUI(str(_UI_FOLDER / f"{name}.ui"))
    layout = qt.QVBoxLayout(dialog)
    layout.addWidget(content)
    dialog.resize(content.width, content.height)
    return dialog, slicer.util.childWidgetVariables(content)


def fill_row(table: Any, row: int, texts: tuple[str, ...]) -> None:
    """Write a row of a table that nobody edits; what is there already is left alone, which is much faster."""
    for column, text in enumerate(texts):
        item = table.item(row, column)
        if item is None:
            item = qt.QTableWidgetItem()
            item.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled)
            table.setItem(row, column, item)
        if item.text() != text:
            item.setText(text)
            item.setToolTip(text)
