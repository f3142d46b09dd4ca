"""VoxTell: structures and findings by words, in whole volumes; its authors' own predictor does all the work.

The vectors of phrases are looked up in the bank that comes with it, so that the language model of 8 GB is never
loaded. Rokuss M et al., arXiv:2511.11450; the package ``voxtell``.
"""

import codecs
import contextlib
import difflib
import io
import pydoc
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...catalog.model_cards import ModelCard
from ...errors import CheckpointError, PromptError
from ...folders import archive_errors
from ...imaging.masks import EMPTY_MASK, PackedMask, merge_masks, pack_mask
from ...imaging.volume import Turn, Volume, towards_ras
from ...progress import Progress
from ..protocols import VolumeAnswer, VolumePrompt, VolumeWords
from ..weights import DAMAGED, checked, read_json, read_pickle, required_file, weight_bytes

CHECKPOINT, PLANS, BANK = "checkpoint_final.pth", "plans.json", "text_embeddings.npz"
_CONFIGURATION = "3d_fullres"
# The classes that the configuration may name: the package imports them.
_LAYER = re.compile(r"torch\.nn(\.modules\.\w+)?\.\w+")
# Numbers of numpy's, which a training run leaves beside the weights. torch knows them by the names of either numpy.
_NUMBERS = (
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
    codecs.encode,
    *((getattr(np._core.multiarray, name), f"numpy.{core}.multiarray.{name}")
      for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
)  # fmt: skip

_SUGGESTIONS = 3
# Memory of each phrase for every voxel, measured on the host: logits of two bytes, and masks on their way back.
_BYTES_PER_VOXEL = 7


@dataclass(frozen=True, slots=True)
class VoxTellView:
    """An image turned to RAS. Nothing else is kept of it."""

    predictor: Any
    phrase_bytes: int
    array_kji: NDArray[np.generic]
    turn: Turn
    nbytes: int = 0

    def answer(self, prompts: Sequence[VolumePrompt], progress: Progress) -> list[VolumeAnswer]:
        """Segment the phrases, each once; a segment is the union of its phrases.

        Raises:
            PromptError: the bank does not have a phrase.
            Cancelled: ``progress`` was told to stop.
        """
        segments = [
            [self._checked_phrase(part) for part in prompt.parts if isinstance(part, VolumeWords)] for prompt in prompts
        ]
        phrases = tuple(dict.fromkeys(phrase for segment in segments for phrase in segment))
        masks: dict[str, PackedMask] = {}
        at_once = max(1, self.phrase_bytes // (_BYTES_PER_VOXEL * self.array_kji.size))
        runs = 0
        for start in range(0, len(phrases), at_once):
            batch = phrases[start : start + at_once]
            batch_masks, windows = self._segment(batch, progress)
            masks |= dict(zip(batch, batch_masks, strict=True))
            runs += windows
        answers = (
            merge_masks([masks[phrase] for phrase in segment]) if segment else EMPTY_MASK for segment in segments
        )
        return [VolumeAnswer(mask, None, runs if n == 0 else 0) for n, mask in enumerate(answers)]

    def _checked_phrase(self, part: VolumeWords) -> str:
        phrase = " ".join(part.words.lower().split())
        bank = self.predictor.embedding_bank
        if phrase not in bank:
            near = difflib.get_close_matches(phrase, bank, _SUGGESTIONS)
            hint = f"; it knows {' and '.join(map(repr, near))}" if near else ""
            message = (
                f"VoxTell has {len(bank)} phrases whose meaning it knows, and {phrase[:80]!r} is none of them{hint}"
            )
            raise PromptError(message, f"{part.location}.text")
        return phrase

    def _segment(self, phrases: Sequence[str], progress: Progress) -> tuple[list[PackedMask], int]:
        """Masks of phrases on the stored grid, and the number of windows that the network saw."""
        windows = 0

        def report(done: int, total: int) -> None:
            nonlocal windows
            windows = total
            progress.step("decode", done, total)

        leaves = [module for module in self.predictor.network.modules() if not any(module.children())]
        progress.check()
        arguments = self.array_kji[None], list(phrases)
        # The package shows a bar of its own.
        with contextlib.redirect_stderr(io.StringIO()), checked(leaves, progress.check):
            try:
                masks = self.predictor.predict_single_image(*arguments, progress_callback=report)
            except torch.OutOfMemoryError:
                if not self.predictor.perform_everything_on_device:
                    raise
                torch.cuda.empty_cache()
                self.predictor.perform_everything_on_device = False
                masks = self.predictor.predict_single_image(*arguments, progress_callback=report)
        return [pack_mask(self.turn.turn_back(mask)) for mask in masks], windows


@dataclass(frozen=True, slots=True)
class VoxTell:
    """The model: the package's predictor with its weights and the bank of phrases.

    ``phrase_bytes`` is the most memory that phrases take together; more of them are asked one after the other.
    """

    predictor: Any
    device: str
    phrase_bytes: int = 4 * 2**30

    @property
    def precision(self) -> str:
        """Mixed precision on CUDA, which the package chooses, and float32 elsewhere."""
        return "mixed float16" if self.device == "cuda" else "float32"

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights and the bank, in bytes."""
        return weight_bytes(self.predictor.network) + sum(row.nbytes for row in self.predictor.embedding_bank.values())

    def view(self, volume: Volume, progress: Progress) -> VoxTellView:
        """Turn the image to RAS: slices, rows and columns as the package's own reader has them."""
        progress.check()
        turn = towards_ras(volume.geometry)
        return VoxTellView(self.predictor, self.phrase_bytes, turn.turn(volume.array_kji), turn)


def read_weights(card: ModelCard, files: Mapping[str, Path]) -> dict[str, Tensor]:
    """Read the network's weights.

    Raises:
        CheckpointError: the file is damaged, or holds more than numbers.
    """
    with torch.serialization.safe_globals(list(_NUMBERS)):
        return read_pickle(required_file(CHECKPOINT, files, card), card, under="network_weights")


@contextmanager
def model_folder(card: ModelCard, files: Mapping[str, Path]) -> Iterator[Path]:
    """Make a folder in the package's layout, with a checkpoint that holds the weights and nothing that could be run.

    The package reads checkpoints in a way that runs whatever code they hold.

    Raises:
        CheckpointError: a file is damaged or names more than parts of a network, or there is no room on the disk.
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
        layers = [architecture["arch_kwargs"][name] for name in architecture["_kw_requires_import"]]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{card.title}: plans.json is not its configuration; download it again") from error
    for name in layers:
        if name is not None and not (_LAYER.fullmatch(str(name)) and pydoc.locate(str(name))):
            raise CheckpointError(f"{card.title}: plans.json names what is no part of a network; download it again")


def read_bank(card: ModelCard, files: Mapping[str, Path]) -> dict[str, NDArray[np.float16]]:
    """Read the vector of each phrase, in lower case, as (2560,) numbers.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = required_file(BANK, files, card)
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            labels, embeddings = arrays["labels"], arrays["embeddings"]
    except (OSError, *archive_errors()) as error:
        raise CheckpointError(f"{card.title}: {path.name} cannot be read; download it again") from error
    if labels.ndim != 1 or embeddings.ndim != 2 or len(labels) != len(embeddings) or embeddings.dtype.kind != "f":
        raise CheckpointError(f"{card.title}: {path.name} is not a bank of phrases; download it again")
    return {str(label).lower(): embedding for label, embedding in zip(labels.tolist(), embeddings, strict=True)}


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> VoxTell:
    """Load the adapter with its folder; nothing is downloaded, and no language model loaded.

    Raises:
        CheckpointError: a file is missing or damaged, or the files do not fit together.
    """
    bank = read_bank(card, files)
    from voxtell.inference.predictor import VoxTellPredictor

    with model_folder(card, files) as folder:
        try:
            predictor = VoxTellPredictor(str(folder), torch.device(device), embedding_bank=bank)
        except torch.OutOfMemoryError:
            raise
        except DAMAGED as error:
            raise CheckpointError(f"{card.title}: its files do not fit together; download them again") from error
    predictor.network.requires_grad_(False)
    return VoxTell(predictor, device)
