"""MedSAM2: SAM 2.1 tiny at 512 pixels, trained on medical volumes; a box or a mask on a slice, followed both ways.

Preparation and rules follow medsam2_infer_3D_CT.py of bowang-lab/MedSAM2: slices are resized by Pillow, the way down
starts afresh, and of an object the largest connected part is kept. Ma J et al., arXiv:2504.03600.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..core.cards import ModelCard
from .checkpoint_files import read_pickle
from .medsam2_checkpoint import configuration, to_transformers
from .normalisation import IMAGENET
from .sam2 import Sam2
from .sam2_checkpoint import build_network


@dataclass(frozen=True, slots=True)
class MedSam2Preparation:
    """What MedSAM2's encoder sees of a slice: stretched to ``size`` by ``size`` in 8 bits, normalised as SAM 2's."""

    size: int

    def __call__(self, image: NDArray[np.uint8]) -> Tensor:
        """(1, 3, size, size) float32 on the host, of (rows, columns) or (rows, columns, 3), uint8; bicubic."""
        square = np.asarray(Image.fromarray(image).resize((self.size, self.size), Image.Resampling.BICUBIC))
        colour = square if square.ndim == 3 else square[:, :, None]
        return IMAGENET(torch.from_numpy(np.moveaxis(colour, 2, 0).copy())[None])


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> Sam2:
    """The adapter with the weights of its single file.

    Raises:
        CheckpointError: the file is unreadable, or holds other weights.
    """
    state = to_transformers(read_pickle(files[card.source.files[0].path], card, under="model"))
    config = configuration()
    network = build_network(config, state, card)
    return Sam2(network, MedSam2Preparation(config.image_size), device, fresh_each_way=True, largest_part_only=True)
