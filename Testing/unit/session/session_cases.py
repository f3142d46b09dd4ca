"""A fast fake of a client whose answers are a function of what is asked, and sessions on small volumes."""

import zlib
from dataclasses import dataclass, field

import numpy as np

from FoundationSegLib.errors import InferenceError
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.prompts.kinds import BoxPrompt, ClassPrompt, MaskPrompt, PointPrompt, Polarity, TextPrompt
from FoundationSegLib.prompts.placement import place_box, prompt_positions
from FoundationSegLib.requests.segmentation import CheckpointRecord, Prediction, SegmentPrediction
from FoundationSegLib.session.segment_store import ArrayStore, Options
from FoundationSegLib.session.segments import SegmentSession, next_segment
from FoundationSegLib.session.session import Session
from FoundationSegLib.session.steps import ModelChoice, steps_to_document

SHAPE = (8, 10, 12)
SLICES = ModelChoice("fake")
SEEING = ModelChoice("seeing", sees_seed=True, takes_masks=True)
VOLUMES = ModelChoice("volumes", in_3d=True, sees_seed=True, takes_masks=True)
WORDS = ModelChoice("words", in_3d=True)
CHOICES = (SLICES, SEEING, VOLUMES, WORDS)


def ras(k, j, i):
    """The centre of a voxel of :func:`small_volume`."""
    return float(i), float(j), float(k)


def point(k, j=4, i=5, polarity=Polarity.POSITIVE, plane=None):
    """A click on a voxel."""
    return PointPrompt(ras(k, j, i), polarity, plane)


def small_volume(shape=SHAPE, geometry=None):
    array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    return Volume(array, geometry or Geometry(np.eye(4), shape))


@dataclass
class FakeClient:
    """Answers at once or when told to; each answer is a function of the request alone.

    Around each positive position a cube of two voxels' radius (one of the model "seeing"), on the slice alone for
    models of slices; boxes are filled, negative prompts take away, and words mean a part of the image. With
    propagation, what is on the prompts' slices is repeated on all slices of the range.
    """

    volume: Volume
    is_slow: bool = False
    fails: bool = False
    requests: list = field(default_factory=list)
    cancelled: list = field(default_factory=list)
    sent: list = field(default_factory=list)
    session: Session | None = None
    radius: int = 2

    def send_volume(self, volume):
        self.volume = volume
        self.sent.append(volume.key)

    def remove_volume(self, volume_key):
        self.sent.remove(volume_key)

    def submit(self, request):
        self.requests.append(request)

    def cancel(self, request_id):
        self.cancelled.append(request_id)

    def on_request(self, session):
        if not self.is_slow:
            self.reply()

    def reply(self, number=-1):
        request = self.requests[number]
        if self.fails:
            self.session.fail(request.request_id, InferenceError("the worker was killed"))
        else:
            self.session.answer(self.prediction(request))

    def prediction(self, request):
        segments = tuple(SegmentPrediction(self.mask(request, one), 0.5) for one in request.segments)
        checkpoint = CheckpointRecord(request.model_id, "hub", "1", "ab")
        return Prediction(request.request_id, segments, {"policy": request.intensity}, checkpoint, "cpu", "float32")

    def mask(self, request, segment):
        geometry = self.volume.geometry
        mask = np.zeros(geometry.shape_kji, bool)
        flat = request.model_id in ("fake", "seeing")
        for prompt in segment.prompts:
            part = np.zeros_like(mask)
            if isinstance(prompt, MaskPrompt):
                part |= prompt.voxels.expand(geometry.shape_kji)
            elif isinstance(prompt, TextPrompt | ClassPrompt):
                part[:, :, zlib.crc32(repr(prompt).encode()) % 5 :: 5] = True
            elif isinstance(prompt, BoxPrompt):
                part[place_box(prompt, geometry).box.slices] = True
            else:
                for k, j, i in geometry.nearest_voxel(prompt_positions(prompt))[:, ::-1].tolist():
                    r = self.radius
                    low, high = (max(0, j - r), max(0, i - r)), (j + r + 1, i + r + 1)
                    ks = slice(k, k + 1) if flat else slice(max(0, k - r), k + r + 1)
                    part[ks, low[0] : high[0], low[1] : high[1]] = True
            mask = mask & ~part if prompt.polarity is Polarity.NEGATIVE else mask | part
        if request.propagation is not None:
            span = slice(request.propagation.start or 0, request.propagation.stop)
            seen = mask.any(axis=0)
            occupied = mask.any(axis=(1, 2))
            for k in range(mask.shape[0])[span]:
                if not occupied[k]:
                    mask[k] = seen
        return pack_mask(mask)


def make_session(store=None, choice=SLICES, shape=SHAPE, **options):
    """A session over plain arrays, and its client."""
    volume = small_volume(shape)
    client = FakeClient(volume)
    session = Session(
        volume, store or ArrayStore(volume.geometry), client, Options(choice, **options), on_request=client.on_request
    )
    session.listeners += [session.store.describe, session.history.keep_steps]
    client.session = session
    return session, client


def segment_of(session, name="Liver"):
    return next_segment(session, name)


def mask_of(segment: SegmentSession):
    """The voxels of a segment, in the whole image."""
    return segment.session.read(segment.segment_id)


def document_of(saved):
    """What a store of prompts gives back of what it was given."""
    return steps_to_document(saved.state.steps, saved.masks) | {"result": saved.result}
