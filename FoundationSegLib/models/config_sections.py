"""The sizes of a network from a config.json in the layout of transformers: what describes it, and nothing else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from ..core.cards import ModelCard
from ..core.errors import CheckpointError


def read_section(kind: type[PretrainedConfig], given: object, path: Path, card: ModelCard) -> PretrainedConfig:
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
    usual = kind().to_dict()
    names = usual.keys() - PretrainedConfig().to_dict().keys()
    if not isinstance(given, dict):
        raise unusable(path.name, card)
    known: Mapping[str, Any] = {key: value for key, value in given.items() if key in names and value is not None}
    if not all(_is_like(key, value, usual[key]) for key, value in known.items()):
        raise unusable(path.name, card)
    from huggingface_hub import errors

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
