"""Cards of adapted models: made from the base's card and what was learned, and written as the TOML that cards are."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import CardError, InputError
from .catalogue import LARGEST_CARD, parse_card
from .model_cards import CheckpointFile, LearnedFrom, ModelCard, Source, check_card
from .resource_files import read_toml

DELTA_FILE = "delta.safetensors"
CARD_FILE = "card.toml"  # beside the delta, where both travel together


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


def read_adapted_card(path: Path, model_id: str) -> ModelCard:
    """Read the card beside a delta.

    Raises:
        CardError: it cannot be read, or is another model's.
    """
    card = parse_card(read_toml(path, path.name, "card", LARGEST_CARD), path.name)
    if card.id != model_id or not card.base:
        raise CardError(f"{path.name}: is the card of {card.id}, not of {model_id}")
    return card
