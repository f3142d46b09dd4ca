"""Widgets that the parts of the panel share: guarded slots, combo boxes for values, tables and dialogs."""

import functools
import inspect
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.errors import FoundationSegError, OutputError, PromptError, write_failure
from FoundationSegLib.progress import ProgressReport

from .parameters import PanelState, Parameters

UI_FOLDER = Path(__file__).resolve().parents[1] / "Resources" / "UI"
Report = Callable[[FoundationSegError], None]


class Reporting(Protocol):
    """An object with slots: it can show the user an error."""

    def report(self, error: FoundationSegError) -> None:
        """Show an error."""
        ...


def connect(owner: Reporting, sender: Any, signal: str, function: Callable[..., object]) -> None:
    """Connect a signal to a function. The owner reports what goes wrong, and nothing is lost.

    Arguments that the signal has and the function does not take are dropped, as PythonQt does it for plain functions.
    """
    try:
        count = len(inspect.signature(function).parameters)
    except ValueError:  # a slot of Qt's own, as PythonQt wraps it
        count = 0
    sender.connect(signal, lambda *arguments: _guard(owner, function, arguments[:count]))


def slot(method: Callable[..., None]) -> Callable[..., None]:
    """Make a method that may be called by Qt and VTK: its owner reports what goes wrong, as :func:`connect`."""

    @functools.wraps(method)
    def guarded(self: Reporting, *arguments: Any) -> None:
        _guard(self, functools.partial(method, self), arguments)

    return guarded


def _guard(owner: Reporting, function: Callable[..., object], arguments: Sequence[Any]) -> None:
    try:
        function(*arguments)
    except FoundationSegError as error:
        owner.report(error)
    except Exception as error:  # the GUI's boundary: a defect must not be silent, and must not end the session
        logging.getLogger("FoundationSeg").exception("a defect of FoundationSeg")
        text = _("a defect of FoundationSeg: {kind}: {reason}").format(kind=type(error).__name__, reason=error)
        owner.report(FoundationSegError(text))


def draw_views_next(wait_ms: int = 0) -> None:
    """Have the views drawn once, in the next turn of the event loop; in this one, each event of a node might do it.

    Turns that end before ``wait_ms`` milliseconds are over are drawn together.
    """
    slicer.app.pauseRender()
    qt.QTimer.singleShot(wait_ms, slicer.app.resumeRender)


class Later:
    """Calls functions in later turns of the event loop, one in each, so that the user is not kept waiting in between.

    Args:
        report: shows the user an error.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self._functions: dict[Callable[[], None], None] = {}
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.connect("timeout()", self._call_next)

    def __call__(self, function: Callable[[], None]) -> None:
        """Call a function soon, once, however often that is said until then."""
        self._functions[function] = None
        self._timer.start(0)

    def stop(self) -> None:
        """Call nothing more."""
        self._functions.clear()
        self._timer.stop()

    @slot
    def _call_next(self) -> None:
        function = next(iter(self._functions))
        del self._functions[function]
        if self._functions:
            self._timer.start(0)
        draw_views_next()
        function()


def offer(button: Any, reason: str) -> None:
    """Enable a button unless there is a reason against it. Its tooltip is that reason, or says what the button does."""
    if not button.whatsThis:
        button.whatsThis = button.toolTip
    button.setEnabled(not reason)
    button.setToolTip(reason or button.whatsThis)


class ChoiceBox:
    """Keeps a combo box and a value in step; signals caused by showing are not reported.

    Args:
        box: the `QComboBox`.
        on_chosen: called with the value that the user has chosen.
        entries: the values and their texts for people.
    """

    def __init__(self, box: Any, on_chosen: Callable[[str], None], entries: Sequence[tuple[str, str]] = ()) -> None:
        self._box, self._on_chosen = box, on_chosen
        self._values: tuple[str, ...] = ()
        self.fill(entries)
        box.connect("activated(int)", self._activated)

    def fill(self, entries: Sequence[tuple[str, str]]) -> None:
        """Show these values with their texts, unless they are shown already."""
        if self._values == tuple(value for value, _text in entries):
            return
        self._box.clear()
        self._values = tuple(value for value, _text in entries)
        for _value, text in entries:
            self._box.addItem(text)

    def show(self, value: str) -> None:
        """Show a value; one that is not among the entries shows none."""
        index = self._values.index(value) if value in self._values else -1
        if self._box.currentIndex != index:
            self._box.setCurrentIndex(index)

    def _activated(self, index: int) -> None:
        if 0 <= index < len(self._values):
            self._on_chosen(self._values[index])


class Part:
    """A part of the panel: widgets that show the state and change it. It knows no other part.

    Args:
        ui: the widgets of ``FoundationSeg.ui`` by their names.
        state: the controller and the parameters.
        report: shows the user an error.
    """

    def __init__(self, ui: Any, state: PanelState, report: Report) -> None:
        self._ui, self._state, self._controller, self.report = ui, state, state.controller, report

    @property
    def _parameters(self) -> Parameters:
        """The parameter node. Parts are shown, and used, only while there is one."""
        return self._state.parameters

    def _connect(self, sender: Any, function: Callable[..., object], signal: str = "clicked()") -> None:
        connect(self, sender, signal, function)

    def _choice_box(self, box: Any, parameter: str, entries: Sequence[tuple[str, str]] = ()) -> ChoiceBox:
        """Make a combo box that sets a parameter."""
        return ChoiceBox(box, lambda value: setattr(self._parameters, parameter, value), entries)


def is_image(node: Any) -> bool:
    """Return True for a node that can be worked on: a volume that is no label map."""
    return bool(node.IsA("vtkMRMLScalarVolumeNode") and not node.IsA("vtkMRMLLabelMapVolumeNode"))


# Tables and dialogs


def set_up_table(table: Any, headings: Sequence[str], stretch: int | None = None) -> None:
    """Give a table that nobody edits its columns. One of them takes the room that is left, the last unless named."""
    table.setColumnCount(len(headings))
    table.setHorizontalHeaderLabels(headings)
    header = table.horizontalHeader()
    header.setStretchLastSection(stretch is None)
    for column in range(len(headings)) if stretch is not None else ():
        mode = qt.QHeaderView.Stretch if column == stretch else qt.QHeaderView.ResizeToContents
        header.setSectionResizeMode(column, mode)
    table.verticalHeader().setVisible(False)


def fill_row(table: Any, row: int, texts: Sequence[str]) -> None:
    """Write a row of a table; cells that are right already are left alone, which is much faster."""
    for column, text in enumerate(texts):
        item = table.item(row, column)
        if item is None:
            item = qt.QTableWidgetItem()
            item.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled)
            table.setItem(row, column, item)
        if item.text() != text:
            item.setText(text)
            item.setToolTip(text)


def fill_table(table: Any, rows: Sequence[Sequence[str]]) -> None:
    """Write all rows of a table."""
    table.setRowCount(len(rows))
    for number, texts in enumerate(rows):
        fill_row(table, number, texts)


def selected_rows(table: Any) -> list[int]:
    """Return the selected rows of a table, in order."""
    return sorted({index.row() for index in table.selectionModel().selectedRows()})


def show_fraction(bar: Any, report: ProgressReport) -> None:
    """Show how much of a task is done; a bar without end where the total is not known."""
    bar.setRange(0, 1000 if report.total else 0)
    bar.setValue(round(1000 * report.done / report.total) if report.total else 0)


def time_left_text(seconds: float | None) -> str:
    """Say about how long it still takes."""
    if seconds is None:
        return _("time left not known yet")
    if seconds < 1:
        return _("a moment left")
    if seconds < 90:
        return _("about {count} s left").format(count=round(seconds))
    return _("about {count} min left").format(count=round(seconds / 60))


def error_text(error: FoundationSegError) -> str:
    """Return the message of an error. Of a prompt that was drawn, without its place in a prompts file.

    The panel shows messages of the library here alone: they are English, as its notes and cards are.
    """
    return error.problem if isinstance(error, PromptError) else str(error)


class Dialog:
    """A dialog from a ``.ui`` file that belongs to a window and runs no loop of its own.

    Attributes:
        dialog: the window.
        ui: its widgets by their names.
    """

    def __init__(self, name: str, title: str, parent: Any) -> None:
        """Build it, not shown yet.

        Args:
            name: the file in ``Resources/UI``, without its ending; its outermost widget is a QWidget.
            title: of the window.
            parent: the window it belongs to, and closes with; None without a main window.
        """
        self.dialog = qt.QDialog(parent)
        self.dialog.setWindowTitle(title)
        content = slicer.util.loadUI(str(UI_FOLDER / f"{name}.ui"))
        layout = qt.QVBoxLayout(self.dialog)
        layout.addWidget(content)
        self.dialog.resize(content.width, content.height)
        self.ui = slicer.util.childWidgetVariables(content)

    def report(self, error: FoundationSegError) -> None:
        """Show an error."""
        slicer.util.errorDisplay(error_text(error), parent=self.dialog)

    def _connect(self, sender: Any, function: Callable[..., object], signal: str = "clicked()") -> None:
        connect(self, sender, signal, function)

    def raise_dialog(self) -> None:
        """Show the window in front of the others."""
        self.dialog.show()
        self.dialog.raise_()

    def close(self) -> None:
        """Take the dialog away for good."""
        self.dialog.close()
        self.dialog.deleteLater()


def save_table(title: str, table: Callable[[], str], name: str) -> None:
    """Ask for a file, called so unless another name is chosen, and write a table of comma-separated values there.

    Raises:
        OutputError: it cannot be written.
    """
    path = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, name, "CSV (*.csv)")
    if path:
        try:
            Path(path).write_text(table(), encoding="utf-8", newline="")
        except OSError as error:
            reason = write_failure(error)
            raise OutputError(_("The table could not be written: {reason}").format(reason=reason)) from error
