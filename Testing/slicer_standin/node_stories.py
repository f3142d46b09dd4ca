"""Stories of widgets that choose a node of the scene, or a segment."""

from collections.abc import Callable
from typing import Any

from Testing.slicer_standin.stories import Ear, add_volume, story


def _selector(**properties: Any) -> tuple[Any, Ear]:
    import slicer

    slicer.mrmlScene.Clear(0)
    combo = slicer.qMRMLNodeComboBox()
    combo.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    for name, value in properties.items():
        setattr(combo, name, value)
    signals = ("currentNodeChanged", "nodeAdded", "nodeAboutToBeRemoved", "nodeActivated")
    return combo, Ear(combo, *(f"{signal}(vtkMRMLNode*)" for signal in signals))


def _after_each(selector: tuple[Any, Ear], *steps: Callable[[], Any]) -> list[tuple[Any, int, list[Any]]]:
    """The node of a selector, how many it offers, and what it reported, after each step."""
    combo, ear = selector
    states = []
    for step in steps:
        step()
        node = combo.currentNode()
        states.append((None if node is None else node.GetName(), combo.nodeCount(), ear.take()))
    return states


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

    scene, nodes, (combo, ear) = slicer.mrmlScene, [], _selector()
    start = (combo.currentNode(), combo.nodeCount(), combo.enabled)
    return [
        start,
        *_after_each(
            (combo, ear),
            lambda: combo.setMRMLScene(scene),
            lambda: nodes.append(add_volume("A")),
            lambda: nodes.append(add_volume("B")),
            lambda: combo.setCurrentNode(nodes[1]),
            lambda: combo.setCurrentNode(nodes[1]),
            lambda: scene.RemoveNode(nodes[1]),
            lambda: nodes[0].SetName("A2"),
            lambda: scene.RemoveNode(nodes[0]),
        ),
    ]


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
    return _after_each(
        (combo, ear),
        lambda: combo.setMRMLScene(slicer.mrmlScene),
        lambda: combo.setCurrentNode(None),
        lambda: combo.setCurrentNodeID(second.GetID()),
        lambda: setattr(combo, "currentNodeID", ""),
        lambda: setattr(combo, "currentNodeID", second.GetID()),
        lambda: slicer.mrmlScene.Clear(0),
        lambda: add_volume("C"),
        lambda: combo.setMRMLScene(None),
    )


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

    scene, (combo, ear) = slicer.mrmlScene, _selector(noneEnabled=True)
    nodes = [add_volume(name) for name in "PQRS"]
    combo.setMRMLScene(scene)
    times = sum(one == ("currentNodeChanged", None) for one in ear.take())
    start = (combo.currentNode(), combo.nodeCount(), times)

    def choose_another_type() -> None:
        scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "L")
        combo.setCurrentNode(scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "other type"))

    def choose_a_hidden_node() -> None:
        hidden = slicer.vtkMRMLScalarVolumeNode()
        hidden.SetHideFromEditors(1)
        combo.setCurrentNode(scene.AddNode(hidden))

    states = _after_each(
        (combo, ear),
        lambda: combo.setCurrentNode(nodes[1]),
        lambda: scene.RemoveNode(nodes[1]),
        lambda: scene.RemoveNode(nodes[0]),
        lambda: combo.setCurrentNode(nodes[3]),
        lambda: scene.RemoveNode(nodes[3]),
        choose_another_type,
        choose_a_hidden_node,
    )
    combo.setMRMLScene(None)
    return [start, *states]


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
    ids, rows = map(table.segmentIDForRow, (0, 7)), map(table.rowForSegmentID, "az")
    found.append(tuple(value for pair in zip(ids, rows, strict=True) for value in pair))
    look(slicer.mrmlScene.RemoveNode(node))
    table.setMRMLScene(None)
    return found
