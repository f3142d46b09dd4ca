"""Enums as PythonQt has them: int subclasses, their keys on the class and on its objects, combined as plain ints."""

import enum
import functools
from typing import Any

from PySide6 import QtCore, QtGui, QtNetwork, QtUiTools, QtWidgets

from Testing.slicer_standin.inventory import classes, lineage, members
from Testing.slicer_standin.problems import NotModelled

_PLACES = (QtWidgets, QtGui, QtCore, QtNetwork, QtUiTools)


@functools.cache
def pyside_class(name: str) -> type | None:
    """PySide6's class of this name, or None: it has none, or another one under the same name."""
    if name.startswith("_"):
        return None
    return next((getattr(place, name) for place in _PLACES if hasattr(place, name)), None)


@functools.cache
def pyside_enum(owner: str, name: str) -> type[enum.Enum] | None:
    """PySide6's class for an enum, or for the flags made of one, of a class of Qt."""
    home = pyside_class(owner)
    if home is None:
        return None
    for key in classes()[owner]["enums"][name]:
        member = getattr(home, key, None)
        if isinstance(member, enum.Enum):
            return type(member)
    return None


@functools.cache
def enum_type(owner: str, name: str) -> type[int]:
    """The int subclass that stands for an enum; its keys are ``enum_key``."""
    return type(name, (int,), {"__module__": "PythonQt", "_owner": owner})


@functools.cache
def enum_key(owner: str, name: str, key: str) -> int:
    """The value of a key.

    Raises:
        NotModelled: PySide6 does not have it.
    """
    made = enum_type(owner, name)
    if pyside_class(owner) is not None:
        member = getattr(pyside_class(owner), key, None)
        if not isinstance(member, enum.Enum):
            raise NotModelled(f"{owner}.{key}: PySide6 does not have this key")
        return made(member.value)
    # Qt's own values where CTK takes over Qt's enum; otherwise the place in the list, which only has to be its own.
    for lender in ("QDir", "QFileDialog", "QSlider", "QComboBox"):
        member = getattr(pyside_class(lender), key, None)
        if isinstance(member, enum.Enum):
            return made(member.value)
    return made(classes()[owner]["enums"][name].index(key))


@functools.cache
def enum_of(type_name: str, class_name: str) -> tuple[str, str] | None:
    """Where an enum named in a signature of a class is declared, as (owner, name); None if it is no enum."""
    owner, _, name = type_name.removesuffix("=?").rpartition("::")
    if owner:
        known = owner in classes() and name in classes()[owner].get("enums", {})
        return (owner, name) if known else None
    return next(((base, name) for base in lineage(class_name) if name in classes()[base].get("enums", {})), None)


def to_pyside(value: Any, type_name: str, class_name: str) -> Any:
    """An int as PySide6's enum member, where the signature asks for one; anything else as it is."""
    if type(value) is bool or not isinstance(value, int):
        return value
    found = enum_of(type_name, class_name)
    wanted = found and pyside_enum(*found)
    return wanted(int(value)) if wanted else int(value)


def from_pyside(value: enum.Enum) -> int:
    """A member as PythonQt hands it on."""
    owner = type(value).__qualname__.rpartition(".")[0]
    name = type(value).__name__
    single = isinstance(value, enum.Flag) is False or value.name in getattr(type(value), "__members__", {})
    if single and owner in classes() and name in classes()[owner].get("enums", {}):
        return enum_type(owner, name)(value.value)
    return int(value.value)


def key_named(class_name: str, text: str) -> int:
    """The value of ``Qt::AlignLeft|Qt::AlignTop`` as a .ui file writes it.

    Raises:
        ValueError: there is no such key.
    """
    value = 0
    for part in text.split("|"):
        owner, _, key = part.strip().rpartition("::")
        while owner and owner not in classes():
            owner = owner.rpartition("::")[0]
        member = members(owner or class_name).get(key)
        if member is None or member.kind != "key":
            raise ValueError(f"{class_name} has no enum key {part!r}")
        value |= enum_key(member.owner, member.types[0], member.name)
    return value
