"""Small SAM 2 checkpoints with random weights in the true layout, transformers' and that of the authors."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    EdgeTamConfig,
    EdgeTamModel,
    EdgeTamVideoConfig,
    EdgeTamVideoModel,
    Sam2Config,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VideoProcessor,
    Sam2VideoVideoProcessor,
)

SIZE = 256
WIDTH = 128  # two memory tokens to a pointer, where the true network has four


def _reduced(size: int) -> dict[str, Any]:
    """Everything behind the image encoder, which both families have alike."""
    return {
        "prompt_encoder_config": {"image_size": size, "hidden_size": WIDTH},
        "mask_decoder_config": {"hidden_size": WIDTH, "mlp_dim": 64, "iou_head_hidden_dim": 32},
        "image_size": size,
        "memory_attention_hidden_size": WIDTH,
        "memory_attention_rope_feat_sizes": [size // 16] * 2,
        "memory_encoder_hidden_size": WIDTH,
        "mask_downsampler_embed_dim": WIDTH,
        "memory_fuser_embed_dim": WIDTH,
        "memory_fuser_intermediate_dim": 64,
    }


def small_config(size: int = SIZE) -> Sam2VideoConfig:
    """SAM 2 at a reduced width: every module is there, every size of an image is ``size``."""
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "image_size": [size, size],
        "hidden_size": 16,
        "embed_dim_per_stage": [16, 32, 64, 128],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "blocks_per_stage": [1, 1, 2, 1],
        "window_size_per_stage": [8, 4, 14, 7],
        "global_attention_blocks": [3],
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[size // 4] * 2, [size // 8] * 2, [size // 16] * 2],
        "fpn_hidden_size": WIDTH,
    }
    return Sam2VideoConfig(
        vision_config=vision,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=64,
        **_reduced(size),
    )


def small_edgetam_config(size: int = SIZE) -> EdgeTamVideoConfig:
    """EdgeTAM at a reduced width: RepViT with every kind of block, and both kinds of the perceiver's tokens."""
    model = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    body = {"embed_dim": [16, 16, 32, 64], "depth": [2, 1, 2, 1]}
    vision = {
        "model_type": "edgetam_vision_model",
        "backbone_config": {
            "model_type": "timm_wrapper",
            "architecture": "repvit_m1",
            "model_args": model | body,
            "num_classes": 2,
        },
        "backbone_channel_list": [64, 32, 16, 16],
        "backbone_feature_sizes": [[size // 4] * 2, [size // 8] * 2, [size // 16] * 2],
        "fpn_hidden_size": WIDTH,
    }
    return EdgeTamVideoConfig(
        vision_config=vision,
        memory_attention_mlp_hidden_size=64,
        memory_attention_rope_k_sizes=[4, 4],
        perceiver_resampler_num_latents=8,
        perceiver_resampler_num_latents_2d=16,
        **_reduced(size),
    )


@torch.no_grad()
def enliven(network: nn.Module, seed: int) -> None:
    """Random weights that let everything through: transformers' own start at zero in many places.

    Three times as large, they would make of a float32's last bit another mask after a few slices, in transformers, too.
    """
    random = torch.Generator().manual_seed(seed)
    for name, weight in [*network.named_parameters(), *network.named_buffers()]:
        if name.endswith(("inv_freq", "position_ids", "position_ids_k", "num_batches_tracked")):
            continue
        noise = torch.randn(weight.shape, generator=random)
        if name.endswith("running_var"):
            weight.copy_(1 + 0.1 * noise.abs())
        elif ("layer_norm" in name or ".bn" in name) and name.endswith("weight"):
            weight.copy_(1 + 0.1 * noise)
        elif name.endswith(("bias", "running_mean")):
            weight.copy_(0.1 * noise)
        elif weight.ndim > 1 and name.endswith("weight") and "embed." not in name and "token" not in name:
            # RepViT has no norms between its blocks that would keep its features in bounds.
            gain = 1.5 if "hypernetworks" in name else 0.6 if "timm_model" in name else 0.5
            weight.copy_(gain * noise / weight[0].numel() ** 0.5)
        else:
            weight.copy_(noise)
        if "hypernetworks" in name and "proj_out" in name:
            weight.mul_(0.2)  # logits of about +-10, as with trained weights
    # The same numbers, as in every checkpoint.
    shared = network.prompt_encoder.shared_embedding.positional_embedding
    network.shared_image_embedding.positional_embedding.copy_(shared)


def small_network(seed: int = 0, size: int = SIZE) -> Sam2VideoModel:
    """The network, ready to answer."""
    network = Sam2VideoModel(small_config(size)).eval().requires_grad_(False)
    enliven(network, seed)
    return network


def small_edgetam(seed: int = 0, size: int = SIZE) -> EdgeTamVideoModel:
    """EdgeTAM's network, ready to answer."""
    network = EdgeTamVideoModel(small_edgetam_config(size)).eval().requires_grad_(False)
    enliven(network, seed)
    return network


def true_network(family: str, size: int, small: bool) -> nn.Module:
    """The network of SAM 2.1 tiny or EdgeTAM at its true width, with random weights; or the small one."""
    if small:
        return small_edgetam(0, size) if family == "edgetam" else small_network(0, size)
    if family == "sam2":
        network = Sam2VideoModel(Sam2VideoConfig())
    else:
        vision = small_edgetam_config(size).vision_config.to_dict()
        vision |= {"fpn_hidden_size": 256, "backbone_channel_list": [384, 192, 96, 48]}
        for name in ("embed_dim", "depth"):
            del vision["backbone_config"]["model_args"][name]
        network = EdgeTamVideoModel(EdgeTamVideoConfig(vision_config=vision))
    enliven(network.eval().requires_grad_(False), 0)
    return network


def write_checkpoint(folder: Path, network: nn.Module) -> dict[str, Path]:
    """Its files as transformers' repositories have them, by name."""
    size = network.config.image_size
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / name for name in ("config.json", "preprocessor_config.json", "model.safetensors")}
    files["config.json"].write_text(network.config.to_json_string(use_diff=False))
    files["preprocessor_config.json"].write_text(json.dumps(Sam2ImageProcessor(size=square(size)).to_dict()))
    # Each tensor for itself: the file must not say that two share their memory.
    save_file({name: weight.clone() for name, weight in network.state_dict().items()}, files["model.safetensors"])
    return files


def square(size: int) -> dict[str, int]:
    return {"height": size, "width": size}


def image_part(network: nn.Module) -> Sam2Model | EdgeTamModel:
    """transformers' ``Sam2Model`` or ``EdgeTamModel`` with those weights that are also its."""
    config = network.config
    is_edgetam = isinstance(network, EdgeTamVideoModel)
    kind, configuration = (EdgeTamModel, EdgeTamConfig) if is_edgetam else (Sam2Model, Sam2Config)
    image = kind(
        configuration(
            vision_config=config.vision_config.to_dict(),
            prompt_encoder_config=as_image(config.prompt_encoder_config),
            mask_decoder_config=as_image(config.mask_decoder_config),
        )
    )
    missing, _ = image.load_state_dict(network.state_dict(), strict=False)
    if missing:
        raise KeyError(missing)
    return image.eval().requires_grad_(False)


def as_image(config: object) -> dict[str, object]:
    values = config.to_dict()
    values.pop("model_type", None)
    return values


def image_processor(size: int = SIZE) -> Sam2Processor:
    return Sam2Processor(Sam2ImageProcessor(size=square(size)), target_size=size)


def video_processor(size: int = SIZE) -> Sam2VideoProcessor:
    return Sam2VideoProcessor(
        Sam2ImageProcessor(size=square(size)), Sam2VideoVideoProcessor(size=square(size)), target_size=size
    )


def slice_of(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A slice with a bright disc and noise, uint8: (rows, columns) or (rows, columns, 3)."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    far = ((rows - 0.4 * shape[0]) / shape[0]) ** 2 + ((columns - 0.6 * shape[1]) / shape[1]) ** 2
    grey = 60 + 120 * (far < 0.06) + 40 * columns / shape[1]
    grey = grey if len(shape) == 2 else grey[:, :, None] * np.array([1.0, 0.8, 0.6])
    return np.clip(grey + random.normal(0, 12, shape), 0, 255).astype(np.uint8)


def volume_of_slices(slices: int, shape: tuple[int, ...] = (48, 64)) -> list[np.ndarray]:
    return [np.roll(slice_of(shape, seed), 2 * seed, axis=1) for seed in range(slices)]


# Weights under the names of facebookresearch/sam2: written from its modules, not from the product's table. Each of ROWS
# is (a prefix here, the same there, what is called otherwise below it).
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


def write_medsam2(path: Path, network: Sam2VideoModel) -> dict[str, Path]:
    torch.save({"model": as_meta(network.state_dict())}, path)
    return {path.name: path}
