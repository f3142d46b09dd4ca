"""A controller on nodes of a scene, whose client answers when the test lets it."""

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.controller import SegmentationController, UserOptions
from FoundationSegLib.errors import Cancelled, InferenceError
from FoundationSegLib.imaging.geometry import Box
from FoundationSegLib.imaging.masks import PackedMask
from FoundationSegLib.imaging.volume import require_image
from FoundationSegLib.progress import Progress, ProgressReport
from FoundationSegLib.requests.adaptation import Proposal, SimilarObjects, SimilarRequest
from FoundationSegLib.requests.classification import ClassifyRequest, Embeddings, EmbedRequest
from FoundationSegLib.requests.segmentation import CheckpointRecord, PartialPrediction, PredictRequest
from FoundationSegLib.session.steps import ModelChoice
from FoundationSegLib.worker.protocol import Answered, Failed, PartlyAnswered, Progressed
from Testing.unit.session.session_cases import SLICES, FakeClient

CATALOGUE = read_catalogue()


@dataclass
class FakeWorkerClient:
    """See :class:`FoundationSegLib.worker.client.Client`; answers are those of the fast fake model."""

    is_slow: bool = False
    fails: bool = False
    failure: Exception = field(default_factory=lambda: InferenceError("no memory"))
    domain: object = None  # of answers to classify
    asked: list = field(default_factory=list)
    prepared: list = field(default_factory=list)
    volumes: dict = field(default_factory=dict)
    settings: object = None
    command: object = None
    inherited: object = None
    _events: deque = field(default_factory=deque)
    _open: object = None

    @property
    def is_busy(self):
        return bool(self._events) or self._open is not None

    def prepare(self, model_id):
        self.prepared.append(model_id)

    def send_volume(self, volume):
        require_image(volume)
        self.volumes[volume.key] = volume

    def remove_volume(self, volume_key):
        self.volumes.pop(volume_key, None)

    def submit(self, request):
        if self._open is not None:
            self.cancel(self._open.request_id)
        self.asked.append(request)
        self._open = request
        self._events.append(Progressed(request.request_id, ProgressReport("encode", 1, 3)))
        if not self.is_slow:
            self.reply()

    def cancel(self, request_id):
        if self._open is not None and self._open.request_id == request_id:
            self._open = None
            self._events.append(Failed(request_id, Cancelled("stopped")))

    def finish(self, request_id):
        if self._open is not None and self._open.request_id == request_id:
            self.reply()

    def find(self, *masks):
        """Tell of slices of what is open."""
        self._events.append(PartlyAnswered(self._open.request_id, PartialPrediction(masks)))

    def reply(self):
        """Answer what is open."""
        request, self._open = self._open, None
        if self.fails:
            self._events.append(Failed(request.request_id, self.failure))
        elif isinstance(request, PredictRequest):
            model = FakeClient(self.volumes[request.volume_key])
            answer = model.prediction(replace(request, model_id="fake"))
            self._events.append(Answered(request.request_id, answer))
        elif isinstance(request, ClassifyRequest):
            found = replace(classified(request, self.volumes[request.volume_key]), domain=self.domain)
            self._events.append(Answered(request.request_id, found))
        elif isinstance(request, EmbedRequest):
            record, vectors = (
                CheckpointRecord(request.model_id, "owner/name", "abc", "f" * 64),
                np.eye(2, 4, dtype="f4"),
            )
            found = Embeddings(request.request_id, (0, 1), vectors, np.zeros((0, 0), "f4"), record)
            self._events.append(Answered(request.request_id, found))
        elif isinstance(request, SimilarRequest):
            record = CheckpointRecord(request.model_id, "owner/name", "abc", "f" * 64)
            proposals = tuple(self.propose(key) for key in request.targets)
            self._events.append(Answered(request.request_id, SimilarObjects(request.request_id, proposals, record)))

    def propose(self, volume_key):
        """A proposal of 4 x 6 x 5 voxels from slice 7 on."""
        box = Box((7, 20, 10), (11, 26, 15))
        return Proposal(volume_key, box, PackedMask(box, b"\xff" * 15), 0.25, 0.9)

    def poll(self):
        events = tuple(self._events)
        self._events.clear()
        return events

    def wait(self, timeout_s):
        pass

    def stop(self):
        pass

    def close(self):
        pass


def classified(request, volume):
    """What a model answers that was made to tell bright from dark, behind the engine's own rules."""
    from FoundationSegLib.engine.classification import classify
    from FoundationSegLib.engine.encoding import Encoder, VectorCache
    from FoundationSegLib.engine.slice_inference import LoadedModel, Weights
    from FoundationSegLib.imaging.intensity import resolve_intensity_views
    from Testing.unit.reader_model import ReaderModel

    weights = Weights(CheckpointRecord(request.model_id, "owner/name", "abc", "f" * 64), "cpu", "float32")
    encoder = Encoder(LoadedModel(ReaderModel(cells=16), weights), VectorCache(), Progress())
    return classify(request, volume, resolve_intensity_views(request.intensity, volume), encoder)


class Timer:
    """The timer: runs while it was started, as the test lets it. It also keeps the controller's updates."""

    def __init__(self):
        self.runs, self.updates = False, []

    def start(self):
        self.runs = True

    def stop(self):
        self.runs = False


def make_controller(volume_node=None, segmentation_node=None, choice=SLICES, ask_above=0.5, **client):
    """A controller, its client and its timer."""
    timer = Timer()
    made = FakeWorkerClient(**client)
    controller = SegmentationController(made, CATALOGUE, timer.start, timer.stop, timer.updates.append)
    controller.options = UserOptions(choice, ask_above=ask_above)
    controller.use(volume_node, segmentation_node)
    return controller, made, timer


def run(controller, timer, most=20):
    """Let the timer tick until it stops."""
    for _ in range(most):
        if not timer.runs:
            return
        controller.tick()
    raise AssertionError("the timer does not stop")


def card_choice(model_id):
    return ModelChoice.of(CATALOGUE[model_id])
