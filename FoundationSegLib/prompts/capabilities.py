"""Capabilities: prompts held against what a model understands, and prompts made from words alone."""

from collections.abc import Sequence
from typing import Literal

from ..catalog.class_lists import EVERYTHING, ClassList, classes_of, expand_classes, name_key
from ..catalog.model_cards import TRANSLATIONS, ModelCard
from ..errors import InputError, PromptError
from .kinds import ClassPrompt, PointPrompt, Polarity, Prompt, SegmentPrompts, TextPrompt, prompt_kind

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
    """Make sure that a model takes every prompt of a segment, itself or translated, polarity and class names included.

    Raises:
        PromptError: it does not; the message names the kinds, or some of the classes, that can be given.
    """
    for n, prompt in enumerate(segment.prompts):
        _require_one(card, prompt, f"{place}.prompts[{n}]")
    require_classes(card, segment, place)


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


def class_numbers(known: ClassList, prompts: Sequence[ClassPrompt], place: str = "segment") -> tuple[int, ...]:
    """The numbers that the class prompts of one segment mean together, each once.

    Raises:
        PromptError: a name is of no class.
    """
    found = (known.find(prompt.name, f"{place}: {prompt.name}") for prompt in prompts)
    return tuple(dict.fromkeys(part.number for one in found for part in known.parts_of(one)))


def require_classes(card: ModelCard, segment: SegmentPrompts, place: str = "segment") -> None:
    """Make sure that the class prompts of a segment name classes of the model, and go with its points.

    With points, a segment is of one class at most, and that a whole one.

    Raises:
        PromptError: they do not.
    """
    if not card.classes:
        return
    known = classes_of(card)
    with_points = any(isinstance(prompt, PointPrompt) for prompt in segment.prompts)
    named = 0
    for n, prompt in enumerate(segment.prompts):
        if not isinstance(prompt, ClassPrompt):
            continue
        here, named = f"{place}.prompts[{n}].name", named + 1
        if name_key(prompt.name) == name_key(EVERYTHING):
            raise PromptError("everything is many segments, and this is one; name a class", here)
        one = known.find(prompt.name, here)
        if one.needs_points and not with_points:
            raise PromptError(f"{one.name!r} means nothing without a point", here)
        if with_points and named > 1:
            raise PromptError("a segment with points is of one class", here)
        if with_points and one.parts:
            parts = ", ".join(known.by_number[number].name for number in one.parts[:6])
            raise PromptError(f"with points, name one part of {one.name!r}: {parts}", here)


def segments_by_name(
    card: ModelCard, classes: Sequence[str] = (), texts: Sequence[str] = ()
) -> tuple[SegmentPrompts, ...]:
    """A segment for each class and each text; "everything" and classes with parts become what they are made of.

    Args:
        card: the model that will be asked. One that has no classes of its own takes their names as it takes texts.
        classes: names or numbers.
        texts: phrases; each once, as they are written.

    Raises:
        PromptError: a name is of no class of the model, a text is empty, or a segment comes twice.
    """
    if card.classes:
        named = tuple(one.name for one in expand_classes(card, classes))
    else:
        named = tuple(classes)
    if not card.classes and asks_for_everything(classes):
        raise PromptError(f"{card.title} has no list of classes: name them one by one", "classes")
    found = [SegmentPrompts(name, (ClassPrompt(name),)) for name in named]
    found += [SegmentPrompts(text.strip(), (TextPrompt(text),)) for text in texts]
    names = [one.name for one in found]
    for n, name in enumerate(names):
        if not name.strip():
            raise PromptError("a class or a text is empty")
        if name in names[:n]:
            raise PromptError(f"{name!r} is asked for twice")
    return tuple(found)


def asks_for_everything(classes: Sequence[str]) -> bool:
    """True where one of the names stands for all classes, of which most will not be in the image."""
    return any(name_key(name) == name_key(EVERYTHING) for name in classes)
