"""MedSAM: SAM's ViT-B with weights for medical images; boxes on slices.

The network is transformers' SamModel. Everything around it follows MedSAM_Inference.py of bowang-lab/MedSAM (commit
d71e8a1), which differs from SAM at every step: the slice is stretched to a square, intensities go from 0 to 1 without
mean and standard deviation, and the mask is a probability above a half. The preprocessor_config.json on the Hub is
SAM's, and is never read (bowang-lab/MedSAM issue 103). What comes before 8 bits, the window of a CT and the percentiles
of the rest (pre_CT_MR.py), is the intensity policy's.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ...catalog.model_cards import ModelCard
from ...errors import PromptError
from ..preprocessing import resize_by_splines
from ..protocols import BoxXyxy, Check, SliceAnswer, SlicePrompt, unstoppable
from .sam import PromptTensors, SamEmbedding, SamNetwork, as_score, box_for_neighbour, box_tensor, load_sam, scale_to


def prepare(image: NDArray[np.uint8], size: int) -> Tensor:
    """What the encoder sees of a slice: (1, 3, size, size) float32, 0..1.

    Stretched to the square by cubic splines in 8 bits, whatever its shape, then darkest to 0 and brightest to 1; a
    constant slice is all 0. A grey slice is stretched once, and then repeated.
    """
    square = resize_by_splines(image, (size, size))
    low, high = float(square.min()), float(square.max())
    levels = ((square - low) / max(high - low, 1e-8)).astype(np.float32)
    channels = levels[None] if levels.ndim == 2 else np.moveaxis(levels, 2, 0)
    return torch.from_numpy(np.ascontiguousarray(channels))[None].repeat(1, 3 // len(channels), 1, 1)


def stretched(logits: Tensor, shape: tuple[int, int]) -> Tensor:
    """Probabilities (rows, columns) = ``shape`` of logits (1, 1, size / 4, size / 4): medsam_inference."""
    return functional.interpolate(logits.sigmoid(), size=shape, mode="bilinear", align_corners=False)[0, 0]


class MedSam:
    """The adapter. Boxes only; one mask and one predicted IoU per box."""

    precision = "float32"

    def __init__(self, network: SamNetwork) -> None:
        self.network, self.device = network, network.device
        self._square = (network.size, network.size)

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return self.network.nbytes

    @torch.inference_mode()
    def encode(self, image: NDArray[np.uint8], check: Check = unstoppable) -> SamEmbedding:
        """The embedding of a slice, (rows, columns) or (rows, columns, 3), uint8."""
        features = self.network.encode(prepare(image, self.network.size), check)
        return SamEmbedding(features, image.shape[:2], self._square)

    @torch.inference_mode()
    def decode(self, embedding: SamEmbedding, prompt: SlicePrompt, previous: SliceAnswer | None = None) -> SliceAnswer:
        """The mask in the prompt's box, all that these weights understand.

        Raises:
            PromptError: there is no box.
        """
        if prompt.box is None:
            raise PromptError("MedSAM needs a box")
        boxes = box_tensor(prompt.box, scale_to(embedding.resized, embedding.shape), self.device)
        logits, scores = self.network.decode(embedding.features, PromptTensors(boxes=boxes))
        mask = stretched(logits[None], embedding.shape) > 0.5
        return SliceAnswer(mask.cpu().numpy(), as_score(scores[0]))

    def box_around(self, mask: NDArray[np.bool_], wider: int = 0) -> BoxXyxy | None:
        """The box for the next slice: around this mask, and 12 of the network's 1024 pixels wider, or more."""
        return box_for_neighbour(mask, scale_to(self._square, mask.shape), self.network.size, wider)


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> MedSam:
    """The adapter with the weights of its files: config.json and model.safetensors.

    Raises:
        CheckpointError: a file is missing or damaged, or they do not describe and hold SAM's network.
    """
    return MedSam(SamNetwork(load_sam(card, files, device), device))
