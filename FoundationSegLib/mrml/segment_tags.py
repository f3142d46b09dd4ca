"""Segment tags: provenance, DICOM's algorithm, lock, coded terms and colours."""

import colorsys
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import slicer
import vtk

from ..catalog.class_lists import name_key
from ..errors import InputError
from ..session.segment_store import PROVENANCE

Colour = tuple[float, float, float]

_TABLE = Path(__file__).parents[2] / "Resources" / "Terminology.toml"
_SCHEME = "SCT"
# Slicer compares region contexts without asking whether there is one, and writes this one even where no region is set.
_REGION_CONTEXT = "Anatomic codes - DICOM master list"
_GOLDEN_RATIO = 0.618034


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept of SNOMED CT: its number and its meaning in words."""

    value: str
    meaning: str

    @property
    def serialized(self) -> str:
        """Scheme, value and meaning as Slicer joins them."""
        return f"{_SCHEME}^{self.value}^{self.meaning}"


@dataclass(frozen=True, slots=True)
class Term:
    """A structure or a finding in codes.

    Attributes:
        context: the name of Slicer's term list that has the type.
        category: the group of the type, such as "Anatomical Structure".
        type: the structure or finding itself.
        modifier: the side of a paired structure, where the name says it.
        colour: red, green, blue from 0 to 1 as Slicer's list recommends; None where it does not.
    """

    context: str
    category: Code
    type: Code
    modifier: Code | None = None
    colour: Colour | None = None

    @property
    def serialized(self) -> str:
        """The term in the form that `vtkSegment.SetTerminology` takes."""
        modifier = self.modifier.serialized if self.modifier else "^^"
        codes = (self.category.serialized, self.type.serialized, modifier)
        return "~".join((self.context, *codes, _REGION_CONTEXT, "^^", "^^"))


def find_term(name: str) -> Term | None:
    """The term of a segment name such as ``"Left kidney"``, ``"kidney_left"`` or ``"tumour"``; None if unknown."""
    return _terms().get(name_key(name))


def known_names() -> tuple[str, ...]:
    """The names of all terms, in the order of the table."""
    return tuple(entry["name"] for entry in _table()["terms"])


def generic_colour(index: int) -> Colour:
    """A colour for the segment with that number, well apart from those of the numbers before."""
    red, green, blue = colorsys.hsv_to_rgb((0.1 + index * _GOLDEN_RATIO) % 1, 0.6, 0.95)
    return red, green, blue


@cache
def _table() -> Mapping[str, Any]:
    return tomllib.loads(_TABLE.read_text(encoding="utf-8"))


@cache
def _terms() -> Mapping[tuple[str, ...], Term]:
    """All terms by the key of each of their names, sides included. The exact names of sided types win."""
    table = _table()
    plain, sided = {}, {}
    for entry in table["terms"]:
        term = _term(entry, table)
        for name in (entry["name"], *entry.get("aliases", ())):
            plain[name_key(name)] = term
            for side in table["modifiers"] if entry.get("paired") else ():
                sided[name_key(name, side)] = replace(term, modifier=_code(table["modifiers"][side]))
    return sided | plain


def _term(entry: Mapping[str, Any], table: Mapping[str, Any]) -> Term:
    category = table["categories"][entry.get("category", "structure")]
    return Term(
        context=table["contexts"][entry.get("context", "general")],
        category=_code(category),
        type=Code(entry["code"], entry["name"]),
        colour=_colour(entry["rgb"]) if "rgb" in entry else None,
    )


def _code(entry: Mapping[str, str]) -> Code:
    return Code(entry["code"], entry["meaning"])


def _colour(rgb: list[int]) -> Colour:
    red, green, blue = (level / 255 for level in rgb)
    return red, green, blue


PREFIX = "FoundationSeg."
# Slicer's DICOM SEG export takes both from the segment's tags, and writes MANUAL without them.
ALGORITHM_TYPE, ALGORITHM_NAME = "DICOM.SegmentAlgorithmType", "DICOM.SegmentAlgorithmName"
_LONGEST_NAME = 64  # characters of a DICOM long string (LO)
_WITHOUT_HAND = {"text", "class"}  # kinds of prompts that nobody places on the image
_LOCKED = "Locked"

# Printable characters that survive Slicer's joining and the NRRD header, which gives the backslash a meaning.
_SAFE = " !\"#$&'()*+,/:;<=>?@[]^`{}~"


def write_tag(segment: Any, name: str, value: str) -> None:
    """Set one tag of a `vtkSegment`; ``name`` is taken as it is, the value may be any text."""
    segment.SetTag(name, quote(value, safe=_SAFE))


def read_tag(segment: Any, name: str) -> str | None:
    """The text that :func:`write_tag` wrote, or None."""
    text = vtk.reference("")
    return unquote(str(text)) if segment.GetTag(name, text) else None


def set_provenance(segment: Any, origin: Mapping[str, str]) -> None:
    """Write where a segment came from, and what its export to DICOM needs: algorithm and terminology.

    Args:
        segment: a `vtkSegment`.
        origin: keys out of :data:`PROVENANCE`; those left out are removed.

    Raises:
        InputError: a key is not known; nothing is written then.
    """
    unknown = sorted(set(origin) - set(PROVENANCE))
    if unknown:
        raise InputError(f"no such provenance: {', '.join(unknown)}; known are {', '.join(PROVENANCE)}")
    before = provenance(segment)
    if before == origin:
        return
    old, new = _algorithm(before), _algorithm(origin)
    for name in (ALGORITHM_TYPE, ALGORITHM_NAME):
        if name in new or old.get(name) == read_tag(segment, name):  # others' tags stay where ours go
            _set_tag(segment, name, new.get(name))
    for key in PROVENANCE:
        _set_tag(segment, PREFIX + key, origin.get(key))
    if not segment.GetTerminology():
        segment.SetTerminology(slicer.vtkSegment().GetTerminology())


def _set_tag(segment: Any, name: str, value: str | None) -> None:
    if value is None:
        segment.RemoveTag(name)
    elif read_tag(segment, name) != value:  # each tag that is set makes observers look
        write_tag(segment, name, value)


def _algorithm(origin: Mapping[str, str]) -> dict[str, str]:
    """The DICOM tags of a segment that a model made: how far by itself, and its name, revision and software."""
    if not origin.get("Model"):
        return {}
    version = f"(FoundationSeg {origin['Version']})" if origin.get("Version") else ""
    name = " ".join(filter(None, (origin["Model"], origin.get("Revision", "")[:12], version)))
    is_automatic = _prompt_kinds(origin.get("Prompts", "")) <= _WITHOUT_HAND
    return {
        ALGORITHM_TYPE: "AUTOMATIC" if is_automatic else "SEMIAUTOMATIC",
        ALGORITHM_NAME: name.replace("\\", "/")[:_LONGEST_NAME],
    }


def _prompt_kinds(text: str) -> set[str]:
    """The kinds of the prompts in a list of prompts or a prompts file; what else there is counts as no prompt."""
    try:
        document = json.loads(text or "[]")
    except ValueError:
        return {"unknown"}
    segments = [{"prompts": document}] if isinstance(document, list) else document.get("segments", ())
    return {str(prompt["type"]) for segment in segments for prompt in segment["prompts"]}


def provenance(segment: Any) -> dict[str, str]:
    """The provenance of a segment by :data:`PROVENANCE`; empty for one that FoundationSeg did not make."""
    origin = {}
    for key in PROVENANCE:
        value = read_tag(segment, PREFIX + key)
        if value is not None:
            origin[key] = value
    return origin


def lock(segment: Any, locked: bool = True) -> None:
    """Keep a segment from being written, or allow it again. Slicer itself knows no lock and minds none."""
    if locked:
        write_tag(segment, PREFIX + _LOCKED, "1")
    else:
        segment.RemoveTag(PREFIX + _LOCKED)


def is_locked(segment: Any) -> bool:
    """True for a segment that was locked."""
    return read_tag(segment, PREFIX + _LOCKED) == "1"
