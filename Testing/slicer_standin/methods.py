"""Methods in PythonQt's manner: no keywords, and arguments by their declared types."""

import functools
from collections.abc import Callable
from typing import Any

from Testing.slicer_standin.enums import pyside_class
from Testing.slicer_standin.fitting import Misfit, fitter
from Testing.slicer_standin.inventory import Member, argument_types, lineage
from Testing.slicer_standin.problems import NotModelled

# Methods of Qt that the stand-in does in its own way: (class, method) -> function(proxy or None, *arguments).
BEHAVIOURS: dict[tuple[str, str], Callable] = {}


def behaves(class_name: str, *names: str) -> Callable[[Callable], Callable]:
    """Register a function as what a method of Qt does; it gets proxies, and a None as the object of a static call."""

    def keep(function: Callable) -> Callable:
        for name in names:
            BEHAVIOURS[class_name, name] = function
        behaviour.cache_clear()
        return function

    return keep


@functools.cache
def behaviour(class_name: str, name: str) -> Callable | None:
    found = (BEHAVIOURS.get((base, name)) for base in lineage(class_name))
    return next((function for function in found if function is not None), None)


class BoundMethod:
    """What ``button.click`` is."""

    def __init__(self, proxy: Any, member: Member, wrap: Callable, unwrap: Callable) -> None:
        self._proxy, self._member, self._wrap, self._unwrap = proxy, member, wrap, unwrap

    def __repr__(self) -> str:
        return f"<qt slot {self._member.name} of {type(self._proxy).__name__} instance>"

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, BoundMethod) and self._proxy is other._proxy
        return same and self._member.name == other._member.name

    def __hash__(self) -> int:
        return hash((self._proxy, self._member.name))

    @property
    def __signature__(self) -> None:
        raise ValueError(f"no signature found for builtin {self!r}")  # seen in Slicer 5.12

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        member, class_name = self._member, type(self._proxy)._class_name
        _refuse_keywords(member, keywords)
        q = self._proxy._live(f"call {member.name!r} on")
        own = behaviour(class_name, member.name)
        if own is not None:
            return own(self._proxy, *arguments)
        values = [self._unwrap(value) for value in arguments]
        if pyside_class(member.owner) is None:
            return self._wrap(call_standin(q, member, values))
        native = getattr(q, member.name, None)
        if native is None:
            raise NotModelled(f"{member.owner}.{member.name}: PySide6 does not have it")
        return self._wrap(call_native(native, member.name, member.types, values, member.owner))


class UnboundMethod:
    """What ``qt.QTimer.singleShot`` or ``qt.QDialog.closeEvent`` is."""

    def __init__(self, class_name: str, member: Member, wrap: Callable, unwrap: Callable) -> None:
        self._class_name, self._member, self._wrap, self._unwrap = class_name, member, wrap, unwrap

    def __repr__(self) -> str:
        return f"<unbound qt slot {self._member.name} of {self._class_name} type>"

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        member = self._member
        _refuse_keywords(member, keywords)
        own = behaviour(self._class_name, member.name)
        values = [self._unwrap(value) for value in arguments]
        if member.is_static:
            if own is not None:
                return own(None, *arguments)
            native = getattr(pyside_class(member.owner), member.name, None)
            if native is None:
                raise NotModelled(f"{member.owner}.{member.name}: PySide6 does not have it")
            return self._wrap(call_native(native, member.name, member.types, values, member.owner))
        if not arguments or not hasattr(arguments[0], "_live"):
            raise ValueError(f"{self!r}: the first argument has to be the object")
        if own is not None:
            return own(*arguments)
        native = getattr(pyside_class(member.owner), member.name, None)
        if native is None:
            raise NotModelled(f"{member.owner}.{member.name} called on the class")
        return self._wrap(
            call_native(lambda *rest: native(values[0], *rest), member.name, member.types, values[1:], member.owner)
        )


def _refuse_keywords(member: Member, keywords: dict[str, Any]) -> None:
    if keywords:
        raise ValueError(f"Called {member.name}(...) with keyword arguments, but called slot does not support kwargs.")


def call_standin(q: Any, member: Member, values: list[Any]) -> Any:
    """Call a method of ours, with the arguments as one of the forms in Slicer takes them."""
    if member.name not in type(q).modelled:
        raise NotModelled(f"{member.owner}.{member.name}")
    for fitting in fitting_arguments(member.types, values, member.owner):
        return getattr(q, member.name)(*fitting)
    raise ValueError(f"Called {member.owner}.{member.name}{tuple(member.types)} with wrong arguments: {values!r}")


def call_native(
    function: Callable, name: str, signatures: tuple[str, ...] | list[str], values: list[Any], class_name: str
) -> Any:
    """Call PySide6 with the arguments as one of the overloads takes them.

    Raises:
        ValueError: none does.
    """
    reasons = []
    for fitting in fitting_arguments(signatures, values, class_name):
        try:
            return function(*fitting)
        except TypeError as error:
            reasons.append(str(error).splitlines()[0])
    why = f" ({reasons[0]})" if reasons else ""
    raise ValueError(f"Called {name}{tuple(signatures)} with wrong arguments: {values!r}{why}")


def fitting_arguments(signatures: tuple[str, ...] | list[str], values: list[Any], class_name: str) -> Any:
    """The arguments for each overload that takes them: first those that take them as they are."""
    forms = _forms(tuple(signatures), len(values), class_name)
    for kindness in (0, 1, 2):
        for form in forms:
            try:
                yield [fit(value, kindness) for value, fit in zip(values, form, strict=True)]
            except Misfit:
                continue


@functools.cache
def _forms(signatures: tuple[str, ...], count: int, class_name: str) -> tuple[tuple[Callable, ...], ...]:
    """How each overload that takes so many arguments converts them."""
    forms = []
    for types in map(argument_types, signatures):
        required = sum(not kind.endswith("=?") for kind in types)
        if required <= count <= len(types):
            forms.append(tuple(fitter(kind, class_name) for kind in types[:count]))
    return tuple(forms)
