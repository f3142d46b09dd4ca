"""A prompts file on disk: JSON, decoded strictly, written whole or not at all."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import InputError, OutputError, PromptError
from .prompts import PromptSet
from .prompts_document import parse_prompts, prompts_to_document

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
        raise InputError(f"{path.name}: is not a text file") from error
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
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(text + "\n", encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OutputError(f"{path.name}: cannot be written: {error.strerror or error}") from error


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
