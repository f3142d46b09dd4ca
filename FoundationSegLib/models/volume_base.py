"""What an adapter for a model of volumes offers to the engine. Everything is in voxels of the image it is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from ..core.cards import ModelCard
from ..core.geometry import Box, Shape
from ..core.mask import PackedMask
from ..core.progress import Progress
from ..core.volume import Volume
from .base import adapter_of


@dataclass(frozen=True, slots=True)
class VolumePoint:
    """A click on the voxel ``index_kji``."""

    index_kji: Shape
    positive: bool = True
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class VolumeBox:
    """A box of voxels; one voxel thick along one axis where it was drawn on a slice."""

    box: Box
    positive: bool = True
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class VolumeVoxels:
    """Voxels that were drawn: a stroke, the inside of a lasso, or what is known of the segment; never empty."""

    kind: Literal["scribble", "lasso", "mask"]
    voxels: PackedMask
    positive: bool = True
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class VolumeWords:
    """Free text, or the name or number of a class."""

    kind: Literal["text", "class"]
    words: str
    positive: bool = True
    place: str = field(default="", compare=False)


# ``place`` is where the prompt stands in its document, for messages; parts that say the same are equal without it.
VolumePart = VolumePoint | VolumeBox | VolumeVoxels | VolumeWords


@dataclass(frozen=True, slots=True)
class VolumePrompt:
    """All that is said of one segment, in the order in which it was said; only kinds that the card names.

    Of two prompts one is often the beginning of the other: a correction comes with all that was said before it.
    """

    parts: tuple[VolumePart, ...]


@dataclass(frozen=True, slots=True)
class VolumeAnswer:
    """What the model said about one segment.

    Attributes:
        mask: the whole segment.
        score: the model's own estimate of the overlap (IoU), 0..1; None where it gives none.
        runs: how often the model was asked for it; 0 where the answer was known.
        notes: what the user should know, such as on which grid the model looked.
    """

    mask: PackedMask
    score: float | None = None
    runs: int = 1
    notes: tuple[str, ...] = ()


class VolumeView(Protocol):
    """A model's view of one image: what it has prepared of it, and what it remembers of prompts.

    The engine keeps it for the next request on the same image, and lets go of it for any other.
    """

    @property
    def nbytes(self) -> int:
        """Memory taken beside the weights, on the host and on the device, in bytes."""
        ...

    def answer(self, prompts: Sequence[VolumePrompt], progress: Progress) -> Sequence[VolumeAnswer]:
        """The segments that prompts mean, in their order; several are asked together where the model can do that.

        The same prompts give the same answer, whatever was asked before: what is remembered only saves time.

        Raises:
            PromptError: a prompt is none that the model can follow, such as a name that it does not know.
            InputError: the image is none that the model can look at.
            Cancelled: ``progress`` was told to stop; what was asked before is still answered.
        """
        ...


class VolumeModel(Protocol):
    """A promptable model of volumes: look at an image once, then answer as many prompts as wanted."""

    device: str
    precision: str

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        ...

    def view(self, volume: Volume, progress: Progress) -> VolumeView:
        """Prepare an image: voxels as they are or cut to the user's window, never scaled; it is not written to.

        Raises:
            InputError: the model cannot look at it.
            Cancelled: ``progress`` was told to stop.
        """
        ...


def load_volume_model(card: ModelCard, files: Mapping[str, Path], device: str) -> VolumeModel:
    """The adapter of a card's family, with its weights loaded; arguments and errors as those of
    :func:`~.base.load_slice_model`."""
    model: VolumeModel = adapter_of(card).load(card, files, device)
    return model
