"""The engine: volumes and requests in, predictions out. One engine owns one device."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from ..catalog.catalogue import find_card, require_adapter
from ..catalog.model_cards import ModelCard
from ..errors import InputError, PromptError, VolumeMissingError
from ..hub.fetch import download_checkpoint, ensure_checkpoint, needs_download
from ..hub.store import Store
from ..imaging.geometry import Box
from ..imaging.intensity import IntensityMapping, resolve_intensity, resolve_looks
from ..imaging.volume import Volume, require_image
from ..installation.packages import unusable_package
from ..models.protocols import SliceModel, VolumeModel, has_memory, load_slice_model, load_volume_model
from ..progress import Progress
from ..prompts.capabilities import require_task, require_understood
from ..prompts.regions import crop_volume
from ..requests.classification import ClassifyRequest
from ..requests.classification_answer import Classification
from ..requests.maintenance import DownloadRequest
from ..requests.segmentation import CheckpointRecord, Prediction, PredictRequest, Propagation
from ..requests.worker_settings import BoxRule, DeviceChoice, MemoryBudget
from .budget import Budgeted
from .cache import AnswerCache, EmbeddingCache
from .classifying import classify
from .device import choose_device, limit_threads
from .hand_over import choose_hand_over
from .memory import give_back, guarded
from .outlook import Outlook, outlook_from
from .precision import best_precision, choose_precision
from .segmenting import segment
from .slice_inference import SliceInference, slice_prediction
from .slice_parts import place_prompts
from .tasks import Task, make_task
from .thrift import Thrift
from .tracks import plan_tracks
from .vectors import Encoding, VectorMemory, Weights
from .volume_inference import VolumeInference, volume_prediction
from .volume_parts import place_in_volume

# What of the budget for embeddings is for answers: they are small, and a correction asks for most of them again.
_ANSWERS_SHARE = 1 / 8

_BUDGET = MemoryBudget()

ModelT = TypeVar("ModelT")


@dataclass(frozen=True, slots=True)
class LoadedModel(Generic[ModelT]):
    """A model that is ready to answer, and which weights it has."""

    model: ModelT
    checkpoint: CheckpointRecord


def _volume_memory(budget_bytes: int = _BUDGET.volumes) -> Budgeted[str, Volume]:
    return Budgeted(budget_bytes, lambda volume: volume.array_kji.nbytes)


def _model_memory(budget_bytes: int = _BUDGET.models) -> Budgeted[str, LoadedModel[Any]]:
    return Budgeted(budget_bytes, lambda loaded: loaded.model.nbytes)


@dataclass(slots=True)
class Engine:
    """Answers requests, one at a time. :func:`engine_within` makes one with a budget of memory.

    Attributes:
        catalogue: the cards by id.
        store: where the checkpoints are.
        device: what to compute on; ``"auto"`` picks the best that is there.
        viewing: what models of volumes prepared of the last image.
        memory_limit: what may be taken in all, in bytes, on the host and on the device each; None: what there is.
        cache, answers, volumes, models: the embeddings, what was answered on them, the images by key and the loaded
            models by id, each within its budget.
        vectors: what classifiers saw and read.
        box_rule: how 3-D boxes are followed, and whether slices are turned before the model sees them;
            ``"official"`` is there for parity with LiteMedSAM's own script.
    """

    catalogue: Mapping[str, ModelCard]
    store: Store
    device: DeviceChoice = "auto"
    cache: EmbeddingCache[Any] = field(default_factory=lambda: EmbeddingCache(_BUDGET.embeddings))
    box_rule: BoxRule = "surest"
    answers: AnswerCache = field(default_factory=lambda: AnswerCache(int(_BUDGET.embeddings * _ANSWERS_SHARE)))
    volumes: Budgeted[str, Volume] = field(default_factory=_volume_memory)
    models: Budgeted[str, LoadedModel[Any]] = field(default_factory=_model_memory)
    vectors: VectorMemory = field(default_factory=VectorMemory)
    viewing: VolumeInference = field(default_factory=VolumeInference)
    memory_limit: int | None = None
    _mappings: dict[tuple[str, str | None, str], IntensityMapping] = field(default_factory=dict)
    _part: tuple[str, Box, Volume] | None = None  # of an image, that a model was limited to last
    _part_keys: dict[str, set[str]] = field(default_factory=dict)
    _outlook: Outlook | None = None
    _load_notes: tuple[str, ...] = ()
    _load_s: float = 0.0  # for the next prediction to tell, also where the model was prepared before it

    def add_volume(self, volume: Volume) -> None:
        """Take in an image; requests name it by its key.

        Raises:
            InputError: there is nothing to segment in it: NaN, infinite or constant.
        """
        require_image(volume)
        self.volumes.put(volume.key, volume)

    def remove_volume(self, volume_key: str) -> None:
        """Let go of an image and of all that was seen of it; it is no error if it is not there."""
        self.volumes.drop(volume_key)
        self.vectors.drop_volume(volume_key)
        self._mappings = {key: mapping for key, mapping in self._mappings.items() if key[0] != volume_key}
        if self._part is not None and self._part[0] == volume_key:
            self._part = None
        for key in (volume_key, *self._part_keys.pop(volume_key, ())):
            self.cache.drop_volume(key)
            self.answers.drop_volume(key)
            if self._outlook is not None and self._outlook.inference.volume.key == key:
                self._outlook = None
            if self.viewing.volume_key == key:
                self.viewing.let_go()

    def prepare(self, model_id: str, progress: Progress) -> None:
        """Load a model that will be asked for; one that would have to be downloaded first is left alone.

        Raises:
            UnknownModelError, CardError, CheckpointError, PackageMissingError: the model cannot be used.
            InferenceError: it cannot be loaded.
        """
        card = find_card(self.catalogue, model_id)
        if not needs_download(self.store, card):
            self._load(card, progress)

    def download(self, request: DownloadRequest, progress: Progress) -> None:
        """Download what the store lacks of a model's checkpoint; the next prediction is made with what is there then.

        Raises:
            UnknownModelError: there is no such model.
            CheckpointError: its licence has to be accepted first, or the download fails; what has arrived is kept.
            Cancelled: the user stopped it; what has arrived is kept.
        """
        progress.check()
        card = find_card(self.catalogue, request.model_id)
        download_checkpoint(self.store, card, progress, accept_license=request.accept_license)
        self.models.drop(card.id)  # it may have been loaded from other files
        self.vectors.drop_model(card.id)
        self._outlook = None  # which holds it, too
        self.viewing.let_go()  # as this may

    def predict(self, request: PredictRequest, progress: Progress) -> Prediction:
        """Answer a request.

        Raises:
            UnknownModelError, CardError, CheckpointError, PackageMissingError: the model cannot be used.
            VolumeMissingError: the volume was not added, or made room for others.
            InputError: the intensity policy does not fit the volume.
            PromptError: a prompt is outside the volume or not understood by the model.
            InferenceError: the model failed.
            Cancelled: the user stopped it.
        """
        self._outlook = None
        progress.check()
        card = find_card(self.catalogue, request.model_id)
        require_task(card, "segment")
        if not request.segments or not all(prompts.prompts for prompts in request.segments):
            raise PromptError("there is a segment without a prompt, or no segment at all", "segments")
        for n, prompts in enumerate(request.segments):
            require_understood(card, prompts, f"segments[{n}]")
        volume = self._volume(request.volume_key)
        if volume.is_colour and 3 not in card.channels:
            raise InputError(f"{card.title} does not understand colour; give it a grey image")
        task = make_task(card, request, volume, request.region, self._part_of)
        # Of what this model views, the memory is taken already.
        besides = None if self.viewing.is_of(card.id, task.volume.key) else self.viewing.nbytes
        return self._thrift.answer(task, besides, self._part_of, lambda one: self._answer(one, progress), self._let_go)

    @property
    def _thrift(self) -> Thrift:
        return Thrift(self.catalogue, self.memory_limit)

    def _let_go(self) -> str:
        """Give back whatever can be made again, views, embeddings, answers and models; returns the device."""
        self._outlook = None
        self.viewing.let_go()
        for kept in (self.cache, self.answers, self.models):
            kept.clear()
        device = choose_device(self.device)
        give_back(device)
        return device

    def _part_of(self, volume: Volume, box: Box) -> Volume:
        """A part of an image; the same one again and again, since its key takes time to compute."""
        if self._part is None or self._part[:2] != (volume.key, box):
            self._part = volume.key, box, crop_volume(volume, box)
            self._part_keys.setdefault(volume.key, set()).add(self._part[2].key)
        return self._part[2]

    def _answer(self, task: Task, progress: Progress) -> Prediction:
        answer = self._in_volume if task.card.sees_volumes else self._on_slices
        prediction = task.finished(answer(task, progress))
        notes, self._load_notes = self._load_notes, ()
        return replace(prediction, notes=(*notes, *prediction.notes))

    def _in_volume(self, task: Task, progress: Progress) -> Prediction:
        card, request = task.card, task.request
        prompts, notes = task.place(place_in_volume)
        if request.propagation is not None:
            notes.append(f"{card.title} looks at the whole volume: there is nothing to propagate")
        # It has a recipe of its own for the intensities: it gets the voxels as they are, unless told otherwise.
        policy = card.intensity if request.intensity == "auto" else request.intensity
        mapping = replace(self._mapping(policy, task.whole), policy=request.intensity)
        loaded: LoadedModel[VolumeModel] = self._load(card, progress)
        load_s, self._load_s = self._load_s, 0.0
        answers = guarded(
            lambda: self.viewing.ask(loaded.model, loaded.checkpoint, task.volume, mapping, prompts, progress)
        )
        return volume_prediction(request, answers, notes, loaded.model, loaded.checkpoint, mapping, load_s)

    def _on_slices(self, task: Task, progress: Progress) -> Prediction:
        card, request, volume = task.card, task.request, task.volume
        hand_over = choose_hand_over(request.propagation.hand_over if request.propagation else "auto", card.prompts)
        placed, notes = task.place(place_prompts)
        propagation = task.propagation_along(axis for one in placed for axis in one.axes)
        mapping = self._mapping(request.intensity, task.whole)
        loaded: LoadedModel[SliceModel] = self._load(card, progress)
        load_s, self._load_s = self._load_s, 0.0
        inference = SliceInference(
            loaded.model,
            loaded.checkpoint,
            volume,
            mapping,
            self.cache,
            self.answers,
            hand_over,
            as_stored=self.box_rule == "official",
            check=progress.check,
        )
        # A model with a memory starts in the middle of a 3-D box, as its authors do, and is sure of itself.
        rule: BoxRule = "official" if has_memory(loaded.model) else self.box_rule
        tracks = [plan_tracks(one, volume.geometry.shape_kji, propagation, rule) for one in placed]
        segments = guarded(lambda: segment(inference, tracks, propagation or Propagation(), progress))
        self._outlook = outlook_from(inference, *placed[-1].last)
        return slice_prediction(request, segments, notes, inference, load_s)

    def classify(self, request: ClassifyRequest, progress: Progress) -> Classification:
        """Answer a request to classify.

        Raises:
            UnknownModelError, CardError, CheckpointError, PackageMissingError: the model cannot be used.
            VolumeMissingError: the volume was not added, or made room for others.
            InputError: labels, model, image and policy do not fit each other, or there is nothing to see.
            InferenceError: the model failed.
            Cancelled: the user stopped it.
        """
        self._outlook = None
        progress.check()
        card = find_card(self.catalogue, request.model_id)
        require_task(card, "classify")
        volume = self._volume(request.volume_key)
        if volume.is_colour and 3 not in card.channels:
            raise InputError(f"{card.title} does not understand colour; give it a grey image")
        looks = resolve_looks(request.intensity, volume, card.ct_channels, self._mapping)
        loaded: Any = self._load(card, progress)
        load_s, self._load_s = self._load_s, 0.0
        weights = Weights(loaded.checkpoint, loaded.model.device, loaded.model.precision)
        encoding = Encoding(loaded.model, weights, self.vectors, progress)
        found = guarded(lambda: classify(request, volume, looks, encoding))
        return replace(found, timings_s={"load": load_s, **found.timings_s})

    def encode_ahead(self, progress: Progress) -> bool:
        """Encode one more of the slices around the last prompt; False where there is none left.

        Raises:
            Cancelled: something that was asked for has come.
        """
        outlook = self._outlook
        return outlook is not None and guarded(lambda: outlook.encode_next(progress))

    def _volume(self, key: str) -> Volume:
        volume = self.volumes.get(key)
        if volume is None:
            raise VolumeMissingError()
        return volume

    def _mapping(self, policy: str, volume: Volume) -> IntensityMapping:
        # Percentiles of a large volume take seconds, and a click asks for the same ones again.
        # The same voxels may come again with another modality, and `auto` goes by that.
        key = (volume.key, volume.modality, policy)
        if policy == "display":
            return resolve_intensity(policy, volume)
        if key not in self._mappings:
            self._mappings[key] = resolve_intensity(policy, volume)
        return self._mappings[key]

    def _load(self, card: ModelCard, progress: Progress) -> LoadedModel[Any]:
        loaded = self.models.get(card.id)
        if loaded is None:
            start = time.perf_counter()
            try:
                loaded = self._load_anew(card, progress)
            except ImportError as error:
                raise unusable_package(card.title, error, card.packages) from error
            self.models.put(card.id, loaded)
            self._load_s += time.perf_counter() - start
        return loaded

    def _load_anew(self, card: ModelCard, progress: Progress) -> LoadedModel[Any]:
        require_adapter(card)
        progress.step("load", 0, 1)
        device = choose_device(self.device)  # before anything is downloaded in vain
        files = ensure_checkpoint(self.store, card, progress)
        load = load_volume_model if card.sees_volumes else load_slice_model
        self._load_notes = self._thrift.forecast_load(card, device)
        model: Any = guarded(lambda: load(card, files, device))
        limit_threads()  # torch is loaded by now, if the model needs it
        if card.task == "segment" and not card.sees_volumes:  # others have a recipe of their own
            chosen = guarded(lambda: choose_precision(model, best_precision(model.device)))
            model, self._load_notes = chosen.model, (*self._load_notes, *chosen.notes)
        revision = self.store.commit(card) or card.source.revision
        record = CheckpointRecord(card.id, card.source.repository, revision, self.store.sha256(card))
        return LoadedModel(model, record)


def engine_within(
    budget: MemoryBudget, catalogue: Mapping[str, ModelCard], store: Store, device: DeviceChoice, box_rule: BoxRule
) -> Engine:
    """An engine that keeps no more than a budget of memory."""
    budget = budget.within_limit()
    cache: EmbeddingCache[Any] = EmbeddingCache(budget.embeddings)
    answers = AnswerCache(int(budget.embeddings * _ANSWERS_SHARE))
    volumes, models = _volume_memory(budget.volumes), _model_memory(budget.models)
    limit = budget.limit
    return Engine(catalogue, store, device, cache, box_rule, answers, volumes, models, memory_limit=limit)
