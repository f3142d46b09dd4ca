"""CLIP and PubMedCLIP: pictures and texts by transformers' CLIPModel, in float32.

Preparation, tokens and vectors are those of its CLIPProcessor for square pictures; of others the whole is seen, where
the processor would crop the middle.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.configuration_clip import CLIPTextConfig, CLIPVisionConfig

from ...catalog.model_cards import ModelCard
from ...requests.scoring import Head
from ..preprocessing import Normalisation
from ..protocols import Check, TextVectors, unstoppable
from ..weights import checked, read_json, read_section, unusable, weight_bytes
from .two_towers import CLIP_MEAN, CLIP_STD, Preparation, TextReader, grid, load_towers, unit


class Clip:
    """The adapter."""

    precision = "float32"

    def __init__(self, network: CLIPModel, preparation: Preparation, reader: TextReader, device: str) -> None:
        self.network, self.device = network, device
        self.head = Head(float(network.logit_scale.exp()))
        self._preparation, self._reader = preparation, reader

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return weight_bytes(self.network)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """See :meth:`~.classifier_base.ImageTextModel.encode_images`."""
        return unit(self.network.visual_projection(self._seen(images, check).pooler_output))

    @torch.inference_mode()
    def encode_parts(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """See :meth:`~.classifier_base.ImageTextModel.encode_parts`: each patch through the way of the class token."""
        patches = self._seen(images, check).last_hidden_state[:, 1:]
        projected = self.network.visual_projection(self.network.vision_model.post_layernorm(patches))
        return unit(grid(projected))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], check: Check = unstoppable) -> TextVectors:
        """See :meth:`~.classifier_base.ImageTextModel.encode_texts`."""
        return self._reader.encode(texts, self._read, check)

    def _seen(self, images: Sequence[NDArray[np.uint8]], check: Check) -> Any:
        pixels = self._preparation(images, self.device)
        with checked(self.network.vision_model.encoder.layers, check):
            return self.network.vision_model(pixel_values=pixels)

    def _read(self, tokens: Any) -> Tensor:
        told = tokens.to(self.device)
        read = self.network.text_model(input_ids=told["input_ids"], attention_mask=told["attention_mask"])
        return self.network.text_projection(read.pooler_output)


def read_config(path: Path, card: ModelCard) -> CLIPConfig:
    """The network's sizes.

    Raises:
        CheckpointError: the file is unreadable, or describes something else than CLIP.
    """
    document = read_json(path, card)
    width = document.get("projection_dim", 512)
    if document.get("model_type") != "clip" or type(width) is not int or width < 1:
        raise unusable(path.name, card)
    text = read_section(CLIPTextConfig, document.get("text_config", {}), path, card)
    vision = read_section(CLIPVisionConfig, document.get("vision_config", {}), path, card)
    return CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=width)


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> Clip:
    """The adapter with the weights of its files.

    Raises:
        CheckpointError: a file is missing or damaged, or they do not describe and hold CLIP's network.
    """
    towers = load_towers(
        card, files, device, read_config, CLIPModel, Normalisation(CLIP_MEAN, CLIP_STD), is_padded=False
    )
    return Clip(*towers, device)
