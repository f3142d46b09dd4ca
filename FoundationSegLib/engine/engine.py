"""The engine: volumes and requests in, predictions out. One engine owns one device."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from ..core.capabilities import require_understood
from ..core.cards import ModelCard, find_card
from ..core.errors import InferenceError, InputError, PromptError
from ..core.intensity import IntensityMapping, resolve_intensity
from ..core.mask import PackedMask
from ..core.placement import PlacedBox, place_box
from ..core.progress import Progress
from ..core.prompts import BoxPrompt, Prompt, prompt_kind
from ..core.requests import CheckpointRecord, DeviceChoice, Prediction, PredictRequest
from ..core.volume import Volume, require_image
from ..hub.fetch import ensure_checkpoint
from ..hub.store import Store
from ..models.base import SliceModel, load_slice_model
from .cache import EmbeddingCache
from .device import choose_device
from .slice_inference import SliceInference
from .tracks import BoxRule, plan_tracks

# A LiteMedSAM embedding takes 4 MB: this is a chest CT of 128 slices, wholly encoded.
CACHE_BYTES = 512 * 2**20

AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to answer, and which weights it has."""

    model: SliceModel
    checkpoint: CheckpointRecord


@dataclass(slots=True)
class Engine:
    """Answers requests, one at a time.

    Attributes:
        catalogue: the cards by id.
        store: where the checkpoints are.
        device: what to compute on; ``"auto"`` picks the best that is there.
        cache: the embeddings, within their budget.
        box_rule: how 3-D boxes are followed; ``"official"`` is there for parity with LiteMedSAM's own script.
    """

    catalogue: Mapping[str, ModelCard]
    store: Store
    device: DeviceChoice = "auto"
    cache: EmbeddingCache[Any] = field(default_factory=partial(EmbeddingCache, CACHE_BYTES))
    box_rule: BoxRule = "confined"
    _volumes: dict[str, Volume] = field(default_factory=dict)
    _mappings: dict[tuple[str, str | None, str], IntensityMapping] = field(default_factory=dict)
    _models: dict[str, LoadedModel] = field(default_factory=dict)

    def add_volume(self, volume: Volume) -> None:
        """Take in an image; requests name it by its key.

        Raises:
            InputError: there is nothing to segment in it: NaN, infinite or constant.
        """
        require_image(volume)
        self._volumes[volume.key] = volume

    def remove_volume(self, volume_key: str) -> None:
        """Let go of an image; it is no error if it is not there."""
        self._volumes.pop(volume_key, None)

    def predict(self, request: PredictRequest, progress: Progress) -> Prediction:
        """Answer a request.

        Raises:
            UnknownModelError, CheckpointError: the model cannot be used.
            InputError: the volume was not added, or the intensity policy does not fit it.
            PromptError: a prompt is outside the volume or not understood by the model.
            InferenceError: the model failed.
            Cancelled: the user stopped it.
        """
        progress.check()
        card = find_card(self.catalogue, request.model_id)
        require_understood(card, request.segment, request.place)
        volume = self._volume(request.volume_key)
        if volume.is_colour and 3 not in card.channels:
            raise InputError(f"{card.title} does not understand colour; give it a grey image")
        boxes = [
            _place(prompt, volume, f"{request.place}.prompts[{n}]") for n, prompt in enumerate(request.segment.prompts)
        ]
        mapping = self._mapping(request.intensity, volume)
        start = time.perf_counter()
        loaded = self._load(card, progress)
        load_s = time.perf_counter() - start
        inference = SliceInference(loaded.model, loaded.checkpoint, volume, mapping, self.cache)
        tracks = plan_tracks(boxes, volume.geometry.shape_kji, request.propagate, self.box_rule)
        mask = _guarded(lambda: inference.segment(tracks, progress))
        return _prediction(request, mask, boxes, inference, loaded.checkpoint, load_s)

    def _volume(self, key: str) -> Volume:
        if key not in self._volumes:
            raise InputError("the request names an image that was not sent")
        return self._volumes[key]

    def _mapping(self, policy: str, volume: Volume) -> IntensityMapping:
        # Percentiles of a large volume take seconds, and a click asks for the same ones again.
        # The same voxels may come again with another modality, and `auto` goes by that.
        key = (volume.key, volume.modality, policy)
        if policy == "display":
            return resolve_intensity(policy, volume)
        if key not in self._mappings:
            self._mappings[key] = resolve_intensity(policy, volume)
        return self._mappings[key]

    def _load(self, card: ModelCard, progress: Progress) -> LoadedModel:
        if card.id not in self._models:
            try:
                self._models[card.id] = self._load_anew(card, progress)
            except ModuleNotFoundError as error:
                remedy = f"install {', '.join(card.packages) or error.name} with pip"
                raise InferenceError(f"{card.title} needs the Python package {error.name}; {remedy}") from error
        return self._models[card.id]

    def _load_anew(self, card: ModelCard, progress: Progress) -> LoadedModel:
        device = choose_device(self.device)  # before anything is downloaded in vain
        files = ensure_checkpoint(self.store, card, progress)
        model = _guarded(lambda: load_slice_model(card, files, device))
        record = CheckpointRecord(card.id, card.source.repository, card.source.revision, self.store.sha256(card))
        return LoadedModel(model, record)


def _guarded(answer: Callable[[], AnswerT]) -> AnswerT:
    """Turn what the framework throws at run time (out of memory, a driver's fault) into an error of ours."""
    try:
        return answer()
    except (RuntimeError, MemoryError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InferenceError(f"the model could not answer: {reason}") from error


def _place(prompt: Prompt, volume: Volume, place: str) -> PlacedBox:
    """A prompt in voxels; what a card may promise beyond boxes, this engine cannot carry out yet."""
    if not isinstance(prompt, BoxPrompt):
        raise PromptError(f"this version segments from boxes only, not from a {prompt_kind(prompt)}", f"{place}.type")
    return place_box(prompt, volume.geometry, place)


def _prediction(
    request: PredictRequest,
    mask: PackedMask,
    boxes: list[PlacedBox],
    inference: SliceInference,
    checkpoint: CheckpointRecord,
    load_s: float,
) -> Prediction:
    tally = inference.tally
    notes = [
        f"{request.place}.prompts[{n}].corners: clipped to the image"
        for n, placed in enumerate(boxes)
        if placed.clipped
    ]
    if mask.box.is_empty:
        notes.append(f"{request.place}: the model found nothing")
    return Prediction(
        request_id=request.request_id,
        mask=mask,
        score=sum(tally.scores) / len(tally.scores) if tally.scores else None,
        intensity=inference.mapping.to_document(),
        checkpoint=checkpoint,
        device=inference.model.device,
        precision=inference.model.precision,
        notes=tuple(notes),
        timings_s={"load": load_s, "encode": tally.encode_s, "decode": tally.decode_s},
        counts={"encodes": tally.encodes, "decodes": tally.decodes},
    )
