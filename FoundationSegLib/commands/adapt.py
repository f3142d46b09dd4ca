"""`adapt`: a table of corrected segments in; a model that is kept if it is better, and a report, out."""

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..api_adaptation import adapt, adaptation_document, corrected, discard, keep, require_free, settings_for
from ..catalog.catalogue import adapted_id, require_adapter
from ..catalog.model_cards import find_card
from ..cohorts.cases import read_table
from ..errors import Cancelled, InferenceError, InputError
from ..hub.store import Store, default_store_folder
from ..imaging.intensity import check_policy
from ..imaging.volume import Volume
from ..progress import ProgressReport
from ..requests.adaptation import Adaptation, CorrectedSegment, KindScores, LabelScores, Training, curve_point
from ..requests.maintenance import WorkerSettings
from .arguments import add_model_arguments, mask_on, number_within, path_argument, read_image
from .models import require_checkpoint
from .outputs import ProgressLine, interrupts_wait, publish, require_targets, software_versions

_COLUMNS = ("image", "segmentation", "segment", "patient")
_WORDS = {"box": "a box", "point": "one click", "correction": "three clicks"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--model", metavar="ID", required=True, help="the base: a model of SAM's family")
    parser.add_argument(
        "--cases",
        metavar="CSV",
        type=path_argument,
        required=True,
        help=f"a table with the columns {','.join(_COLUMNS)}",
    )
    parser.add_argument("--name", metavar="NAME", required=True, help="of the result, whose id is ID+NAME")
    parser.add_argument(
        "--elsewhere", metavar="CSV", type=path_argument, help="such a table, to show what is lost on other images"
    )
    usual = Training()
    steps, seed = number_within(int, 1, 10_000), number_within(int, 0, 2**32 - 1)
    parser.add_argument("--steps", metavar="N", type=steps, default=usual.steps, help=f"at most ({usual.steps})")
    parser.add_argument(
        "--seed", metavar="N", type=seed, default=usual.seed, help=f"of all that is drawn ({usual.seed})"
    )
    pixels = number_within(int, 1, 10**6)
    parser.add_argument(
        "--least-pixels", metavar="N", type=pixels, default=usual.least_pixels, help="of an object on its slice"
    )
    parser.add_argument("--axis", choices=("i", "j", "k"), default=usual.axis, help="across which the slices lie (k)")
    parser.add_argument("--discard", action="store_true", help="report what it would be worth, and keep nothing")
    parser.add_argument("--report", metavar="FILE", type=path_argument, help="write what was measured, as JSON")
    parser.add_argument("--json", action="store_true", help="print the report instead of the table")
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Adapt, print and write; keep the result where it has passed.

    Raises:
        InferenceError: it is not better than its base.
        FoundationSegError: the input cannot be used, or the work failed.
    """
    catalogue = options.catalogue()
    base = find_card(catalogue, options.model)
    require_adapter(base)
    check_policy(options.intensity)
    require_free(adapted_id(base, options.name), catalogue)
    require_targets({"report": options.report}, {"the table": options.cases, "the other table": options.elsewhere})
    volumes, segments = read_cases(options.cases, options)
    if options.elsewhere is not None:
        others, lost = read_cases(options.elsewhere, options, elsewhere=True)
        volumes, segments = [*volumes, *others], [*segments, *lost]
    require_checkpoint(base, options)
    training = Training(options.steps, options.seed, options.axis, least_pixels=options.least_pixels)
    settings = settings_for(volumes, WorkerSettings(options.device, default_store_folder()))
    with ProgressLine() as line, contextlib.closing(options.connect(settings)) as client:
        try:
            result = adapt(
                volumes,
                segments,
                client,
                base,
                options.name,
                intensity=options.intensity,
                training=training,
                on_progress=lambda report: line.show(_with_loss(report)),
                catalogue=catalogue,
            )
        except KeyboardInterrupt:
            raise Cancelled("interrupted; the same command goes on from the last 50 steps") from None
    store = Store(default_store_folder())
    is_kept = bool(result.passed) and not options.discard
    if is_kept:
        keep(result, store, catalogue)
    else:
        discard(result, store)
    document = {"version": 1, "command": "adapt", **adaptation_document(result), "kept": is_kept}
    publish(document | {"software": software_versions()}, _lines(result, is_kept), result.notes, (), options)
    if not result.passed:
        raise InferenceError(f"{result.model_id} is not better than {base.id} beyond chance, so nothing was kept")


def _with_loss(report: ProgressReport) -> ProgressReport:
    """Show a point of the curve as a step."""
    return report if curve_point(report) is None else ProgressReport(report.stage, report.done, report.total)


def read_cases(
    table: Path, options: argparse.Namespace, *, elsewhere: bool = False
) -> tuple[list[Volume], list[CorrectedSegment]]:
    """Read the images and the segments of a table, whose paths are relative to it; each image once.

    Without a segment all of a file's are taken; without a patient, the image is one's own.

    Raises:
        InputError, GeometryError: the table or a file cannot be read, or a segment is not on the grid of its image.
    """
    with interrupts_wait():
        from ..io.segmentations import open_segments

    volumes: dict[Path, Volume] = {}
    segments: list[CorrectedSegment] = []
    for number, row in _rows(table):
        image, segmentation = (table.parent / row[name] for name in _COLUMNS[:2])
        try:
            volume = volumes.get(image) or read_image(image, options)
            file = open_segments(segmentation)
            names = (row["segment"],) if row["segment"] else file.names()
            masks = {name: mask_on(volume.geometry, file, name) for name in names}
        except InputError as error:
            raise InputError(f"{table.name}, line {number}: {error}") from error
        volumes[image] = volume
        segments += corrected(volume, masks, row["patient"] or row["image"], elsewhere=elsewhere)
    return list(volumes.values()), segments


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    rows = [(line, dict.fromkeys(_COLUMNS, "") | row) for line, row in read_table(table, _COLUMNS[:2])]
    if not rows:
        raise InputError(f"{table.name} has no line below its header; its header is {','.join(_COLUMNS)}")
    for line, row in rows:
        if not (row["image"] and row["segmentation"]):
            raise InputError(f"{table.name}, line {line}: names no image or no segmentation")
    return rows


def _lines(result: Adaptation, is_kept: bool) -> list[str]:
    units = {"patients": "patients", "blocks": "blocks of slices", "interleaved": "slices"}[result.split]
    held_out = f"{result.units} {units} that it did not learn from"
    state = "kept" if is_kept else "passed, and not kept" if result.passed else "not kept"
    seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in result.seconds.items())
    return [
        f"{result.model_id}: {result.cases} images, {result.patients} patients, {result.prompts} prompts; {seconds}",
        f"Dice on {held_out}, before and after",
        *(line for scores in result.kinds for line in _rows_of(scores)),
        "elsewhere" if result.elsewhere else "elsewhere: not measured; --elsewhere names other images",
        *(line for scores in result.elsewhere for line in _rows_of(scores)),
        f"{result.model_id} is {state}" + (f", for: {', '.join(result.passed)}" if result.passed else ""),
    ]


def _rows_of(scores: KindScores) -> Iterator[str]:
    """Yield the line of a kind of prompts, and one for each label that has a lower mean than before."""
    verdict = "better" if scores.passed else "not better beyond chance"
    yield f"  {_WORDS[scores.kind]:<13}{_change(scores)}, without a model {scores.baseline:.3f}: {verdict}"
    yield from (f"    lower for {label.name}: {_change(label)}, {label.objects} objects" for label in scores.fallen)


def _change(scores: KindScores | LabelScores) -> str:
    low, high = (("?" if end is None else f"{end:+.3f}") for end in (scores.gain.low, scores.gain.high))
    return f"{scores.before:.3f}  {scores.after:.3f}  gain {scores.gain.mean:+.3f} ({low} to {high})"
