"""`segment`: an image and a prompts file in; a segmentation, a report and a picture out."""

import argparse
import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from ..catalog.catalogue import find_card, read_catalogue, require_adapter
from ..catalog.model_cards import ModelCard
from ..engine.hand_over import choose_hand_over
from ..errors import InputError, OutputError
from ..hub.store import default_store_folder
from ..imaging.intensity import check_policy
from ..imaging.volume import Volume, require_image
from ..io.output_files import output_format
from ..progress import bytes_of
from ..prompts.capabilities import require_task, require_understood
from ..prompts.kinds import PromptSet
from ..prompts.placement import prompts_in_ras, require_inside
from ..prompts.prompts_file import prompts_to_document
from ..requests.segmentation import Direction, HandOver, Prediction, PredictRequest, Propagation
from ..requests.worker_settings import MemoryBudget, WorkerSettings
from ..worker.client import Client, ask
from ..worker.process_client import ProcessClient
from . import words
from .checkpoints import announce_missing
from .interrupts import interrupts_wait
from .mask_prompts import mask_files, read_masks, without_folders
from .report import report_text, segment_report
from .roi import roi_argument
from .seeds import with_seeds
from .slice_ranges import slice_range
from .targets import Writer, path_argument, require_targets, write_text, write_together
from .terminal import ProgressLine, say


def _propagation(options: argparse.Namespace) -> Propagation | None:
    """How 2-D prompts are carried on; saying how means that they are."""
    if not (options.propagate or options.propagate_range or options.propagate_direction or options.hand_over):
        return None
    start, stop = options.propagate_range or (None, None)
    return Propagation(start, stop, options.propagate_direction or "both", options.hand_over or "auto")


def _size(text: str) -> int:
    try:
        return bytes_of(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "volume", metavar="VOLUME", type=path_argument, help="an image file, or a folder with one DICOM series"
    )
    parser.add_argument("--model", metavar="ID", required=True, help="a model of 'models list'")
    words.add_arguments(parser)
    parser.add_argument(
        "--seed-from", metavar="FILE", type=path_argument, help="what to start from: segments of the same names"
    )
    parser.add_argument(
        "--output", metavar="OUT", type=path_argument, required=True, help=".seg.nrrd, .nii.gz or .nrrd"
    )
    parser.add_argument("--report", metavar="FILE", type=path_argument, help="write what was done, as JSON")
    parser.add_argument("--overview", metavar="FILE", type=path_argument, help="write a picture of the result (.png)")
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    parser.add_argument("--intensity", metavar="POLICY", default="auto", help="a policy's name, or width,centre")
    parser.add_argument("--propagate", action="store_true", help="carry 2-D prompts on until the object ends")
    parser.add_argument(
        "--propagate-range", metavar="START:STOP", type=slice_range, help="the slices that may be reached, from 0"
    )
    parser.add_argument("--propagate-direction", choices=get_args(Direction), help="towards which slice numbers")
    parser.add_argument("--hand-over", choices=get_args(HandOver), help="what a slice's mask becomes for the next one")
    parser.add_argument("--memory-limit", metavar="SIZE", type=_size, help="what the model may take, for example 6GB")
    parser.add_argument(
        "--roi", metavar="I,J,K|prompts:MM", type=roi_argument, help="the part of the image that the model sees"
    )
    parser.add_argument("--overlap", choices=("allow", "protect"), default="allow", help="whether segments may overlap")
    parser.add_argument("--series", metavar="UID", help="which series of a DICOM folder")
    parser.add_argument("--frame", metavar="N", type=int, help="which frame of a 4-D image, from 0")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class _Job:
    """Everything that was asked for, checked as far as it can be before the image is read."""

    card: ModelCard
    prompts: PromptSet
    options: argparse.Namespace


def run(options: argparse.Namespace) -> None:
    """Segment, then write; nothing is written unless everything went well."""
    begin = time.perf_counter()
    job = _check(options)
    with contextlib.closing(open_client(options)) as client:
        client.prepare(job.card.id)  # the model is loaded while the image is read
        volume = _read(job)
        start_s = time.perf_counter() - begin
        prediction = _predict(job, volume, client)
    write_begin = time.perf_counter()
    found, prediction = words.without_absent(options, job.prompts, prediction)
    segments, notes, writers = _results(replace(job, prompts=found), volume, prediction)

    def write_report(path: Path) -> None:
        now = time.perf_counter()  # the other files have been written by now
        timings_s = {"start": start_s, "write": now - write_begin, "total": now - begin}
        document = segment_report(
            prediction, prompts_to_document(without_folders(job.prompts)), segments, notes, timings_s
        )
        write_text(path, report_text(document))

    if options.report:
        writers.append((options.report, write_report))
    write_together(writers)
    for note in (*notes, *prediction.notes):
        say(f"note: {note}")
    for segment in segments:
        say(f"{segment['name']}: {segment['volume_ml']:.2f} ml")


def _check(options: argparse.Namespace) -> _Job:
    """What can be found wrong without the image is found before it is read."""
    card = find_card(read_catalogue(), options.model)
    require_task(card, "segment")
    require_adapter(card)
    check_policy(options.intensity)
    propagation = _propagation(options)
    if propagation is not None:
        choose_hand_over(propagation.hand_over, card.prompts)
    _check_targets(options)
    prompts = _asked(options, card)
    masks = mask_files(prompts, words.prompts_folder(options))
    require_targets(_targets(options), {f"the mask {path.name}": path for path in masks})
    for n, segment in enumerate(prompts.segments):
        require_understood(card, segment, f"segments[{n}]")
    return _Job(card, prompts, options)


def _asked(options: argparse.Namespace, card: ModelCard) -> PromptSet:
    """The prompts of the file, what is asked for by words, and the seeds of the other file."""
    asked = with_seeds(words.read_asked(options, card), options.seed_from)
    if not asked.segments:
        raise InputError("say what to segment: --prompts FILE, --classes NAMES, --text PHRASE or --seed-from FILE")
    return asked


def _targets(options: argparse.Namespace) -> dict[str, Path | None]:
    return {name: getattr(options, name) for name in ("output", "report", "overview")}


def _check_targets(options: argparse.Namespace) -> None:
    """Every file to be written is of a kind that can be, and in nothing's way."""
    output_format(options.output)
    if options.overview and options.overview.suffix.lower() != ".png":
        raise OutputError(f"{options.overview.name}: the name of a picture must end in .png")
    sources = {"the image": options.volume}
    if options.prompts is not None:
        sources["the prompts file"] = options.prompts
    require_targets(_targets(options), sources)


def _read(job: _Job) -> Volume:
    with interrupts_wait():
        from ..io.images import read_volume
        from ..io.nifti import is_sheared

    volume = read_volume(job.options.volume, series=job.options.series, frame=job.options.frame)
    require_image(volume)
    if output_format(job.options.output) == "nii.gz" and is_sheared(volume.geometry.ijk_to_ras):
        name = job.options.output.name
        raise OutputError(f"{name}: the image's grid is sheared, which NIfTI cannot hold; write .seg.nrrd or .nrrd")
    for n, segment in enumerate(prompts_in_ras(job.prompts, volume.geometry).segments):
        for m, prompt in enumerate(segment.prompts):
            require_inside(prompt, volume.geometry, f"segments[{n}].prompts[{m}]")
    return volume


def open_client(options: argparse.Namespace) -> Client:
    """The client that does the work: a worker process of its own."""
    budget = MemoryBudget(limit=options.memory_limit)
    return ProcessClient(WorkerSettings(options.device, default_store_folder(), encode_ahead=False, budget=budget))


def _predict(job: _Job, volume: Volume, client: Client) -> Prediction:
    request = _request(job, volume)
    announce_missing(job.card, job.options.device)
    line = ProgressLine()
    try:
        client.send_volume(volume)
        return ask(client, request, line.show)
    finally:
        line.clear()


def _request(job: _Job, volume: Volume) -> PredictRequest:
    prompts = prompts_in_ras(job.prompts, volume.geometry)
    prompts = read_masks(prompts, words.prompts_folder(job.options), volume.geometry)
    return PredictRequest(
        request_id=0,
        model_id=job.card.id,
        volume_key=volume.key,
        segments=prompts.segments,
        intensity=job.options.intensity,
        propagation=_propagation(job.options),
        region=None if job.options.roi is None else job.options.roi.box(prompts, volume.geometry),
    )


def _results(
    job: _Job, volume: Volume, prediction: Prediction
) -> tuple[list[dict[str, object]], list[str], list[Writer]]:
    """The segments as they will be written, notes on the image, and who writes which file.

    The writers hold the scene, so that it lives until the files are written.
    """
    with interrupts_wait():
        from .results import build_segmentation

    result = build_segmentation(volume, without_folders(job.prompts), prediction, job.options.overlap)
    writers: list[Writer] = [(job.options.output, result.writer(job.options.output))]
    if job.options.overview:
        writers.append((job.options.overview, result.render))
    return result.segments, list(volume.notes), writers
