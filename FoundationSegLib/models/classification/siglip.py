"""SigLIP, SigLIP 2 (those of fixed resolution) and MedSigLIP: transformers' SiglipModel, in float32.

Trained with a sigmoid for each pair of picture and text, on texts in small letters, and with every text padded to 64
tokens, which the tower sees.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import SiglipConfig, SiglipModel
from transformers.models.siglip.configuration_siglip import SiglipTextConfig, SiglipVisionConfig

from ...catalog.model_cards import ModelCard
from ...requests.scoring import Head
from ..preprocessing import Normalisation
from ..protocols import Check, TextVectors, unstoppable
from ..weights import checked, read_json, read_section, unusable, weight_bytes
from .two_towers import Preparation, TextReader, grid, load_towers, unit

_HALF = (0.5, 0.5, 0.5)


class Siglip:
    """The adapter."""

    precision = "float32"

    def __init__(self, network: SiglipModel, preparation: Preparation, reader: TextReader, device: str) -> None:
        self.network, self.device = network, device
        self.head = Head(float(network.logit_scale.exp()), float(network.logit_bias), is_sigmoid=True)
        self._preparation, self._reader = preparation, reader

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return weight_bytes(self.network)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """See :meth:`~.classifier_base.ImageTextModel.encode_images`."""
        return unit(self._seen(images, check).pooler_output)

    @torch.inference_mode()
    def encode_parts(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """See :meth:`~.classifier_base.ImageTextModel.encode_parts`: each patch pooled as if alone."""
        patches = self._seen(images, check).last_hidden_state
        pooled = self.network.vision_model.head(patches.flatten(0, 1)[:, None])
        return unit(grid(pooled.reshape(*patches.shape[:2], -1)))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], check: Check = unstoppable) -> TextVectors:
        """See :meth:`~.classifier_base.ImageTextModel.encode_texts`."""
        # SigLIP's own tokenizer makes letters small; Gemma's, which SigLIP 2 is published with, does not.
        return self._reader.encode([text.lower() for text in texts], self._read, check)

    def _seen(self, images: Sequence[NDArray[np.uint8]], check: Check) -> Any:
        pixels = self._preparation(images, self.device)
        with checked(self.network.vision_model.encoder.layers, check):
            return self.network.vision_model(pixel_values=pixels)

    def _read(self, tokens: Any) -> Tensor:
        return self.network.text_model(input_ids=tokens["input_ids"].to(self.device)).pooler_output


def read_config(path: Path, card: ModelCard) -> SiglipConfig:
    """The network's sizes.

    Raises:
        CheckpointError: the file is unreadable, or describes something else than SigLIP.
    """
    document = read_json(path, card)
    if document.get("model_type") != "siglip":
        raise unusable(path.name, card)
    text = read_section(SiglipTextConfig, document.get("text_config", {}), path, card)
    vision = read_section(SiglipVisionConfig, document.get("vision_config", {}), path, card)
    return SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> Siglip:
    """The adapter with the weights of its files.

    Raises:
        CheckpointError: a file is missing or damaged, or they do not describe and hold SigLIP's network.
    """
    towers = load_towers(card, files, device, read_config, SiglipModel, Normalisation(_HALF, _HALF), is_padded=True)
    return Siglip(*towers, device)
