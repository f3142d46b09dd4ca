"""Intensities as a network was trained on them, and what a preprocessor_config.json says of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..core.cards import ModelCard
from ..core.errors import CheckpointError
from .checkpoint_files import read_json

# What every published preprocessor_config.json of these families asks for: bilinear, and all of the steps.
_STEPS = {"do_resize": True, "do_rescale": True, "do_normalize": True, "resample": 2}


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean 0 and deviation 1 over the images that a network was trained on; by default, those of ImageNet.

    ``mean`` and ``std`` are per channel and of intensities times ``factor``.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    factor: float = 1 / 255

    def __call__(self, levels: Tensor) -> Tensor:
        """(B, 1 or 3, rows, columns) uint8 as (B, 3, rows, columns) float32.

        Factor and mean in one, as transformers does it, so that not even the last bit differs.
        """
        mean, std = (torch.tensor(values)[:, None, None] * (1 / self.factor) for values in (self.mean, self.std))
        return (levels.to(torch.float32) - mean) / std


IMAGENET = Normalisation()


def read_normalisation(path: Path | None, card: ModelCard, shape: Mapping[str, object]) -> Normalisation:
    """What a preprocessor_config.json says; the usual where it is silent, or where the checkpoint has none.

    Args:
        path: the file.
        card: for the messages.
        shape: what else it may say, if anything: how the family brings images into shape.

    Raises:
        CheckpointError: the file is unreadable, or asks for what the family does not do, or for another size.
    """
    if path is None:
        return IMAGENET
    document = read_json(path, card)
    known = all(document.get(key, value) == value for key, value in (_STEPS | dict(shape)).items())
    mean, std = (
        document.get(key, value) for key, value in (("image_mean", IMAGENET.mean), ("image_std", IMAGENET.std))
    )
    factor = document.get("rescale_factor", IMAGENET.factor)
    if not (known and all(map(_are_numbers, (mean, std, [factor] * 3))) and min(*std, factor) > 0):
        raise CheckpointError(f"{card.title}: {path.name} asks for a preparation of images that is not this model's")
    return Normalisation(tuple(mean), tuple(std), factor)


def _are_numbers(values: object) -> bool:
    """Whether these are numbers, one for each of three channels."""
    return isinstance(values, list | tuple) and len(values) == 3 and all(isinstance(n, int | float) for n in values)
