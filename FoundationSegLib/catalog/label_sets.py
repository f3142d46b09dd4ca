"""Lists of names: classes of models, labels to classify with, templates of segments; shipped or the user's own."""

import contextlib
import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from ..codec import frozen
from ..errors import CardError, InputError, OutputError, PromptError, did_you_mean, write_failure
from ..folders import is_safe_name, replace_text, user_folder
from .model_cards import ModelCard
from .resource_files import build, check, existing_folder, read_toml, resource_folder, toml_files, toml_text

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
_LARGEST_FILE = 1_000_000  # bytes


@frozen
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
    class_list: ClassList = build(ClassList, read_toml(path, path.name, "list of classes", _LARGEST_FILE), path.name)
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


SLOT = "{}"  # where a template takes the phrasing
LONGEST_TEXT = 2000
MOST_LABELS = 2000
MOST_TEXTS = 20_000


@frozen
class TermCode:
    """A code of a terminology: its ``scheme`` (``"SCT"``, ``"DCM"``), its ``value`` and its ``meaning`` in words."""

    scheme: str
    value: str
    meaning: str


@frozen
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


@frozen
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
        raise InputError(f"no label is called {name!r}; there are: {listed(self.names)}")

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


def user_label_set_folder() -> Path:
    """The folder of the user's own label sets, whether it exists or not.

    That is ``FoundationSeg/label-sets`` in the user's configuration directory, unless the variable
    :data:`LABEL_SETS_VARIABLE` names another.
    """
    return user_folder("config", LABEL_SETS_VARIABLE, "FoundationSeg/label-sets")


def labels_of(card: ModelCard) -> LabelSet:
    """The labels that a model was trained to score, in the order of its outputs; see :attr:`.ModelCard.label_set`.

    A set that does not come along is the user's own.

    Raises:
        InputError: the card names no set, or one that is not there.
    """
    _require(bool(card.label_set), f"{card.id}: label_set: the card names no set of labels")
    path = resource_folder("LabelSets") / f"{card.label_set}.toml"
    path = path if path.exists() else user_label_set_folder() / path.name
    remedy = f"import its authors' table, of which 'foundationseg models show {card.id}' tells"
    _require(path.exists(), f"the label set {card.label_set} of {card.title} is not on this computer; {remedy}")
    return _read_trained_labels(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _read_trained_labels(path: Path, _modified_ns: int) -> LabelSet:
    return read_label_set(path)


def import_label_set(table: Path, set_id: str) -> Path:
    """Keep a table of labels, such as authors publish for their model's outputs, as a set of the user's own.

    The table is CSV in UTF-8: a heading, then a code and a name to a row, in the order of the outputs. The heading's
    first word is the scheme of the codes. The set's source is the table's name and hash. Returns the set's file.

    Raises:
        InputError: the table cannot be read or is no such table, or the id is no name for a file.
        OutputError: the set cannot be written; one that is there stays.
    """
    _require(is_safe_name(set_id), f"{set_id[:60]!r} is no name for a label set")
    try:
        with table.open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
        heading, *rows = [row for row in csv.reader(content.decode("utf-8-sig").splitlines()) if row]
    except OSError as error:
        raise InputError(f"{table.name} cannot be read: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise InputError(f"{table.name} is no table of labels: it is empty, or no CSV in UTF-8") from error
    fits = len(content) <= _LARGEST_FILE and all(len(row) == 2 for row in (heading, *rows))
    _require(fits, f"{table.name} is no table of labels: it needs a code and a name in each row, and less than 1 MB")
    source = f"{table.name}, sha256 {hashlib.sha256(content).hexdigest()}"
    labels = tuple(Label(name.strip(), code=TermCode(heading[0], code, name.strip())) for code, name in rows)
    labels = LabelSet(set_id, set_id, "findings", labels, negative_templates=(f"no {SLOT}",), source=source)
    return _write_own(user_label_set_folder() / f"{set_id}.toml", labels)


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


TEMPLATES_VARIABLE = "FOUNDATIONSEG_SEGMENT_TEMPLATES"


@frozen
class TemplateSegment:
    """A segment to be made.

    Attributes:
        name: as the user sees it; a name that is known brings its code and its colour.
        color: red, green and blue, 0 to 255, in place of the colour of the name.
        terminology: the code as Slicer writes it, in place of the code of the name.
    """

    name: str
    color: tuple[int, ...] = ()
    terminology: str = ""


@frozen
class SegmentTemplate:
    """Segments that are made together; ``id`` is the name of its file, ``title`` that in a panel."""

    id: str
    title: str
    segments: tuple[TemplateSegment, ...]

    def __post_init__(self) -> None:
        """Check names and colours."""
        names = [segment.name.strip() for segment in self.segments]
        check(names and all(names), f"{self.id}: a template needs segments, each with a name")
        check(len(set(names)) == len(names), f"{self.id}: a name stands twice")
        colours = [segment.color for segment in self.segments if segment.color]
        is_rgb = all(len(color) == 3 and all(0 <= level <= 255 for level in color) for color in colours)
        check(is_rgb, f"{self.id}: a colour is red, green and blue, each from 0 to 255")


def user_template_folder() -> Path:
    """The folder of the user's own templates, whether it exists or not."""
    return user_folder("config", TEMPLATES_VARIABLE, "FoundationSeg/segment-templates")


def read_templates() -> dict[str, SegmentTemplate]:
    """Every template by its id: those that come along, then the user's own, which take the place of others.

    Raises:
        InputError: a file is no template; the message names it.
    """
    try:
        paths = toml_files(resource_folder("SegmentTemplates"), "template")
        own = existing_folder(user_template_folder(), TEMPLATES_VARIABLE)
        paths += toml_files(own, "template") if own is not None else []
        documents = ((path.name, read_toml(path, path.name, "template", _LARGEST_FILE)) for path in paths)
        templates = [build(SegmentTemplate, document, name) for name, document in documents]
    except CardError as error:
        raise InputError(str(error)) from error
    return {template.id: template for template in templates}


def save_template(title: str, segments: tuple[TemplateSegment, ...]) -> Path:
    """Keep a template of the user's own, in place of one of the same title. Returns its file.

    Raises:
        InputError: the title has no letter, or there are no segments.
        OutputError: the file cannot be written; one that is there stays.
    """
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60]
    if not name:
        raise InputError("Give the template a title with letters or digits.")
    return _write_own(user_template_folder() / f"{name}.toml", SegmentTemplate(name, title, segments))


def _write_own(path: Path, record: SegmentTemplate | LabelSet) -> Path:
    with _as_input_errors():
        text = toml_text(record)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {path.parent} cannot be made: {write_failure(error)}") from error
    replace_text(path, text)
    return path
