"""Values to JSON documents and to messages, and back: the fields of dataclasses and their types are the schema.

::

    document = to_document(Propagation(start=3))     # {"start": 3, "stop": None, "direction": "both", ...}
    from_document(Propagation, document, "settings")  # the same value
    document, parts = pack(mask)                      # of arrays and bytes, the bytes go beside the document
    unpack(PackedMask, document, b"".join(parts))

A document is strict: a field that is missing, unknown, or of another type than its annotation is a
:class:`~FoundationSegLib.errors.DocumentError` that names its place. Known are dataclasses, optional fields,
unions, ``Literal``, enumerations, ``tuple``, ``Mapping``, ``Path``, ``Any`` (JSON values as they are), plain numbers
and texts, and in messages ``bytes`` and numpy's arrays. numpy is imported when an array comes.
"""

import itertools
import math
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields, is_dataclass, make_dataclass
from enum import Enum
from functools import cache, partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import DocumentError

T = TypeVar("T")
Buffer = bytes | bytearray | memoryview
_LARGE = 2**20  # bytes


@typing.dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(kind: Any = None, *, eq: bool = True) -> Any:
    """Make a class a ``dataclass(frozen=True, slots=True)`` whose methods are compiled at the first call of one.

    That takes 0.3 to 0.4 ms a class, and most of those that Slicer imports are for a rare command. A field that is no
    argument (``init=False``) is set by ``__post_init__``.
    """
    return partial(_make_record, eq=eq) if kind is None else _make_record(kind, eq=eq)


@typing.dataclass_transform(field_specifiers=(field,))
def mutable(kind: Any = None, *, eq: bool = True) -> Any:
    """Make a class a ``dataclass(slots=True)`` as :func:`frozen` does it for one that is frozen."""
    return partial(_make_record, eq=eq, is_frozen=False) if kind is None else _make_record(kind, eq, is_frozen=False)


def _make_record(kind: Any, eq: bool, *, is_frozen: bool = True) -> Any:
    record = dataclass(init=False, repr=False, eq=False, slots=True)(kind)
    methods = ("__init__", "__repr__", *(("__eq__", "__hash__") if eq else ()))
    names = [name for name in methods if vars(kind).get(name) is None]
    if eq and not is_frozen:
        names.remove("__hash__")
        record.__hash__ = None

    def waiting(name: str) -> Any:
        return lambda self, *arguments, **named: _complete(record, names, eq, is_frozen)[name](
            self, *arguments, **named
        )

    for name in names:
        setattr(record, name, waiting(name))
    if is_frozen:
        record.__setattr__ = record.__delattr__ = _refuse
        record.__setstate__ = _restore
    return record


def _complete(record: Any, names: Sequence[str], eq: bool, is_frozen: bool) -> Mapping[str, Any]:
    """Give a class the methods of a dataclass of the same fields."""
    items = [(item.name, item.type, copy(item)) for item in fields(record)]
    namespace = {name: getattr(record, name) for name in ("__doc__", "__post_init__") if hasattr(record, name)}
    twin = make_dataclass(record.__qualname__, items, namespace=namespace, eq=eq, frozen=is_frozen)
    for name in names:
        setattr(record, name, getattr(twin, name))
    return vars(twin)


def _refuse(self: Any, name: str, value: Any = None) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to or delete field {name!r}")


def _restore(self: Any, state: tuple[None, dict[str, Any]]) -> None:
    """Fill a copy, or an instance that is unpickled."""
    for name, value in state[1].items():
        object.__setattr__(self, name, value)


@frozen
class Format:
    """Differences of a file format from the plain form.

    Attributes:
        tags: by class, the field that tells the classes of a union apart and what it says. Unless given, ``"type"`` and
            the name of the class. ``NoneType`` may have one, too.
        flat: by class, the field whose own fields stand beside the others instead of in an object of their own.
        omitted: fields that are left out where they are None, as class and name.
        unknown: what stands for None where a number may be absent; TOML has no null.
        is_typed: a person wrote it: texts are one line without control characters, and those required are not empty.
        longest_text: the most characters of a text.
        largest_number: the largest whole number, without its sign.
    """

    tags: Mapping[type, tuple[str, str]] = field(default_factory=dict)
    flat: Mapping[type, str] = field(default_factory=dict)
    omitted: frozenset[tuple[type, str]] = frozenset()
    unknown: str = ""
    is_typed: bool = False
    longest_text: int = 2**26
    largest_number: int = 2**63

    def tag(self, kind: type) -> tuple[str, str]:
        """The field that names a class of a union, and the name."""
        return self.tags.get(kind, ("type", kind.__name__))


_PLAIN = Format()


def to_document(value: Any, kind: Any = None, form: Format = _PLAIN) -> Any:
    """The JSON values of a value; ``kind`` is its type, which a union has to say.

    Raises:
        TypeError: it holds bytes or an array, which JSON does not know.
    """
    writer = _Writer(form)
    document = writer.write(type(value) if kind is None else kind, value)
    if writer.parts:
        raise TypeError(f"{type(value).__name__} holds bytes, which a JSON document does not")
    return document


def from_document(kind: type[T] | Any, document: Any, location: str, form: Format = _PLAIN) -> T:
    """The value of :func:`to_document`, of a decoded JSON or TOML document.

    Args:
        kind: the type of the value.
        document: the decoded value.
        place: the file's name, or another word for the document; messages begin with it.
        form: the file format.

    Raises:
        DocumentError: it has another form.
        FoundationSegError: the value itself refuses what it is made of.
    """
    return _Reader(form).read(kind, document, location)


def pack(value: Any, kind: Any = None, form: Format = _PLAIN) -> tuple[Any, list[memoryview]]:
    """A value as JSON values and the bytes beside them, which are copied only where an array does not lie together."""
    writer = _Writer(form)
    return writer.write(type(value) if kind is None else kind, value), writer.parts


def unpack(kind: type[T] | Any, document: Any, payload: Buffer, location: str) -> T:
    """The value of :func:`pack`; its arrays are read-only views of the payload.

    Raises:
        DocumentError: it has another form, or there are more or fewer bytes than it says.
        FoundationSegError: the value itself refuses what it is made of.
    """
    reader = _Reader(_PLAIN, memoryview(payload))
    value = reader.read(kind, document, location)
    _require(reader.at == len(payload), f"{location}: has {len(payload)} bytes beside it, not {reader.at}")
    return value


def room_for(length: int) -> bytearray | memoryview:
    """Memory for bytes that are on their way. NumPy does not fill it with zeros first, which takes a third as long."""
    if length >= _LARGE:
        with suppress(ImportError):
            import numpy as np

            return memoryview(np.empty(length, np.uint8))
    return bytearray(length)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise DocumentError(message)


class _Item(NamedTuple):
    """A field of a dataclass; ``is_json``: JSON has its values as they are."""

    name: str
    kind: Any
    is_required: bool
    is_json: bool


@cache
def _items(record: Any) -> tuple[_Item, ...]:
    """The fields of a dataclass, in order, which is also that of the bytes beside the document."""
    hints = get_type_hints(record)
    return tuple(
        _Item(item.name, hints[item.name], item.default is item.default_factory is MISSING, _is_json(hints[item.name]))
        for item in fields(record)
    )


@cache
def _shape(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """The origin and the arguments of an annotation."""
    return get_origin(kind), get_args(kind)


def _is_json(kind: Any) -> bool:
    """True where JSON has the values of a type as they are; of a number that may be absent, NaN is not."""
    origin, arguments = _shape(kind)
    if origin in (Union, UnionType):
        return float not in arguments and all(map(_is_json, arguments))
    return kind in (bool, int, float, str, Any, NoneType) or origin is Literal


def _is_array(origin: Any) -> bool:
    return getattr(origin, "__name__", "") == "ndarray"


def _are_points(kind: Any, items: Sequence[Any]) -> bool:
    """True where items are lists of finite floats as a tuple type asks for, for which none is looked at alone."""
    if _shape(kind)[0] is not tuple or set(_shape(kind)[1]) != {float} or set(map(type, items)) != {list}:
        return False
    numbers = list(itertools.chain.from_iterable(items))
    has_length = set(map(len, items)) == {len(_shape(kind)[1])}
    return has_length and set(map(type, numbers)) == {float} and all(map(math.isfinite, numbers))


@cache
def _members(kind: Any) -> tuple[list[Any], list[Any]]:
    """The dataclasses of a union, and its other members without None."""
    members = [member for member in _shape(kind)[1] if member is not NoneType]
    return [m for m in members if is_dataclass(m)], [m for m in members if not is_dataclass(m)]


@mutable
class _Writer:
    form: Format
    parts: list[memoryview] = field(default_factory=list)

    def write(self, kind: Any, value: Any) -> Any:
        origin, arguments = _shape(kind)
        if value is None or kind is Any:
            return value
        if is_dataclass(kind):
            return self._record(kind, value)
        if origin in (Union, UnionType):
            return self._union(kind, value)
        if origin is tuple:
            if all(item is Ellipsis or _is_json(item) for item in arguments):
                return list(value)
            kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
            return [self.write(item_kind, item) for item_kind, item in zip(kinds, value, strict=True)]
        if origin is Mapping:
            return {key: self.write(arguments[1], item) for key, item in value.items()}
        if _is_array(origin):
            return self._array(value)
        if isinstance(value, bytes | bytearray | memoryview):
            self.parts.append(memoryview(value))
            return {"bytes": len(value)}
        if isinstance(value, Enum):
            return value.value
        return str(value) if isinstance(value, Path) else value

    def _union(self, kind: Any, value: Any) -> Any:
        records, others = _members(kind)
        if not is_dataclass(value):
            # JSON has no NaN, and nothing can be said instead of a number that is none.
            is_number = not isinstance(value, float) or math.isfinite(value) or NoneType not in _shape(kind)[1]
            return self.write(others[0] if len(others) == 1 else Any, value if is_number else None)
        document = self._record(type(value), value)
        if len(records) == 1:
            return document
        key, name = self.form.tag(type(value))
        return {key: name, **document}

    def _record(self, kind: Any, record: Any) -> dict[str, Any]:
        document: dict[str, Any] = {}
        flat = self.form.flat.get(kind)
        for item in _items(kind):
            value = getattr(record, item.name)
            if item.name == flat:
                document |= self.write(item.kind, value) or dict([self.form.tag(NoneType)])
            elif value is not None or (kind, item.name) not in self.form.omitted:
                document[item.name] = value if item.is_json else self.write(item.kind, value)
        return document

    def _array(self, array: Any) -> dict[str, Any]:
        import numpy as np

        together = np.ascontiguousarray(array)
        self.parts.append(together.reshape(-1).view(np.uint8).data)
        return {"dtype": together.dtype.str, "shape": list(array.shape)}


@mutable
class _Reader:
    form: Format
    payload: memoryview = field(default_factory=lambda: memoryview(b""))
    at: int = 0

    def read(self, kind: Any, value: Any, location: str) -> Any:
        origin, arguments = _shape(kind)
        if kind is Any:
            return value
        if is_dataclass(kind):
            return self._record(kind, value, location)
        if origin is Literal:
            fits = any(value is choice or (type(value) is type(choice) and value == choice) for choice in arguments)
            _require(fits, f"{location}: must be one of {', '.join(map(str, arguments))}, not {_describe(value)}")
            return value
        if origin in (Union, UnionType):
            return self._union(kind, value, location)
        if origin is tuple:
            return self._tuple(arguments, value, location)
        if origin is Mapping:
            _require(isinstance(value, Mapping), f"{location}: must be a table")
            return {
                self.read(str, key, f"{location}: a name"): self.read(arguments[1], item, f"{location}.{key}")
                for key, item in value.items()
            }
        if _is_array(origin):
            return self._array(arguments[-1], value, location)
        if kind is bytes:
            _require(isinstance(value, Mapping) and value.keys() == {"bytes"}, f"{location}: must be bytes")
            return bytes(self._next(value["bytes"], location))
        return self._single(kind, value, location)

    def _single(self, kind: Any, value: Any, location: str) -> Any:
        if isinstance(kind, type) and issubclass(kind, Enum):
            names = [choice.value for choice in kind]
            _require(value in names, f"{location}: must be one of {', '.join(map(str, names))}, not {_describe(value)}")
            return kind(value)
        if kind is Path:
            return Path(self._single(str, value, location))
        name = "null" if kind is NoneType else kind.__name__
        fits = type(value) is kind or (kind is float and type(value) is int)
        _require(fits, f"{location}: must be {name}, not {type(value).__name__}")
        if kind is str:
            # A text that a person wrote is shown in terminals: an escape sequence could rewrite what stands there.
            is_line = not self.form.is_typed or value.isprintable()
            _require(is_line, f"{location}: must be one line without control characters")
            longest = self.form.longest_text
            _require(len(value) <= longest, f"{location}: is longer than {longest} characters")
        elif type(value) is int:
            _require(abs(value) <= self.form.largest_number, f"{location}: is larger than anything it could count")
        elif kind is float:
            _require(math.isfinite(value), f"{location}: must be a finite number")
        return value

    def _tuple(self, kinds: tuple[Any, ...], value: Any, location: str) -> tuple[Any, ...]:
        _require(isinstance(value, list | tuple), f"{location}: must be a list")
        if kinds[-1] is Ellipsis:
            if _are_points(kinds[0], value):  # an outline has a million of them
                return tuple(map(tuple, value))
            kinds = kinds[:1] * len(value)
        _require(len(value) == len(kinds), f"{location}: must be a list of {len(kinds)}, not of {len(value)}")
        return tuple(
            self.read(kind, item, f"{location}[{n}]") for n, (kind, item) in enumerate(zip(kinds, value, strict=True))
        )

    def _union(self, kind: Any, value: Any, location: str) -> Any:
        records, others = _members(kind)
        is_none = int in others and value == self.form.unknown if self.form.unknown else value is None
        if NoneType in _shape(kind)[1] and is_none:
            return None
        if isinstance(value, Mapping) and records:
            return self._tagged(kind, records, value, location)
        for member in others[:-1]:
            if type(value) is member:
                return value
        return self.read((others or records)[-1], value, location)

    def _tagged(self, kind: Any, records: list[Any], value: Mapping[str, Any], location: str) -> Any:
        if len(records) == 1:
            return self._record(records[0], value, location)
        choices = [*records, *(NoneType for member in _shape(kind)[1] if member is NoneType)]
        for choice in choices:
            key, name = self.form.tag(choice)
            if value.get(key) == name:
                rest = {other: item for other, item in value.items() if other != key}
                return None if choice is NoneType else self._record(choice, rest, location)
        key = self.form.tag(records[0])[0]
        raise DocumentError(f"{location}: {key}: no kind is called {_describe(value.get(key))}")

    def _record(self, kind: Any, value: Any, location: str) -> Any:
        _require(isinstance(value, Mapping), f"{location}: must be a table")
        items, flat = _items(kind), self.form.flat.get(kind)
        own = {item.name for item in items} - {flat}
        others = {name: item for name, item in value.items() if name not in own}
        if flat is not None:
            value = {**{name: value[name] for name in value if name in own}, flat: others}
        elif others:
            raise DocumentError(f"{location}: unknown field {_describe(next(iter(others)))}")
        arguments = {}
        for item in items:
            if item.name in value:
                is_empty = self.form.is_typed and item.is_required and value[item.name] == ""
                _require(not is_empty, f"{location}: {item.name}: is empty")
                where = location if item.name == flat else f"{location}: {item.name}"
                arguments[item.name] = self.read(item.kind, value[item.name], where)
            elif item.is_required:
                raise DocumentError(f"{location}: {item.name} is missing")
        return kind(**arguments)

    def _next(self, count: Any, location: str) -> memoryview:
        fits = type(count) is int and 0 <= count <= len(self.payload) - self.at
        _require(fits, f"{location}: has fewer bytes beside the document than it says")
        self.at += count
        return self.payload[self.at - count : self.at]

    def _array(self, kind: Any, value: Any, location: str) -> Any:
        import numpy as np

        is_named = isinstance(value, Mapping) and value.keys() == {"dtype", "shape"}
        _require(is_named and isinstance(value["dtype"], str), f"{location}: must be an array")
        shape = self._tuple((int, Ellipsis), value["shape"], f"{location}: shape")
        try:
            dtype = np.dtype(value["dtype"])
        except TypeError as error:
            raise DocumentError(f"{location}: {_describe(value['dtype'])} is no type of numbers") from error
        expected = _shape(kind)[1][0] if _shape(kind)[1] else np.generic
        _require(
            dtype.kind in "biuf" and issubclass(dtype.type, expected), f"{location}: is of the wrong type, {dtype}"
        )
        _require(all(count >= 0 for count in shape), f"{location}: its shape is negative")
        array = np.frombuffer(self._next(math.prod(shape) * dtype.itemsize, location), dtype).reshape(shape)
        array.flags.writeable = False
        return array


def _describe(value: Any) -> str:
    """A value in a message: on one line, and not endless."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
