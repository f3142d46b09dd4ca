"""VoxTell: structures and findings by words, in whole volumes; its authors' own predictor does all the work.

The meaning of the phrases that it is asked is looked up in the bank that comes with it, so that the language model of
8 GB is never loaded. Rokuss M et al., arXiv:2511.11450; the package ``voxtell``.
"""

import contextlib
import difflib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.cards import ModelCard
from ..core.errors import CheckpointError, PromptError
from ..core.mask import EMPTY_MASK, PackedMask, merge_masks, pack_mask
from ..core.progress import Progress
from ..core.reorientation import Turn, towards_ras
from ..core.volume import Volume
from .checkpoint_files import DAMAGED
from .modules import checked, weight_bytes
from .volume_base import VolumeAnswer, VolumePrompt, VolumeWords
from .voxtell_checkpoint import model_folder, read_bank

_SUGGESTIONS = 3
# What each phrase takes for every voxel, measured on the host: logits of two bytes, and masks on their way back.
_BYTES_PER_VOXEL = 7
_PHRASE_BYTES = 4 * 2**30


@dataclass(frozen=True, slots=True)
class VoxTellView:
    """An image as VoxTell sees it: turned to RAS. Nothing else is kept of it."""

    predictor: Any
    array_kji: NDArray[np.generic]
    turn: Turn
    nbytes: int = 0

    def answer(self, prompts: Sequence[VolumePrompt], progress: Progress) -> list[VolumeAnswer]:
        """A segment is all that its phrases mean; every phrase is asked once.

        Raises:
            PromptError: the meaning of a phrase is not known.
            Cancelled: ``progress`` was told to stop.
        """
        asked = [[self._known(part) for part in prompt.parts if isinstance(part, VolumeWords)] for prompt in prompts]
        phrases = tuple(dict.fromkeys(phrase for one in asked for phrase in one))
        found: dict[str, PackedMask] = {}
        at_once = max(1, _PHRASE_BYTES // (_BYTES_PER_VOXEL * self.array_kji.size))
        runs = 0
        for start in range(0, len(phrases), at_once):
            some = phrases[start : start + at_once]
            masks, more = self._ask(some, progress)
            found |= dict(zip(some, masks, strict=True))
            runs += more
        masks = [merge_masks([found[phrase] for phrase in one]) if one else EMPTY_MASK for one in asked]
        return [VolumeAnswer(mask, None, runs if n == 0 else 0) for n, mask in enumerate(masks)]

    def _known(self, part: VolumeWords) -> str:
        phrase = " ".join(part.words.lower().split())
        bank = self.predictor.embedding_bank
        if phrase not in bank:
            near = difflib.get_close_matches(phrase, bank, _SUGGESTIONS)
            hint = f"; it knows {' and '.join(map(repr, near))}" if near else ""
            message = (
                f"VoxTell has {len(bank)} phrases whose meaning it knows, and {phrase[:80]!r} is none of them{hint}"
            )
            raise PromptError(message, f"{part.place}.text")
        return phrase

    def _ask(self, phrases: Sequence[str], progress: Progress) -> tuple[list[PackedMask], int]:
        """What phrases mean, on the stored grid, and how many windows were looked at."""
        windows = 0

        def tell(done: int, total: int) -> None:
            nonlocal windows
            windows = total
            progress.step("decode", done, total)

        leaves = [module for module in self.predictor.network.modules() if not any(module.children())]
        progress.check()
        # The package shows a bar of its own.
        with contextlib.redirect_stderr(io.StringIO()), checked(leaves, progress.check):
            try:
                found = self._predict(phrases, tell)
            except torch.OutOfMemoryError:
                if not self.predictor.perform_everything_on_device:
                    raise
                torch.cuda.empty_cache()
                self.predictor.perform_everything_on_device = False
                found = self._predict(phrases, tell)
        return [pack_mask(self.turn.turn_back(mask)) for mask in found], windows

    def _predict(self, phrases: Sequence[str], tell: Any) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = self.predictor.predict_single_image(
            self.array_kji[None], list(phrases), progress_callback=tell
        )
        return found


@dataclass(frozen=True, slots=True)
class VoxTell:
    """The model: the package's predictor with its weights and the bank of phrases."""

    predictor: Any
    device: str

    @property
    def precision(self) -> str:
        """The package lets CUDA compute in mixed precision, and nothing else."""
        return "mixed float16" if self.device == "cuda" else "float32"

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights and the bank, in bytes."""
        return weight_bytes(self.predictor.network) + sum(one.nbytes for one in self.predictor.embedding_bank.values())

    def view(self, volume: Volume, progress: Progress) -> VoxTellView:
        """The image turned to RAS: slices, rows and columns as the package's own reader has them."""
        progress.check()
        turn = towards_ras(volume.geometry)
        return VoxTellView(self.predictor, turn.turn(volume.array_kji), turn)


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> VoxTell:
    """The adapter with the weights of its folder; nothing is asked of the network, and no language model loaded.

    Raises:
        CheckpointError: a file is missing or damaged, or the files do not fit together.
    """
    bank = dict(read_bank(card, files))
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
