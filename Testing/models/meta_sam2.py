"""SAM 2's weights under the names of facebookresearch/sam2: written from its modules, not from the product's table.

Each line is (a prefix here, the same there, what is called otherwise below it).
"""

import re

import torch
from torch import Tensor

ATTENTION = {"o_proj": "out_proj"}
PERCEPTRON_2 = {"proj_in": "layers.0", "proj_out": "layers.1"}
PERCEPTRON_3 = {"proj_in": "layers.0", "layers.0": "layers.1", "proj_out": "layers.2"}
NORMS = {f"layer_norm{n}": f"norm{n}" for n in (1, 2, 3, 4)}
MASK_EMBED = {"conv1": "0", "layer_norm1": "1", "conv2": "3", "layer_norm2": "4", "conv3": "6"}
FUSER = {
    "scale": "gamma",
    "depthwise_conv": "dwconv",
    "layer_norm": "norm",
    "pointwise_conv1": "pwconv1",
    "pointwise_conv2": "pwconv2",
}
ROWS = (
    (r"vision_encoder\.backbone\.patch_embed\.projection", "image_encoder.trunk.patch_embed.proj", {}),
    (r"vision_encoder\.backbone\.blocks\.(\d+)\.mlp", r"image_encoder.trunk.blocks.\1.mlp", PERCEPTRON_2),
    (r"vision_encoder\.backbone\.blocks\.(\d+)", r"image_encoder.trunk.blocks.\1", NORMS),
    (r"vision_encoder\.backbone", "image_encoder.trunk", {}),
    (r"vision_encoder\.neck\.convs\.(\d)", r"image_encoder.neck.convs.\1.conv", {}),
    (r"memory_attention\.layers\.(\d)\.(self_attn|cross_attn_image)", r"memory_attention.layers.\1.\2", ATTENTION),
    (r"memory_attention\.layers\.(\d)", r"memory_attention.layers.\1", NORMS),
    (r"memory_attention\.layer_norm", "memory_attention.norm", {}),
    (r"memory_encoder\.feature_projection", "memory_encoder.pix_feat_proj", {}),
    (r"memory_encoder\.projection", "memory_encoder.out_proj", {}),
    (r"memory_encoder\.memory_fuser\.layers\.(\d)", r"memory_encoder.fuser.layers.\1", FUSER),
    (r"memory_encoder\.mask_downsampler\.final_conv", "memory_encoder.mask_downsampler.encoder.12", {}),
    (r"prompt_encoder\.mask_embed", "sam_prompt_encoder.mask_downscaling", MASK_EMBED),
    (r"prompt_encoder", "sam_prompt_encoder", {}),
    (r"mask_decoder\.transformer\.layers\.(\d)\.mlp", r"sam_mask_decoder.transformer.layers.\1.mlp", PERCEPTRON_2),
    (
        r"mask_decoder\.transformer\.layers\.(\d)\.(\w+_\w+)",
        r"sam_mask_decoder.transformer.layers.\1.\2",
        ATTENTION | NORMS,
    ),
    (r"mask_decoder\.transformer\.layer_norm_final_attn", "sam_mask_decoder.transformer.norm_final_attn", {}),
    (
        r"mask_decoder\.transformer\.final_attn_token_to_image",
        "sam_mask_decoder.transformer.final_attn_token_to_image",
        ATTENTION,
    ),
    (r"mask_decoder\.output_hypernetworks_mlps\.(\d)", r"sam_mask_decoder.output_hypernetworks_mlps.\1", PERCEPTRON_3),
    (r"mask_decoder\.iou_prediction_head", "sam_mask_decoder.iou_prediction_head", PERCEPTRON_3),
    (r"mask_decoder\.pred_obj_score_head", "sam_mask_decoder.pred_obj_score_head", PERCEPTRON_3),
    (r"mask_decoder\.upscale_conv1", "sam_mask_decoder.output_upscaling.0", {}),
    (r"mask_decoder\.upscale_layer_norm", "sam_mask_decoder.output_upscaling.1", {}),
    (r"mask_decoder\.upscale_conv2", "sam_mask_decoder.output_upscaling.3", {}),
    (r"mask_decoder", "sam_mask_decoder", {}),
    (r"object_pointer_proj", "obj_ptr_proj", PERCEPTRON_3),
    (r"temporal_positional_encoding_projection_layer", "obj_ptr_tpos_proj", {}),
    (r"memory_temporal_positional_encoding", "maskmem_tpos_enc", {}),
    (r"no_memory_embedding", "no_mem_embed", {}),
    (r"no_memory_positional_encoding", "no_mem_pos_enc", {}),
    (r"no_object_pointer", "no_obj_ptr", {}),
    (r"occlusion_spatial_embedding_parameter", "no_obj_embed_spatial", {}),
    (r"mask_downsample", "mask_downsample", {}),
)
POSITIONS = "prompt_encoder.shared_embedding.positional_embedding"
DOWNSAMPLER = re.compile(r"memory_encoder\.mask_downsampler\.layers\.(\d)\.(conv|layer_norm)\.(\w+)")


def meta_name(name: str) -> str:
    if layer := DOWNSAMPLER.fullmatch(name):
        number = 3 * int(layer[1]) + ("conv", "layer_norm").index(layer[2])
        return f"memory_encoder.mask_downsampler.encoder.{number}.{layer[3]}"
    for pattern, prefix, below in ROWS:
        if found := re.fullmatch(rf"({pattern})((\..+)?)", name):
            rest = found[found.re.groups - 1]
            if found[1].split(".")[-1] in below:  # the pattern swallowed what is called otherwise
                head, last = re.sub(pattern, prefix, found[1]).rsplit(".", 1)
                return f"{head}.{below[last]}{rest}"
            for here, there in below.items():
                if rest.startswith(f".{here}.") or rest == f".{here}":
                    rest = f".{there}{rest[len(here) + 1 :]}"
                    break
            return re.sub(pattern, prefix, found[1]) + rest
    raise KeyError(name)


def as_meta(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' weights as the authors' checkpoints have them."""
    there = {}
    for name, weight in state.items():
        if name == "prompt_encoder.point_embed.weight":
            for number in range(4):
                there[f"sam_prompt_encoder.point_embeddings.{number}.weight"] = weight[number : number + 1].clone()
        elif name == POSITIONS:
            there["sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] = weight
        elif not name.startswith("shared_image_embedding"):
            there[meta_name(name)] = weight
    return there


def write_medsam2(path, network) -> None:
    torch.save({"model": as_meta(network.state_dict())}, path)
