"""`evaluate`: an image and a label map in; a table of how well each model finds the labels, and a report, out."""

import argparse
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ..catalog.catalogue import require_adapter
from ..catalog.label_sets import listed
from ..catalog.model_cards import ModelCard, find_card
from ..errors import Cancelled, FoundationSegError, InputError, PackageError, counted
from ..evaluation.protocol import (
    CHALLENGE_SEED,
    ModelScores,
    ObjectScores,
    ProtocolName,
    ProtocolSettings,
    ProtocolStep,
    require_protocol,
)
from ..hub.store import default_store_folder
from ..imaging.intensity import check_policy
from ..imaging.volume import Volume
from ..progress import ProgressReport
from ..prompts.capabilities import require_task
from ..requests.maintenance import WorkerSettings
from ..requests.segmentation import Prediction, PredictRequest
from ..worker.client import Client, ask
from ..worker.process_client import ProcessClient
from .arguments import add_model_arguments, number_within, path_argument, read_image
from .models import require_checkpoint
from .outputs import ProgressLine, interrupts_wait, one_line, publish, require_targets, software_versions

# Smaller labels are left out unless they are named: they are what a brush leaves behind, and no object.
FEWEST_VOXELS = 27
_DIGITS = 6
_UNKNOWN = "-"
_WITHOUT_EMPTY_MARGIN = (".seg.nrrd", ".dcm")  # segmentations are often saved so; a smaller label map is a mistake
_SHEARED = "the grid is sheared: distances in mm are measured along its axes, as if they were at right angles"
_WAIT_S = 0.2
_OWN_STAGES = ("download", "load", "restart", "wait")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("image", metavar="IMAGE", type=path_argument, help="an image file, or a folder with one series")
    parser.add_argument("label", metavar="LABEL", type=path_argument, help="a label map on the image's grid: the truth")
    parser.add_argument("--model", metavar="ID", required=True, action="append", help="once for each model to compare")
    parser.add_argument("--protocol", required=True, choices=get_args(ProtocolName), help="what each model is given")
    clicks, tolerance = number_within(int, 1, 100), number_within(float, 0, 1000)
    parser.add_argument("--clicks", metavar="N", type=clicks, default=5, help="how many simulated clicks (5)")
    parser.add_argument("--label", metavar="N", dest="values", type=int, action="append", help="a label to evaluate on")
    parser.add_argument("--nsd-tolerance-mm", metavar="MM", type=tolerance, default=2.0, help="of the surface Dice (2)")
    parser.add_argument("--report", metavar="FILE", type=path_argument, help="write what was found, as JSON")
    parser.add_argument("--json", action="store_true", help="print the report instead of the table")
    seed = number_within(int, 0, 2**32 - 1)
    parser.add_argument("--seed", metavar="N", type=seed, default=CHALLENGE_SEED, help="of ties between clicks (42)")
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Evaluate every model, then print and write; one that cannot be evaluated has a row that says why.

    Raises:
        FoundationSegError: the input cannot be used, or no model could be evaluated.
    """
    begin = time.perf_counter()
    settings = ProtocolSettings(
        options.protocol, options.clicks, options.nsd_tolerance_mm, options.intensity, options.seed
    )
    refusals = _check(options)
    truth = _read_truth(options)
    models = _evaluate(refusals, truth, settings, options)
    failed = [model.error for model in models if model.error is not None]
    if len(models) == 1 and failed:
        raise failed[0]
    ml = truth.volume.voxel_ml
    objects = [
        {"label": n, "voxels": count, "volume_ml": ml and round(count * ml, 3)} for n, count in truth.voxels.items()
    ]
    units = "pixels" if truth.volume.in_pixels else "mm"
    document = evaluation_report(models, objects, settings, truth.notes, time.perf_counter() - begin, units)
    lines = [table_text(models, truth.voxels, settings, units)]
    publish(document, lines, (*truth.notes, *_failed_steps(models)), (), options)
    if len(failed) == len(models):
        raise type(failed[0])(f"none of {counted(len(models), 'model')} could be evaluated")


def _check(options: argparse.Namespace) -> list[tuple[ModelCard, FoundationSegError | None]]:
    """Find what is wrong without the image before it is read; return each model, with why it cannot be evaluated."""
    catalogue = options.catalogue()
    cards = [find_card(catalogue, model_id) for model_id in dict.fromkeys(options.model)]
    check_policy(options.intensity)
    require_targets({"report": options.report}, {"the image": options.image, "the label map": options.label})
    refusals = [(card, _refusal(card, options.protocol)) for card in cards]
    first = refusals[0][1]
    if first is not None and all(refusal is not None for _, refusal in refusals):
        raise first
    return refusals


def _refusal(card: ModelCard, protocol: ProtocolName) -> FoundationSegError | None:
    """Return why a model cannot be evaluated by a protocol, as far as its card says."""
    try:
        require_task(card, "segment")
        require_adapter(card)
        require_protocol(card, protocol)
    except FoundationSegError as error:
        return error
    return None


def _failed_steps(models: Sequence[ModelScores]) -> list[str]:
    return [
        f"{model.model_id}: a step failed and counts as 0 ({len(model.errors)} times); first: {model.errors[0]}"
        for model in models
        if model.errors
    ]


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """An image and its objects: labels (K, J, I) of an integer type, and the number of voxels of each label to find."""

    volume: Volume
    labels_kji: NDArray[np.generic]
    voxels: Mapping[int, int]
    notes: tuple[str, ...]


def _read_truth(options: argparse.Namespace) -> GroundTruth:
    """Read the image and the label map of the command line.

    Raises:
        InputError: they lie on different grids, or there is nothing to find.
    """
    with interrupts_wait():
        from ..io.nifti import is_sheared
        from ..io.segmentations import read_label_map

    volume = read_image(options.image, options)
    labels, geometry = read_label_map(options.label)
    match, box = volume.geometry.match(geometry), volume.geometry.box
    is_segmentation = options.label.name.lower().endswith(_WITHOUT_EMPTY_MARGIN)
    if match is None or not (match.box == box or (is_segmentation and box.contains(match.box))):
        here, there = (" x ".join(map(str, grid.shape_kji[::-1])) for grid in (volume.geometry, geometry))
        raise InputError(
            f"{options.label.name} lies on another grid than {options.image.name} "
            f"({there} voxels, not {here}, or elsewhere in space); resample the label map to the image"
        )
    whole = np.zeros(volume.geometry.shape_kji, labels.dtype)
    whole[match.box.slices] = match.turned(labels)
    labels = whole
    voxels, notes = choose_labels(labels, options.values, options.label.name)
    sheared = (_SHEARED,) if is_sheared(geometry.ijk_to_ras) else ()
    return GroundTruth(volume, labels, voxels, (*volume.notes, *sheared, *notes))


def choose_labels(
    labels_kji: NDArray[np.generic], choice: Sequence[int] | None, name: str
) -> tuple[dict[int, int], tuple[str, ...]]:
    """Count the voxels of each label to evaluate on, with notes on those that were left out.

    That is those that are named, or else every label above 0 with at least :data:`FEWEST_VOXELS` voxels.

    Args:
        labels_kji: (K, J, I) of an integer type.
        choice: the labels that the user named; None for all.
        name: the name of the label map.

    Raises:
        InputError: there is none of those.
    """
    values, sizes = np.unique(labels_kji[labels_kji > 0], return_counts=True)
    counts = dict(zip(values.tolist(), sizes.tolist(), strict=True))
    if choice is not None:
        missing = [value for value in choice if value not in counts]
        if missing:
            raise InputError(f"{name} has no label {missing[0]}; it has {listed(list(counts)) or 'none'}")
        return {value: counts[value] for value in dict.fromkeys(choice)}, ()
    small = [value for value, count in counts.items() if count < FEWEST_VOXELS]
    if len(small) == len(counts):
        raise InputError(f"{name} has no label with at least {FEWEST_VOXELS} voxels; name smaller ones with --label N")
    notes = (f"left out, with less than {FEWEST_VOXELS} voxels: label {listed(small)}",) if small else ()
    return {value: count for value, count in counts.items() if value not in small}, notes


@dataclass(slots=True)
class _Watch:
    """Shows how far the whole evaluation is, and keeps the highest peak of memory of the model's process."""

    line: ProgressLine
    total: int
    done: int = 0
    peak_mb: float | None = None

    def show(self, report: ProgressReport) -> None:
        """Show a report of the work on one request; what takes long beside the steps is shown in their place."""
        self.line.show(report if report.stage in _OWN_STAGES else ProgressReport("evaluate", self.done, self.total))

    def step(self, client: Client) -> None:
        """Count a step that is done."""
        self.done += 1
        self.line.show(ProgressReport("evaluate", self.done, self.total))
        peak_mb = _peak_mb(client)
        if peak_mb is not None:
            self.peak_mb = max(peak_mb, self.peak_mb or 0.0)


def _peak_mb(client: Client) -> float | None:
    """Return the peak of memory of the worker's process, or of this one where the work is done in line."""
    from ..installation.inspection import peak_memory_mb

    if not isinstance(client, ProcessClient):
        return peak_memory_mb()
    return None if client.worker_pid is None else peak_memory_mb(client.worker_pid)


def _evaluate(
    refusals: Sequence[tuple[ModelCard, FoundationSegError | None]],
    truth: GroundTruth,
    settings: ProtocolSettings,
    options: argparse.Namespace,
) -> list[ModelScores]:
    """Evaluate each model on every object, in a worker process of its own.

    Raises:
        PackageError: a package that only this command needs is missing.
        Cancelled: the user stopped it.
    """
    try:
        with interrupts_wait():
            import monai.metrics  # noqa: F401 - only to see that the packages of the scores are here

            from ..evaluation import simulated_prompts  # noqa: F401
    except ModuleNotFoundError as error:
        raise PackageError(f"evaluate needs the package {error.name}, which is not installed") from error
    able = sum(refusal is None for _, refusal in refusals)
    with ProgressLine() as line:
        watch = _Watch(line, able * len(truth.voxels) * settings.steps)
        return [
            ModelScores(card.id, {}, error=refusal)
            if refusal
            else _evaluate_model(card, truth, settings, options, watch)
            for card, refusal in refusals
        ]


def _evaluate_model(
    card: ModelCard, truth: GroundTruth, settings: ProtocolSettings, options: argparse.Namespace, watch: _Watch
) -> ModelScores:
    watch.peak_mb, before = None, watch.done
    try:
        watch.line.clear()
        require_checkpoint(card, options)
        worker = WorkerSettings(options.device, default_store_folder(), encode_ahead=False)
        with contextlib.closing(options.connect(worker)) as client:
            client.send_volume(truth.volume)
            while client.is_busy:  # the start and the image's way are no part of the time of an answer
                client.poll()
                client.wait(_WAIT_S)
            objects = _evaluate_objects(client, card, truth, settings, watch)
    except Cancelled:
        raise
    except FoundationSegError as error:
        watch.done = before + len(truth.voxels) * settings.steps
        return ModelScores(card.id, {}, watch.peak_mb, error)
    scores = ModelScores(card.id, objects, watch.peak_mb)
    return scores if scores.origin is not None else ModelScores(card.id, {}, watch.peak_mb, scores.errors[0])


def _evaluate_objects(
    client: Client, card: ModelCard, truth: GroundTruth, settings: ProtocolSettings, watch: _Watch
) -> dict[int, ObjectScores]:
    from ..evaluation.simulated_prompts import evaluate_object

    def answer(request: PredictRequest) -> Prediction:
        return ask(client, request, watch.show)

    return {
        label: evaluate_object(
            answer, card.id, truth.volume, truth.labels_kji == label, settings, lambda: watch.step(client)
        )
        for label in truth.voxels
    }


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
