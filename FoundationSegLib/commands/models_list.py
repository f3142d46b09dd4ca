"""`models list`: every model, what it takes, and whether it is there and can be run."""

import argparse
import json
from collections.abc import Sequence

from ..catalog.catalogue import has_adapter, read_catalogue
from ..catalog.model_cards import ModelCard
from ..hub.store import Store, default_store_folder
from ..model_management import describe
from .card_texts import COLUMNS, fit, size_text
from .model_actions import Actions, add_action

_HEADER = ("ID", "PROMPTS", "LICENCE", "COMMERCIAL", "SIZE", "STATUS")
_GAP = "  "
_ELASTIC = ("PROMPTS", "LICENCE", "ID")  # the columns that give way, in this order, where a line would be too long
_NARROWEST = 8


def add_arguments(actions: Actions) -> None:
    """Add the sub-command."""
    parser = add_action(actions, "list", _run, "show every model, and whether it is downloaded")
    parser.add_argument("--json", action="store_true", help="as JSON")


def _run(options: argparse.Namespace) -> None:
    store = Store(default_store_folder())
    cards = list(read_catalogue().values())
    if options.json:
        print(json.dumps([describe(card, store) for card in cards], indent=1))
        return
    for line in table(cards, store):
        print(line)


def table(cards: Sequence[ModelCard], store: Store) -> list[str]:
    """The catalogue as lines of at most :data:`~.card_texts.COLUMNS` characters, what can be run first."""
    runnable = [card for card in cards if has_adapter(card)]
    others = [card for card in cards if card not in runnable]
    widths = _widths([_HEADER, *(_row(card, store) for card in cards)])
    lines = [_line(_HEADER, widths), *(_line(_row(card, store), widths) for card in runnable)]
    if others:
        lines += ["", "Described, but this version cannot run them yet:"]
        lines += [_line(_row(card, store), widths) for card in others]
    remarks = _remarks(cards)
    return [*lines, "", *remarks] if remarks else lines


def _row(card: ModelCard, store: Store) -> tuple[str, ...]:
    mark = " *" if card.gated else ""
    terms = f"{card.license.name}{mark}"
    prompts = " ".join(card.prompts)
    asked = prompts if card.task == "segment" else f"classifies by {prompts}"
    return card.id, asked, terms, card.license.commercial_use, size_text(card), store.status(card)


def _remarks(cards: Sequence[ModelCard]) -> list[str]:
    remarks = []
    if any(card.gated for card in cards):
        remarks.append("* its conditions must be accepted on the Hub, with an account")
    if any(size_text(card).startswith("~") for card in cards):
        remarks.append("~ not certain; the Hub is asked before anything is downloaded")
    if any(card.unverified or card.license.note for card in cards):
        remarks.append("'models show ID' tells the terms, the memory it takes, and what was not verified")
    return remarks


def _widths(rows: Sequence[tuple[str, ...]]) -> list[int]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name in _ELASTIC:
        excess = sum(widths) + len(_GAP) * (len(widths) - 1) - COLUMNS
        n = _HEADER.index(name)
        widths[n] = max(min(_NARROWEST, widths[n]), widths[n] - max(0, excess))
    return widths


def _line(row: tuple[str, ...], widths: Sequence[int]) -> str:
    return _GAP.join(fit(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
