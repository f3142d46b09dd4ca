"""Qt's objects as PythonQt shows them: proxies in front of PySide6's, which refuse what the inventory does not list."""

import enum
import functools
import weakref
from collections.abc import Callable
from typing import Any

import shiboken6
from PySide6 import QtCore

from Testing.slicer_standin.enums import enum_key, enum_type, from_pyside, pyside_class
from Testing.slicer_standin.fitting import Misfit, fitter, inventory_name
from Testing.slicer_standin.inventory import Member, classes, lineage, members
from Testing.slicer_standin.methods import BoundMethod, UnboundMethod, call_native
from Testing.slicer_standin.problems import NotModelled
from Testing.slicer_standin.signals import BoundSignal
from Testing.slicer_standin.standin import implementation

_proxies: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


class WrappedType(type):
    """A class of Qt: static methods, enum keys and enums are on it, methods wait for an object."""

    def __getattr__(cls, name: str) -> Any:
        own = cls.__dict__.get("_class_name")
        member = None if own is None or name.startswith("__") else members(own).get(name)
        if member is None or member.kind in ("property", "signal"):
            raise AttributeError(f"{cls.__name__} has no attribute named {name!r}")
        if member.kind == "method":
            return UnboundMethod(own, member, wrap, unwrap)
        return _constant(member)


class _Found:
    """What `Wrapper.__getattr__` found, kept on the class: Python finds it by itself the next time."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def __get__(self, proxy: Any, _owner: type) -> Any:
        if proxy is None:
            raise AttributeError(self._member.name)  # `WrappedType` knows what is on the class
        return _read(proxy, self._member)


class Wrapper(metaclass=WrappedType):
    """An object of Qt; the attributes are looked up in PythonQt's order."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        name = type(self)._class_name
        if keywords:
            raise ValueError(f"Called {name}(...) with keyword arguments, but called slot does not support kwargs.")
        if "constructors" not in classes()[name]:
            raise ValueError(f"No constructors available for {name}")
        made = call_native(
            implementation(name), name, classes()[name]["constructors"], [unwrap(value) for value in arguments], name
        )
        self._adopt(made)

    def _adopt(self, q: Any) -> None:
        object.__setattr__(self, "_q", q)
        object.__setattr__(self, "_pointer", shiboken6.getCppPointer(q)[0])
        _proxies[self._pointer] = self

    def _live(self, what: str) -> Any:
        """The object of PySide6.

        Raises:
            ValueError: it was destroyed.
        """
        if not shiboken6.isValid(self._q):
            raise ValueError(f"Trying to {what} a destroyed {type(self)._class_name} object")
        return self._q

    def _wrap(self, value: Any) -> Any:
        return wrap(value)

    def _unwrap(self, value: Any) -> Any:
        return unwrap(value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_q", "_pointer"):
            raise AttributeError(name)
        class_name = type(self)._class_name
        member = members(class_name).get(name)
        if member is not None:
            setattr(wrapped_class(class_name), name, _Found(member))
            return _read(self, member)
        if name in members("PythonQtInstanceWrapper"):
            return functools.partial(_OF_EVERY_OBJECT[name], self)
        q = self._live(f"read property {name!r} from")
        if isinstance(q, QtCore.QObject):
            if name in _dynamic_names(q):
                return wrap(q.property(name))
            child = q.findChild(QtCore.QObject, name, QtCore.Qt.FindDirectChildrenOnly)
            if child is not None:
                return wrap(child)
        raise AttributeError(f"{class_name} has no attribute named {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        class_name = type(self)._class_name
        member = members(class_name).get(name)
        if member is not None:
            _write(self, member, value)
            return
        q = self.__dict__.get("_q")
        if isinstance(q, QtCore.QObject) and shiboken6.isValid(q) and name in _dynamic_names(q):
            q.setProperty(name, unwrap(value))
            return
        raise AttributeError(
            f"{name!r} does not exist on {class_name} and creating new attributes on C++ objects is not allowed"
        )

    def __bool__(self) -> bool:
        return shiboken6.isValid(self._q)

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, Wrapper):
            return False
        if self is other or isinstance(self._q, QtCore.QObject):
            return self is other
        return bool(self._q == other._q)

    def __hash__(self) -> int:
        return hash(self._pointer)

    def __repr__(self) -> str:
        shown = repr(self._q) if shiboken6.isValid(self._q) else "destroyed"
        return f"{type(self)._class_name}({shown})"


def _dynamic_names(q: QtCore.QObject) -> list[str]:
    return [bytes(name.data()).decode() for name in q.dynamicPropertyNames()]


def _read(proxy: Wrapper, member: Member) -> Any:
    if member.kind == "signal":
        return BoundSignal(proxy, member)
    if member.kind == "method":
        return BoundMethod(proxy, member, wrap, unwrap)
    if member.kind != "property":
        return _constant(member)
    q = proxy._live(f"read property {member.name!r} from")
    if pyside_class(member.owner) is None:
        return wrap(q.read_property(member.name))
    value = q.property(member.name)
    if value is None and q.metaObject().indexOfProperty(member.name) < 0:
        raise NotModelled(f"property {member.owner}.{member.name}: Qt 6 does not have it")
    return wrap(value)


def _write(proxy: Wrapper, member: Member, value: Any) -> None:
    name, class_name = member.name, type(proxy)._class_name
    if member.kind != "property":
        kind = {"method": "Slot", "signal": "Signal"}.get(member.kind, "Enum value")
        raise AttributeError(f"{kind} {name!r} can not be overwritten on {class_name} object")
    if not member.writable:
        raise AttributeError(f"Property {name!r} of {class_name} object is not writable")
    q = proxy._live(f"write property {name!r} of")
    try:
        fitting = fitter(member.types[0], member.owner)(unwrap(value), 2)
    except Misfit:
        raise AttributeError(
            f"Property {name!r} of type {member.types[0]!r} does not accept an object of type {type(value).__name__}"
        ) from None
    if pyside_class(member.owner) is None:
        q.write_property(name, fitting)
    elif q.metaObject().indexOfProperty(name) < 0:
        raise NotModelled(f"property {member.owner}.{name}: Qt 6 does not have it")
    else:
        q.setProperty(name, fitting)


def _constant(member: Member) -> Any:
    if member.kind == "enum":
        return enum_type(member.owner, member.name)
    return enum_key(member.owner, member.types[0], member.name)


_OF_EVERY_OBJECT: dict[str, Callable] = {
    "className": lambda proxy: proxy.__class__.__name__,
    "inherits": lambda proxy, name: name in lineage(type(proxy)._class_name),
    "help": lambda proxy: None,
    "delete": lambda proxy: shiboken6.delete(proxy._live("delete")),
}


@functools.cache
def wrapped_class(name: str) -> WrappedType:
    """The class with which ``qt``, ``ctk`` or ``slicer`` show one of Qt. None derives from another, as in Slicer."""
    return WrappedType(name.rpartition("::")[2], (Wrapper,), {"_class_name": name, "__module__": "PythonQt"})


_PLAIN = (type(None), bool, int, float, str, bytes)


def wrap(value: Any) -> Any:
    """What PySide6 hands out as PythonQt would: proxies, ints for enums, tuples for lists."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, enum.Enum):
        return from_pyside(value)
    if isinstance(value, (*_PLAIN[1:], Wrapper)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(wrap(item) for item in value)
    if isinstance(value, dict):
        return {key: wrap(item) for key, item in value.items()}
    name = inventory_name(value) if isinstance(value, shiboken6.Object) else None
    return value if name is None else _proxy_of(value, name)


def _proxy_of(q: Any, name: str) -> Wrapper:
    pointer = shiboken6.getCppPointer(q)[0]
    known = _proxies.get(pointer)
    if known is not None and (known._q is q or (shiboken6.isValid(known._q) and isinstance(q, QtCore.QObject))):
        return known
    proxy = Wrapper.__new__(wrapped_class(name))
    proxy._adopt(q)
    return proxy


def unwrap(value: Any) -> Any:
    """What the product hands in, without proxies."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Wrapper):
        return value._live("use")
    if isinstance(value, (list, tuple)):
        return [unwrap(item) for item in value]
    if isinstance(value, dict):
        return {key: unwrap(item) for key, item in value.items()}
    return value
