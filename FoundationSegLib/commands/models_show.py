"""`models show`: everything that a person must know of a model before downloading it."""

import argparse
import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ..catalog.catalogue import find_card, has_adapter, read_catalogue
from ..catalog.class_lists import classes_of
from ..catalog.model_cards import ModelCard
from ..hub.store import Store, default_store_folder
from ..model_management import describe
from .card_texts import COLUMNS, file_text, size_text, source_text
from .model_actions import Actions, add_action

_LABEL_WIDTH = 14
_COMMERCIAL = {"yes": "allowed", "no": "not allowed", "unclear": "unclear: the texts conflict or leave it open"}


def add_arguments(actions: Actions) -> None:
    """Add the sub-command."""
    parser = add_action(actions, "show", _run, "tell everything about one model before it is downloaded")
    parser.add_argument("model", metavar="ID")
    parser.add_argument("--json", action="store_true", help="as JSON")


def _run(options: argparse.Namespace) -> None:
    card, store = find_card(read_catalogue(), options.model), Store(default_store_folder())
    if options.json:
        print(json.dumps(full_description(card, store), indent=1))
        return
    print(f"{card.title} ({card.id})")
    for label, text in facts(card, store):
        print(_paragraph(label, text))


def full_description(card: ModelCard, store: Store) -> dict[str, Any]:
    """The card's line in ``models list --json``, with everything else that the card says.

    ``license`` stays the short name; ``terms`` has all that is said of it. The ``bytes`` of a file are null where they
    are not known.
    """
    everything = asdict(card)
    everything["terms"] = everything.pop("license")
    return everything | describe(card, store)


def facts(card: ModelCard, store: Store) -> Iterator[tuple[str, str]]:
    """Labels and texts, in the order in which they matter."""
    runnable = "yes" if has_adapter(card) else f"no, this version has no adapter for {card.family!r}"
    yield "Runs here", runnable
    yield "Status", store.status(card)
    yield "Good at", card.good_at
    yield "Bad at", card.bad_at
    yield "Task", f"{card.task}, on {' and '.join({2: 'slices', 3: 'volumes'}[n] for n in card.dimensions)}"
    negative = f"; also as 'not this': {', '.join(card.negative)}" if card.negative else ""
    yield "Prompts", f"{', '.join(card.prompts) or 'none'}{negative}"
    if card.classes:
        yield "Classes", "; ".join(f"{one.number} {one.name}" for one in classes_of(card).classes)
    if card.translations:
        yield "Translated", ", ".join(f"{kind} to {words}" for kind, words in card.translations.items())
    yield "Trained on", ", ".join(card.modalities) or "no medical images"
    yield "Sees", _input(card)
    yield "Memory", _memory(card)
    yield "Packages", ", ".join(card.packages) or "none"
    yield from _download(card)
    yield from _terms(card)
    yield "Cite", card.citation
    for note in card.notes:
        yield "Note", note
    if card.unverified:
        yield "Not verified", f"{', '.join(card.unverified)}; what the source can tell is asked before a download"


def _input(card: ModelCard) -> str:
    colours = {(1,): "grey", (3,): "colour"}.get(card.channels, "grey and colour")
    return f"{colours}{', 8 bits' if card.input_8bit else ''}, intensity policy {card.intensity!r}"


def _memory(card: ModelCard) -> str:
    basis = card.memory_basis or {}
    amounts = [f"{device}: {amount} MB ({basis[device]})" for device, amount in (card.memory_mb or {}).items()]
    return ", ".join(amounts) or "not known"


def _download(card: ModelCard) -> Iterator[tuple[str, str]]:
    place = f"{source_text(card)}: {card.source.repository}, revision {card.source.revision}"
    yield "Download", f"{size_text(card)} from {place}"
    for n, file in enumerate(card.source.files):
        yield "File", file_text(card, n, file)
    if card.full_pickle:
        yield "Pickle", "loading the checkpoint can run code that is in it: only if you trust its makers"


def _terms(card: ModelCard) -> Iterator[tuple[str, str]]:
    terms = card.license
    acceptance = "; must be accepted before the download" if terms.must_accept else ""
    yield "Licence", f"{terms.name}{acceptance}"
    yield "Commercial", _COMMERCIAL[terms.commercial_use]
    if terms.note:
        yield "Terms", terms.note
    if terms.url:
        yield "Text", terms.url
    gate = "its conditions must be accepted on the Hub, with an account" if card.gated else "open to everybody"
    yield "Gate", gate


def _paragraph(label: str, text: str) -> str:
    indent = " " * _LABEL_WIDTH
    first = f"{label}:".ljust(_LABEL_WIDTH)
    return textwrap.fill(
        text, COLUMNS, initial_indent=first, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
