"""Decide what a model sees of an image for a request: the user's region, and as much of it as fits into memory."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from ..catalog.model_cards import ModelCard
from ..errors import DeviceLostError, GeometryError, InferenceError, InputError, MemoryShortageError
from ..imaging.geometry import Axis, Box, Geometry, Shape, array_axis
from ..imaging.masks import EMPTY_MASK, cut_out, merge_masks, pack_mask
from ..imaging.volume import Volume
from ..progress import Progress, bytes_text
from ..prompts.capabilities import translate
from ..prompts.kinds import ClassPrompt, MaskPrompt, Prompt, SegmentPrompts, TextPrompt
from ..prompts.placement import positions_location, prompt_positions
from ..prompts.regions import around_prompts, box_text, crop_prompts, crop_volume, grown, largest_box_around, pasted
from ..requests.segmentation import PartialPrediction, Prediction, PredictRequest, Propagation, SegmentPrediction
from .device import free_bytes, free_host_bytes, taken_bytes

PlacedT = TypeVar("PlacedT")
Placing = Callable[[Sequence[Prompt], Sequence[str], Geometry], tuple[PlacedT, Sequence[int]]]

# What torch says where memory ran out, beside raising a class of its own for CUDA alone.
_SHORTAGES = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")
# What CUDA says where nothing will work any more in this process.
_LOST = ("cuda error:", "device-side assert", "unspecified launch failure")
# The least that a model sees around the prompts, in mm: without surroundings, its answer is of no use.
_LEAST_MARGIN_MM = 10.0
# Of what is free, this much may be planned with: other programs need some, and forecasts are not exact.
_USABLE = 0.8
# A model that ran out of memory is asked again about a part of this share of the voxels.
_SMALLER = 4
# A model cannot tell a shape from fewer voxels across; more along one axis are metres, and too many for MONAI's int16.
_FEWEST_ACROSS, _MOST_ALONG = 4, 2**15 - 1
_TILE_OVERLAP = 32  # half of the window that models which can be tiled look through, in voxels


@contextmanager
def framework_errors() -> Iterator[None]:
    """Turn what the framework throws at run time (out of memory, a driver's fault) into an error of ours.

    Raises:
        MemoryShortageError: memory ran out.
        DeviceLostError: the device does not answer any more.
        InferenceError: anything else went wrong.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        lines = str(error).strip().splitlines()
        message = f"the model could not answer: {lines[0] if lines else type(error).__name__}"
        text = str(error).lower()
        if isinstance(error, MemoryError) or any(words in text for words in _SHORTAGES):
            raise MemoryShortageError(message) from error
        if any(words in text for words in _LOST):
            raise DeviceLostError(message) from error
        raise InferenceError(message) from error


@dataclass(frozen=True, slots=True)
class CroppedRequest:
    """A request with the part of the image that a model sees for it.

    Attributes:
        request: about the whole image.
        whole: the image.
        segments: the prompts, as they are on the grid of the part.
        box: where the part lies in the image; None where it is all of it.
        counted: where its answer counts, in the whole image; None where all of it does. Tiles overlap in what they see.
        notes: what the user should know of the limitation.
    """

    card: ModelCard
    request: PredictRequest
    whole: Volume
    segments: tuple[SegmentPrompts, ...]
    box: Box | None = None
    counted: Box | None = None
    notes: tuple[str, ...] = ()

    @property
    def voxels(self) -> int:
        """The number of voxels of the part."""
        return math.prod((self.box or self.whole.geometry.box).shape_kji)

    @property
    def visible_kji(self) -> Shape:
        """The number of voxels along each axis in which the model sees the part, after it was resampled."""
        shape = (self.box or self.whole.geometry.box).shape_kji
        if not self.card.spacing_mm:
            return shape
        scales = [size / self.card.spacing_mm for size in self.whole.geometry.spacing_mm[::-1]]
        k, j, i = (round((count - 1) * scale) + 1 for count, scale in zip(shape, scales, strict=True))
        return k, j, i

    @property
    def resampling(self) -> str:
        """The voxels of the image and those that the model makes of them, for messages; empty for a model that does not
        resample.
        """
        if not self.card.spacing_mm:
            return ""
        spacing, count = (
            " x ".join(f"{n:.6g}" for n in each) for each in (self.whole.geometry.spacing_mm, self.visible_kji[::-1])
        )
        return f"voxels of {spacing} mm become {count} of the {self.card.spacing_mm:g} mm that it sees"

    def require_visible(self) -> None:
        """Make sure that what the model sees of the part has a size that an image can have.

        Raises:
            GeometryError: it is next to nothing, or many metres long; the message names the spacing.
        """
        if self.card.spacing_mm and (
            sorted(self.visible_kji)[1] < _FEWEST_ACROSS or max(self.visible_kji) > _MOST_ALONG
        ):
            raise GeometryError(f"{self.card.title} cannot see this image: {self.resampling}; is its spacing in mm?")

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts of all segments, on the grid of the whole image."""
        return [prompt for segment in self.request.segments for prompt in segment.prompts]

    def place_prompts(self, geometry: Geometry, placing: Placing[PlacedT]) -> tuple[list[PlacedT], list[str]]:
        """Translate the prompts of each segment to the model's own kinds and place them, once; return notes, too.

        Args:
            geometry: the grid of the part.
            placing: puts prompts into voxels, and returns the numbers of those that it clipped.

        Raises:
            PromptError: a prompt lies outside the image, or has no honest translation.
        """
        placed, notes = [], list(self.notes)
        for n, segment in enumerate(self.segments):
            translated = translate(self.card, segment, geometry, f"segments[{n}]")
            locations = []
            for origin in translated.origins:
                locations.append(f"segments[{n}].prompts[{origin}]")
            prompts, clipped = placing(translated.segment.prompts, locations, geometry)
            placed.append(prompts)
            for m in clipped:
                prompt = translated.segment.prompts[m]
                if prompt is segment.prompts[translated.origins[m]]:  # of others, the translation says so
                    notes.append(f"{positions_location(prompt, locations[m])}: clipped to the image")
            notes += translated.notes
        return placed, notes

    def propagation_along(self, axes: Set[Axis], propagation: Propagation, box: Box) -> Propagation:
        """Return a propagation with slice numbers of the part's box, where prompts lie on slices of some axes.

        Raises:
            InputError: the numbers are of slices across several axes, or the part has none of them.
        """
        if propagation.start is None and propagation.stop is None:
            return propagation
        axis, *others = sorted(axes)
        if others:
            raise InputError("a range of slices and a region of interest go together for prompts of one axis only")
        first, end = box.start_kji[array_axis(axis)], box.stop_kji[array_axis(axis)]
        start = max(propagation.start or 0, first)
        stop = end if propagation.stop is None else min(propagation.stop, end)
        if stop <= start:
            raise InputError(f"no slice of the region of interest ({box_text(box)}) is in the range of slices")
        return replace(propagation, start=start - first, stop=stop - first)

    def progress_of(self, progress: Progress, box: Box) -> Progress:
        """Return a progress that puts parts of an answer about a box of the image on the grid of the whole image."""

        def tell(part: PartialPrediction) -> None:
            progress.partial(PartialPrediction(tuple([pasted(mask, box) for mask in part.masks])))

        return replace(progress, partial=tell)

    def pasted(self, prediction: Prediction, box: Box) -> Prediction:
        """Return the answer about the part, a box of the image, on the grid of the whole image."""
        segments = []
        for segment in prediction.segments:
            mask = pasted(segment.mask, box)
            if self.counted is not None:
                common = mask.box.intersection(self.counted)
                mask = EMPTY_MASK if common.is_empty else pack_mask(cut_out(mask, common), common.start_kji)
            slices = segment.slices and segment.slices.shifted(box.start_kji[array_axis(segment.slices.axis)])
            segments.append(SegmentPrediction(mask, segment.score, slices))
        return replace(prediction, segments=tuple(segments))


def crop_request(
    card: ModelCard, request: PredictRequest, volume: Volume, box: Box | None, why: str = ""
) -> CroppedRequest:
    """Return the part of an image in a box; all of it without one. ``why`` is added to the note about it.

    Raises:
        InputError: the box lies outside the image.
        PromptError: a prompt lies wholly outside the box.
    """
    if box is None or box == volume.geometry.box:
        return CroppedRequest(card, request, volume, request.segments)
    box = box.intersection(volume.geometry.box)
    if box.is_empty:
        raise InputError("the region of interest lies outside the image")
    segments, cut = crop_prompts(request.segments, box, volume.geometry)
    note = f"the model saw the region {box_text(box)} only{why}"
    return CroppedRequest(card, request, volume, segments, box, None, (note, *cut))


def tile_request(part: CroppedRequest, boxes: Sequence[tuple[Box, Box]], why: str) -> list[CroppedRequest]:
    """Return tiles of a part of an image: boxes that the model sees, and of each the box in which its answer counts.

    Tiles in which every voxel is the same, such as the air around a body, are left out.
    """
    note = f"the model saw the image in {len(boxes)} parts{why}"
    tiles: list[CroppedRequest] = []
    for visible, counted in boxes:
        voxels = part.whole.array_kji[visible.slices]
        if voxels.min() == voxels.max():
            continue
        segments, cut = crop_prompts(part.request.segments, visible, part.whole.geometry)
        notes = () if tiles else (*part.notes, note, *cut)
        tiles.append(CroppedRequest(part.card, part.request, part.whole, segments, visible, counted, notes))
    return tiles


@dataclass(slots=True)
class Cropper:
    """Cuts parts out of images and keeps the last one, since the key of a volume takes time to compute.

    Attributes:
        keys: the keys of all parts by the key of the whole image.
    """

    keys: dict[str, set[str]] = field(default_factory=dict)
    _last: tuple[str, Box, Volume] | None = None

    def crop(self, part: CroppedRequest) -> Volume:
        """Return what the model sees of an image.

        Raises:
            InputError: every voxel of it is the same.
        """
        if part.box is None:
            return part.whole
        if self._last is None or self._last[:2] != (part.whole.key, part.box):
            cropped = crop_volume(part.whole, part.box)
            self._last = part.whole.key, part.box, cropped
            self.keys.setdefault(part.whole.key, set()).add(cropped.key)
        return self._last[2]

    def forget(self, volume_key: str) -> set[str]:
        """Drop what was kept of an image; return the keys of the image and of all its parts."""
        if self._last is not None and self._last[0] == volume_key:
            self._last = None
        return {volume_key, *self.keys.pop(volume_key, ())}


EMPTY_NOTE = "segments[{}]: the model found nothing"


def join_predictions(predictions: Sequence[Prediction]) -> Prediction:
    """Join the answers about the tiles of an image; scores are dropped, since those of parts do not fit the whole."""
    first = predictions[0]
    segments = tuple(
        SegmentPrediction(merge_masks([segment.mask for segment in parts]), None)
        for parts in zip(*(prediction.segments for prediction in predictions), strict=True)
    )
    notes = dict.fromkeys(note for prediction in predictions for note in prediction.notes)
    for n, segment in enumerate(segments):
        notes.pop(EMPTY_NOTE.format(n), None)
        if segment.mask.box.is_empty:
            notes[EMPTY_NOTE.format(n)] = None
    timings = {name: sum(prediction.timings_s[name] for prediction in predictions) for name in first.timings_s}
    counts = {name: sum(prediction.counts[name] for prediction in predictions) for name in first.counts}
    boxes = tuple(box for prediction in predictions for box in prediction.parts)
    return replace(first, segments=segments, notes=tuple(notes), timings_s=timings, counts=counts, parts=boxes)


def unsure_notes(segments: Sequence[SegmentPrediction], start_kji: Shape) -> list[str]:
    """Return notes on the slices of which the model is not sure; it saw the image from the voxel ``start_kji`` on."""
    notes = []
    for n, segment in enumerate(segments):
        slices = segment.slices and segment.slices.shifted(start_kji[array_axis(segment.slices.axis)])
        if slices is not None and (unsure := slices.unsure):
            runs: list[list[int]] = []
            for index in unsure:
                if runs and index == runs[-1][-1] + 1:
                    runs[-1].append(index)
                else:
                    runs.append([index])
            texts = [f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
            ending, them = ("s", "them") if len(unsure) > 1 else ("", "it")
            notes.append(f"segments[{n}]: the model is not sure of the slice{ending} {', '.join(texts)}: check {them}")
    return notes


@dataclass(frozen=True, slots=True)
class AvailableMemory:
    """Memory that can still be taken, in bytes, None where nobody knows.

    Attributes:
        host: main memory.
        device: of the device that computes; the same for the CPU.
        used: main memory that this process has taken.
        limit: what this process may take in all, on each; None for as much as there is.
    """

    host: int | None
    device: int | None
    used: int = 0
    limit: int | None = None

    def within(self, limit: int | None) -> "AvailableMemory":
        """Return what a limit leaves of it."""
        if limit is None:
            return self
        rest = max(0, limit - self.used)
        host = rest if self.host is None else min(self.host, rest)
        device = limit if self.device is None else min(self.device, limit)
        return AvailableMemory(host, device, self.used, limit)

    @property
    def reason(self) -> str:
        """The limit, for messages."""
        return "" if self.limit is None else f" of the {bytes_text(self.limit)} that it is limited to"


def measure_memory(device: str) -> AvailableMemory:
    """Measure the free memory of the host and of a device."""
    return AvailableMemory(free_host_bytes(), free_bytes(device), taken_bytes())


@dataclass(frozen=True, slots=True)
class MemoryPlanner:
    """Decides what fits into memory.

    Attributes:
        catalogue: the models that could be used instead.
        limit: what may be taken in all, in bytes, on the host and on the device each; None: what there is.
        measure: measures the free memory of the host and of a device.
        tile_overlap: how far a tile reaches beyond where its answer counts, in voxels.
    """

    catalogue: Mapping[str, ModelCard]
    limit: int | None = None
    measure: Callable[[str], AvailableMemory] = measure_memory
    tile_overlap: int = _TILE_OVERLAP

    def forecast_load(self, card: ModelCard, device: str) -> tuple[str, ...]:
        """Return notes on a model that is about to be loaded, where its card says that it takes more than is free.

        Raises:
            MemoryShortageError: its weights alone do not fit into the user's limit, or into main memory.
        """
        memory, weights = self.measure(device).within(self.limit), card.source.bytes
        if memory.host is not None and weights > memory.host:
            free_text = f"{bytes_text(memory.host)}{memory.reason} are free"
            message = f"the weights of {card.title} take {bytes_text(weights)}, and {free_text}"
            raise MemoryShortageError(f"{message}: {self.remedies(card, device)}")
        needed = (card.memory_mb or {}).get(device, 0) * 10**6
        free = memory.host if device == "cpu" else memory.device
        if free is None or needed <= free:
            return ()
        basis = (card.memory_basis or {}).get(device, "estimated")
        message = f"{card.title} takes up to {bytes_text(needed)} ({basis}), and {bytes_text(free)}{memory.reason} are"
        return (f"{message} free; if they do not do: {self.remedies(card, device)}",)

    def fit(self, part: CroppedRequest, released: int) -> list[CroppedRequest]:
        """Return the part, or as much of it as fits into memory, or all of it in tiles.

        The voxels that fit are rounded to a power of two, so that a little more or less memory changes nothing.

        Args:
            part: what is to be answered.
            released: memory that will be given back before any is taken, in bytes.

        Raises:
            MemoryShortageError: no part of it would do.
        """
        each = part.card.bytes_per_voxel
        memory = self.measure("cpu").within(self.limit)
        if memory.host is None:
            return [part]
        visible = max(part.voxels, math.prod(part.visible_kji))
        free, needed = memory.host + released, visible * each
        if needed <= free * _USABLE:
            return [part]
        free_text = f"{bytes_text(free)}{memory.reason}"
        voxels = (1 << max(0, (int(free * _USABLE) // each).bit_length() - 1)) * part.voxels // visible
        smaller = self._smaller(part, voxels, f", since {free_text} of memory are free, and the whole takes more")
        if not smaller:
            size = f" ({part.resampling})" if part.resampling else ""
            message = f"{part.card.title} takes {bytes_text(needed)} for an image of this size{size}"
            raise MemoryShortageError(f"{message}, and {free_text} are free: {self.remedies(part.card, 'cpu')}")
        return smaller

    def after_shortage(self, part: CroppedRequest) -> list[CroppedRequest]:
        """Return what to ask a model of volumes once more after memory ran out; empty where it can be no less."""
        voxels = part.voxels // _SMALLER if part.card.sees_volumes else 0
        return self._smaller(part, voxels, ", since memory ran out")

    def remedies(self, card: ModelCard, device: str) -> str:
        """Return what a user can do where memory is short, as a phrase."""
        remedies = ["close other programs" if self.limit is None else "close other programs or raise the limit"]
        remedies.append("limit the model to a region of interest")
        if card.sees_volumes:
            remedies.append("resample the image to larger voxels")
        if device != "cpu":
            remedies.append("compute on the CPU")
        models = smaller_models(card, device, self.catalogue)
        if models:
            remedies.append(f"use a smaller model ({', '.join(models)})")
        return ", ".join(remedies[:-1]) + f", or {remedies[-1]}"

    def _smaller(self, part: CroppedRequest, voxels: int, why: str) -> list[CroppedRequest]:
        """Return the part around its prompts, or in tiles where they are words; none where neither goes."""
        box = _box_around_prompts(part, voxels)
        if box is not None:
            return [crop_request(part.card, part.request, part.whole, box, why)]
        return tile_request(part, self._tile_boxes(part, voxels), why)

    def _tile_boxes(self, part: CroppedRequest, voxels: int) -> list[tuple[Box, Box]]:
        """Halve a part along its longest axis until each tile has no more than a number of voxels.

        Each tile comes with the box in which its answer counts; it reaches beyond that, so that nothing is cut off from
        its surroundings. Empty where the model or the prompts do not allow tiles, or they would be smaller than their
        surroundings.
        """
        if not part.card.can_be_tiled or any(
            not isinstance(prompt, TextPrompt | ClassPrompt) for prompt in part.prompts
        ):
            return []
        whole = part.box or part.whole.geometry.box
        tiles, waiting = [], [whole]
        while waiting:
            counted = waiting.pop()
            visible = grown(counted, self.tile_overlap, whole)
            if math.prod(visible.shape_kji) <= voxels:
                tiles.append((visible, counted))
                continue
            axis = int(np.argmax(counted.shape_kji))
            if counted.shape_kji[axis] < 2 * self.tile_overlap:
                return []
            middle = (counted.start_kji[axis] + counted.stop_kji[axis]) // 2
            (k0, j0, i0), (k1, j1, i1) = (
                (*corner[:axis], middle, *corner[axis + 1 :]) for corner in (counted.start_kji, counted.stop_kji)
            )
            waiting += [Box((k0, j0, i0), counted.stop_kji), Box(counted.start_kji, (k1, j1, i1))]
        return tiles


def _box_around_prompts(part: CroppedRequest, voxels: int) -> Box | None:
    """Return the box around the prompts, in the whole image, with no more than a number of voxels; None for none."""
    if not all(isinstance(prompt, MaskPrompt) or prompt_positions(prompt) for prompt in part.prompts):
        return None
    geometry, visible = part.whole.geometry, part.box or part.whole.geometry.box
    inner = around_prompts(part.prompts, _LEAST_MARGIN_MM, geometry).intersection(visible)
    return largest_box_around(inner, voxels, visible)


def smaller_models(card: ModelCard, device: str, catalogue: Mapping[str, ModelCard], most: int = 2) -> list[str]:
    """Return the ids of the largest models that take all kinds of prompts that a model does, and less memory."""
    needed = (card.memory_mb or {}).get(device) or card.source.bytes // 10**6
    others = []
    for other in catalogue.values():
        amount = (other.memory_mb or {}).get(device, 0)
        fits = other.task == card.task and set(other.prompts) >= set(card.prompts)
        if fits and other.id != card.id and 0 < amount < needed:
            others.append((amount, other.id))
    return [model_id for _, model_id in sorted(others, reverse=True)[:most]]
