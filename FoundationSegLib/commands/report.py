"""The report of a command: what was done with what, in how long."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .. import __version__
from ..core.requests import Prediction

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


def segment_report(
    predictions: Sequence[Prediction],
    prompts: Mapping[str, Any],
    segments: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
    timings_s: Mapping[str, float],
) -> dict[str, Any]:
    """The report of ``segment``, as the README describes it.

    Args:
        predictions: the engine's answers, one for each segment; at least one.
        prompts: the prompts file's document.
        segments: name, voxels, volume and score of each segment as written.
        notes: what was done to the image, in addition to what the predictions note.
        timings_s: seconds of the command's own stages: ``start``, ``write``, ``total``.
    """
    first = predictions[0]
    own = {stage: sum(p.timings_s[stage] for p in predictions) for stage in ("load", "encode", "decode")}
    stages = {**timings_s, **own}
    return {
        "version": 1,
        "command": "segment",
        "model": first.checkpoint.to_document(),
        "device": first.device,
        "precision": first.precision,
        "intensity": dict(first.intensity),
        "prompts": dict(prompts),
        "segments": [dict(segment) for segment in segments],
        "notes": [*notes, *(note for prediction in predictions for note in prediction.notes)],
        "timings_s": {name: round(stages[name], 3) for name in ("start", "load", "encode", "decode", "write", "total")},
        "counts": {name: sum(p.counts[name] for p in predictions) for name in ("encodes", "decodes")},
        "software": software_versions(),
    }
