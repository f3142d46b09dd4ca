"""Signals and slots in PythonQt's manner, over PySide6's."""

import inspect
import re
from collections.abc import Callable
from typing import Any, ClassVar

from Testing.slicer_standin.inventory import Member, is_absent_in_pyside6, signal_overloads
from Testing.slicer_standin.problems import NotModelled, note

# A slot of exactly this many arguments makes PySide6 hand over as many: to *args it hands none where Qt has a default.
_ARITIES = {
    0: lambda call: lambda: call(),
    1: lambda call: lambda a: call(a),
    2: lambda call: lambda a, b: call(a, b),
    3: lambda call: lambda a, b, c: call(a, b, c),
    4: lambda call: lambda a, b, c, d: call(a, b, c, d),
}


class Connections:
    """What is connected to one object: its C++ pointer is the key, because wrappers come and go."""

    _of: ClassVar[dict[int, list[tuple[str, Callable, Any, Any]]]] = {}

    @classmethod
    def add(cls, pointer: int, sender: Any, key: str, target: Callable, native: Any, slot: Any) -> None:
        if pointer not in cls._of:
            sender.destroyed.connect(lambda *_: cls._of.pop(pointer, None))
            cls._of[pointer] = []
        cls._of[pointer].append((key, target, native, slot))

    @classmethod
    def remove(cls, pointer: int, key: str, target: Callable | None) -> bool:
        kept, gone = [], []
        for entry in cls._of.get(pointer, []):
            matches = entry[0] == key and (target is None or entry[1] == target)
            (gone if matches else kept).append(entry)
        for _, _, native, slot in gone:
            native.disconnect(slot)
        if pointer in cls._of:
            cls._of[pointer] = kept
        return bool(gone)


def positional_count(target: Callable) -> int | None:
    """How many arguments PythonQt hands to a function or bound method; None: as many as there are."""
    function = target if inspect.isfunction(target) else getattr(target, "__func__", None)
    if not inspect.isfunction(function):
        return None  # an object with __call__, a partial, something built in: PythonQt does not count there
    code = function.__code__
    if code.co_flags & inspect.CO_VARARGS:
        return None
    return code.co_argcount - (1 if inspect.ismethod(target) else 0)


def make_slot(target: Callable, count: int, wrap: Callable[[Any], Any]) -> Callable:
    """A slot that calls ``target`` with at most ``count`` arguments, and keeps what it raises."""

    def call(*arguments: Any) -> None:
        handed = [wrap(argument) for argument in arguments]
        wanted = positional_count(target)
        try:
            target(*(handed if wanted is None else handed[:wanted]))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            note(error)

    return _ARITIES[count](call)


def normalised(text: str) -> tuple[str, list[str] | None]:
    """Name and argument types of ``"valueChanged( int )"``; None instead of the types if there are no brackets."""
    found = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\))?\s*", text)
    if found is None:
        return text, None
    if found[2] is None:
        return found[1], None
    types = [part.replace("const ", "").replace("&", "").replace(" ", "") for part in found[2].split(",")]
    return found[1], [part for part in types if part]


class BoundSignal:
    """What ``button.clicked`` is: it connects, disconnects, and emits when it is called."""

    def __init__(self, proxy: Any, member: Member, types: list[str] | None = None) -> None:
        self._proxy, self._member = proxy, member
        forms = signal_overloads(member)
        self._types = forms[0] if types is None else types
        self._form = next((n for n, form in enumerate(forms) if form == self._types), 0)

    def __repr__(self) -> str:
        return f"<qt signal {self._member.name} of {type(self._proxy).__name__} instance>"

    @property
    def _key(self) -> str:
        return f"{self._member.name}({','.join(self._types)})"

    def _native(self) -> Any:
        """PySide6's signal for this form of it."""
        if is_absent_in_pyside6(self._member.owner, self._key):
            raise NotModelled(f"{self._member.owner}.{self._key}: Qt 6 does not have this form of the signal")
        q = self._proxy._live(f"connect to '{self._member.name}' of")
        forms = signal_overloads(self._member)
        others = [form for form in forms if form != forms[0] and form != forms[0][: len(form)]]
        name = self._member.name
        if self._types in others and not self._member.owner.startswith("Q"):
            name += "_" + "_".join(re.sub(r"\W", "", kind) for kind in self._types)
        native = getattr(q, name, None)
        if native is None or not hasattr(native, "connect"):
            raise NotModelled(f"signal {self._member.owner}.{self._key}")
        return native

    def connect(self, target: Callable) -> bool:
        if not callable(target):
            raise TypeError(f"{self!r} connected to {target!r}, which cannot be called: Slicer does not say so")
        native = self._native()
        slot = make_slot(target, len(self._types), self._proxy._wrap)
        native.connect(slot)
        Connections.add(self._proxy._pointer, self._proxy._q, self._key, target, native, slot)
        return True

    def disconnect(self, target: Callable | None = None) -> bool:
        self._proxy._live(f"disconnect from '{self._member.name}' of")
        return Connections.remove(self._proxy._pointer, self._key, target)

    def emit(self, *arguments: Any) -> None:
        if len(arguments) > len(self._types):
            raise ValueError(f"Called {self._key} with wrong number of arguments: {arguments!r}")
        self._native().emit(*(self._proxy._unwrap(argument) for argument in arguments))

    __call__ = emit
