"""`models verify` and `models remove`."""

import argparse
import json
from typing import Any

from ..catalog.catalogue import find_card, read_catalogue
from ..catalog.model_cards import ModelCard
from ..errors import CheckpointError, InputError
from ..hub.plan import RemovalPlan, plan_partial_removal, plan_removal, remove
from ..hub.store import Store, default_store_folder
from ..progress import Progress, bytes_text
from .model_actions import Actions, add_action
from .terminal import ProgressLine, say


def add_arguments(actions: Actions) -> None:
    """Add the two sub-commands."""
    verify = add_action(actions, "verify", _verify, "hash a downloaded model's files again, or those of all")
    verify.add_argument("model", metavar="ID", nargs="?")
    verify.add_argument("--json", action="store_true", help="as JSON")
    removal = add_action(actions, "remove", _remove, "show what removing a model frees, and remove it with --yes")
    removal.add_argument("model", metavar="ID", nargs="?", help="needed unless --partial is given")
    removal.add_argument("--partial", action="store_true", help="half downloads only")
    removal.add_argument("--yes", action="store_true", help="do it")
    removal.add_argument("--json", action="store_true", help="as JSON")


def _cards(model: str | None) -> list[ModelCard]:
    catalogue = read_catalogue()
    return [find_card(catalogue, model)] if model else list(catalogue.values())


def _verify(options: argparse.Namespace) -> None:
    store = Store(default_store_folder())
    cards = [card for card in _cards(options.model) if options.model or store.status(card) != "absent"]
    results, failures = [], []
    line = ProgressLine()
    for card in cards:
        try:
            store.verify(card, Progress(line.show))
            problem = ""
        except CheckpointError as error:
            problem = str(error)
            failures.append(problem)
        finally:
            line.clear()
        results.append({"id": card.id, "status": store.status(card), "problem": problem})
    if options.json:
        print(json.dumps(results, indent=1))
    else:
        for result in results:
            print(f"{result['id']}: {result['problem'] or 'every file has the right hash'}")
    if failures:
        raise CheckpointError(failures[0] if len(failures) == 1 else f"{len(failures)} models are not whole")


def _remove(options: argparse.Namespace) -> None:
    if not options.model and not options.partial:
        raise InputError("name a model, or --partial for the half downloads of all (see 'models remove --help')")
    store, make_plan = Store(default_store_folder()), plan_partial_removal if options.partial else plan_removal
    plans = [(card, make_plan(store, card)) for card in _cards(options.model)]
    plans = [(card, plan) for card, plan in plans if plan.folders]
    for card, plan in plans if options.yes else ():
        remove(store, card, plan)
    if options.json:
        print(json.dumps([_document(plan, done=options.yes) for _, plan in plans], indent=1))
        return
    for _, plan in plans:
        print(_line(plan, done=options.yes))
    if not plans:
        say("there is nothing to remove")
    elif not options.yes:
        say("nothing was removed; --yes does it")


def _document(plan: RemovalPlan, *, done: bool) -> dict[str, Any]:
    return {
        "id": plan.model,
        "bytes_freed": plan.bytes_freed,
        "bytes_shared": plan.bytes_shared,
        "folders": [folder.name for folder in plan.folders],
        "removed": done,
    }


def _line(plan: RemovalPlan, *, done: bool) -> str:
    stays = f"; {bytes_text(plan.bytes_shared)} stay, as the Hugging Face cache has them too"
    return (
        f"{plan.model}: {'freed' if done else 'frees'} {bytes_text(plan.bytes_freed)}{stays * bool(plan.bytes_shared)}"
    )
