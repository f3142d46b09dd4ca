"""A request as a model gets it: with the part of the image that it sees; and its answer, put back in its place."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ..core.cards import ModelCard
from ..core.cropping import box_text, crop_prompts, crop_volume, pasted
from ..core.errors import InputError
from ..core.geometry import Axis, Box, Geometry, array_axis
from ..core.placement import clip
from ..core.prompts import Prompt, SegmentPrompts
from ..core.requests import Prediction, PredictRequest, Propagation, SegmentPrediction
from ..core.translation import translate
from ..core.volume import Volume

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
        notes: what the user should know of that.
    """

    card: ModelCard
    request: PredictRequest
    whole: Volume
    volume: Volume
    segments: tuple[SegmentPrompts, ...]
    box: Box | None = None
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
        segments = (SegmentPrediction(pasted(one.mask, self.box), one.score) for one in prediction.segments)
        return replace(prediction, segments=tuple(segments))


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
    return Task(card, request, volume, crop(volume, box), segments, box, (note, *cut))


def emptiness(segments: Sequence[SegmentPrediction]) -> list[str]:
    """Notes on segments of which nothing was found."""
    return [f"segments[{n}]: the model found nothing" for n, one in enumerate(segments) if one.mask.box.is_empty]
