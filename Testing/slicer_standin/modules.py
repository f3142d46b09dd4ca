"""The modules `qt` and `ctk`, and the widgets that `slicer` shows."""

import functools
import sys
import types
from typing import Any

import slicer

from Testing.slicer_standin.inventory import classes
from Testing.slicer_standin.proxy import wrapped_class


class QtModule(types.ModuleType):
    """A flat module of Qt's classes, as PythonQt has it: no `QtWidgets` in it."""

    def __getattr__(self, name: str) -> Any:
        return shown_class(self.__name__, name)


def shown_class(module: str, name: str) -> Any:
    """The class that a module shows under this name.

    Raises:
        AttributeError: Slicer's module does not have it.
    """
    facts = classes().get(name)
    if facts is None or facts["module"] != module:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    return wrapped_class(name)


@functools.cache
def _flat(name: str) -> QtModule:
    return QtModule(name)


def install() -> None:
    """Make ``import qt, ctk`` work, and ``slicer.qMRMLNodeComboBox``."""
    for name in ("qt", "ctk"):
        sys.modules[name] = _flat(name)
    slicer.__getattr__ = lambda name: shown_class("slicer", name)


def uninstall() -> None:
    """Nothing of it is left."""
    for name in ("qt", "ctk"):
        sys.modules.pop(name, None)
    if hasattr(slicer, "__getattr__"):
        del slicer.__getattr__
