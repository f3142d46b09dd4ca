"""Coded terms and colours of segments, by their names, as Slicer keeps them."""

import colorsys
import math
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ..catalog.label_sets import name_key
from ..codec import frozen

Colour = tuple[float, float, float]

_TABLE = Path(__file__).parents[2] / "Resources" / "Terminology.toml"
_SCHEME = "SCT"
# Slicer compares region contexts without asking whether there is one, and writes this one even where no region is set.
_REGION_CONTEXT = "Anatomic codes - DICOM master list"
_GOLDEN_RATIO = 0.618034
_APART = 0.15  # of red, green and blue from 0 to 1: aorta and heart of Slicer's list are 0.09 apart
_SHADES = (0.12, -0.12, 0.2, -0.2, 0.28, -0.28)


@frozen
class Code:
    """A coded concept of SNOMED CT: its number and its meaning in words."""

    value: str
    meaning: str

    @property
    def serialized(self) -> str:
        """Scheme, value and meaning as Slicer joins them."""
        return f"{_SCHEME}^{self.value}^{self.meaning}"


@frozen
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


def codes_of(serialized: str) -> tuple[tuple[str, str, str], ...]:
    """Category, type and modifier of a term as Slicer keeps it: scheme, value and meaning of each, empty for none."""
    parts = [*serialized.split("~"), "", "", ""][1:4]
    return tuple((*part.split("^"), "", "", "")[:3] for part in parts)


def known_names() -> tuple[str, ...]:
    """The names of all terms, in the order of the table."""
    return tuple(entry["name"] for entry in _table()["terms"])


def generic_colour(index: int) -> Colour:
    """A colour for the segment with that number, well apart from those of the numbers before."""
    red, green, blue = colorsys.hsv_to_rgb((0.1 + index * _GOLDEN_RATIO) % 1, 0.6, 0.95)
    return red, green, blue


def distinct_colour(usual: Colour | None, segmentation: Any) -> Colour:
    """The usual colour of a term, or the nearest shade of it that can be told from those in a `vtkSegmentation`.

    Without a usual one, :func:`generic_colour` for the next number.
    """
    count = segmentation.GetNumberOfSegments()
    colour, taken = usual or generic_colour(count), [segmentation.GetNthSegment(n).GetColor() for n in range(count)]
    hue, lightness, saturation = colorsys.rgb_to_hls(*colour)
    shades = (colorsys.hls_to_rgb(hue, min(0.9, max(0.2, lightness + change)), saturation) for change in _SHADES)
    candidates = [colour, *shades]
    return next((shade for shade in candidates if all(math.dist(shade, other) > _APART for other in taken)), colour)


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
        colour=tuple(level / 255 for level in entry["rgb"]) if "rgb" in entry else None,
    )


def _code(entry: Mapping[str, str]) -> Code:
    return Code(entry["code"], entry["meaning"])
