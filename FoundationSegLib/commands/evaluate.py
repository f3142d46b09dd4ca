"""`evaluate`: an image and a label map in; a table of how well each model finds the labels, and a report, out."""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, get_args

from ..catalog.catalogue import find_card, read_catalogue, require_adapter
from ..catalog.model_cards import ModelCard
from ..errors import FoundationSegError, InputError, PackageError
from ..evaluation.protocol import CHALLENGE_SEED, ProtocolName, ProtocolSettings, require_protocol
from ..imaging.intensity import check_policy
from .evaluation_truth import Truth, read_truth
from .interrupts import interrupts_wait
from .report import report_text
from .targets import path_argument, require_targets, text_writer, write_together
from .terminal import say

if TYPE_CHECKING:
    from ..evaluation.protocol import ModelScores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("image", metavar="IMAGE", type=path_argument, help="an image file, or a folder with one series")
    parser.add_argument("label", metavar="LABEL", type=path_argument, help="a label map on the image's grid: the truth")
    parser.add_argument("--model", metavar="ID", required=True, action="append", help="once for each model to compare")
    parser.add_argument("--protocol", required=True, choices=get_args(ProtocolName), help="what each model is given")
    clicks, tolerance, seed = _within(int, 1, 100), _within(float, 0, 1000), _within(int, 0, 2**32 - 1)
    parser.add_argument("--clicks", metavar="N", type=clicks, default=5, help="how many simulated clicks (5)")
    parser.add_argument("--label", metavar="N", dest="values", type=int, action="append", help="a label to evaluate on")
    parser.add_argument("--nsd-tolerance-mm", metavar="MM", type=tolerance, default=2.0, help="of the surface Dice (2)")
    parser.add_argument("--report", metavar="FILE", type=path_argument, help="write what was found, as JSON")
    parser.add_argument("--json", action="store_true", help="print the report instead of the table")
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    parser.add_argument("--intensity", metavar="POLICY", default="auto", help="a policy's name, or width,centre")
    parser.add_argument("--seed", metavar="N", type=seed, default=CHALLENGE_SEED, help="of ties between clicks (42)")
    parser.add_argument("--series", metavar="UID", help="which series of a DICOM folder")
    parser.add_argument("--frame", metavar="N", type=int, help="which frame of a 4-D image, from 0")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run, memory_limit=None)


def _within(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], float]:
    """A parser of numbers within a range, both ends included."""
    wanted = f"must be {'a whole number' if kind is int else 'a number'} from {low} to {high}"

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(wanted)
        return value

    return parse


def run(options: argparse.Namespace) -> None:
    """Evaluate every model, then print and write; one that cannot be evaluated has a row that says why.

    Raises:
        FoundationSegError: the input cannot be used, or no model could be evaluated.
    """
    begin = time.perf_counter()
    settings = ProtocolSettings(
        options.protocol, options.clicks, options.nsd_tolerance_mm, options.intensity, options.seed
    )
    cards = _check(options)
    truth = read_truth(options)
    models = _evaluate(cards, truth, settings, options)
    failed = [model.error for model in models if model.error is not None]
    if len(models) == 1 and failed:
        raise failed[0]
    _report(models, truth, settings, options, begin)
    if len(failed) == len(models):
        raise failed[0]


def _check(options: argparse.Namespace) -> list[ModelCard]:
    """What can be found wrong without the image is found before it is read."""
    catalogue = read_catalogue()
    cards = [find_card(catalogue, model_id) for model_id in dict.fromkeys(options.model)]
    check_policy(options.intensity)
    require_targets({"report": options.report}, {"the image": options.image, "the label map": options.label})
    refusals = [error for card in cards if (error := refusal(card, options.protocol)) is not None]
    if len(refusals) == len(cards):
        raise refusals[0]
    return cards


def refusal(card: ModelCard, protocol: ProtocolName) -> FoundationSegError | None:
    """Why a model cannot be evaluated by a protocol, as far as its card tells; None if it can be."""
    try:
        if card.task != "segment":
            raise InputError(f"{card.id} is a model to {card.task} with, not to segment with")
        require_adapter(card)
        require_protocol(card, protocol)
    except FoundationSegError as error:
        return error
    return None


def _evaluate(
    cards: Sequence[ModelCard], truth: Truth, settings: ProtocolSettings, options: argparse.Namespace
) -> list["ModelScores"]:
    try:
        with interrupts_wait():
            from .evaluation_run import evaluate_models
    except ModuleNotFoundError as error:
        raise PackageError(f"evaluate needs the package {error.name}, which is not installed") from error
    refusals = {card.id: refusal(card, settings.protocol) for card in cards}
    return evaluate_models(cards, refusals, truth, settings, options)


def _report(
    models: Sequence["ModelScores"],
    truth: Truth,
    settings: ProtocolSettings,
    options: argparse.Namespace,
    begin: float,
) -> None:
    from .evaluation_report import evaluation_report
    from .evaluation_table import table_text

    ml = truth.volume.geometry.voxel_volume_mm3 / 1000
    objects = [{"label": n, "voxels": count, "volume_ml": round(count * ml, 3)} for n, count in truth.voxels.items()]
    document = evaluation_report(models, objects, settings, truth.notes, time.perf_counter() - begin)
    text = report_text(document)
    if options.report:
        write_together([text_writer(options.report, text)])
    for note in (*truth.notes, *_failures(models)):
        say(f"note: {note}")
    print(text.rstrip() if options.json else table_text(models, truth.voxels, settings))


def _failures(models: Sequence["ModelScores"]) -> list[str]:
    return [
        f"{model.model_id}: a step failed and counts as 0 ({len(model.errors)} times); first: {model.errors[0]}"
        for model in models
        if model.errors
    ]
