"""`classify-evaluate`: a table of `classify` and the truth in; how good the scores are, and pictures of it, out."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, OutputError, PackageError
from ..requests.classification_answer import RESEARCH_USE
from .classified_table import ScoredTruth, read_scored
from .interrupts import interrupts_wait
from .report import report_text, software_versions
from .targets import Writer, path_argument, require_targets, text_writer, write_together
from .terminal import one_line, say

if TYPE_CHECKING:
    from ..evaluation.classification import Estimate, ScoreQuality

_PLOTS = ("roc", "calibration", "confusion")


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
    targets: dict[str, Path | None] = {"report": options.report}
    if options.plots:
        if not options.plots.is_dir():
            raise OutputError(f"--plots {options.plots.name} is not a folder; make it first")
        targets |= {f"plots {name}": options.plots / f"{name}.png" for name in _PLOTS}
    require_targets(targets, {"the table": options.table} | ({"the truth": options.truth} if options.truth else {}))
    found = read_scored(options.table, options.truth)
    with interrupts_wait():
        from ..evaluation.classification import evaluate_scores

    quality = evaluate_scores(found.labels, found.truth, found.scores, found.is_exclusive, options.bootstrap)
    text = report_text(_document(quality, found))
    writers: list[Writer] = []
    if options.report:
        writers.append(text_writer(options.report, text))
    if options.plots:
        writers += _plots(options.plots, quality, found)
    write_together(writers)
    for note in found.notes:
        say(f"note: {note}")
    print(text if options.json else "\n".join(_lines(quality, found)), end="" if options.json else "\n")


def _plots(folder: Path, quality: "ScoreQuality", found: ScoredTruth) -> list[Writer]:
    try:
        with interrupts_wait():
            import matplotlib  # noqa: F401 - the plots need it, and it may be missing
    except ModuleNotFoundError as error:
        raise PackageError(f"--plots needs the package {error.name}: pip install matplotlib") from error
    from ..evaluation import classification as plots

    correct, confidence = plots.predictions(found.truth, found.scores, found.is_exclusive)
    draw: dict[str, Callable[[Path], None]] = {
        "roc": lambda path: plots.plot_curves(path, quality, found.truth, found.scores),
        "calibration": lambda path: plots.plot_calibration(path, quality, correct, confidence),
        "confusion": lambda path: plots.plot_confusion(path, quality),
    }
    return [(folder / f"{name}.png", draw[name]) for name in _PLOTS]


def _document(quality: "ScoreQuality", found: ScoredTruth) -> dict[str, Any]:
    return {
        "version": 1,
        "command": "classify-evaluate",
        "research_use": RESEARCH_USE,
        "models": list(found.models),
        "images": quality.images,
        "exclusive": quality.is_exclusive,
        "auc": _estimate(quality.auc),
        "accuracy": _estimate(quality.accuracy),
        "calibration_error": _estimate(quality.calibration_error),
        "labels": [
            {
                "name": one.name,
                "positives": one.positives,
                "negatives": one.negatives,
                "auc": _estimate(one.auc),
                "accuracy": one.accuracy,
            }
            for one in quality.labels
        ],
        "confusion": quality.confusion.tolist(),
        "notes": list(found.notes),
        "software": software_versions("matplotlib"),
    }


def _estimate(one: "Estimate") -> dict[str, float | None]:
    values = {"value": one.value, "low": one.low, "high": one.high}
    return {name: None if value is None else round(value, 6) for name, value in values.items()}


def _lines(quality: "ScoreQuality", found: ScoredTruth) -> list[str]:
    names = [one_line(one.name) for one in quality.labels]
    width = max(map(len, names))
    said = "the highest score" if quality.is_exclusive else "scores from one half on"
    lines = [
        f"{quality.images} images, {len(names)} labels, {', '.join(found.models)}",
        f"AUC, mean              {_told(quality.auc)}",
        f"accuracy of {said}     {_told(quality.accuracy)}",
        f"calibration error      {_told(quality.calibration_error)}",
        "",
        f"{'label'.ljust(width)}  yes  no   AUC",
    ]
    for name, one in zip(names, quality.labels, strict=True):
        lines.append(f"{name.ljust(width)}  {one.positives:3d}  {one.negatives:3d}  {_told(one.auc)}")
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
        f"{name.ljust(width)}  {found:5d}  {missed:6d}  {alarm:11d}  {silent:10d}"
        for name, ((silent, alarm), (missed, found)) in zip(names, quality.confusion.tolist(), strict=True)
    ]
    return [f"{'confusion'.ljust(width)}  found  missed  false alarm  rightly no", *rows, ""]


def _told(one: "Estimate") -> str:
    if one.value is None:
        return "-"
    interval = "" if one.low is None else f" ({one.low:.3f} to {one.high:.3f})"
    return f"{one.value:.3f}{interval}"
