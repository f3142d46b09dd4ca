"""Scoring: embeddings to scores of labels, and scores of slices to one score."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..catalog.label_sets import LabelSet
from ..codec import frozen
from ..errors import InputError

Floats = NDArray[np.float64]
# The last three are of learned heads, of exclusive labels and of findings, and of labels that a network was trained on.
ScoringRule = Literal["softmax", "pairs", "sigmoid", "concepts", "learned", "learned-findings", "trained"]
RuleChoice = Literal["auto", "softmax", "pairs", "sigmoid", "concepts"]


@frozen
class Scoring:
    """Rule that scores labels.

    Attributes:
        rule: ``"auto"`` takes what fits the labels and the model; see :func:`choose_rule`.
        temperature: logits are divided by it: above 1 makes scores more even, below 1 more decided.
        margin: by how much a score has to lead what is against it for the label to stand out, 0..1; and by more than
            the wording alone moves it. If none of the labels does, the answer is "none of these".

    Raises:
        InputError: the temperature is not above 0, or the margin not within 0..1.
    """

    rule: RuleChoice = "auto"
    temperature: float = 1.0
    margin: float = 0.1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and 1e-3 <= self.temperature <= 1e3):
            raise InputError(f"a temperature lies within 0.001 and 1000, not at {self.temperature}")
        if not 0 <= self.margin <= 1:
            raise InputError(f"a margin lies within 0 and 1, not at {self.margin}")


@frozen
class Head:
    """Head of a model: logit of a cosine, ``scale`` times it, plus ``bias``; ``is_sigmoid`` if trained so."""

    scale: float
    bias: float = 0.0
    is_sigmoid: bool = False


@frozen(eq=False)
class LabelVectors:
    """The texts of labels as unit vectors.

    Attributes:
        positive: for each label (texts, D): its sentences, or with ``"concepts"`` its concepts.
        negative: for each label (texts, D): the sentences of its absence; empty but for ``"pairs"``.
    """

    positive: tuple[Floats, ...]
    negative: tuple[Floats, ...] = ()


@frozen(eq=False)
class LabelQuestion:
    """The labels that pictures are compared with, as vectors, and how they are scored."""

    vectors: LabelVectors
    rule: ScoringRule
    head: Head
    temperature: float

    def scores(self, images: Floats) -> Floats:
        """Score each label in each image, (images, labels), from 0 to 1."""
        return scores(images, self.vectors, self.rule, self.head, self.temperature)

    def wording_scores(self, images: Floats) -> list[Floats]:
        """Score each label by each of its texts, (images, texts)."""
        return wording_scores(images, self.vectors, self.rule, self.head, self.temperature)

    def leads(self, images: Floats) -> Floats:
        """Return by how much each label leads what is against it, in logits, (images, labels)."""
        return leads(images, self.vectors, self.rule, self.head, self.temperature)

    def contrast(self, points: Floats, number: int) -> Floats:
        """Return the lead of one label for each part of a picture, (points,), as :func:`contrast`."""
        return contrast(points, self.vectors, self.rule, number)


@frozen(eq=False)
class TrainedLabels:
    """Labels that a network was trained to score: its last layer, of vectors that end with their own scale.

    Attributes:
        names: of the labels.
        weights: (labels, D) of the layer, the bias last.
        operating_points: (labels,) the sigmoids from which on its authors say yes; each is brought to one half.
        note: what the scores mean.
        label_set: the set of these labels, by its id.
    """

    names: tuple[str, ...]
    weights: Floats
    operating_points: Floats
    note: str
    label_set: str
    rule: ScoringRule = "trained"

    def of(self, names: Sequence[str]) -> "TrainedLabels":
        """Some of the labels, in this order."""
        numbers = [self.names.index(name) for name in names]
        points = self.operating_points[numbers]
        return replace(self, names=tuple(names), weights=self.weights[numbers], operating_points=points)

    def scores(self, images: Floats) -> Floats:
        """Score each label in each image, (images, labels), from 0 to 1."""
        shares, points = logistic(self._logits(images)), self.operating_points
        return np.where(shares < points, shares / (2 * points), 1 - (1 - shares) / (2 * (1 - points)))

    def wording_scores(self, images: Floats) -> list[Floats]:
        """Score each label, (images, 1): there are no texts that could differ."""
        return [column[:, None] for column in self.scores(images).T]

    def leads(self, images: Floats) -> Floats:
        """Return how far each label is above its operating point, in logits, (images, labels)."""
        return self._logits(images) - np.log(self.operating_points / (1 - self.operating_points))

    def contrast(self, points: Floats, number: int) -> Floats:
        """Return the logit of one label for each part of a picture, (points,)."""
        return self._logits(points)[:, number]

    def _logits(self, vectors: Floats) -> Floats:
        return vectors / vectors[:, -1:] @ self.weights.T


def choose_rule(choice: RuleChoice, labels: LabelSet, is_sigmoid: bool, is_segment: bool) -> ScoringRule:
    """The rule that a choice comes to.

    ``"auto"`` is softmax for exclusive labels; for findings the sigmoid of a model that was trained by one, otherwise
    pairs. A segment can be one organ only, where the set says so.

    Raises:
        InputError: the labels or the model do not have what the rule needs.
    """
    exclusive = labels.kind == "exclusive" or (labels.one_in_segment and is_segment)
    if choice == "auto":
        rule: ScoringRule = "softmax" if exclusive else "sigmoid" if is_sigmoid else "pairs"
    else:
        rule = choice
    if rule == "sigmoid" and not is_sigmoid:
        raise InputError("this model was not trained to score by a sigmoid; use pairs, present against absent")
    if rule in ("softmax", "concepts") and len(labels.labels) < 2:
        raise InputError(f"{rule} chooses among labels: give two or more, or use pairs")
    for label in labels.labels:
        if rule == "pairs" and not labels.negative_texts(label):
            raise InputError(f"the label {label.name!r} has no negation, which pairs need")
        if rule == "concepts" and not label.concepts:
            raise InputError(f"the label {label.name!r} has no concepts, which this rule needs")
    return rule


def joined(vectors: Floats) -> Floats:
    """One unit vector for several, (N, D) to (D,): the direction of their mean, as CLIP's authors join templates."""
    mean = vectors.mean(axis=0)
    length = float(np.linalg.norm(mean))
    return mean / length if length > 1e-12 else vectors[0]


def leads(images: Floats, vectors: LabelVectors, rule: ScoringRule, head: Head, temperature: float = 1.0) -> Floats:
    """By how much each label leads what is against it, (images, labels), in logits.

    Args:
        images: (images, D) unit vectors.
        vectors: the labels.
        rule, head, temperature: how cosines become logits, and what is against a label.
    """
    z = _logits(images, vectors.positive, rule, head, temperature)
    return z - _rivals(images, z, vectors, rule, head, temperature)


def scores(images: Floats, vectors: LabelVectors, rule: ScoringRule, head: Head, temperature: float = 1.0) -> Floats:
    """The score of each label in each image, (images, labels), from 0 to 1; see :func:`leads`."""
    return logistic(leads(images, vectors, rule, head, temperature))


def wording_scores(
    images: Floats, vectors: LabelVectors, rule: ScoringRule, head: Head, temperature: float = 1.0
) -> list[Floats]:
    """For each label its scores if one of its texts alone stood for it, (images, texts), all else as it is."""
    z = _logits(images, vectors.positive, rule, head, temperature)
    against = _rivals(images, z, vectors, rule, head, temperature)
    return [
        logistic((head.scale * (images @ texts.T) + _bias(rule, head)) / temperature - against[:, n : n + 1])
        for n, texts in enumerate(vectors.positive)
    ]


def contrast(points: Floats, vectors: LabelVectors, rule: ScoringRule, number: int) -> Floats:
    """Lead of one label over what is against it, for each point: a difference of cosines, (points,).

    Against it are the other labels on average, its absence, or with ``"sigmoid"`` nothing.
    """
    own = points @ joined(vectors.positive[number])
    if rule == "sigmoid":
        return own
    if rule == "pairs":
        return own - points @ joined(vectors.negative[number])
    others = [points @ joined(texts) for n, texts in enumerate(vectors.positive) if n != number]
    return own - np.mean(others, axis=0)


def logistic(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow, and exact where it is next to nothing."""
    return np.exp(-np.logaddexp(0, -x))


def margins(aggregated: Floats, rule: ScoringRule) -> Floats:
    """By how much each score leads its rival: the best of the other labels, or the label's absence; (labels,)."""
    if rule in ("pairs", "sigmoid", "learned-findings", "trained"):
        return 2 * aggregated - 1
    best, second = np.sort(aggregated)[[-1, -2]]
    return aggregated - np.where(aggregated == best, second, best)


def _bias(rule: ScoringRule, head: Head) -> float:
    return head.bias if rule == "sigmoid" else 0.0  # in the others it is on both sides


def _logits(images: Floats, texts: Sequence[Floats], rule: ScoringRule, head: Head, temperature: float) -> Floats:
    if rule == "concepts":
        columns = [(images @ embeddings.T).mean(axis=1) for embeddings in texts]
    else:
        columns = [images @ joined(embeddings) for embeddings in texts]
    return (head.scale * np.stack(columns, axis=1) + _bias(rule, head)) / temperature


def _rivals(
    images: Floats, z: Floats, vectors: LabelVectors, rule: ScoringRule, head: Head, temperature: float
) -> Floats:
    if rule == "sigmoid":
        return np.zeros_like(z)
    if rule == "pairs":
        return _logits(images, vectors.negative, rule, head, temperature)
    return _log_sum_of_others(z)


def _log_sum_of_others(z: Floats) -> Floats:
    """For each column the logarithm of the sum of the exponentials of all others; (N, L) with L at least 2."""
    # From the left and from the right up to each column: all the others, and nothing is subtracted that was added.
    nothing = np.full((len(z), 1), -np.inf)
    before = np.logaddexp.accumulate(np.hstack([nothing, z[:, :-1]]), axis=1)
    after = np.logaddexp.accumulate(np.hstack([nothing, z[:, :0:-1]]), axis=1)[:, ::-1]
    return np.logaddexp(before, after)


AggregationRule = Literal["mean", "max", "top-k"]


@frozen
class Aggregation:
    """Rule that joins the scores of slices to one.

    Attributes:
        rule: the mean over all slices; the highest; or, for each label, the mean of the ``k`` highest.
        k: how many slices count with ``"top-k"``; all of them where there are fewer.

    Raises:
        InputError: ``k`` is less than 1.
    """

    rule: AggregationRule = "mean"
    k: int = 5

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"the mean of the {self.k} highest scores is none: at least one slice has to count")

    def __str__(self) -> str:
        return f"top-{self.k}" if self.rule == "top-k" else self.rule

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """One score for each column of (slices, ...); slices that are NaN do not count.

        Raises:
            InputError: no slice is left.
        """
        valid = scores[~np.isnan(scores.reshape(len(scores), -1)).any(axis=1)]
        if not len(valid):
            raise InputError("there is no slice to score")
        if self.rule == "mean":
            return valid.mean(axis=0)
        highest = np.sort(valid, axis=0)[-(self.k if self.rule == "top-k" else 1) :]
        return highest.mean(axis=0)


def parse_aggregation(text: str) -> Aggregation:
    """The aggregation that a text such as ``mean``, ``max`` or ``top-5`` names.

    Raises:
        InputError: it names none.
    """
    head, _, number = text.partition("-")
    if text in ("mean", "max"):
        return Aggregation("mean" if text == "mean" else "max")
    if head == "top" and number.isascii() and number.isdigit() and len(number) < 7:
        return Aggregation("top-k", int(number))
    raise InputError(f"{text[:40]!r} is no way to join slices; use mean, max, or top-K as in top-5")
