"""Slicer's node selector, on the real scene, with the behaviour that was seen in Slicer.

Some of it surprises: a node that is added does not become the current one, even if there is none; when the current node
goes, a neighbour takes its place, also where "none" is allowed; a new name, or a node that goes from above, tells the
same current node again; setting the scene with "none" allowed tells several times that there is none, and taking the
scene away tells nothing.
"""

from typing import Any, ClassVar

import slicer
import vtk
from PySide6 import QtWidgets
from PySide6.QtCore import Signal

from Testing.slicer_standin.standin import SceneUser, standin


@standin("qMRMLNodeComboBox")
class NodeComboBox(SceneUser):
    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    nodeActivated = Signal(object)
    nodeAdded = Signal(object)
    nodeAboutToBeRemoved = Signal(object)
    remembered: ClassVar[dict[str, Any]] = {
        "addEnabled": True,
        "removeEnabled": True,
        "renameEnabled": False,
        "selectNodeUponCreation": True,
        "sizeAdjustPolicy": 1,
    }

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._types: list[str] = []
        self._none = False
        self._children = True
        self._nodes: list[Any] = []
        self._current: Any = None
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._shown = QtWidgets.QComboBox(self)
        self._shown.activated.connect(self._activated)
        row.addWidget(self._shown)
        self.setEnabled(False)

    def setMRMLScene(self, scene: Any) -> None:
        if scene is self._scene:
            return
        super().setMRMLScene(scene)
        self.setEnabled(scene is not None)
        self._nodes = []
        if scene is None:
            self._current = None  # it does not say so
            self._draw()
            return
        self._observed.add(scene, slicer.vtkMRMLScene.NodeAddedEvent, self._on_added)
        self._observed.add(scene, slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, self._on_removal)
        self._observed.add(scene, slicer.vtkMRMLScene.EndCloseEvent, self._on_close)
        self._list_anew()
        if self._none or not self._nodes:
            for _time in range(5 if self._none else 1):
                self._tell(None)
        else:
            self._choose(self._nodes[0], activated=True)

    # The nodes it offers

    @property
    def nodeTypes(self) -> list[str]:
        return self._types

    @nodeTypes.setter
    def nodeTypes(self, types: list[str]) -> None:
        self._types = list(types)
        self._list_anew()

    @property
    def noneEnabled(self) -> bool:
        return self._none

    @noneEnabled.setter
    def noneEnabled(self, value: bool) -> None:
        self._none = value
        self._draw()
        if self._current is not None:
            self._tell(self._current)
        elif not value and self._nodes:
            self._choose(self._nodes[0])

    @property
    def showChildNodeTypes(self) -> bool:
        return self._children

    @showChildNodeTypes.setter
    def showChildNodeTypes(self, value: bool) -> None:
        self._children = value
        self._list_anew()

    def nodeCount(self) -> int:
        return len(self._nodes)

    def nodeFromIndex(self, index: int) -> Any:
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def _offers(self, node: Any) -> bool:
        fitting = [kind for kind in self._types if node.IsA(kind) and (self._children or node.GetClassName() == kind)]
        return bool(fitting) and not node.GetHideFromEditors()

    def _list_anew(self) -> None:
        if self._scene is None:
            return
        present = [self._scene.GetNthNode(n) for n in range(self._scene.GetNumberOfNodes())]
        before, self._nodes = self._nodes, [node for node in present if self._offers(node)]
        for node in self._nodes:
            if node not in before:
                self._observed.add(node, vtk.vtkCommand.ModifiedEvent, self._on_modified)
                self.nodeAdded.emit(node)
        for node in before:
            if node not in self._nodes:
                self.nodeAboutToBeRemoved.emit(node)
        self._draw()
        if self._current is not None and self._current not in self._nodes:
            self._choose(None)

    # The node that is chosen

    def currentNode(self) -> Any:
        return self._current

    @property
    def currentNodeID(self) -> str:
        return "" if self._current is None else self._current.GetID() or ""

    @currentNodeID.setter
    def currentNodeID(self, node_id: str) -> None:
        self.setCurrentNodeID(node_id)

    def setCurrentNodeID(self, node_id: str) -> None:
        self.setCurrentNode(next((node for node in self._nodes if node.GetID() == node_id), None))

    def setCurrentNode(self, node: Any) -> None:
        """A node that it does not offer leaves it with none."""
        if node is not None and not hasattr(node, "IsA"):
            raise TypeError("method requires a VTK object")
        self._choose(node if node in self._nodes else None, activated=True)

    def _choose(self, node: Any, activated: bool = False) -> None:
        if node is self._current:
            return
        self._current = node
        self._draw()
        self._tell(node)
        if activated and node is not None:
            self.nodeActivated.emit(node)

    def _tell(self, node: Any) -> None:
        self.currentNodeChanged.emit(node)
        self.currentNodeIDChanged.emit(self.currentNodeID)

    def _activated(self, row: int) -> None:
        self._choose(self.nodeFromIndex(row - self._none), activated=True)

    # What happens in the scene

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_added(self, _caller: Any, _event: str, node: Any) -> None:
        if self._offers(node):
            self._nodes.append(node)
            self._observed.add(node, vtk.vtkCommand.ModifiedEvent, self._on_modified)
            self._draw()
            self.nodeAdded.emit(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_removal(self, _caller: Any, _event: str, node: Any) -> None:
        if node not in self._nodes:
            return
        if not self._scene.IsClosing():
            self.nodeAboutToBeRemoved.emit(node)
        place = self._nodes.index(node)
        self._nodes.remove(node)
        self._draw()
        if self._scene.IsClosing():
            return
        if node is self._current:
            left = self._nodes[place : place + 1] or self._nodes[-1:]
            self._choose(left[0] if left else None, activated=place == len(self._nodes))
        elif self._current is not None and place <= self._nodes.index(self._current):
            self._tell(self._current)

    def _on_close(self, *_: Any) -> None:
        self._nodes = [node for node in self._nodes if self._scene.IsNodePresent(node)]
        self._choose(None)
        self._draw()

    def _on_modified(self, node: Any, _event: str) -> None:
        rows = [self._shown.itemText(n) for n in range(self._shown.count())]
        if node in self._nodes and node.GetName() not in rows:
            self._draw()
            if node is self._current:
                self._tell(node)

    def _draw(self) -> None:
        self._shown.clear()
        names = [node.GetName() or "" for node in self._nodes]
        self._shown.addItems((["None"] if self._none else []) + names)
        row = self._nodes.index(self._current) + self._none if self._current in self._nodes else 0 if self._none else -1
        self._shown.setCurrentIndex(row)
