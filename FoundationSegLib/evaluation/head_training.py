"""Learning a head from few examples: folds of whole patients, a linear map or neighbours, calibration, conformity.

Everything that is measured here is measured on patients that were held out; of the examples themselves nothing is said.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from .. import __version__
from ..cohorts.cases import read_table
from ..errors import InputError, counted
from ..imaging.volume import Volume, require_image
from ..io.images import read_volume
from ..progress import Progress
from ..requests.classification import Embeddings
from ..requests.heads import HeadMethod, LearnedHead, LearnHeadRequest, calibrated, neighbour_logits
from ..requests.scoring import joined
from ..requests.segmentation import CheckpointRecord
from .classification import ScoreQuality, evaluate_scores

Floats = NDArray[np.float64]
Kind = Literal["exclusive", "findings"]
Encode = Callable[[Path, tuple[str, ...]], Embeddings]  # an image and sentences to their vectors
MOST_FOLDS = 5
_COLUMNS = ("image", "label", "patient")
FEWEST_PATIENTS = 3  # with and without a label, so that one can be held out and two are left
# From so many examples on, with so many for each label, scores are called calibrated. On made-up vectors the expected
# calibration error was below 0.03 at 200.
_CALIBRATED_EXAMPLES, _CALIBRATED_OF_LABEL = 50, 10
_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # inverse regularisation; the best on held-out patients is taken


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Examples to learn from.

    Attributes:
        vectors: (N, D) float32 of unit length, one for each image.
        truth: (N, L) bool; exactly one True in each row of exclusive labels.
        patients: whose each image is; images of one patient are never on both sides of a split.
        labels, kind: the labels.
        checkpoint, intensity, axis: how the vectors came about.
        concepts, concept_vectors: for a head of concepts.
        leaves_one_out: a fold for each patient, instead of five of several.
    """

    vectors: NDArray[np.float32]
    truth: NDArray[np.bool_]
    patients: tuple[str, ...]
    labels: tuple[str, ...]
    kind: Literal["exclusive", "findings"]
    checkpoint: CheckpointRecord
    intensity: str = "auto"
    axis: Literal["i", "j", "k"] = "k"
    concepts: tuple[str, ...] = ()
    concept_vectors: NDArray[np.float32] | None = None
    leaves_one_out: bool = False

    def __post_init__(self) -> None:
        require_enough(self.truth, self.patients, self.labels, self.kind)


def require_enough(truth: NDArray[np.bool_], patients: Sequence[str], labels: Sequence[str], kind: str) -> None:
    """Make sure that there are enough patients with and without each label to learn from and to test on.

    Raises:
        InputError: there are not, or an image has not exactly one of exclusive labels.
    """
    if kind == "exclusive" and not (truth.sum(axis=1) == 1).all():
        raise InputError("every image needs exactly one label; use --findings where several may hold")
    for number, label in enumerate(labels):
        for holds, words in ((True, "with"), (False, "without")):
            count = len({patients[row] for row in np.flatnonzero(truth[:, number] == holds)})
            if count < FEWEST_PATIENTS:
                raise InputError(
                    f"{counted(count, 'patient')} {words} the label {label!r} are too few to learn from and to test "
                    f"on: at least {FEWEST_PATIENTS}"
                )


@threadpool_limits.wrap(1)  # the products are small: more threads wait for each other
def train_head(
    examples: Examples, name: str, method: HeadMethod, origin: Mapping[str, Any]
) -> tuple[LearnedHead, Floats]:
    """Learn a head; return it with the scores of all examples, each by a head that has not seen its patient.

    Args:
        examples: what to learn from.
        name: of the head.
        method: how it scores.
        origin: for the head's origin; counts are added.

    Raises:
        InputError: there is too little to learn from, or the method needs what the examples do not have.
    """
    features, scale = _features(examples, method)
    folds = _folds(examples)
    count = int(folds.max()) + 1
    weights, biases = np.zeros((1, len(examples.labels), 1)), np.zeros((1, len(examples.labels)))
    if method == "neighbours":
        logits = np.zeros(examples.truth.shape)
        for fold in range(count):
            held_out, rest = folds == fold, folds != fold
            logits[held_out] = neighbour_logits(features[held_out], examples.vectors[rest], examples.truth[rest])
    else:
        strength = min(_STRENGTHS, key=lambda c: _loss(_held_out(features, examples, folds, c), examples))
        logits = _held_out(features, examples, folds, strength)
        rows = [np.ones(len(folds), np.bool_), *(folds != number for number in range(count))]
        fits = [_fit(features[used], examples.truth[used], examples.kind, strength) for used in rows]
        weights, biases = (np.stack(parts) for parts in zip(*fits, strict=True))
        mean, spread = scale
        weights = weights / spread
        biases = biases - weights @ mean
    slopes, offsets = _calibration(logits, examples)
    scores = calibrated(logits, slopes, offsets, examples.kind)
    of_truth = np.where(examples.truth, scores, 1 - scores)
    is_multiple = examples.kind == "findings"
    nonconformity = 1 - (of_truth if is_multiple else of_truth[examples.truth][:, None])
    fewest = int(min(examples.truth.sum(axis=0).min(), (~examples.truth).sum(axis=0).min()))
    is_neighbours = method == "neighbours"
    head = LearnedHead(
        name=name,
        kind=examples.kind,
        labels=examples.labels,
        method=method,
        checkpoint=examples.checkpoint,
        intensity=examples.intensity,
        axis=examples.axis,
        weights=weights,
        biases=biases,
        concepts=examples.concepts if method == "concepts" else (),
        concept_vectors=_concept_vectors(examples) if method == "concepts" else np.zeros((0, 0), np.float32),
        support=examples.vectors if is_neighbours else np.zeros((0, 0), np.float32),
        support_labels=examples.truth if is_neighbours else np.zeros((0, 0), np.bool_),
        support_folds=folds if is_neighbours else np.zeros(0, np.int64),
        slopes=slopes,
        offsets=offsets,
        nonconformity=np.sort(nonconformity, axis=0),
        is_calibrated=len(examples.truth) >= _CALIBRATED_EXAMPLES and fewest >= _CALIBRATED_OF_LABEL,
        origin={
            **origin,
            "examples": len(examples.truth),
            "patients": len(set(examples.patients)),
            "of_label": dict(zip(examples.labels, examples.truth.sum(axis=0).tolist(), strict=True)),
            "folds": count,
        },
    )
    return head, scores


def concept_weights(head: LearnedHead) -> list[tuple[str, str, float]]:
    """List label, concept and weight of a head of concepts, by label, the heaviest first.

    A weight is by how much the logit rises where the similarity rises by 0.1.
    """
    return [
        (label, head.concepts[n], float(row[n] * slope * 0.1))
        for label, row, slope in zip(head.labels, head.weights[0], head.slopes, strict=True)
        for n in np.argsort(-np.abs(row), kind="stable")
    ]


def _concept_vectors(examples: Examples) -> NDArray[np.float32]:
    if examples.concept_vectors is None or len(examples.concept_vectors) < 2:
        raise InputError("a head of concepts needs two sentences or more, and a model that reads")
    return examples.concept_vectors


def _features(examples: Examples, method: HeadMethod) -> tuple[Floats, tuple[Floats, Floats]]:
    """Return the features, to which a linear map is fitted of mean 0 and spread 1, and that mean and spread."""
    vectors = examples.vectors.astype(np.float64)
    if method == "neighbours":
        return vectors, (np.zeros(1), np.ones(1))
    if method == "concepts":
        vectors = vectors @ _concept_vectors(examples).astype(np.float64).T
    mean, spread = vectors.mean(axis=0), np.maximum(vectors.std(axis=0), 1e-6)
    return (vectors - mean) / spread, (mean, spread)


def _folds(examples: Examples) -> NDArray[np.int64]:
    """Return the fold of each example; whole patients, every label on both sides where that can be."""
    groups = np.unique(examples.patients, return_inverse=True)[1]
    fewest = min(
        len(set(groups[examples.truth[:, n] == holds])) for n in range(len(examples.labels)) for holds in (True, False)
    )
    count = min(MOST_FOLDS, fewest)
    is_exclusive = examples.kind == "exclusive"
    splitter: Any = StratifiedGroupKFold(count, shuffle=True, random_state=0) if is_exclusive else GroupKFold(count)
    if examples.leaves_one_out:
        count, splitter = int(groups.max()) + 1, LeaveOneGroupOut()
    folds = np.zeros(len(groups), np.int64)
    for number, (_, held_out) in enumerate(splitter.split(examples.vectors, examples.truth.argmax(axis=1), groups)):
        folds[held_out] = number
    for number in range(count):
        rest = examples.truth[folds != number]
        if not (rest.any(axis=0) & ~rest.all(axis=0)).all():
            raise InputError("the patients cannot be split so that every label is learned: too few have one of them")
    return folds


def _fit(features: Floats, truth: NDArray[np.bool_], kind: str, strength: float) -> tuple[Floats, Floats]:
    """Fit a linear map to labels: (L, F) weights and (L,) biases."""
    if kind == "exclusive":
        model = LogisticRegression(C=strength, max_iter=1000).fit(features, truth.argmax(axis=1))
        weights, biases = model.coef_, model.intercept_
        if truth.shape[1] == 2:  # scikit-learn has one row for two classes
            weights, biases = np.vstack([-weights, weights]) / 2, np.hstack([-biases, biases]) / 2
        return weights, biases
    models = [LogisticRegression(C=strength, max_iter=1000).fit(features, column) for column in truth.T]
    return np.vstack([model.coef_ for model in models]), np.hstack([model.intercept_ for model in models])


def _held_out(features: Floats, examples: Examples, folds: NDArray[np.int64], strength: float) -> Floats:
    """Return the logits of all examples, (N, L), each by a map that was fitted without its patient."""
    logits = np.zeros(examples.truth.shape)
    for number in range(int(folds.max()) + 1):
        rest = folds != number
        weights, biases = _fit(features[rest], examples.truth[rest], examples.kind, strength)
        logits[~rest] = features[~rest] @ weights.T + biases
    return logits


def _loss(logits: Floats, examples: Examples) -> float:
    if examples.kind == "findings":
        return float(np.logaddexp(0, np.where(examples.truth, -logits, logits)).mean())
    return float((np.logaddexp.reduce(logits, axis=1) - logits[examples.truth]).mean())


def _calibration(logits: Floats, examples: Examples) -> tuple[Floats, Floats]:
    """Return slopes and offsets of held-out logits (Platt 1999): of each finding, or one slope for exclusive labels."""
    from scipy.optimize import minimize

    count = logits.shape[1]
    is_exclusive = examples.kind == "exclusive"

    def loss(parameters: Floats) -> float:
        slope, offsets = parameters[: -count or None], parameters[-count:]
        # A little pull towards "as it is": with few examples the best fit of all is a slope without end.
        pull = ((np.log(np.maximum(slope, 1e-6)) ** 2).sum() + (offsets**2).sum()) / len(logits)
        return _loss(logits * slope + offsets, examples) + 0.1 * float(pull)

    slopes = 1 if is_exclusive else count
    start = np.concatenate([np.ones(slopes), np.zeros(count)])
    bounds = [(1e-3, 1e3)] * slopes + [(-20.0, 20.0)] * count
    found = minimize(loss, start, method="L-BFGS-B", bounds=bounds).x
    return np.broadcast_to(found[:slopes], count).copy(), found[-count:].copy()


def coverage_of(head: LearnedHead, scores: Floats, truth: NDArray[np.bool_], coverage: float) -> tuple[float, float]:
    """Measure how often the answers that remain hold the truth, and how often one of them alone remains."""
    remaining = head.remaining(scores, coverage)
    holds = np.where(truth, remaining[..., 1], head.kind == "exclusive" or remaining[..., 0])
    share = holds.all(axis=1).mean() if head.kind == "exclusive" else holds.mean()
    return float(share), float(head.knows(scores, coverage).mean())


def learn(
    examples: Examples, name: str, method: HeadMethod, resamples: int = 1000
) -> tuple[LearnedHead, Floats, ScoreQuality]:
    """Learn a head as :func:`train_head` does, and measure it.

    Its origin has the day, the version, and how good it is on held-out patients: the mean AUC, the accuracy, the
    calibration error. The whole quality has intervals over patients.
    """
    head, scores = train_head(examples, name, method, {"made": date.today().isoformat(), "version": __version__})
    is_exclusive = examples.kind == "exclusive"
    quality = evaluate_scores(
        head.labels, examples.truth, scores, is_exclusive, resamples, patients=list(examples.patients)
    )
    numbers = {name: getattr(quality, name) for name in ("auc", "accuracy", "calibration_error")}
    figures = {name: [estimate.value, estimate.low, estimate.high] for name, estimate in numbers.items()}
    return replace(head, origin={**head.origin, "measured": figures}), scores, quality


# Tables


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image of the table: its path, whose it is, and the labels that hold in it."""

    path: Path
    patient: str
    labels: frozenset[str]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of labelled images that is enough to learn from, and to test on."""

    cases: tuple[LabelledImage, ...]
    labels: tuple[str, ...]
    kind: Kind

    @classmethod
    def read(cls, path: Path, kind: Kind) -> "Table":
        """Read a table, before anything is encoded.

        Raises:
            InputError: as :func:`read_cases`, and there is too little in it.
        """
        cases = read_cases(path)
        labels = tuple(sorted({label for case in cases for label in case.labels}))
        if len(labels) < (1 if kind == "findings" else 2):
            raise InputError(f"{path.name}: names {counted(len(labels), 'label')}; there is nothing to tell apart")
        require_enough(truth_of(cases, labels), [case.patient for case in cases], labels, kind)
        return cls(cases, labels, kind)

    def examples(
        self, answers: Sequence[Embeddings], intensity: str, axis: Literal["i", "j", "k"], concepts: tuple[str, ...]
    ) -> Examples:
        """Join the images with the answers about them, the first of which has the vectors of the sentences."""
        patients = tuple(case.patient for case in self.cases)
        truth, vectors, sentences = truth_of(self.cases, self.labels), image_vectors(answers), {}
        if concepts:
            sentences = {"concepts": concepts, "concept_vectors": answers[0].texts}
        how = (answers[0].checkpoint, intensity, axis)
        return Examples(vectors, truth, patients, self.labels, self.kind, *how, **sentences)


def truth_of(cases: Sequence[LabelledImage], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Return which labels hold in which images, (images, labels)."""
    return np.array([[label in case.labels for label in labels] for case in cases], np.bool_)


def image_vectors(answers: Sequence[Embeddings]) -> NDArray[np.float32]:
    """Return a vector for each image, (images, D): the direction of the mean of its slices' vectors."""
    return np.stack([joined(answer.vectors.astype(np.float64)).astype(np.float32) for answer in answers])


def encode_images(
    cases: Sequence[LabelledImage], concepts: tuple[str, ...], encode: Encode, progress: Progress
) -> list[Embeddings]:
    """Encode the images of a table in turn; the sentences go with the first.

    Raises:
        InputError: an image cannot be read or encoded; the message names it.
        Cancelled: the user stopped it.
    """
    answers: list[Embeddings] = []
    for number, case in enumerate(cases):
        progress.step("images", number, len(cases))
        try:
            answers.append(encode(case.path, () if answers else concepts))
        except InputError as error:
            raise InputError(f"{case.path.name}: {error}") from error
    return answers


def learn_from_table(
    request: LearnHeadRequest, embed: Callable[[Volume, tuple[str, ...]], Embeddings], progress: Progress
) -> LearnedHead:
    """Learn a head from a table: its images are read and encoded one after the other.

    Args:
        request: the table and the head.
        embed: returns the vectors of an image, and of sentences.
        progress: told of each image.

    Raises:
        InputError: the table, an image or the sentences are not enough to learn from.
        Cancelled: the user stopped it.
    """
    table = Table.read(request.table, request.kind)

    def encode(path: Path, texts: tuple[str, ...]) -> Embeddings:
        volume = read_volume(path)
        require_image(volume)
        return embed(volume, texts)

    answers = encode_images(table.cases, request.concepts, encode, progress)
    examples = table.examples(answers, request.intensity, request.axis, request.concepts)
    return learn(examples, request.name, request.method)[0]


def read_cases(path: Path) -> tuple[LabelledImage, ...]:
    """Read a table of examples: a line for each label that holds in an image.

    Paths are relative to the table. An image in which none holds has a line with an empty label. Without a patient, an
    image is one's own.

    Raises:
        InputError: it cannot be read, lacks a column, has a line twice, or gives an image to two patients.
    """
    labels: dict[str, set[str]] = {}
    patients: dict[str, str] = {}
    rows = read_table(path, ())
    if not rows or any(name not in rows[0][1] for name in _COLUMNS[:2]):
        raise InputError(f"{path.name} needs a header with {','.join(_COLUMNS)} and a line for each label of an image")
    for number, row in rows:
        image, label, patient = (row.get(name, "") for name in _COLUMNS)
        if not image:
            raise InputError(f"{path.name}, line {number}: names no image")
        of_image = labels.setdefault(image, set())
        if label in of_image or patients.setdefault(image, patient or image) != (patient or image):
            reason = "stands twice" if label in of_image else "is of two patients"
            raise InputError(f"{path.name}, line {number}: {image} {reason}")
        of_image |= {label} - {""}
    return tuple(
        LabelledImage(path.parent / image, patients[image], frozenset(names)) for image, names in labels.items()
    )
