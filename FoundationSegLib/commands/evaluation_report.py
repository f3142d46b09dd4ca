"""The report of `evaluate`, as the README describes it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..evaluation.protocol import ModelScores, ObjectScores, ProtocolSettings, ProtocolStep
from .report import software_versions

_DIGITS = 6


def evaluation_report(
    models: Sequence[ModelScores],
    objects: Sequence[Mapping[str, Any]],
    settings: ProtocolSettings,
    notes: Sequence[str],
    total_s: float,
) -> dict[str, Any]:
    """The whole document.

    Args:
        models: what was found, in the order of the command line.
        objects: ``label``, ``voxels`` and ``volume_ml`` of each object.
        settings: how it was found.
        notes: what was done to the image, and which labels were left out.
        total_s: seconds of the whole command.
    """
    return {
        "version": 1,
        "command": "evaluate",
        "settings": asdict(settings),
        "objects": [dict(one) for one in objects],
        "models": [_model(model) for model in models],
        "notes": list(notes),
        "timings_s": {"total": round(total_s, 3)},
        "software": software_versions("scipy", "monai"),
    }


def _model(model: ModelScores) -> dict[str, Any]:
    origin = model.origin
    known: dict[str, Any] = {"model": {"id": model.model_id}}
    if origin is not None:
        known = {
            "model": origin.checkpoint.to_document(),
            "device": origin.device,
            "precision": origin.precision,
            "intensity": dict(origin.intensity),
        }
    return known | {
        "error": None if model.error is None else str(model.error),
        "dice": [_rounded(value) for value in model.dice],
        "nsd": [_rounded(value) for value in model.nsd],
        "dice_auc": _rounded(model.dice_auc),
        "nsd_auc": _rounded(model.nsd_auc),
        "seconds": _rounded(model.seconds),
        "load_s": _rounded(model.load_s),
        "peak_memory_mb": _rounded(model.peak_memory_mb),
        "objects": [_object(label, scores) for label, scores in model.objects.items()],
    }


def _object(label: int, scores: ObjectScores) -> dict[str, Any]:
    return {
        "label": label,
        "steps": [_step(step) for step in scores.steps],
        "dice_auc": _rounded(scores.dice_auc),
        "nsd_auc": _rounded(scores.nsd_auc),
        "notes": list(scores.notes),
    }


def _step(step: ProtocolStep) -> dict[str, Any]:
    return {
        "prompt": step.prompt,
        "index_ijk": None if step.index_ijk is None else list(step.index_ijk),
        "dice": _rounded(step.dice),
        "nsd": _rounded(step.nsd),
        "seconds": _rounded(step.seconds),
        "error": None if step.error is None else str(step.error),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
