"""Is an NRRD file whole? Slicer's reader ends the process on a damaged one (an uncaught ITK exception): ask first."""

import re
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InputError

# The whole-number types of http://teem.sourceforge.net/nrrd/format.html, and the bytes that each takes.
_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t"), 4),
}
_SPACES = {"left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las"}
_CHUNK = 1 << 20
# As for a `Geometry`: the ratio of the cell's volume to the product of its edges below which no inverse can be trusted.
_SMALLEST_CELL = 1e-3


def require_sound_nrrd(path: Path) -> None:
    """Make sure that a file is a label map in NRRD format, attached data and all, that Slicer can read.

    Raises:
        InputError: it is something else, or damaged.
    """
    head, blank_line, data = path.read_bytes().partition(b"\n\n")
    try:
        if not head.startswith(b"NRRD000") or not blank_line:
            raise ValueError("no complete header")
        fields = _fields(head.decode("utf-8", errors="replace"))
        expected = _data_size(fields)
        _check_space(fields)
        if _unpacked_size(data, fields["encoding"]) != expected:
            raise ValueError("the voxels are not all there")
    except KeyError as error:
        raise InputError(f"'{path.name}' is no whole segmentation file: {error.args[0]} is missing") from error
    except (ValueError, zlib.error) as error:
        raise InputError(f"'{path.name}' is no whole segmentation file: {error}") from error


def _fields(head: str) -> Mapping[str, str]:
    """The fields of the format; key/value pairs (``:=``) and comments are left out."""
    lines = (line.partition(": ") for line in head.splitlines()[1:] if not line.startswith("#") and ":=" not in line)
    return {name.strip(): value.strip() for name, colon, value in lines if colon}


def _data_size(fields: Mapping[str, str]) -> int:
    """The number of bytes that the voxels take when unpacked."""
    sizes = [int(size) for size in fields["sizes"].split()]
    if len(sizes) != int(fields["dimension"]) or len(sizes) not in (3, 4) or min(sizes) < 1:
        raise ValueError(f"sizes {sizes} make no image")
    if fields["type"] not in _BYTES:
        raise ValueError(f"voxels of type {fields['type']} are no labels")
    if "data file" in fields or "datafile" in fields:
        raise ValueError("the voxels are in another file")
    if len(fields["kinds"].split()) != len(sizes) or (_BYTES[fields["type"]] > 1 and "endian" not in fields):
        raise ValueError("the header contradicts itself")
    return _BYTES[fields["type"]] * prod(sizes)


def _check_space(fields: Mapping[str, str]) -> None:
    directions = re.findall(r"none|\([^)]*\)", fields["space directions"])
    axes = [_vector(text) for text in directions if text != "none"]
    _vector(fields["space origin"])
    if fields["space"].lower() not in _SPACES or len(directions) != int(fields["dimension"]) or len(axes) != 3:
        raise ValueError("its place in space is not told")
    lengths = [np.linalg.norm(axis) for axis in axes]
    if min(lengths) == 0 or abs(np.linalg.det(axes)) < _SMALLEST_CELL * prod(lengths):
        raise ValueError("its axes do not span space")


def _vector(text: str) -> NDArray[np.float64]:
    vector = np.array([float(number) for number in text.strip("()").split(",")])
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise ValueError(f"{text} is no position")
    return vector


def _unpacked_size(data: bytes, encoding: str) -> int:
    if encoding == "raw":
        return len(data)
    if encoding not in ("gzip", "gz"):
        raise ValueError(f"encoding {encoding} is not supported")
    unpacker, size = zlib.decompressobj(wbits=31), 0
    for start in range(0, len(data), _CHUNK):
        size += len(unpacker.decompress(data[start : start + _CHUNK]))
    if not unpacker.eof:
        raise ValueError("the voxels are not all there")
    return size
