"""Settings of a worker process: the device, the folder of the checkpoints, and how much memory it may keep."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

DeviceChoice = Literal["auto", "cuda", "mps", "cpu"]

# How a 3-D box is followed from slice to slice. "official": from the middle slice as it is stored, the box around the
# neighbour's mask, wherever that leads (CVPR24_LiteMedSAM_infer.py). "surest": from several slices, turned the way a
# radiologist sees them, with boxes cut to the prompt; each slice keeps the answer that the model is surest of.
BoxRule = Literal["surest", "official"]


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Memory that an engine may keep, in bytes. The part unused the longest goes first; the newest stays in any case.

    A LiteMedSAM embedding takes 4 MB: half a gigabyte is a chest CT of 128 slices, wholly encoded. ``limit`` is what
    the worker is to take in all, on the host and on the device each; None for as much as there is.
    """

    volumes: int = 2 * 2**30
    embeddings: int = 512 * 2**20
    models: int = 6 * 2**30
    limit: int | None = None

    def within_limit(self) -> "MemoryBudget":
        """The same with nothing above the limit."""
        if self.limit is None:
            return self
        amounts = (min(amount, self.limit) for amount in (self.volumes, self.embeddings, self.models))
        return MemoryBudget(*amounts, self.limit)

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return self.volumes + self.embeddings + self.models

    @staticmethod
    def within(total: int) -> "MemoryBudget":
        """A budget of so many bytes, shared out as the usual one is."""
        usual = MemoryBudget()
        return MemoryBudget(*(part * total // usual.total for part in (usual.volumes, usual.embeddings, usual.models)))


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings that a worker process starts with.

    Attributes:
        device: what to compute on.
        store_folder: the folder of the checkpoints; None is the user's usual folder.
        box_rule: how 3-D boxes are followed; see :data:`BoxRule`.
        encode_ahead: while idle, encode the slices next to the last prompt.
        budget: memory.
    """

    device: DeviceChoice = "auto"
    store_folder: Path | None = None
    box_rule: BoxRule = "surest"
    encode_ahead: bool = True
    budget: MemoryBudget = field(default_factory=MemoryBudget)
