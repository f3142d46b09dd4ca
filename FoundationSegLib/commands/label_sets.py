"""`label-sets`: the sets of labels to classify with, and what each of them says."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from ..catalog.label_sets import Label, LabelSet, find_label_set, read_label_sets, user_label_set_folder
from .terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("id", metavar="ID", nargs="?", help="the set to show; all are listed without")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the sets, or one of them with every sentence that a model reads."""
    sets = read_label_sets()
    if options.id is not None:
        labels = find_label_set(sets, options.id)
        print(_json(_document(labels)) if options.json else "\n".join(_lines(labels)))
    elif options.json:
        print(
            _json([{"id": one.id, "title": one.title, "kind": one.kind, "labels": one.names} for one in sets.values()])
        )
    else:
        width = max(map(len, sets))
        print("\n".join(f"{one.id.ljust(width)}  {len(one.labels):4d} labels  {one.title}" for one in sets.values()))
        say(f"Sets of your own go into a folder called {user_label_set_folder().name} of your settings: see the README")


def _json(document: Any) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False)


def _document(labels: LabelSet) -> dict[str, Any]:
    return asdict(labels) | {
        "labels": [
            asdict(label) | {"texts": labels.texts(label), "negative_texts": labels.negative_texts(label)}
            for label in labels.labels
        ]
    }


def _lines(labels: LabelSet) -> list[str]:
    kind = "one of these holds at most" if labels.kind == "exclusive" else "several may hold"
    head = [f"{labels.title} ({labels.id}): {kind}", f"Source: {labels.source}"]
    if labels.note:
        head.append(f"Note: {labels.note}")
    return [*head, *(line for label in labels.labels for line in _label_lines(labels, label))]


def _label_lines(labels: LabelSet, label: Label) -> list[str]:
    code = f" ({label.code.scheme} {label.code.value} {label.code.meaning})" if label.code else ""
    lines = ["", f"{label.name}{code}", *(f"  + {text}" for text in labels.texts(label))]
    lines += [f"  - {text}" for text in labels.negative_texts(label)]
    return lines + [f"  concept: {text}" for text in label.concepts]
