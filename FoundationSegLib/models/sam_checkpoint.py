"""SAM's network from a checkpoint in the layout of transformers: config.json and model.safetensors.

Nothing here looks beyond the card's files: no name of a repository is ever given to transformers.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import PretrainedConfig, SamConfig, SamModel
from transformers.models.sam.configuration_sam import SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

from ..core.cards import ModelCard
from ..core.errors import CheckpointError
from .checkpoint_files import load_strictly, read_json, read_safetensors, required_file
from .original_sam import with_shared_table

_SECTIONS = {
    "vision_config": SamVisionConfig,
    "prompt_encoder_config": SamPromptEncoderConfig,
    "mask_decoder_config": SamMaskDecoderConfig,
}


def load_sam(card: ModelCard, files: Mapping[str, Path], device: str) -> SamModel:
    """The network on the device, float32, for inference.

    Args:
        card: for the messages.
        files: where each file of the checkpoint lies, by the path the card gives it; config.json and
            model.safetensors are looked for by their names, in any folder.
        device: ``"cuda"``, ``"mps"`` or ``"cpu"``.

    Raises:
        CheckpointError: a file is missing, damaged, or does not hold SAM's network as config.json describes it.
    """
    config = read_config(required_file("config.json", files, card), card)
    state = read_safetensors(required_file("model.safetensors", files, card), card)
    try:
        # Without memory at first: random weights of the largest SAM would take ten seconds, and be thrown away.
        with torch.device("meta"):
            model = SamModel(config)
    # What the sizes rule out, or an activation that transformers has not.
    except (ValueError, KeyError) as error:
        raise _unusable("config.json", card) from error
    model.to_empty(device=device)
    load_strictly(model, with_shared_table(state), card)
    return model.eval().requires_grad_(False)


def read_config(path: Path, card: ModelCard) -> SamConfig:
    """The network's sizes, from a config.json.

    Only what describes the network is read. Files of 2023 hold much else, which later transformers refuse or warn of.

    Raises:
        CheckpointError: the file is unreadable, or describes something else than SAM.
    """
    document = read_json(path, card)
    if document.get("model_type") != "sam":
        raise _unusable(path.name, card)
    config = SamConfig(**{name: _section(document.get(name, {}), name, path, card) for name in _SECTIONS})
    vision, prompts = config.vision_config, config.prompt_encoder_config
    if (vision.image_size, vision.patch_size) != (prompts.image_size, prompts.patch_size):
        raise _unusable(path.name, card)
    return config


def _section(given: object, name: str, path: Path, card: ModelCard) -> PretrainedConfig:
    kind = _SECTIONS[name]
    usual = kind().to_dict()
    names = usual.keys() - PretrainedConfig().to_dict().keys()
    if not isinstance(given, dict):
        raise _unusable(path.name, card)
    known = {key: value for key, value in given.items() if key in names and value is not None}
    if not all(_is_like(value, usual[key]) for key, value in known.items()):
        raise _unusable(path.name, card)
    return kind(**known)


def _is_like(value: object, usual: object) -> bool:
    """Whether a value may stand where another does: of its type, and whole numbers above zero."""
    if isinstance(usual, bool | str):
        return isinstance(value, type(usual))
    if isinstance(usual, list | tuple):
        return isinstance(value, list | tuple) and all(type(item) is int for item in value)
    if isinstance(usual, float):
        return isinstance(value, float | int)
    return type(value) is int and value > 0


def _unusable(name: str, card: ModelCard) -> CheckpointError:
    return CheckpointError(f"{card.title}: {name} does not describe a network of the family {card.family}")
