"""Run a model on the slices of a volume: encode each slice once, answer no prompt twice, keep both within a budget.

The encoder takes nearly all of the time, so that it alone computes in 16 bits where the device is made for them; its
embeddings are kept in 32, and the decoder computes as ever. A made-up image shows, once for each loaded model, if that
changes a mask.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from operator import attrgetter
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import PromptError, counted
from ..imaging.geometry import Axis, array_axis
from ..imaging.intensity import IntensityMapping
from ..imaging.masks import merge_masks
from ..imaging.volume import Volume
from ..models.protocols import BoxXyxy, Check, ObjectMemory, SliceAnswer, SliceModel, SlicePrompt, unstoppable
from ..progress import Progress
from ..prompts.oblique import ViewPart, views_of
from ..requests.segmentation import CheckpointRecord, PartialPrediction, SegmentPrediction
from .memory_planning import CroppedRequest
from .slices import AS_STORED, ReformattedVolume, SliceOrientation, SlicePrompts, radiological, slice_of

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")
ModelT = TypeVar("ModelT")
Precision = Literal["float32", "bfloat16", "float16"]

# Two masks agree where their Dice is at least this: a border pixel here and there may change, an object may not.
LEAST_AGREEMENT = 0.99
_SIDE = 256  # pixels of the made-up image

# Slices are encoded in advance up to this distance from the last prompt: where a user scrolls next.
SLICES_AHEAD = 5
# Answers get this part of the budget of the embeddings: they are small, and a correction needs most of them again.
_ANSWERS_SHARE = 1 / 8


class LruCache(Generic[KeyT, ValueT]):
    """Values within a budget of bytes.

    The newest value stays even if it alone exceeds the budget, since it is about to be used. ``nbytes`` measures a
    value; its own attribute of that name unless given.
    """

    def __init__(self, budget_bytes: int, nbytes: Callable[[ValueT], int] = attrgetter("nbytes")) -> None:
        self._budget_bytes = budget_bytes
        self._nbytes_of = nbytes
        self._entries: OrderedDict[KeyT, ValueT] = OrderedDict()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Memory taken, in bytes."""
        return self._nbytes

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[KeyT]:
        return iter(tuple(self._entries))

    def __contains__(self, key: KeyT) -> bool:
        """Look for a key without counting it as used."""
        return key in self._entries

    def get(self, key: KeyT) -> ValueT | None:
        """Return the value and count it as used; None if it is not there (any more)."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: KeyT, value: ValueT) -> None:
        """Keep a value, and drop the least recently used ones as needed."""
        if key in self._entries:
            self.drop(key)
        self._entries[key] = value
        self._nbytes += self._nbytes_of(value)
        while self._nbytes > self._budget_bytes and len(self._entries) > 1:
            self.drop(next(iter(self._entries)))

    def drop(self, key: KeyT) -> None:
        """Remove a value; it is no error if it is not there."""
        value = self._entries.pop(key, None)
        if value is not None:
            self._nbytes -= self._nbytes_of(value)

    def drop_where(self, matches: Callable[[KeyT], bool]) -> None:
        """Remove every value whose key matches."""
        for key in self:
            if matches(key):
                self.drop(key)

    def clear(self) -> None:
        """Remove everything."""
        self._entries.clear()
        self._nbytes = 0


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights on a device in a precision: two results can be compared where these are equal.

    The whole record stands for the weights, since its sha256 is that of the first of several files only.
    """

    checkpoint: CheckpointRecord
    device: str
    precision: str


# Weights, intensity mapping, segments, notes, seconds by stage, and how often the model ran.
Answer = tuple[Weights, IntensityMapping, list[SegmentPrediction], list[str], dict[str, float], dict[str, int]]


@dataclass(frozen=True, slots=True)
class LoadedModel(Generic[ModelT]):
    """A model that is ready to answer, and its weights; with a memory, it follows objects through slices by itself."""

    model: ModelT
    weights: Weights
    has_memory: bool = False


@dataclass(frozen=True, slots=True)
class EmbeddingKey:
    """Everything that changes a slice's embedding; ``low`` and ``high`` are the ends of the intensity window."""

    weights: Weights
    volume_key: str
    axis: Axis
    index: int
    orientation: SliceOrientation
    low: float
    high: float


@dataclass(slots=True)
class SliceCache:
    """Embeddings of slices, and the answers to prompts on them as they grew stage by stage.

    Attributes:
        encoded: every slice that was ever encoded, to tell what had to be encoded again.
        orientations: how the slices of images are turned before a model sees them, by image and axis.
    """

    embeddings: LruCache[EmbeddingKey, Any]
    answers: LruCache[tuple[EmbeddingKey, tuple[SlicePrompt, ...]], SliceAnswer]
    encoded: set[EmbeddingKey] = field(default_factory=set)
    orientations: dict[tuple[str, Axis], SliceOrientation] = field(default_factory=dict)

    @classmethod
    def within(cls, budget_bytes: int, answers_share: float = _ANSWERS_SHARE) -> "SliceCache":
        """Return a cache whose embeddings take no more than a budget; answers may take a share of it in addition."""
        return cls(LruCache(budget_bytes), LruCache(int(budget_bytes * answers_share), _answer_nbytes))

    def drop_volume(self, volume_key: str) -> None:
        """Remove everything about an image and its oblique views, whose keys begin with its own."""
        self.embeddings.drop_where(lambda key: key.volume_key.startswith(volume_key))
        self.answers.drop_where(lambda key: key[0].volume_key.startswith(volume_key))
        self.encoded = {key for key in self.encoded if not key.volume_key.startswith(volume_key)}
        self.orientations = {key: turn for key, turn in self.orientations.items() if not key[0].startswith(volume_key)}

    def clear(self) -> None:
        """Remove all embeddings and answers."""
        self.embeddings.clear()
        self.answers.clear()


def _answer_nbytes(answer: SliceAnswer) -> int:
    return answer.mask.nbytes + int(getattr(answer.logits, "nbytes", 0))


@dataclass(slots=True)
class SliceCounts:
    """How often a model of slices ran for a request, and for how long.

    ``reencodes`` of the ``encodes`` were of slices that the cache could not keep.
    """

    encodes: int = 0
    reencodes: int = 0
    decodes: int = 0
    encode_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SliceInference:
    """One volume seen by one model through one intensity mapping.

    Attributes:
        as_stored: keeps slices from being turned the way a radiologist sees them.
        check: called in the midst of an encoding, and ends it by raising.
        counts: filled as the model runs.
    """

    model: SliceModel
    weights: Weights
    volume: Volume
    mapping: IntensityMapping
    cache: SliceCache
    as_stored: bool = False
    check: Check = unstoppable
    counts: SliceCounts = field(default_factory=SliceCounts)

    def encode_ahead(self, axis: Axis, index: int, progress: Progress) -> bool:
        """Encode a slice that may be needed soon; return False where that was done before.

        Raises:
            Cancelled: a request has come.
        """
        progress.check()
        before = self.counts.encodes
        self._embedding(self._key(axis, index), progress.check)
        return self.counts.encodes > before

    def embed(self, axis: Axis, index: int) -> Any:
        """Return the embedding of a slice, encoded once."""
        return self._embedding(self._key(axis, index), self.check)

    def picture(self, axis: Axis, index: int) -> NDArray[np.uint8]:
        """Return a slice as the model sees it, (rows, columns) or (rows, columns, 3)."""
        return self._picture(self._key(axis, index))

    def ask(self, axis: Axis, index: int, stages: Sequence[SlicePrompt]) -> SliceAnswer:
        """Return the answer on a slice to a prompt as it grew stage by stage; known answers are taken from the cache.

        Raises:
            ValueError: there is no stage.
        """
        key = self._key(axis, index)
        answer: SliceAnswer | None = None
        for stop, prompt in enumerate(stages, start=1):
            question, previous = (key, tuple(stages[:stop])), answer
            answer = self.cache.answers.get(question)
            if answer is None:
                embedding = self._embedding(key, self.check)
                start = time.perf_counter()
                answer = self.model.decode(embedding, prompt, previous)
                self.counts.decode_s += time.perf_counter() - start
                self.counts.decodes += 1
                self.cache.answers.put(question, answer)
        if answer is None:
            raise ValueError("a slice was asked without a prompt")
        return answer

    def recall(
        self, memory: ObjectMemory, axis: Axis, index: int, prompt: SlicePrompt | None, upwards: bool
    ) -> SliceAnswer:
        """Return the answer of a memory on a slice, to a prompt or, without one, from the slice before it."""
        embedding = self._embedding(self._key(axis, index), self.check)
        start = time.perf_counter()
        is_prompted = prompt is not None
        answer = memory.prompt(index, embedding, prompt) if is_prompted else memory.follow(index, embedding, upwards)
        self.counts.decode_s += time.perf_counter() - start
        self.counts.decodes += 1
        return answer

    def orientation(self, axis: Axis) -> SliceOrientation:
        """Return how slices across an axis are turned before the model sees them."""
        if self.as_stored:
            return AS_STORED
        key, orientations = (self.volume.key, axis), self.cache.orientations
        if key not in orientations:
            orientations[key] = radiological(self.volume.geometry, axis)
        return orientations[key]

    def _key(self, axis: Axis, index: int) -> EmbeddingKey:
        low, high = self.mapping.low, self.mapping.high
        return EmbeddingKey(self.weights, self.volume.key, axis, index, self.orientation(axis), low, high)

    def _picture(self, key: EmbeddingKey) -> NDArray[np.uint8]:
        return key.orientation.turn(self.mapping.to_uint8(slice_of(self.volume, key.axis, key.index)))

    def _embedding(self, key: EmbeddingKey, check: Check) -> Any:
        embedding = self.cache.embeddings.get(key)
        if embedding is None:
            start = time.perf_counter()
            embedding = self.model.encode(self._picture(key), check)
            self.counts.encode_s += time.perf_counter() - start
            self.counts.encodes += 1
            self.counts.reencodes += key in self.cache.encoded
            self.cache.encoded.add(key)
            self.cache.embeddings.put(key, embedding)
        return embedding


def answer_in_views(
    part: CroppedRequest,
    volume: Volume,
    progress: Progress,
    answer: Callable[[CroppedRequest, Volume, Progress], Answer],
) -> Answer:
    """Answer prompts in oblique planes on the grids of their views, and bring the masks back to the image's grid.

    Args:
        part: its prompts along the image's axes are answered on its own slices.
        volume: the part of the image.
        progress: told of all of it.
        answer: answers about the slices of a volume.

    Raises:
        PromptError: a plane shows nothing, or a prompt is not understood.
        InputError: slices are numbered in a propagation, or a view is too large.
    """
    if part.request.propagation is not None:
        part.request.propagation.require_along_normal()
    segments: list[list[SegmentPrediction]] = [[] for _ in part.segments]
    answers, notes = [], list(part.notes)
    for view in views_of(part.segments, volume.geometry):
        own, seen = replace(part, segments=view.segments, notes=()), volume
        if view.grid is not None:
            own, seen = replace(own, box=None), ReformattedVolume.of(volume, view.grid)
            notes.append(f"the model saw the image in an oblique view, {view.grid.description}")
        try:
            answers.append(answer(own, seen, _in_view(part, view, progress)))
        except PromptError as error:
            raise PromptError(view.in_request(error.problem), view.in_request(error.location)) from error
        notes += map(view.in_request, answers[-1][3])
        masks = view.masks([segment.mask for segment in answers[-1][2]], len(segments))
        for (n, _), segment in zip(view.numbers, answers[-1][2], strict=True):
            if view.grid is not None and segment.slices is not None and segment.slices.unsure:
                slices = counted(len(segment.slices.unsure), "slice")
                notes.append(f"segments[{n}]: the model is not sure of {slices} along the view's normal: check there")
            known = segment.slices if view.grid is None else None  # a user knows no numbers of those of a view
            segments[n].append(replace(segment, mask=masks[n], slices=known))
    joined = [
        each[0] if len(each) == 1 else SegmentPrediction(merge_masks([segment.mask for segment in each]), None)
        for each in segments
    ]
    timings, counts = ({name: sum(each[n][name] for each in answers) for name in answers[0][n]} for n in (4, 5))
    return (*answers[-1][:2], joined, notes, timings, counts)


def _in_view(part: CroppedRequest, view: ViewPart, progress: Progress) -> Progress:
    """Return a progress that puts parts of an answer in a view on the grid of the image."""
    whole = progress if part.box is None or view.grid is None else part.progress_of(progress, part.box)

    def tell(partial: PartialPrediction) -> None:
        whole.partial(PartialPrediction(view.masks(partial.masks, len(part.segments))))

    return replace(progress, partial=tell)


@dataclass(slots=True)
class Prefetcher:
    """Encodes the slices around the last prompt while nothing else is to be done, the nearest first.

    Attributes:
        prompts: the slices of the last of them count.
        done: how many of the slices around it were looked at.
    """

    inference: SliceInference
    prompts: SlicePrompts
    done: int = 0

    def encode_next(self, progress: Progress) -> bool:
        """Encode the nearest slice that is not encoded yet; return False where none is left.

        Raises:
            Cancelled: a request has come.
        """
        axis, slices = self.prompts.last
        around = self._slices_around(axis, slices)
        while self.done < len(around):
            is_new = self.inference.encode_ahead(axis, around[self.done], progress)
            self.done += 1
            if is_new:
                return True
        return False

    def _slices_around(self, axis: Axis, slices: range) -> list[int]:
        length = self.inference.volume.geometry.shape_kji[array_axis(axis)]
        distances = range(1, SLICES_AHEAD + 1)
        around = [n for distance in distances for n in (slices.stop - 1 + distance, slices.start - distance)]
        return [index for index in around if 0 <= index < length]


def best_precision(device: str) -> Precision:
    """Return the shortest numbers that a device is made for; 32 bits everywhere but on CUDA.

    bfloat16 has the range of float32, and units for it from compute capability 8.0 on (Ampere); float16 has units from
    7.0 on (Volta). On a CPU and on MPS, 16 bits save little or nothing.
    """
    if device != "cuda":
        return "float32"
    import torch

    if not torch.cuda.is_available():
        return "float32"
    capability = torch.cuda.get_device_capability()
    if capability >= (8, 0):
        return "bfloat16"
    return "float16" if capability >= (7, 0) else "float32"


class LeanModel:
    """A model whose encoder computes in 16 bits; all else is the model's own."""

    def __init__(self, model: SliceModel, precision: Precision) -> None:
        self._model, self.precision = model, precision

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, image: NDArray[np.uint8], check: Check = unstoppable) -> Any:
        """Encode a slice in the short precision; the embedding comes back in float32."""
        import torch

        with torch.autocast(self._model.device, dtype=getattr(torch, self.precision)):
            embedding = self._model.encode(image, check)
        with torch.inference_mode():
            return _in_float32(embedding)


def _in_float32(embedding: Any) -> Any:
    """Return the embedding with all its 16-bit tensors in float32, those in tuples, too."""
    import torch

    def widened(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(widened(part) for part in value)
        return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    if not is_dataclass(embedding):
        return widened(embedding)
    return replace(embedding, **{field.name: widened(getattr(embedding, field.name)) for field in fields(embedding)})


def choose_precision(model: Any, precision: Precision) -> tuple[Any, tuple[str, ...]]:
    """Return the model computing in a precision where that keeps its masks, otherwise as it is, with a note on that.

    ``model`` is a :class:`~..models.protocols.SliceModel`.
    """
    if precision == model.precision:
        return model, ()
    lean = LeanModel(model, precision)
    dice = agreement_of(model, lean)
    if dice >= LEAST_AGREEMENT:
        return lean, ()
    why = f"in {precision} its masks would differ (Dice {dice:.3f})"
    return model, (f"the model computes in {model.precision}: {why}",)


def agreement_of(first: Any, second: Any) -> float:
    """Return the Dice of the masks of two models on a made-up organ; 0 where either finds nothing."""
    image, box = example_slice()
    answers = [model.decode(model.encode(image), SlicePrompt(box)) for model in (first, second)]
    if not all(answer.mask.any() and np.isfinite(answer.score) for answer in answers):
        return 0.0
    masks = [answer.mask for answer in answers]
    return 2 * int(np.count_nonzero(masks[0] & masks[1])) / int(masks[0].sum() + masks[1].sum())


def example_slice() -> tuple[NDArray[np.uint8], BoxXyxy]:
    """Return a bright ellipse in a body that gets darker to one side, with noise, and the box around it."""
    y, x = np.indices((_SIDE, _SIDE))
    body = ((x - 128) / 115) ** 2 + ((y - 128) / 95) ** 2 < 1
    organ = ((x - 150) / 35) ** 2 + ((y - 110) / 25) ** 2 < 1
    noise = np.random.default_rng(0).normal(0, 8, (_SIDE, _SIDE))
    image = np.where(organ, 190, np.where(body, 70 + x / 8, 5)) + noise
    return np.clip(image, 0, 255).astype(np.uint8), (113.0, 83.0, 187.0, 137.0)
