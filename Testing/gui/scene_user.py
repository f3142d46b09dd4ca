"""Widgets with a scene: they say when it changes, and let go of it in the end."""

from typing import Any

from PySide6 import QtWidgets
from PySide6.QtCore import Signal

from Testing.gui.standin import Standin, standin


class SceneUser(Standin, QtWidgets.QWidget):
    """A widget with a scene, and the observers that it has in it."""

    mrmlSceneChanged = Signal(object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._watched: list[tuple[Any, int]] = []
        self.destroyed.connect(self._stop_watching)

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is self._scene:
            return
        self._stop_watching()
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def _watch(self, sender: Any, event: int, function: Any) -> None:
        self._watched.append((sender, sender.AddObserver(event, function)))

    def _stop_watching(self, *_: Any) -> None:
        for sender, tag in self._watched:
            sender.RemoveObserver(tag)
        self._watched = []


@standin("qMRMLWidget")
class MRMLWidget(SceneUser):
    pass


@standin("qSlicerWidget")
class SlicerWidget(SceneUser):
    pass
