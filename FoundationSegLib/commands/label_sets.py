"""`label-sets`: the sets of labels to classify with, and the sentences of each of them."""

import argparse
from dataclasses import asdict
from typing import Any

from ..catalog.label_sets import Label, LabelSet, find_label_set, read_label_sets, user_label_set_folder
from .outputs import print_result
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
        print_result(_document(labels), _lines(labels), as_json=options.json)
        return
    width = max(map(len, sets))
    documents = [{"id": s.id, "title": s.title, "kind": s.kind, "labels": s.names} for s in sets.values()]
    lines = [f"{s.id.ljust(width)}  {len(s.labels):4d} labels  {s.title}" for s in sets.values()]
    print_result(documents, lines, as_json=options.json)
    if not options.json:
        say(f"Sets of your own go into a folder called {user_label_set_folder().name} of your settings: see the README")


def _document(labels: LabelSet) -> dict[str, Any]:
    return asdict(labels) | {
        "labels": [
            asdict(label) | {"texts": labels.texts(label), "negative_texts": labels.negative_texts(label)}
            for label in labels.labels
        ]
    }


def _lines(labels: LabelSet) -> list[str]:
    kind = "at most one of these holds" if labels.kind == "exclusive" else "several may hold"
    head = [f"{labels.title} ({labels.id}): {kind}", f"Source: {labels.source}"]
    if labels.note:
        head.append(f"Note: {labels.note}")
    return [*head, *(line for label in labels.labels for line in _label_lines(labels, label))]


def _label_lines(labels: LabelSet, label: Label) -> list[str]:
    code = f" ({label.code.scheme} {label.code.value} {label.code.meaning})" if label.code else ""
    lines = ["", f"{label.name}{code}", *(f"  + {text}" for text in labels.texts(label))]
    lines += [f"  - {text}" for text in labels.negative_texts(label)]
    return lines + [f"  concept: {text}" for text in label.concepts]
