"""TOML files that people write, such as model cards: finding, reading and checking them, with errors that name them."""

import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from ..codec import Format, from_document
from ..errors import CardError, DocumentError

# No checkpoint has 10 TB, and beyond 2**53 a float would not hold a number. "unknown" stands for a number that nobody
# knows.
_FORMAT = Format(unknown="unknown", is_typed=True, longest_text=2000, largest_number=10**13)


def check(holds: object, message: str) -> None:
    """Complain unless something holds.

    Raises:
        CardError: it does not.
    """
    if not holds:
        raise CardError(message)


def build(kind: Any, document: Any, location: str) -> Any:
    """A value of a type from decoded TOML; ``location`` is the file's name, for messages.

    Raises:
        CardError: a value has another type, or a table lacks a field or has an unknown one.
    """
    try:
        return from_document(kind, document, location, _FORMAT)
    except DocumentError as error:
        raise CardError(str(error)) from error


def resource_folder(name: str) -> Path:
    """A folder of files that come with FoundationSeg."""
    return Path(__file__).resolve().parents[2] / "Resources" / name


def existing_folder(folder: Path, variable: str) -> Path | None:
    """The user's own folder; None where there is none and no variable of the environment names one.

    Raises:
        CardError: the variable names a folder that is not there.
    """
    if folder.is_dir():
        return folder
    check(not os.environ.get(variable), f"{variable} names no folder: {folder.name}")
    return None


def toml_files(folder: Path, noun: str) -> list[Path]:
    """The files of a folder, in order; what other programs hide there (``._name.toml`` on a Mac) is none.

    Raises:
        CardError: there is no such folder, or it cannot be read.
    """
    check(folder.is_dir(), f"there is no folder of {noun}s called {folder.name}; install FoundationSeg again")
    try:
        return sorted(path for path in folder.glob("*.toml") if not path.name.startswith("."))
    except OSError as error:
        raise CardError(f"the folder of {noun}s {folder.name} cannot be read: {error.strerror}") from error


def read_toml(path: Path, origin: str, noun: str, most_bytes: int, decode: Callable[[str], Any] = tomllib.loads) -> Any:
    """The decoded document of a file that messages call ``origin``.

    Raises:
        CardError: it cannot be read, is too large for a ``noun``, or is no TOML.
    """
    try:
        check(path.stat().st_size <= most_bytes, f"{origin}: is too large for a {noun}")
        return decode(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__  # an OSError's own text has the whole path
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, endless numbers, endless nesting
        reason = (ascii(str(error))[1:-1].split("\\n")[0] or type(error).__name__)[:200]
    raise CardError(f"{origin}: cannot be read: {reason}")


def toml_text(record: Any) -> str:
    """A dataclass as TOML that :func:`build` reads again; what has its default is left out."""
    return "\n".join(_lines(record, "")).strip() + "\n"


def _lines(record: Any, table: str) -> list[str]:
    """The record's own values, then its tables, as TOML wants them."""
    values = {item.name: getattr(record, item.name) for item in fields(record) if not _is_default(record, item)}
    plain = [f"{name} = {_value(value)}" for name, value in values.items() if not _is_table(value)]
    tables = [line for name, value in values.items() if _is_table(value) for line in _table(f"{table}{name}", value)]
    return [*plain, *tables]


def _table(name: str, value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return ["", f"[{name}]", *(f"{json.dumps(key)} = {_value(item)}" for key, item in value.items())]
    if isinstance(value, tuple):
        return [line for item in value for line in ("", f"[[{name}]]", *_lines(item, f"{name}."))]
    return ["", f"[{name}]", *_lines(value, f"{name}.")]


def _is_table(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        or is_dataclass(value)
        or (isinstance(value, tuple) and any(map(is_dataclass, value)))
    )


def _is_default(record: Any, item: Any) -> bool:
    default = item.default if item.default_factory is MISSING else item.default_factory()
    value = getattr(record, item.name)
    return value is None or (default is not MISSING and value == default)


def _value(value: Any) -> str:
    # JSON writes texts, numbers, lists and true as TOML reads them.
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
