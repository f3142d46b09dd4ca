"""Label sets: labels to classify with, those that come along and the user's own."""

import os
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import CardError, InputError
from ..folders import is_safe_name, user_folder
from .card_schema import build

SLOT = "{}"  # where a template takes the phrasing
LONGEST_TEXT = 2000
MOST_LABELS = 1000
MOST_TEXTS = 20_000


@dataclass(frozen=True, slots=True)
class TermCode:
    """A code of a terminology: its ``scheme`` (``"SCT"``, ``"DCM"``), its ``value`` and its ``meaning`` in words."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Label:
    """One label.

    Attributes:
        name: what results call it.
        phrasings: the ways to say it, each to be set into every template; the name, unless given.
        negations: whole sentences that say it is absent; unless given, the phrasings in the set's negative templates.
        concepts: what can be seen where the label holds, in words; for scoring by concepts.
        category: what kind of thing a segment with this label would be; empty where it would be none.
        code: its terminology code, where one exists.
        source: where the wording comes from.
    """

    name: str
    phrasings: tuple[str, ...] = ()
    negations: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    category: Literal["", "structure", "tissue", "finding"] = ""
    code: TermCode | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Labels that are asked for together.

    Attributes:
        id: the name on the command line.
        title: the name in a panel.
        kind: ``"exclusive"`` where one label holds at most, ``"findings"`` where several may.
        labels: at least one.
        templates: sentences with a slot for the phrasing; the texts of a label are all combinations.
        negative_templates: the same for the absence of a label.
        modalities: DICOM codes of the images it is meant for; empty for all.
        one_in_segment: True where a segment can be one of the labels only, though a slice may show several.
        source: where the wording comes from, for labels that do not say.
        note: what a user should know.

    Raises:
        InputError: a label is empty, stands twice, or has no words; a template has no slot; there are too many.
    """

    id: str
    title: str
    kind: Literal["exclusive", "findings"]
    labels: tuple[Label, ...]
    templates: tuple[str, ...] = (SLOT,)
    negative_templates: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    one_in_segment: bool = False
    source: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if not self.labels:
            raise InputError("there is no label to classify with")
        if len(self.labels) > MOST_LABELS:
            raise InputError(f"{len(self.labels)} labels are too many: at most {MOST_LABELS} can be asked for together")
        _require_distinct(self.names)
        _require_templates((*self.templates, *self.negative_templates))
        if not self.templates:
            raise InputError(f"the label set {self.id!r} has no template; '{SLOT}' alone will do")
        for label in self.labels:
            _require_words(label)
        count = sum(len(self.texts(label)) + len(self.negative_texts(label)) for label in self.labels)
        if count > MOST_TEXTS:
            raise InputError(f"phrasings and templates make {count} sentences; at most {MOST_TEXTS} can be asked for")

    @property
    def names(self) -> tuple[str, ...]:
        """The labels' names, in order."""
        return tuple(label.name for label in self.labels)

    def label(self, name: str) -> Label:
        """The label of that name.

        Raises:
            InputError: there is none.
        """
        for label in self.labels:
            if label.name == name:
                return label
        raise InputError(f"no label is called {name!r}; there are: {', '.join(self.names)}")

    def texts(self, label: Label) -> tuple[str, ...]:
        """Every sentence that says a label, each once: the phrasings in the templates."""
        return _filled(self.templates, label.phrasings or (label.name,))

    def negative_texts(self, label: Label) -> tuple[str, ...]:
        """Every sentence that says a label's absence, each once; empty where nothing says how."""
        return label.negations or _filled(self.negative_templates, label.phrasings or (label.name,))


def label_set_of(texts: Sequence[str], kind: Literal["exclusive", "findings"] = "exclusive") -> LabelSet:
    """A set of the user's own words, each as it is; their absence is said by ``no`` before them.

    Raises:
        InputError: a text is empty or stands twice, or there is none.
    """
    labels = tuple(Label(text.strip()) for text in texts)
    return LabelSet("custom", "Own labels", kind, labels, negative_templates=(f"no {SLOT}",), source="the user")


def _filled(templates: Iterable[str], phrasings: Iterable[str]) -> tuple[str, ...]:
    phrasings = tuple(phrasings)
    return tuple(dict.fromkeys(template.replace(SLOT, words) for template in templates for words in phrasings))


def _require_distinct(names: Iterable[str]) -> None:
    """Two names that a reader would take for one are one: capitals and spaces do not tell them apart."""
    counts = Counter(" ".join(name.casefold().split()) for name in names)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise InputError(f"the label {twice[0]!r} stands twice")


def _require_templates(templates: Iterable[str]) -> None:
    for template in templates:
        if template.count(SLOT) != 1 or len(template) > LONGEST_TEXT:
            raise InputError(f"the template {template[:60]!r} needs '{SLOT}' once, where the label's words go")


def _require_words(label: Label) -> None:
    for text in (label.name, *label.phrasings, *label.negations, *label.concepts):
        if not any(character.isalnum() for character in text):
            raise InputError(f"a label is empty: {text[:60]!r} says nothing")
        if not text.isprintable():
            raise InputError(f"the label {text[:40]!r} has control characters in it; write it on one line")
        if len(text) > LONGEST_TEXT:
            raise InputError(f"the label {text[:40]!r}... is longer than {LONGEST_TEXT} characters")


LABEL_SETS_VARIABLE = "FOUNDATIONSEG_LABEL_SETS"
_LARGEST_FILE = 1_000_000  # bytes


def label_set_folder() -> Path:
    """The folder of the label sets that come with FoundationSeg."""
    return Path(__file__).resolve().parents[2] / "Resources" / "LabelSets"


def user_label_set_folder() -> Path:
    """The folder of the user's own label sets, whether it exists or not.

    That is ``FoundationSeg/label-sets`` in the user's configuration directory, unless the variable
    :data:`LABEL_SETS_VARIABLE` names another.
    """
    return user_folder("config", LABEL_SETS_VARIABLE, "FoundationSeg/label-sets")


def parse_label_set(document: Mapping[str, Any], origin: str = "label set") -> LabelSet:
    """The label set of a decoded TOML document; ``origin`` is the file's name, for messages.

    Raises:
        InputError: a field is missing, unknown, or of a value that is not allowed.
    """
    try:
        return build(LabelSet, document, origin)
    except CardError as error:
        raise InputError(str(error)) from error
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error


def read_label_set(path: Path) -> LabelSet:
    """The label set in a TOML file, whose name must be the set's id.

    Raises:
        InputError: the file cannot be read, is no TOML, or is no label set.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{path.name}: is too large for a label set")
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:  # its own text has the whole path
        raise InputError(f"{path.name}: cannot be read: {error.strerror or type(error).__name__}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, endless nesting
        reason = ascii(str(error))[1:-1].split("\\n")[0][:200]
        raise InputError(f"{path.name}: cannot be read: {reason or type(error).__name__}") from error
    labels = parse_label_set(document, path.name)
    if path.stem != labels.id or not is_safe_name(labels.id):
        raise InputError(f"{path.name}: the file must be named after its id, {labels.id[:60]}.toml")
    return labels


def read_label_sets(folder: Path | None = None, own_folder: Path | None = None) -> dict[str, LabelSet]:
    """Every label set by id: those that come along in the order of their file names, then the user's own.

    A user's set takes the place of one that comes along and has the same id.

    Args:
        folder: the sets that come along; :func:`label_set_folder`, unless given.
        own_folder: the user's; :func:`user_label_set_folder` unless given, and none if ``folder`` alone is given.

    Raises:
        InputError: there is no such folder, or a set is wrong.
    """
    if folder is None and own_folder is None:
        own_folder = _existing_user_folder()
    folder = folder or label_set_folder()
    if not folder.is_dir():
        raise InputError(f"there is no folder of label sets called {folder.name}; install FoundationSeg again")
    paths = [*_files(folder), *(_files(own_folder) if own_folder else ())]
    return {labels.id: labels for labels in map(read_label_set, paths)}


def find_label_set(sets: Mapping[str, LabelSet], set_id: str) -> LabelSet:
    """The label set of an id.

    Raises:
        InputError: there is none; the message names those there are.
    """
    if set_id not in sets:
        raise InputError(f"no label set is called {set_id!r}; there are: {', '.join(sets)}")
    return sets[set_id]


def _existing_user_folder() -> Path | None:
    folder = user_label_set_folder()
    if folder.is_dir():
        return folder
    if os.environ.get(LABEL_SETS_VARIABLE):
        raise InputError(f"{LABEL_SETS_VARIABLE} names no folder: {folder.name}")
    return None


def _files(folder: Path) -> list[Path]:
    """The sets of a folder, in order; what other programs hide there (``._name.toml`` on a Mac) is none."""
    return sorted(path for path in folder.glob("*.toml") if not path.name.startswith("."))
