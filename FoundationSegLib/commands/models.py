"""`models list`, and where the other sub-commands of `models` are."""

import argparse
import json
from typing import Any

from ..core.cards import ModelCard, read_catalogue
from ..hub.store import Store, default_store_folder
from . import models_download, models_exchange, models_store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="show every model, and whether it is downloaded")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=_list)
    listing.add_argument("--debug", action="store_true", help="show tracebacks")
    models_download.add_arguments(actions)
    models_store.add_arguments(actions)
    models_exchange.add_arguments(actions)


def describe(card: ModelCard, store: Store) -> dict[str, Any]:
    """A card's line in ``models list --json``."""
    return {
        "id": card.id,
        "title": card.title,
        "task": card.task,
        "family": card.family,
        "prompts": list(card.prompts),
        "dimensions": list(card.dimensions),
        "license": card.license.name,
        "commercial_use": card.license.commercial_use,
        "gated": card.gated,
        "status": store.status(card),
        "bytes": card.source.bytes,
    }


def _list(options: argparse.Namespace) -> None:
    store = Store(default_store_folder())
    lines = [describe(card, store) for card in read_catalogue().values()]
    if options.json:
        print(json.dumps(lines, indent=1))
        return
    rows = [("ID", "PROMPTS", "LICENCE", "COMMERCIAL", "SIZE", "STATUS"), *(_row(line) for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    size = f"{line['bytes'] / 1e6:.0f} MB"
    return line["id"], ", ".join(line["prompts"]), line["license"], line["commercial_use"], size, line["status"]
