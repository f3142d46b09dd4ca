"""Requirements: which packages are asked for, in which versions, and whether an installed version will do."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import PackageError

if TYPE_CHECKING:  # this file is read by Pythons that have no numpy yet
    from .card_values import ModelCard

# What a worker needs beside its models' packages. numpy, for it does not start without; Slicer has it.
_OF_EVERY_WORKER = ("numpy",)
_OF_DOWNLOADS = ("huggingface_hub",)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CLAUSE = re.compile(r"(~=|===?|!=|<=|>=|<|>)\s*v?([0-9]+(?:\.[0-9]+)*)(\.\*)?")


def requirement_name(requirement: str) -> str:
    """The package that a requirement is about.

    Raises:
        PackageError: it names none.
    """
    found = _NAME.match(requirement.strip())
    if found is None:
        raise PackageError(f"{requirement[:80]!r} names no package")
    return found[0]


def is_satisfied(requirement: str, version: str) -> bool:
    """Whether an installed version is one that a requirement allows; no version, ``""``, never is.

    Only the numbers are compared: what is before a release, after it or local to a computer (``2.9.1rc1``,
    ``2.8.0+cu128``) counts as the release. For more, pip is asked. Source: PEP 440, version specifiers.
    """
    release = _release(version)
    return bool(release) and all(
        _is_within(release, operator, _release(number), bool(star))
        for operator, number, star in _CLAUSE.findall(requirement)
    )


def _release(version: str) -> tuple[int, ...]:
    found = re.match(r"v?(?:[0-9]+!)?([0-9]+(?:\.[0-9]+)*)", version.strip())
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def _is_within(version: tuple[int, ...], operator: str, number: tuple[int, ...], has_star: bool) -> bool:
    if operator == "~=":  # at least this, with all but the last number the same
        return _compare(version, number) >= 0 and _starts_with(version, number[:-1])
    if has_star:
        return _starts_with(version, number) == (operator in ("==", "==="))
    order = _compare(version, number)
    return {
        "==": order == 0,
        "===": order == 0,
        "!=": order != 0,
        "<=": order <= 0,
        ">=": order >= 0,
        "<": order < 0,
        ">": order > 0,
    }[operator]


def _compare(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    length = max(len(one), len(other))
    padded_one, padded_other = (version + (0,) * (length - len(version)) for version in (one, other))
    return (padded_one > padded_other) - (padded_one < padded_other)


def _starts_with(version: tuple[int, ...], start: tuple[int, ...]) -> bool:
    return (version + (0,) * len(start))[: len(start)] == start


def missing_requirements(requirements: Sequence[str], versions: Mapping[str, str]) -> tuple[str, ...]:
    """The requirements that the installed packages do not fulfil: absent, or in a version that is not allowed.

    Args:
        requirements: as pip takes them.
        versions: the installed version by the name that the requirement uses; empty or missing where there is none.
    """
    return tuple(text for text in requirements if not is_satisfied(text, versions.get(requirement_name(text), "")))


def requirements_of(card: "ModelCard", *, to_download: bool) -> tuple[str, ...]:
    """Everything that the Python which runs a model needs, each package once.

    Args:
        card: the model.
        to_download: the checkpoint has still to be fetched, which a source on the Hub needs a client for.
    """
    own = list(card.packages)
    extra = _OF_EVERY_WORKER + (_OF_DOWNLOADS if to_download and card.source.kind == "hub" else ())
    names = {requirement_name(text) for text in own}
    known = {requirement_name(text): text for text in shipped_requirements()}
    return (*own, *(known.get(name, name) for name in extra if name not in names))


def shipped_requirements() -> tuple[str, ...]:
    """The lines of ``Resources/requirements.txt``, which has the version ranges that this version was tested with."""
    path = Path(__file__).resolve().parents[2] / "Resources" / "requirements.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise PackageError("the list of packages is missing; install FoundationSeg again") from error
    return tuple(line.strip() for line in lines if _NAME.match(line.strip()))
