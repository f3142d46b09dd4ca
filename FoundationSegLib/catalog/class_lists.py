"""Class lists: classes of models that understand names, and how names are compared."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from ..errors import CardError, PromptError
from .card_schema import build, check
from .model_cards import ModelCard

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


EVERYTHING = "everything"
_SUGGESTIONS = 3


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
        return {one.number: one for one in self.classes}

    @cached_property
    def _by_key(self) -> Mapping[tuple[str, ...], ListedClass]:
        return {name_key(name): one for one in self.classes for name in (one.name, *one.also)}

    def find(self, name: str, place: str = "") -> ListedClass:
        """The class of a name, or of a number in words.

        Raises:
            PromptError: there is none; the message names those that look like it.
        """
        found = self.by_number.get(int(name)) if name.isascii() and name.isdigit() else self._by_key.get(name_key(name))
        if found is None:
            near = difflib.get_close_matches(name.lower(), [one.name for one in self.classes], _SUGGESTIONS)
            remedy = f"did you mean {' or '.join(map(repr, near))}?" if near else "'models show' lists what it has"
            raise PromptError(f"{self.title} has no class called {name[:80]!r}; {remedy}", place)
        return found

    def parts_of(self, one: ListedClass) -> tuple[ListedClass, ...]:
        """What a class is made of; itself where it is whole."""
        return tuple(self.by_number[number] for number in one.parts) or (one,)

    @property
    def everything(self) -> tuple[ListedClass, ...]:
        """What "everything" means."""
        return tuple(one for one in self.classes if one.in_everything)


def class_list_folder() -> Path:
    """The folder of the lists."""
    return Path(__file__).resolve().parents[2] / "Resources" / "ClassLists"


@lru_cache(maxsize=8)
def read_class_list(path: Path) -> ClassList:
    """The list in a TOML file.

    Raises:
        CardError: it cannot be read, or names a number twice, or parts that there are not.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CardError(f"the list of classes {path.name} cannot be read: {type(error).__name__}") from error
    made: ClassList = build(ClassList, document, path.name)
    keys = [name_key(name) for one in made.classes for name in (one.name, *one.also)]
    check(len(made.by_number) == len(made.classes), f"{path.name}: a number stands twice")
    check(len(set(keys)) == len(keys), f"{path.name}: a name stands twice")
    check(all(keys), f"{path.name}: a name has no letters")
    for one in made.classes:
        check(set(one.parts) <= made.by_number.keys(), f"{path.name}: {one.name}: has parts that are no classes")
        check(not any(made.by_number[part].parts for part in one.parts), f"{path.name}: {one.name}: has parts in parts")
    return made


def classes_of(card: ModelCard) -> ClassList:
    """The classes that a model knows.

    Raises:
        CardError: its card names no list, or one that is not there.
    """
    check(bool(card.classes), f"{card.id}: classes: the card names no list of classes")
    return read_class_list(class_list_folder() / f"{card.classes}.toml")


def expand_classes(card: ModelCard, names: Iterable[str], place: str = "classes") -> tuple[ListedClass, ...]:
    """The classes that some names mean, each once: "everything" and what has parts become what they are made of.

    Raises:
        PromptError: a name is of no class, or of one that needs a point.
        CardError: the model knows no classes.
    """
    known = classes_of(card)
    found: dict[int, ListedClass] = {}
    for n, name in enumerate(names):
        here = f"{place}[{n}]"
        meant = known.everything if name_key(name) == name_key(EVERYTHING) else known.parts_of(known.find(name, here))
        for one in meant:
            if one.needs_points:
                raise PromptError(f"{one.name!r} means nothing without a point", here)
            found[one.number] = one
    return tuple(found.values())
