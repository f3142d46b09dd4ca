"""What a model understands, held against what it is asked."""

from typing import Literal

from .cards import ModelCard
from .errors import InputError, PromptError
from .prompts import Polarity, Prompt, SegmentPrompts, prompt_kind
from .translation import TRANSLATIONS

_PLURALS = {
    "point": "points",
    "box": "boxes",
    "scribble": "scribbles",
    "lasso": "lassos",
    "mask": "masks",
    "text": "texts",
    "class": "class names",
}


def require_task(card: ModelCard, task: Literal["segment", "classify"]) -> None:
    """Make sure that a model is one for a task.

    Raises:
        InputError: it is for another.
    """
    if card.task != task:
        raise InputError(f"{card.id} is a model to {card.task} with, not to {task} with; see 'models list'")


def require_understood(card: ModelCard, segment: SegmentPrompts, place: str = "segment") -> None:
    """Make sure that a model takes every prompt of a segment, itself or translated, polarity included.

    Raises:
        PromptError: it does not; the message names the kinds that can be given.
    """
    for n, prompt in enumerate(segment.prompts):
        _require_one(card, prompt, f"{place}.prompts[{n}]")


def _require_one(card: ModelCard, prompt: Prompt, place: str) -> None:
    kind = prompt_kind(prompt)
    if not card.takes(kind):
        known = ", ".join(_PLURALS[name] for name in (*card.prompts, *card.translations))
        message = f"{card.title} does not understand {_PLURALS[kind]}; it understands: {known}"
        raise PromptError(message, f"{place}.type")
    negative = negative_kinds(card)
    if prompt.polarity is Polarity.NEGATIVE and kind not in negative:
        known = ", ".join(_PLURALS[name] for name in negative) or "none"
        message = f"{card.title} does not understand negative {_PLURALS[kind]}; negative kinds it understands: {known}"
        raise PromptError(message, f"{place}.polarity")


def negative_kinds(card: ModelCard) -> tuple[str, ...]:
    """The kinds that may say "not this": the model's own, and those that come to one of these.

    Two clicks that make a box cannot, since nobody could tell a corner from a correction.
    """
    translated = (
        kind
        for kind, words in card.translations.items()
        if kind != "point" and set(TRANSLATIONS[kind][words]) & set(card.negative)
    )
    return (*card.negative, *translated)
