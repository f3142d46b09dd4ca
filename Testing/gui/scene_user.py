"""Widgets with a scene: they say when it changes, and let go of it in the end."""

from typing import Any

from PySide6 import QtWidgets
from PySide6.QtCore import Signal

from Testing.gui.standin import Standin, standin


class Observed:
    """What a widget observes; not a part of the widget, so that it can still let go when the widget is gone."""

    def __init__(self) -> None:
        self._tags: list[tuple[Any, int]] = []

    def add(self, sender: Any, event: Any, function: Any) -> None:
        self._tags.append((sender, sender.AddObserver(event, function)))

    def stop(self, *_: Any) -> None:
        while self._tags:
            sender, tag = self._tags.pop()
            sender.RemoveObserver(tag)


class SceneUser(Standin, QtWidgets.QWidget):
    """A widget with a scene, and the observers that it has in it."""

    mrmlSceneChanged = Signal(object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._observed = Observed()
        self.destroyed.connect(self._observed.stop)

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is self._scene:
            return
        self._observed.stop()
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)


@standin("qMRMLWidget")
class MRMLWidget(SceneUser):
    pass


@standin("qSlicerWidget")
class SlicerWidget(SceneUser):
    pass
