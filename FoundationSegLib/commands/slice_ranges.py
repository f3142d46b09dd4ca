"""Ranges of slices and boxes of voxels as the command line takes them."""

import argparse
import re

from ..imaging.geometry import Box, Geometry

_SLICE_NUMBER = re.compile(r"[0-9]{0,9}")

Range = tuple[int | None, int | None]
Ranges = tuple[Range, Range, Range]


def slice_range(text: str) -> Range:
    """Slice numbers as in Python: the first, and the first that is none of them; either may be left out."""
    start, colon, stop = text.partition(":")
    if not colon or not all(_SLICE_NUMBER.fullmatch(part) for part in (start, stop)):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not of the form START:STOP")
    return (int(start) if start else None), (int(stop) if stop else None)


def slices_argument(text: str) -> Range:
    """The value of ``--slices``: ``all``, one number, or a range."""
    if text == "all":
        return None, None
    if text and _SLICE_NUMBER.fullmatch(text):
        return int(text), int(text) + 1
    try:
        return slice_range(text)
    except argparse.ArgumentTypeError as error:
        message = f"{text[:40]!r} is neither all, nor a number, nor of the form START:STOP"
        raise argparse.ArgumentTypeError(message) from error


def box_ranges(text: str) -> Ranges:
    """Three ranges of voxels, along i, j and k: ``I,J,K``, each START:STOP as in Python."""
    ranges = [slice_range(part) for part in text.split(",")]
    if len(ranges) != 3:
        message = f"{text[:40]!r} is not of the form START:STOP,START:STOP,START:STOP (along i, j and k)"
        raise argparse.ArgumentTypeError(message)
    for start, stop in ranges:
        if stop is not None and stop <= (start or 0):
            raise argparse.ArgumentTypeError(f"there is no voxel from {start or 0} to before {stop}")
    return ranges[0], ranges[1], ranges[2]


def box_of(ranges_ijk: Ranges, geometry: Geometry) -> Box:
    """The box that ranges mean in an image, whose ends stand for what was left out; it may reach out of the image."""
    (k0, k1), (j0, j1), (i0, i1) = (
        (start or 0, length if stop is None else stop)
        for (start, stop), length in zip(ranges_ijk[::-1], geometry.shape_kji, strict=True)
    )
    return Box((k0, j0, i0), (k1, j1, i1))
