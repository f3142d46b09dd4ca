"""MedSAM: SAM's ViT-B with weights for medical images; boxes on slices.

The network is transformers' SamModel. Everything around it follows MedSAM_Inference.py of bowang-lab/MedSAM (commit
d71e8a1), which differs from SAM at every step: the slice is stretched to a square, intensities go from 0 to 1 without
mean and standard deviation, and the mask is a probability above a half. The preprocessor_config.json on the Hub is
SAM's, and is never read (bowang-lab/MedSAM issue 103). The steps before 8 bits, the window of a CT and the percentiles
of the rest (pre_CT_MR.py), are the intensity policy's.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import SamModel

from ...catalog.model_cards import ModelCard
from ...errors import PromptError
from ..preprocessing import channels_first, resize_by_splines
from ..protocols import BoxXyxy, Check, SliceAnswer, SlicePrompt, unstoppable
from . import sam


def prepare(image: NDArray[np.uint8], size: int) -> Tensor:
    """Prepare a slice for the encoder: (1, 3, size, size) float32, 0..1.

    Stretched to the square by cubic splines in 8 bits, whatever its shape, then darkest to 0 and brightest to 1; a
    constant slice is all 0. A grey slice is stretched once, and then repeated.
    """
    square = resize_by_splines(image, (size, size))
    low, high = float(square.min()), float(square.max())
    levels = channels_first(((square - low) / max(high - low, 1e-8)).astype(np.float32))
    return levels.repeat(1, 3 // levels.shape[1], 1, 1)


class MedSam:
    """The adapter. Boxes only, until it is adapted to points; one mask and one predicted IoU per box."""

    precision = "float32"

    def __init__(self, network: sam.SamNetwork) -> None:
        self.network, self.device = network, network.device
        self._square = (network.size, network.size)

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return self.network.nbytes

    @torch.inference_mode()
    def encode(self, image: NDArray[np.uint8], check: Check = unstoppable) -> sam.SamEmbedding:
        """Encode a slice, (rows, columns) or (rows, columns, 3), uint8."""
        features = self.network.encode(prepare(image, self.network.size), check)
        return sam.SamEmbedding(features, image.shape[:2], self._square)

    @torch.inference_mode()
    def decode(
        self, embedding: sam.SamEmbedding, prompt: SlicePrompt, previous: SliceAnswer | None = None
    ) -> SliceAnswer:
        """Segment the object in the prompt's box, or, with weights that were adapted to them, at its points.

        Raises:
            PromptError: the prompt has neither.
        """
        coarse = previous.logits if previous is not None and prompt.points else None
        logits, scores = self.guess(embedding, prompt, coarse)
        # As medsam_inference: probabilities are stretched to the slice, not logits.
        mask, (score,) = sam.on_host(self.on_slice(logits[None].sigmoid(), embedding) > 0.5, scores[:1])
        return SliceAnswer(mask, sam.as_score(score), logits[None].clone() if prompt.points else None)

    @property
    def decoder(self) -> SamModel:
        """The network with the prompt encoder and the mask decoder."""
        return self.network.model

    @property
    def encoder(self) -> nn.Module:
        """The image encoder."""
        return self.network.encoder

    def with_encoder(self, encoder: nn.Module) -> "MedSam":
        """The same model with another image encoder."""
        return MedSam(self.network.with_encoder(encoder))

    def embed(self, image: NDArray[np.uint8], encoder: nn.Module) -> sam.SamEmbedding:
        """Encode a slice by another encoder; gradients pass."""
        features = self.network.embed(prepare(image, self.network.size), encoder)
        return sam.SamEmbedding(features, image.shape[:2], self._square)

    def with_decoder(self, decoder: SamModel) -> "MedSam":
        """The same model with another prompt encoder and mask decoder."""
        return MedSam(self.network.with_decoder(decoder))

    def guess(
        self, embedding: sam.SamEmbedding, prompt: SlicePrompt, logits: Tensor | None, decoder: SamModel | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits of the mask, (1, rows, columns), and its predicted IoU; gradients pass with a ``decoder``."""
        if not (prompt.box or prompt.points):
            raise PromptError("MedSAM needs a box")
        scale = sam.scale_to(embedding.resized, embedding.shape)
        points = sam.point_tensors(prompt.points, scale, self.device) if prompt.points else (None, None)
        boxes = sam.box_tensor(prompt.box, scale, self.device) if prompt.box else None
        if decoder is not None:
            return self.network.decode.by_modules(decoder, embedding.features, points, boxes, logits, False)
        return self.network.decode(embedding.features, points, boxes, logits)

    def on_slice(self, logits: Tensor, embedding: sam.SamEmbedding) -> Tensor:
        """Stretch logits of the network, (1, 1, rows, columns), to the slice; (rows, columns)."""
        return functional.interpolate(logits, size=embedding.shape, mode="bilinear", align_corners=False)[0, 0]

    def box_around(self, mask: NDArray[np.bool_], wider: int = 0) -> BoxXyxy | None:
        """Box for the next slice: around this mask, and 12 of the network's 1024 pixels wider, or more."""
        return sam.box_for_neighbour(mask, sam.scale_to(self._square, mask.shape), self.network.size, wider)


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> MedSam:
    """Load the adapter with its files: config.json and model.safetensors.

    Raises:
        CheckpointError: a file is missing or damaged, or they do not describe and hold SAM's network.
    """
    return MedSam(sam.load_network(card, files, device))
