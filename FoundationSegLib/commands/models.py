"""The sub-commands of `models`; `list` and `show` have files of their own."""

import argparse

from ..core.cards import find_card, read_catalogue
from ..core.progress import Progress
from ..hub.fetch import download_checkpoint, require_fetchable
from ..hub.store import Store, default_store_folder
from . import models_list, models_show
from .terminal import ProgressLine, announce_download, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="show every model, and whether it is downloaded")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=models_list.run)
    showing = actions.add_parser("show", help="tell everything about one model before it is downloaded")
    showing.add_argument("model", metavar="ID")
    showing.add_argument("--json", action="store_true", help="as JSON")
    showing.set_defaults(run=models_show.run)
    download = actions.add_parser("download", help="download a model's checkpoint, or replace a damaged one")
    download.add_argument("model", metavar="ID")
    download.add_argument("--accept-license", action="store_true", help="accept the terms that the model asks for")
    download.set_defaults(run=_download)
    for action in (listing, showing, download):
        action.add_argument("--debug", action="store_true", help="show tracebacks")


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
