"""The sub-commands of `models`; each has a file of its own."""

import argparse

from . import models_download, models_exchange, models_list, models_show, models_store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for commands in (models_list, models_show, models_download, models_store, models_exchange):
        commands.add_arguments(actions)
