"""Labels to classify with: what each is called, how it is said in words, how its absence is said, and its code."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .errors import InputError

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
