"""Typed parameters on a parameter node, and their connection with widgets: the types and widgets a panel needs.

Known are bool, int, float, str, enums, paths, nodes (also "or None"), and the annotations below. What Slicer's own
knows beside them is refused when the class is made.
"""

import dataclasses
import enum
import pathlib
import types
import typing
from collections.abc import Callable
from typing import Any

import slicer
import vtk

from Testing.slicer_standin.problems import NotModelled

__all__ = ["Choice", "Default", "WithinRange", "isParameterNodeWrapper", "parameterNodeWrapper"]


class Default:
    def __init__(self, value: Any = None, *, generator: Callable[[], Any] | None = None) -> None:
        self._value, self._generator = value, generator

    @property
    def value(self) -> Any:
        return self._generator() if self._generator else self._value


@dataclasses.dataclass
class WithinRange:
    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


@dataclasses.dataclass
class Choice:
    choices: list[Any]

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"Value is {value}, but must be one of {self.choices}")


class _Parameter:
    """One parameter: its type, its annotations, and how it is written on a node."""

    def __init__(self, owner: str, name: str, annotated: Any, default: Default | None) -> None:
        self.name, self.annotated = name, annotated
        kind, *notes = typing.get_args(typing.Annotated[annotated, ""])[:-1]
        parts = [part for part in typing.get_args(kind) if part is not type(None)]
        self.is_optional = len(parts) == 1 and isinstance(kind, types.UnionType | type(typing.Optional[int]))  # noqa: UP045
        self.kind = parts[0] if self.is_optional else kind
        self.is_node = isinstance(self.kind, type) and issubclass(self.kind, slicer.vtkMRMLNode)
        known = self.is_node or self.kind in (bool, int, float, str)
        known = known or (isinstance(self.kind, type) and issubclass(self.kind, enum.Enum | pathlib.PurePath))
        if not known or (self.is_optional and not self.is_node):
            raise NotModelled(f"{owner}.{name}: a parameter of type {annotated}")
        self.validators = [note for note in notes if hasattr(note, "validate")]
        found = [note for note in notes if isinstance(note, Default)]
        self.default = default or (found[0] if found else Default(self._empty()))
        unknown = [note for note in notes if not hasattr(note, "validate") and not isinstance(note, Default)]
        if unknown:
            raise NotModelled(f"{owner}.{name}: the annotation {unknown[0]}")

    def _empty(self) -> Any:
        if self.is_node:
            return None
        return next(iter(self.kind)) if issubclass(self.kind, enum.Enum) else self.kind()

    def find(self, kind: type) -> Any:
        return next((note for note in self.validators if isinstance(note, kind)), None)

    def write(self, node: Any, value: Any) -> None:
        if self.is_node:
            if value is not None and not isinstance(value, self.kind):
                raise TypeError(f"Value must be of type '{self.kind}', is type '{type(value)}'")
            node.SetParameter(self.name, "")
            node.SetNodeReferenceID(self.name, None if value is None else value.GetID())
            return
        if self.kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, self.kind):
            raise TypeError(f"Value must be of type '{self.kind}', is type '{type(value)}' value '{value}'")
        for validator in self.validators:
            validator.validate(value)
        node.SetParameter(self.name, value.name if isinstance(value, enum.Enum) else str(value))

    def read(self, node: Any) -> Any:
        if self.is_node:
            return node.GetNodeReference(self.name)
        if not node.HasParameter(self.name):
            self.write(node, self.default.value)
        text = node.GetParameter(self.name)
        if self.kind is bool:
            return text == "True"
        return self.kind[text] if issubclass(self.kind, enum.Enum) else self.kind(text)


class _Connector:
    """One widget that shows one parameter: how it is read, how it is written, and the signal that it changed."""

    def __init__(self, parameter: _Parameter, widget: Any) -> None:
        self.widget, self._entries = widget, None
        kind, name = parameter.kind, type(widget).__name__
        if parameter.is_node and name == "qMRMLNodeComboBox":
            widget.nodeTypes = [kind().GetClassName()]
            self.signal, self.read, self.write = widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode
        elif kind is bool and name == "QCheckBox":
            self.signal, self.read, self.write = widget.stateChanged, *self._property("checked")
        elif kind is bool and name == "QPushButton":
            widget.checkable = True
            self.signal, self.read, self.write = widget.toggled, *self._property("checked")
        elif name == "QComboBox" and (parameter.find(Choice) or issubclass(kind, enum.Enum)):
            self._fill(parameter)
        elif kind in (int, float) and name in _NUMBERS.get(kind, ()):
            self._bound(parameter)
            self.signal, self.read = widget.valueChanged, lambda: kind(widget.value)
            self.write = lambda value: setattr(widget, "value", value)
        elif kind is str and name in ("QLineEdit", "QLabel"):
            self.signal, self.read, self.write = getattr(widget, "textChanged", None), *self._property("text")
        elif issubclass(kind, pathlib.PurePath) and name == "ctkPathLineEdit":
            self.signal, self.read = widget.currentPathChanged, lambda: kind(widget.currentPath)
            self.write = lambda value: setattr(widget, "currentPath", str(value))
        else:
            raise NotModelled(f"the parameter {parameter.name} of type {parameter.annotated} on a {name}")

    def _property(self, name: str) -> tuple[Callable, Callable]:
        return (lambda: getattr(self.widget, name)), (lambda value: setattr(self.widget, name, value))

    def _fill(self, parameter: _Parameter) -> None:
        choice = parameter.find(Choice)
        entries = choice.choices if choice else list(parameter.kind)
        label = getattr(parameter.kind, "label", lambda entry: entry.name)
        self.widget.clear()
        for entry in entries:
            self.widget.addItem(str(entry) if choice else label(entry))
        self.signal = self.widget.currentIndexChanged
        self.read = lambda: entries[self.widget.currentIndex]
        self.write = lambda value: setattr(self.widget, "currentIndex", entries.index(value))

    def _bound(self, parameter: _Parameter) -> None:
        limit = _UNBOUNDED[parameter.kind]
        within = parameter.find(WithinRange) or WithinRange(-limit, limit)
        self.widget.minimum, self.widget.maximum = within.minimum, within.maximum


_UNBOUNDED = {int: 2**31 - 1, float: float("inf")}
_NUMBERS = {int: ("QSpinBox", "QDoubleSpinBox"), float: ("QDoubleSpinBox",)}


class _Wrapped:
    """What a parameter node wrapper has beside its parameters. Names that nobody declared can be set, as in Slicer."""

    allParameters: typing.ClassVar[dict[str, _Parameter]] = {}

    def __init__(self, parameterNode: Any) -> None:
        self.parameterNode = parameterNode
        self._guis: dict[int, tuple[dict[str, _Connector], int]] = {}
        self._updating = False
        for parameter in self.allParameters.values():
            if not parameterNode.HasParameter(parameter.name):
                parameter.write(parameterNode, parameter.default.value)

    def getValue(self, name: str) -> Any:
        return self._named(name).read(self.parameterNode)

    def setValue(self, name: str, value: Any) -> None:
        self._named(name).write(self.parameterNode, value)

    def default(self, name: str) -> Default:
        return self._named(name).default

    def _named(self, name: str) -> _Parameter:
        if name not in self.allParameters:
            raise ValueError(f"Cannot find a param with the given name: {name}")
        return self.allParameters[name]

    def connectGui(self, gui: Any) -> int:
        """Connect every widget with the dynamic property ``SlicerParameterName``."""
        import qt

        widgets = gui.findChildren(qt.QWidget) if hasattr(gui, "isWidgetType") else vars(gui).values()
        names = ((widget.property("SlicerParameterName"), widget) for widget in widgets)
        return self.connectParametersToGui({name: widget for name, widget in names if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        connectors = {name: _Connector(self._named(name), widget) for name, widget in mapping.items()}
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.changed = self._taker(name, connector)
            if connector.signal is not None:
                connector.signal.connect(connector.changed)
        tag = len(self._guis) + 1
        self._guis[tag] = connectors, self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._show())
        return tag

    def disconnectGui(self, tag: int) -> None:
        connectors, observer = self._guis.pop(tag, ({}, None))
        for connector in connectors.values():
            if connector.signal is not None:
                connector.signal.disconnect(connector.changed)
        if observer is not None:
            self.RemoveObserver(observer)

    def _taker(self, name: str, connector: _Connector) -> Callable[[], None]:
        return lambda: self._take(name, connector)

    def _take(self, name: str, connector: _Connector) -> None:
        if not self._updating:
            with slicer.util.NodeModify(self):
                self.setValue(name, connector.read())

    def _show(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for connectors, _ in self._guis.values():
                for name, connector in connectors.items():
                    connector.write(self.getValue(name))
        finally:
            self._updating = False

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, was: int) -> int:
        return self.parameterNode.EndModify(was)

    def Modified(self) -> None:
        self.parameterNode.Modified()

    def AddObserver(self, event: Any, callback: Callable, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)


def parameterNodeWrapper(cls: type) -> type:
    """Make the annotated names of a class parameters on a node."""
    parameters = {}
    for name, annotated in typing.get_type_hints(cls, include_extras=True).items():
        default = Default(getattr(cls, name)) if hasattr(cls, name) else None
        parameters[name] = _Parameter(cls.__name__, name, annotated, default)
    own = {key: value for key, value in vars(cls).items() if key not in ("__dict__", "__weakref__", *parameters)}
    clash = [name for name in (*own, *parameters) if not name.startswith("_") and hasattr(_Wrapped, name)]
    if clash:
        raise ValueError(f"Cannot use reserved name '{clash[0]}' in a parameterNodeWrapper")
    properties = {name: _property(name) for name in parameters}
    return type(cls.__name__, (_Wrapped,), {**own, **properties, "allParameters": parameters})


def _property(name: str) -> property:
    return property(lambda self: self.getValue(name), lambda self, value: self.setValue(name, value))


def isParameterNodeWrapper(thing: Any) -> bool:
    return hasattr(thing, "allParameters") and hasattr(thing, "connectGui")
