"""A table of `classify` with the truth beside it: scores and truth as arrays."""

import csv
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

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


def read_scored(path: Path, truth_path: Path | None) -> ScoredTruth:
    """What a table of `classify` says, and what is true.

    Args:
        path: the table; a column ``truth`` may say 1 or 0 for each row.
        truth_path: another table with the columns ``image`` and ``label``: one row for each label that holds in an
            image; an image in which none holds has a row with an empty label.

    Raises:
        InputError: a table cannot be read, lacks a column, has a row twice, or nothing says what is true.
    """
    rows = _read(path, ("image", "label", "score", "scoring"))
    scored = [row for row in rows if row["label"]]
    labels = tuple(dict.fromkeys(row["label"] for row in scored))
    scores: dict[str, dict[str, float]] = {}
    for row in scored:
        told = scores.setdefault(row["image"], {})
        if row["label"] in told:
            raise InputError(f"{path.name}: {row['image']!r} has the label {row['label']!r} twice")
        told[row["label"]] = _score(row["score"], path)
    truth = _truth_column(scored, path) if truth_path is None else _truth_table(truth_path, labels)
    images = tuple(image for image, told in scores.items() if image in truth and len(told) == len(labels))
    return ScoredTruth(
        images=images,
        labels=labels,
        scores=np.array([[scores[image][label] for label in labels] for image in images], np.float64),
        truth=np.array([[label in truth[image] for label in labels] for image in images], np.bool_),
        is_exclusive={row["scoring"] for row in scored} <= {"softmax", "concepts"},
        models=tuple(dict.fromkeys(row.get("model", "") for row in scored)),
        notes=_left_out({row["image"] for row in rows}, scores, truth, images),
    )


def _left_out(
    every: set[str], scores: Collection[str], truth: Collection[str], used: Collection[str]
) -> tuple[str, ...]:
    notes = []
    if failed := len(every - set(scores)):
        notes.append(f"{failed} images were not classified and are left out")
    if unknown := len(set(scores) - set(truth)):
        notes.append(f"nothing says what is true of {unknown} images, which are left out")
    if more := len(set(scores) & set(truth)) - len(used):
        notes.append(f"{more} images lack the score of some label and are left out")
    if unscored := len(set(truth) - every):
        notes.append(f"{unscored} images of the truth are not in the table")
    return tuple(notes)


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path.name}: has no column {missing[0]!r}; it needs {', '.join(columns)}")
            return [{name: value or "" for name, value in row.items() if name is not None} for row in reader]
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read: {error.strerror or type(error).__name__}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path.name}: is no table of comma-separated values in UTF-8") from error


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
        said = (row.get("truth") or "").strip().lower()
        if said in _YES:
            truth.setdefault(row["image"], set()).add(row["label"])
        elif said in _NO:
            truth.setdefault(row["image"], set())
        elif said:
            raise InputError(f"{path.name}: truth is 1 or 0, not {said[:40]!r}")
    return truth


def _truth_table(path: Path, labels: Sequence[str]) -> dict[str, set[str]]:
    truth: dict[str, set[str]] = {}
    for row in _read(path, ("image", "label")):
        known = truth.setdefault(row["image"], set())
        if row["label"] and row["label"] not in labels:
            raise InputError(f"{path.name}: {row['label'][:60]!r} is none of the labels that were scored")
        known |= {row["label"]} - {""}
    return truth
