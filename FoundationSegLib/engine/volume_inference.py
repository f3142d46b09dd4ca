"""Inference on whole volumes: one view of one image is kept, and every segment of a request is asked of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..imaging.intensity import IntensityMapping
from ..imaging.volume import Volume
from ..models.protocols import VolumeAnswer, VolumeModel, VolumePrompt, VolumeView
from ..progress import Progress
from ..requests.segmentation import CheckpointRecord, Prediction, PredictRequest, SegmentPrediction
from .tasks import emptiness


@dataclass(frozen=True, slots=True)
class ViewKey:
    """Everything that changes a model's view: weights, device, numbers, image, and the window that it was cut to."""

    checkpoint: CheckpointRecord
    device: str
    precision: str
    volume_key: str
    window: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class VolumeAnswers:
    """What a request came to.

    Attributes:
        segments: in the order of the prompts.
        is_new_view: the image was prepared for it.
        view_s, answer_s: how long that took, and the answers, in seconds.
    """

    segments: tuple[VolumeAnswer, ...]
    is_new_view: bool
    view_s: float
    answer_s: float


@dataclass(slots=True)
class VolumeInference:
    """Asks models of volumes, and keeps the last view: it may be as large as the image many times over."""

    _key: ViewKey | None = None
    _view: VolumeView | None = None

    @property
    def volume_key(self) -> str:
        """The image that is viewed; empty where there is none."""
        return "" if self._key is None else self._key.volume_key

    def is_of(self, model_id: str, volume_key: str) -> bool:
        """True where it is that model's view of that image."""
        return self._key is not None and (self._key.checkpoint.model_id, self.volume_key) == (model_id, volume_key)

    @property
    def nbytes(self) -> int:
        """Memory taken by the view, in bytes."""
        return 0 if self._view is None else self._view.nbytes

    def let_go(self) -> None:
        """Give the view's memory back."""
        self._key = self._view = None

    def ask(
        self,
        model: VolumeModel,
        checkpoint: CheckpointRecord,
        volume: Volume,
        mapping: IntensityMapping,
        prompts: Sequence[VolumePrompt],
        progress: Progress,
    ) -> VolumeAnswers:
        """The segments that prompts mean; :meth:`VolumeModel.view` and :meth:`VolumeView.answer` say what it raises."""
        window = None if mapping.rule == "raw" else (mapping.low, mapping.high)
        key = ViewKey(checkpoint, model.device, model.precision, volume.key, window)
        start = time.perf_counter()
        view, is_new = self._view, False
        if view is None or key != self._key:
            view = None
            self.let_go()  # before the next one is made: both at once may be more than there is
            progress.step("view", 0, 1)
            view, is_new = model.view(_cut_to_window(volume, window), progress), True
            self._key, self._view = key, view
        seen = time.perf_counter()
        answers = tuple(view.answer(prompts, progress))
        return VolumeAnswers(answers, is_new, seen - start if is_new else 0.0, time.perf_counter() - seen)


def volume_prediction(
    request: PredictRequest,
    answers: VolumeAnswers,
    notes: Sequence[str],
    model: VolumeModel,
    checkpoint: CheckpointRecord,
    mapping: IntensityMapping,
    load_s: float,
) -> Prediction:
    """The answer to a request."""
    found = tuple(SegmentPrediction(one.mask, one.score) for one in answers.segments)
    told = [f"segments[{n}]: {note}" for n, one in enumerate(answers.segments) for note in one.notes]
    return Prediction(
        request_id=request.request_id,
        segments=found,
        intensity=mapping.to_document(),
        checkpoint=checkpoint,
        device=model.device,
        precision=model.precision,
        notes=(*notes, *told, *emptiness(found)),
        timings_s={"load": load_s, "encode": answers.view_s, "decode": answers.answer_s},
        counts={"encodes": int(answers.is_new_view), "decodes": sum(one.runs for one in answers.segments)},
    )


def _cut_to_window(volume: Volume, window: tuple[float, float] | None) -> Volume:
    """The image with values beyond a window at its limits, in its own unit and type."""
    if window is None:
        return volume
    array = volume.array_kji
    if array.dtype.kind != "f":  # a limit between two whole numbers, or beyond the type, would change the type
        limits = np.iinfo(array.dtype)
        low, high = (int(np.clip(round(limit), limits.min, limits.max)) for limit in window)
        return replace(volume, array_kji=np.clip(array, low, high))
    return replace(volume, array_kji=np.clip(array, *window).astype(array.dtype, copy=False))
