"""How good scores of labels are: area under the ROC curve, accuracy, calibration, confusion; with bootstrap intervals.

All of it in numpy; the tests hold it against scikit-learn where that is installed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InputError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
BINS = 10  # of the calibration error (Guo et al., ICML 2017, use 15; ten have enough in them for small collections)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval, from resampling images; None where it does not exist."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class LabelQuality:
    """One label: how many images have it, and how well its scores tell them from the others.

    ``accuracy`` is that of the score above one half; None for exclusive labels, where the highest score counts.
    """

    name: str
    positives: int
    negatives: int
    auc: Estimate
    accuracy: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """All of it.

    Attributes:
        labels: each label.
        images: how many were used.
        is_exclusive: whether the labels were scored against each other.
        auc: the mean over the labels that have both kinds of images.
        accuracy: of the highest score for exclusive labels, else over all pairs of image and label at one half.
        calibration_error: the expected one, over ten bins of equal width.
        confusion: (truth, said) counts of exclusive labels; for findings (labels, truth, said), no before yes.
    """

    labels: tuple[LabelQuality, ...]
    images: int
    is_exclusive: bool
    auc: Estimate
    accuracy: Estimate
    calibration_error: Estimate
    confusion: NDArray[np.int64]


def area_under_curve(truth: Bools, scores: Floats) -> float | None:
    """The chance that a positive image scores higher than a negative one, ties by half; None without both."""
    positives = int(truth.sum())
    negatives = truth.size - positives
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2  # the mean rank of equal scores, from 1
    ranks = float(middle[place][truth].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)


def curve(truth: Bools, scores: Floats) -> tuple[Floats, Floats]:
    """The ROC curve: false and true positive rates for falling thresholds, from (0, 0) to (1, 1)."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), truth.size - 1)
    found = np.cumsum(truth[order])[last]
    wrong = last + 1 - found
    return np.append(0, wrong / max(1, (~truth).sum())), np.append(0, found / max(1, truth.sum()))


def calibration_error(correct: Bools, confidence: Floats, bins: int = BINS) -> float:
    """The mean distance between confidence and how often it was right, over bins of equal width."""
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    total = 0.0
    for n in np.unique(number):
        inside = number == n
        total += inside.sum() * abs(correct[inside].mean() - confidence[inside].mean())
    return float(total / confidence.size)


def evaluate(
    names: tuple[str, ...], truth: Bools, scores: Floats, is_exclusive: bool, resamples: int = 1000, seed: int = 42
) -> Quality:
    """How good scores are.

    Args:
        names: the labels.
        truth: (images, labels) whether each holds.
        scores: (images, labels) from 0 to 1.
        is_exclusive: whether the labels were scored against each other; then exactly one holds in each image.
        resamples: how often the images are drawn anew for the intervals; 0 for none.
        seed: of the draws.

    Raises:
        InputError: there is no image, or an exclusive label is missing or not the only one of its image.
    """
    if not len(truth):
        raise InputError("there is no image with both a score and a truth")
    if is_exclusive and not (truth.sum(axis=1) == 1).all():
        raise InputError("the labels were scored against each other: every image needs exactly one that holds")
    draws = np.random.default_rng(seed).integers(0, len(truth), (resamples, len(truth)))

    def estimate(measure: Callable[[Bools, Floats], float | None]) -> Estimate:
        values = [value for draw in draws if (value := measure(truth[draw], scores[draw])) is not None]
        value = measure(truth, scores)
        if value is None or not values:
            return Estimate(value)
        low, high = np.percentile(values, (2.5, 97.5))
        return Estimate(value, float(low), float(high))

    labels = tuple(
        LabelQuality(
            name=name,
            positives=int(truth[:, n].sum()),
            negatives=int((~truth[:, n]).sum()),
            auc=estimate(lambda t, s, n=n: area_under_curve(t[:, n], s[:, n])),
            accuracy=None if is_exclusive else float(((scores[:, n] >= 0.5) == truth[:, n]).mean()),
        )
        for n, name in enumerate(names)
    )
    return Quality(
        labels=labels,
        images=len(truth),
        is_exclusive=is_exclusive,
        auc=estimate(_mean_area),
        accuracy=estimate(lambda t, s: float(what_was_said(t, s, is_exclusive)[0].mean())),
        calibration_error=estimate(lambda t, s: calibration_error(*what_was_said(t, s, is_exclusive))),
        confusion=_confusion(truth, scores, is_exclusive),
    )


def _mean_area(truth: Bools, scores: Floats) -> float | None:
    areas = [area_under_curve(truth[:, n], scores[:, n]) for n in range(truth.shape[1])]
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if known else None


def what_was_said(truth: Bools, scores: Floats, is_exclusive: bool) -> tuple[Bools, Floats]:
    """For each thing that was said whether it is right, and with what score it was said."""
    if is_exclusive:
        best = scores.argmax(axis=1)
        rows = np.arange(len(scores))
        return truth[rows, best], scores[rows, best]
    yes = scores >= 0.5
    return (yes == truth).ravel(), np.where(yes, scores, 1 - scores).ravel()


def _confusion(truth: Bools, scores: Floats, is_exclusive: bool) -> NDArray[np.int64]:
    count = truth.shape[1]
    if is_exclusive:
        found = np.zeros((count, count), np.int64)
        np.add.at(found, (truth.argmax(axis=1), scores.argmax(axis=1)), 1)
        return found
    found = np.zeros((count, 2, 2), np.int64)
    for n in range(count):
        np.add.at(found[n], (truth[:, n].astype(int), (scores[:, n] >= 0.5).astype(int)), 1)
    return found
