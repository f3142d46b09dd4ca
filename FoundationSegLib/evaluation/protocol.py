"""The field's interactive protocol on one object: a box, clicks or both, and the scores after each of them.

After the CVPR 2025 challenge "Foundation Models for Interactive 3D Biomedical Image Segmentation"
(``CVPR25_iter_eval.py``, github.com/JunMa11/CVPR-MedSegFMCompetition): an optional box, then five clicks, each in the
middle of the largest error that is left, and a new prediction from all prompts so far after each.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InferenceError, PromptError
from ..core.geometry import Geometry, Vector, bounding_box
from ..core.prompts import BoxPrompt, PointPrompt, Polarity, Prompt, SegmentPrompts
from ..core.requests import Prediction, PredictRequest, Propagation
from ..core.volume import Volume
from .clicks import Click, next_click
from .metrics import dice, surface_dice
from .scores import ObjectScores, Origin, PromptGiven, Step
from .settings import ProtocolSettings

Ask = Callable[[PredictRequest], Prediction]
# Tight boxes cut off what a person would leave room for. The challenge's boxes are wider by a random part; one voxel is
# what this project's other figures are measured with.
_BOX_MARGIN = 1


def evaluate_object(
    ask: Ask,
    model_id: str,
    volume: Volume,
    truth_kji: NDArray[np.bool_],
    settings: ProtocolSettings,
    on_step: Callable[[], None] = lambda: None,
) -> ObjectScores:
    """One object by the protocol.

    A step that fails (:class:`PromptError`, :class:`InferenceError`) has found nothing, as in the challenge, and the
    next click is placed accordingly. Once the segment is perfect nothing is asked any more: a model asked the same
    again answers the same.

    Args:
        ask: answers a request, with the image known already.
        model_id: whom to ask.
        volume: the image.
        truth_kji: the object, (K, J, I) bool, not empty.
        settings: the protocol.
        on_step: called after each step.

    Raises:
        FoundationSegError: the model cannot be asked at all, or the user stopped it.
    """
    run = _Run(ask, model_id, volume, truth_kji, settings, np.zeros_like(truth_kji))
    for step in run.steps():
        run.done.append(step)
        on_step()
    return ObjectScores(tuple(run.done), run.origin, run.load_s, tuple(dict.fromkeys(run.notes)))


@dataclass(slots=True)
class _Run:
    """An object under evaluation: the prompts so far, and the segment that they gave."""

    ask: Ask
    model_id: str
    volume: Volume
    truth_kji: NDArray[np.bool_]
    settings: ProtocolSettings
    mask_kji: NDArray[np.bool_]
    prompts: list[Prompt] = field(default_factory=list)
    done: list[Step] = field(default_factory=list)
    origin: Origin | None = None
    load_s: float = 0.0
    notes: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def steps(self) -> Iterator[Step]:
        """Every step as it is made."""
        geometry, settings = self.volume.geometry, self.settings
        if settings.has_box:
            self.prompts.append(box_around(self.truth_kji, geometry))
            yield self._asked("box")
        for _ in range(settings.click_steps):
            click = next_click(self.truth_kji, self.mask_kji, geometry.spacing_mm, settings.seed)
            if click is None:
                yield Step("none", 1.0, 1.0)
                continue
            self.prompts.append(click_prompt(click, geometry))
            is_positive = click.polarity is Polarity.POSITIVE
            yield self._asked("positive click" if is_positive else "negative click", click)

    def _asked(self, given: PromptGiven, click: Click | None = None) -> Step:
        index_ijk = click.index_ijk if click else None
        begin = time.perf_counter()
        try:
            prediction = self.ask(self._request())
        except (PromptError, InferenceError) as error:
            self.mask_kji = np.zeros_like(self.truth_kji)
            return Step(given, 0.0, 0.0, None, index_ijk, error)
        took_s = time.perf_counter() - begin
        self._take(prediction)
        load_s = prediction.timings_s.get("load", 0.0)
        truth, mask, spacing = self.truth_kji, self.mask_kji, self.volume.geometry.spacing_mm
        nsd = surface_dice(truth, mask, spacing, self.settings.nsd_tolerance_mm)
        return Step(given, dice(truth, mask), nsd, max(0.0, took_s - load_s), index_ijk)

    def _request(self) -> PredictRequest:
        segment = SegmentPrompts("object", tuple(self.prompts))
        # A click lies on one slice: what it says has to be carried on. A box says how far by itself.
        propagation = None if self.settings.has_box else Propagation()
        number, key = next(self.numbers), self.volume.key
        return PredictRequest(number, self.model_id, key, (segment,), self.settings.intensity, propagation)

    def _take(self, prediction: Prediction) -> None:
        self.mask_kji = prediction.segments[0].mask.expand(self.truth_kji.shape)
        self.origin = Origin(prediction.checkpoint, prediction.device, prediction.precision, dict(prediction.intensity))
        self.load_s += prediction.timings_s.get("load", 0.0)
        self.notes += prediction.notes


def box_around(mask_kji: NDArray[np.bool_], geometry: Geometry) -> BoxPrompt:
    """The 3-D box around an object, one voxel wider within the slices (along i and j) as far as the image reaches.

    The challenge's box is that of the object's middle slice, widened by a random number of pixels (``get_boxes.py``);
    this one holds the whole object, and is the same in every run.
    """
    tight = bounding_box(mask_kji)
    margin = (0, _BOX_MARGIN, _BOX_MARGIN)
    first = np.maximum(np.subtract(tight.start_kji, margin), 0)
    last = np.minimum(np.add(tight.stop_kji, margin), mask_kji.shape) - 1
    return BoxPrompt((_in_ras(first[::-1], geometry), _in_ras(last[::-1], geometry)))


def click_prompt(click: Click, geometry: Geometry) -> PointPrompt:
    """A click as a prompt on its slice along k."""
    return PointPrompt(_in_ras(np.array(click.index_ijk), geometry), click.polarity, "k")


def _in_ras(index_ijk: NDArray[np.int64], geometry: Geometry) -> Vector:
    r, a, s = (float(n) for n in geometry.to_ras(index_ijk))
    return r, a, s
