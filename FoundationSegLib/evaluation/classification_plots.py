"""Pictures of how good scores are: ROC curves, calibration, confusion."""

from pathlib import Path
from typing import Any

import numpy as np

from ..core.classification import RESEARCH_USE
from .classification_metrics import BINS, Bools, Floats, Quality, curve

_MOST_CURVES = 10


def plot_curves(path: Path, quality: Quality, truth: Bools, scores: Floats) -> None:
    """The ROC curves of the labels that have both kinds of images, those with the highest area; a .png."""
    figure, axes = _figure()
    known = [n for n, label in enumerate(quality.labels) if label.auc.value is not None]
    for n in sorted(known, key=lambda n: -(quality.labels[n].auc.value or 0))[:_MOST_CURVES]:
        label = quality.labels[n]
        axes.plot(*curve(truth[:, n], scores[:, n]), label=f"{label.name} ({label.auc.value:.2f})")
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    if known:
        axes.legend(fontsize=7)
    figure.savefig(path)


def plot_calibration(path: Path, quality: Quality, correct: Bools, confidence: Floats) -> None:
    """How often what was said with a score was right, bin by bin; a .png."""
    figure, axes = _figure()
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    there = np.unique(number)
    said = [confidence[number == n].mean() for n in there]
    right = [correct[number == n].mean() for n in there]
    axes.bar((there + 0.5) / BINS, right, width=0.9 / BINS, color="tab:blue", alpha=0.5)
    axes.plot(said, right, "o-", color="tab:blue")
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    error = quality.calibration_error.value
    axes.set(xlabel="score", ylabel="how often right", aspect="equal", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"expected calibration error {error:.3f}")
    figure.savefig(path)


def plot_confusion(path: Path, quality: Quality) -> None:
    """What was said of images of each label; of findings, missed and found, false alarms and right silences; a .png."""
    names = [label.name for label in quality.labels]
    counts, titles = quality.confusion, names
    if not quality.is_exclusive:
        counts, titles = counts.reshape(len(names), 4), ["rightly no", "false alarm", "missed", "found"]
    figure, axes = _figure(0.45 * max(8, len(titles)), 0.35 * max(8, len(names)))
    axes.imshow(counts, cmap="Blues", aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        shade = "white" if count > counts.max() / 2 else "black"
        axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=shade)
    axes.set_xticks(range(len(titles)), titles, rotation=60, ha="right", fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set(xlabel="said", ylabel="truth" if quality.is_exclusive else "")
    figure.savefig(path)


def _figure(width: float = 5.0, height: float = 5.0) -> tuple[Any, Any]:
    """A figure of its own, without a window, that says what it is for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.supxlabel(RESEARCH_USE, fontsize=6)
    return figure, figure.add_subplot()
