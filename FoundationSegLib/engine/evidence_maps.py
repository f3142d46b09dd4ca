"""Where something spoke for a label: by the similarity of a picture's parts, or by covering one part after another."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..imaging.intensity import Look
from ..requests.classification import EvidenceWish
from ..requests.classification_answer import EvidenceMap
from ..requests.scoring import Head, LabelVectors, ScoringRule, contrast, leads, scores, wording_scores
from .pictures import Pictures
from .vectors import Encoding, direction


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What was asked of each slice: labels as vectors, the rule, the model's head, the temperature."""

    vectors: LabelVectors
    rule: ScoringRule
    head: Head
    temperature: float

    def scores(self, images: NDArray[np.float64]) -> NDArray[np.float64]:
        """The scores of pictures by their vectors, (pictures, labels)."""
        return scores(images, self.vectors, self.rule, self.head, self.temperature)

    def wording_scores(self, images: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """For each label what each of its texts alone gives, (pictures, texts)."""
        return wording_scores(images, self.vectors, self.rule, self.head, self.temperature)

    def lead(self, vectors: Sequence[NDArray[np.float32]], label: int) -> NDArray[np.float64]:
        """By how much one label leads what is against it, in logits, for each picture's vector."""
        images = np.stack(vectors).astype(np.float64)
        return leads(images, self.vectors, self.rule, self.head, self.temperature)[:, label]


def show_evidence(
    encoding: Encoding,
    pictures: Pictures,
    looks: Sequence[Look],
    question: Question,
    wish: EvidenceWish,
    label: tuple[str, int],
    slices: Sequence[int],
) -> EvidenceMap:
    """The evidence for a label, its name and its number, on some slices.

    Raises:
        Cancelled: the user stopped it.
    """
    begin = time.perf_counter()
    grids = []
    for done, index in enumerate(slices):
        encoding.progress.step("evidence", done, len(slices))
        shown = [picture for look in looks if not pictures.is_blank(picture := pictures.picture(index, look))]
        if wish.method == "similarity":
            seen = _similarity(encoding, shown, question, label[1])
        else:
            seen = _occlusion(encoding, shown, pictures.shown(), question, label[1], wish.parts)
        grids.append(pictures.view.orientation.turn_back(seen))
    encoding.progress.step("evidence", len(slices), len(slices))
    encoding.tally.evidence_s += time.perf_counter() - begin
    values = np.stack(grids).astype(np.float32)
    return EvidenceMap(label[0], wish.method, pictures.view.axis, tuple(slices), pictures.view.frame, values)


def _similarity(
    encoding: Encoding, shown: Sequence[NDArray[np.uint8]], question: Question, label: int
) -> NDArray[np.float64]:
    """(rows, columns): how much more like the label than like what is against it each part of the picture is."""
    encoding.tally.images += len(shown)
    encoding.tally.image_batches += 1
    parts = encoding.model.encode_parts(shown, encoding.progress.check).mean(axis=0)
    rows, columns, width = parts.shape
    flat = parts.reshape(-1, width).astype(np.float64)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    return contrast(flat, question.vectors, question.rule, label).reshape(rows, columns)


def _occlusion(
    encoding: Encoding,
    shown: Sequence[NDArray[np.uint8]],
    is_image: NDArray[np.bool_],
    question: Question,
    label: int,
    parts: int,
) -> NDArray[np.float64]:
    """(rows, columns): what the label's lead loses, in logits, where a part of the picture is made grey."""
    rows, columns = (min(parts, side) for side in is_image.shape)
    cells = {n: cell for n, cell in enumerate(_cells(is_image.shape, rows, columns)) if is_image[cell].any()}

    def pictures() -> Iterator[NDArray[np.uint8]]:
        yield from shown
        for cell in cells.values():
            for picture in shown:
                yield _covered(picture, cell, is_image)

    vectors = list(encoding.batches(pictures()))
    joined = [direction(vectors[n : n + len(shown)]) for n in range(0, len(vectors), len(shown))]
    lead = question.lead(joined, label)
    loss = np.zeros((rows, columns))
    loss.flat[list(cells)] = lead[0] - lead[1:]
    return loss


def _cells(shape: tuple[int, ...], rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """The parts of a picture, row by row."""
    edges = [
        np.linspace(0, side, count + 1).round().astype(int) for side, count in zip(shape, (rows, columns), strict=True)
    ]
    for r0, r1 in zip(edges[0], edges[0][1:], strict=False):
        for c0, c1 in zip(edges[1], edges[1][1:], strict=False):
            yield slice(r0, r1), slice(c0, c1)


def _covered(picture: NDArray[np.uint8], cell: tuple[slice, slice], is_image: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The picture with a part of it at the mean level of the whole; padding stays black."""
    covered = picture.copy()
    covered[cell][is_image[cell]] = picture[is_image].mean(axis=0).round().astype(np.uint8)
    return covered
