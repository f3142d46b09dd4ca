"""Tables, sections, numbers, paths, slots and own classes, told as the stories of `stories.py` are."""

import functools
from typing import Any

from Testing.slicer_standin.stories import Ear, story


@story(
    [
        ((), ("a", "b"), []),
        (("b",), ("a", "b"), [("b",)]),
        (("b",), ("a", "b"), []),
        (("a", "b"), ("a", "b"), [("a",), ("a", "b")]),
        ((), ("a", "b"), [()]),
        (("b",), ("a", "b"), [("b",)]),
        (("b",), ("a", "b", "c"), []),
        (("b",), ("a", "b", "c"), []),
        ((), ("a", "c"), [()]),
        (("a",), ("a", "c"), [("a",)]),
        (("a",), ("a",), []),
        ((), ("a",), [()]),
        (("a",), ("a",), [("a",)]),
        ((), (), []),
        ((), ("a",), []),
        ("a", 0, "", -1),
        ((), (), []),
    ]
)
def segments_are_chosen_in_the_table() -> list[Any]:
    import slicer

    slicer.mrmlScene.Clear(0)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    node.CreateDefaultDisplayNodes()
    segmentation = node.GetSegmentation()
    table = slicer.qMRMLSegmentsTableView()
    heard: list[Any] = []
    table.connect(
        "selectionChanged(QItemSelection,QItemSelection)", lambda *_: heard.append(table.selectedSegmentIDs())
    )
    found: list[Any] = []

    def look(*_: Any) -> None:
        found.append((table.selectedSegmentIDs(), table.displayedSegmentIDs(), heard[:]))
        del heard[:]

    table.setMRMLScene(slicer.mrmlScene)
    table.setSegmentationNode(node)
    for name in "ab":
        segmentation.AddEmptySegment(name, name.upper())
    look()
    for wanted in (["b"], ["b"], ["a", "b"], ["nope"], ["b"]):
        look(table.setSelectedSegmentIDs(wanted))
    look(segmentation.AddEmptySegment("c", "C"))
    look(segmentation.GetSegment("b").SetName("BB"))
    look(segmentation.RemoveSegment("b"))
    look(table.setSelectedSegmentIDs(["a"]))
    look(segmentation.RemoveSegment("c"))
    look(table.clearSelection())
    look(table.setSelectedSegmentIDs(["a"]))
    look(table.setSegmentationNode(None))
    look(table.setSegmentationNode(node))
    found.append(
        (table.segmentIDForRow(0), table.rowForSegmentID("a"), table.segmentIDForRow(7), table.rowForSegmentID("z"))
    )
    look(slicer.mrmlScene.RemoveNode(node))
    table.setMRMLScene(None)
    return found


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
        (0.0, 99.99, 0.0, []),
        (0.0, 99.99, 50.123, [("valueChanged", 50.123)]),
        (0.0, 99.99, 99.99, [("valueChanged", 99.99)]),
        (0.0, 20.0, 20.0, [("valueChanged", 20.0)]),
        (30.0, 30.0, 30.0, [("valueChanged", 30.0)]),
        (30.0, 30.0, 30.0, []),
    ]
    * 2
)
def numbers_stay_within_bounds() -> list[Any]:
    import ctk

    found: list[Any] = []
    for kind in (ctk.ctkSliderWidget, ctk.ctkDoubleSpinBox):
        widget = kind()
        ear = Ear(widget, "valueChanged(double)")
        found.append((widget.minimum, widget.maximum, widget.value, ear.take()))
        for name, value in (("value", 50.123), ("value", 500), ("maximum", 20), ("minimum", 30), ("value", 31)):
            setattr(widget, name, value)
            found.append((widget.minimum, widget.maximum, widget.value, ear.take()))
    return found


@story(
    [
        (10.0, 20.0, [("valuesChanged", 10.0, 20.0), ("minimumValueChanged", 10.0), ("maximumValueChanged", 20.0)]),
        (10.0, 15.0, [("valuesChanged", 10.0, 15.0), ("maximumValueChanged", 15.0), ("rangeChanged", 0.0, 15.0)]),
        (12.0, 15.0, [("valuesChanged", 12.0, 15.0), ("minimumValueChanged", 12.0)]),
        (12.0, 12.0, [("valuesChanged", 12.0, 12.0), ("maximumValueChanged", 12.0)]),
        (3.0, 9.0, [("valuesChanged", 3.0, 9.0), ("minimumValueChanged", 3.0), ("maximumValueChanged", 9.0)]),
        (4.0, 9.0, [("valuesChanged", 4.0, 9.0), ("minimumValueChanged", 4.0)]),
        (5.0, 5.0, [("valuesChanged", 5.0, 5.0), ("minimumValueChanged", 5.0), ("maximumValueChanged", 5.0)]),
    ]
)
def a_range_is_moved() -> list[Any]:
    import ctk

    signals = (
        "valuesChanged(double,double)",
        "minimumValueChanged(double)",
        "maximumValueChanged(double)",
        "rangeChanged(double,double)",
    )
    widget = ctk.ctkRangeWidget()
    ear = Ear(widget, *signals)
    found: list[Any] = []

    def look(*_: Any) -> None:
        found.append((widget.minimumValue, widget.maximumValue, ear.take()))

    look(widget.setValues(10, 20))
    look(widget.setRange(0, 15))
    look(setattr(widget, "minimumValue", 12))
    look(widget.setMaximumValue(5))
    look(widget.setValues(9, 3))
    look(setattr(widget, "minimum", 4))
    slider = ctk.ctkDoubleRangeSlider()
    slider.setValues(10, 20)
    ear = Ear(slider, *signals)
    slider.setMaximumValue(5)
    found.append((slider.minimumValue, slider.maximumValue, ear.take()))
    return found


@story(
    [
        ("/tmp", [("currentPathChanged", "/tmp"), ("validInputChanged", True)]),
        ("/tmp", []),
        ("/nope", [("currentPathChanged", "/nope")]),
        ("", [("validInputChanged", False)]),
        ("k2", 1),
        ("k2", 1),
        ("", -1),
    ]
)
def paths_and_texts_are_chosen() -> list[Any]:
    import ctk

    line = ctk.ctkPathLineEdit()
    ear = Ear(line, "currentPathChanged(QString)", "validInputChanged(bool)")
    found: list[Any] = []
    for path in ("/tmp", "/tmp", "/nope", ""):
        line.currentPath = path
        found.append((line.currentPath, ear.take()))
    combo = ctk.ctkComboBox()
    combo.addItem("a", "k1")
    combo.addItem("b", "k2")
    for key in ("k2", "no such key"):
        combo.setCurrentUserDataAsString(key)
        found.append((combo.currentUserDataAsString, combo.currentIndex))
    combo.currentIndex = -1
    found.append((combo.currentUserDataAsString, combo.currentIndex))
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


@story([["close"], True, ["eventFilter"], 1, (True, True, False, "Panel"), [True]])
def a_class_of_the_products_own() -> list[Any]:
    import qt

    log: list[str] = []

    class Panel(qt.QDialog):
        def __init__(self, parent: Any = None) -> None:
            super().__init__(parent)
            self.count = 1

        def closeEvent(self, event: Any) -> None:
            log.append("close")
            qt.QDialog.closeEvent(self, event)

    class Filter(qt.QObject):
        def eventFilter(self, watched: Any, event: Any) -> bool:
            if event.type() == qt.QEvent.EnabledChange:
                log.append("eventFilter")
            return False

    panel = Panel()
    panel.show()
    panel.close()
    found: list[Any] = [log[:], not panel.visible]
    del log[:]
    watcher = Filter(panel)
    panel.installEventFilter(watcher)
    panel.enabled = False
    found += [log[:], panel.count]
    found.append(
        (isinstance(panel, Panel), isinstance(panel, qt.QDialog), isinstance(panel, qt.QWidget), panel.className())
    )
    button = qt.QPushButton("x", panel)
    panel.later = True
    found.append([button.parent() is panel])
    return found
