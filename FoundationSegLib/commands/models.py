"""The sub-commands of `models`; each has a file of its own."""

import argparse

from . import models_download, models_exchange, models_list, models_show, models_store


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
    for action in (listing, showing):
        action.add_argument("--debug", action="store_true", help="show tracebacks")
    models_download.add_arguments(actions)
    models_store.add_arguments(actions)
    models_exchange.add_arguments(actions)
