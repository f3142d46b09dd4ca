"""What FoundationSeg writes on a segment: where it came from, and whether it is locked.

Slicer keeps tags as plain text and joins them in `.seg.nrrd` files with ``|``, one ``name:value`` after the other,
without escaping. Values are therefore percent-encoded where a character would break that.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

import vtk

from ..core.errors import InputError

PREFIX = "FoundationSeg."
PROVENANCE = ("Model", "Repository", "Revision", "SHA256", "Prompts", "Version", "Intensity")
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


def set_provenance(segment: Any, provenance: Mapping[str, str]) -> None:
    """Write where a segment came from; keys out of :data:`PROVENANCE`, those left out are removed.

    Raises:
        InputError: a key is not known; nothing is written then.
    """
    unknown = sorted(set(provenance) - set(PROVENANCE))
    if unknown:
        raise InputError(f"no such provenance: {', '.join(unknown)}; known are {', '.join(PROVENANCE)}")
    for key in PROVENANCE:
        if key not in provenance:
            segment.RemoveTag(PREFIX + key)
        elif read_tag(segment, PREFIX + key) != provenance[key]:  # each tag that is set makes observers look
            write_tag(segment, PREFIX + key, provenance[key])


def provenance(segment: Any) -> dict[str, str]:
    """What :func:`set_provenance` wrote; empty for a segment that FoundationSeg did not make."""
    found = {key: read_tag(segment, PREFIX + key) for key in PROVENANCE}
    return {key: value for key, value in found.items() if value is not None}


def lock(segment: Any, locked: bool = True) -> None:
    """Keep a segment from being written, or allow it again. Slicer itself knows no lock and minds none."""
    if locked:
        write_tag(segment, PREFIX + _LOCKED, "1")
    else:
        segment.RemoveTag(PREFIX + _LOCKED)


def is_locked(segment: Any) -> bool:
    """True for a segment that was locked."""
    return read_tag(segment, PREFIX + _LOCKED) == "1"
