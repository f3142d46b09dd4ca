"""Counts that stay on this machine, if the user wants them: how often answers are right, and how images change.

By model and week: how many answers were accepted, corrected and rejected, and how many images lie further from the
first ones than those lie from each other. The one file of it has no name, no image and nothing of a patient.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, field, replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Literal

from .codec import from_document, frozen
from .errors import FoundationSegError, InputError, OutputError
from .folders import locked, replace_text, user_folder
from .page import html_note, html_page, html_section, html_table
from .progress import Progress

MONITORING_VARIABLE = "FOUNDATIONSEG_MONITORING"
Verdict = Literal["accepted", "corrected", "rejected"]
VERDICTS: tuple[Verdict, ...] = ("accepted", "corrected", "rejected")
FIRST_IMAGES = 40  # that later ones are compared with
_COVERAGE = 0.95  # of images like the first ones, so many are not called far
_RARE = 0.01  # more far images than chance brings so seldom are called a change
_VERSION = 1


@frozen
class ImageDrift:
    """The distances of a model's images from the first ones.

    Attributes:
        vectors: of the first images, while there are less than :data:`FIRST_IMAGES`; each of unit length.
        mean: the direction of the mean of the first ones, once there are so many.
        limit: the distance (one minus the cosine) that 95 % of images like the first ones keep to.
        weeks: by week the number of images, the number of those beyond the limit, and the sum of the distances.
    """

    vectors: tuple[tuple[float, ...], ...] = ()
    mean: tuple[float, ...] = ()
    limit: float = 0.0
    weeks: Mapping[str, tuple[int, int, float]] = field(default_factory=dict)

    def with_image(self, vector: Sequence[float], week: str) -> "ImageDrift":
        """Take in an image's vector of unit length."""
        if not self.mean:
            vectors = (*self.vectors, tuple(round(number, 5) for number in vector))
            if len({len(row) for row in vectors}) > 1:
                raise InputError("the vectors of one model have different lengths")
            return replace(self, vectors=vectors) if len(vectors) < FIRST_IMAGES else _settled(vectors)
        far = _distance(vector, self.mean)
        images, beyond, total = self.weeks.get(week, (0, 0, 0.0))
        new = (images + 1, beyond + (far > self.limit), round(total + far, 6))
        return replace(self, weeks={**self.weeks, week: new})


@frozen
class Counts:
    """All that is kept.

    Attributes:
        is_counting: the user wants it.
        answers: by model and week, how many were accepted, corrected and rejected.
        images: by model.
    """

    is_counting: bool = False
    answers: Mapping[str, Mapping[str, tuple[int, int, int]]] = field(default_factory=dict)
    images: Mapping[str, ImageDrift] = field(default_factory=dict)


def _distance(vector: Sequence[float], mean: Sequence[float]) -> float:
    if len(vector) != len(mean):
        raise InputError("the vectors of one model have different lengths")
    return 1.0 - sum(a * b for a, b in zip(vector, mean, strict=True))


def _direction(vectors: Sequence[Sequence[float]]) -> tuple[float, ...]:
    total = [sum(column) for column in zip(*vectors, strict=True)]
    length = math.hypot(*total) or 1.0
    return tuple(number / length for number in total)


def _settled(vectors: tuple[tuple[float, ...], ...]) -> ImageDrift:
    """Return what later images are compared with; each of the first is measured from the others."""
    apart = sorted(_distance(row, _direction([*vectors[:n], *vectors[n + 1 :]])) for n, row in enumerate(vectors))
    rank = math.ceil((len(apart) + 1) * _COVERAGE)
    return ImageDrift(mean=_direction(vectors), limit=apart[min(rank, len(apart)) - 1])


def _path(name: str) -> Path:
    return user_folder("config", MONITORING_VARIABLE, "FoundationSeg/monitoring") / name


def read_counts() -> Counts:
    """Read the counts; empty ones where there are none.

    Raises:
        InputError: the file is damaged, or of a later version.
    """
    path = _path("counts.json")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or document.pop("version", None) != _VERSION:
            raise ValueError("no counts, or of a later version")
        return from_document(Counts, document, path.name)
    except FileNotFoundError:
        return Counts()
    except (OSError, ValueError, FoundationSegError) as error:
        raise InputError(f"the counts cannot be read; delete them to begin anew ({type(error).__name__})") from error


def is_counting() -> bool:
    """Return True where the user wants answers to be counted, and what was counted can be read."""
    path = _path("counts.json")
    with suppress(OSError, InputError):
        file = path.stat()
        return _is_counting((path, file.st_ino, file.st_mtime_ns, file.st_size))
    return False


@lru_cache(maxsize=1)  # a panel asks at each update, and with the vectors of images the file takes 50 ms to read
def _is_counting(_stamp: tuple[Path, int, int, int]) -> bool:
    return read_counts().is_counting


def has_counts() -> bool:
    """Return True where anything is kept."""
    return _path("counts.json").is_file()


def set_counting(is_wanted: bool) -> None:
    """Count from now on, or no more; what was counted stays until :func:`delete_counts`."""
    _change(lambda counts: replace(counts, is_counting=is_wanted))


def count_answer(model_id: str, verdict: Verdict, day: date | None = None) -> None:
    """Count what became of an answer, if the user wants it."""

    def added(counts: Counts) -> Counts:
        of_model = counts.answers.get(model_id, {})
        numbers = list(of_model.get(_week(day), (0, 0, 0)))
        numbers[VERDICTS.index(verdict)] += 1
        accepted, corrected, rejected = numbers
        answers = {**of_model, _week(day): (accepted, corrected, rejected)}
        return replace(counts, answers={**counts.answers, model_id: answers})

    _change(added, only_counting=True)


def count_image(model: str, vector: Sequence[float], day: date | None = None) -> None:
    """Compare an image with the first ones of a model and its weights, if the user wants it; unit length."""

    def added(counts: Counts) -> Counts:
        drift = counts.images.get(model, ImageDrift()).with_image(vector, _week(day))
        return replace(counts, images={**counts.images, model: drift})

    _change(added, only_counting=True)


def delete_counts() -> None:
    """Delete all that is kept, and the page; nothing is counted from then on."""
    for name in ("counts.json", "overview.html"):
        try:
            _path(name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{name} cannot be deleted: {error.strerror or type(error).__name__}") from error


def write_overview() -> Path:
    """Write the page, and return its path."""
    path = _path("overview.html")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, overview_page(read_counts()))
    return path


def _week(day: date | None) -> str:
    year, week, _ = (day or date.today()).isocalendar()
    return f"{year}-W{week:02d}"


def _change(change: Callable[[Counts], Counts], only_counting: bool = False) -> None:
    """Change the counts; two programs wait for each other. With ``only_counting`` nothing where nobody wants it."""
    path = _path("counts.json")
    if only_counting and not path.is_file():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock"), Progress()):
            counts = read_counts()
            if counts.is_counting or not only_counting:
                replace_text(path, json.dumps({"version": _VERSION, **asdict(change(counts))}))
    except OSError as error:
        raise OutputError(f"the counts cannot be kept: {error.strerror or type(error).__name__}") from error


# The page


def overview_page(counts: Counts) -> str:
    """Return the page: answers by model and week, and images by week with how many are far from the first ones."""
    intro = html_note(
        "Counted on this computer for its user alone. Accepted: as the model answered. Corrected: after more prompts, "
        "or with another label. Few answers say little, and nobody counts those that were not judged."
    )
    answers = [
        (model, week, *map(str, numbers), f"{numbers[0]} of {sum(numbers)}")
        for model, weeks in sorted(counts.answers.items())
        for week, numbers in sorted(weeks.items())
    ]
    images = [row for model, drift in sorted(counts.images.items()) for row in _drift_rows(model, drift)]
    head = ("Model", "Week", "Accepted", "Corrected", "Rejected", "As answered")
    far = f"By chance {1 - _COVERAGE:.0%} of images like the first {FIRST_IMAGES} are far from them."
    sections = (
        html_section("Answers", html_table(head, answers)),
        html_section("Images", html_table(("Model", "Week", "Images", "Distance", "Far", ""), images), html_note(far))
        if images
        else "",
    )
    return html_page("How answers and images were", intro + ("".join(sections) or html_note("Nothing yet.")))


def _drift_rows(model: str, drift: ImageDrift) -> list[tuple[str, ...]]:
    if not drift.mean:
        return [(model, "", f"{len(drift.vectors)} of the first {FIRST_IMAGES}", "", "", "")]
    return [
        (model, week, str(images), f"{total / images:.3f}", str(beyond), "as before" if ok else "differ from the first")
        for week, (images, beyond, total) in sorted(drift.weeks.items())
        for ok in [chance_of(beyond, images) >= _RARE]
    ]


def chance_of(beyond: int, images: int) -> float:
    """Return the chance of so many far images or more, where the images are like the first ones."""
    rate = 1 - _COVERAGE
    return sum(math.comb(images, n) * rate**n * (1 - rate) ** (images - n) for n in range(beyond, images + 1))
