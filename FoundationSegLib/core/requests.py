"""What is asked of an engine and what it answers: plain values that can cross a process boundary."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .mask import PackedMask
from .prompts import SegmentPrompts

DeviceChoice = Literal["auto", "cuda", "mps", "cpu"]

# How a 3-D box is followed from slice to slice. "official": from the middle slice as it is stored, the box around the
# neighbour's mask, wherever that leads (CVPR24_LiteMedSAM_infer.py). "surest": from several slices, turned the way a
# radiologist sees them, with boxes cut to the prompt; each slice keeps the answer that the model is surest of.
BoxRule = Literal["surest", "official"]


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """What an engine may keep, in bytes. What was not used the longest goes first; the newest stays in any case.

    A LiteMedSAM embedding takes 4 MB: half a gigabyte is a chest CT of 128 slices, wholly encoded.
    """

    volumes: int = 2 * 2**30
    embeddings: int = 512 * 2**20
    models: int = 6 * 2**30


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """One segment to predict.

    Attributes:
        request_id: a number that the answer repeats; the caller makes it unique.
        model_id: the model's card.
        volume_key: :attr:`FoundationSegLib.core.volume.Volume.key` of an image that was sent before.
        segment: all prompts of the segment, in RAS.
        intensity: the policy, :mod:`FoundationSegLib.core.intensity`.
        propagate: carry 2-D prompts on through the volume until the object ends.
        place: where the segment stands in its document (``"segments[0]"``), for messages.
    """

    request_id: int
    model_id: str
    volume_key: str
    segment: SegmentPrompts
    intensity: str = "auto"
    propagate: bool = False
    place: str = "segment"


@dataclass(frozen=True, slots=True)
class DownloadRequest:
    """A model's checkpoint to download, or what is damaged of it; one that is whole is left alone.

    Attributes:
        request_id: a number that the answer repeats; the caller makes it unique, also among predictions.
        model_id: the model's card.
        accept_license: the user accepts the model's terms now.
    """

    request_id: int
    model_id: str
    accept_license: bool = False


Request = PredictRequest | DownloadRequest


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """Which weights answered: model id, where they came from, revision, and the sha256 of the first file."""

    model_id: str
    source: str
    revision: str
    sha256: str

    def to_document(self) -> dict[str, str]:
        """The form of the report."""
        return {"id": self.model_id, "source": self.source, "revision": self.revision, "sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to a request: the whole segment as it should be now.

    Attributes:
        request_id: that of the request.
        mask: the segment's voxels.
        score: the model's own estimate of the overlap (IoU) with the object, 0..1, averaged over the slices that
            it decoded; None where it gave none.
        intensity: the mapping that was used, in the report's form.
        checkpoint: which weights answered.
        device, precision: where and with what numbers, e.g. ``"cpu"``, ``"float32"``.
        notes: what was clipped, translated or stopped early.
        timings_s: seconds by stage: ``load``, ``encode``, ``decode``.
        counts: how often the model ran: ``encodes``, ``decodes``.
    """

    request_id: int
    mask: PackedMask
    score: float | None
    intensity: Mapping[str, Any]
    checkpoint: CheckpointRecord
    device: str
    precision: str
    notes: tuple[str, ...] = ()
    timings_s: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
