"""nnInteractive's files: what is in them is run, so that they are looked at before the package opens them."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.cards import ModelCard
from ..core.errors import CheckpointError
from .checkpoint_files import read_json, required_file

_CHECKPOINT = "checkpoint_final.pth"
# The classes that its configuration may name: it is read by looking names up and calling what they stand for.
_NETWORK = re.compile(r"dynamic_network_architectures\.architectures\.\w+\.\w+")
_LAYER = re.compile(r"torch\.nn(\.modules\.\w+)?\.\w+")


def trusted_checkpoint(card: ModelCard, files: Mapping[str, Path]) -> tuple[Path, Path]:
    """The weights' file, and the model's folder, of files that may be opened.

    Raises:
        CheckpointError: a file is missing or not the card's, or the configuration names more than a network.
    """
    checkpoint, plans = required_file(_CHECKPOINT, files, card), required_file("plans.json", files, card)
    _require_trusted(card, checkpoint)
    _require_network(read_json(plans, card), card)
    return checkpoint, plans.parent


def _require_trusted(card: ModelCard, checkpoint: Path) -> None:
    """The checkpoint is a full pickle, which may run anything: only the very file that the card names is opened."""
    wanted = next(file.sha256 for file in card.source.files if file.name == _CHECKPOINT)
    if not wanted:
        raise CheckpointError(f"{card.title}: its card gives no hash of {_CHECKPOINT}, which can run code: not opened")
    try:
        with checkpoint.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{card.title}: {checkpoint.name} cannot be read; download it again") from error
    if found != wanted:
        raise CheckpointError(f"{card.title}: {checkpoint.name} is not the file of the card; download it again")


def _require_network(plans: Mapping[str, Any], card: ModelCard) -> None:
    """What the configuration names is imported and called: nothing but networks and their layers may stand there."""
    configurations = plans.get("configurations")
    if not isinstance(configurations, Mapping):
        raise CheckpointError(f"{card.title}: plans.json is not a configuration; download it again")
    for configuration in configurations.values():
        architecture = configuration.get("architecture") if isinstance(configuration, Mapping) else None
        if isinstance(architecture, Mapping) and not _names_a_network(architecture):
            raise CheckpointError(f"{card.title}: plans.json names what is no part of a network; download it again")


def _names_a_network(architecture: Mapping[str, Any]) -> bool:
    arguments, imported = architecture.get("arch_kwargs"), architecture.get("_kw_requires_import")
    if not isinstance(arguments, Mapping) or not isinstance(imported, list):
        return False
    layers = [arguments.get(name) for name in imported]
    return bool(_NETWORK.fullmatch(str(architecture.get("network_class_name")))) and all(
        layer is None or _LAYER.fullmatch(str(layer)) for layer in layers
    )
