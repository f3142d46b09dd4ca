"""Names of structures as they are compared, without case, order, plural s and spelling; and as messages list them."""

import re
from collections.abc import Sequence

_UNIMPORTANT = {"of", "the"}
_MOST_LISTED = 20
_LONGEST_LISTED = 40  # characters
_SAME = {"l": "left", "r": "right", "tumour": "tumor", "oesophagu": "esophagu"}


def words_of(name: str) -> list[str]:
    """The words of a name in lower case; ``leftKidney`` has two, and a plural s is dropped."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall(r"[^\W_]+", spaced.lower())
    return [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words if word not in _UNIMPORTANT]


def name_key(name: str, *more: str) -> tuple[str, ...]:
    """What two names of the same structure have in common; ``more`` are words that the name goes with."""
    return tuple(sorted(_SAME.get(word, word) for word in (*words_of(name), *more)))


def listed(names: Sequence[object]) -> str:
    """Names as a message lists them: no more than fit on its line; empty where there are none."""
    shown = [text if len(text) <= _LONGEST_LISTED else f"{text[:_LONGEST_LISTED]}…" for text in map(str, names)]
    return ", ".join(shown[:_MOST_LISTED]) + (", ..." if len(shown) > _MOST_LISTED else "")
