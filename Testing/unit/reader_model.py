"""A model to classify with, made of rules: it sees how bright pictures are, and reads "bright" and "dark"."""

import hashlib
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.models.protocols import TextVectors, unstoppable
from FoundationSegLib.requests.heads import LearnedHead
from FoundationSegLib.requests.scoring import Head
from FoundationSegLib.requests.segmentation import CheckpointRecord
from Testing.unit.fakes import CARD_TOML, fake_card

WIDTH = 12
CHECKPOINT = CheckpointRecord("reader", "somewhere", "1", "a" * 64)
LONGEST = 60  # characters that it reads
READER_TOML = (
    CARD_TOML.replace('"fake"', '"reader"')
    .replace('"segment"', '"classify"')
    .replace('["box"]', '["text"]')
    .replace('"lite-medsam"', '"clip"')
)


@dataclass(slots=True)
class ReaderModel:
    """Remembers the pictures it was shown, and the texts that it read.

    The first two numbers of a vector are brightness and darkness. A text with "bright" or "dark" in it is that and
    nothing else; any other has a direction of its own. A picture also has a little of a direction by its mean level.
    """

    device: str = "cpu"
    precision: str = "float32"
    head: Head = field(default_factory=lambda: Head(20.0))
    nbytes: int = 1000
    cells: int = 16
    batches: list[list[np.ndarray]] = field(default_factory=list)
    read: list[list[str]] = field(default_factory=list)

    def encode_images(self, images, check=unstoppable):
        check()
        self.batches.append([image.copy() for image in images])
        return _unit([_seen(_grey(image).mean()) for image in images])

    def encode_parts(self, images, check=unstoppable):
        check()
        self.batches.append([image.copy() for image in images])
        return np.stack([_unit(_seen(_shrunk(_grey(image), self.cells))) for image in images])

    def encode_texts(self, texts, check=unstoppable):
        check()
        self.read.append(list(texts))
        vectors = _unit([_said(text[:LONGEST]) for text in texts])
        return TextVectors(vectors, tuple(len(text) > LONGEST for text in texts))

    @property
    def shown(self):
        """How many pictures it was shown in all."""
        return sum(map(len, self.batches))


def sigmoid_reader(**fields) -> ReaderModel:
    return ReaderModel(head=Head(20.0, -10.0, is_sigmoid=True), **fields)


def reader_card(**changes) -> ModelCard:
    return replace(
        fake_card(), id="reader", title="Reader", task="classify", family="clip", prompts=("text",), **changes
    )


def make_head(**changes) -> LearnedHead:
    """A head of two labels and five numbers in a vector, some of its fields changed."""
    generator = np.random.default_rng(0)
    fields = {
        "name": "contrast",
        "kind": "exclusive",
        "labels": ("with", "without"),
        "method": "logistic",
        "checkpoint": CHECKPOINT,
        "intensity": "auto",
        "axis": "k",
        "weights": generator.normal(size=(3, 2, 5)),
        "biases": generator.normal(size=(3, 2)),
        "concepts": (),
        "concept_vectors": np.zeros((0, 0), np.float32),
        "support": np.zeros((0, 0), np.float32),
        "support_labels": np.zeros((0, 0), np.bool_),
        "support_folds": np.zeros(0, np.int64),
        "slopes": np.ones(2),
        "offsets": np.zeros(2),
        "nonconformity": np.linspace(0.1, 0.4, 20)[:, None],
        "is_calibrated": True,
        "origin": {"examples": 20},
    }
    return LearnedHead(**fields | changes)


def _grey(image):
    return image if image.ndim == 2 else image.mean(axis=2)


def _seen(brightness):
    """Brightness 0..255, of any shape, as vectors along a last axis."""
    share = np.asarray(brightness, np.float64)[..., None] / 255
    others = np.broadcast_to(np.linspace(0.02, 0.08, WIDTH - 2), (*share.shape[:-1], WIDTH - 2))
    return np.concatenate([share, 1 - share, others], axis=-1)


def _shrunk(grey, cells):
    """The mean of each of cells x cells parts."""
    rows, columns = (np.linspace(0, side, cells + 1).round().astype(int) for side in grey.shape)
    return np.array(
        [[grey[a : max(b, a + 1), c : max(d, c + 1)].mean() for c, d in pairwise(columns)] for a, b in pairwise(rows)]
    )


def _said(text):
    vector = np.zeros(WIDTH)
    if "bright" in text or "dark" in text:
        vector[0 if "bright" in text else 1] = 1
        return vector
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return np.random.default_rng(seed).normal(size=WIDTH)


def _unit(vectors):
    made = np.asarray(vectors, np.float64)
    return (made / np.linalg.norm(made, axis=-1, keepdims=True)).astype(np.float32)
