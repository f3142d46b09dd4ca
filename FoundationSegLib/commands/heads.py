"""`heads`: learn labels from a table of few examples, on vectors of a model; list, show, evaluate, remove."""

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from ..catalog.catalogue import require_adapter
from ..catalog.label_sets import find_label_set, read_label_sets
from ..catalog.model_cards import ModelCard, find_card
from ..errors import InputError, counted
from ..hub.store import default_store_folder
from ..imaging.geometry import AXES
from ..imaging.intensity import check_intensity_views
from ..progress import Progress
from ..requests.classification import Embeddings, EmbedRequest, Subject
from ..requests.heads import (
    COVERAGE,
    HeadMethod,
    LearnedHead,
    head_names,
    read_head,
    remove_head,
    require_new,
    write_head,
)
from ..requests.maintenance import WorkerSettings
from ..worker.client import ask
from .arguments import add_model_arguments, number_within, path_argument, read_image
from .classify_evaluate import ScoredTruth, drawn, plot_paths, quality_document, quality_lines
from .models import require_checkpoint
from .outputs import ProgressLine, interrupts_wait, print_result, publish, require_targets, say, software_versions

if TYPE_CHECKING:
    from ..evaluation.classification import ScoreQuality
    from ..evaluation.head_training import LabelledImage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    table = "a table with the columns image,label,patient, the last of which may be missing"
    train = actions.add_parser("train", help="learn labels from few examples")
    train.add_argument("--model", metavar="ID", required=True, help="whose vectors: a classifier, or of SAM's family")
    train.add_argument("--cases", metavar="CSV", type=path_argument, required=True, help=table)
    train.add_argument("--name", metavar="NAME", required=True, help="of the head")
    train.add_argument("--method", choices=get_args(HeadMethod), default="logistic")
    train.add_argument("--findings", action="store_true", help="several labels may hold in an image, or none")
    train.add_argument("--concept", metavar="TEXT", action="append", default=[], help="for --method concepts; repeat")
    train.add_argument("--concepts-of", metavar="ID", help="the concepts of a label set")
    train.add_argument("--axis", choices=AXES, default="k", help="across which the slices lie (k)")
    evaluate = actions.add_parser("evaluate", help="how good a head is on other images")
    evaluate.add_argument("name", metavar="NAME")
    evaluate.add_argument("--cases", metavar="CSV", type=path_argument, required=True, help=table)
    for parser_of_work in (train, evaluate):
        add = parser_of_work.add_argument
        share = number_within(float, 0.5, 0.999)
        add("--coverage", metavar="SHARE", type=share, default=COVERAGE, help="of what remains (0.9)")
        add(
            "--bootstrap",
            metavar="N",
            type=number_within(int, 0, 100_000),
            default=1000,
            help="draws (1000)",
        )
        add("--plots", metavar="FOLDER", type=path_argument, help="save pictures there (.png), the calibration too")
        add("--report", metavar="FILE", type=path_argument, help="write what was measured, as JSON")
        add("--json", action="store_true", help="print the report instead of the table")
        add_model_arguments(parser_of_work)
    actions.add_parser("list", help="list the heads")
    for action, purpose in (("show", "show how a head came about"), ("remove", "delete a head")):
        actions.add_parser(action, help=purpose).add_argument("name", metavar="NAME")
    for name in ("list", "show", "remove"):
        actions.choices[name].add_argument("--json", action="store_true", help="print JSON")
        actions.choices[name].add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run an action."""
    actions = {"train": _train, "evaluate": _evaluate, "list": _list, "show": _show, "remove": _remove}
    actions[options.action](options)


def _list(options: argparse.Namespace) -> None:
    heads = [read_head(name) for name in head_names()]
    lines = [f"{head.name}  {head.checkpoint.model_id}  {head.method}  {', '.join(head.labels)}" for head in heads]
    print_result([head.to_document() for head in heads], lines or ["no heads yet"], as_json=options.json)


def _show(options: argparse.Namespace) -> None:
    head = read_head(options.name)
    document = head.to_document()
    lines = [f"{name}: {value}" for name, value in document.items() if not isinstance(value, dict)]
    lines += [f"{label}: {counted(count, 'example')}" for label, count in document["of_label"].items()]
    if head.method == "concepts":
        with interrupts_wait():
            from ..evaluation.head_training import concept_weights

        rows = concept_weights(head)
        document["weights"] = [{"label": label, "concept": text, "weight": round(w, 6)} for label, text, w in rows]
        lines += [f"{label}  {weight:+.3f}  {text}" for label, text, weight in rows]
    print_result(document, lines, as_json=options.json)


def _remove(options: argparse.Namespace) -> None:
    remove_head(options.name)
    print_result({"removed": options.name}, [f"removed {options.name}"], as_json=options.json)


def _train(options: argparse.Namespace) -> None:
    card = _card(options, options.model)
    with interrupts_wait():
        from ..evaluation.head_training import Table, coverage_of, learn

    kind: Any = "findings" if options.findings else "exclusive"
    table = Table.read(options.cases, kind)
    require_new(options.name)
    concepts = _concepts(options)
    answers = _encode(options, card, table.cases, options.axis, concepts)
    examples = table.examples(answers, options.intensity, options.axis, concepts)
    head, scores, quality = learn(examples, options.name, options.method, options.bootstrap)
    write_head(head)
    share, known = coverage_of(head, scores, examples.truth, options.coverage)
    how = ("each by a head that has not seen its patient", share, known)
    _report(options, head, table.cases, scores, examples.truth, how, quality)
    say(f"use it: foundationseg classify IMAGE --model {card.id} --head {head.name}")


def _evaluate(options: argparse.Namespace) -> None:
    head = read_head(options.name)
    card = _card(options, head.checkpoint.model_id)
    with interrupts_wait():
        from ..evaluation.classification import evaluate_scores
        from ..evaluation.head_training import coverage_of, image_vectors, read_cases, truth_of

    cases = read_cases(options.cases)
    strange = sorted({label for case in cases for label in case.labels} - set(head.labels))
    if strange:
        raise InputError(f"{options.cases.name}: {strange[0][:60]!r} is none of the head's: {', '.join(head.labels)}")
    if options.intensity not in ("auto", head.intensity):
        raise InputError(f"the head {head.name!r} has learned images seen by {head.intensity}, not {options.intensity}")
    options.intensity = head.intensity
    answers = _encode(options, card, cases, head.axis, ())
    head.require_model(answers[0].checkpoint)
    truth, scores = truth_of(cases, head.labels), head.scores(image_vectors(answers))
    patients, is_exclusive = [case.patient for case in cases], head.kind == "exclusive"
    quality = evaluate_scores(head.labels, truth, scores, is_exclusive, options.bootstrap, patients=patients)
    _report(options, head, cases, scores, truth, ("", *coverage_of(head, scores, truth, options.coverage)), quality)


def _report(
    options: argparse.Namespace,
    head: LearnedHead,
    cases: "Sequence[LabelledImage]",
    scores: NDArray[np.float64],
    truth: NDArray[np.bool_],
    remaining: tuple[str, float, float],
    quality: "ScoreQuality",
) -> None:
    """Print and write the quality of scores; intervals are over patients."""
    how, share, known = remaining
    scored = ScoredTruth(
        images=tuple(case.path.name for case in cases),
        labels=head.labels,
        scores=scores,
        truth=truth,
        is_exclusive=head.kind == "exclusive",
        models=(head.checkpoint.model_id,),
        notes=() if head.is_calibrated else ("not calibrated: too few examples for scores to be read as shares",),
    )
    document = quality_document(quality, scored) | {
        "command": f"heads {options.action}",
        "head": head.to_document(),
        "patients": len({case.patient for case in cases}),
        "coverage": {"wanted": options.coverage, "reached": round(share, 6), "known": round(known, 6)},
        "software": software_versions("scikit-learn"),
    }
    lines = [f"{head.name}: {head.method} on {head.checkpoint.model_id}{how and f', {how}'}"]
    lines += quality_lines(quality, scored)
    lines.append(
        f"what remains at {options.coverage:.0%} holds the truth in {share:.1%}, one answer alone in {known:.1%}"
    )
    publish(document, lines, scored.notes, drawn(options.plots, quality, scored) if options.plots else (), options)


def _card(options: argparse.Namespace, model_id: str) -> ModelCard:
    card = find_card(options.catalogue(), model_id)
    require_adapter(card)
    check_intensity_views(options.intensity)
    require_targets({"report": options.report} | plot_paths(options.plots), {"the table": options.cases})
    return card


def _concepts(options: argparse.Namespace) -> tuple[str, ...]:
    concepts = list(options.concept)
    if options.concepts_of is not None:
        labels = find_label_set(read_label_sets(), options.concepts_of)
        concepts += [text for label in labels.labels for text in label.concepts]
    concepts = list(dict.fromkeys(concepts))
    if (options.method == "concepts") != bool(concepts):
        raise InputError("--method concepts and its sentences go together: --concept TEXT or --concepts-of ID")
    return tuple(concepts)


def _encode(
    options: argparse.Namespace, card: ModelCard, cases: "Sequence[LabelledImage]", axis: Any, concepts: tuple[str, ...]
) -> list[Embeddings]:
    """Encode the images; the sentences go with the first."""
    from ..evaluation.head_training import encode_images

    require_checkpoint(card, options)
    settings = WorkerSettings(options.device, default_store_folder(), encode_ahead=False)
    with ProgressLine() as line, contextlib.closing(options.connect(settings)) as client:
        client.prepare(card.id)

        def encode(path: Path, texts: tuple[str, ...]) -> Embeddings:
            volume = read_image(path, options)
            client.send_volume(volume)
            request = EmbedRequest(1, card.id, volume.key, Subject(axis), options.intensity, texts)
            answer: Embeddings = ask(client, request, line.show)
            client.remove_volume(volume.key)
            return answer

        return encode_images(cases, concepts, encode, Progress())
