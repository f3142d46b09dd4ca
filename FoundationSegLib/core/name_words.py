"""Names of structures as they are compared: without case, order, plural s, spelling, and words that say nothing."""

import re

_UNIMPORTANT = {"of", "the"}
_SAME = {"l": "left", "r": "right", "tumour": "tumor", "oesophagu": "esophagu"}


def words_of(name: str) -> list[str]:
    """The words of a name in lower case; ``leftKidney`` has two, and a plural s is dropped."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall(r"[^\W_]+", spaced.lower())
    return [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words if word not in _UNIMPORTANT]


def name_key(name: str, *more: str) -> tuple[str, ...]:
    """What two names of the same structure have in common; ``more`` are words that the name goes with."""
    return tuple(sorted(_SAME.get(word, word) for word in (*words_of(name), *more)))
