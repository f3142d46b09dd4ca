"""A request as a model gets it: with the part of the image that it sees; and its answer, put back in its place."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ..catalog.model_cards import ModelCard
from ..errors import InputError
from ..imaging.geometry import Axis, Box, Geometry, array_axis
from ..imaging.masks import EMPTY_MASK, PackedMask, cut_out, merge_masks, pack_mask
from ..imaging.volume import Volume
from ..prompts.kinds import Prompt, SegmentPrompts
from ..prompts.placement import clip
from ..prompts.regions import box_text, crop_prompts, crop_volume, pasted
from ..prompts.translation import translate
from ..requests.segmentation import Prediction, PredictRequest, Propagation, SegmentPrediction

PlacedT = TypeVar("PlacedT")
Place = Callable[[Sequence[Prompt], Sequence[str], Geometry], PlacedT]


@dataclass(frozen=True, slots=True)
class Task:
    """What a model is to do.

    Attributes:
        card: the model's.
        request: what was asked, about the whole image.
        whole: the image.
        volume: what the model sees of it.
        segments: the prompts, where they are there.
        box: where it lies in the whole image; None where it is all of it.
        own: where its answer counts, in the whole image; None where all of it does. Tiles overlap in what they see.
        notes: what the user should know of that.
    """

    card: ModelCard
    request: PredictRequest
    whole: Volume
    volume: Volume
    segments: tuple[SegmentPrompts, ...]
    box: Box | None = None
    own: Box | None = None
    notes: tuple[str, ...] = ()

    def place(
        self, place: Callable[[Sequence[Prompt], Sequence[str], Geometry], PlacedT]
    ) -> tuple[list[PlacedT], list[str]]:
        """The prompts of each segment, in the model's own kinds and in voxels, and notes on what that took.

        Raises:
            PromptError: a prompt lies outside the image, or has no honest translation.
        """
        geometry, placed, notes = self.volume.geometry, [], list(self.notes)
        for n, prompts in enumerate(self.segments):
            notes += clip(prompts, geometry, f"segments[{n}]")
            translated = translate(self.card, prompts, geometry, f"segments[{n}]")
            notes += translated.notes
            places = [f"segments[{n}].prompts[{origin}]" for origin in translated.origins]
            placed.append(place(translated.segment.prompts, places, geometry))
        return placed, notes

    def propagation_along(self, axes: Iterable[Axis]) -> Propagation | None:
        """How prompts are carried on, with numbers of slices that the model sees.

        Raises:
            InputError: the numbers are of slices across several axes, or none of them is seen.
        """
        asked = self.request.propagation
        if asked is None or self.box is None or (asked.start is None and asked.stop is None):
            return asked
        axis, *others = sorted(set(axes))
        if others:
            raise InputError("a range of slices and a region of interest go together for prompts of one axis only")
        first, after = self.box.start_kji[array_axis(axis)], self.box.stop_kji[array_axis(axis)]
        start, stop = max(asked.start or 0, first), after if asked.stop is None else min(asked.stop, after)
        if stop <= start:
            raise InputError(f"no slice of the region of interest ({box_text(self.box)}) is in the range of slices")
        return replace(asked, start=start - first, stop=stop - first)

    def finished(self, prediction: Prediction) -> Prediction:
        """The answer on the whole image."""
        if self.box is None:
            return prediction
        masks = [pasted(one.mask, self.box) for one in prediction.segments]
        if self.own is not None:
            masks = [_within(mask, self.own) for mask in masks]
        found = zip(masks, prediction.segments, strict=True)
        return replace(prediction, segments=tuple(SegmentPrediction(mask, one.score) for mask, one in found))


def make_task(
    card: ModelCard,
    request: PredictRequest,
    volume: Volume,
    box: Box | None,
    crop: Callable[[Volume, Box], Volume] = crop_volume,
    why: str = "",
) -> Task:
    """The task of a request, limited to a box if one is given; ``why`` is told with it, and ``crop`` cuts the image.

    Raises:
        InputError: there is nothing to see in the box.
        PromptError: a prompt lies wholly outside it.
    """
    if box is None or box == volume.geometry.box:
        return Task(card, request, volume, volume, request.segments)
    box = box.intersection(volume.geometry.box)
    if box.is_empty:
        raise InputError("the region of interest lies outside the image")
    segments, cut = crop_prompts(request.segments, box, volume.geometry)
    note = f"the model saw the region {box_text(box)} only{why}"
    return Task(card, request, volume, crop(volume, box), segments, box, None, (note, *cut))


def make_tiles(
    task: Task, boxes: Sequence[tuple[Box, Box]], crop: Callable[[Volume, Box], Volume], why: str
) -> list[Task]:
    """The tasks of parts of a task's image: boxes that the model sees, and of each the part where its answer counts.

    Parts in which there is nothing to see, such as the air around a body, are left out.
    """
    told = f"the model saw the image in {len(boxes)} parts{why}"
    tiles = []
    for seen, own in boxes:
        part = task.whole.array_kji[seen.slices]
        if part.min() == part.max():
            continue
        segments, cut = crop_prompts(task.request.segments, seen, task.whole.geometry)
        notes = (*task.notes, told, *cut) if not tiles else ()
        tiles.append(Task(task.card, task.request, task.whole, crop(task.whole, seen), segments, seen, own, notes))
    return tiles


def joined(predictions: Sequence[Prediction]) -> Prediction:
    """The answers of the tiles of an image as one, without scores: those of parts say nothing of the whole."""
    first, *others = predictions
    if not others:
        return first
    segments = tuple(
        SegmentPrediction(merge_masks([one.mask for one in parts]), None)
        for parts in zip(*(prediction.segments for prediction in predictions), strict=True)
    )
    notes = dict.fromkeys(note for prediction in predictions for note in prediction.notes)
    found = [f"segments[{n}]: the model found nothing" for n in range(len(segments))]
    kept = [note for note in notes if note not in found] + emptiness(segments)
    timings = {name: sum(one.timings_s[name] for one in predictions) for name in first.timings_s}
    counts = {name: sum(one.counts[name] for one in predictions) for name in first.counts}
    return replace(first, segments=segments, notes=tuple(kept), timings_s=timings, counts=counts)


def _within(mask: PackedMask, own: Box) -> PackedMask:
    common = mask.box.intersection(own)
    return EMPTY_MASK if common.is_empty else pack_mask(cut_out(mask, common), common.start_kji)


def emptiness(segments: Sequence[SegmentPrediction]) -> list[str]:
    """Notes on segments of which nothing was found."""
    return [f"segments[{n}]: the model found nothing" for n, one in enumerate(segments) if one.mask.box.is_empty]
