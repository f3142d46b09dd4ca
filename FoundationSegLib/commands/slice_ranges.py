"""Ranges of slices as the command line takes them."""

import argparse
import re

_SLICE_NUMBER = re.compile(r"[0-9]{0,9}")


def slice_range(text: str) -> tuple[int | None, int | None]:
    """Slice numbers as in Python: the first, and the first that is none of them; either may be left out."""
    start, colon, stop = text.partition(":")
    if not colon or not all(_SLICE_NUMBER.fullmatch(part) for part in (start, stop)):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not of the form START:STOP")
    return (int(start) if start else None), (int(stop) if stop else None)
