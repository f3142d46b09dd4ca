"""CLIP and PubMedCLIP: pictures and texts by transformers' CLIPModel.

Preparation, tokens and vectors are those of its CLIPProcessor for square pictures.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.configuration_clip import CLIPTextConfig, CLIPVisionConfig

from ...catalog.model_cards import ModelCard
from ...requests.scoring import Head
from ..weights import read_config, required_file
from .two_towers import CLIP_COLOURS, TwoTowers, load_towers


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> TwoTowers:
    """Load the adapter with its files.

    Raises:
        CheckpointError: a file is missing or damaged, or they do not describe and hold CLIP's network.
    """
    sections = {"text_config": CLIPTextConfig, "vision_config": CLIPVisionConfig}
    config = read_config(required_file("config.json", files, card), card, CLIPConfig, sections, projection_dim=512)
    network, preparation, reader = load_towers(card, files, device, config, CLIPModel, CLIP_COLOURS, is_padded=False)
    vision = network.vision_model

    def images(pixels: Tensor) -> Tensor:
        return network.visual_projection(vision(pixel_values=pixels).pooler_output)

    def parts(pixels: Tensor) -> Tensor:
        """Project each patch as the class token."""
        patches = vision(pixel_values=pixels).last_hidden_state[:, 1:]
        return network.visual_projection(vision.post_layernorm(patches))

    def texts(tokens: Any) -> Tensor:
        tokens = tokens.to(device)
        output = network.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return network.text_projection(output.pooler_output)

    head, blocks = Head(float(network.logit_scale.exp())), vision.encoder.layers
    return TwoTowers(network, device, head, preparation, reader, blocks, images, parts, texts)
