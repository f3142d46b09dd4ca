"""Small SAM 2 checkpoints with random weights in the true layout, and what transformers itself says with them."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
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
        prompt_encoder_config={"image_size": size, "hidden_size": WIDTH},
        mask_decoder_config={"hidden_size": WIDTH, "mlp_dim": 64, "iou_head_hidden_dim": 32},
        image_size=size,
        memory_attention_hidden_size=WIDTH,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=64,
        memory_attention_rope_feat_sizes=[size // 16] * 2,
        memory_encoder_hidden_size=WIDTH,
        mask_downsampler_embed_dim=WIDTH,
        memory_fuser_embed_dim=WIDTH,
        memory_fuser_intermediate_dim=64,
    )


@torch.no_grad()
def enliven(network: nn.Module, seed: int) -> None:
    """Random weights that let everything through: transformers' own start at zero in many places."""
    random = torch.Generator().manual_seed(seed)
    for name, weight in [*network.named_parameters(), *network.named_buffers()]:
        if name.endswith(("inv_freq", "position_ids")):
            continue
        noise = torch.randn(weight.shape, generator=random)
        if "layer_norm" in name and name.endswith("weight"):
            weight.copy_(1 + 0.1 * noise)
        elif name.endswith("bias"):
            weight.copy_(0.1 * noise)
        elif weight.ndim > 1 and name.endswith("weight") and "embed." not in name and "token" not in name:
            weight.copy_(1.5 * noise / weight[0].numel() ** 0.5)
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


def write_checkpoint(folder: Path, network: Sam2VideoModel) -> dict[str, Path]:
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


def image_part(network: Sam2VideoModel) -> Sam2Model:
    """transformers' ``Sam2Model`` with those weights that are also its."""
    config = network.config
    image = Sam2Model(
        Sam2Config(
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
