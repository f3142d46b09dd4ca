"""A checkpoint's files: found by their names, read without running code, held to what a network needs."""

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

# What torch raises where a file is damaged: all that was seen of 6000 damaged ones.
DAMAGED = (
    *(OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(pickle.UnpicklingError, struct.error),
)


def file_called(name: str, files: Mapping[str, Path]) -> Path | None:
    """Where the file of that name lies, in whichever folder of its repository it is; None where the card has none."""
    return next((path for key, path in files.items() if key.rpartition("/")[2] == name), None)


def required_file(name: str, files: Mapping[str, Path], card: ModelCard) -> Path:
    """Where the file of that name lies.

    Raises:
        CheckpointError: the card has none.
    """
    path = file_called(name, files)
    if path is None:
        raise CheckpointError(f"{card.title}: its card names no {name}, which the weights cannot be read without")
    return path


def read_json(path: Path, card: ModelCard) -> dict[str, Any]:
    """A configuration file.

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
    """The tensors of a safetensors file, on the CPU. The format cannot hold code; whatever else poses as it is refused.

    Raises:
        CheckpointError: the file is missing, damaged, or of another format.
    """
    try:
        return load_file(path)
    # A header that lies about the sizes comes through as one of the latter two.
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{card.title}: {path.name} is damaged or not in the safetensors format; download it again"
        ) from error


def read_pickle(path: Path, card: ModelCard, under: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file that ``torch.save`` wrote, without running any code that it may hold; on the CPU.

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
        raise CheckpointError(f"{card.title}: {path.name} cannot be read; download it again") from error
    if under is not None:
        content = content.get(under) if isinstance(content, dict) else None
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise CheckpointError(f"{card.title}: {path.name} is not a plain dictionary of weights")
    return content


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], card: ModelCard, *, as_they_are: bool = False
) -> None:
    """Give a module its weights: all of them, no others, of the right shapes.

    ``as_they_are`` makes the tensors themselves the weights, instead of copying them into those that are there.

    Raises:
        CheckpointError: the weights are another network's.
    """
    try:
        module.load_state_dict(state, strict=True, assign=as_they_are)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not hold the weights of {card.title}") from error


def read_section(kind: type[Any], given: object, path: Path, card: ModelCard) -> Any:
    """A part of a configuration.

    Only what describes the network is read. Files of 2023 hold much else, which later transformers refuse or warn of.

    Args:
        kind: the class of the part.
        given: what the file says of it.
        path: the file, for the messages.
        card: for the messages.

    Raises:
        CheckpointError: a value is of another type than the usual one.
    """
    from huggingface_hub import errors
    from transformers import PretrainedConfig

    usual = kind().to_dict()
    names = usual.keys() - PretrainedConfig().to_dict().keys()
    if not isinstance(given, dict):
        raise unusable(path.name, card)
    known: Mapping[str, Any] = {key: value for key, value in given.items() if key in names and value is not None}
    if not all(_is_like(key, value, usual[key]) for key, value in known.items()):
        raise unusable(path.name, card)
    refusals = getattr(errors, "StrictDataclassError", ValueError)  # what transformers from 5 on raises
    try:
        return kind(**known)
    except (ValueError, KeyError, refusals) as error:
        raise unusable(path.name, card) from error


def _is_like(key: str, value: object, usual: object) -> bool:
    """Whether a value may stand where another does: of its type, and whole numbers above zero, but for tokens."""
    if isinstance(usual, bool | str):
        return isinstance(value, type(usual))
    if isinstance(usual, list | tuple):
        return isinstance(value, list | tuple) and all(type(item) is int for item in value)
    if isinstance(usual, float):
        return isinstance(value, float | int)
    return type(value) is int and value >= (0 if key.endswith("_token_id") else 1)


def unusable(name: str, card: ModelCard) -> CheckpointError:
    """The error for a file that describes another network."""
    return CheckpointError(f"{card.title}: {name} does not describe a network of the family {card.family}")


Rules = Sequence[tuple[str, str]]

# Of the prompt encoder and the mask decoder (transformers' convert_sam_to_hf.py); order matters.
DECODER_RULES = (
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
# One table of the original under two names. Transformers saves it once, or in its version 5 SAM 2's twice.
_SHARED = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")


def renamed(name: str, rules: Rules) -> str:
    """A name after every rule, a pattern and what replaces it, each on the result of those before it."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def with_shared_table(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the table of positions under both of its names, where it came under one."""
    table = next((state[name] for name in _SHARED if name in state), None)
    return dict(state) if table is None else {**dict.fromkeys(_SHARED, table), **state}


def weight_bytes(*modules: nn.Module) -> int:
    """Memory taken by the weights, and by what else the modules keep, in bytes."""
    return sum(kept.nbytes for module in modules for kept in (*module.parameters(), *module.buffers()))


@contextmanager
def checked(modules: Iterable[nn.Module], check: Check) -> Iterator[None]:
    """Call ``check`` before each of the modules runs."""
    hooks = [module.register_forward_pre_hook(lambda *_: check()) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
