"""Python's values as arguments of C++ functions, as PythonQt converts them: as they are first, then kindly."""

import functools
import numbers
import re
from collections.abc import Callable
from typing import Any

from Testing.slicer_standin.enums import enum_of, pyside_class, pyside_enum, to_pyside
from Testing.slicer_standin.inventory import classes, lineage

_INTEGERS = re.compile(
    r"(unsigned)?(int|short|long|longlong|char)|u?int|q?u?int(8|16|32|64)|qu?longlong|uint|ulong|qsizetype"
)
_REALS = ("double", "float", "qreal")
_FROM_ENUMS = {"QCursor": "CursorShape", "QColor": "GlobalColor", "QBrush": "GlobalColor", "QPen": "GlobalColor"}
_OWNERSHIP = re.compile(r"PythonQt\w+<(.*)>")


class Misfit(Exception):
    """The value cannot be had as that type."""


@functools.cache
def fitter(type_name: str, class_name: str) -> Callable[[Any, int], Any]:
    """A function that makes a value, already without its proxy, what the C++ type asks for.

    Its second argument is the kindness: 0 takes only values of that type, 1 also other numbers, 2 makes a text or a
    truth of anything. It raises `Misfit` where PythonQt would refuse the value.
    """
    kind = type_name.removesuffix("=?")
    owned = _OWNERSHIP.fullmatch(kind)
    if owned:
        kind = owned[1]
    if kind == "bool":
        return _as_bool
    if kind == "QString":
        return _as_text
    if kind in _REALS:
        return functools.partial(_as_number, float)
    if enum_of(kind, class_name):
        return functools.partial(_as_enum, kind, class_name)
    if _INTEGERS.fullmatch(kind):
        return functools.partial(_as_number, int)
    if kind in ("QStringList", "QVariantList") or kind.startswith("QList<"):
        return _as_list
    if kind == "char*":
        return _as_bytes
    if kind.rstrip("*") in classes():
        return functools.partial(_as_object, kind)
    return lambda value, _kindness: value


def _as_enum(kind: str, class_name: str, value: Any, kindness: int) -> Any:
    """A key of the same enum, or of the one it is combined from; kindly also a number."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise Misfit
    own = getattr(type(value), "_owner", None)
    if own is None and kindness == 0:
        raise Misfit
    if own is not None and pyside_enum(own, type(value).__name__) is not pyside_enum(*enum_of(kind, class_name)):
        raise Misfit
    return to_pyside(int(value), kind, class_name)


def _as_bool(value: Any, kindness: int) -> bool:
    if not isinstance(value, (bool, (bool, int), object)[kindness]):
        raise Misfit
    return bool(value)


def _as_text(value: Any, kindness: int) -> str:
    if kindness < 2 and not isinstance(value, str):
        raise Misfit
    return str(value)


def _as_number(kind: type, value: Any, kindness: int) -> Any:
    if kindness == 0:
        if type(value) is bool or not isinstance(value, kind) or hasattr(type(value), "_owner"):
            raise Misfit
    elif isinstance(value, (str, bytes)) or (not hasattr(value, "__float__") and not hasattr(value, "__index__")):
        raise Misfit
    return kind(value)


def _as_bytes(value: Any, _kindness: int) -> Any:
    if not isinstance(value, (str, bytes)):
        raise Misfit
    return value


def _as_list(value: Any, _kindness: int) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise Misfit
    return list(value)


def _as_object(kind: str, value: Any, kindness: int) -> Any:
    """An object of Qt. PySide6 converts some itself, a colour to a brush for example, as PythonQt does."""
    name = kind.rstrip("*")
    if name == "QByteArray" and isinstance(value, (bytes, str)):
        return value.encode() if isinstance(value, str) else value
    if value is None:
        if not kind.endswith("*"):
            raise Misfit
        return None
    own = inventory_name(value)
    if type(value).__name__ == _FROM_ENUMS.get(name):
        return pyside_class(name)(to_pyside(value, f"Qt::{_FROM_ENUMS[name]}", name))
    if own is None or (kindness == 0 and name not in lineage(own)):
        raise Misfit
    return value


def inventory_name(q: Any) -> str | None:
    """The most derived class of a PySide6 object that the inventory knows; None: it is no object of Qt."""
    known = getattr(type(q), "_inventory_name", None)
    if known is not None:
        return known
    if hasattr(q, "metaObject"):
        meta = q.metaObject()
        while meta is not None:
            if meta.className() in classes():
                return meta.className()
            meta = meta.superClass()
    if not type(q).__module__.startswith("PySide6"):
        return None
    return next(
        (
            base.__qualname__.replace(".", "::")
            for base in type(q).__mro__
            if base.__qualname__.replace(".", "::") in classes()
        ),
        None,
    )
