"""`models import` and `models export`: checkpoints for machines without a network."""

import argparse
from pathlib import Path

from ..catalog.catalogue import find_card, read_catalogue
from ..hub.exchange import export_checkpoint, import_checkpoint
from ..hub.store import Store, default_store_folder
from ..progress import Progress
from .model_actions import Actions, add_action
from .terminal import ProgressLine, say


def add_arguments(actions: Actions) -> None:
    """Add the two sub-commands."""
    incoming = add_action(actions, "import", _import, "take a model's checkpoint from a folder or an archive")
    outgoing = add_action(actions, "export", _export, "write a model's checkpoint to a folder or an archive")
    for action in (incoming, outgoing):
        action.add_argument("model", metavar="ID")
        action.add_argument("path", metavar="PATH", type=Path, help="a folder, or a .zip, .tar or .tar.gz file")
    incoming.add_argument("--accept-license", action="store_true", help="accept the terms that the model asks for")


def _import(options: argparse.Namespace) -> None:
    card, line = find_card(read_catalogue(), options.model), ProgressLine()
    store = Store(default_store_folder())
    try:
        import_checkpoint(store, card, options.path, Progress(line.show), accept_license=options.accept_license)
    finally:
        line.clear()
    say(f"{card.title} is ready")


def _export(options: argparse.Namespace) -> None:
    card, line = find_card(read_catalogue(), options.model), ProgressLine()
    try:
        export_checkpoint(Store(default_store_folder()), card, options.path, Progress(line.show))
    finally:
        line.clear()
    say(f"{card.title} was written to {options.path.name}")
