"""What the files of a SAM 2 checkpoint in transformers' layout describe: its network, and how images are prepared."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from transformers import Sam2VideoConfig, Sam2VideoModel

from ..core.cards import ModelCard
from ..core.errors import CheckpointError
from .checkpoint_files import file_called, load_strictly, read_json
from .normalisation import read_normalisation
from .sam2_slices import Preparation


def read_config(path: Path, card: ModelCard) -> Sam2VideoConfig:
    """What the network is made of.

    Raises:
        CheckpointError: it is not that of a SAM 2 video model, or its sizes contradict each other.
    """
    values = read_json(path, card)
    if values.get("model_type") != "sam2_video":
        raise CheckpointError(f"{card.title}: {path.name} is not that of a SAM 2 model; download it again")
    try:
        config = Sam2VideoConfig.from_dict(values)
        fits = _sizes_agree(config)
    except _configuration_errors() as error:
        raise CheckpointError(f"{card.title}: {path.name} cannot be understood; download it again") from error
    if not fits:
        raise CheckpointError(f"{card.title}: {path.name} names image sizes that do not fit; download it again")
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


def read_preparation(files: Mapping[str, Path], size: int, card: ModelCard) -> Preparation:
    """How the checkpoint wants its images; transformers' defaults where it does not say.

    Raises:
        CheckpointError: it wants what SAM 2 does not: another interpolation, or images of another size.
    """
    path = file_called("preprocessor_config.json", files)
    return Preparation(size, read_normalisation(path, card, {"size": {"height": size, "width": size}}))


def build_network(config: Sam2VideoConfig, state: Mapping[str, Tensor], card: ModelCard) -> Sam2VideoModel:
    """The network with exactly these weights.

    Raises:
        CheckpointError: some are missing, left over, or of another shape; or the configuration describes no network.
    """
    try:
        network = Sam2VideoModel(config)
    except _configuration_errors() as error:
        raise CheckpointError(f"{card.title}: its configuration does not describe a network") from error
    load_strictly(network, state, card)
    return network
