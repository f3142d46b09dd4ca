"""Quality of classification scores: ROC, accuracy, calibration, confusion, with bootstrap intervals and pictures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, confusion_matrix, roc_curve

from ..errors import InputError
from ..requests.classification_answer import RESEARCH_USE

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
BINS = 10  # of the calibration error (Guo et al., ICML 2017, use 15; ten have enough in them for small collections)
_MOST_CURVES = 10


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval, from resampling images or patients; None where it does not exist."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class LabelQuality:
    """Quality of the scores of one label, and how many images have it.

    ``accuracy`` is that of the score above one half; None for exclusive labels, where the highest score counts.
    ``precision_gain`` is the average precision beyond that of chance, (AP - prevalence) / (1 - prevalence): 0 for
    scores that say nothing, 1 for perfect ones; None without both kinds of images.
    """

    name: str
    positives: int
    negatives: int
    auc: Estimate
    accuracy: float | None
    precision_gain: float | None


@dataclass(frozen=True, slots=True, eq=False)
class ScoreQuality:
    """Quality of the scores of all labels.

    Attributes:
        labels: each label.
        images: how many were used.
        is_exclusive: True where the labels were scored against each other.
        auc: the mean over the labels that have both kinds of images.
        accuracy: of the highest score for exclusive labels, else over all pairs of image and label at one half.
        calibration_error: the expected one, over ten bins of equal width.
        confusion: (truth, prediction) counts of exclusive labels; for findings (labels, truth, prediction), no
            before yes.
    """

    labels: tuple[LabelQuality, ...]
    images: int
    is_exclusive: bool
    auc: Estimate
    accuracy: Estimate
    calibration_error: Estimate
    confusion: NDArray[np.int64]


def areas_under_curves(truth: Bools, scores: Floats) -> Floats:
    """Return the chance that a positive image scores higher than a negative one, ties by half, for each label.

    By the rank sum, since ``sklearn.metrics.roc_auc_score`` takes 20 times as long for one label and 45 times for five
    (200 images, one core), and a bootstrap asks a thousand times.

    (images, labels) in, (labels,) out; NaN for a label without both kinds of images.
    """
    positives = truth.sum(axis=0)
    pairs = positives * (len(truth) - positives)
    rank_sums = (rankdata(scores, axis=0) * truth).sum(axis=0)
    wins = rank_sums - positives * (positives + 1) / 2
    return np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def calibration_error(correct: Bools, confidence: Floats) -> float:
    """Return the mean distance between confidence and accuracy, over bins of equal width."""
    return sum(share * abs(accuracy - mean) for _, share, accuracy, mean in _calibration_bins(correct, confidence))


def _calibration_bins(correct: Bools, confidence: Floats) -> list[tuple[int, float, float, float]]:
    """List number, share of all predictions, accuracy and mean confidence of each bin that is not empty."""
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = ((int(n), number == n) for n in np.unique(number))
    return [(n, inside.mean(), correct[inside].mean(), confidence[inside].mean()) for n, inside in bins]


def predictions(truth: Bools, scores: Floats, is_exclusive: bool) -> tuple[Bools, Floats]:
    """Return for each prediction whether it is right, and its confidence.

    Exclusive labels give one prediction for each image, the label with the highest score. Findings give one for each
    image and label, yes or no.
    """
    if is_exclusive:
        best = scores.argmax(axis=1, keepdims=True)
        return np.take_along_axis(truth, best, 1)[:, 0], np.take_along_axis(scores, best, 1)[:, 0]
    positive = scores >= 0.5
    return (positive == truth).ravel(), np.where(positive, scores, 1 - scores).ravel()


def evaluate_scores(
    names: tuple[str, ...],
    truth: Bools,
    scores: Floats,
    is_exclusive: bool,
    resamples: int = 1000,
    seed: int = 42,
    patients: Sequence[str] | None = None,
) -> ScoreQuality:
    """Compare scores with the truth.

    Args:
        names: the labels.
        truth: (images, labels) True where a label holds.
        scores: (images, labels) from 0 to 1.
        is_exclusive: True where the labels were scored against each other; then exactly one holds in each image.
        resamples: how often the images are drawn anew for the intervals; 0 for none.
        seed: of the draws.
        patients: whose each image is; then patients are drawn with all of their images.

    Raises:
        InputError: there is no image, or an exclusive label is missing or not the only one of its image.
    """
    if not len(truth):
        raise InputError("there is no image with both a score and a truth")
    if is_exclusive and not (truth.sum(axis=1) == 1).all():
        raise InputError("the labels were scored against each other: every image needs exactly one that holds")
    draws = _draws(len(truth), patients, resamples, seed)
    resampled = [_measures(truth[drawn], scores[drawn], is_exclusive) for drawn in draws]
    values = _measures(truth, scores, is_exclusive)
    columns = np.array(resampled).reshape(resamples, len(values)).T
    estimates = [_estimate(value, column) for value, column in zip(values, columns, strict=True)]
    accuracies = [None] * len(names) if is_exclusive else ((scores >= 0.5) == truth).mean(axis=0).tolist()
    positives = truth.sum(axis=0).tolist()
    labels = tuple(
        LabelQuality(
            name,
            positives[n],
            len(truth) - positives[n],
            estimates[n],
            accuracies[n],
            _precision_gain(truth[:, n], scores[:, n]),
        )
        for n, name in enumerate(names)
    )
    return ScoreQuality(labels, len(truth), is_exclusive, *estimates[-3:], _confusion(truth, scores, is_exclusive))


def _draws(images: int, patients: Sequence[str] | None, resamples: int, seed: int) -> Iterable[NDArray[np.int64]]:
    """Return the numbers of the images in each resample; with patients, all images of those that are drawn."""
    generator = np.random.default_rng(seed)
    if patients is None:
        return generator.integers(0, images, (resamples, images))
    groups = np.unique(patients, return_inverse=True)[1]
    images_of = [np.flatnonzero(groups == number) for number in range(int(groups.max()) + 1)]
    draws = generator.integers(0, len(images_of), (resamples, len(images_of)))
    return (np.concatenate([images_of[number] for number in draw]) for draw in draws)


def _precision_gain(truth: Bools, scores: Floats) -> float | None:
    if truth.all() or not truth.any():
        return None
    prevalence = truth.mean()
    return float((average_precision_score(truth, scores) - prevalence) / (1 - prevalence))


def _measures(truth: Bools, scores: Floats, is_exclusive: bool) -> Floats:
    """Return the areas of all labels, their mean, the accuracy and the calibration error; NaN where there is none."""
    areas = areas_under_curves(truth, scores)
    defined = areas[~np.isnan(areas)]
    correct, confidence = predictions(truth, scores, is_exclusive)
    mean = defined.mean() if defined.size else np.nan
    return np.array([*areas, mean, correct.mean(), calibration_error(correct, confidence)])


def _estimate(value: float, resampled: Floats) -> Estimate:
    defined = resampled[~np.isnan(resampled)]
    if np.isnan(value) or not defined.size:
        return Estimate(None if np.isnan(value) else float(value))
    low, high = np.percentile(defined, (2.5, 97.5)).tolist()
    return Estimate(float(value), low, high)


def _confusion(truth: Bools, scores: Floats, is_exclusive: bool) -> NDArray[np.int64]:
    if is_exclusive:
        return confusion_matrix(truth.argmax(axis=1), scores.argmax(axis=1), labels=range(truth.shape[1]))
    columns = zip(truth.T, scores.T >= 0.5, strict=True)
    return np.stack([confusion_matrix(label, positive, labels=[False, True]) for label, positive in columns])


def plot_curves(path: Path, quality: ScoreQuality, truth: Bools, scores: Floats) -> None:
    """Draw the ROC curves of at most ten labels that have both kinds of images, the highest areas first; a .png."""
    figure, axes = _figure()
    areas = {n: label.auc.value for n, label in enumerate(quality.labels) if label.auc.value is not None}
    for n in sorted(areas, key=lambda n: -areas[n])[:_MOST_CURVES]:
        false_positives, true_positives, _ = roc_curve(truth[:, n], scores[:, n], drop_intermediate=False)
        axes.plot(false_positives, true_positives, label=f"{quality.labels[n].name} ({areas[n]:.2f})")
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    if areas:
        axes.legend(fontsize=7)
    figure.savefig(path)


def plot_calibration(path: Path, quality: ScoreQuality, correct: Bools, confidence: Floats) -> None:
    """Draw the accuracy of the predictions over their confidence, bin by bin; a .png."""
    figure, axes = _figure()
    bins, _, accuracies, confidences = np.array(_calibration_bins(correct, confidence)).T
    axes.bar((bins + 0.5) / BINS, accuracies, width=0.9 / BINS, color="tab:blue", alpha=0.5)
    axes.plot(confidences, accuracies, "o-", color="tab:blue")
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    axes.set(xlabel="score", ylabel="how often right", aspect="equal", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"expected calibration error {quality.calibration_error.value:.3f}")
    figure.savefig(path)


def plot_confusion(path: Path, quality: ScoreQuality) -> None:
    """Draw the confusion matrix; for findings a row for each label with its four counts; a .png."""
    names = [label.name for label in quality.labels]
    counts: NDArray[np.int64] = quality.confusion
    titles: Sequence[str] = names
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
    """Make a figure without a window, with the line on research use below, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.supxlabel(RESEARCH_USE, fontsize=6)
    return figure, figure.add_subplot()
