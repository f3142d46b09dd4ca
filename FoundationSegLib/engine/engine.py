"""The engine: volumes and requests in, predictions out. One engine owns one device."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from .. import errors
from ..catalog.catalogue import require_adapter
from ..catalog.model_cards import ModelCard, find_card
from ..hub.fetch import download_checkpoint, ensure_checkpoint, needs_download
from ..hub.store import Store
from ..imaging.intensity import IntensityMapping, IntensityView, resolve_intensity, resolve_intensity_views
from ..imaging.volume import Volume, require_image
from ..installation.packages import unusable_package
from ..models.protocols import SliceModel, VolumeModel, load_model
from ..progress import Progress
from ..prompts.capabilities import require_task, require_understood
from ..prompts.kinds import BoxPrompt, ObliquePlane, SegmentPrompts
from ..requests.adaptation import Adaptation, AdaptRequest, SimilarObjects, SimilarRequest
from ..requests.classification import ClassifyRequest, Embeddings, EmbedRequest, require_labels
from ..requests.classification_answer import Classification
from ..requests.maintenance import BoxRule, DeviceChoice, DownloadRequest, MemoryBudget
from ..requests.segmentation import CheckpointRecord, Prediction, PredictRequest, SegmentPrediction
from . import memory_planning
from .classification import classify, domain_of, embed
from .device import choose_device, limit_threads, release_memory
from .encoding import Encoder, SegmenterTower, VectorCache
from .interpolation import predict_between
from .propagation import choose_hand_over, has_memory, segment
from .propagation_planning import plan_tracks, reach_note
from .slice_inference import (
    Answer,
    LoadedModel,
    LruCache,
    Prefetcher,
    SliceCache,
    SliceInference,
    Weights,
    answer_in_views,
    best_precision,
    choose_precision,
)
from .slices import ReformattedVolume, place_on_slices
from .volumes import ViewCache, place_in_volume

LoadModel = Callable[[ModelCard, Mapping[str, Path], str], Any]


def _adapted(model: Any, card: ModelCard, files: Mapping[str, Path], base_sha256: str) -> Any:
    """Add an adapted model's difference to its base.

    Raises:
        CheckpointError: the difference is damaged, or another base's.
    """
    from ..models.adaptation import DeltaOrigin, adapted, read_delta

    path = files[card.source.files[0].path]
    return adapted(model, read_delta(path, card, DeltaOrigin(card.base, base_sha256), model))


@dataclass(slots=True)
class Engine:
    """Answers requests, one at a time.

    Attributes:
        catalogue: the cards by id.
        store: where the checkpoints are.
        device: what to compute on; ``"auto"`` picks the best one available.
        box_rule: how 3-D boxes are followed, and if slices are turned before the model sees them;
            ``"official"`` is there for parity with LiteMedSAM's own script.
        budget: the memory for images, embeddings and models, and what may be taken in all.
        load_model: loads a model from its card, the files of its checkpoint and a device.
        planner: fits images into memory.
        volumes, models: the images by key and the loaded models by id, each within its budget.
        slice_cache: embeddings and answers on slices.
        views: the last view of a model of volumes.
        vectors: what classifiers encoded.
    """

    catalogue: Mapping[str, ModelCard]
    store: Store
    device: DeviceChoice = "auto"
    box_rule: BoxRule = "surest"
    budget: MemoryBudget = field(default_factory=MemoryBudget)
    load_model: LoadModel = load_model
    planner: memory_planning.MemoryPlanner = field(init=False)
    volumes: LruCache[str, Volume] = field(init=False)
    models: LruCache[str, LoadedModel[Any]] = field(init=False)
    slice_cache: SliceCache = field(init=False)
    views: ViewCache = field(default_factory=ViewCache)
    vectors: VectorCache = field(default_factory=VectorCache)
    _cropper: memory_planning.Cropper = field(default_factory=memory_planning.Cropper)
    _mappings: dict[tuple[str, str | None, str], IntensityMapping] = field(default_factory=dict)
    _prefetcher: Prefetcher | None = None
    # Seconds and notes of loading a model, for its next answer, also where it was prepared before the request.
    _loading: dict[str, tuple[float, tuple[str, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        budget = self.budget.within_limit()
        self.planner = memory_planning.MemoryPlanner(self.catalogue, budget.limit)
        self.volumes = LruCache(budget.volumes, lambda volume: volume.array_kji.nbytes)
        self.models = LruCache(budget.models, lambda loaded: loaded.model.nbytes)
        self.slice_cache = SliceCache.within(budget.embeddings)

    def add_volume(self, volume: Volume) -> None:
        """Keep an image; requests name it by its key.

        Raises:
            InputError: there is nothing to segment in it: NaN, infinite or constant.
        """
        require_image(volume)
        self.volumes.put(volume.key, volume)

    def remove_volume(self, volume_key: str) -> None:
        """Drop an image and all that was computed of it; it is no error if it is not there."""
        self.volumes.drop(volume_key)
        self.vectors.drop_volume(volume_key)
        self._mappings = {key: mapping for key, mapping in self._mappings.items() if key[0] != volume_key}
        for key in self._cropper.forget(volume_key):
            self.slice_cache.drop_volume(key)
            if self._prefetcher is not None and self._prefetcher.inference.volume.key.startswith(key):
                self._prefetcher = None
            if self.views.volume_key == key:
                self.views.clear()

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
        """Download what the store lacks of a model's checkpoint; the next answer uses the new files.

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
        self._prefetcher = None  # it holds the model, too
        self.views.clear()  # as this may

    def predict(self, request: PredictRequest, progress: Progress) -> Prediction:
        """Answer a request: about all of the image, or as much as there is memory for.

        Where memory runs out anyway, everything that can be made again is dropped, and the model is asked a second time
        about less.

        Raises:
            UnknownModelError, CardError, CheckpointError, PackageMissingError: the model cannot be used.
            VolumeMissingError: the volume was not added, or made room for others.
            InputError: the intensity policy does not fit the volume.
            GeometryError: what the model would make of the image's voxels has no size that an image can have.
            PromptError: a prompt is outside the volume or not understood by the model.
            MemoryShortageError: there is too little memory from the start, or it ran out twice.
            InferenceError: the model failed.
            Cancelled: the user stopped it.
        """
        card, volume = self._start(request, "segment", progress)
        if not request.segments or not all(map(attrgetter("prompts"), request.segments)):
            raise errors.PromptError("there is a segment without a prompt, or no segment at all", "segments")
        if request.propagation is not None and request.propagation.hand_over == "interpolate":
            silent = Progress(progress.report, progress.token)  # parts of that answer are none of this one
            return predict_between(request, volume.geometry, partial(self.predict, progress=silent), progress)
        for n, prompts in enumerate(request.segments):
            require_understood(card, prompts, f"segments[{n}]")
        part = memory_planning.crop_request(card, request, volume, request.region)
        if card.spacing_mm:
            part.require_visible()
        parts = [part]
        # The memory for an image that is viewed is taken already.
        if card.bytes_per_voxel and not self.views.holds(card.id, self._cropper.crop(part).key):
            parts = self.planner.fit(part, released=self.views.nbytes)
        try:
            return self._answer(parts, progress)
        except errors.MemoryShortageError as error:
            shortage = str(error)
        self._release()  # not before the error is gone: its traceback holds on to everything that the attempt made
        parts = self.planner.after_shortage(parts[0]) or parts
        try:
            prediction = self._answer(parts, progress)
        except errors.MemoryShortageError as error:
            remedies = self.planner.remedies(card, self._release())
            again = "after all that was kept had been given back, it ran out again"
            raise errors.MemoryShortageError(f"{shortage}; {again}: {remedies}") from error
        note = f"memory ran out ({shortage}): all that was kept was given back, and the model was asked again"
        return replace(prediction, notes=(*prediction.notes, note))

    def _answer(self, parts: Sequence[memory_planning.CroppedRequest], progress: Progress) -> Prediction:
        predictions = []
        for part in parts:
            answer = self._answer_in_volume if part.card.sees_volumes else self._answer_on_slices
            for segment_prompts in part.segments if not part.card.sees_volumes else ():
                for prompt in segment_prompts.prompts:
                    if isinstance(getattr(prompt, "plane", None), ObliquePlane):
                        answer = self._answer_in_views
            weights, mapping, segments, notes, timings_s, counts = answer(
                part, part.whole if part.box is None else self._cropper.crop(part), progress
            )
            for n, segmented in enumerate(segments):
                if segmented.mask.box.is_empty:
                    notes.append(memory_planning.EMPTY_NOTE.format(n))
            load_s, load_notes = self._loading.pop(part.card.id, (0.0, ()))
            prediction = Prediction(
                request_id=part.request.request_id,
                segments=tuple(segments),
                intensity=mapping.document,
                checkpoint=weights.checkpoint,
                device=weights.device,
                precision=weights.precision,
                notes=(*load_notes, *notes),
                timings_s={"load": load_s, **timings_s},
                counts=counts,
                parts=(part.box,) if part.box is not None else (),
            )
            predictions.append(prediction if part.box is None else part.pasted(prediction, part.box))
        return memory_planning.join_predictions(predictions) if len(predictions) > 1 else predictions[0]

    def _answer_on_slices(self, part: memory_planning.CroppedRequest, volume: Volume, progress: Progress) -> Answer:
        """Place the prompts on slices, plan their tracks, and carry these from slice to slice."""
        card, request = part.card, part.request
        propagation = request.propagation
        if propagation is not None:
            choose_hand_over(propagation.hand_over, card.prompts)  # before anything is loaded in vain
        prompts, notes = part.place_prompts(volume.geometry, place_on_slices)
        if propagation is not None and part.box is not None:
            axes = set().union(*[on_slices.axes for on_slices in prompts])
            propagation = part.propagation_along(axes, propagation, part.box)
        mapping = self._mapping(request.intensity, part.whole)
        loaded: LoadedModel[SliceModel] = self._load(card, progress)
        as_stored = self.box_rule == "official"
        inference = SliceInference(
            loaded.model, loaded.weights, volume, mapping, self.slice_cache, as_stored, progress.check
        )
        # A model with a memory starts in the middle of a 3-D box, as its authors do.
        rule: BoxRule = "official" if loaded.has_memory else self.box_rule
        tracks = []
        for n, on_slices in enumerate(prompts):
            tracks.append(plan_tracks(on_slices, volume.geometry.shape_kji, propagation, rule))
            if propagation is not None and (note := reach_note(tracks[n], propagation)):
                notes.append(f"segments[{n}]: {note}")
        with memory_planning.framework_errors():
            on_whole = progress if part.box is None else part.progress_of(progress, part.box)
            segments = segment(inference, tracks, propagation, card.prompts, on_whole)
        if propagation is not None and not isinstance(volume, ReformattedVolume):
            notes += memory_planning.unsure_notes(segments, part.box.start_kji if part.box is not None else (0, 0, 0))
        if progress.token.is_finishing:
            notes.append("stopped on request: what was found until then is kept")
        self._prefetcher = Prefetcher(inference, prompts[-1])
        counts = inference.counts
        if counts.reencodes:
            notes.append(f"encoded again, for want of memory: {counts.reencodes} of {counts.encodes} slices")
        timings_s = {"encode": counts.encode_s, "decode": counts.decode_s}
        runs = {"encodes": counts.encodes, "decodes": counts.decodes}
        return loaded.weights, mapping, segments, notes, timings_s, runs

    def _answer_in_views(self, part: memory_planning.CroppedRequest, volume: Volume, progress: Progress) -> Answer:
        """Answer prompts in planes at an angle to the image's axes."""
        return answer_in_views(part, volume, progress, self._answer_on_slices)

    def _answer_in_volume(self, part: memory_planning.CroppedRequest, volume: Volume, progress: Progress) -> Answer:
        """Place the prompts in the volume, and ask the model's view of it."""
        card, request = part.card, part.request
        prompts, notes = part.place_prompts(volume.geometry, place_in_volume)
        if request.propagation is not None:
            notes.append(f"{card.title} looks at the whole volume: there is nothing to propagate")
        # The card knows the model's own recipe for the intensities, which is used unless the user chose another.
        policy = card.intensity if request.intensity == "auto" else request.intensity
        mapping = replace(self._mapping(policy, part.whole), policy=request.intensity)
        loaded: LoadedModel[VolumeModel] = self._load(card, progress)
        start = time.perf_counter()
        with memory_planning.framework_errors():
            view, is_new = self.views.view(loaded, volume, mapping, progress)
            viewed = time.perf_counter()
            answers = view.answer(prompts, progress)
        notes += [f"segments[{n}]: {note}" for n, answer in enumerate(answers) for note in answer.notes]
        segments = [SegmentPrediction(answer.mask, answer.score) for answer in answers]
        timings_s = {"encode": viewed - start if is_new else 0.0, "decode": time.perf_counter() - viewed}
        runs = {"encodes": int(is_new), "decodes": sum(answer.runs for answer in answers)}
        return loaded.weights, mapping, segments, notes, timings_s, runs

    def classify(self, request: ClassifyRequest, progress: Progress) -> Classification:
        """Answer a request to classify.

        Raises:
            UnknownModelError, CardError, CheckpointError, PackageMissingError: the model cannot be used.
            VolumeMissingError: the volume was not added, or made room for others.
            InputError, DomainError: labels, model, image and policy do not fit, or there is nothing to see.
            InferenceError: the model failed.
            Cancelled: the user stopped it.
        """
        volume, views, encoder, (load_s, load_notes) = self._encoder(request, progress)
        with memory_planning.framework_errors():
            classification = classify(request, volume, views, encoder)
        notes, timings_s = (*load_notes, *classification.notes), {"load": load_s, **classification.timings_s}
        return replace(classification, notes=notes, timings_s=timings_s)

    def embed(self, request: EmbedRequest, progress: Progress) -> Embeddings:
        """Encode an image or its slices, and texts. Raises as :meth:`classify`."""
        volume, views, encoder, _ = self._encoder(request, progress)
        with memory_planning.framework_errors():
            return embed(request, volume, views, encoder)

    def _encoder(
        self, request: ClassifyRequest | EmbedRequest, progress: Progress
    ) -> tuple[Volume, Sequence[IntensityView], Encoder, tuple[float, tuple[str, ...]]]:
        """Return the image of a request, its intensity views, the loaded model, seconds and notes of loading."""
        is_learned = isinstance(request, EmbedRequest) or request.head is not None
        card = find_card(self.catalogue, request.model_id)
        can_see = card.task == "classify" or (is_learned and not card.sees_volumes)
        card, volume = self._start(request, card.task if can_see else "classify", progress)
        if isinstance(request, ClassifyRequest):
            require_labels(card, request)
        domain = domain_of(request, card, volume)
        policy = card.intensity if request.intensity == "auto" else request.intensity
        views = () if card.sees_volumes else resolve_intensity_views(policy, volume, card.ct_channels, self._mapping)
        loaded = self._load(card, progress)
        loading = self._loading.pop(card.id, (0.0, ()))
        if card.task == "segment":
            loaded = replace(loaded, model=SegmenterTower(loaded.model))
        return volume, views, Encoder(loaded, self.vectors, progress, domain), loading

    def adapt(self, request: AdaptRequest, progress: Progress) -> Adaptation:
        """Adapt a model to corrected segments; the result waits in the store until it is kept or discarded.

        Raises:
            UnknownModelError, CardError, CheckpointError, PackageMissingError: the model cannot be used.
            VolumeMissingError: an image was not sent, or made room for others.
            InputError: the model cannot be adapted, or there is too little to learn from and to test on.
            InferenceError: the training failed.
            Cancelled: the user stopped it; the same request goes on from there.
        """
        from .adaptation import AdaptationRun

        card, loaded, views = self._views(request, progress)
        self.slice_cache.answers.clear()
        run = AdaptationRun(request, card, loaded, views, self.store.folder, self.budget.embeddings, progress)
        with memory_planning.framework_errors():
            return run.adapt()

    def similar(self, request: SimilarRequest, progress: Progress) -> SimilarObjects:
        """Find objects like an example in its image or in others.

        Raises:
            UnknownModelError, CardError, CheckpointError, PackageMissingError: the model cannot be used.
            VolumeMissingError: an image was not sent, or made room for others.
            InputError: the model sees no slices or takes no boxes, or the example is empty.
            InferenceError: the model failed.
            Cancelled: the user stopped it.
        """
        from .similar import SimilarSearch

        card = find_card(self.catalogue, request.model_id)
        if card.task != "segment" or card.sees_volumes or not card.takes("box"):
            raise errors.InputError(f"{card.title} cannot find more objects: choose a model that takes boxes on slices")
        _, loaded, views = self._views(request, progress)

        def predict(key: str, boxes: Sequence[BoxPrompt]) -> Sequence[SegmentPrediction]:
            segments = tuple(SegmentPrompts(str(n), (box,)) for n, box in enumerate(boxes))
            question = PredictRequest(request.request_id, card.id, key, segments, request.intensity)
            return self.predict(question, Progress(progress.report, progress.token)).segments

        search = SimilarSearch(request, loaded, views, predict, progress)
        with memory_planning.framework_errors():
            proposals = search.search()
        return SimilarObjects(request.request_id, tuple(proposals), loaded.weights.checkpoint, tuple(search.notes))

    def _views(
        self, request: AdaptRequest | SimilarRequest, progress: Progress
    ) -> tuple[ModelCard, LoadedModel[SliceModel], dict[str, SliceInference]]:
        """Load a model of slices, and look at all images of a request through it."""
        self._prefetcher = None
        card = find_card(self.catalogue, request.model_id)
        loaded: LoadedModel[SliceModel] = self._load(card, progress)
        volumes = {key: self.volumes.get(key) for key in request.volume_keys}
        views = {
            key: SliceInference(
                loaded.model,
                loaded.weights,
                volume,
                self._mapping(request.intensity, volume),
                self.slice_cache,
                check=progress.check,
            )
            for key, volume in volumes.items()
            if volume is not None
        }
        if len(views) < len(volumes):
            raise errors.VolumeMissingError()
        return card, loaded, views

    def encode_ahead(self, progress: Progress) -> bool:
        """Encode one more of the slices around the last prompt; return False where none is left.

        Raises:
            Cancelled: a request has come.
        """
        with memory_planning.framework_errors():
            return self._prefetcher is not None and self._prefetcher.encode_next(progress)

    def _start(
        self,
        request: PredictRequest | ClassifyRequest | EmbedRequest,
        task: Literal["segment", "classify"],
        progress: Progress,
    ) -> tuple[ModelCard, Volume]:
        """Check that a request can be answered at all; return its model's card and its image."""
        self._prefetcher = None
        progress.check()
        card = find_card(self.catalogue, request.model_id)
        require_task(card, task)
        volume = self.volumes.get(request.volume_key)
        if volume is None:
            raise errors.VolumeMissingError()
        if 3 not in card.channels and volume.is_colour:
            raise errors.InputError(f"{card.title} does not understand colour; give it a grey image")
        return card, volume

    def _release(self) -> str:
        """Drop everything that can be made again: views, embeddings, answers and models; return the device."""
        self._prefetcher = None
        for cache in (self.views, self.slice_cache, self.models):
            cache.clear()
        device = choose_device(self.device)
        release_memory(device)
        return device

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
        if loaded is not None:
            return loaded
        start = time.perf_counter()
        require_adapter(card)
        progress.step("load", 0, 1)
        try:
            loaded, notes = self._load_anew(card, progress)
        except ImportError as error:
            raise unusable_package(card.title, error, card.packages) from error
        self.models.put(card.id, loaded)
        self._loading[card.id] = (time.perf_counter() - start, notes)
        return loaded

    def _load_anew(self, card: ModelCard, progress: Progress) -> tuple[LoadedModel[Any], tuple[str, ...]]:
        device = choose_device(self.device)  # before anything is downloaded in vain
        base = find_card(self.catalogue, card.base) if card.base else card
        files = ensure_checkpoint(self.store, base, progress)
        delta = ensure_checkpoint(self.store, card, progress) if card.base else {}
        notes = self.planner.forecast_load(base, device)
        with memory_planning.framework_errors():
            model = self.load_model(base, files, device)
            if card.base:
                model = _adapted(model, card, delta, self.store.sha256(base))
        limit_threads()  # torch is loaded by now, if the model needs it
        if card.task == "segment" and not card.sees_volumes:  # others have a recipe of their own
            with memory_planning.framework_errors():
                model, precision_notes = choose_precision(model, best_precision(model.device))
            notes = (*notes, *precision_notes)
        revision = self.store.commit(card) or card.source.revision
        sha256, base_sha256 = self.store.sha256(card), self.store.sha256(base) if card.base else ""
        record = CheckpointRecord(card.id, card.source.repository, revision, sha256, card.base, base_sha256)
        return LoadedModel(model, Weights(record, model.device, model.precision), has_memory(model)), notes
