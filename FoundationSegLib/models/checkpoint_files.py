"""A checkpoint's files: found by their names, read without running code, held to what a network needs."""

import json
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..core.cards import ModelCard
from ..core.errors import CheckpointError

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


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], card: ModelCard) -> None:
    """Give a module its weights: all of them, no others, of the right shapes.

    Raises:
        CheckpointError: the weights are another network's.
    """
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not hold the weights of {card.title}") from error
