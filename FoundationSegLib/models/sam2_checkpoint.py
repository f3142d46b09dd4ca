"""A SAM 2 checkpoint in transformers' layout: config.json, model.safetensors, preprocessor_config.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import Sam2VideoConfig, Sam2VideoModel

from ..core.errors import CheckpointError
from .sam2_slices import Preparation

CONFIG, WEIGHTS, PREPARATION = "config.json", "model.safetensors", "preprocessor_config.json"
_BILINEAR = 2  # as Pillow counts
# The same numbers under two names. Files that transformers 4 wrote hold the first alone.
_SHARED_EMBEDDINGS = (
    "shared_image_embedding.positional_embedding",
    "prompt_encoder.shared_embedding.positional_embedding",
)


def read_config(files: Mapping[str, Path], title: str) -> Sam2VideoConfig:
    """What the network is made of.

    Raises:
        CheckpointError: it is not that of a SAM 2 video model, or its sizes contradict each other.
    """
    values = _read_json(files, CONFIG, title)
    if values.get("model_type") != "sam2_video":
        raise CheckpointError(f"{CONFIG} of {title} is not that of a SAM 2 model; download it again")
    try:
        config = Sam2VideoConfig.from_dict(values)
        fits = _sizes_agree(config)
    except _configuration_errors() as error:
        raise CheckpointError(f"{CONFIG} of {title} cannot be understood; download it again") from error
    if not fits:
        raise CheckpointError(f"{CONFIG} of {title} names image sizes that do not fit together; download it again")
    return config


def _configuration_errors() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import StrictDataclassError

    return AttributeError, KeyError, TypeError, ValueError, StrictDataclassError


def _sizes_agree(config: Sam2VideoConfig) -> bool:
    """No weight has a shape that depends on the image's size, so that loading would not notice a wrong one."""
    size = config.image_size
    vision = config.vision_config
    return (
        list(vision.backbone_config.image_size) == [size, size]
        and config.prompt_encoder_config.image_size == size
        and [list(level) for level in vision.backbone_feature_sizes] == [[size // n] * 2 for n in (4, 8, 16)]
        and list(config.memory_attention_rope_feat_sizes) == [size // 16] * 2
    )


def read_preparation(files: Mapping[str, Path], size: int, title: str) -> Preparation:
    """How the checkpoint wants its images; transformers' defaults where it does not say.

    Raises:
        CheckpointError: it wants what SAM 2 does not: another interpolation, or images of another size.
    """
    if PREPARATION not in files:
        return Preparation(size)
    values = _read_json(files, PREPARATION, title)
    usual = Preparation(size)
    wanted = values.get("size", {"height": size, "width": size})
    steps = all(values.get(name, True) for name in ("do_resize", "do_rescale", "do_normalize"))
    if not steps or values.get("resample", _BILINEAR) != _BILINEAR or wanted != {"height": size, "width": size}:
        raise CheckpointError(f"{PREPARATION} of {title} does not fit its {CONFIG}; download it again")
    try:
        mean, std = (tuple(map(float, values.get(f"image_{name}", getattr(usual, name)))) for name in ("mean", "std"))
        return Preparation(size, float(values.get("rescale_factor", usual.scale)), mean, std)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{PREPARATION} of {title} cannot be understood; download it again") from error


def read_weights(files: Mapping[str, Path], title: str) -> dict[str, Tensor]:
    """The tensors of the checkpoint by name.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        state = load_file(files[WEIGHTS])
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{WEIGHTS} of {title} cannot be read; download it again") from error
    shared = [name for name in _SHARED_EMBEDDINGS if name in state]
    return state | {name: state[shared[0]] for name in _SHARED_EMBEDDINGS if shared and name not in state}


def build_network(config: Sam2VideoConfig, state: Mapping[str, Tensor], title: str) -> Sam2VideoModel:
    """The network with exactly these weights.

    Raises:
        CheckpointError: some are missing, left over, or of another shape.
    """
    network = Sam2VideoModel(config)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not hold the weights of {title}; download it again") from error
    return network


def _read_json(files: Mapping[str, Path], name: str, title: str) -> dict[str, Any]:
    try:
        values = json.loads(files[name].read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{name} of {title} cannot be read; download it again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{name} of {title} is not what it should be; download it again")
    return values
