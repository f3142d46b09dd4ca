"""`classify`: an image, or a folder of images, and labels in; ranked scores, a report, evidence and a table out."""

import argparse
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

from ..catalog.catalogue import require_adapter
from ..catalog.label_sets import (
    Label,
    LabelSet,
    find_label_set,
    import_label_set,
    label_set_of,
    read_label_sets,
    user_label_set_folder,
)
from ..catalog.model_cards import ModelCard, find_card
from ..errors import FoundationSegError, GeometryError, InputError, counted
from ..folders import output_format
from ..hub.store import default_store_folder
from ..imaging.geometry import AXES
from ..imaging.intensity import check_intensity_views
from ..imaging.masks import PackedMask
from ..imaging.volume import Volume
from ..prompts.capabilities import require_task
from ..requests.classification import (
    ClassifyRequest,
    EvidenceMethod,
    EvidenceWish,
    SegmentView,
    Subject,
    require_labels,
    slices_of,
)
from ..requests.classification_answer import MOST_SHOWN, Classification, csv_text, failure_rows, rows_of
from ..requests.heads import read_head
from ..requests.maintenance import WorkerSettings
from ..requests.scoring import RuleChoice, Scoring, parse_aggregation
from ..worker.client import Client, ask
from .arguments import (
    OVERVIEW_PX,
    add_model_arguments,
    box_of,
    box_ranges,
    path_argument,
    read_image,
    read_mask,
    slices_argument,
)
from .models import require_checkpoint
from .outputs import (
    FileWriter,
    ProgressLine,
    interrupts_wait,
    map_writer,
    one_line,
    print_result,
    publish,
    report_text,
    require_targets,
    say,
    software_versions,
    source_slices,
    text_writers,
    write_together,
)

# Endings of files beside images, the command's own results first of all.
_NO_IMAGES = {".csv", ".json", ".txt", ".md", ".toml", ".pdf", ".xlsx", ".py", ".zip"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("volume", metavar="VOLUME", type=path_argument, help="an image file, or a folder")
    add("--model", metavar="ID", required=True, help="a model of 'foundationseg models list' to classify with")
    labels = parser.add_mutually_exclusive_group(required=True)
    labels.add_argument("--label-set", metavar="ID", help="labels that come along, or a set of your own")
    labels.add_argument("--head", metavar="NAME", help="labels that were learned: see 'foundationseg heads list'")
    labels.add_argument("--label", metavar="TEXT", action="append", help="a label in your words; once for each")
    add("--findings", action="store_true", help="several of your labels may hold; each by itself")
    add("--slices", metavar="RANGE", type=slices_argument, default=(None, None), help="all, N, or START:STOP")
    add("--axis", choices=AXES, default="k", help="the axis that slices lie across (k)")
    add("--segment", metavar="FILE", type=path_argument, help="classify a segment of this file")
    add("--segment-name", metavar="NAME", help="its name, or the number of a label map")
    add("--segment-view", choices=get_args(SegmentView), default="crop", help="with what is around it")
    add("--region", metavar="I,J,K", type=box_ranges, help="classify these voxels, each START:STOP")
    add("--each", action="store_true", help="VOLUME is a folder: classify every image in it")
    add("--scoring", choices=get_args(RuleChoice), default="auto", help="how labels are scored")
    add("--temperature", metavar="T", type=float, default=1.0, help="above 1: more even scores (1)")
    add("--margin", metavar="M", type=float, default=0.1, help="what a label has to lead by (0.1)")
    add("--aggregation", metavar="RULE", default="mean", help="of slices: mean, max or top-K (mean)")
    add("--any-domain", action="store_true", help="score an image of a kind that the model was not trained on, too")
    add("--evidence", metavar="OUT", type=path_argument, help="where: .seg.nrrd, or values in .nrrd or .dcm")
    add("--evidence-label", metavar="NAME", default="", help="for which label (the highest)")
    add("--evidence-method", choices=get_args(EvidenceMethod), default="similarity")
    add("--evidence-slices", metavar="N", type=int, default=8, help="on how many slices (8); 0: all")
    add("--report", metavar="FILE", type=path_argument, help="write what was found, as JSON")
    add("--csv", metavar="FILE", type=path_argument, help="write a table, one row for each label")
    add("--overview", metavar="FILE", type=path_argument, help="write a picture of the image (.png)")
    add("--json", action="store_true", help="print the report instead of the scores")
    add_model_arguments(parser, "a policy's name, width,centre, ct-windows or ct-channels")
    parser.set_defaults(run=run, overview_px=OVERVIEW_PX)


def run(options: argparse.Namespace) -> None:
    """Classify, then write; of one image nothing is written unless everything went well."""
    card = find_card(options.catalogue(), options.model)
    request = _check(options, card)
    settings = WorkerSettings(options.device, default_store_folder(), encode_ahead=False)
    with contextlib.closing(options.connect(settings)) as client:
        client.prepare(card.id)  # the model is loaded while the image is read
        classify = _classify_folder if options.each else _classify_image
        classify(options, card, request, client)


def _check(options: argparse.Namespace, card: ModelCard) -> ClassifyRequest:
    """Find what is wrong without the image before it is read; return the request, but for the image and the segment."""
    head = read_head(options.head) if isinstance(options.head, str) else options.head  # of a cohort it is there already
    if head is None or head.checkpoint.model_id != card.id:
        require_task(card, "classify")
    require_adapter(card)
    check_intensity_views(options.intensity)
    labels = _labels(options) if head is None else head.label_set()
    if head is not None and options.intensity == "auto":
        options.intensity = head.intensity
    subject = _subject(options)
    evidence = None
    if options.evidence:
        if output_format(options.evidence) == "dcm":
            from ..io.dicom_segmentation import import_highdicom

            import_highdicom()
        evidence = EvidenceWish(options.evidence_label, options.evidence_method, options.evidence_slices)
        if evidence.label:
            labels.label(evidence.label)
    elif options.evidence_label:
        raise InputError("--evidence-label is for --evidence OUT, which says where the evidence goes")
    if options.each:
        _check_folder(options)
    targets = {name: getattr(options, name) for name in ("evidence", "report", "csv", "overview")}
    require_targets(targets, {"the image": options.volume, "the segmentation": options.segment})
    scoring = Scoring(options.scoring, options.temperature, options.margin)
    aggregation = parse_aggregation(options.aggregation)
    policy, anything = options.intensity, options.any_domain
    request = ClassifyRequest(1, card.id, "", labels, subject, policy, scoring, aggregation, evidence, head, anything)
    require_labels(card, request)
    return request


def _labels(options: argparse.Namespace) -> LabelSet:
    if options.label_set is None:
        return label_set_of(options.label, "findings" if options.findings else "exclusive")
    if options.findings:
        raise InputError("--findings is for labels of your own; a label set says by itself whether several may hold")
    return find_label_set(read_label_sets(), options.label_set)


def _subject(options: argparse.Namespace) -> Subject:
    if (options.segment is None) != (options.segment_name is None):
        raise InputError("--segment and --segment-name go together: the file, and which of its segments")
    if options.segment is not None and options.region is not None:
        raise InputError("either a region or a segment is classified, not both")
    if options.segment is None and options.segment_view != "crop":
        raise InputError("--segment-view is for --segment, which says what is looked at")
    return Subject(options.axis, *options.slices, view=options.segment_view)


def _check_folder(options: argparse.Namespace) -> None:
    if not options.volume.is_dir():
        raise InputError(f"{options.volume.name} is not a folder, which --each classifies the images of")
    for name in ("evidence", "segment", "region", "series", "overview"):
        if getattr(options, name) is not None:
            raise InputError(f"--{name} is for one image, not for each image of a folder")
    if not (options.csv or options.report or options.json):
        raise InputError("--each needs a place for the results: --csv FILE, --report FILE or --json")


def _ask(
    options: argparse.Namespace,
    card: ModelCard,
    request: ClassifyRequest,
    volume: Volume,
    client: Client,
    segment: PackedMask | None = None,
) -> Classification:
    box = None if options.region is None else box_of(options.region, volume.geometry)
    subject = replace(request.subject, box=box, segment=segment)
    request = replace(request, volume_key=volume.key, subject=subject)
    slices_of(subject, volume.geometry)  # what cannot be classified needs no download
    from ..engine.classification import domain_of

    domain_of(request, card, volume)
    require_checkpoint(card, options)
    try:
        with ProgressLine() as line:
            client.send_volume(volume)
            return ask(client, request, line.show)
    finally:
        client.remove_volume(volume.key)


def _classify_image(options: argparse.Namespace, card: ModelCard, request: ClassifyRequest, client: Client) -> None:
    begin = time.perf_counter()
    volume = read_image(options.volume, options)
    slices = source_slices(options, (options.evidence,), volume.geometry)
    segment = read_mask(options.segment, options.segment_name, volume.geometry) if options.segment else None
    start_s = time.perf_counter() - begin
    answer = _ask(options, card, request, volume, client, segment)
    timings_s = {"start": start_s, "total": time.perf_counter() - begin}
    report = classify_report(answer, volume.notes, timings_s, subject=_subject_document(options, volume))
    writers = [evidence_writer(options.evidence, volume, answer, slices)] if options.evidence else []
    if options.overview:
        writers.append((options.overview, lambda path: write_picture(path, volume, options.overview_px)))
    table = csv_text(rows_of(options.volume.name, answer))
    writers += text_writers([(options.csv, table)])
    publish(report, answer_lines(answer), (*volume.notes, *answer.notes), writers, options)


def _subject_document(options: argparse.Namespace, volume: Volume) -> dict[str, object]:
    """Describe what was classified for the report: names of files, no folders."""
    document: dict[str, object] = {"axis": options.axis}
    if options.region is not None:
        box = box_of(options.region, volume.geometry)
        document["region_ijk"] = [list(box.start_kji[::-1]), list(box.stop_kji[::-1])]
    if options.segment is not None:
        document |= {"segment": options.segment_name, "file": options.segment.name, "view": options.segment_view}
    return document


def _classify_folder(options: argparse.Namespace, card: ModelCard, request: ClassifyRequest, client: Client) -> None:
    paths = images_in(options.volume)
    rows: list[dict[str, object]] = []
    reports: list[dict[str, object]] = []
    failures: list[FoundationSegError] = []
    for number, path in enumerate(paths, start=1):
        begin = time.perf_counter()
        try:
            volume = read_image(path, options)
            answer = _ask(options, card, request, volume, client)
        except (InputError, GeometryError) as error:  # of this image; the next one may do better
            failures.append(error)
            rows += failure_rows(path.name, card.id, one_line(str(error)))
            reports.append({"image": path.name, "error": str(error)})
            say(f"{path.name}: not classified: {error}")
            continue
        rows += rows_of(path.name, answer)
        timings_s = {"start": 0.0, "total": time.perf_counter() - begin}
        reports.append({"image": path.name, **classify_report(answer, volume.notes, timings_s, {"axis": options.axis})})
        say(f"{number}/{len(paths)} {path.name}: {one_line(answer.verdict_text)}")
    if len(failures) == len(paths):
        raise type(failures[0])(f"none of {counted(len(paths), 'image')} was classified")
    text = report_text({"version": 1, "command": "classify", "images": reports})
    write_together(text_writers([(options.csv, csv_text(rows)), (options.report, text)]))
    if options.json:
        print(text, end="")


def images_in(folder: Path) -> list[Path]:
    """List what may be an image in a folder, by name: each file, and each folder, which is one DICOM series.

    Raises:
        InputError: there is nothing.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"the folder {folder.name} cannot be read: {error.strerror}") from error
    images = [path for path in paths if path.is_dir() or path.suffix.lower() not in _NO_IMAGES]
    if not images:
        raise InputError(f"the folder {folder.name} holds no images")
    return images


def answer_lines(answer: Classification) -> list[str]:
    """Return the printed lines: the verdict, the labels by rank, and the line on research use."""
    ranked = answer.ranked[:MOST_SHOWN]
    width = max(len(one_line(label.name)) for label in ranked)
    lines = [
        f"{one_line(label.name).ljust(width)}  {label.score:6.3f}  wording {label.low:.3f} to {label.high:.3f}"
        for label in ranked
    ]
    if len(answer.scores) > MOST_SHOWN:
        lines.append(f"and {len(answer.scores) - MOST_SHOWN} labels more, which --csv, --report and --json have")
    several = f"{answer.aggregation} of {len(answer.slices)} slices" if answer.slices else "whole volume"
    count = "one slice" if len(answer.slices) == 1 else several
    verdict = one_line(answer.verdict_text)
    return [f"{verdict} ({answer.rule}, {count}, {answer.checkpoint.model_id})", *lines, answer.caution]


def classify_report(
    answer: Classification, notes: Sequence[str], timings_s: Mapping[str, float], subject: Mapping[str, Any]
) -> dict[str, Any]:
    """Compose the report of ``classify``.

    Args:
        answer: the classifier's.
        notes: what was done to the image; those of the answer follow.
        timings_s: seconds of the command's own stages: ``start``, ``total``.
        subject: the part of the image that was classified.
    """
    document = answer.to_document()
    stages = {name: round(value, 3) for name, value in timings_s.items()}
    document |= {"notes": [*notes, *document["notes"]], "timings_s": {**document["timings_s"], **stages}}
    return {"version": 1, "command": "classify", "subject": dict(subject), **document, "software": software_versions()}


def evidence_writer(path: Path, volume: Volume, answer: Classification, slices: Sequence[Path] = ()) -> FileWriter:
    """Return the writer of the evidence: a segment in a .seg.nrrd, values on the image's grid in other formats.

    Args:
        path: the file.
        volume, answer: the image, and what was found in it.
        slices: for a .dcm, which is a Parametric Map, the DICOM files of the image in the order of k.

    Raises:
        InputError, GeometryError, OutputError: it cannot be put into that format.
    """
    (evidence,) = answer.evidence
    if output_format(path) == "seg.nrrd":
        return path, _segment_writer(volume, answer)
    from ..io.dicom_measurements import evidence_quantity

    box, painted = evidence.paint(volume.geometry)
    quantity = evidence_quantity(evidence.label, evidence.method)
    return map_writer(path, volume, box, painted, quantity, slices, outside=float(evidence.values.min()))


def _segment_writer(volume: Volume, answer: Classification) -> Callable[[Path], None]:
    with interrupts_wait():
        from ..mrml.classification import add_evidence_segment
        from ..mrml.files import write_segmentation
        from ..mrml.scene import boot_scene
        from ..mrml.volumes import add_volume_node

    headless = boot_scene()
    volume_node = add_volume_node(headless.scene, volume)
    node = headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Evidence")
    node.CreateDefaultDisplayNodes()
    add_evidence_segment(node, answer.evidence[0], answer, volume_node)

    def write(target: Path) -> None:
        if headless.scene is not None:  # it has to live until the file is written
            write_segmentation(node, target)

    return write


def write_picture(path: Path, volume: Volume, size: tuple[int, int]) -> None:
    """Draw the image alone, as `segment --overview` draws it; ``size`` in pixels."""
    with interrupts_wait():
        from ..mrml.rendering.overview import render_overview
        from ..mrml.scene import boot_scene
        from ..mrml.volumes import add_volume_node

    headless = boot_scene()
    volume_node = add_volume_node(headless.scene, volume)
    node = headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
    node.CreateDefaultDisplayNodes()
    render_overview(volume_node, node, path, size=size, in_pixels=volume.in_pixels, sides=volume.sides)


def add_label_set_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `label-sets`."""
    parser.add_argument("id", metavar="ID", nargs="?", help="the set to show; all are listed without")
    help_text = "keep a table as the set ID of your own: CSV with a heading, a code and a name to a row"
    parser.add_argument("--import", dest="table", type=Path, metavar="CSV", help=help_text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=show_label_sets)


def show_label_sets(options: argparse.Namespace) -> None:
    """Print the sets, or one of them with every sentence that a model reads. A table is imported first."""
    if options.table is not None:
        if options.id is None:
            raise InputError("give the ID that the table goes by: label-sets ID --import CSV")
        say(f"written: {import_label_set(options.table, options.id)}")
    sets = read_label_sets()
    if options.id is not None:
        labels = find_label_set(sets, options.id)
        print_result(_set_document(labels), _set_lines(labels), as_json=options.json)
        return
    width = max(map(len, sets))
    documents = [{"id": s.id, "title": s.title, "kind": s.kind, "labels": s.names} for s in sets.values()]
    lines = [f"{s.id.ljust(width)}  {len(s.labels):4d} labels  {s.title}" for s in sets.values()]
    print_result(documents, lines, as_json=options.json)
    if not options.json:
        say(f"Sets of your own go into a folder called {user_label_set_folder().name} of your settings: see the README")


def _set_document(labels: LabelSet) -> dict[str, Any]:
    return asdict(labels) | {
        "labels": [
            asdict(label) | {"texts": labels.texts(label), "negative_texts": labels.negative_texts(label)}
            for label in labels.labels
        ]
    }


def _set_lines(labels: LabelSet) -> list[str]:
    kind = "at most one of these holds" if labels.kind == "exclusive" else "several may hold"
    head = [f"{labels.title} ({labels.id}): {kind}", f"Source: {labels.source}"]
    if labels.note:
        head.append(f"Note: {labels.note}")
    return [*head, *(line for label in labels.labels for line in _label_lines(labels, label))]


def _label_lines(labels: LabelSet, label: Label) -> list[str]:
    code = f" ({label.code.scheme} {label.code.value} {label.code.meaning})" if label.code else ""
    lines = ["", f"{label.name}{code}", *(f"  + {text}" for text in labels.texts(label))]
    lines += [f"  - {text}" for text in labels.negative_texts(label)]
    return lines + [f"  concept: {text}" for text in label.concepts]
