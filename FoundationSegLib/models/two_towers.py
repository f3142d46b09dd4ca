"""Checkpoints of networks with two towers: the network, its tokenizer, its preparation of pictures."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.cards import ModelCard
from ..core.errors import CheckpointError
from ..core.packages import missing_packages, requirement_name
from .checkpoint_files import (
    file_called,
    load_strictly,
    read_json,
    read_pickle,
    read_safetensors,
    required_file,
)
from .config_sections import unusable
from .image_text import Preparation, TextReader
from .normalisation import Normalisation

# Counted up in every network, and in old checkpoints none the less.
_COUNTED = ("position_ids", "token_type_ids")
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def read_weights(card: ModelCard, files: Mapping[str, Path]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, whichever of the two formats it is in, without those that are counted up.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = file_called("model.safetensors", files)
    if path is not None:
        state = read_safetensors(path, card)
    else:
        names = ("pytorch_model.bin", "open_clip_pytorch_model.bin")
        name = next((name for name in names if file_called(name, files)), names[0])
        state = read_pickle(required_file(name, files, card), card)
    return {name: value for name, value in state.items() if not name.endswith(_COUNTED)}


def build_network(
    make: Callable[[], nn.Module], state: Mapping[str, Tensor], card: ModelCard, device: str, name: str
) -> nn.Module:
    """A network with its weights, float32, for inference.

    Args:
        make: makes it, with whatever weights.
        state: the weights, all of them and no others.
        card: for the messages.
        device: where it shall compute.
        name: the file that described it, for the messages.

    Raises:
        CheckpointError: there is no such network, or the weights are another's.
    """
    try:
        # Without memory at first: random weights would take seconds, and be thrown away.
        with torch.device("meta"):
            network = make()
    except (ValueError, KeyError, TypeError) as error:
        raise unusable(name, card) from error
    load_strictly(network, {key: value.float() for key, value in state.items()}, card, as_they_are=True)
    for module in network.modules():
        for key, kept in module.named_buffers(recurse=False):
            if key not in _COUNTED:
                raise CheckpointError(f"{card.title}: this version of the packages builds another network: {key}")
            counted = torch.arange(kept.shape[-1]) if key == "position_ids" else torch.zeros(1, dtype=torch.long)
            setattr(module, key, counted.expand(kept.shape).clone())
    return network.to(device).eval().requires_grad_(False)


def read_tokenizer(card: ModelCard, files: Mapping[str, Path]) -> Any:
    """The tokenizer of a checkpoint's folder; nothing is looked up elsewhere, and no code of the folder is run.

    Raises:
        CheckpointError: its files are missing or damaged.
        ModuleNotFoundError: a package that its format needs is not installed.
    """
    path = required_file("tokenizer_config.json", files, card)
    read_json(path, card)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(path.parent), local_files_only=True, trust_remote_code=False)
    except ImportError as error:  # transformers says so at length, and not as Python does
        name = next(map(requirement_name, missing_packages(card.packages)), "that its tokenizer asks for")
        raise ModuleNotFoundError(str(error), name=name) from error
    except Exception as error:  # the parsers of three formats, one of them in Rust, raise what they like
        raise CheckpointError(f"{card.title}: its tokenizer cannot be read; download it again") from error


def read_preparation(path: Path | None, card: ModelCard, size: int, usual: Preparation) -> Preparation:
    """How a preprocessor_config.json has pictures prepared; the usual where it is silent or missing.

    Raises:
        CheckpointError: the file is unreadable, or asks for another size, or for what is not done here.
    """
    if path is None:
        return usual
    document = read_json(path, card)
    wanted = document.get("size", size)
    sides = set(wanted.values()) if isinstance(wanted, dict) else {wanted}
    mean, std = document.get("image_mean", usual.normalisation.mean), document.get("image_std", usual.normalisation.std)
    factor = document.get("rescale_factor", usual.normalisation.factor)
    resample = document.get("resample", usual.resample)
    numbers = [*mean, *std, factor] if isinstance(mean, list | tuple) and isinstance(std, list | tuple) else []
    steps = all(document.get(key, True) is True for key in ("do_resize", "do_rescale", "do_normalize"))
    fits = sides == {size} and steps and resample in (2, 3) and len(numbers) == 7
    if not (fits and all(type(n) in (int, float) for n in numbers) and min(*std, factor) > 0):
        raise CheckpointError(f"{card.title}: {path.name} asks for a preparation of pictures that is not this model's")
    return Preparation(size, Normalisation(tuple(mean), tuple(std), factor), resample, usual.by_pillow)


def load_towers(
    card: ModelCard,
    files: Mapping[str, Path],
    device: str,
    read_config: Callable[[Path, ModelCard], Any],
    make: Callable[[Any], nn.Module],
    usual: Normalisation,
    is_padded: bool,
) -> tuple[Any, Preparation, TextReader]:
    """The network, the preparation of pictures and the reader of texts in a folder of transformers.

    Args:
        card, files, device: as every adapter's ``load`` gets them.
        read_config: the network's sizes, out of config.json.
        make: the network of these sizes, with whatever weights.
        usual: how pictures are prepared where the folder does not say.
        is_padded: texts are filled up to the longest that the network takes.

    Raises:
        CheckpointError: a file is missing or damaged, or they do not describe and hold the network.
    """
    path = required_file("config.json", files, card)
    config = read_config(path, card)
    network = build_network(lambda: make(config), read_weights(card, files), card, device, path.name)
    size = config.vision_config.image_size
    kept = file_called("preprocessor_config.json", files)
    preparation = read_preparation(kept, card, size, Preparation(size, usual))
    reader = TextReader(read_tokenizer(card, files), config.text_config.max_position_embeddings, is_padded=is_padded)
    return network, preparation, reader
