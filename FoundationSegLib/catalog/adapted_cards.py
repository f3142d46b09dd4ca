"""Cards of adapted models: made from the base's card and what was learned, and written as the TOML that cards are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import CardError, InputError
from .catalogue import parse_card
from .model_cards import CheckpointFile, LearnedFrom, ModelCard, Source, check_card
from .resource_files import read_toml

DELTA_FILE = "delta.safetensors"
CARD_FILE = "card.toml"  # beside the delta, where both travel together
_LARGEST_CARD = 200_000  # bytes


def adapted_id(base: ModelCard, name: str) -> str:
    """The id of a base's adaptation of that name.

    Raises:
        InputError: the name makes no id, or the base is adapted itself.
    """
    if base.base:
        raise InputError(f"{base.id} is adapted already; adapt {base.base} to all segments together")
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


def card_text(card: ModelCard) -> str:
    """Write a card as TOML; what has its default is left out."""
    return "\n".join(_lines(card, "")).strip() + "\n"


def read_adapted_card(path: Path, model_id: str) -> ModelCard:
    """Read the card beside a delta.

    Raises:
        CardError: it cannot be read, or is another model's.
    """
    card = parse_card(read_toml(path, path.name, "card", _LARGEST_CARD), path.name)
    if card.id != model_id or not card.base:
        raise CardError(f"{path.name}: is the card of {card.id}, not of {model_id}")
    return card


def _lines(record: Any, table: str) -> list[str]:
    """The record's own values, then its tables, as TOML wants them."""
    values = {item.name: getattr(record, item.name) for item in fields(record) if not _is_default(record, item)}
    plain = [f"{name} = {_value(value)}" for name, value in values.items() if not _is_table(value)]
    tables = [line for name, value in values.items() if _is_table(value) for line in _table(f"{table}{name}", value)]
    return [*plain, *tables]


def _table(name: str, value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return ["", f"[{name}]", *(f"{json.dumps(key)} = {_value(item)}" for key, item in value.items())]
    if isinstance(value, tuple):
        return [line for item in value for line in ("", f"[[{name}]]", *_lines(item, f"{name}."))]
    return ["", f"[{name}]", *_lines(value, f"{name}.")]


def _is_table(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        or is_dataclass(value)
        or (isinstance(value, tuple) and any(map(is_dataclass, value)))
    )


def _is_default(record: Any, item: Any) -> bool:
    default = item.default if item.default_factory is MISSING else item.default_factory()
    value = getattr(record, item.name)
    return value is None or (default is not MISSING and value == default)


def _value(value: Any) -> str:
    # JSON writes texts, numbers, lists and true as TOML reads them.
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
