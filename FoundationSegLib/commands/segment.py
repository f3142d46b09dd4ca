"""`segment`: an image and prompts in; a segmentation, a report and a picture out."""

import argparse
import contextlib
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from ..catalog.catalogue import require_adapter
from ..catalog.model_cards import ModelCard, find_card
from ..engine.propagation import choose_hand_over
from ..engine.propagation_planning import is_stuck, plan_tracks
from ..engine.slices import place_on_slices
from ..errors import InputError, OutputError, PromptError
from ..folders import output_format
from ..hub.store import default_store_folder
from ..imaging.intensity import check_policy
from ..imaging.volume import Volume, require_image
from ..prompts.capabilities import require_task, require_understood, translate
from ..prompts.kinds import PromptSet
from ..prompts.oblique import views_of
from ..prompts.placement import prompts_in_ras, require_all_inside
from ..prompts.prompts_file import prompts_to_document, read_prompts
from ..requests.maintenance import MemoryBudget, WorkerSettings
from ..requests.segmentation import Direction, HandOver, Prediction, PredictRequest, Propagation
from ..requests.uncertainty import ANSWERS, UncertaintyMap, uncertainty, uncertainty_request
from ..session import frames_in_time
from ..worker.client import Client, ask
from . import arguments
from . import segment_report as reports
from .arguments import (
    ALL_FRAMES,
    OVERVIEW_PX,
    add_model_arguments,
    frame_file_argument,
    path_argument,
    read_image,
    roi_argument,
    size_argument,
    slice_range,
)
from .models import require_checkpoint
from .outputs import (
    FileWriter,
    ProgressLine,
    interrupts_wait,
    map_writer,
    report_text,
    require_targets,
    say,
    source_slices,
    write_text,
    write_together,
)

_CHART_PX = (900, 500)
_COLOURS = ("#1b6ca8", "#c8553d", "#588157", "#8e5ea2", "#b08900", "#444444")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("volume", metavar="VOLUME", type=path_argument, help="an image file, or a folder with one DICOM series")
    add("--model", metavar="ID", help="a model of 'foundationseg models list'")
    add("--resolution", metavar="PIXELS", type=int, help="the image that the model sees, of those of its card")
    add("--from-report", metavar="FILE", type=path_argument, help="repeat what a report says, for the same voxels")
    arguments.add_prompt_arguments(parser)
    add(
        "--prompt-frame", metavar="N", type=int, default=0, help="with --frame all: which frame the prompts are for (0)"
    )
    text = "with --frame all: prompts of a frame that you corrected; again for another"
    add("--frame-prompts", metavar="N=FILE", type=frame_file_argument, action="append", default=[], help=text)
    add("--output", metavar="OUT", type=path_argument, required=True, help=".seg.nrrd, .nii.gz, .nrrd or .dcm")
    add("--report", metavar="FILE", type=path_argument, help="write what was done, as JSON")
    add("--overview", metavar="FILE", type=path_argument, help="write a picture of the result (.png)")
    add("--uncertainty", metavar="FILE", type=path_argument, help="a map of uncertainty: .nrrd, .nii.gz or .dcm")
    text = f"with --uncertainty: how many answers to jittered prompts are compared ({ANSWERS})"
    add("--uncertainty-answers", metavar="N", type=int, default=ANSWERS, help=text)
    add_method_arguments(parser)
    add_model_arguments(parser)
    parser.set_defaults(
        run=run, device=None, intensity=None, sources=(), slices=(), overview_px=OVERVIEW_PX
    )  # a report may have them


def add_method_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments on how a model is asked, which `batch` has, too."""
    parser.add_argument("--propagate", action="store_true", help="carry 2-D prompts on until the object ends")
    parser.add_argument(
        "--propagate-range", metavar="START:STOP", type=slice_range, help="the slices that may be reached, from 0"
    )
    parser.add_argument("--propagate-direction", choices=get_args(Direction), help="towards which slice numbers")
    text = "what a slice's mask becomes for the next one; interpolate: from the outlines of the prompted slices"
    parser.add_argument("--hand-over", choices=get_args(HandOver), help=text)
    parser.add_argument(
        "--memory-limit", metavar="SIZE", type=size_argument, help="what the model may take, for example 6GB"
    )
    parser.add_argument(
        "--roi", metavar="I,J,K|prompts:MM", type=roi_argument, help="the part of the image that the model sees"
    )
    parser.add_argument("--overlap", choices=("allow", "protect"), help="whether segments may overlap (allow)")
    parser.add_argument(
        "--measurements", action="store_true", help="with a .dcm: volume, diameter and mean, as DICOM SR beside it"
    )


def measurements_path(output: Path) -> Path:
    """Return the file with the measurements of a .dcm: ``x.sr.dcm`` beside ``x.dcm``."""
    return output.with_name(f"{output.stem}.sr.dcm")


def run(options: argparse.Namespace) -> None:
    """Segment, then write; nothing is written unless everything went well."""
    with arguments.naming_sources(options):
        _segment(options)


def _segment(options: argparse.Namespace) -> None:
    begin = time.perf_counter()
    earlier = _complete(options)
    card = find_card(options.catalogue(), options.model)
    prompts = _check(options, card, earlier)
    budget = MemoryBudget(limit=options.memory_limit)
    box_rule = earlier.options.box_rule if earlier is not None else WorkerSettings().box_rule
    settings = WorkerSettings(options.device, default_store_folder(), box_rule, encode_ahead=False, budget=budget)
    if options.frame == ALL_FRAMES:
        _segment_frames(options, card, prompts, settings)
        return
    if options.frame_prompts or options.prompt_frame:
        raise InputError("--prompt-frame and --frame-prompts are for --frame all")
    with contextlib.closing(options.connect(settings)) as client:
        client.prepare(card.id)  # the model is loaded while the image is read
        volume = _read(options, prompts)
        start_s = time.perf_counter() - begin
        request, prediction = _predict(options, card, prompts, volume, client, earlier)
        uncertain = _map_uncertainty(options, request, volume, client)
    write_begin = time.perf_counter()
    present, left_out = prompts, None
    if arguments.asked_for_everything(options) or (earlier is not None and earlier.options.left_out is not None):
        present, prediction = arguments.without_absent(prompts, prediction)
        left_out = reports.left_out_document(arguments.without_folders(prompts), present)
    with interrupts_wait():
        from .results import build_segmentation

    determined = reports.ResultOptions(
        volume.key,
        options.frame,
        request.propagation,
        request.region,
        prediction.parts,
        box_rule,
        options.overlap,
        reports.seed_records(PromptSet(request.segments)),
        left_out,
    )
    # The result holds the scene, which has to live until the files are written.
    result = build_segmentation(volume, arguments.without_folders(present), prediction, determined)
    changes = earlier.compare(prediction, determined, result.segments) if earlier is not None else []
    notes = (*volume.notes, *prediction.notes, *changes)
    if output_format(options.output) == "dcm":
        measurements = measurements_path(options.output) if options.measurements else None
        writers = result.dicom_writers(options.output, options.slices, volume, measurements)
    else:
        writers = [(options.output, result.writer(options.output))]
    if options.overview:
        writers.append((options.overview, lambda path: result.render(path, options.overview_px)))
    if uncertain is not None:
        from ..io.dicom_measurements import uncertainty_quantity

        quantity = uncertainty_quantity(", ".join(segment.name for segment in present.segments))
        box, values_kji = uncertain.box, uncertain.values_kji
        writers.append(map_writer(options.uncertainty, volume, box, values_kji, quantity, options.slices))

    def write_report(path: Path) -> None:
        now = time.perf_counter()  # the other files have been written by now
        timings_s = {"start": start_s, "write": now - write_begin, "total": now - begin}
        document = prompts_to_document(arguments.without_folders(present))
        report = reports.segment_report(prediction, determined, document, result.segments, notes, timings_s)
        if uncertain is not None:
            doubts = {number: round(doubt, 4) for number, doubt in uncertain.slices.doubts.items()}
            about = {"file": options.uncertainty.name, "answers": uncertain.answers, "axis": uncertain.slices.axis}
            report |= {"uncertainty": about | {"slices": doubts}}
        write_text(path, report_text(report))

    if options.report:
        writers.append((options.report, write_report))
    write_together(writers)
    for note in notes:
        say(f"note: {note}")
    for segment in result.segments:
        volume_ml = segment["volume_ml"]
        size = f"{segment['voxels']} pixels" if volume_ml is None else f"{volume_ml:.2f} ml"
        say(f"{segment['name']}: {size}")


def _segment_frames(options: argparse.Namespace, card: ModelCard, prompts: PromptSet, settings: WorkerSettings) -> None:
    """Segment every frame; write a file for each, and the report and the chart of all."""
    begin = time.perf_counter()
    _require_followable(options)
    own = {options.prompt_frame: prompts} | {n: read_prompts(path) for n, path in options.frame_prompts}
    for frame_prompts in own.values():
        for k, segment in enumerate(frame_prompts.segments):
            require_understood(card, segment, f"segments[{k}]")
    with contextlib.closing(options.connect(settings)) as client:
        client.prepare(card.id)
        with interrupts_wait():
            from ..io.images import read_frames
        frames = read_frames(options.volume, series=options.series)
        paths = [_frame_path(options.output, n, len(frames)) for n in range(len(frames))]
        require_targets({f"output {n}": path for n, path in enumerate(paths)}, {"the image": options.volume})
        in_ras = frames_in_time.place_prompts(own, frames)
        requests: dict[int, PredictRequest] = {}

        def predict(n: int, moved: PromptSet) -> Prediction:
            require_image(frames[n])
            requests[n], prediction = _predict(options, card, moved, frames[n], client, None)
            client.remove_volume(frames[n].key)
            return prediction

        answers = frames_in_time.follow(frames, in_ras, predict)
    _write_frames(options, prompts, frames, answers, requests, paths, settings, begin)


def _write_frames(
    options: argparse.Namespace,
    prompts: PromptSet,
    frames: Sequence[Volume],
    answers: Sequence[frames_in_time.FrameAnswer],
    requests: Mapping[int, PredictRequest],
    paths: Sequence[Path],
    settings: WorkerSettings,
    begin: float,
) -> None:
    with interrupts_wait():
        from .results import build_segmentation
    rows: list[dict[str, Any]] = []
    names = [segment.name for segment in prompts.segments]
    curves = frames_in_time.consistency(names, [answer.masks for answer in answers], frames[0])
    prompted = [n for n, answer in enumerate(answers) if answer.is_prompted]
    determined = [
        reports.ResultOptions(
            frame.key,
            n,
            requests[n].propagation,
            requests[n].region,
            answers[n].prediction.parts,
            settings.box_rule,
            options.overlap,
        )
        for n, frame in enumerate(frames)
    ]

    def write_frame(n: int, target: Path) -> None:
        result = build_segmentation(frames[n], prompts, answers[n].prediction, determined[n])
        result.writer(target)(target)
        spacing = frames[n].geometry.spacing_mm[::-1]
        moved = [[round(s * mm, 2) for s, mm in zip(shift, spacing, strict=True)] for shift in answers[n].shifts]
        source = {"frame": n, "file": paths[n].name, "prompted": answers[n].is_prompted}
        rows.append(source | {"moved_kji_mm": dict(zip(names, moved, strict=True)), "segments": result.segments})

    def write_report(target: Path) -> None:
        timings_s = {"start": 0.0, "write": 0.0, "total": time.perf_counter() - begin}
        prediction, n = answers[prompted[0]].prediction, prompted[0]
        rest = (rows[n]["segments"], prediction.notes, timings_s)
        report = reports.segment_report(prediction, determined[n], prompts_to_document(prompts), *rest)
        write_text(target, report_text(report | {"frames": rows, "consistency": curves}))

    writers: list[FileWriter] = [(path, functools.partial(write_frame, n)) for n, path in enumerate(paths)]
    if options.overview:
        writers.append((options.overview, lambda target: _draw_chart(target, curves, prompted)))
    if options.report:
        writers.append((options.report, write_report))
    write_together(writers)
    for name, row in curves.items():
        say(f"{name}: {len(frames)} frames, flicker {row['flicker']:.2%}")


def _complete(options: argparse.Namespace) -> reports.EarlierReport | None:
    """Set the options that are not given, to those of the report to repeat or to the usual ones; return the report."""
    earlier = reports.read_report(options.from_report) if options.from_report is not None else None
    options.propagation = _propagation(options)
    if earlier is not None:
        earlier.apply(options)
    elif options.model is None:
        raise InputError("say which model: --model ID, or --from-report FILE")
    if options.resolution is not None:
        options.model = f"{options.model.partition('@')[0]}@{options.resolution}"
    for name, usual in (("device", "auto"), ("intensity", "auto"), ("overlap", "allow")):
        setattr(options, name, getattr(options, name) or usual)
    return earlier


def _propagation(options: argparse.Namespace) -> Propagation | None:
    """Return how 2-D prompts are carried on; any option on it means that they are."""
    if not (options.propagate or options.propagate_range or options.propagate_direction or options.hand_over):
        return None
    start, stop = options.propagate_range or (None, None)
    return Propagation(start, stop, options.propagate_direction or "both", options.hand_over or "auto")


def _check(options: argparse.Namespace, card: ModelCard, earlier: reports.EarlierReport | None) -> PromptSet:
    """Find what is wrong without the image before it is read; return the prompts."""
    require_task(card, "segment")
    require_adapter(card)
    check_policy(options.intensity)
    if options.propagation is not None:
        hand_over = choose_hand_over(options.propagation.hand_over, card.prompts)
        options.propagation = replace(options.propagation, hand_over=hand_over)
    if "dcm" in {output_format(path) for path in (options.output, options.uncertainty) if path}:
        from ..io.dicom_segmentation import import_highdicom

        import_highdicom()
    if options.measurements and output_format(options.output) != "dcm":
        raise InputError("--measurements is for a .dcm: DICOM measurements refer to a DICOM segmentation")
    if options.overview and options.overview.suffix.lower() != ".png":
        raise OutputError(f"{options.overview.name}: the name of a picture must end in .png")
    if options.uncertainty and output_format(options.uncertainty) == "seg.nrrd":
        raise OutputError("--uncertainty: write real numbers to .nrrd or .nii.gz, or with a DICOM image to .dcm")
    targets = {name: getattr(options, name) for name in ("output", "report", "overview", "uncertainty")}
    targets["measurements"] = measurements_path(options.output) if options.measurements else None
    sources = {"the image": options.volume, "the prompts file": options.prompts}
    require_targets(targets, sources | {"the report to repeat": options.from_report})
    if earlier is not None:
        earlier.require_model(card)
    prompts = earlier.prompts(options, card) if earlier is not None else arguments.read_prompt_options(options, card)
    masks = arguments.mask_files(prompts, arguments.prompts_folder(options))
    require_targets(targets, {f"the mask {path.name}": path for path in masks})
    for n, segment in enumerate(prompts.segments):
        require_understood(card, segment, f"segments[{n}]")
    return prompts


def _read(options: argparse.Namespace, prompts: PromptSet) -> Volume:
    volume = read_image(options.volume, options)
    options.slices = source_slices(options, (options.output, options.uncertainty), volume.geometry)
    require_all_inside(prompts_in_ras(prompts, volume.geometry), volume.geometry)
    return volume


def _predict(
    options: argparse.Namespace,
    card: ModelCard,
    prompts: PromptSet,
    volume: Volume,
    client: Client,
    earlier: reports.EarlierReport | None,
) -> tuple[PredictRequest, Prediction]:
    placed = arguments.read_masks(
        prompts_in_ras(prompts, volume.geometry), arguments.prompts_folder(options), volume.geometry
    )
    region = None if options.roi is None else options.roi.box(placed, volume.geometry)
    if earlier is not None:
        earlier.check_seeds(reports.seed_records(placed))
        if region is not None:
            earlier.require_region(region)
        region = earlier.seen_box or region
    request = PredictRequest(
        request_id=0,
        model_id=card.id,
        volume_key=volume.key,
        segments=placed.segments,
        intensity=options.intensity,
        propagation=options.propagation,
        region=region,
    )
    _require_reach(request, card, volume)
    require_checkpoint(card, options)
    with ProgressLine() as line:
        client.send_volume(volume)
        return request, ask(client, request, line.show)


def _map_uncertainty(
    options: argparse.Namespace, request: PredictRequest, volume: Volume, client: Client
) -> UncertaintyMap | None:
    """Ask again with jittered prompts, where that is wished; the worker has the slices encoded already."""
    if options.uncertainty is None:
        return None
    with ProgressLine() as line:
        several = uncertainty_request(request, volume.geometry, options.uncertainty_answers)
        return uncertainty(ask(client, several, line.show), options.uncertainty_answers)


def _require_reach(request: PredictRequest, card: ModelCard, volume: Volume) -> None:
    """Make sure that the range and direction of a propagation lead at least one segment to another slice.

    Raises:
        PromptError: they do not.
    """
    if request.propagation is None or request.propagation.hand_over == "interpolate" or card.sees_volumes:
        return
    for view in views_of(request.segments, volume.geometry):
        geometry = volume.geometry
        if view.grid is not None:
            request.propagation.require_along_normal()
            geometry = view.grid.geometry
        for (n, _), segment in zip(view.numbers, view.segments, strict=True):
            prompts = translate(card, segment, geometry, f"segments[{n}]").segment.prompts
            locations = [f"segments[{n}].prompts[{m}]" for m in range(len(prompts))]
            on_slices, _ = place_on_slices(prompts, locations, geometry)
            tracks = plan_tracks(on_slices, geometry.shape_kji, request.propagation)
            if not is_stuck(tracks, request.propagation):
                return
    raise PromptError(
        "nothing can be carried on: from the slices of the prompts no other one is reached in that range or direction; "
        "change --propagate-range or --propagate-direction"
    )


def _draw_chart(path: Path, rows: Mapping[str, Mapping[str, Any]], prompted: Sequence[int]) -> None:
    """Draw the volume of each segment over the frames, with the frames that were prompted, as a PNG picture."""
    from PIL import Image, ImageDraw

    (width, height), left, top, bottom = _CHART_PX, 80, 40, 50
    picture = Image.new("RGB", _CHART_PX, "white")
    draw = ImageDraw.Draw(picture)
    curves = {name: row.get("volumes_ml", row.get("pixels", [])) for name, row in rows.items()}
    unit = "ml" if all("volumes_ml" in row for row in rows.values()) else "pixels"
    highest = max((max(curve, default=0) for curve in curves.values()), default=0) or 1.0
    count = max((len(curve) for curve in curves.values()), default=1)

    def at(n: int, value: float) -> tuple[float, float]:
        x = left + (width - left - 30) * n / max(1, count - 1)
        return x, height - bottom - (height - top - bottom) * value / (1.1 * highest)

    draw.line([at(0, 0), at(count - 1, 0)], fill="black")
    draw.line([at(0, 0), at(0, 1.1 * highest)], fill="black")
    for value in (0, highest / 2, highest):
        draw.text((8, at(0, value)[1] - 6), f"{value:.4g} {unit}", fill="black")
    for n in sorted({0, count - 1, *prompted}):
        draw.text((at(n, 0)[0] - 4, height - bottom + 8), str(n), fill="black")
    for k, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[k % len(_COLOURS)]
        points = [at(n, value) for n, value in enumerate(curve)]
        draw.line(points, fill=colour, width=2)
        for n in prompted:
            x, y = points[n]
            draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=colour)
        text = f"{name}: flicker {rows[name]['flicker']:.2%}"
        draw.text((left + 10, 8 + 14 * k), text.encode("latin-1", "replace").decode("latin-1"), fill=colour)
    draw.text((width // 2 - 60, height - 22), "frame (dots: prompted)", fill="black")
    picture.save(path)


def _require_followable(options: argparse.Namespace) -> None:
    """Make sure that the options go together with all frames.

    Raises:
        InputError, OutputError: they do not.
    """
    if options.uncertainty is not None:
        raise InputError("--uncertainty is for one frame; choose it with --frame N")
    if options.from_report is not None:
        raise InputError("--frame all and --from-report do not go together; repeat one frame with --frame N")
    if options.output.name.lower().endswith(".dcm"):
        raise OutputError("--frame all writes .seg.nrrd, .nii.gz or .nrrd, a file for each frame")


def _frame_path(output: Path, number: int, count: int) -> Path:
    """Return the file of a frame: ``heart.seg.nrrd`` becomes ``heart-007.seg.nrrd``."""
    stem, dot, ending = output.name.partition(".")
    return output.with_name(f"{stem}-{number:0{max(3, len(str(count - 1)))}d}{dot}{ending}")
