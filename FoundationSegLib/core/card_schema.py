"""From decoded TOML to dataclasses: the fields and their types are the schema, and every complaint names its place."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import CardError

UNKNOWN = "unknown"  # in a card, a number that nobody knows
LONGEST_TEXT = 2000
LARGEST_NUMBER = 10**13  # no checkpoint has 10 TB, and beyond 2**53 a float would not hold it


def check(holds: bool, message: str) -> None:
    """Complain unless something holds.

    Raises:
        CardError: it does not.
    """
    if not holds:
        raise CardError(message)


def build(wanted: Any, value: Any, place: str) -> Any:
    """A value of the wanted type from TOML values.

    Args:
        wanted: a dataclass, a type, or what a field's annotation says: tuple, Mapping, Literal, ``int | None``.
        value: the decoded value.
        place: the file's name and the way to the value, for messages.

    Raises:
        CardError: the value has another type, or a table lacks a field or has an unknown one.
    """
    if isinstance(wanted, type) and hasattr(wanted, "__dataclass_fields__"):
        return _build_record(wanted, value, place)
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Literal:
        check(
            any(value is choice or (type(value) is type(choice) and value == choice) for choice in arguments),
            f"{place}: must be one of {', '.join(map(str, arguments))}, not {_shown(value)}",
        )
        return value
    if origin in (Union, UnionType):
        return None if arguments[0] is int and value == UNKNOWN else build(arguments[0], value, place)
    if origin is tuple:
        check(isinstance(value, list), f"{place}: must be a list")
        return tuple(build(arguments[0], item, f"{place}[{n}]") for n, item in enumerate(value))
    if origin is Mapping:
        check(isinstance(value, Mapping), f"{place}: must be a table")
        return {
            build(str, key, f"{place}: a name"): build(arguments[1], item, f"{place}.{key}")
            for key, item in value.items()
        }
    return _build_plain(wanted, value, place)


def _build_plain(wanted: type, value: Any, place: str) -> Any:
    check(type(value) is wanted, f"{place}: must be {wanted.__name__}, not {type(value).__name__}")
    if wanted is str:
        # What a card says is shown in terminals: an escape sequence in it could rewrite what stands there.
        check(value.isprintable(), f"{place}: must be one line without control characters")
        check(len(value) <= LONGEST_TEXT, f"{place}: is longer than {LONGEST_TEXT} characters")
    if wanted is int:
        check(abs(value) <= LARGEST_NUMBER, f"{place}: is larger than anything it could count")
    return value


def _build_record(wanted: Any, value: Any, place: str) -> Any:
    check(isinstance(value, Mapping), f"{place}: must be a table")
    hints = get_type_hints(wanted)
    for name in value:
        check(name in hints, f"{place}: unknown field {_shown(name)}")
    for field in fields(wanted):
        if field.default is MISSING and field.default_factory is MISSING:
            check(field.name in value, f"{place}: {field.name} is missing")
            check(value[field.name] != "", f"{place}: {field.name}: is empty")
    return wanted(**{name: build(hints[name], item, f"{place}: {name}") for name, item in value.items()})


def _shown(value: Any) -> str:
    """A value in a message: on one line, and not endless."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
