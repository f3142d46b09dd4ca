"""What `evaluate` prints: the models side by side."""

from collections.abc import Mapping, Sequence

from ..evaluation.protocol import ModelScores, ProtocolSettings
from .terminal import one_line

_UNKNOWN = "-"


def table_text(models: Sequence[ModelScores], voxels: Mapping[int, int], settings: ProtocolSettings) -> str:
    """The table of the models and, if there are several objects, that of the objects.

    Args:
        models: what was found.
        voxels: how large the object of each label is.
        settings: how it was found.
    """
    parts = [_legend(len(voxels), settings), _model_table(models, settings)]
    able = [model for model in models if model.error is None]
    if len(voxels) > 1 and able:
        parts += ["Dice after the last prompt, by object", _object_table(able, voxels)]
    return "\n\n".join(parts)


def _legend(objects: int, settings: ProtocolSettings) -> str:
    who = "one object" if objects == 1 else f"{objects} objects, means"
    text = f"{settings.protocol}, {who}: Dice after each prompt, NSD at {settings.nsd_tolerance_mm:g} mm after the last"
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
    """One line for each row: the first column at the left, numbers at the right of theirs."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
