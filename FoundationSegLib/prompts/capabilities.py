"""Capabilities: prompts held against what a model understands, and prompts made from words alone."""

from collections.abc import Sequence
from typing import Literal

from ..catalog.class_lists import EVERYTHING, ClassList, classes_of, expand_classes, name_key
from ..catalog.model_cards import TRANSLATIONS, ModelCard
from ..errors import InputError, PromptError
from .kinds import ClassPrompt, PointPrompt, Polarity, SegmentPrompts, TextPrompt

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
        raise InputError(
            f"{card.id} is a model to {card.task} with, not to {task} with; see 'foundationseg models list'"
        )


def require_understood(card: ModelCard, segment: SegmentPrompts, location: str = "segment") -> None:
    """Make sure that a model takes every prompt of a segment, itself or translated, polarity and class names included.

    Raises:
        PromptError: it does not; the message names the kinds, or some of the classes, that can be given.
    """
    for n, prompt in enumerate(segment.prompts):
        kind = prompt.kind
        if not card.takes(kind):
            kinds = ", ".join(_PLURALS[name] for name in (*card.prompts, *card.translations))
            message = f"{card.title} does not understand {_PLURALS[kind]}; it understands: {kinds}"
            raise PromptError(message, f"{location}.prompts[{n}].type")
        if prompt.polarity is Polarity.NEGATIVE and kind not in (negative := negative_kinds(card)):
            kinds = ", ".join(_PLURALS[name] for name in negative) or "none"
            message = f"{card.title} does not understand negative {_PLURALS[kind]}; negative kinds it understands"
            raise PromptError(f"{message}: {kinds}", f"{location}.prompts[{n}].polarity")
    if card.classes:
        require_classes(card, segment, location)


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


def class_numbers(classes: ClassList, prompts: Sequence[ClassPrompt], location: str = "segment") -> tuple[int, ...]:
    """The numbers that the class prompts of one segment mean together, each once.

    Raises:
        PromptError: a name is of no class.
    """
    entries = (classes.find(prompt.name, f"{location}: {prompt.name}") for prompt in prompts)
    return tuple(dict.fromkeys(part.number for entry in entries for part in classes.parts_of(entry)))


def require_classes(card: ModelCard, segment: SegmentPrompts, location: str = "segment") -> None:
    """Make sure that the class prompts of a segment name classes of a model that has some, and go with its points.

    With points, a segment is of one class at most, and that a whole one.

    Raises:
        PromptError: they do not.
    """
    classes = classes_of(card)
    with_points = any(isinstance(prompt, PointPrompt) for prompt in segment.prompts)
    named = 0
    for n, prompt in enumerate(segment.prompts):
        if not isinstance(prompt, ClassPrompt):
            continue
        here, named = f"{location}.prompts[{n}].name", named + 1
        if name_key(prompt.name) == name_key(EVERYTHING):
            raise PromptError("everything is many segments, and this is one; name a class", here)
        entry = classes.find(prompt.name, here)
        if entry.needs_points and not with_points:
            raise PromptError(f"{entry.name!r} means nothing without a point", here)
        if with_points and named > 1:
            raise PromptError("a segment with points is of one class", here)
        if with_points and entry.parts:
            parts = ", ".join(classes.by_number[number].name for number in entry.parts[:6])
            raise PromptError(f"with points, name one part of {entry.name!r}: {parts}", here)


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
    if not card.classes and asks_for_everything(classes):
        raise PromptError(f"{card.title} has no list of classes: name them one by one", "classes")
    named = [entry.name for entry in expand_classes(card, classes)] if card.classes else classes
    segments = [SegmentPrompts(name, (ClassPrompt(name),)) for name in named]
    segments += [SegmentPrompts(text.strip(), (TextPrompt(text),)) for text in texts]
    names = [segment.name for segment in segments]
    for n, name in enumerate(names):
        if not name.strip():
            raise PromptError("a class or a text is empty")
        if name in names[:n]:
            raise PromptError(f"{name!r} is asked for twice")
    return tuple(segments)


def asks_for_everything(classes: Sequence[str]) -> bool:
    """True where one of the names stands for all classes, of which most will not be in the image."""
    return any(name_key(name) == name_key(EVERYTHING) for name in classes)
