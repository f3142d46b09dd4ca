"""Checkpoints: files found by their names, read without running code, and loaded strictly into a network."""

import json
import pickle
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..catalog.model_cards import ModelCard
from ..errors import CheckpointError
from .protocols import Check

# All that torch raised on 6000 damaged files.
DAMAGED = (
    *(OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(pickle.UnpicklingError, struct.error),
)
# Patterns and their replacements, applied in order, each on the result of those before it.
RenameRules = Sequence[tuple[str, str]]
# The prompt encoder and the mask decoder, from the original SAM's names to those of transformers' convert_sam_to_hf.py.
DECODER_RULES: RenameRules = (
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.0", r"\1.proj_in"),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.1", r"\1.layers.0"),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.2", r"\1.proj_out"),
    (r"mask_downscaling\.0", "mask_embed.conv1"),
    (r"mask_downscaling\.1", "mask_embed.layer_norm1"),
    (r"mask_downscaling\.3", "mask_embed.conv2"),
    (r"mask_downscaling\.4", "mask_embed.layer_norm2"),
    (r"mask_downscaling\.6", "mask_embed.conv3"),
    (r"output_upscaling\.0", "upscale_conv1"),
    (r"output_upscaling\.1", "upscale_layer_norm"),
    (r"output_upscaling\.3", "upscale_conv2"),
    (r"point_embeddings", "point_embed"),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    (r"\.norm", ".layer_norm"),
)
# One table of SAM under two names. Transformers saves it once, or in its version 5 SAM 2's twice.
_SHARED_TABLE = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")


def file_called(name: str, files: Mapping[str, Path]) -> Path | None:
    """Path of the file of that name, in any folder of its repository; None where the card has none."""
    return next((path for key, path in files.items() if key.rpartition("/")[2] == name), None)


def required_file(name: str, files: Mapping[str, Path], card: ModelCard) -> Path:
    """Path of the file of that name.

    Raises:
        CheckpointError: the card has none.
    """
    path = file_called(name, files)
    if path is None:
        raise CheckpointError(f"{card.title}: its card names no {name}, which the weights cannot be read without")
    return path


def only_file(card: ModelCard, files: Mapping[str, Path]) -> Path:
    """Path of the weights of a card whose checkpoint is a single file."""
    return files[card.source.files[0].path]


def read_json(path: Path, card: ModelCard) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        CheckpointError: the file is unreadable, or not one object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{card.title}: {path.name} cannot be read; download it again") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{card.title}: {path.name} is not a configuration; download it again")
    return document


def read_safetensors(path: Path, card: ModelCard) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file to the CPU. The format cannot hold code.

    Raises:
        CheckpointError: the file is missing, damaged, or of another format.
    """
    try:
        return load_file(path)
    # A header with false sizes comes through as one of the latter two.
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{card.title}: {path.name} is damaged or not in the safetensors format; download it again"
        ) from error


def read_pickle(path: Path, card: ModelCard, under: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of a file that ``torch.save`` wrote to the CPU, without running any code that it may hold.

    Args:
        path: the file; it holds a dictionary of tensors.
        card: for the messages.
        under: the key of that dictionary, where the file holds more.

    Raises:
        CheckpointError: the file is missing or damaged, or holds something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        raise unreadable(path, card, error) from error
    if under is not None:
        content = content.get(under) if isinstance(content, dict) else None
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise CheckpointError(f"{card.title}: {path.name} is not a plain dictionary of weights")
    return content


def unreadable(path: Path, card: ModelCard, error: Exception) -> CheckpointError:
    """Make the error for a file that torch cannot read, or does not read because of a class, which is named."""
    foreign = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
    reason = f": it names {foreign[1]}, which is no part of its weights, and nothing of it was run" if foreign else ""
    return CheckpointError(f"{card.title}: {path.name} cannot be read{reason}; download it again")


def renamed(name: str, rules: RenameRules) -> str:
    """Apply the rules to the name of a weight."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def share_table(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add SAM's table of positions under both of its names, where the weights have it under one."""
    table = next((state[name] for name in _SHARED_TABLE if name in state), None)
    return dict(state) if table is None else {**dict.fromkeys(_SHARED_TABLE, table), **state}


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], card: ModelCard, *, assign: bool = False) -> None:
    """Load weights into a module: all of them, no others, of the right shapes.

    ``assign`` makes the tensors themselves the weights, instead of copying them into those that are there.

    Raises:
        CheckpointError: the weights are another network's.
    """
    try:
        module.load_state_dict(state, strict=True, assign=assign)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not hold the weights of {card.title}") from error


def read_config(path: Path, card: ModelCard, kind: type[Any], sections: Mapping[str, type[Any]], **numbers: int) -> Any:
    """Read the sizes of a network from a config.json of transformers.

    Args:
        path: the file.
        card: for the messages.
        kind: the class of the configuration.
        sections: its parts, by their names in the file, and their classes.
        numbers: whole numbers above zero beside the parts, and their defaults.

    Raises:
        CheckpointError: the file is unreadable, or describes another network.
    """
    document = read_json(path, card)
    values = {name: document.get(name, default) for name, default in numbers.items()}
    if document.get("model_type") != kind.model_type or not all(type(n) is int and n > 0 for n in values.values()):
        raise unusable(path.name, card)
    parts = {name: read_section(section, document.get(name, {}), path, card) for name, section in sections.items()}
    return kind(**values, **{name: part.to_dict() for name, part in parts.items()})


def read_section(kind: type[Any], section: object, path: Path, card: ModelCard) -> Any:
    """Read a part of a configuration of transformers.

    Only the keys that describe the network are read. Files of 2023 hold others, which later transformers refuse or
    warn of.

    Args:
        kind: the class of the part, a ``PretrainedConfig``.
        section: its value in the file.
        path: the file, for the messages.
        card: for the messages.

    Raises:
        CheckpointError: a value is of another type than the usual one.
    """
    from huggingface_hub import errors
    from transformers import PretrainedConfig

    defaults = kind().to_dict()
    names = defaults.keys() - PretrainedConfig().to_dict().keys()
    if not isinstance(section, dict):
        raise unusable(path.name, card)
    values = {key: value for key, value in section.items() if key in names and value is not None}
    if not all(_has_type_of(key, value, defaults[key]) for key, value in values.items()):
        raise unusable(path.name, card)
    refusals = getattr(errors, "StrictDataclassError", ValueError)  # raised by transformers from 5 on
    try:
        return kind(**values)
    except (ValueError, KeyError, refusals) as error:
        raise unusable(path.name, card) from error


def _has_type_of(key: str, value: object, default: object) -> bool:
    """True for a value of the default's type; whole numbers are above zero, but for tokens."""
    if isinstance(default, bool | str):
        return isinstance(value, type(default))
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple) and all(type(item) is int for item in value)
    if isinstance(default, float):
        return isinstance(value, float | int)
    return type(value) is int and value >= (0 if key.endswith("_token_id") else 1)


def unusable(name: str, card: ModelCard) -> CheckpointError:
    """Make the error for a file that describes another network."""
    return CheckpointError(f"{card.title}: {name} does not describe a network of the family {card.family}")


def weight_bytes(*modules: nn.Module) -> int:
    """Memory taken by the parameters and buffers of modules, in bytes."""
    return sum(tensor.nbytes for module in modules for tensor in (*module.parameters(), *module.buffers()))


@contextmanager
def checked(modules: Iterable[nn.Module], check: Check) -> Iterator[None]:
    """Call ``check`` before each of the modules runs."""
    hooks = [module.register_forward_pre_hook(lambda *_: check()) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
