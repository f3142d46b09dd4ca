"""Label sets: labels to classify with, those that come along and the user's own."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import CardError, InputError, did_you_mean
from ..folders import is_safe_name, user_folder
from .resource_files import build, check, existing_folder, read_toml, resource_folder, toml_files

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
        count = len(self.labels)
        _require(count > 0, "there is no label to classify with")
        _require(count <= MOST_LABELS, f"{count} labels are too many: at most {MOST_LABELS} can be asked for together")
        # Two names that a reader would take for one are one: capitals and spaces do not tell them apart.
        (name, repeats), *_ = Counter(" ".join(name.casefold().split()) for name in self.names).most_common(1)
        _require(repeats == 1, f"the label {name!r} stands twice")
        for template in (*self.templates, *self.negative_templates):
            fits = template.count(SLOT) == 1 and len(template) <= LONGEST_TEXT
            _require(fits, f"the template {template[:60]!r} needs '{SLOT}' once, where the label's words go")
        _require(bool(self.templates), f"the label set {self.id!r} has no template; '{SLOT}' alone will do")
        for label in self.labels:
            _require_words(label)
        texts = sum(len(self.texts(label)) + len(self.negative_texts(label)) for label in self.labels)
        message = f"phrasings and templates make {texts} sentences; at most {MOST_TEXTS} can be asked for"
        _require(texts <= MOST_TEXTS, message)

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


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(message)


def _require_words(label: Label) -> None:
    for text in (label.name, *label.phrasings, *label.negations, *label.concepts):
        _require(any(map(str.isalnum, text)), f"a label is empty: {text[:60]!r} says nothing")
        _require(text.isprintable(), f"the label {text[:40]!r} has control characters in it; write it on one line")
        _require(len(text) <= LONGEST_TEXT, f"the label {text[:40]!r}... is longer than {LONGEST_TEXT} characters")


LABEL_SETS_VARIABLE = "FOUNDATIONSEG_LABEL_SETS"
_LARGEST_FILE = 1_000_000  # bytes


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
        with _as_input_errors():
            return build(LabelSet, document, origin)
    except InputError as error:
        if isinstance(error.__cause__, CardError):  # it names the file already
            raise
        raise InputError(f"{origin}: {error}") from error


def read_label_set(path: Path) -> LabelSet:
    """The label set in a TOML file, whose name must be the set's id.

    Raises:
        InputError: the file cannot be read, is no TOML, or is no label set.
    """
    with _as_input_errors():
        labels = parse_label_set(read_toml(path, path.name, "label set", _LARGEST_FILE), path.name)
        is_named = path.stem == labels.id and is_safe_name(labels.id)
        check(is_named, f"{path.name}: the file must be named after its id, {labels.id[:60]}.toml")
    return labels


@contextlib.contextmanager
def _as_input_errors() -> Iterator[None]:
    try:
        yield
    except CardError as error:
        raise InputError(str(error)) from error


def read_label_sets(folder: Path | None = None, own_folder: Path | None = None) -> dict[str, LabelSet]:
    """Every label set by id: those that come along in the order of their file names, then the user's own.

    A user's set takes the place of one that comes along and has the same id.

    Args:
        folder: the sets that come along, unless given.
        own_folder: the user's; :func:`user_label_set_folder` unless given, and none if ``folder`` alone is given.

    Raises:
        InputError: there is no such folder, or a set is wrong.
    """
    with _as_input_errors():
        if folder is None and own_folder is None:
            own_folder = existing_folder(user_label_set_folder(), LABEL_SETS_VARIABLE)
        paths = toml_files(folder or resource_folder("LabelSets"), "label set")
        paths += toml_files(own_folder, "label set") if own_folder else []
    return {labels.id: labels for labels in map(read_label_set, paths)}


def find_label_set(sets: Mapping[str, LabelSet], set_id: str) -> LabelSet:
    """The label set of an id.

    Raises:
        InputError: there is none; the message names those there are.
    """
    near = did_you_mean(set_id, sets)
    _require(set_id in sets, f"no label set is called {set_id!r}; {near and f'{near} '}there are: {', '.join(sets)}")
    return sets[set_id]
