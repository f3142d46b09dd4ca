"""Protocols between the engine and the adapters, for slices, volumes and classification, and how a card is loaded."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..catalog.catalogue import adapter_name
from ..catalog.model_cards import ModelCard
from ..errors import CardError
from ..imaging.geometry import Box, Shape
from ..imaging.masks import PackedMask
from ..imaging.volume import Volume
from ..progress import Progress
from ..requests.scoring import Head, ScoringRule, TrainedLabels

# Called during long work; raises where the work is to end.
Check = Callable[[], None]

BoxXyxy = tuple[float, float, float, float]


def unstoppable() -> None:
    """Check of work that is never cancelled."""


def adapter_of(card: ModelCard) -> Any:
    """Import the module that adapts a card's family; it offers ``load(card, files, device)``.

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


# Slices


@dataclass(frozen=True, slots=True)
class SlicePoint:
    """A click on a slice: ``x`` along the columns, ``y`` along the rows, in pixels, centres at whole numbers."""

    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True, slots=True)
class SliceMask:
    """A mask of a slice of (rows, columns) = ``shape``: a bit per pixel, rows first.

    Masks of the same pixels are equal, so that an answer can be remembered by its prompt.
    """

    shape: tuple[int, int]
    bits: bytes

    @classmethod
    def pack(cls, mask: NDArray[np.generic]) -> "SliceMask":
        """Pack an array of (rows, columns), where nonzero pixels are in the object."""
        return cls((mask.shape[0], mask.shape[1]), np.packbits(mask != 0).tobytes())

    def unpack(self) -> NDArray[np.bool_]:
        """Return a new boolean array (rows, columns)."""
        rows, columns = self.shape
        flat = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=rows * columns)
        return flat.view(np.bool_).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class SlicePrompt:
    """A prompt for one object on one slice, in its pixels: x along the columns, y along the rows.

    Centres of pixels are at whole numbers. All parts are about the same object. A model is given only those kinds
    that its card names.

    Attributes:
        box: (x0, y0, x1, y1) around the object, both corners inside the box.
        points: in the order in which they were set.
        mask: the object as known so far, roughly or exactly.
    """

    box: BoxXyxy | None = None
    points: tuple[SlicePoint, ...] = ()
    mask: SliceMask | None = None


@dataclass(frozen=True, slots=True)
class SliceAnswer:
    """A model's answer for one object on one slice.

    Attributes:
        mask: (rows, columns) boolean.
        score: its predicted IoU, 0..1.
        logits: its own coarse logits, opaque to all but :meth:`SliceModel.decode`, which refines them. None where the
            model cannot refine.
        absent: True where the model says that the object is not on this slice; the mask is empty then.
    """

    mask: NDArray[np.bool_]
    score: float
    logits: Any = None
    absent: bool = False


class SliceModel(Protocol):
    """A promptable 2-D model: encode a slice once, then decode any number of prompts."""

    device: str
    precision: str

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""

    def encode(self, image: NDArray[np.uint8], check: Check = unstoppable) -> Any:
        """Encode a slice, (rows, columns) grey or (rows, columns, 3) colour, uint8, to features with ``nbytes``.

        ``check`` is called as often as the framework allows; an exception of it ends the work.
        """

    def decode(self, embedding: Any, prompt: SlicePrompt, previous: SliceAnswer | None = None) -> SliceAnswer:
        """Segment the object of a prompt on an encoded slice.

        ``previous`` is the answer to the same prompt without its latest part. A model that can refine starts from it,
        others ignore it. The same arguments always give the same answer.
        """

    def box_around(self, mask: NDArray[np.bool_], wider: int = 0) -> BoxXyxy | None:
        """Box for a neighbouring slice, where this slice's mask is the best guess; None for an empty mask.

        ``wider``: by how many pixels of the model's own grid its margin exceeds the one that is usual for the model.
        """


class ObjectMemory(Protocol):
    """A model's memory of one object while it is followed through the slices of a volume.

    Slices with prompts of their own come first, all of them; then the others, each next to one that is known.
    """

    def prompt(self, index: int, embedding: Any, prompt: SlicePrompt) -> SliceAnswer:
        """Segment a slice with a prompt, and remember the answer.

        On a slice that was followed before, the prompt corrects the earlier answer.
        """

    def follow(self, index: int, embedding: Any, upwards: bool) -> SliceAnswer:
        """Segment a slice without a prompt from what is remembered, and remember the answer.

        ``upwards``: True where slice numbers rise. A slice that was prompted before gives the answer it gave then.
        """


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
        """Start a memory of one object in a volume of that many slices."""


def load_model(card: ModelCard, files: Mapping[str, Path], device: str) -> Any:
    """Load the adapter of a card's family with its weights.

    Args:
        card: the model.
        files: the verified files of the checkpoint, by the path the card gives them.
        device: ``"cuda"``, ``"mps"`` or ``"cpu"``.

    Raises:
        CardError: no adapter is called like the family.
        CheckpointError: the checkpoint does not hold what the adapter needs.
    """
    return adapter_of(card).load(card, files, device)


# Volumes. All indices are voxels of the image that the model is shown. ``location`` is the path of a prompt in its
# document, for messages; it does not count when parts are compared.


@dataclass(frozen=True, slots=True)
class VolumePoint:
    """A click on the voxel ``index_kji``."""

    index_kji: Shape
    positive: bool = True
    location: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class VolumeBox:
    """A box of voxels; one voxel thick along one axis where it was drawn on a slice."""

    box: Box
    positive: bool = True
    location: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class VolumeVoxels:
    """Drawn voxels: a stroke, the inside of a lasso, or the segment as known so far; never empty."""

    kind: Literal["scribble", "lasso", "mask"]
    voxels: PackedMask
    positive: bool = True
    location: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class VolumeWords:
    """Free text, or the name or number of a class."""

    kind: Literal["text", "class"]
    words: str
    positive: bool = True
    location: str = field(default="", compare=False)


VolumePart = VolumePoint | VolumeBox | VolumeVoxels | VolumeWords


@dataclass(frozen=True, slots=True)
class VolumePrompt:
    """All prompts of one segment in their order, of those kinds that the card names.

    A corrected prompt begins with the parts of the prompt before the correction.
    """

    parts: tuple[VolumePart, ...]


@dataclass(frozen=True, slots=True)
class VolumeAnswer:
    """A model's answer for one segment.

    Attributes:
        mask: the whole segment.
        score: the model's own estimate of the overlap (IoU), 0..1; None where it gives none.
        runs: how often the network ran for it; 0 where the answer was known.
        notes: notes for the user, such as the grid on which the model looked.
    """

    mask: PackedMask
    score: float | None = None
    runs: int = 1
    notes: tuple[str, ...] = ()


class VolumeView(Protocol):
    """A model's view of one image: the prepared image, and the memory of prompts.

    The engine keeps it for the next request on the same image, and drops it for any other.
    """

    @property
    def nbytes(self) -> int:
        """Memory taken beside the weights, on the host and on the device, in bytes."""

    def answer(self, prompts: Sequence[VolumePrompt], progress: Progress) -> Sequence[VolumeAnswer]:
        """Segment the prompts, in their order; several at once where the model can do that.

        The same prompts always give the same answer: a memory of earlier prompts only saves time.

        Raises:
            PromptError: the model cannot follow a prompt, for example an unknown name.
            InputError: the model cannot look at the image.
            Cancelled: ``progress`` was told to stop; earlier prompts can still be answered.
        """


class VolumeModel(Protocol):
    """A promptable model of volumes: prepare an image once, then answer any number of prompts."""

    device: str
    precision: str

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""

    def view(self, volume: Volume, progress: Progress) -> VolumeView:
        """Prepare an image: voxels as they are or cut to the user's window, never scaled; it is not written to.

        Raises:
            InputError: the model cannot look at it.
            Cancelled: ``progress`` was told to stop.
        """


# Classification by words


@dataclass(frozen=True, slots=True, eq=False)
class TextVectors:
    """Encoded texts.

    Attributes:
        vectors: (texts, D) float32 of unit length.
        truncated: for each text, True where it was longer than the model reads, so that its end was left out.
    """

    vectors: NDArray[np.float32]
    truncated: tuple[bool, ...]


class ImageTextModel(Protocol):
    """A model with a tower for pictures and one for texts, whose vectors are compared by their cosine.

    Pictures are (rows, columns) grey or (rows, columns, 3) colour, uint8. A whole picture is brought to the model's
    square without regard to its aspect, which the caller keeps by padding.
    """

    device: str
    precision: str
    head: Head

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""

    def encode_images(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """Encode pictures in one batch: (pictures, D), each row of unit length."""

    def encode_parts(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """Encode the parts of pictures: for each a grid of vectors of unit length, (pictures, rows, columns, D).

        The models were not trained for this: it is the last layer's vector of each part, projected as the vector of
        the whole picture is.
        """

    def encode_texts(self, texts: Sequence[str], check: Check = unstoppable) -> TextVectors:
        """Encode texts, one vector for each."""


class TrainedLabelModel(Protocol):
    """A model that was trained to score certain labels, and reads no words; its vectors end with their own scale.

    Pictures are as for :class:`ImageTextModel`. With ``sees_middle`` the middle of a picture that is not square is
    shown, in place of the whole with black beside it.
    """

    device: str
    precision: str
    labels: TrainedLabels
    sees_middle: bool

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""

    def encode_images(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """Encode pictures in one batch: (pictures, D), each row of unit length."""

    def encode_parts(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """Encode the parts of pictures: for each a grid of vectors of unit length, (pictures, rows, columns, D)."""


@dataclass(frozen=True, slots=True, eq=False)
class VolumeVectors:
    """An encoded image.

    Attributes:
        vector: (D,) float32 of unit length: the image as a whole.
        cells_kji: (K, J, I, D) float32 of unit length: its parts, along the axes of the stored array.
        spans_kji: for each axis the voxels that the parts cover, from edge to edge; they may reach out of the image.
        trained: what labels that the model was trained on are scored by, whose vectors end with their own scale; None
            where there are no such labels.
    """

    vector: NDArray[np.float32]
    cells_kji: NDArray[np.float32]
    spans_kji: tuple[tuple[float, float], ...]
    trained: "VolumeVectors | None" = None

    @property
    def nbytes(self) -> int:
        """Memory taken, in bytes."""
        return self.vector.nbytes + self.cells_kji.nbytes + (self.trained.nbytes if self.trained is not None else 0)

    def scored_by(self, rule: ScoringRule) -> "VolumeVectors":
        """Return the vectors that a rule scores labels by."""
        return self.trained if rule == "trained" and self.trained is not None else self


class VolumeTextModel(Protocol):
    """A model with a tower for whole volumes and one for texts, whose vectors are compared by their cosine.

    Volumes come in the voxels and values that they are stored in: turning, resampling and scaling are the model's. One
    that was also trained to score certain labels has them as ``labels``, as :class:`TrainedLabelModel`.
    """

    device: str
    precision: str
    head: Head

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""

    def encode_volume(self, volume: Volume, progress: Progress) -> VolumeVectors:
        """Encode an image; steps of the stages ``"encode"``, its preparation, and ``"classify"`` are reported.

        Raises:
            InputError: the model cannot look at the image.
            Cancelled: ``progress`` was told to stop.
        """

    def encode_texts(self, texts: Sequence[str], check: Check = unstoppable) -> TextVectors:
        """Encode texts, one vector for each."""
