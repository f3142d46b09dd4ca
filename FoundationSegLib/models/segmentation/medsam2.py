"""MedSAM2: SAM 2.1 tiny at 512 pixels, trained on medical volumes; a box or a mask on a slice, followed both ways.

Preparation and rules follow medsam2_infer_3D_CT.py of bowang-lab/MedSAM2: slices are resized by Pillow, the way down
starts afresh, and of an object the largest connected part is kept. Ma J et al., arXiv:2504.03600. The names of its
weights are those of facebookresearch/sam2, which it was trained with; the rules that rename them are those of
transformers' convert_sam2_video_to_hf.py.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import Sam2VideoConfig

from ...catalog.model_cards import ModelCard
from ...errors import CheckpointError
from ..preprocessing import IMAGENET, channels_first
from ..weights import DECODER_RULES, only_file, read_pickle, renamed, share_table
from .sam2 import Sam2, build_network

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


def _downsampler_name(match: re.Match[str]) -> str:
    """Name a layer: they repeat as a convolution, a norm and an activation without weights; a convolution is last."""
    position = int(match.group(1))
    kind = "conv" if position % 3 == 0 else "layer_norm"
    layer = "final_conv" if position == _LAST_OF_DOWNSAMPLER else f"layers.{position // 3}.{kind}"
    return f"memory_encoder.mask_downsampler.{layer}."


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights as transformers does: point embeddings joined, the shared embedding under both of its names."""
    named = {_DOWNSAMPLER.sub(_downsampler_name, renamed(name, _RULES)): weight for name, weight in state.items()}
    points = sorted(name for name in named if _POINT.fullmatch(name))
    if points:
        named["prompt_encoder.point_embed.weight"] = torch.cat([named.pop(name) for name in points])
    return share_table(named)


def configuration() -> Sam2VideoConfig:
    """Configuration of SAM 2.1 tiny with all sizes for an image of 512 pixels (MedSAM2's sam2.1_hiera_t512.yaml).

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


@dataclass(frozen=True, slots=True)
class MedSam2Preparation:
    """Preparation for MedSAM2's encoder: stretched to ``size`` by ``size`` in 8 bits, normalised as for SAM 2."""

    size: int

    def __call__(self, image: NDArray[np.uint8]) -> Tensor:
        """Stretch (rows, columns) or (rows, columns, 3), uint8, to (1, 3, size, size) float32 on the host; bicubic."""
        square = Image.fromarray(image).resize((self.size, self.size), Image.Resampling.BICUBIC)
        return IMAGENET(channels_first(np.array(square)))


def load(card: ModelCard, files: Mapping[str, Path], device: str, config: Sam2VideoConfig | None = None) -> Sam2:
    """Load the adapter with its single file; ``config`` describes another network than the published one.

    Raises:
        CheckpointError: the file is unreadable, or holds other weights.
    """
    try:
        state = to_transformers(read_pickle(only_file(card, files), card, under="model"))
    except RuntimeError as error:  # the embeddings of points are of different lengths
        raise CheckpointError(f"the checkpoint does not hold the weights of {card.title}") from error
    config = config or configuration()
    network = build_network(config, state, card)
    return Sam2(network, MedSam2Preparation(config.image_size), device, fresh_each_way=True, largest_part_only=True)
