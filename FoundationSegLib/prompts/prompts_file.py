"""The prompts file: JSON values to prompts and back; every mistake is named by its place in the document."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

from ..catalog.model_cards import PromptKind
from ..errors import InputError, PromptError
from ..folders import replace_text
from ..imaging.geometry import AXES, Axis, Vector
from .kinds import PROMPT_TYPES, MaskPrompt, ObliquePlane, Plane, Polarity, Prompt, PromptSet, SegmentPrompts

VERSION = 1
_LONGEST_NAME = 200  # characters
_LARGEST_NUMBER = 1e9  # voxels or mm


def parse_prompts(document: object) -> PromptSet:
    """The prompts of a decoded JSON document.

    Raises:
        PromptError: anything missing, unknown, of the wrong type or out of range; ``location`` says where.
    """
    root = _mapping(document, "", required=("version", "segments"), optional=("space",))
    if root["version"] != VERSION or isinstance(root["version"], bool):
        raise PromptError(f"must be {VERSION}, not {_describe(root['version'])}", "version")
    space = root.get("space", "ras")
    if space not in ("ras", "ijk"):
        raise PromptError(f"must be 'ras' or 'ijk', not {_describe(space)}", "space")
    segments = tuple(
        _segment(value, f"segments[{n}]") for n, value in enumerate(_list(root["segments"], "segments", least=1))
    )
    _refuse_twins(segments)
    return PromptSet(segments, space)


def _refuse_twins(segments: Sequence[SegmentPrompts]) -> None:
    names: set[str] = set()
    for n, segment in enumerate(segments):
        if segment.name in names:
            raise PromptError(f"the name {segment.name!r} is taken by an earlier segment", f"segments[{n}].name")
        names.add(segment.name)


def _segment(value: object, location: str) -> SegmentPrompts:
    segment = _mapping(value, location, required=("name", "prompts"))
    prompts = _list(segment["prompts"], f"{location}.prompts", least=1)
    return SegmentPrompts(
        _name(segment["name"], f"{location}.name"),
        tuple(_prompt(prompt, f"{location}.prompts[{n}]") for n, prompt in enumerate(prompts)),
    )


def _prompt(value: object, location: str) -> Prompt:
    if not isinstance(value, Mapping):
        raise PromptError(f"must be an object, not {_kind_of(value)}", location)
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in PROMPT_TYPES:
        problem = f"{_describe(kind)} is unknown" if "type" in value else "missing"
        raise PromptError(f"{problem}; must be one of {', '.join(PROMPT_TYPES)}", f"{location}.type")
    prompt_type = PROMPT_TYPES[cast("PromptKind", kind)]
    readers = {field.name: _READERS[field.name] for field in fields(prompt_type) if field.name in _READERS}
    required = tuple(name for name in readers if name not in _OPTIONAL)
    values = _mapping(value, location, required=("type", *required), optional=tuple(_OPTIONAL & readers.keys()))
    arguments = {name: read(values[name], f"{location}.{name}") for name, read in readers.items() if name in values}
    if kind == "lasso" and len(arguments["points"]) < 3:
        raise PromptError("a lasso needs at least three points", f"{location}.points")
    return prompt_type(**arguments)


def _kind_of(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _describe(value: object) -> str:
    """A value in a message: short words and numbers as they are, of others only what they are."""
    short = isinstance(value, str) and len(value) < 60
    number = type(value) in (int, float) and abs(cast("float", value)) < 1e9
    return repr(value) if short or number else _kind_of(value)


def _mapping(value: object, location: str, required: Sequence[str], optional: Sequence[str] = ()) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise PromptError(f"must be an object, not {_kind_of(value)}", location)
    for name in value:
        if name not in required and name not in optional:
            names = ", ".join((*required, *optional))
            raise PromptError(f"unknown field; known here: {names}", join_location(location, str(name)[:_LONGEST_NAME]))
    for name in required:
        if name not in value:
            raise PromptError("missing", join_location(location, name))
    return value


def join_location(location: str, name: str) -> str:
    """The place of a field in its object; ``location`` is empty for the document itself."""
    return f"{location}.{name}" if location else name


def _list(value: object, location: str, least: int) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise PromptError(f"must be a list, not {_kind_of(value)}", location)
    if len(value) < least:
        raise PromptError(f"needs at least {least} of them" if value else "is empty", location)
    return value


def _text(value: object, location: str) -> str:
    if not isinstance(value, str):
        raise PromptError(f"must be text, not {_kind_of(value)}", location)
    if not value.strip():
        raise PromptError("is empty", location)
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise PromptError("holds a character that no file can hold", location)
    return value


def _name(value: object, location: str) -> str:
    name = _text(value, location)
    if len(name) > _LONGEST_NAME:
        raise PromptError(f"is longer than {_LONGEST_NAME} characters", location)
    return name


def _number(value: object, location: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PromptError(f"must be a number, not {_kind_of(value)}", location)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise PromptError("must be a finite number", location)
    if abs(number) > _LARGEST_NUMBER:
        raise PromptError(f"{number:.3g} is larger than any image", location)
    return number


def _vector(value: object, location: str) -> Vector:
    numbers = _list(value, location, least=1)
    if len(numbers) != 3:
        raise PromptError(f"needs three numbers, not {len(numbers)}", location)
    x, y, z = (_number(number, f"{location}[{n}]") for n, number in enumerate(numbers))
    return x, y, z


def _corners(value: object, location: str) -> tuple[Vector, Vector]:
    corners = _points(value, location)
    if len(corners) != 2:
        raise PromptError(f"needs two corners, not {len(corners)}", location)
    return corners[0], corners[1]


def _points(value: object, location: str) -> tuple[Vector, ...]:
    return tuple(_vector(point, f"{location}[{n}]") for n, point in enumerate(_list(value, location, least=1)))


def _radius(value: object, location: str) -> float:
    radius = _number(value, location)
    if radius <= 0:
        raise PromptError("must be above 0", location)
    return radius


def _polarity(value: object, location: str) -> Polarity:
    if value not in ("positive", "negative"):
        raise PromptError(f"must be 'positive' or 'negative', not {_describe(value)}", location)
    return Polarity(str(value))


def _plane(value: object, location: str) -> Plane:
    if isinstance(value, str):
        if value not in AXES:
            raise PromptError(f"must be 'i', 'j', 'k' or an object, not {_describe(value)}", location)
        return cast("Axis", value)
    plane = _mapping(value, location, required=("origin", "normal", "up"))
    origin, normal, up = (_vector(plane[name], f"{location}.{name}") for name in ("origin", "normal", "up"))
    if not math.hypot(*normal) > 0:
        raise PromptError("must not be zero", f"{location}.normal")
    if not math.hypot(*_cross(normal, up)) > 1e-6 * math.hypot(*normal) * math.hypot(*up):
        raise PromptError("must not be zero or along the normal", f"{location}.up")
    return ObliquePlane(origin, normal, up)


def _cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


_READERS: dict[str, Callable[[object, str], Any]] = {
    "position": _vector,
    "corners": _corners,
    "points": _points,
    "radius_mm": _radius,
    "polarity": _polarity,
    "plane": _plane,
    "file": _text,
    "segment": _name,
    "text": _text,
    "name": _name,
}
_OPTIONAL = {"polarity", "plane", "radius_mm"}


def prompts_to_document(prompts: PromptSet) -> dict[str, Any]:
    """The JSON values of a prompts file; :func:`parse_prompts` gives the same prompts back."""
    return {
        "version": VERSION,
        "space": prompts.space,
        "segments": [
            {"name": segment.name, "prompts": [prompt_to_document(prompt) for prompt in segment.prompts]}
            for segment in prompts.segments
        ],
    }


def prompt_to_document(prompt: Prompt) -> dict[str, Any]:
    """The JSON values of one prompt of a prompts file; voxels are no part of it."""
    document: dict[str, Any] = {"type": prompt.kind}
    for field in fields(prompt):
        value = getattr(prompt, field.name)
        if field.name not in _READERS or (field.name in _OPTIONAL and value == field.default):
            continue
        if isinstance(value, ObliquePlane):
            value = {"origin": list(value.origin), "normal": list(value.normal), "up": list(value.up)}
        elif isinstance(value, tuple):
            value = list(map(list, value)) if isinstance(value[0], tuple) else list(value)
        document[field.name] = value.value if isinstance(value, Polarity) else value
    return document


def bare(prompt: Prompt) -> Prompt:
    """The prompt as far as a prompts file has it: without voxels."""
    return replace(prompt, voxels=None) if isinstance(prompt, MaskPrompt) and prompt.voxels is not None else prompt


_MOST_DIGITS = 400  # more than any finite number has


def read_prompts(path: Path) -> PromptSet:
    """The prompts of a file.

    Raises:
        InputError: the file cannot be read.
        PromptError: it is no JSON, or not of the form that the README describes; the message names the place.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name}: is not text in UTF-8; save it in that encoding") from error
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read: {error.strerror or error}") from error
    try:
        return parse_prompts(_decode(text))
    except PromptError as error:
        raise PromptError(f"{path.name}: {error}") from error


def write_prompts(path: Path, prompts: PromptSet) -> None:
    """Write prompts to a file, in place of one that is there; :func:`read_prompts` gives them back.

    The voxels of mask prompts are no part of the file: it names theirs.

    Raises:
        OutputError: the file cannot be written; one that is there stays.
    """
    text = json.dumps(prompts_to_document(prompts), indent=2, ensure_ascii=False, allow_nan=False)
    replace_text(path, text + "\n")


def _decode(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_without_twins, parse_int=_whole_number)
    except (ValueError, RecursionError) as error:
        raise PromptError(f"is no JSON: {error}") from error


def _whole_number(digits: str) -> float:
    """Python refuses to read thousands of digits as a whole number; as a real one they are infinite, and named so."""
    return int(digits) if len(digits) < _MOST_DIGITS else float(digits)


def _without_twins(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """JSON allows a field twice and keeps the last: here that would lose a prompt without a word."""
    document: dict[str, Any] = {}
    for name, value in pairs:
        if name in document:
            raise PromptError(f"the field {name!r} stands twice in one object")
        document[name] = value
    return document
