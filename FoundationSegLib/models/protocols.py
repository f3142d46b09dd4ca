"""What an adapter for a 2-D model offers to the engine, and how a card finds its adapter."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ..catalog.catalogue import adapter_name
from ..catalog.model_cards import ModelCard
from ..errors import CardError
from ..imaging.geometry import Box, Shape
from ..imaging.masks import PackedMask
from ..imaging.volume import Volume
from ..progress import Progress
from ..requests.scoring import Head

# Called in the midst of long work; raises where the work is to end.
Check = Callable[[], None]

BoxXyxy = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class SlicePoint:
    """A click on a slice: ``x`` along the columns, ``y`` along the rows, in pixels, centres at whole numbers."""

    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True, slots=True)
class SliceMask:
    """What is known of an object on a slice of (rows, columns) = ``shape``: a bit per pixel, rows first.

    Two of them are equal where they say the same, so that an answer can be remembered by its prompt.
    """

    shape: tuple[int, int]
    bits: bytes

    @classmethod
    def pack(cls, mask: NDArray[np.generic]) -> "SliceMask":
        """Of (rows, columns), where what is not zero is in the object."""
        return cls((mask.shape[0], mask.shape[1]), np.packbits(mask != 0).tobytes())

    def unpack(self) -> NDArray[np.bool_]:
        """A new boolean array (rows, columns)."""
        rows, columns = self.shape
        flat = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=rows * columns)
        return flat.view(np.bool_).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class SlicePrompt:
    """What is asked about one object on one slice, in its pixels: x along the columns, y along the rows.

    Centres of pixels are at whole numbers. All parts speak of the same object; a model is given only those kinds that
    its card names.

    Attributes:
        box: (x0, y0, x1, y1) around the object, both corners inside the box.
        points: in the order in which they were set.
        mask: what the object is known to be, roughly or exactly.
    """

    box: BoxXyxy | None = None
    points: tuple[SlicePoint, ...] = ()
    mask: SliceMask | None = None


@dataclass(frozen=True, slots=True)
class SliceAnswer:
    """What the model said about one object on one slice.

    Attributes:
        mask: (rows, columns) boolean.
        score: its predicted IoU, 0..1.
        logits: its own coarse logits, for :meth:`SliceModel.decode` to refine; nobody else looks inside. None where
            the model cannot refine.
        absent: True where the model says that the object is not on this slice; the mask is empty then.
    """

    mask: NDArray[np.bool_]
    score: float
    logits: Any = None
    absent: bool = False


class SliceEmbedding(Protocol):
    """The encoder's view of one slice: opaque to the engine, counted by the cache."""

    @property
    def nbytes(self) -> int:
        """Memory taken, in bytes."""
        ...


def unstoppable() -> None:
    """The check of work that nobody will stop."""


class SliceModel(Protocol):
    """A promptable 2-D model: encode a slice once, then decode as many prompts as wanted."""

    device: str
    precision: str

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        ...

    def encode(self, image: NDArray[np.uint8], check: Check = unstoppable) -> Any:
        """The embedding of a slice, (rows, columns) grey or (rows, columns, 3) colour, uint8.

        ``check`` is called now and then, as often as the framework lets it; what it raises ends the work.
        """
        ...

    def decode(self, embedding: Any, prompt: SlicePrompt, previous: SliceAnswer | None = None) -> SliceAnswer:
        """The mask that a prompt means on an encoded slice.

        ``previous`` is the answer to the same prompt without its latest part, which a model that can refine starts
        from; others ignore it. The same arguments give the same answer, whatever was asked before.
        """
        ...

    def box_around(self, mask: NDArray[np.bool_], wider: int = 0) -> BoxXyxy | None:
        """The box to ask a neighbouring slice with, where this slice's mask is the best guess; None for an empty mask.

        ``wider``: by how many pixels of the model's own grid its margin exceeds the one that is usual for the model.
        """
        ...


class ObjectMemory(Protocol):
    """What a model remembers of one object while it is followed through the slices of a volume.

    Slices with prompts of their own come first, all of them; then the others, each next to one that is known.
    """

    def prompt(self, index: int, embedding: Any, prompt: SlicePrompt) -> SliceAnswer:
        """The answer on a slice with a prompt, and remember it.

        On a slice that was followed before, the prompt corrects what was found there.
        """
        ...

    def follow(self, index: int, embedding: Any, upwards: bool) -> SliceAnswer:
        """The answer on a slice without a prompt, from what is remembered, and remember it, too.

        ``upwards``: True where slice numbers rise. A slice that was prompted before gives the answer it gave then.
        """
        ...


class MemoryModel(SliceModel, Protocol):
    """A model that follows an object through slices by a memory of its own, as through the frames of a video.

    Attributes:
        fresh_each_way: True where the way down starts with a new memory, which has the prompted slices only; False
            where it remembers the way up.
        largest_part_only: True where its authors keep the largest connected part of an object alone.
    """

    fresh_each_way: bool
    largest_part_only: bool

    def remember(self, slices: int) -> ObjectMemory:
        """A new memory of one object in a volume of that many slices."""
        ...


def has_memory(model: SliceModel) -> TypeGuard[MemoryModel]:
    """True for a model that follows objects by a memory of its own."""
    return hasattr(model, "remember")


def load_slice_model(card: ModelCard, files: Mapping[str, Path], device: str) -> SliceModel:
    """The adapter of a card's family, with its weights loaded.

    Args:
        card: the model.
        files: where each file of the checkpoint lies, by the path the card gives it; verified.
        device: ``"cuda"``, ``"mps"`` or ``"cpu"``.

    Raises:
        CardError: no adapter is called like the family.
        CheckpointError: the checkpoint does not hold what the adapter needs.
    """
    model: SliceModel = adapter_of(card).load(card, files, device)
    return model


def adapter_of(card: ModelCard) -> Any:
    """The module that adapts a card's family; it offers ``load(card, files, device)``.

    Raises:
        CardError: no adapter is called like the family.
    """
    name = adapter_name(card)
    try:
        return importlib.import_module(f".{name}", __package__)
    except ModuleNotFoundError as error:
        if error.name != f"{__package__}.{name}":
            raise
        raise CardError(f"{card.id}: no adapter is called {name}") from error


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


@dataclass(frozen=True, slots=True, eq=False)
class TextVectors:
    """Encoded texts.

    Attributes:
        vectors: (texts, D) float32 of unit length.
        truncated: for each text, whether it was longer than the model reads, so that its end was left out.
    """

    vectors: NDArray[np.float32]
    truncated: tuple[bool, ...]


class ImageTextModel(Protocol):
    """A model with a tower for pictures and one for texts, whose vectors are compared by their cosine.

    Pictures are (rows, columns) grey or (rows, columns, 3) colour, uint8, and seen as a whole: brought to the model's
    square without regard to their aspect, which the caller keeps by padding.
    """

    device: str
    precision: str
    head: Head

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        ...

    def encode_images(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """One vector of unit length for each picture, (pictures, D), in one batch."""
        ...

    def encode_parts(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """For each picture a grid of vectors of unit length, (pictures, rows, columns, D): its parts, as seen in it.

        The models were not trained for this: it is what their last layer holds of each part, brought where the
        vector of the whole picture is.
        """
        ...

    def encode_texts(self, texts: Sequence[str], check: Check = unstoppable) -> TextVectors:
        """One vector for each text."""
        ...
