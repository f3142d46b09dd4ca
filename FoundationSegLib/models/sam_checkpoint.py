"""SAM's network from a checkpoint in the layout of transformers: config.json and model.safetensors.

Nothing here looks beyond the card's files: no name of a repository is ever given to transformers.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import SamConfig, SamModel
from transformers.models.sam.configuration_sam import SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

from ..core.cards import ModelCard
from .checkpoint_files import load_strictly, read_json, read_safetensors, required_file
from .config_sections import read_section, unusable
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
        raise unusable("config.json", card) from error
    model.to_empty(device=device)
    load_strictly(model, with_shared_table(state), card)
    return model.eval().requires_grad_(False)


def read_config(path: Path, card: ModelCard) -> SamConfig:
    """The network's sizes, from a config.json.

    Raises:
        CheckpointError: the file is unreadable, or describes something else than SAM.
    """
    document = read_json(path, card)
    if document.get("model_type") != "sam":
        raise unusable(path.name, card)
    config = SamConfig(
        **{name: read_section(_SECTIONS[name], document.get(name, {}), path, card) for name in _SECTIONS}
    )
    vision, prompts = config.vision_config, config.prompt_encoder_config
    if (vision.image_size, vision.patch_size) != (prompts.image_size, prompts.patch_size):
        raise unusable(path.name, card)
    return config
