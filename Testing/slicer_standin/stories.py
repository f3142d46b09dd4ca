"""What Slicer's widgets report, and in which order, while something happens to them: recorded in Slicer.

Each story runs in Slicer and on the stand-in (see `manners.py`), and must give the same list.
"""

import functools
from collections.abc import Callable
from typing import Any

STORIES: list[tuple[Callable[[], list[Any]], list[Any]]] = []


def story(wanted: list[Any]) -> Callable[[Callable], Callable]:
    def keep(function: Callable) -> Callable:
        STORIES.append((function, wanted))
        return function

    return keep


class Ear:
    """Listens to signals of one object."""

    def __init__(self, widget: Any, *signals: str) -> None:
        self.heard: list[Any] = []
        self._connected = [(signal, functools.partial(self._hear, signal.partition("(")[0])) for signal in signals]
        for signal, function in self._connected:
            widget.connect(signal, function)

    def _hear(self, name: str, *values: Any) -> None:
        shown = [value.GetName() if hasattr(value, "GetName") else value for value in values]
        self.heard.append((name, *shown))

    def take(self) -> list[Any]:
        heard, self.heard = self.heard, []
        return heard


def add_volume(name: str) -> Any:
    import slicer

    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)


@story(
    [
        (False, True, True, []),
        (True, False, False, [("contentsCollapsed", True), ("toggled", False)]),
        (True, False, False, []),
        (False, True, True, [("contentsCollapsed", False), ("toggled", True)]),
        (True, False, False, [("contentsCollapsed", True), ("toggled", False), ("clicked", False)]),
        (False, True, True, [("contentsCollapsed", False), ("toggled", True)]),
        False,
    ]
)
def a_section_is_collapsed() -> list[Any]:
    import ctk
    import qt

    window = qt.QWidget()
    button = ctk.ctkCollapsibleButton(window)
    rows = qt.QVBoxLayout(button)
    inner = qt.QLabel("in")
    rows.addWidget(inner)
    ear = Ear(button, "contentsCollapsed(bool)", "toggled(bool)", "clicked(bool)")
    found: list[Any] = []

    def look(*_: Any) -> None:
        found.append((button.collapsed, button.checked, inner.isVisibleTo(button), ear.take()))

    window.show()
    look()
    for collapsed in (True, True, False):
        button.collapsed = collapsed
        look()
    look(button.click())
    button.checked = True
    look()
    inner.hide()
    button.collapsed = True
    button.collapsed = False
    found.append(inner.isVisibleTo(button))
    window.close()
    return found


@story(
    [
        ("/tmp", [("currentPathChanged", "/tmp"), ("validInputChanged", True)]),
        ("/tmp", []),
        ("/nope", [("currentPathChanged", "/nope")]),
        ("", [("validInputChanged", False)]),
    ]
)
def paths_are_chosen() -> list[Any]:
    import ctk

    line = ctk.ctkPathLineEdit()
    ear = Ear(line, "currentPathChanged(QString)", "validInputChanged(bool)")
    found: list[Any] = []
    for path in ("/tmp", "/tmp", "/nope", ""):
        line.currentPath = path
        found.append((line.currentPath, ear.take()))
    return found


@story(
    [
        ("clicked()", [(), "none", "default 7", "method", (1,)], 1),
        ("clicked(bool)", [(True,), "none", "one True", "default True", "method", (1, True)], 0),
        ("attribute", [(True,), "none", "one True", "default True", "method", (1, True)], 0),
    ]
)
def slots_get_the_arguments_they_can_take() -> list[Any]:
    """The last number is how many slots could not be called: ``one()`` lacks its argument for ``clicked()``."""
    import qt

    log: list[Any] = []

    def one(value: bool) -> None:
        log.append(f"one {value}")

    def default(value: int = 7) -> None:
        log.append(f"default {value}")

    class Holder:
        def method(self) -> None:
            log.append("method")

    holder = Holder()
    slots = (
        lambda *values: log.append(values),
        lambda: log.append("none"),
        one,
        default,
        holder.method,
        functools.partial(lambda *values: log.append(values), 1),
    )
    found: list[Any] = []
    for form in ("clicked()", "clicked(bool)", "attribute"):
        button = qt.QPushButton()
        button.checkable = True
        for slot in slots:
            button.clicked.connect(slot) if form == "attribute" else button.connect(form, slot)
        button.click()
        found.append((form, log[:], len(slots) - len(log)))
        del log[:]
    return found
