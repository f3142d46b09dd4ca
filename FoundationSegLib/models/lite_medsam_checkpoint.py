"""LiteMedSAM's checkpoint file: read without running code, its weights under the names of the modules here."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import CheckpointError

_ENCODER_KEYS = (
    (r"patch_embed\.seq\.0", "patch_embed.conv1"),
    (r"patch_embed\.seq\.2", "patch_embed.conv2"),
    (r"layers\.0\.downsample", "stages.1.downsample"),
    (r"layers\.1\.downsample", "stages.2.downsample"),
    (r"layers\.2\.downsample", "stages.3.downsample"),
    (r"layers\.(\d)\.blocks", r"stages.\1.blocks"),
    (r"\.c\.weight", ".conv.weight"),
)
# From the names of the original SAM to those of transformers (its convert_sam_to_hf.py); order matters.
_DECODER_KEYS = (
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.0", r"\1.proj_in"),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.1", r"\1.layers.0"),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.2", r"\1.proj_out"),
    (r"mask_downscaling\.0", "mask_embed.conv1"),
    (r"mask_downscaling\.1", "mask_embed.layer_norm1"),
    (r"mask_downscaling\.3", "mask_embed.conv2"),
    (r"mask_downscaling\.4", "mask_embed.layer_norm2"),
    (r"mask_downscaling\.6", "mask_embed.conv3"),
    (r"output_upscaling\.0", "upscale_conv1"),
    (r"output_upscaling\.1", "upscale_layer_norm"),
    (r"output_upscaling\.3", "upscale_conv2"),
    (r"point_embeddings", "point_embed"),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    (r"\.norm", ".layer_norm"),
)


def _renamed(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def split_checkpoint(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of the encoder and of the decoder, under the names of the modules here."""
    prefix = "image_encoder."
    encoder = {_renamed(k.removeprefix(prefix), _ENCODER_KEYS): v for k, v in state.items() if k.startswith(prefix)}
    decoder = {_renamed(k, _DECODER_KEYS): v for k, v in state.items() if not k.startswith(prefix)}
    shared = decoder.get("prompt_encoder.shared_embedding.positional_embedding")
    if shared is not None:
        decoder["shared_image_embedding.positional_embedding"] = shared
    return encoder, decoder


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file, without running any code that it may hold.

    Raises:
        CheckpointError: the file is not a plain dictionary of tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"the checkpoint {path.name} cannot be read; download it again") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"the checkpoint {path.name} is not a plain dictionary of weights")
    return state
