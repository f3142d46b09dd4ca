"""MedSAM2: SAM 2.1 tiny at 512 pixels, trained on medical volumes; a box or a mask on a slice, followed both ways.

Preparation and rules follow medsam2_infer_3D_CT.py of bowang-lab/MedSAM2: slices are resized by Pillow, the way down
starts afresh, and of an object the largest connected part is kept. Ma J et al., arXiv:2504.03600.
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
from ..preprocessing import IMAGENET
from ..weights import DECODER_RULES, read_pickle, renamed, with_shared_table
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


@dataclass(frozen=True, slots=True)
class MedSam2Preparation:
    """What MedSAM2's encoder sees of a slice: stretched to ``size`` by ``size`` in 8 bits, normalised as SAM 2's."""

    size: int

    def __call__(self, image: NDArray[np.uint8]) -> Tensor:
        """(1, 3, size, size) float32 on the host, of (rows, columns) or (rows, columns, 3), uint8; bicubic."""
        square = np.asarray(Image.fromarray(image).resize((self.size, self.size), Image.Resampling.BICUBIC))
        colour = square if square.ndim == 3 else square[:, :, None]
        return IMAGENET(torch.from_numpy(np.moveaxis(colour, 2, 0).copy())[None])


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> Sam2:
    """The adapter with the weights of its single file.

    Raises:
        CheckpointError: the file is unreadable, or holds other weights.
    """
    state = to_transformers(read_pickle(files[card.source.files[0].path], card, under="model"))
    config = configuration()
    network = build_network(config, state, card)
    return Sam2(network, MedSam2Preparation(config.image_size), device, fresh_each_way=True, largest_part_only=True)
