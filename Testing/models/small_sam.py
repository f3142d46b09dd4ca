"""Checkpoints of SAM's family with random weights: the true names and files, a small network."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import SamConfig, SamModel
from transformers.models.sam.configuration_sam import SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

from FoundationSegLib.models.segmentation.lite_medsam import TinyVitEncoder, build_decoder
from Testing.models.small_sam2 import POSITIONS, meta_name

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def small_config(size: int = 256, heads: int = 2) -> SamConfig:
    """Every part of the true network: a layer with windows and one without, all of the decoder, fewer channels."""
    channels = 32
    return SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=32,
            output_channels=channels,
            num_hidden_layers=2,
            num_attention_heads=heads,
            image_size=size,
            global_attn_indexes=[1],
            num_pos_feats=channels // 2,
            mlp_dim=64,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(hidden_size=channels, image_size=size),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=channels, mlp_dim=64, num_attention_heads=4, iou_head_hidden_dim=channels
        ),
    )


def random_model(config: SamConfig, seed: int = 0) -> SamModel:
    """Weights under which every term counts: fresh ones have zeros for biases and positions, and next to no logits."""
    torch.manual_seed(seed)
    return randomised(SamModel(config).eval().requires_grad_(False))


def randomised(model: SamModel) -> SamModel:
    for name, value in model.named_parameters():
        if name.endswith("positional_embedding"):
            value.normal_()
        elif "norm" in name and name.endswith("weight"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("bias") or "pos" in name or "embed." in name:
            value.normal_(0, 0.3)
        else:
            value.normal_(0, 1.5 * value[0].numel() ** -0.5)
    # Predicted IoUs on both sides of the range and in it, as those of the true network.
    head = model.mask_decoder.iou_prediction_head.proj_out
    head.weight.mul_(0.2)
    head.bias.add_(0.6)
    return model


def preprocessor(side: int, /, **changes: Any) -> dict[str, Any]:
    """The preprocessor_config.json of SAM on the Hub, for that size."""
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(MEAN),
        "image_processor_type": "SamImageProcessor",
        "image_std": list(STD),
        "pad_size": {"height": side, "width": side},
        "processor_class": "SamProcessor",
        "resample": 2,
        "rescale_factor": 0.00392156862745098,
        "size": {"longest_edge": side},
    } | changes


def write_checkpoint(folder: Path, config: SamConfig, seed: int = 0, **preparation: Any) -> Mapping[str, Path]:
    """The three files of SAM's repositories in a folder, by their names."""
    model = random_model(config, seed)
    # As on the Hub: the table of positions that two parts share is there once.
    state = {k: v.contiguous() for k, v in model.state_dict().items() if "prompt_encoder.shared_embedding" not in k}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    document = config.to_dict() | {"architectures": ["SamModel"]}
    (folder / "config.json").write_text(json.dumps(document), encoding="utf-8")
    wanted = preprocessor(config.vision_config.image_size, **preparation)
    (folder / "preprocessor_config.json").write_text(json.dumps(wanted), encoding="utf-8")
    return {name: folder / name for name in ("model.safetensors", "config.json", "preprocessor_config.json")}


def mobile_sam_modules(seed: int = 0) -> tuple[TinyVitEncoder, SamModel]:
    """MobileSAM's encoder and decoder; no weight depends on the size of the image, which is 256 here."""
    torch.manual_seed(seed)
    encoder, decoder = TinyVitEncoder(single_pixels=False).eval().requires_grad_(False), build_decoder(256, patch=16)
    for name, value in encoder.state_dict().items():
        if name.endswith(("bn.weight", "running_var")):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("bias", "attention_biases", "running_mean")):
            value.normal_(0, 0.2)
        elif value.ndim > 1:  # fresh ones hide the image behind the biases
            value.normal_(0, 0.8 * value[0].numel() ** -0.5)
    return encoder, randomised(decoder.eval().requires_grad_(False))


def mobile_sam_state(encoder: TinyVitEncoder, decoder: SamModel) -> dict[str, torch.Tensor]:
    """Weights under the names of the authors' repository, with the head that they left in."""
    state = {"image_encoder.head.weight": torch.zeros(1000, 320), "image_encoder.head.bias": torch.zeros(1000)}
    state |= {f"image_encoder.norm_head.{name}": torch.zeros(320) for name in ("weight", "bias")}
    for name, value in encoder.state_dict().items():
        name = re.sub(r"stages\.(\d)\.downsample", lambda match: f"layers.{int(match[1]) - 1}.downsample", name)
        name = re.sub(r"patch_embed\.conv(\d)", lambda match: f"patch_embed.seq.{2 * int(match[1]) - 2}", name)
        state["image_encoder." + name.replace("stages.", "layers.").replace(".conv.weight", ".c.weight")] = value
    for name, value in decoder.state_dict().items():
        if name == POSITIONS:
            state["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] = value
        elif not name.startswith("shared_image_embedding"):
            state[meta_name(name).replace("encoder.point_embed.", "encoder.point_embeddings.").removeprefix("sam_")] = (
                value
            )
    return state


def write_mobile_sam(folder: Path) -> Mapping[str, Path]:
    path = folder / "mobile_sam.pt"
    torch.save(mobile_sam_state(*mobile_sam_modules()), path)
    return {path.name: path}
