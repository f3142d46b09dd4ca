"""From the scores of slices to one score: the mean, the maximum, or the mean of the highest few."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

AggregationRule = Literal["mean", "max", "top-k"]


@dataclass(frozen=True, slots=True)
class Aggregation:
    """How the scores of slices become one.

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
        seen = scores[~np.isnan(scores.reshape(len(scores), -1)).any(axis=1)]
        if not len(seen):
            raise InputError("there is no slice to score")
        if self.rule == "mean":
            return seen.mean(axis=0)
        highest = np.sort(seen, axis=0)[-(self.k if self.rule == "top-k" else 1) :]
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
