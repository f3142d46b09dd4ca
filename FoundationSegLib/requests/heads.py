"""Heads learned from few examples on the frozen vectors of a model: the value, its file, and how it scores.

A head takes one vector of an image and gives a score to each label. It is learned by
:mod:`FoundationSegLib.evaluation.head_training`; scoring needs numpy alone.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..catalog.label_sets import Label, LabelSet
from ..codec import frozen, pack, unpack
from ..errors import FoundationSegError, InputError, OutputError, write_failure
from ..folders import archive_errors, is_safe_name, user_folder
from .scoring import logistic
from .segmentation import CheckpointRecord

Floats = NDArray[np.float64]
HeadMethod = Literal["logistic", "neighbours", "concepts"]
HEADS_VARIABLE = "FOUNDATIONSEG_HEADS"
SUFFIX = ".head"
_LARGEST_FILE = 64 * 2**20  # bytes: 10,000 examples of 1,536 numbers
_VERSION = 1
_NEAREST = 15  # neighbours that vote
_SHARPNESS = 20.0  # of a vote: a cosine that is 0.05 smaller counts e times less
_SURE = 0.02  # no share of votes is taken for less than this, or for more than the rest
COVERAGE = 0.9  # how often the labels that remain hold the true one, unless another share is wanted


@frozen(eq=False)
class LearnedHead:
    """A head: from the vector of an image to a score for each label.

    Attributes:
        name: the user's; the file is called so.
        kind: ``"exclusive"`` where one label holds at most, ``"findings"`` where several may.
        labels: their names; for exclusive ones two at least.
        method: ``"logistic"``: a linear map of the vector. ``"concepts"``: a linear map of its similarities to
            sentences, whose weights are the explanation. ``"neighbours"``: a vote of the most similar examples.
        checkpoint: the model whose vectors it reads; those of another mean something else.
        intensity, axis: how the examples were seen.
        weights: (1 + folds, L, F) float64: that of all examples first, then those without a fold of the patients each.
        biases: (1 + folds, L) float64.
        concepts, concept_vectors: the sentences, and (C, D) float32; none unless by concepts.
        support, support_labels, support_folds: (N, D) float32 vectors of the examples, (N, L) bool, and (N,) int64 the
            fold that each was held out in; none unless by neighbours.
        slopes, offsets: (L,) float64: calibration of the logits, by the scores of held-out patients (Platt 1999).
        nonconformity: (n, 1) or for findings (n, L) float64, rising down each column: one minus the score of the truth,
            of each held-out example.
        is_calibrated: False where there were too few examples for scores to be read as shares.
        origin: for the report: examples, patients, counts, when, by which version, what was measured.

    Raises:
        InputError: the parts do not agree.
    """

    name: str
    kind: Literal["exclusive", "findings"]
    labels: tuple[str, ...]
    method: HeadMethod
    checkpoint: CheckpointRecord
    intensity: str
    axis: Literal["i", "j", "k"]
    weights: NDArray[np.float64]
    biases: NDArray[np.float64]
    concepts: tuple[str, ...]
    concept_vectors: NDArray[np.float32]
    support: NDArray[np.float32]
    support_labels: NDArray[np.bool_]
    support_folds: NDArray[np.int64]
    slopes: NDArray[np.float64]
    offsets: NDArray[np.float64]
    nonconformity: NDArray[np.float64]
    is_calibrated: bool
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = len(self.labels)
        fits = labels >= (2 if self.kind == "exclusive" else 1) and len(set(self.labels)) == labels
        fits &= self.slopes.shape == self.offsets.shape == (labels,) and self.nonconformity.ndim == 2
        if self.method == "neighbours":
            count = len(self.support)
            fits &= self.support_labels.shape == (count, labels) and self.support_folds.shape == (count,) and count > 0
        else:
            width = len(self.concepts) if self.method == "concepts" else self.weights.shape[-1]
            fits &= self.weights.ndim == 3 and self.weights.shape[1:] == (labels, width)
            fits &= self.biases.shape == self.weights.shape[:2] and self.weights.size > 0 and len(self.weights) > 1
        fits &= len(self.concept_vectors) == len(self.concepts)
        arrays = (self.weights, self.biases, self.concept_vectors, self.support, self.slopes, self.offsets)
        if not fits or not all(np.isfinite(array).all() for array in (*arrays, self.nonconformity)):
            raise InputError(f"the head {self.name[:60]!r} is damaged: its parts do not agree")

    @property
    def width(self) -> int:
        """How many numbers the vector of an image has."""
        by_part = {"neighbours": self.support, "concepts": self.concept_vectors}
        return int(by_part.get(self.method, self.weights).shape[-1])

    def label_set(self) -> LabelSet:
        """The labels as a set, for what shows and writes answers."""
        return LabelSet(self.name, self.name, self.kind, tuple(map(Label, self.labels)), source="learned from examples")

    def to_document(self) -> dict[str, Any]:
        """The form of the report: everything but the numbers, and their hash."""
        return {
            "name": self.name,
            "sha256": head_hash(self),
            "method": self.method,
            "kind": self.kind,
            "labels": list(self.labels),
            "model": self.checkpoint.to_document(),
            "calibrated": self.is_calibrated,
            **self.origin,
        }

    def require_model(self, checkpoint: CheckpointRecord) -> None:
        """Make sure that vectors come from the weights that the head was learned on.

        Raises:
            InputError: they come from others.
        """
        mine, other = ((record.model_id, record.sha256, record.base_sha256) for record in (self.checkpoint, checkpoint))
        if mine != other:
            which = "another version" if mine[0] == other[0] else f"{checkpoint.model_id}"
            raise InputError(f"the head {self.name!r} was learned on {self.checkpoint.model_id}, not on {which}")

    def scores(self, vectors: NDArray[np.floating[Any]]) -> Floats:
        """Score images: (images, D) unit vectors in, (images, L) from 0 to 1 out; exclusive ones sum to one."""
        return self._calibrated(self._logits(vectors, 0))

    def fold_scores(self, vectors: NDArray[np.floating[Any]]) -> Floats:
        """Score images by each of the heads that lack a fold: (folds, images, L). Their spread is doubt."""
        folds = len(self.biases) - 1 if self.method != "neighbours" else int(self.support_folds.max()) + 1
        return np.stack([self._calibrated(self._logits(vectors, number)) for number in range(1, folds + 1)])

    def remaining(self, scores: Floats, coverage: float = COVERAGE) -> NDArray[np.bool_]:
        """Tell which answers remain, (images, L, 2): that a label does not hold, and that it does.

        By split conformal prediction on held-out patients (Vovk 2005; Angelopoulos & Bates 2021, arXiv 2107.07511): the
        truth is among them in at least that share of images like the examples. Of exclusive labels all but the
        remaining ones are ruled out; of findings each has an answer of its own.
        """
        count = len(self.nonconformity)
        rank = math.ceil((count + 1) * coverage)
        columns = self.nonconformity.shape[1]
        limit = self.nonconformity[rank - 1] if rank <= count else np.full(columns, np.inf)
        holds = 1 - scores <= limit
        absent = scores <= limit if self.kind == "findings" else ~(holds & (holds.sum(axis=1, keepdims=True) == 1))
        return np.stack([absent, holds], axis=-1)

    def knows(self, scores: Floats, coverage: float = COVERAGE) -> NDArray[np.bool_]:
        """Tell for each image and label if one answer alone remains, (images, L)."""
        remaining = self.remaining(scores, coverage)
        if self.kind == "findings":
            return remaining.sum(axis=-1) == 1
        return np.broadcast_to(remaining[..., 1].sum(axis=1, keepdims=True) == 1, scores.shape)

    def _logits(self, vectors: NDArray[np.floating[Any]], number: int) -> Floats:
        if vectors.ndim != 2 or vectors.shape[1] != self.width:
            raise InputError(f"the head {self.name!r} reads vectors of {self.width} numbers, not of {vectors.shape}")
        vectors = vectors.astype(np.float64)
        if self.method == "neighbours":
            is_used = self.support_folds != number - 1
            return neighbour_logits(vectors, self.support[is_used], self.support_labels[is_used])
        if self.method == "concepts":
            vectors = vectors @ self.concept_vectors.astype(np.float64).T
        return vectors @ self.weights[number].T + self.biases[number]

    def _calibrated(self, logits: Floats) -> Floats:
        return calibrated(logits, self.slopes, self.offsets, self.kind)


def calibrated(logits: Floats, slopes: Floats, offsets: Floats, kind: str) -> Floats:
    """Scores of logits, (..., L): the softmax of exclusive labels, the sigmoid of findings."""
    moved = logits * slopes + offsets
    if kind == "findings":
        return logistic(moved)
    powers = np.exp(moved - moved.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def neighbour_logits(vectors: Floats, support: NDArray[np.float32], labels: NDArray[np.bool_]) -> Floats:
    """Logits of the shares of votes that labels get from the most similar examples, (images, L)."""
    similarity = vectors @ support.astype(np.float64).T
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :_NEAREST]
    chosen = np.take_along_axis(similarity, nearest, axis=1)
    votes = np.exp(_SHARPNESS * (chosen - chosen.max(axis=1, keepdims=True)))
    share = (votes[..., None] * labels[nearest]).sum(axis=1) / votes.sum(axis=1)[:, None]
    share = np.clip(share, _SURE, 1 - _SURE)
    return np.log(share / (1 - share))


@frozen
class LearnHeadRequest:
    """A head to learn from a table of labelled images. Answered by the :class:`LearnedHead`, which nobody keeps yet.

    Attributes:
        request_id: a number that the answer repeats.
        model_id: whose vectors.
        table: its columns are ``image,label`` and, if images belong together, ``patient``.
        name, method, kind: of the head.
        intensity: the policy.
        axis: the slices lie across it.
        concepts: sentences, for a head of concepts.
    """

    request_id: int
    model_id: str
    table: Path
    name: str
    method: HeadMethod = "logistic"
    kind: Literal["exclusive", "findings"] = "exclusive"
    intensity: str = "auto"
    axis: Literal["i", "j", "k"] = "k"
    concepts: tuple[str, ...] = ()


# Files


PREFIX = "head:"  # of a head where a label set could be named, too


def head_folder() -> Path:
    """The folder of the user's heads, whether it exists or not.

    That is ``FoundationSeg/heads`` in the user's configuration directory, unless the variable :data:`HEADS_VARIABLE`
    names another.
    """
    return user_folder("config", HEADS_VARIABLE, "FoundationSeg/heads")


def head_path(name: str, folder: Path | None = None) -> Path:
    """The file of a head, in the user's folder unless another is named."""
    return (head_folder() if folder is None else folder) / f"{name}{SUFFIX}"


def require_new(name: str, folder: Path | None = None) -> None:
    """Make sure that a head can be kept under a name.

    Raises:
        InputError: the name cannot be a file's, or there is a head of that name.
    """
    if not is_safe_name(name):
        raise InputError(f"a head cannot be called {name[:60]!r}: use letters, digits, '-', '_' and '.'")
    if head_path(name, folder).exists():
        raise InputError(f"there is a head {name!r}; choose another name, or remove it first")


def write_head(head: LearnedHead, folder: Path | None = None) -> Path:
    """Write a head as NAME.head, a zip of one JSON document and the numbers beside it; return the path.

    Raises:
        InputError: the name cannot be a file's, or there is a head of that name.
        OutputError: it cannot be written; nothing is left then.
    """
    require_new(head.name, folder)
    path = head_path(head.name, folder)
    import zipfile  # here, since all that asks a worker imports this file

    document, parts = pack(head)
    temporary = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("head.json", json.dumps({"version": _VERSION, "head": document}))
            archive.writestr("numbers", b"".join(parts))
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{path.name} cannot be written: {write_failure(error)}") from error
    return path


def read_head(name: str, folder: Path | None = None) -> LearnedHead:
    """Read a head by its name.

    Raises:
        InputError: there is none of that name, or its file is damaged, too large, or of a later version.
    """
    import zipfile

    path = head_path(name, folder)
    if not is_safe_name(name) or not path.is_file():
        known = ", ".join(head_names(folder)) or "none yet"
        raise InputError(f"no head is called {name[:60]!r}; there are: {known}")
    try:
        with zipfile.ZipFile(path) as archive:
            texts = [_member(archive, member) for member in ("head.json", "numbers")]
        document = json.loads(texts[0])
        if not isinstance(document, dict):
            raise ValueError("no document")
    except (OSError, *archive_errors()) as error:
        raise InputError(f"{path.name}: is no head, or is damaged") from error
    if document.get("version") != _VERSION:
        raise InputError(f"{path.name}: was written by a later version of FoundationSeg")
    try:
        head = unpack(LearnedHead, document.get("head"), texts[1], path.name)
    except FoundationSegError as error:
        raise InputError(str(error)) from error
    if head.name != name:
        raise InputError(f"{path.name}: holds the head {head.name[:60]!r}; a head's file has its name")
    return head


def _member(archive: Any, name: str) -> bytes:
    """Read a member of an archive, whatever size the archive says that it has."""
    with archive.open(name) as stream:
        content = stream.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise InputError(f"a head takes at most {_LARGEST_FILE // 2**20} MB")
    return content


def head_names(folder: Path | None = None) -> tuple[str, ...]:
    """List the names of the user's heads, sorted."""
    folder = head_folder() if folder is None else folder
    return tuple(sorted(path.stem for path in folder.glob(f"*{SUFFIX}"))) if folder.is_dir() else ()


def remove_head(name: str, folder: Path | None = None) -> None:
    """Delete a head.

    Raises:
        InputError: there is none of that name.
        OutputError: its file cannot be deleted.
    """
    if name not in head_names(folder):
        read_head(name, folder)  # says which there are
    try:
        head_path(name, folder).unlink()
    except OSError as error:
        raise OutputError(f"{name}{SUFFIX} cannot be deleted: {error.strerror or type(error).__name__}") from error


def head_hash(head: LearnedHead) -> str:
    """The sha256 of a head's numbers and labels, for reports."""
    document, parts = pack(head)
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode() + b"".join(parts)).hexdigest()
