"""What the adapters for classification by words share: pictures to batches, texts to tokens, vectors of unit length."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2.functional import InterpolationMode, resize

from .base import Check
from .classifier_base import TextVectors
from .normalisation import Normalisation

# What one step of a text tower computes at most, in tokens: some 200 MB of activations in a network of usual width.
_TOKENS = 2**14


def unit(vectors: Tensor) -> NDArray[np.float32]:
    """Vectors brought to length 1 along the last axis, as an array."""
    return functional.normalize(vectors.float(), dim=-1).cpu().numpy()


def grid(parts: Tensor) -> Tensor:
    """(pictures, parts, D), the parts of a square row by row, as (pictures, rows, columns, D)."""
    side = round(parts.shape[1] ** 0.5)
    return parts.reshape(parts.shape[0], side, side, parts.shape[2])


@dataclass(frozen=True, slots=True)
class Preparation:
    """How pictures become a batch.

    Attributes:
        size: the side of the model's square, in pixels.
        normalisation: mean and deviation.
        resample: the kernel, by Pillow's number: 2 is linear, 3 cubic; both smooth where they shrink.
        by_pillow: whether Pillow resizes, as in open_clip, or torchvision, as in transformers: they differ by one grey
            level here and there.
    """

    size: int
    normalisation: Normalisation
    resample: int = 3
    by_pillow: bool = False

    def __call__(self, images: Sequence[NDArray[np.uint8]], device: str) -> Tensor:
        """(pictures, 3, size, size) float32 on the device."""
        resized = [self._by_pillow(image) if self.by_pillow else self._by_torch(image) for image in images]
        return torch.cat([self.normalisation(one) for one in resized]).to(device)

    def _by_torch(self, image: NDArray[np.uint8]) -> Tensor:
        channels = torch.from_numpy(np.ascontiguousarray(_channels_first(image)))[None]
        mode = InterpolationMode.BICUBIC if self.resample == 3 else InterpolationMode.BILINEAR
        return resize(channels, [self.size, self.size], interpolation=mode, antialias=True)

    def _by_pillow(self, image: NDArray[np.uint8]) -> Tensor:
        resized = Image.fromarray(image).resize((self.size, self.size), Image.Resampling(self.resample))
        return torch.from_numpy(np.ascontiguousarray(_channels_first(np.array(resized))))[None]


def _channels_first(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image[None] if image.ndim == 2 else np.moveaxis(image, 2, 0)


@dataclass(frozen=True, slots=True)
class TextReader:
    """Texts to tokens.

    Attributes:
        tokenizer: of transformers.
        length: how many tokens the model reads.
        is_padded: whether every text is padded to that length, because the model was trained so; otherwise only to the
            longest of its batch, which changes nothing where padding is masked.
    """

    tokenizer: Any
    length: int
    is_padded: bool

    def encode(self, texts: Sequence[str], tower: Callable[[Any], Tensor], check: Check) -> TextVectors:
        """Encode texts by a tower that takes tokens and gives (texts, D), short texts with short ones.

        The vectors are in the order of the texts.
        """
        lengths = [len(ids) for ids in self.tokenizer(list(texts), verbose=False)["input_ids"]]
        order = sorted(range(len(texts)), key=lambda n: lengths[n])
        vectors: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(texts)
        for numbers in self._batches(order, lengths):
            check()
            tokens = self.tokens([texts[n] for n in numbers])
            for n, vector in zip(numbers, unit(tower(tokens)), strict=True):
                vectors[n] = vector
        return TextVectors(np.stack(vectors), tuple(length > self.length for length in lengths))

    def tokens(self, texts: Sequence[str]) -> Any:
        """The tokens of texts, cut to the model's length, and padded."""
        padding = "max_length" if self.is_padded else True
        return self.tokenizer(
            list(texts), padding=padding, max_length=self.length, truncation=True, return_tensors="pt"
        )

    def _batches(self, order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
        """Numbers of texts, those of one batch together: no more than so many tokens, padding included."""
        batch: list[int] = []
        for n in order:
            longest = self.length if self.is_padded else min(lengths[n], self.length)
            if batch and (len(batch) + 1) * longest > _TOKENS:
                yield batch
                batch = []
            batch.append(n)
        if batch:
            yield batch
