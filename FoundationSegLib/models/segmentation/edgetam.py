"""EdgeTAM: SAM 2's prompts and memory with a small convolutional encoder, for computers without a graphics card.

The network is transformers' ``EdgeTamVideoModel``: timm's RepViT in place of Hiera, and a perceiver that makes 512
tokens of each slice's memory. Everything else, the preparation of images and the video session too, is SAM 2's. Zhou C
et al., EdgeTAM: On-Device Track Anything Model, arXiv:2501.07256.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from timm.utils.model import reparameterize_model
from transformers import EdgeTamVideoConfig, EdgeTamVideoModel

from ...catalog.model_cards import ModelCard
from ..weights import unusable
from .sam2 import Sam2, read_checkpoint


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> Sam2:
    """Load the adapter with the weights of a checkpoint in transformers' layout.

    The encoder's branches and batch norms become single convolutions, channels last: the same numbers but for rounding,
    in a third of the time on two cores.

    Raises:
        CheckpointError: a file is missing, unreadable, does not fit the others, or holds other weights.
    """
    network, preparation = read_checkpoint(card, files, EdgeTamVideoConfig, EdgeTamVideoModel)
    config = network.config
    # No weight has a shape that depends on these: the keys' positions are those of the perceiver's windows.
    side = math.isqrt(config.perceiver_resampler_num_latents_2d)
    if list(config.memory_attention_rope_k_sizes) != [side, side] or config.image_size // 16 % side:
        raise unusable("config.json", card)
    backbone = network.eval().requires_grad_(False).vision_encoder.backbone
    reparameterize_model(backbone, inplace=True).to(memory_format=torch.channels_last)
    return Sam2(network, preparation, device)
