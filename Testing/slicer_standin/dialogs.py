"""Modal dialogs are real, and a script answers them; one that was not announced fails the test."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PySide6 import QtCore, QtWidgets

from Testing.slicer_standin.methods import behaves
from Testing.slicer_standin.problems import UnexpectedDialog, note
from Testing.slicer_standin.proxy import Wrapper, unwrap, wrap


@dataclass(frozen=True, slots=True)
class Answer:
    """What the user will do with the next dialog; made by `press`, `use`, `choose_file`, `enter` and `pick`."""

    kind: str
    value: Any
    containing: str = ""


def press(button: str, containing: str = "") -> Answer:
    """Press the button with this text or standard name ("Ok", "Cancel", "Yes"); the dialog must contain a text."""
    return Answer("press", button, containing)


def use(function: Callable[[Any], None], containing: str = "") -> Answer:
    """Do something with the open dialog, which the function gets and must close."""
    return Answer("use", function, containing)


def choose_file(path: Any) -> Answer:
    """Choose a file or folder in a file dialog; "" cancels."""
    return Answer("file", str(path))


def enter(value: Any) -> Answer:
    """Enter a text or number, or choose an item, in an input dialog; None cancels."""
    return Answer("input", value)


def pick(action: str) -> Answer:
    """Choose the entry of a menu that opens; "" closes it."""
    return Answer("menu", action)


@dataclass(frozen=True, slots=True)
class Shown:
    """A dialog that came up: its class, its title, and all the text on it."""

    kind: str
    title: str
    text: str


_answers: list[Answer] = []
shown: list[Shown] = []


def announce(*answers: Answer) -> None:
    """The dialogs that follow, in their order, and what the user does with them."""
    _answers.extend(answers)


def not_shown() -> list[Answer]:
    """What was announced and did not come up."""
    return list(_answers)


def forget() -> None:
    _answers.clear()
    shown.clear()


def _next_answer(kinds: tuple[str, ...], dialog: Shown) -> Answer:
    shown.append(dialog)
    if not _answers:
        raise UnexpectedDialog(f"a dialog that nobody announced: {dialog}")
    answer = _answers.pop(0)
    if answer.kind not in kinds or answer.containing not in dialog.text:
        raise UnexpectedDialog(f"{answer} was announced, but this came up: {dialog}")
    return answer


def _text_of(q: QtWidgets.QDialog) -> str:
    if isinstance(q, QtWidgets.QMessageBox):
        return "\n".join(filter(None, (q.text(), q.informativeText(), q.detailedText())))
    if isinstance(q, QtWidgets.QProgressDialog):
        return q.labelText()
    texts = []
    for child in q.findChildren(QtWidgets.QWidget):
        if isinstance(child, (QtWidgets.QTextEdit, QtWidgets.QPlainTextEdit)):
            texts.append(child.toPlainText())
        elif isinstance(child, (QtWidgets.QLabel, QtWidgets.QLineEdit, QtWidgets.QAbstractButton)):
            texts.append(child.text())
    return "\n".join(filter(None, texts))


def _run(q: QtWidgets.QDialog) -> int:
    """Open a dialog, let the script answer, and wait until it is closed."""
    described = Shown(type(q).__name__, q.windowTitle(), _text_of(q))
    answer = _next_answer(("press", "use"), described)

    def act() -> None:
        try:
            if answer.kind == "use":
                answer.value(wrap(q))
            else:
                _button(q, answer.value).click()
            if q.isVisible():
                raise UnexpectedDialog(f"{answer} left the dialog open: {described}")
        except BaseException as error:
            note(error)
            q.done(0)

    QtCore.QTimer.singleShot(0, act)
    return q.exec()


def _button(q: QtWidgets.QDialog, name: str) -> QtWidgets.QAbstractButton:
    boxes = [q, *q.findChildren(QtWidgets.QDialogButtonBox)]
    for box in boxes:
        if isinstance(box, (QtWidgets.QMessageBox, QtWidgets.QDialogButtonBox)):
            standard = getattr(type(box).StandardButton, name, None)
            if standard is not None and box.button(standard) is not None:
                return box.button(standard)
    buttons = q.findChildren(QtWidgets.QAbstractButton)
    found = [button for button in buttons if button.text().replace("&", "") == name]
    if not found:
        texts = [button.text() for button in buttons]
        raise UnexpectedDialog(f"no button {name!r} on {type(q).__name__} with {texts}")
    return found[0]


@behaves("QDialog", "exec")
def execute(proxy: Wrapper) -> int:
    return wrap(_run(proxy._live("open")))


@behaves("QDialog", "open")
def open_dialog(proxy: Wrapper) -> None:
    _run(proxy._live("open"))


def _message(icon: str) -> Callable:
    def show(_: None, parent: Any, title: str, text: str, buttons: int = 0x400, default: int = 0) -> int:
        box = QtWidgets.QMessageBox(unwrap(parent))
        box.setIcon(getattr(QtWidgets.QMessageBox.Icon, icon))
        box.setWindowTitle(title)
        box.setText(text)
        box.setStandardButtons(QtWidgets.QMessageBox.StandardButton(int(buttons)))
        box.setDefaultButton(QtWidgets.QMessageBox.StandardButton(int(default)))
        return int(_run(box))

    return show


for _name, _icon in (
    ("question", "Question"),
    ("information", "Information"),
    ("warning", "Warning"),
    ("critical", "Critical"),
):
    behaves("QMessageBox", _name)(_message(_icon))


def _file_dialog(name: str) -> Callable:
    def ask(_: None, parent: Any = None, title: str = "", *_rest: Any) -> Any:
        chosen = _next_answer(("file",), Shown(f"QFileDialog.{name}", title, "")).value
        if name == "getOpenFileNames":
            return tuple(filter(None, chosen.split(";")))
        return chosen

    return ask


for _name in ("getOpenFileName", "getOpenFileNames", "getSaveFileName", "getExistingDirectory"):
    behaves("QFileDialog", _name)(_file_dialog(_name))


def _input_dialog(name: str, nothing: Any) -> Callable:
    def ask(_: None, parent: Any, title: str, label: str, *_rest: Any) -> Any:
        value = _next_answer(("input",), Shown(f"QInputDialog.{name}", title, label)).value
        return nothing if value is None else value

    return ask


for _name, _nothing in (("getText", ""), ("getMultiLineText", ""), ("getItem", ""), ("getInt", 0), ("getDouble", 0.0)):
    behaves("QInputDialog", _name)(_input_dialog(_name, _nothing))


@behaves("QMenu", "exec")
def open_menu(proxy: Wrapper | None, *_: Any) -> Any:
    actions = {action.text().replace("&", ""): action for action in proxy._live("open").actions()}
    wanted = _next_answer(("menu",), Shown("QMenu", proxy._q.title(), "\n".join(actions))).value
    if not wanted:
        return None
    actions[wanted].trigger()
    return wrap(actions[wanted])
