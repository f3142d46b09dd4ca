"""`classify-evaluate`: a table of `classify` and the truth in; the quality of the scores, and pictures of it, out."""

import argparse
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..cohorts.cases import read_table
from ..errors import InputError, OutputError, PackageError, counted
from ..requests.classification_answer import RESEARCH_USE
from .arguments import path_argument
from .outputs import FileWriter, interrupts_wait, one_line, publish, require_targets, software_versions

if TYPE_CHECKING:
    from ..evaluation.classification import Estimate, ScoreQuality

_PLOTS = ("roc", "calibration", "confusion")
_YES, _NO = {"1", "yes", "true"}, {"0", "no", "false"}


@dataclass(frozen=True, slots=True, eq=False)
class ScoredTruth:
    """Images with both a score and a truth.

    Attributes:
        images, labels: their names.
        scores: (images, labels) from 0 to 1.
        truth: (images, labels) whether each label holds.
        is_exclusive: whether the labels were scored against each other.
        models: the models that scored them.
        notes: what was left out.
    """

    images: tuple[str, ...]
    labels: tuple[str, ...]
    scores: NDArray[np.float64]
    truth: NDArray[np.bool_]
    is_exclusive: bool
    models: tuple[str, ...]
    notes: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("table", metavar="CSV", type=path_argument, help="a table that 'classify --csv' wrote")
    parser.add_argument("--truth", metavar="CSV", type=path_argument, help="image,label of each label that holds")
    parser.add_argument("--bootstrap", metavar="N", type=int, default=1000, help="draws for the intervals (1000)")
    parser.add_argument("--plots", metavar="FOLDER", type=path_argument, help="save pictures there (.png)")
    parser.add_argument("--report", metavar="FILE", type=path_argument, help="write what was found, as JSON")
    parser.add_argument("--json", action="store_true", help="print the report instead of the table")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Evaluate, then print and write."""
    if not 0 <= options.bootstrap <= 100_000:
        raise InputError("--bootstrap is a number from 0 to 100000")
    targets: dict[str, Path | None] = {"report": options.report} | plot_paths(options.plots)
    require_targets(targets, {"the table": options.table, "the truth": options.truth})
    scored = read_scored(options.table, options.truth)
    with interrupts_wait():
        from ..evaluation.classification import evaluate_scores

    quality = evaluate_scores(scored.labels, scored.truth, scored.scores, scored.is_exclusive, options.bootstrap)
    document = quality_document(quality, scored)
    plots = drawn(options.plots, quality, scored) if options.plots else []
    publish(document, quality_lines(quality, scored), scored.notes, plots, options)


def plot_paths(folder: Path | None) -> dict[str, Path | None]:
    """Name the pictures of ``--plots``; none without a folder.

    Raises:
        OutputError: it is no folder.
    """
    if folder is not None and not folder.is_dir():
        raise OutputError(f"--plots {folder.name} is not a folder; make it first")
    return {f"plots {name}": folder / f"{name}.png" for name in _PLOTS} if folder is not None else {}


def drawn(folder: Path, quality: "ScoreQuality", scored: ScoredTruth) -> list[FileWriter]:
    """Return the writers of the pictures: ROC curves, calibration and confusion."""
    try:
        with interrupts_wait():
            import matplotlib  # noqa: F401 - the plots need it, and it may be missing
    except ModuleNotFoundError as error:
        raise PackageError(f"--plots needs the package {error.name}: pip install matplotlib") from error
    from ..evaluation import classification as plots

    correct, confidence = plots.predictions(scored.truth, scored.scores, scored.is_exclusive)
    draw: dict[str, Callable[[Path], None]] = {
        "roc": lambda path: plots.plot_curves(path, quality, scored.truth, scored.scores),
        "calibration": lambda path: plots.plot_calibration(path, quality, correct, confidence),
        "confusion": lambda path: plots.plot_confusion(path, quality),
    }
    return [(folder / f"{name}.png", draw[name]) for name in _PLOTS]


def quality_document(quality: "ScoreQuality", scored: ScoredTruth) -> dict[str, Any]:
    """Compose the report of scores that were held against the truth."""
    return {
        "version": 1,
        "command": "classify-evaluate",
        "research_use": RESEARCH_USE,
        "models": list(scored.models),
        "images": quality.images,
        "exclusive": quality.is_exclusive,
        "auc": _rounded(quality.auc),
        "accuracy": _rounded(quality.accuracy),
        "calibration_error": _rounded(quality.calibration_error),
        "labels": [asdict(label) | {"auc": _rounded(label.auc)} for label in quality.labels],
        "confusion": quality.confusion.tolist(),
        "notes": list(scored.notes),
        "software": software_versions("matplotlib", "scikit-learn"),
    }


def _rounded(estimate: "Estimate") -> dict[str, float | None]:
    return {name: None if value is None else round(value, 6) for name, value in asdict(estimate).items()}


def quality_lines(quality: "ScoreQuality", scored: ScoredTruth) -> list[str]:
    """Return the printed table."""
    names = [one_line(label.name) for label in quality.labels]
    width = max(map(len, names))
    rule = "the highest score" if quality.is_exclusive else "scores from one half on"
    lines = [
        f"{counted(quality.images, 'image')}, {counted(len(names), 'label')}, {', '.join(scored.models)}",
        f"AUC, mean              {_estimate_text(quality.auc)}",
        f"accuracy of {rule}     {_estimate_text(quality.accuracy)}",
        f"calibration error      {_estimate_text(quality.calibration_error)}",
        "",
        f"{'label'.ljust(width)}  yes  no   AUC                     precision beyond chance",
    ]
    for name, label in zip(names, quality.labels, strict=True):
        gain = "-" if label.precision_gain is None else f"{label.precision_gain:.3f}"
        counts = f"{name.ljust(width)}  {label.positives:3d}  {label.negatives:3d}"
        lines.append(f"{counts}  {_estimate_text(label.auc):<22}  {gain}")
    return [*lines, "", *_confusion_lines(quality, names, width), RESEARCH_USE]


def _confusion_lines(quality: "ScoreQuality", names: list[str], width: int) -> list[str]:
    if quality.is_exclusive:
        header = "  ".join(f"{n:>4d}" for n in range(1, len(names) + 1))
        rows = [
            f"{n:>3d} {name.ljust(width)}  {'  '.join(f'{count:4d}' for count in row)}"
            for n, (name, row) in enumerate(zip(names, quality.confusion.tolist(), strict=True), start=1)
        ]
        return [f"confusion: truth in rows, said in columns\n    {' ' * width}  {header}", *rows, ""]
    rows = [
        f"{name.ljust(width)}  {hits:5d}  {missed:6d}  {alarm:11d}  {silent:10d}"
        for name, ((silent, alarm), (missed, hits)) in zip(names, quality.confusion.tolist(), strict=True)
    ]
    return [f"{'confusion'.ljust(width)}  found  missed  false alarm  rightly no", *rows, ""]


def _estimate_text(estimate: "Estimate") -> str:
    if estimate.value is None:
        return "-"
    interval = "" if estimate.low is None else f" ({estimate.low:.3f} to {estimate.high:.3f})"
    return f"{estimate.value:.3f}{interval}"


def read_scored(path: Path, truth_path: Path | None) -> ScoredTruth:
    """Read a table of `classify`, and the truth.

    Args:
        path: the table; a column ``truth`` may say 1 or 0 for each row.
        truth_path: another table with the columns ``image`` and ``label``: one row for each label that holds in an
            image; an image in which none holds has a row with an empty label.

    Raises:
        InputError: a table cannot be read, lacks a column, has a row twice, or nothing says what is true.
    """
    rows = [row for _, row in read_table(path, ("image", "label", "score", "scoring"))]
    scored = [row for row in rows if row["label"]]
    labels = tuple(dict.fromkeys(row["label"] for row in scored))
    scores: dict[str, dict[str, float]] = {}
    for row in scored:
        of_image = scores.setdefault(row["image"], {})
        if row["label"] in of_image:
            raise InputError(f"{path.name}: {row['image']!r} has the label {row['label']!r} twice")
        of_image[row["label"]] = _score(row["score"], path)
    truth = _truth_column(scored, path) if truth_path is None else _truth_table(truth_path, labels)
    images = tuple(image for image in scores if image in truth and len(scores[image]) == len(labels))
    return ScoredTruth(
        images=images,
        labels=labels,
        scores=np.array([[scores[image][label] for label in labels] for image in images], np.float64),
        truth=np.array([[label in truth[image] for label in labels] for image in images], np.bool_),
        is_exclusive={row["scoring"] for row in scored} <= {"softmax", "concepts", "learned"},
        models=tuple(dict.fromkeys(row.get("model", "") for row in scored)),
        notes=_left_out({row["image"] for row in rows}, scores, truth, images),
    )


def _left_out(
    every: set[str], scores: Collection[str], truth: Collection[str], used: Collection[str]
) -> tuple[str, ...]:
    notes = []
    if failed := len(every - set(scores)):
        notes.append(f"left out: {counted(failed, 'image')} not classified")
    if unknown := len(set(scores) - set(truth)):
        notes.append(f"left out: {counted(unknown, 'image')} of which nothing says what is true")
    if more := len(set(scores) & set(truth)) - len(used):
        notes.append(f"left out: {counted(more, 'image')} without the score of some label")
    if unscored := len(set(truth) - every):
        notes.append(f"not in the table: {counted(unscored, 'image')} of the truth")
    return tuple(notes)


def _score(text: str, path: Path) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not 0 <= score <= 1:
        raise InputError(f"{path.name}: a score is a number from 0 to 1, not {text[:40]!r}")
    return score


def _truth_column(rows: Sequence[dict[str, str]], path: Path) -> dict[str, set[str]]:
    if not any(row.get("truth") for row in rows):
        raise InputError(f"{path.name}: nothing says what is true: add a column 'truth' with 1 or 0, or give --truth")
    truth: dict[str, set[str]] = {}
    for row in rows:
        mark = (row.get("truth") or "").strip().lower()
        if mark in _YES:
            truth.setdefault(row["image"], set()).add(row["label"])
        elif mark in _NO:
            truth.setdefault(row["image"], set())
        elif mark:
            raise InputError(f"{path.name}: truth is 1 or 0, not {mark[:40]!r}")
    return truth


def _truth_table(path: Path, labels: Sequence[str]) -> dict[str, set[str]]:
    truth: dict[str, set[str]] = {}
    for _, row in read_table(path, ("image", "label")):
        labels_here = truth.setdefault(row["image"], set())
        if row["label"] and row["label"] not in labels:
            raise InputError(f"{path.name}: {row['label'][:60]!r} is none of the labels that were scored")
        labels_here |= {row["label"]} - {""}
    return truth
