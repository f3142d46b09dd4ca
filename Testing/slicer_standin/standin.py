"""Classes of CTK and Slicer that PySide6 does not have, written anew on the nearest one that it has."""

import functools
from typing import Any, ClassVar

from PySide6 import QtWidgets
from PySide6.QtCore import Signal

from Testing.slicer_standin.enums import pyside_class
from Testing.slicer_standin.inventory import classes, members
from Testing.slicer_standin.problems import NotModelled

_STANDINS: dict[str, type] = {}


class Standin:
    """What every stand-in has. Its members have Slicer's names: methods, Python properties, signals.

    Attributes:
        remembered: properties that only have to be remembered, with the value they start with.
        modelled: the names of the methods that it knows.
    """

    remembered: ClassVar[dict[str, Any]] = {}
    modelled: ClassVar[frozenset[str]] = frozenset()
    _inventory_name: ClassVar[str] = ""

    def read_property(self, name: str) -> Any:
        if isinstance(getattr(type(self), name, None), property):
            return getattr(self, name)
        if name not in self.remembered:
            raise NotModelled(f"property {self._inventory_name}.{name}")
        return self.__dict__.setdefault("_kept", {}).get(name, self.remembered[name])

    def write_property(self, name: str, value: Any) -> None:
        if isinstance(getattr(type(self), name, None), property):
            setattr(self, name, value)
        elif name in self.remembered:
            self.__dict__.setdefault("_kept", {})[name] = value
        else:
            raise NotModelled(f"property {self._inventory_name}.{name}")


def standin(name: str) -> Any:
    """Register a class as the stand-in for Slicer's class of this name.

    Raises:
        ValueError: it claims a property or a method that Slicer's class does not have.
    """

    def register(cls: type) -> type:
        known = members(name)
        cls._inventory_name = name
        own = {base_name for base in cls.__mro__ if issubclass(base, Standin) for base_name in vars(base)}
        cls.modelled = frozenset(
            key for key in own if key in known and known[key].kind == "method" and callable(getattr(cls, key))
        )
        cls.remembered = {
            key: value for base in reversed(cls.__mro__) for key, value in vars(base).get("remembered", {}).items()
        }
        wrong = [key for key in cls.remembered if key not in known or known[key].kind != "property"]
        if wrong:
            raise ValueError(f"{name} has no property {', '.join(wrong)}")
        _STANDINS[name] = cls
        return cls

    return register


@functools.cache
def implementation(name: str) -> type:
    """What makes an object of this class: PySide6's class, our stand-in, or one that only knows its base's part."""
    if pyside_class(name) is not None:
        return pyside_class(name)
    if name in _STANDINS:
        return _STANDINS[name]
    base = implementation(classes()[name]["bases"][0])
    bases = (base,) if issubclass(base, Standin) else (Standin, base)
    return type(name, bases, {"_inventory_name": name})


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
