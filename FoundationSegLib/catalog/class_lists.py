"""Class lists: classes of models that understand names, and how names are compared."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from ..errors import PromptError, did_you_mean
from .model_cards import ModelCard
from .resource_files import build, check, read_toml, resource_folder

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
    """Key of a name that all spellings of the same structure share; ``more`` are words that the name goes with."""
    return tuple(sorted(_SAME.get(word, word) for word in (*words_of(name), *more)))


def listed(names: Sequence[object]) -> str:
    """Names as a message lists them: no more than fit on its line; empty where there are none."""
    texts = [text if len(text) <= _LONGEST_LISTED else f"{text[:_LONGEST_LISTED]}…" for text in map(str, names)]
    return ", ".join(texts[:_MOST_LISTED]) + (", ..." if len(texts) > _MOST_LISTED else "")


EVERYTHING = "everything"
_LARGEST_LIST = 1_000_000  # bytes


@dataclass(frozen=True, slots=True)
class ListedClass:
    """One class of a model.

    Attributes:
        number: by which the model knows it.
        name: as the model's authors call it.
        also: other names for the same.
        parts: the numbers of the classes that it is made of, where the model knows only these.
        in_everything: False for what is not meant by "everything", because it lies inside of others.
        needs_points: True where the name says nothing without a point.
    """

    number: int
    name: str
    also: tuple[str, ...] = ()
    parts: tuple[int, ...] = ()
    in_everything: bool = True
    needs_points: bool = False


@dataclass(frozen=True)
class ClassList:
    """The classes of a model, in the order of their numbers."""

    title: str
    classes: tuple[ListedClass, ...]

    @cached_property
    def by_number(self) -> Mapping[int, ListedClass]:
        """The classes by their numbers."""
        return {entry.number: entry for entry in self.classes}

    @cached_property
    def _by_key(self) -> Mapping[tuple[str, ...], ListedClass]:
        return {name_key(name): entry for entry in self.classes for name in (entry.name, *entry.also)}

    def find(self, name: str, location: str = "") -> ListedClass:
        """The class of a name, or of a number in words.

        Raises:
            PromptError: there is none; the message names those that look like it.
        """
        match = self.by_number.get(int(name)) if name.isascii() and name.isdigit() else self._by_key.get(name_key(name))
        if match is None:
            near = did_you_mean(name, (entry.name for entry in self.classes))
            remedy = near or "'foundationseg models show' lists what it has"
            raise PromptError(f"{self.title} has no class called {name[:80]!r}; {remedy}", location)
        return match

    def parts_of(self, entry: ListedClass) -> tuple[ListedClass, ...]:
        """Parts of a class; the class itself where it is whole."""
        return tuple(self.by_number[number] for number in entry.parts) or (entry,)

    @property
    def everything(self) -> tuple[ListedClass, ...]:
        """All classes that "everything" means."""
        return tuple(entry for entry in self.classes if entry.in_everything)


@lru_cache(maxsize=8)
def read_class_list(path: Path) -> ClassList:
    """The list in a TOML file.

    Raises:
        CardError: it cannot be read, or names a number twice, or parts that there are not.
    """
    class_list: ClassList = build(ClassList, read_toml(path, path.name, "list of classes", _LARGEST_LIST), path.name)
    keys = [name_key(name) for entry in class_list.classes for name in (entry.name, *entry.also)]
    check(len(class_list.by_number) == len(class_list.classes), f"{path.name}: a number stands twice")
    check(len(set(keys)) == len(keys), f"{path.name}: a name stands twice")
    check(all(keys), f"{path.name}: a name has no letters")
    for entry in class_list.classes:
        here = f"{path.name}: {entry.name}"
        check(set(entry.parts) <= class_list.by_number.keys(), f"{here}: has parts that are no classes")
        check(not any(class_list.by_number[part].parts for part in entry.parts), f"{here}: has parts in parts")
    return class_list


def classes_of(card: ModelCard) -> ClassList:
    """The classes that a model knows.

    Raises:
        CardError: its card names no list, or one that is not there.
    """
    check(card.classes, f"{card.id}: classes: the card names no list of classes")
    return read_class_list(resource_folder("ClassLists") / f"{card.classes}.toml")


def expand_classes(card: ModelCard, names: Iterable[str], location: str = "classes") -> tuple[ListedClass, ...]:
    """The classes that some names mean, each once: "everything" and what has parts become what they are made of.

    Raises:
        PromptError: a name is of no class, or of one that needs a point.
        CardError: the model knows no classes.
    """
    class_list = classes_of(card)
    matches: dict[int, ListedClass] = {}
    for n, name in enumerate(names):
        here = f"{location}[{n}]"
        is_everything = name_key(name) == name_key(EVERYTHING)
        for entry in class_list.everything if is_everything else class_list.parts_of(class_list.find(name, here)):
            if entry.needs_points:
                raise PromptError(f"{entry.name!r} means nothing without a point", here)
            matches[entry.number] = entry
    return tuple(matches.values())
