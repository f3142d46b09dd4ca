"""The catalogue: model cards of the extension, of the user and of adapted models: read from TOML, checked, written."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ..errors import CardError, InputError
from ..folders import user_folder
from .model_cards import CheckpointFile, LearnedFrom, ModelCard, PromptKind, Source, check_card
from .resource_files import build, check, existing_folder, read_toml, resource_folder, toml_files

CARDS_VARIABLE = "FOUNDATIONSEG_CARDS"
LARGEST_CARD = 200_000  # bytes; the longest that comes along has 5,000


def parse_card(document: Mapping[str, Any], origin: str = "card") -> ModelCard:
    """The card of a decoded TOML document.

    Args:
        document: the decoded values.
        origin: the file's name, for messages.

    Raises:
        CardError: a field is missing, unknown, of the wrong type or of a value that is not allowed.
    """
    card: ModelCard = build(ModelCard, document, origin)
    check_card(card, origin)
    return card


@lru_cache(maxsize=64)
def _card_of(text: str, origin: str) -> ModelCard:
    return parse_card(tomllib.loads(text), origin)


def read_card(path: Path, origin: str = "") -> ModelCard:
    """The card in a TOML file, whose name must be the card's id.

    Args:
        path: the file.
        origin: what messages call it; its name, unless given.

    Raises:
        CardError: the file cannot be read, is no TOML, or is no card.
    """
    origin = origin or path.name
    card: ModelCard = read_toml(path, origin, "card", LARGEST_CARD, partial(_card_of, origin=origin))
    check(path.stem == card.id, f"{origin}: the file must be named after its id, {card.id}.toml")
    return card


def card_folder() -> Path:
    """The folder of the cards that come with FoundationSeg."""
    return resource_folder("ModelCards")


def user_card_folder() -> Path:
    """The folder of the user's own cards, whether it exists or not.

    That is ``FoundationSeg/cards`` in the user's configuration directory, unless the variable :data:`CARDS_VARIABLE`
    names another. It is not in the store: that is a cache, which may be deleted.
    """
    return user_folder("config", CARDS_VARIABLE, "FoundationSeg/cards")


def user_card_file(card: ModelCard) -> Path:
    """The file of a card among the user's own, whether it is there or not."""
    return user_card_folder() / f"{card.id}.toml"


def read_catalogue(folder: Path | None = None, own_folder: Path | None = None) -> dict[str, ModelCard]:
    """Every card by id: those that come along in the order of their file names, then the user's own.

    A user's card takes the place of one that comes along only where it says ``replaces``.

    Args:
        folder: the cards that come along; :func:`card_folder`, unless given.
        own_folder: the user's; :func:`user_card_folder` unless given, and none if ``folder`` alone is given.

    Raises:
        CardError: there is no such folder, a card is wrong, or a user's card has the id of another.
    """
    if folder is None and own_folder is None:
        own_folder = existing_folder(user_card_folder(), CARDS_VARIABLE)
    cards = {card.id: card for card in map(read_card, toml_files(folder or card_folder(), "model card"))}
    for path in toml_files(own_folder, "model card") if own_folder else ():
        card = read_card(path, f"your card {path.name}")
        check(
            card.id not in cards or card.replaces,
            f"your card {path.name}: id: {card.id!r} is the id of {card.id}.toml, which comes with FoundationSeg; "
            f'choose another id, or write replaces = "{card.id}"',
        )
        is_of_base = not card.base or (card.base in cards and cards[card.base].family == card.family)
        check(is_of_base, f"your card {path.name}: base: there is no {card.base!r} of the family {card.family!r}")
        cards[card.id] = card
    return cards


_FOLDERS = {"segment": "segmentation", "classify": "classification"}  # below models/, by a card's task
_LOAD = re.compile(r"^def load\(", re.MULTILINE)  # what every adapter offers, and no other file beside them


def adapter_name(card: ModelCard) -> str:
    """The adapter's module below the package ``models``, for example ``segmentation.lite_medsam``."""
    return f"{_FOLDERS[card.task]}.{card.family.replace('-', '_')}"


def adapter_folder() -> Path:
    """The folder of the package ``models``, which has a folder for each task, with one file per family."""
    return Path(__file__).resolve().parents[1] / "models"


def has_adapter(card: ModelCard, folder: Path | None = None) -> bool:
    """True where there is an adapter for the card's family, in :func:`adapter_folder` unless another is given."""
    path = (folder or adapter_folder()).joinpath(*adapter_name(card).split(".")).with_suffix(".py")
    try:
        return _offers_load(path, path.stat().st_mtime_ns)
    except OSError:
        return False


@lru_cache(maxsize=64)
def _offers_load(path: Path, _changed_ns: int) -> bool:
    return bool(_LOAD.search(path.read_text(encoding="utf-8")))


def require_adapter(card: ModelCard) -> None:
    """Make sure that a model can be run, before anything is downloaded for it.

    Raises:
        CardError: this version has no adapter for its family.
    """
    if not has_adapter(card):
        remedy = "'foundationseg models list' shows those that it can run"
        raise CardError(f"{card.id}: this version cannot run it: there is no adapter for {card.family!r}; {remedy}")


def light_model_for(
    kind: PromptKind, chosen: ModelCard, catalogue: Mapping[str, ModelCard], is_slow: bool = False
) -> ModelCard | None:
    """The model to offer where the chosen one of slices only knows a kind of prompt translated, or not at all.

    Or where it ``is_slow``, and no light one itself.

    Of the light models that know it themselves, one that also follows objects through volumes, then the smallest. It is
    offered, never switched to or downloaded by itself. None where the chosen model knows the kind, or looks at whole
    volumes, or there is no light model.
    """
    suits = (is_slow and not chosen.light) or kind not in chosen.prompts
    if not suits or chosen.sees_volumes or chosen.task != "segment":
        return None
    usable = (card for card in catalogue.values() if card.light and not card.gated and not card.license.must_accept)
    light = [card for card in usable if kind in card.prompts and has_adapter(card)]
    return max(light, key=lambda card: (len(card.dimensions), -card.source.bytes), default=None)


DELTA_FILE = "delta.safetensors"
CARD_FILE = "card.toml"  # beside the delta, where both travel together


def adapted_id(base: ModelCard, name: str) -> str:
    """The id of a base's adaptation of that name.

    Raises:
        InputError: the name makes no id, or the base is adapted itself.
    """
    if base.base:
        raise InputError(f"{base.id} is adapted already; adapt {base.base} to all segments together")
    if base.resolution:
        raise InputError(f"{base.id} is a draft: adapt {base.id.partition('@')[0]}")
    if base.task != "segment" or base.sees_volumes:
        raise InputError(f"{base.id} cannot be adapted: only models that segment slices can")
    try:
        make_card(base, name, ("box",), LearnedFrom("0" * 64, 1, 1, 1, "2000-01-01", "0", ()), "0" * 64, 1)
    except CardError:
        raise InputError(f"{name[:40]!r} is no name for a model; take small letters, digits, dots and dashes") from None
    return f"{base.id}+{name}"


def make_card(
    base: ModelCard, name: str, kinds: Sequence[str], learned_from: LearnedFrom, sha256: str, length: int
) -> ModelCard:
    """Make the card of an adaptation; the licence is the base's.

    Args:
        base: the base's card.
        name: of the adaptation.
        kinds: the kinds of prompts that it is better at: of ``"box"``, ``"point"`` and ``"correction"``, which stands
            for clicks after the first, be they for or against.
        learned_from: its origin.
        sha256, length: of the file with the difference, its length in bytes.

    Raises:
        CardError: the name makes no id.
    """
    prompts = tuple(kind for kind in ("box", "point") if kind in kinds)
    rest = {
        kind: words
        for kind, words in base.translations.items()
        if kind not in prompts and (words in prompts or (words == "box+points" and set(prompts) == {"box", "point"}))
    }
    if "point" in prompts:
        rest = {kind: words for kind, words in rest.items() if kind != "mask"} | {"scribble": "points"}
    scores = "; ".join(learned_from.scores) or "no score"
    card = replace(
        base,
        id=f"{base.id}+{name}",
        title=f"{base.title}, adapted ({name})",
        prompts=prompts,
        negative=("point",) if "correction" in kinds else (),
        translations=rest,
        base=base.id,
        learned_from=learned_from,
        good_at=f"What it learned from {learned_from.cases} images: {scores}.",
        bad_at="Anything else: it was tested on what it was taught, not on other objects, machines or hospitals.",
        source=Source("adaptation", base.id, learned_from.made, (CheckpointFile(DELTA_FILE, length, sha256),)),
        notes=(
            f"Adapted by FoundationSeg {learned_from.version} on {learned_from.made}; 'models show {base.id}' has the "
            "notes on its base.",
        ),
        gated=False,
        license=replace(base.license, must_accept=False),  # accepted for the base, which is needed in any case
        unverified=(),
        replaces="",
    )
    check_card(card, card.id)
    return card


def read_adapted_card(path: Path, model_id: str) -> ModelCard:
    """Read the card beside a delta.

    Raises:
        CardError: it cannot be read, or is another model's.
    """
    card = parse_card(read_toml(path, path.name, "card", LARGEST_CARD), path.name)
    if card.id != model_id or not card.base:
        raise CardError(f"{path.name}: is the card of {card.id}, not of {model_id}")
    return card
