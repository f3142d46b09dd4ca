"""What crosses the boundary, as frames: volumes, requests, answers, errors. Plain values in both directions."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ..core import errors
from ..core.errors import FoundationSegError, InferenceError, PromptError
from ..core.geometry import Box, Geometry, Shape
from ..core.mask import PackedMask
from ..core.progress import ProgressReport
from ..core.prompts import MaskPrompt, PromptSet, SegmentPrompts
from ..core.prompts_document import parse_prompts, prompts_to_document
from ..core.requests import (
    CheckpointRecord,
    DownloadRequest,
    Prediction,
    PredictRequest,
    Propagation,
    SegmentPrediction,
)
from ..core.volume import Volume
from .frames import Frame, FrameError


def volume_to_frame(volume: Volume) -> Frame:
    """An image with its voxels as raw bytes, (K, J, I) order; copied only where they do not lie together."""
    array = np.ascontiguousarray(volume.array_kji)
    header = {
        "type": "volume",
        "key": volume.key,
        "dtype": array.dtype.str,
        "shape": array.shape,
        "ijk_to_ras": volume.geometry.ijk_to_ras.tolist(),
        "modality": volume.modality,
        "window_level": volume.window_level,
    }
    return Frame(header, array.reshape(-1).view(np.uint8).data)


def volume_from_frame(frame: Frame) -> Volume:
    """The image; its voxels are the payload itself, and not to be written to.

    Raises:
        FrameError: the bytes are not those of the key.
    """
    header = frame.header
    dtype, shape = np.dtype(header["dtype"]), tuple(header["shape"])
    if math.prod(shape) * dtype.itemsize != len(frame.payload):
        raise FrameError(f"{len(frame.payload)} bytes are no image of {shape} {dtype}")
    array = np.frombuffer(frame.payload, dtype).reshape(shape)
    array.flags.writeable = False
    k, j, i = shape[:3]
    geometry = Geometry(np.array(header["ijk_to_ras"], np.float64), (k, j, i))
    window_level = header["window_level"]
    volume = Volume(array, geometry, header["modality"], window_level and (window_level[0], window_level[1]))
    if volume.key != header["key"]:
        raise FrameError("the image changed on its way")
    return volume


def request_to_frame(request: PredictRequest, ticket: int) -> Frame:
    """A request, with the bits of its mask prompts as raw bytes; ``ticket`` is what answers to it will carry."""
    masks = [(n, m, mask) for n, m, mask in _masks(request.segments) if mask is not None]
    header = {
        "type": "predict",
        "ticket": ticket,
        "id": request.request_id,
        "model": request.model_id,
        "volume": request.volume_key,
        "prompts": prompts_to_document(PromptSet(request.segments)),
        "masks": [(n, m, *_box_to_header(mask)) for n, m, mask in masks],
        "intensity": request.intensity,
        "propagation": request.propagation and asdict(request.propagation),
        "region": request.region and asdict(request.region),
    }
    return Frame(header, b"".join(mask.bits for _, _, mask in masks))


def request_from_frame(frame: Frame) -> PredictRequest:
    """The request.

    Raises:
        GeometryError: there are more or fewer bits than the boxes of the masks have voxels.
    """
    header = frame.header
    segments = list(parse_prompts(header["prompts"]).segments)
    for (n, m, *_), mask in zip(
        header["masks"], _unpacked([box for _, _, *box in header["masks"]], frame), strict=True
    ):
        prompts = list(segments[n].prompts)
        prompts[m] = replace(prompts[m], voxels=mask)
        segments[n] = SegmentPrompts(segments[n].name, tuple(prompts))
    return PredictRequest(
        request_id=header["id"],
        model_id=header["model"],
        volume_key=header["volume"],
        segments=tuple(segments),
        intensity=header["intensity"],
        propagation=header["propagation"] and Propagation(**header["propagation"]),
        region=header["region"] and Box(**{name: tuple(corner) for name, corner in header["region"].items()}),
    )


def _masks(segments: Sequence[SegmentPrompts]) -> Iterator[tuple[int, int, PackedMask | None]]:
    """Every mask prompt: the number of its segment, its own number there, and its voxels."""
    for n, segment in enumerate(segments):
        for m, prompt in enumerate(segment.prompts):
            if isinstance(prompt, MaskPrompt):
                yield n, m, prompt.voxels


def _box_to_header(mask: PackedMask) -> tuple[Shape, Shape]:
    return mask.box.start_kji, mask.box.stop_kji


def _unpacked(boxes: Sequence[Sequence[Sequence[int]]], frame: Frame) -> Iterator[PackedMask]:
    """The masks whose bits lie one after another in a frame's payload."""
    bits, at = bytes(frame.payload), 0
    for n, ((k0, j0, i0), (k1, j1, i1)) in enumerate(boxes, start=1):
        box = Box((k0, j0, i0), (k1, j1, i1))
        end = len(bits) if n == len(boxes) else at + (math.prod(box.shape_kji) + 7) // 8
        yield PackedMask(box, bits[at:end])
        at = end


def download_to_frame(request: DownloadRequest, ticket: int) -> Frame:
    """A request to download; ``ticket`` is what answers to it will carry."""
    header = {"type": "download", "ticket": ticket, "id": request.request_id}
    return Frame(header | {"model": request.model_id, "accept_license": request.accept_license})


def download_from_frame(frame: Frame) -> DownloadRequest:
    """The request to download."""
    header = frame.header
    return DownloadRequest(header["id"], header["model"], header["accept_license"])


def downloaded_to_frame(ticket: int) -> Frame:
    """The answer to a request to download: the checkpoint is there."""
    return Frame({"type": "downloaded", "ticket": ticket})


def progress_to_frame(report: ProgressReport, ticket: int) -> Frame:
    """A report of progress."""
    told = {name: value for name, value in asdict(report).items() if report.item or not name.startswith("item")}
    return Frame({"type": "progress", "ticket": ticket, **told})


def progress_from_frame(frame: Frame) -> ProgressReport:
    """The report of progress."""
    header = frame.header
    item = (header.get("item", ""), header.get("item_done", 0), header.get("item_total", 0))
    return ProgressReport(header["stage"], header["done"], header["total"], *item)


def prediction_to_frame(prediction: Prediction, ticket: int) -> Frame:
    """An answer, with the masks' bits as raw bytes."""
    header = {
        "type": "answered",
        "ticket": ticket,
        "id": prediction.request_id,
        "boxes": [_box_to_header(segment.mask) for segment in prediction.segments],
        "scores": [_finite(segment.score) for segment in prediction.segments],
        "intensity": dict(prediction.intensity),
        "checkpoint": asdict(prediction.checkpoint),
        "device": prediction.device,
        "precision": prediction.precision,
        "notes": prediction.notes,
        "timings_s": dict(prediction.timings_s),
        "counts": dict(prediction.counts),
    }
    return Frame(header, b"".join(segment.mask.bits for segment in prediction.segments))


def _finite(score: float | None) -> float | None:
    return score if score is not None and math.isfinite(score) else None


def prediction_from_frame(frame: Frame) -> Prediction:
    """The answer.

    Raises:
        GeometryError: there are more or fewer bits than the boxes have voxels.
    """
    header = frame.header
    masks = _unpacked(header["boxes"], frame)
    return Prediction(
        request_id=header["id"],
        segments=tuple(SegmentPrediction(mask, score) for mask, score in zip(masks, header["scores"], strict=True)),
        intensity=header["intensity"],
        checkpoint=CheckpointRecord(**header["checkpoint"]),
        device=header["device"],
        precision=header["precision"],
        notes=tuple(header["notes"]),
        timings_s=header["timings_s"],
        counts=header["counts"],
    )


def error_to_frame(error: FoundationSegError, ticket: int, detail: str = "") -> Frame:
    """A failure; ``detail`` is for developers, such as a traceback."""
    header: dict[str, Any] = {"type": "failed", "ticket": ticket, "kind": type(error).__name__, "message": str(error)}
    header["place"] = error.place if isinstance(error, PromptError) else ""
    return Frame(header | {"detail": detail})


def error_from_frame(frame: Frame) -> FoundationSegError:
    """The failure, of the class it had; what this version does not know is an :class:`InferenceError`.

    The detail is a note of the exception: it is shown with a traceback and nowhere else.
    """
    header: Mapping[str, Any] = frame.header
    kind = getattr(errors, header["kind"], None)
    message, place = header["message"], header["place"]
    if kind is PromptError:
        error: FoundationSegError = PromptError(message.removeprefix(f"{place}: "), place)
    else:
        known = isinstance(kind, type) and issubclass(kind, FoundationSegError)
        error = kind(message) if known and kind is not None else InferenceError(message)
    if header["detail"]:
        error.add_note(header["detail"])
    return error
