"""The report of a command: what was done with what, in how long."""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .. import __version__
from ..requests.segmentation import Prediction

_PACKAGES = ("numpy", "torch", "transformers", "timm", "SimpleITK", "slicer-core", "vtk")


def software_versions(*more: str) -> dict[str, str]:
    """FoundationSeg, Python, the system, and every package that had a part in the result; ``more`` names further."""
    versions = {"FoundationSeg": __version__, "python": platform.python_version(), "system": platform.system()}
    for package in (*_PACKAGES, *more):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def report_text(document: Mapping[str, Any]) -> str:
    """A report as it is printed and written."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def segment_report(
    prediction: Prediction,
    prompts: Mapping[str, Any],
    segments: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
    timings_s: Mapping[str, float],
) -> dict[str, Any]:
    """The report of ``segment``, as the README describes it.

    Args:
        prediction: the engine's answer.
        prompts: the prompts file's document.
        segments: name, voxels, volume and score of each segment as written.
        notes: what was done to the image, in addition to what the prediction notes.
        timings_s: seconds of the command's own stages: ``start``, ``write``, ``total``.
    """
    stages = {**timings_s, **prediction.timings_s}
    return {
        "version": 1,
        "command": "segment",
        "model": prediction.checkpoint.to_document(),
        "device": prediction.device,
        "precision": prediction.precision,
        "intensity": dict(prediction.intensity),
        "prompts": dict(prompts),
        "segments": [dict(segment) for segment in segments],
        "notes": [*notes, *prediction.notes],
        "timings_s": {name: round(stages[name], 3) for name in ("start", "load", "encode", "decode", "write", "total")},
        "counts": {name: prediction.counts[name] for name in ("encodes", "decodes")},
        "software": software_versions(),
    }
