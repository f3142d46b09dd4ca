"""Checkpoints in safetensors beside a config.json: read from the card's files, held to what a network needs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..core.cards import ModelCard
from ..core.errors import CheckpointError


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


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], card: ModelCard) -> None:
    """Give a module its weights: all of them, no others, of the right shapes.

    Raises:
        CheckpointError: the weights are another network's.
    """
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not hold the weights of {card.title}") from error
