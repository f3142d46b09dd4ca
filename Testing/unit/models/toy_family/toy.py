"""A family that is easily followed: whatever in the box is at least as bright as the checkpoint says."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...catalog.model_cards import ModelCard
from ..protocols import BoxXyxy, Check, SliceAnswer, SlicePrompt, unstoppable


@dataclass(frozen=True, slots=True)
class ToyEmbedding:
    image: NDArray[np.uint8]

    @property
    def nbytes(self) -> int:
        return self.image.nbytes


@dataclass(frozen=True, slots=True)
class Toy:
    level: int
    device: str
    precision: str = "uint8"
    nbytes: int = 8

    def encode(self, image: NDArray[np.uint8], check: Check = unstoppable) -> ToyEmbedding:
        check()
        return ToyEmbedding(image if image.ndim == 2 else image.max(axis=2))

    def decode(self, embedding: ToyEmbedding, prompt: SlicePrompt, previous: SliceAnswer | None = None) -> SliceAnswer:
        x0, y0, x1, y1 = (int(n) for n in prompt.box)
        inside = np.zeros(embedding.image.shape, np.bool_)
        inside[y0 : y1 + 1, x0 : x1 + 1] = True
        return SliceAnswer(inside & (embedding.image >= self.level), 1.0)

    def box_around(self, mask: NDArray[np.bool_], wider: int = 0) -> BoxXyxy | None:
        rows, columns = np.nonzero(mask)
        return (columns.min(), rows.min(), columns.max(), rows.max()) if rows.size else None


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> Toy:
    return Toy(json.loads(files["toy.json"].read_text())["level"], device)
