"""What Slicer's Qt classes show to Python, looked up the way PythonQt does it.

    python -m Testing.slicer_standin.inventory WIDGETS.json GAPS.json

makes `inventory.json.gz`. `WIDGETS.json` lists every class that Slicer 5.12 shows to Python, with its properties,
signals, methods and enums, from the headers of Slicer, CTK and Qt 5.15; `GAPS.json` the signals that PySide6 lacks of
them. Only facts are kept: names, types, signatures.
"""

import functools
import gzip
import json
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Slicer's module `qt` puts a function of its own over the property.
_FUNCTIONS = {("QTimer", "singleShot"): ("static void (int msec, PyObject* callable)",)}
_FILE = Path(__file__).with_name("inventory.json.gz")


@dataclass(frozen=True, slots=True)
class Member:
    """One name of a class.

    Attributes:
        kind: "property", "method", "signal", "key" (of an enum) or "enum".
        name: the name in C++: ``exec`` for ``exec_``, ``objectName`` for ``name``.
        owner: the class that declares it.
        types: for a property its type; for methods and signals one "returned type (arguments)" for each overload; for
            a key its enum; for an enum its keys.
        writable: False for a property that can only be read.
    """

    kind: str
    name: str
    owner: str
    types: tuple[str, ...] = ()
    writable: bool = False

    @property
    def is_static(self) -> bool:
        return self.kind == "method" and any(text.startswith("static ") for text in self.types)


@functools.cache
def _read() -> dict[str, Any]:
    return json.loads(gzip.decompress(_FILE.read_bytes()))


def classes() -> dict[str, dict[str, Any]]:
    """The facts of every class by its name."""
    return _read()["classes"]


def is_absent_in_pyside6(class_name: str, signature: str) -> bool:
    """True for a signal like ``activated(QString)``, which Qt 6 does not have any more."""
    return signature in _read()["signals_absent_in_pyside6"].get(class_name, ())


@functools.cache
def lineage(class_name: str) -> tuple[str, ...]:
    """The class and its bases, most derived first."""
    found = [class_name]
    for base in classes()[class_name]["bases"]:
        found += [name for name in lineage(base) if name not in found]
    return tuple(found)


@functools.cache
def _own(class_name: str) -> tuple[dict[str, Member], dict[str, Member], dict[str, Member]]:
    """What a class itself declares: enums and their keys, methods and signals, properties."""
    facts = classes()[class_name]
    enums, callables = {}, {}
    for enum, keys in facts.get("enums", {}).items():
        enums[enum] = Member("enum", enum, class_name, tuple(keys))
        for key in keys:
            enums.setdefault(key, Member("key", key, class_name, (enum,)))
    for kind in ("method", "signal"):
        for name, types in facts.get(f"{kind}s", {}).items():
            callables[name] = Member(kind, name, class_name, tuple(types))
    readonly = facts.get("readonly", ())
    properties = {
        name: Member("property", name, class_name, (kind,), name not in readonly)
        for name, kind in facts.get("properties", {}).items()
    }
    for owner, name in _FUNCTIONS:
        if owner == class_name:
            properties[name] = Member("method", name, class_name, _FUNCTIONS[owner, name])
    return enums, callables, properties


@functools.cache
def members(class_name: str) -> dict[str, Member]:
    """Everything that PythonQt finds on an object of this class, by the name it is found by.

    Properties win over methods and signals of any class in the chain, those over enum keys and enums; within a kind
    the most derived class wins.
    """
    found: dict[str, Member] = {}
    declared = [_own(owner) for owner in reversed(lineage(class_name))]
    for enums, _, _ in declared:
        found.update(enums)
    for _, callables, _ in declared:
        for name, member in callables.items():
            older = found.get(name)
            if older is not None and older.kind == member.kind:
                member = replace(member, types=(*member.types, *older.types))
            found[name] = member
    for name in [name for name, member in found.items() if member.kind == "method"]:
        found.setdefault(f"{name}_", found[name])
    for _, _, properties in declared:
        found.update(properties)
    if "objectName" in found:
        found.setdefault("name", found["objectName"])
    return found


@functools.cache
def argument_types(signature: str) -> tuple[str, ...]:
    """The types in ``"void (QString text, int n=?)"``: ``("QString", "int=?")``."""
    inside = signature[signature.index("(") + 1 : signature.rindex(")")]
    return tuple(_argument_type(part) for part in _split(inside))


def _argument_type(text: str) -> str:
    optional = text.endswith("=?")
    words = text.removesuffix("=?").strip()
    found = re.fullmatch(r"(.*[>*&\s])\s*(\w+)", words)
    kind = words
    if found and found[2] not in ("int", "char", "double", "long"):
        kind = found[1]
    kind = kind.replace("const ", "").replace("&", "").replace(" ", "")
    return kind + "=?" if optional else kind


def _split(text: str) -> list[str]:
    """At the commas that are not within angle brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "<") - (letter == ">")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def signal_overloads(member: Member) -> list[list[str]]:
    """The argument types of every form of a signal; ``clicked(bool checked=?)`` has the forms (bool) and ()."""
    forms = []
    for signature in member.types:
        types = argument_types(signature)
        required = sum(not kind.endswith("=?") for kind in types)
        plain = [kind.removesuffix("=?") for kind in types]
        forms += [plain[:count] for count in range(len(plain), required - 1, -1)]
    return forms


UNREAD = ("slots", "notify", "shell")


def reduced(widgets: dict, gaps: dict) -> dict:
    classes = {
        name: {key: value for key, value in facts.items() if key not in UNREAD} for name, facts in widgets.items()
    }
    return {"classes": classes, "signals_absent_in_pyside6": gaps["signal_overloads_absent_in_pyside6"]}


def main(widgets_path: str, gaps_path: str) -> None:
    widgets, gaps = (json.loads(Path(path).read_text()) for path in (widgets_path, gaps_path))
    text = json.dumps(reduced(widgets, gaps), separators=(",", ":")).encode()
    _FILE.write_bytes(gzip.compress(text, 9, mtime=0))


if __name__ == "__main__":
    main(*sys.argv[1:])
