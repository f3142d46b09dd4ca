"""How a number of bytes reads, everywhere."""

import re

from .errors import InputError

_SIZE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?([kMGT]?)B?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def bytes_text(count: int) -> str:
    """A number of bytes, short: ``812 B``, ``6 kB``, ``37 MB``, ``1.2 GB``."""
    if count >= 999.5e6:
        return f"{count / 1e9:.1f} GB"
    if count >= 999.5e3:
        return f"{count / 1e6:.0f} MB"
    return f"{count / 1e3:.0f} kB" if count >= 1000 else f"{count} B"


def bytes_of(text: str) -> int:
    """The number of bytes that a size such as ``6GB``, ``1.5 GB`` or ``800M`` means.

    Raises:
        InputError: it is none, or nothing at all.
    """
    found = _SIZE.fullmatch(text.strip())
    count = int(float(found[1]) * _UNITS[found[2]]) if found is not None else 0
    if count <= 0:
        raise InputError(f"{text[:40]!r} is no amount of memory, such as 6GB or 800MB")
    return count
