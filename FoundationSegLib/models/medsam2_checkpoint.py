"""MedSAM2's checkpoint file: read without running code, its weights under transformers' names, its configuration.

The names are those of facebookresearch/sam2, which MedSAM2 was trained with; the rules are those of transformers'
convert_sam2_video_to_hf.py, in its order.
"""

import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import Sam2VideoConfig

from ..core.errors import CheckpointError

# What torch raises where a file is damaged: all that was seen of 6000 damaged ones.
_DAMAGED = (
    *(OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(pickle.UnpicklingError, struct.error),
)
SIZE = 512  # side of the image that MedSAM2 was trained with, in pixels

# Each on the result of those before it.
_NAMES = (
    ("iou_prediction_head.layers.0", "iou_prediction_head.proj_in"),
    ("iou_prediction_head.layers.1", "iou_prediction_head.layers.0"),
    ("iou_prediction_head.layers.2", "iou_prediction_head.proj_out"),
    ("mask_decoder.output_upscaling.0", "mask_decoder.upscale_conv1"),
    ("mask_decoder.output_upscaling.1", "mask_decoder.upscale_layer_norm"),
    ("mask_decoder.output_upscaling.3", "mask_decoder.upscale_conv2"),
    ("mask_downscaling.0", "mask_embed.conv1"),
    ("mask_downscaling.1", "mask_embed.layer_norm1"),
    ("mask_downscaling.3", "mask_embed.conv2"),
    ("mask_downscaling.4", "mask_embed.layer_norm2"),
    ("mask_downscaling.6", "mask_embed.conv3"),
    ("dwconv", "depthwise_conv"),
    ("pwconv", "pointwise_conv"),
    ("fuser", "memory_fuser"),
    ("point_embeddings", "point_embed"),
    ("pe_layer.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    ("obj_ptr_tpos_proj", "temporal_positional_encoding_projection_layer"),
    ("no_obj_embed_spatial", "occlusion_spatial_embedding_parameter"),
    ("sam_prompt_encoder", "prompt_encoder"),
    ("sam_mask_decoder", "mask_decoder"),
    ("maskmem_tpos_enc", "memory_temporal_positional_encoding"),
    ("gamma", "scale"),
    ("image_encoder.neck", "vision_encoder.neck"),
    ("image_encoder", "vision_encoder.backbone"),
    ("neck.0", "neck.conv1"),
    ("neck.1", "neck.layer_norm1"),
    ("neck.2", "neck.conv2"),
    ("neck.3", "neck.layer_norm2"),
    ("pix_feat_proj", "feature_projection"),
    ("patch_embed.proj", "patch_embed.projection"),
    ("no_mem_embed", "no_memory_embedding"),
    ("no_mem_pos_enc", "no_memory_positional_encoding"),
    ("obj_ptr", "object_pointer"),
    (".norm", ".layer_norm"),
    ("trunk.", ""),
    ("out_proj", "o_proj"),
)
_TWO_LAYERS = r"(vision_encoder\.backbone\.blocks\.\d+\.mlp|mask_decoder\.transformer\.layers\.\d+\.mlp)"
_THREE_LAYERS = r"(mask_decoder\.pred_obj_score_head|mask_decoder\.output_hypernetworks_mlps\.\d+|^object_pointer_proj)"
# On the result of the names above; of those with the same group, no more than one changes a name.
_PATTERNS = (
    (_TWO_LAYERS + r"\.layers\.0\.", r"\1.proj_in."),
    (_TWO_LAYERS + r"\.layers\.1\.", r"\1.proj_out."),
    (_THREE_LAYERS + r"\.layers\.0\.", r"\1.proj_in."),
    (_THREE_LAYERS + r"\.layers\.1\.", r"\1.layers.0."),
    (_THREE_LAYERS + r"\.layers\.2\.", r"\1.proj_out."),
    (r"(vision_encoder\.neck\.convs\.\d+)\.conv\.", r"\1."),
    (r"memory_encoder\.o_proj\.", "memory_encoder.projection."),
)
_DOWNSAMPLER = re.compile(r"memory_encoder\.mask_downsampler\.encoder\.(\d+)\.")
_LAST_OF_DOWNSAMPLER = 12
_POINT = re.compile(r"prompt_encoder\.point_embed\.(\d)\.weight")
_EMBEDDING = "prompt_encoder.shared_embedding.positional_embedding"


def renamed(name: str) -> str:
    """Transformers' name of a weight."""
    for old, new in _NAMES:
        name = name.replace(old, new)
    for pattern, replacement in _PATTERNS:
        changed = re.sub(pattern, replacement, name)
        if changed != name:
            return changed
    return _DOWNSAMPLER.sub(_downsampler_name, name)


def _downsampler_name(match: re.Match[str]) -> str:
    """Its layers are three in a row: a convolution, a norm, and an activation without weights; then a convolution."""
    position = int(match.group(1))
    kind = "conv" if position % 3 == 0 else "layer_norm"
    layer = "final_conv" if position == _LAST_OF_DOWNSAMPLER else f"layers.{position // 3}.{kind}"
    return f"memory_encoder.mask_downsampler.{layer}."


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under transformers' names: point embeddings joined, the shared embedding under both of its names."""
    named = {renamed(name): weight for name, weight in state.items()}
    points = sorted(name for name in named if _POINT.fullmatch(name))
    if points:
        named["prompt_encoder.point_embed.weight"] = torch.cat([named.pop(name) for name in points])
    if _EMBEDDING in named:
        named["shared_image_embedding.positional_embedding"] = named[_EMBEDDING]
    return named


def read_model(path: Path, title: str) -> dict[str, Tensor]:
    """The tensors under "model" in the file, without running any code that it may hold.

    Raises:
        CheckpointError: the file is damaged, or does not hold a dictionary of tensors there.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        raise CheckpointError(f"the checkpoint {path.name} of {title} cannot be read; download it again") from error
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(weight, Tensor) for weight in state.values()):
        raise CheckpointError(f"the checkpoint {path.name} does not hold the weights of {title}")
    return state


def configuration() -> Sam2VideoConfig:
    """SAM 2.1 tiny, all of whose sizes are those of a 512-pixel image (MedSAM2's sam2.1_hiera_t512.yaml).

    No weight has a shape that depends on them: with the usual 1024, loading would succeed and the answers be wrong.
    """
    return Sam2VideoConfig(
        vision_config={
            "backbone_config": {"model_type": "sam2_hiera_det_model", "image_size": [SIZE, SIZE]},
            "backbone_feature_sizes": [[SIZE // 4] * 2, [SIZE // 8] * 2, [SIZE // 16] * 2],
            "model_type": "sam2_vision_model",
        },
        prompt_encoder_config={"image_size": SIZE},
        image_size=SIZE,
        memory_attention_rope_feat_sizes=[SIZE // 16] * 2,
    )
