"""Results of `evaluate`: the report, and the table of the models side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..errors import FoundationSegError
from ..evaluation.protocol import ModelScores, ObjectScores, ProtocolSettings, ProtocolStep
from .outputs import software_versions
from .terminal import one_line

_DIGITS = 6
_UNKNOWN = "-"


def evaluation_report(
    models: Sequence[ModelScores],
    objects: Sequence[Mapping[str, Any]],
    settings: ProtocolSettings,
    notes: Sequence[str],
    total_s: float,
    units: str = "mm",
) -> dict[str, Any]:
    """Compose the whole report.

    Args:
        models: the scores, in the order of the command line.
        objects: ``label``, ``voxels`` and ``volume_ml`` of each object.
        settings: the protocol.
        notes: what was done to the image, and which labels were left out.
        total_s: seconds of the whole command.
        units: of the tolerance, ``"mm"`` or, for images without physical geometry, ``"pixels"``.
    """
    return {
        "version": 1,
        "command": "evaluate",
        "settings": asdict(settings),
        "units": units,
        "objects": [dict(row) for row in objects],
        "models": [_model(model) for model in models],
        "notes": list(notes),
        "timings_s": {"total": round(total_s, 3)},
        "software": software_versions("scipy", "monai"),
    }


def _model(model: ModelScores) -> dict[str, Any]:
    origin = model.origin
    details: dict[str, Any] = {"model": {"id": model.model_id}}
    if origin is not None:
        details = {
            "model": origin.checkpoint.to_document(),
            "device": origin.device,
            "precision": origin.precision,
            "intensity": dict(origin.intensity),
        }
    return details | {
        **_fields(model, "error", "dice", "nsd", "dice_auc", "nsd_auc", "seconds", "load_s", "peak_memory_mb"),
        "objects": [_object(label, scores) for label, scores in model.objects.items()],
    }


def _object(label: int, scores: ObjectScores) -> dict[str, Any]:
    steps = [_fields(step, "prompt", "index_ijk", "dice", "nsd", "seconds", "error") for step in scores.steps]
    return {"label": label, "steps": steps, **_fields(scores, "dice_auc", "nsd_auc", "notes")}


def _fields(scores: ModelScores | ObjectScores | ProtocolStep, *names: str) -> dict[str, Any]:
    return {name: _plain(getattr(scores, name)) for name in names}


def _plain(value: Any) -> Any:
    """Return a value of scores as the report has it: numbers rounded, errors as their text."""
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, FoundationSegError):
        return str(value)
    return round(value, _DIGITS) if isinstance(value, float) else value


def table_text(
    models: Sequence[ModelScores], voxels: Mapping[int, int], settings: ProtocolSettings, units: str = "mm"
) -> str:
    """Return the table of the models and, if there are several objects, that of the objects.

    Args:
        models: the scores.
        voxels: how large the object of each label is.
        settings: the protocol.
        units: of the tolerance.
    """
    parts = [_legend(len(voxels), settings, units), _model_table(models, settings)]
    able = [model for model in models if model.error is None]
    if len(voxels) > 1 and able:
        parts += ["Dice after the last prompt, by object", _object_table(able, voxels)]
    return "\n\n".join(parts)


def _legend(objects: int, settings: ProtocolSettings, units: str) -> str:
    counted = "one object" if objects == 1 else f"{objects} objects, means"
    tolerance = f"{settings.nsd_tolerance_mm:g} {units}"
    text = f"{settings.protocol}, {counted}: Dice after each prompt, NSD at {tolerance} after the last"
    if settings.click_steps < 2:
        return text
    return f"{text};\nAUC: area under the curve of the {settings.clicks} clicks, {settings.clicks - 1} at most"


def _model_table(models: Sequence[ModelScores], settings: ProtocolSettings) -> str:
    box, clicks = ["box"] * settings.has_box, [f"click {n}" for n in range(1, settings.click_steps + 1)]
    header = ["model", *box, *clicks, "NSD", "Dice AUC", "NSD AUC", "s/answer", "peak MB"]
    able = [model for model in models if model.error is None]
    lines = _aligned([header, *map(_model_row, able)])
    failed = [f"{model.model_id}: not evaluated: {_reason(model)}" for model in models if model.error is not None]
    return "\n".join([*(lines if able else []), *failed])


def _reason(model: ModelScores) -> str:
    return one_line(str(model.error)).removeprefix(f"{model.model_id}: ")


def _model_row(model: ModelScores) -> list[str]:
    areas = (_number(area, 3) for area in (model.dice_auc, model.nsd_auc))
    scores = (_number(value, 3) for value in (*model.dice, model.nsd[-1]))
    return [model.model_id, *scores, *areas, _number(model.seconds, 2), _number(model.peak_memory_mb, 0)]


def _object_table(models: Sequence[ModelScores], voxels: Mapping[int, int]) -> str:
    header = ["label", "voxels", *(model.model_id for model in models)]
    rows = [
        [str(label), str(count), *(_number(model.objects[label].steps[-1].dice, 3) for model in models)]
        for label, count in voxels.items()
    ]
    return "\n".join(_aligned([header, *rows]))


def _number(value: float | None, digits: int) -> str:
    return _UNKNOWN if value is None else f"{value:.{digits}f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line for each row: the first column at the left, numbers at the right of theirs."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
