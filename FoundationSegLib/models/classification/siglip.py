"""SigLIP, SigLIP 2 (those of fixed resolution) and MedSigLIP: transformers' SiglipModel.

Trained with a sigmoid for each pair of picture and text, on texts in small letters, and with every text padded to 64
tokens, which the tower sees.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import SiglipConfig, SiglipModel
from transformers.models.siglip.configuration_siglip import SiglipTextConfig, SiglipVisionConfig

from ...catalog.model_cards import ModelCard
from ...requests.scoring import Head
from ..preprocessing import Normalisation
from ..weights import read_config, required_file
from .two_towers import TwoTowers, load_towers

_HALF = (0.5, 0.5, 0.5)


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> TwoTowers:
    """Load the adapter with its files.

    Raises:
        CheckpointError: a file is missing or damaged, or they do not describe and hold SigLIP's network.
    """
    sections = {"text_config": SiglipTextConfig, "vision_config": SiglipVisionConfig}
    config = read_config(required_file("config.json", files, card), card, SiglipConfig, sections)
    network, preparation, reader = load_towers(
        card, files, device, config, SiglipModel, Normalisation(_HALF, _HALF), is_padded=True
    )
    vision = network.vision_model

    def images(pixels: Tensor) -> Tensor:
        return vision(pixel_values=pixels).pooler_output

    def parts(pixels: Tensor) -> Tensor:
        """Pool each patch as if it were alone."""
        patches = vision(pixel_values=pixels).last_hidden_state
        return vision.head(patches.flatten(0, 1)[:, None]).reshape(*patches.shape[:2], -1)

    def texts(tokens: Any) -> Tensor:
        return network.text_model(input_ids=tokens["input_ids"].to(device)).pooler_output

    head = Head(float(network.logit_scale.exp()), float(network.logit_bias), is_sigmoid=True)
    # SigLIP's own tokenizer makes letters small; Gemma's, which SigLIP 2 is published with, does not.
    return TwoTowers(
        network, device, head, preparation, reader, vision.encoder.layers, images, parts, texts, clean=str.lower
    )
