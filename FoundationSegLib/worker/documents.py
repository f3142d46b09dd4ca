"""What crosses the boundary, as frames: volumes, requests, answers, errors. Plain values in both directions."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from ..core import errors
from ..core.errors import FoundationSegError, InferenceError, PromptError
from ..core.geometry import Box, Geometry
from ..core.mask import PackedMask
from ..core.progress import ProgressReport
from ..core.prompts import PromptSet
from ..core.prompts_document import parse_prompts, prompts_to_document
from ..core.requests import CheckpointRecord, DownloadRequest, Prediction, PredictRequest
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
    """A request; ``ticket`` is what answers to it will carry."""
    header = {
        "type": "predict",
        "ticket": ticket,
        "id": request.request_id,
        "model": request.model_id,
        "volume": request.volume_key,
        "prompts": prompts_to_document(PromptSet((request.segment,))),
        "intensity": request.intensity,
        "propagate": request.propagate,
        "place": request.place,
    }
    return Frame(header)


def request_from_frame(frame: Frame) -> PredictRequest:
    """The request."""
    header = frame.header
    return PredictRequest(
        request_id=header["id"],
        model_id=header["model"],
        volume_key=header["volume"],
        segment=parse_prompts(header["prompts"]).segments[0],
        intensity=header["intensity"],
        propagate=header["propagate"],
        place=header["place"],
    )


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
    """An answer, with the mask's bits as raw bytes."""
    header = {
        "type": "answered",
        "ticket": ticket,
        "id": prediction.request_id,
        "box": (prediction.mask.box.start_kji, prediction.mask.box.stop_kji),
        "score": prediction.score if prediction.score is not None and math.isfinite(prediction.score) else None,
        "intensity": dict(prediction.intensity),
        "checkpoint": asdict(prediction.checkpoint),
        "device": prediction.device,
        "precision": prediction.precision,
        "notes": prediction.notes,
        "timings_s": dict(prediction.timings_s),
        "counts": dict(prediction.counts),
    }
    return Frame(header, prediction.mask.bits)


def prediction_from_frame(frame: Frame) -> Prediction:
    """The answer.

    Raises:
        GeometryError: there are more or fewer bits than the box has voxels.
    """
    header = frame.header
    (k0, j0, i0), (k1, j1, i1) = header["box"]
    return Prediction(
        request_id=header["id"],
        mask=PackedMask(Box((k0, j0, i0), (k1, j1, i1)), bytes(frame.payload)),
        score=header["score"],
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
