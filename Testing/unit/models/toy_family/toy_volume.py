"""A family of volumes that is easily followed: of what is at least as bright as the checkpoint says, what was meant.

Points mean what is two voxels far or less, boxes themselves, and the text "all" everything. What is said to be none of
it is taken away, in the order in which it was said.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...catalog.model_cards import ModelCard
from ...errors import PromptError
from ...imaging.masks import pack_mask
from ...imaging.volume import Volume
from ...progress import Progress
from ..protocols import VolumeAnswer, VolumeBox, VolumePart, VolumePoint, VolumePrompt


@dataclass(frozen=True, slots=True)
class ToyView:
    array_kji: NDArray[np.generic]
    level: int
    nbytes: int = 8

    def answer(self, prompts: Sequence[VolumePrompt], progress: Progress) -> list[VolumeAnswer]:
        found = []
        for n, prompt in enumerate(prompts):
            progress.step("segments", n, len(prompts))
            mask = np.zeros(self.array_kji.shape, np.bool_)
            for part in prompt.parts:
                if part.positive:
                    mask |= self._meant(part)
                else:
                    mask &= ~self._meant(part)
            found.append(VolumeAnswer(pack_mask(mask), 0.5, notes=("looked at as it is",)))
        return found

    def _meant(self, part: VolumePart) -> NDArray[np.bool_]:
        inside = np.zeros(self.array_kji.shape, np.bool_)
        if isinstance(part, VolumePoint):
            inside[tuple(slice(max(0, n - 2), n + 3) for n in part.index_kji)] = True
        elif isinstance(part, VolumeBox):
            inside[part.box.slices] = True
        elif part.words != "all":
            raise PromptError(f"nothing is called {part.words!r}", f"{part.location}.text")
        else:
            inside[:] = True
        return inside & (self.array_kji >= self.level)


@dataclass(frozen=True, slots=True)
class ToyVolume:
    level: int
    device: str
    precision: str = "uint8"
    nbytes: int = 8

    def view(self, volume: Volume, progress: Progress) -> ToyView:
        progress.check()
        return ToyView(volume.array_kji, self.level)


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> ToyVolume:
    return ToyVolume(json.loads(files["toy.json"].read_text())["level"], device)
