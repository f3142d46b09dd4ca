"""How a DICOM header wants its values seen."""

import math
from collections.abc import Mapping

from .raw import (
    BITS_STORED,
    IS_SIGNED,
    PHOTOMETRIC,
    RESCALE_INTERCEPT,
    RESCALE_SLOPE,
    WINDOW_CENTRE,
    WINDOW_WIDTH,
)


def is_inverted(tags: Mapping[str, str]) -> bool:
    """True for an image of which low stored values are bright; ITK has turned its values over by then."""
    return tags.get(PHOTOMETRIC) == "MONOCHROME1"


def display_window(tags: Mapping[str, str]) -> tuple[float, float] | None:
    """(width, centre) of the display that a header suggests, for the values as ITK hands them out; None without.

    Of several windows, the first. ITK turns MONOCHROME1 over within the range of the stored bits, the window with it.
    """
    width, centre = _number(tags, WINDOW_WIDTH), _number(tags, WINDOW_CENTRE)
    if width is None or centre is None or width <= 0:
        return None
    if not is_inverted(tags):
        return width, centre
    bits = _number(tags, BITS_STORED) or 0
    lowest_and_highest = -1 if _number(tags, IS_SIGNED) else 2**bits - 1
    slope, intercept = _number(tags, RESCALE_SLOPE), _number(tags, RESCALE_INTERCEPT)
    return width, (1 if slope is None else slope) * lowest_and_highest + 2 * (intercept or 0) - centre


def _number(tags: Mapping[str, str], name: str) -> float | None:
    """The first value of an element; None where it has no finite one."""
    try:
        value = float(tags[name].split("\\")[0])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) else None
