"""What Slicer's widgets report, and in which order, while something happens to them: recorded in Slicer.

Each story runs in Slicer and on the stand-in (see `manners.py`), and must give the same list.
"""

import enum
import functools
import pathlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

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


def _selector(**properties: Any) -> tuple[Any, Ear]:
    import slicer

    slicer.mrmlScene.Clear(0)
    combo = slicer.qMRMLNodeComboBox()
    combo.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    for name, value in properties.items():
        setattr(combo, name, value)
    ear = Ear(
        combo,
        "currentNodeChanged(vtkMRMLNode*)",
        "nodeAdded(vtkMRMLNode*)",
        "nodeAboutToBeRemoved(vtkMRMLNode*)",
        "nodeActivated(vtkMRMLNode*)",
    )
    return combo, ear


def _state(combo: Any, ear: Ear) -> tuple[Any, int, list[Any]]:
    node = combo.currentNode()
    return (None if node is None else node.GetName(), combo.nodeCount(), ear.take())


@story(
    [
        (None, 0, False),
        (None, 0, [("currentNodeChanged", None)]),
        (None, 1, [("nodeAdded", "A")]),
        (None, 2, [("nodeAdded", "B")]),
        ("B", 2, [("currentNodeChanged", "B"), ("nodeActivated", "B")]),
        ("B", 2, []),
        ("A", 1, [("nodeAboutToBeRemoved", "B"), ("currentNodeChanged", "A"), ("nodeActivated", "A")]),
        ("A2", 1, [("currentNodeChanged", "A2")]),
        (None, 0, [("nodeAboutToBeRemoved", "A2"), ("currentNodeChanged", None)]),
    ]
)
def nodes_come_and_go() -> list[Any]:
    import slicer

    combo, ear = _selector()
    found: list[Any] = [(combo.currentNode(), combo.nodeCount(), combo.enabled)]
    combo.setMRMLScene(slicer.mrmlScene)
    found.append(_state(combo, ear))
    nodes = []
    for name in "AB":
        nodes.append(add_volume(name))
        found.append(_state(combo, ear))
    for _ in range(2):
        combo.setCurrentNode(nodes[1])
        found.append(_state(combo, ear))
    slicer.mrmlScene.RemoveNode(nodes[1])
    found.append(_state(combo, ear))
    nodes[0].SetName("A2")
    found.append(_state(combo, ear))
    slicer.mrmlScene.RemoveNode(nodes[0])
    found.append(_state(combo, ear))
    return found


@story(
    [
        ("A", 2, [("nodeAdded", "A"), ("nodeAdded", "B"), ("currentNodeChanged", "A"), ("nodeActivated", "A")]),
        (None, 2, [("currentNodeChanged", None)]),
        ("B", 2, [("currentNodeChanged", "B"), ("nodeActivated", "B")]),
        (None, 2, [("currentNodeChanged", None)]),
        ("B", 2, [("currentNodeChanged", "B"), ("nodeActivated", "B")]),
        (None, 0, [("currentNodeChanged", None)]),
        (None, 1, [("nodeAdded", "C")]),
        (None, 0, []),
    ]
)
def a_scene_with_nodes_is_set_and_closed() -> list[Any]:
    import slicer

    combo, ear = _selector()
    add_volume("A")
    second = add_volume("B")
    combo.setMRMLScene(slicer.mrmlScene)
    found = [_state(combo, ear)]
    combo.setCurrentNode(None)
    found.append(_state(combo, ear))
    combo.setCurrentNodeID(second.GetID())
    found.append(_state(combo, ear))
    combo.currentNodeID = ""
    found.append(_state(combo, ear))
    combo.currentNodeID = second.GetID()
    found.append(_state(combo, ear))
    slicer.mrmlScene.Clear(0)
    found.append(_state(combo, ear))
    add_volume("C")
    found.append(_state(combo, ear))
    combo.setMRMLScene(None)
    found.append(_state(combo, ear))
    return found


@story(
    [
        (None, 4, 5),
        ("Q", 4, [("currentNodeChanged", "Q"), ("nodeActivated", "Q")]),
        ("R", 3, [("nodeAboutToBeRemoved", "Q"), ("currentNodeChanged", "R")]),
        ("R", 2, [("nodeAboutToBeRemoved", "P"), ("currentNodeChanged", "R")]),
        ("S", 2, [("currentNodeChanged", "S"), ("nodeActivated", "S")]),
        ("R", 1, [("nodeAboutToBeRemoved", "S"), ("currentNodeChanged", "R"), ("nodeActivated", "R")]),
        (None, 2, [("nodeAdded", "L"), ("currentNodeChanged", None)]),
        (None, 2, []),
    ]
)
def none_is_allowed() -> list[Any]:
    import slicer

    combo, ear = _selector(noneEnabled=True)
    nodes = [add_volume(name) for name in "PQRS"]
    combo.setMRMLScene(slicer.mrmlScene)
    times = sum(one == ("currentNodeChanged", None) for one in ear.take())
    found: list[Any] = [(combo.currentNode(), combo.nodeCount(), times)]
    combo.setCurrentNode(nodes[1])
    found.append(_state(combo, ear))
    for number in (1, 0):
        slicer.mrmlScene.RemoveNode(nodes[number])
        found.append(_state(combo, ear))
    combo.setCurrentNode(nodes[3])
    found.append(_state(combo, ear))
    slicer.mrmlScene.RemoveNode(nodes[3])
    found.append(_state(combo, ear))
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "L")
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "other type")
    combo.setCurrentNode(other)
    found.append(_state(combo, ear))
    hidden = slicer.vtkMRMLScalarVolumeNode()
    hidden.SetHideFromEditors(1)
    slicer.mrmlScene.AddNode(hidden)
    combo.setCurrentNode(hidden)
    found.append(_state(combo, ear))
    combo.setMRMLScene(None)
    return found


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


UI = Path(__file__).with_name("story.ui")


class Device(enum.Enum):
    AUTO = 1
    CPU = 2


def _wrapper_class() -> type:
    from slicer import vtkMRMLScalarVolumeNode
    from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper

    @parameterNodeWrapper
    class Parameters:
        volume: vtkMRMLScalarVolumeNode
        level: Annotated[float, WithinRange(0, 10), Default(2.5)]
        invert: bool = False
        policy: Annotated[str, Choice(["auto", "ct", "raw"]), Default("ct")]
        device: Device = Device.CPU
        count: Annotated[int, WithinRange(0, 9)] = 4
        words: str = "liver"
        folder: pathlib.Path

    return Parameters


def _load() -> tuple[Any, Any]:
    import slicer

    slicer.mrmlScene.Clear(0)
    panel = slicer.util.loadUI(str(UI))
    return panel, slicer.util.childWidgetVariables(panel)


@story(
    [
        ["apply", "check", "count", "device", "folder", "label", "policy", "section", "segments", "slider"],
        ("qMRMLWidget", "qMRMLNodeComboBox", "QDoubleSpinBox", "QPushButton"),
        (("vtkMRMLScalarVolumeNode",), True, False, True),
        (True, "Advanced", True),
        [False, False, True, False, False, True],
        (0.5, 8193, 9, False, 7),
        (None, True, True),
        (True, [("toggled", True)]),
        (False, True),
    ]
)
def a_panel_from_a_file() -> list[Any]:
    import slicer

    panel, ui = _load()
    own = ("apply", "check", "count", "device", "folder", "label", "policy", "section", "segments", "slider")
    found: list[Any] = [[name for name in own if hasattr(ui, name)]]
    found.append(tuple(one.className() for one in (panel, ui.volumeSelector, ui.slider, ui.apply)))
    selector = ui.volumeSelector
    found.append((selector.nodeTypes, selector.noneEnabled, selector.addEnabled, "The volume" in selector.toolTip))
    found.append((ui.section.collapsed, ui.section.text, ui.slider.isVisibleTo(panel)))
    found.append(
        (
            ui.slider.singleStep,
            int(ui.folder.filters),
            ui.count.maximum,
            ui.segments.opacityColumnVisible,
            ui.apply.sizePolicy.horizontalPolicy(),
        )
    )
    before = selector.mrmlScene()
    panel.setMRMLScene(slicer.mrmlScene)
    found.append((before, selector.mrmlScene() is slicer.mrmlScene, ui.segments.mrmlScene() is slicer.mrmlScene))
    ear = Ear(ui.check, "toggled(bool)")
    ui.apply.checked = True
    found.append((ui.check.checked, ear.take()))
    panel.show()
    shown = [ui.slider.isVisibleTo(panel)]
    for change in (
        lambda: setattr(ui.slider, "visible", True),
        lambda: setattr(ui.section, "collapsed", False),
        lambda: ui.slider.setVisible(False),
        lambda: (setattr(ui.section, "collapsed", True), setattr(ui.section, "collapsed", False)),
        lambda: (setattr(ui.section, "collapsed", True), ui.slider.show(), setattr(ui.section, "collapsed", False)),
    ):
        change()
        shown.append(ui.slider.isVisibleTo(panel))
    found.insert(4, shown)
    panel.close()
    found.append((ui.apply.parent() is ui.section, ui.apply.parent() is panel))
    panel.setMRMLScene(None)
    return found


@story(
    [
        (None, 2.5, False, "ct", "CPU", 4, "liver", "."),
        ("", 2.5, False, "ct", "CPU", 4, "liver", "."),
        (0.0, 10.0, ["auto", "ct", "raw"], ["AUTO", "CPU"]),
        ("CT", 7.0, True, "raw", "AUTO", 9, "kidney", "/tmp"),
        ("CT", 7.0, True, "raw", "AUTO", 9, "kidney", "/tmp"),
        ["7.0", "True", "raw", "AUTO", "9", "kidney", "/tmp"],
        (None, 1.5, True, "auto", "CPU", 9, "spleen", "/tmp"),
        ("", 1.5, True, "auto", "CPU", 9, "spleen", "/tmp"),
        [ValueError, ValueError, ValueError],
        ("kidney", "spleen"),
    ]
)
def parameters_and_widgets_follow_each_other() -> list[Any]:
    import slicer

    parameters_class = _wrapper_class()
    panel, ui = _load()
    volume = add_volume("CT")
    panel.setMRMLScene(slicer.mrmlScene)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    parameters = parameters_class(node)
    found: list[Any] = []

    def in_node() -> None:
        chosen = None if parameters.volume is None else parameters.volume.GetName()
        rest = (parameters.level, parameters.invert, parameters.policy, parameters.device.name, parameters.count)
        found.append((chosen, *rest, parameters.words, str(parameters.folder)))

    def in_widgets() -> None:
        chosen = "" if ui.volumeSelector.currentNode() is None else ui.volumeSelector.currentNode().GetName()
        choices = (ui.policy.currentText, ui.device.currentText)
        found.append(
            (chosen, ui.slider.value, ui.check.checked, *choices, ui.count.value, ui.words.text, ui.folder.currentPath)
        )

    in_node()
    tag = parameters.connectGui(ui)
    in_widgets()
    entries = [[box.itemText(n) for n in range(box.count)] for box in (ui.policy, ui.device)]
    found.append((ui.slider.minimum, ui.slider.maximum, *entries))
    ui.volumeSelector.setCurrentNode(volume)
    ui.slider.value = 7
    ui.check.checked = True
    ui.policy.currentText = "raw"
    ui.device.setCurrentIndex(0)
    ui.count.value = 12
    ui.words.text = "kidney"
    ui.folder.currentPath = "/tmp"
    in_node()
    in_widgets()
    found.append(
        [node.GetParameter(name) for name in ("level", "invert", "policy", "device", "count", "words", "folder")]
    )
    parameters.volume = None
    parameters.level = 1.5
    parameters.policy = "auto"
    parameters.device = Device.CPU
    parameters.words = "spleen"
    in_node()
    in_widgets()
    errors = []
    for name, value in (("level", 11.0), ("policy", "other"), ("count", 10)):
        try:
            setattr(parameters, name, value)
        except Exception as error:
            errors.append(type(error))
    found.append(errors)
    parameters.disconnectGui(tag)
    ui.words.text = "kidney"
    found.append((ui.words.text, parameters.words))
    panel.setMRMLScene(None)
    return found
