"""Segments that are asked for by words alone: classes of a model, or free text. One segment each, of the same name."""

from collections.abc import Sequence

from .card_values import ModelCard
from .class_lists import EVERYTHING, expand_classes
from .errors import PromptError
from .name_words import name_key
from .prompts import ClassPrompt, SegmentPrompts, TextPrompt


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
