"""What a model understands, held against what it is asked."""

from .cards import ModelCard
from .errors import PromptError
from .prompts import Polarity, Prompt, SegmentPrompts, prompt_kind

_PLURALS = {
    "point": "points",
    "box": "boxes",
    "scribble": "scribbles",
    "lasso": "lassos",
    "mask": "masks",
    "text": "texts",
    "class": "class names",
}


def require_understood(card: ModelCard, segment: SegmentPrompts, place: str = "segment") -> None:
    """Make sure that a model understands every prompt of a segment, polarity included.

    Raises:
        PromptError: it does not; the message names the kinds it does understand.
    """
    for n, prompt in enumerate(segment.prompts):
        _require_one(card, prompt, f"{place}.prompts[{n}]")


def _require_one(card: ModelCard, prompt: Prompt, place: str) -> None:
    kind = prompt_kind(prompt)
    if not card.understands(kind):
        known = ", ".join(_PLURALS[name] for name in card.prompts)
        message = f"{card.title} does not understand {_PLURALS[kind]}; it understands: {known}"
        raise PromptError(message, f"{place}.type")
    if prompt.polarity is Polarity.NEGATIVE and kind not in card.negative:
        known = ", ".join(_PLURALS[name] for name in card.negative) or "none"
        message = f"{card.title} does not understand negative {_PLURALS[kind]}; negative kinds it understands: {known}"
        raise PromptError(message, f"{place}.polarity")
