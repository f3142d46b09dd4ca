"""MedSAM2's checkpoint: its weights under transformers' names, and the configuration that its file does not have.

The names are those of facebookresearch/sam2, which MedSAM2 was trained with; the rules are those of transformers'
convert_sam2_video_to_hf.py.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import Sam2VideoConfig

from .original_sam import DECODER_RULES, renamed, with_shared_table

SIZE = 512  # side of the image that MedSAM2 was trained with, in pixels

_TWO_LAYERS = r"(vision_encoder\.backbone\.blocks\.\d+\.mlp|mask_decoder\.transformer\.layers\.\d+\.mlp)"
_THREE_LAYERS = r"(mask_decoder\.pred_obj_score_head|^object_pointer_proj)"
_RULES = (
    *DECODER_RULES,
    (r"dwconv", "depthwise_conv"),
    (r"pwconv", "pointwise_conv"),
    (r"fuser", "memory_fuser"),
    (r"obj_ptr_tpos_proj", "temporal_positional_encoding_projection_layer"),
    (r"no_obj_embed_spatial", "occlusion_spatial_embedding_parameter"),
    (r"sam_prompt_encoder", "prompt_encoder"),
    (r"sam_mask_decoder", "mask_decoder"),
    (r"maskmem_tpos_enc", "memory_temporal_positional_encoding"),
    (r"gamma", "scale"),
    (r"image_encoder\.neck", "vision_encoder.neck"),
    (r"image_encoder", "vision_encoder.backbone"),
    (r"pix_feat_proj", "feature_projection"),
    (r"patch_embed\.proj", "patch_embed.projection"),
    (r"no_mem_embed", "no_memory_embedding"),
    (r"no_mem_pos_enc", "no_memory_positional_encoding"),
    (r"obj_ptr", "object_pointer"),
    (r"trunk\.", ""),
    (r"out_proj", "o_proj"),
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


def transformers_name(name: str) -> str:
    """Transformers' name of a weight."""
    return _DOWNSAMPLER.sub(_downsampler_name, renamed(name, _RULES))


def _downsampler_name(match: re.Match[str]) -> str:
    """Its layers are three in a row: a convolution, a norm, and an activation without weights; then a convolution."""
    position = int(match.group(1))
    kind = "conv" if position % 3 == 0 else "layer_norm"
    layer = "final_conv" if position == _LAST_OF_DOWNSAMPLER else f"layers.{position // 3}.{kind}"
    return f"memory_encoder.mask_downsampler.{layer}."


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under transformers' names: point embeddings joined, the shared embedding under both of its names."""
    named = {transformers_name(name): weight for name, weight in state.items()}
    points = sorted(name for name in named if _POINT.fullmatch(name))
    if points:
        named["prompt_encoder.point_embed.weight"] = torch.cat([named.pop(name) for name in points])
    return with_shared_table(named)


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
