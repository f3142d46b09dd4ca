"""What Slicer's widgets tell, and in which order, while something happens to them: recorded in Slicer.

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
        "nodeAddedByUser(vtkMRMLNode*)",
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
        ("A", 2, [("currentNodeChanged", "A")]),
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
    combo.setCurrentNodeIndex(0)
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
        (
            "Out",
            2,
            [
                ("nodeAdded", "Out"),
                ("currentNodeChanged", "Out"),
                ("nodeActivated", "Out"),
                ("nodeAddedByUser", "Out"),
            ],
        ),
        (None, 3, [("nodeAdded", "L"), ("currentNodeChanged", None)]),
        (None, 3, []),
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
    combo.baseName = "Out"
    combo.addNode()
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
