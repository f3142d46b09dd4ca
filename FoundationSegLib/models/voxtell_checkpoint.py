"""VoxTell's files: a checkpoint that is read without running code, a network's configuration, a bank of phrases."""

import codecs
import pydoc
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.cards import ModelCard
from ..core.errors import CheckpointError
from .checkpoint_files import read_json, read_pickle, required_file

CHECKPOINT, PLANS, BANK = "checkpoint_final.pth", "plans.json", "text_embeddings.npz"
_CONFIGURATION = "3d_fullres"
# The classes that the configuration may name: the package imports what stands there.
_LAYER = re.compile(r"torch\.nn(\.modules\.\w+)?\.\w+")
# What a training run leaves beside the weights: numbers of numpy's. torch knows them by the names of either numpy.
_NUMBERS = (
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
    codecs.encode,
    *((getattr(np._core.multiarray, name), f"numpy.{core}.multiarray.{name}")
      for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
)  # fmt: skip

Bank = Mapping[str, NDArray[np.float16]]


def read_weights(card: ModelCard, files: Mapping[str, Path]) -> dict[str, Tensor]:
    """The network's weights.

    Raises:
        CheckpointError: the file is damaged, or holds more than numbers.
    """
    with torch.serialization.safe_globals(list(_NUMBERS)):
        return read_pickle(required_file(CHECKPOINT, files, card), card, under="network_weights")


@contextmanager
def model_folder(card: ModelCard, files: Mapping[str, Path]) -> Iterator[Path]:
    """A folder in the package's layout, with a checkpoint that holds the weights and nothing that could be run.

    The package reads checkpoints in a way that runs whatever code they hold.

    Raises:
        CheckpointError: a file is damaged or names what is no part of a network, or there is no room on the disk.
    """
    plans = required_file(PLANS, files, card)
    require_network(read_json(plans, card), card)
    weights = read_weights(card, files)
    with tempfile.TemporaryDirectory(prefix="voxtell-") as name:
        folder = Path(name)
        try:
            (folder / PLANS).write_bytes(plans.read_bytes())
            (folder / "fold_0").mkdir()
            torch.save({"network_weights": weights}, folder / "fold_0" / CHECKPOINT)
        except (OSError, RuntimeError) as error:
            room = sum(value.nbytes for value in weights.values()) // 10**6
            message = f"{card.title} needs {room} MB in the folder for temporary files while it is loaded"
            raise CheckpointError(message) from error
        del weights
        yield folder


def require_network(plans: Mapping[str, Any], card: ModelCard) -> None:
    """Make sure that a configuration names layers of a network and nothing else.

    Raises:
        CheckpointError: it does not.
    """
    try:
        architecture = plans["configurations"][_CONFIGURATION]["architecture"]
        named = [architecture["arch_kwargs"][name] for name in architecture["_kw_requires_import"]]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{card.title}: plans.json is not its configuration; download it again") from error
    for name in named:
        if name is not None and not (_LAYER.fullmatch(str(name)) and pydoc.locate(str(name))):
            raise CheckpointError(f"{card.title}: plans.json names what is no part of a network; download it again")


def read_bank(card: ModelCard, files: Mapping[str, Path]) -> Bank:
    """The meaning of each known phrase, in lower case, as (2560,) numbers.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = required_file(BANK, files, card)
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            labels, embeddings = arrays["labels"], arrays["embeddings"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{card.title}: {path.name} cannot be read; download it again") from error
    if labels.ndim != 1 or embeddings.ndim != 2 or len(labels) != len(embeddings) or embeddings.dtype.kind != "f":
        raise CheckpointError(f"{card.title}: {path.name} is not a bank of phrases; download it again")
    return {str(label).lower(): embedding for label, embedding in zip(labels.tolist(), embeddings, strict=True)}
