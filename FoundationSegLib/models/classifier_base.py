"""What an adapter offers to the engine for classification by words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.scoring import Head
from .base import Check, unstoppable


@dataclass(frozen=True, slots=True, eq=False)
class TextVectors:
    """Encoded texts.

    Attributes:
        vectors: (texts, D) float32 of unit length.
        truncated: for each text, whether it was longer than the model reads, so that its end was left out.
    """

    vectors: NDArray[np.float32]
    truncated: tuple[bool, ...]


class ImageTextModel(Protocol):
    """A model with a tower for pictures and one for texts, whose vectors are compared by their cosine.

    Pictures are (rows, columns) grey or (rows, columns, 3) colour, uint8, and seen as a whole: brought to the model's
    square without regard to their aspect, which the caller keeps by padding.
    """

    device: str
    precision: str
    head: Head

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        ...

    def encode_images(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """One vector of unit length for each picture, (pictures, D), in one batch."""
        ...

    def encode_parts(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """For each picture a grid of vectors of unit length, (pictures, rows, columns, D): its parts, as seen in it.

        The models were not trained for this: it is what their last layer holds of each part, brought where the
        vector of the whole picture is.
        """
        ...

    def encode_texts(self, texts: Sequence[str], check: Check = unstoppable) -> TextVectors:
        """One vector for each text."""
        ...
