"""What the sub-commands of `models` share."""

import argparse
from collections.abc import Callable
from typing import Any

Actions = Any  # argparse keeps the type of its sub-parsers to itself


def add_action(
    actions: Actions, name: str, run: Callable[[argparse.Namespace], None], explained: str
) -> argparse.ArgumentParser:
    """Add a sub-command."""
    parser: argparse.ArgumentParser = actions.add_parser(name, help=explained)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run)
    return parser
