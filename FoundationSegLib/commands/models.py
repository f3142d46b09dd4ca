"""`models list` and `models download`."""

import argparse
import json
from typing import Any

from ..core.cards import ModelCard, find_card, read_catalogue
from ..core.progress import Progress
from ..hub.fetch import download_checkpoint, require_fetchable
from ..hub.store import Store, default_store_folder
from .terminal import ProgressLine, announce_download, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="show every model, and whether it is downloaded")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=_list)
    download = actions.add_parser("download", help="download a model's checkpoint, or replace a damaged one")
    download.add_argument("model", metavar="ID")
    download.add_argument("--accept-license", action="store_true", help="accept the terms that the model asks for")
    download.set_defaults(run=_download)
    for action in (listing, download):
        action.add_argument("--debug", action="store_true", help="show tracebacks")


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


def _download(options: argparse.Namespace) -> None:
    card = find_card(read_catalogue(), options.model)
    require_fetchable(card, accept_license=options.accept_license)
    announce_download(card)
    line = ProgressLine()
    try:
        download_checkpoint(
            Store(default_store_folder()), card, Progress(line.show), accept_license=options.accept_license
        )
    finally:
        line.clear()
    say(f"{card.title} is ready")
