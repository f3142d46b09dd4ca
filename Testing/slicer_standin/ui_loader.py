"""QUiLoader for .ui files with widgets of CTK and Slicer.

Qt's loader builds the widgets and their layouts. What it cannot know, because the stand-ins are written in Python, is
taken out of the file before and done after it: properties that classes of CTK and Slicer declare, and connections.
"""

import functools
from typing import Any
from xml.etree import ElementTree

from PySide6 import QtCore, QtUiTools

from Testing.slicer_standin.behaviours import find_signal, slot_named
from Testing.slicer_standin.enums import enum_of, key_named, pyside_class
from Testing.slicer_standin.inventory import classes, members
from Testing.slicer_standin.methods import behaves
from Testing.slicer_standin.proxy import Wrapper, unwrap, wrap
from Testing.slicer_standin.standin import implementation


class _Loader(QtUiTools.QUiLoader):
    """Makes a class of CTK or Slicer where the file asks for one."""

    def createWidget(self, class_name: str, parent: Any = None, name: str = "") -> Any:
        if pyside_class(class_name) is not None:
            return super().createWidget(class_name, parent, name)
        if class_name not in classes():
            raise ValueError(f"Slicer has no widget class {class_name!r}")
        made = implementation(class_name)(parent)
        made.setObjectName(name)
        return made


@behaves("QUiLoader", "load")
def load(proxy: Wrapper, device: Wrapper, parent: Wrapper | None = None) -> Wrapper:
    """Build what the open file describes.

    Raises:
        ValueError: the file names a class, property, signal, slot or enum key that does not exist in Slicer.
    """
    text, properties, connections = _divided(bytes(device._live("read").readAll().data()))
    buffer = QtCore.QBuffer()
    buffer.setData(text)
    buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
    loader = _Loader()
    q = loader.load(buffer, unwrap(parent))
    if q is None:
        raise ValueError(loader.errorString())
    root = wrap(q)
    found = {child.objectName(): child for child in q.findChildren(QtCore.QObject)} | {q.objectName(): q}
    for widget_name, class_name, name, element in properties:
        setattr(wrap(found[widget_name]), name, _value(class_name, name, element))
    for sender, signal, receiver, slot in connections:
        find_signal(wrap(found[sender]), signal).connect(slot_named(wrap(found[receiver]), slot))
    return root


@functools.cache
def _divided(text: bytes) -> tuple[bytes, list[tuple[str, str, str, ElementTree.Element]], list[tuple[str, ...]]]:
    """The part of a file that is for Qt's loader, and the properties and connections that are for this one."""
    tree = ElementTree.fromstring(text)
    properties, connections = _take_properties(tree), _take_connections(tree)
    _check_native(tree)
    return ElementTree.tostring(tree), properties, connections


def _take_properties(tree: ElementTree.Element) -> list[tuple[str, str, str, ElementTree.Element]]:
    taken = []
    for widget in tree.iter("widget"):
        class_name = widget.get("class")
        for element in widget.findall("property"):
            name = element.get("name")
            member = members(class_name).get(name) if class_name in classes() else None
            if member is not None and member.kind == "property" and pyside_class(member.owner) is None:
                taken.append((widget.get("name"), class_name, name, element[0]))
                widget.remove(element)
    return taken


def _check_native(tree: ElementTree.Element) -> None:
    """Qt makes a dynamic property of a name it does not know: a slip of the pen would not be seen."""
    for widget in tree.iter("widget"):
        known = members(widget.get("class"))
        for element in widget.findall("property"):
            name = element.get("name")
            if element.get("stdset") != "0" and (name not in known or known[name].kind != "property"):
                raise ValueError(f"{widget.get('class')} {widget.get('name')!r} has no property {name!r}")


def _take_connections(tree: ElementTree.Element) -> list[tuple[str, ...]]:
    taken = []
    for holder in tree.findall("connections"):
        for one in holder.findall("connection"):
            taken.append(tuple(one.findtext(part) for part in ("sender", "signal", "receiver", "slot")))
        tree.remove(holder)
    return taken


def _value(class_name: str, name: str, element: ElementTree.Element) -> Any:
    text = element.text or ""
    member = members(class_name)[name]
    if element.tag in ("set", "enum"):
        found = enum_of(member.types[0], member.owner)
        return key_named(found[0] if found else class_name, text)
    if element.tag == "stringlist":
        return [part.text or "" for part in element.findall("string")]
    readers = {
        "bool": lambda: text == "true",
        "number": lambda: int(text),
        "double": lambda: float(text),
        "string": lambda: text,
        "cstring": lambda: text,
    }
    if element.tag not in readers:
        raise ValueError(f"{class_name}.{name}: a <{element.tag}> in a .ui file")
    return readers[element.tag]()
