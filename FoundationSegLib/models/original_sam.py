"""Names of weights in the original SAM's layout, which several families have, under those of transformers."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

Rules = Sequence[tuple[str, str]]

# Of the prompt encoder and the mask decoder (transformers' convert_sam_to_hf.py); order matters.
DECODER_RULES = (
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.0", r"\1.proj_in"),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.1", r"\1.layers.0"),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.2", r"\1.proj_out"),
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
# One table of the original under two names. Transformers saves it once, or in its version 5 SAM 2's twice.
_SHARED = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")


def renamed(name: str, rules: Rules) -> str:
    """A name after every rule, a pattern and what replaces it, each on the result of those before it."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def with_shared_table(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the table of positions under both of its names, where it came under one."""
    table = next((state[name] for name in _SHARED if name in state), None)
    return dict(state) if table is None else {**dict.fromkeys(_SHARED, table), **state}
