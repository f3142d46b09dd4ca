"""`report`: a case (a report or a segmentation, and its image) or a scene in; a page to look at, print and send out."""

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import InputError, OutputError, counted
from ..folders import image_name
from ..imaging.volume import Volume
from .arguments import mask_on, path_argument, read_image
from .outputs import interrupts_wait, require_targets, say, text_writers, write_together
from .segment_report import report_document

if TYPE_CHECKING:
    from ..mrml.rendering.report import ReportCase

_SCENES = (".mrb", ".mrml")
_RESULTS = (".seg.nrrd", ".nii.gz", ".nrrd", ".dcm")  # beside a report, by its name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("case", metavar="CASE", type=path_argument, help="a report (.json), a segmentation, or a scene (.mrb, .mrml)")
    add("--image", metavar="IMAGE", type=path_argument, help="the image; a scene has its own")
    add("--segmentation", metavar="FILE", type=path_argument, help="the segments, if not beside the report")
    add("--output", metavar="FILE", type=path_argument, required=True, help="the page (.html)")
    add("--with-patient", action="store_true", help="name the patient, where the image or the scene does")
    add("--series", metavar="UID", help="which series of a DICOM folder")
    add("--frame", metavar="N", type=int, help="which frame of a 4-D image, from 0")
    add("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Read the case, draw it, and write the page."""
    if options.output.suffix.lower() != ".html":
        raise OutputError(f"{options.output.name}: the name of a page must end in .html")
    is_scene = options.case.suffix.lower() in _SCENES
    if is_scene and (options.image or options.segmentation):
        raise InputError("a scene has its own images and segmentations; leave out --image and --segmentation")
    sources = {"the case": options.case, "the image": options.image, "the segmentation": options.segmentation}
    require_targets({"output": options.output}, sources)
    with interrupts_wait():
        from ..mrml.rendering.report import report_page
    with (_scene_cases if is_scene else _file_case)(options) as cases:
        page = report_page(cases, options.catalogue(), __version__)
    write_together(text_writers([(options.output, page)]))
    say(f"{options.output.name}: {counted(len(cases), 'case')}")


@contextlib.contextmanager
def _scene_cases(options: argparse.Namespace) -> "Iterator[Sequence[ReportCase]]":
    from ..mrml.rendering.report import scene_cases
    from ..mrml.scene import read_scene

    with read_scene(options.case):  # which is Slicer's scene from now on
        yield scene_cases(None, with_patient=options.with_patient)


@contextlib.contextmanager
def _file_case(options: argparse.Namespace) -> "Iterator[Sequence[ReportCase]]":
    """Bring a case of files into a scene of its own, which lives as long as the block."""
    from ..mrml.rendering.report import ReportCase, patient_of
    from ..mrml.scene import boot_scene
    from ..mrml.volumes import add_volume_node

    document = _read_document(options.case) if options.case.suffix.lower() == ".json" else {}
    name, headless, is_scored = image_name(options.case), boot_scene(), "labels" in document
    if options.image is None and not is_scored:
        raise InputError("say which image the segments were drawn on: --image IMAGE")
    if options.image is None:
        yield [ReportCase(name, document=document)]
        return
    if options.frame is None:
        options.frame = document.get("frame")
    volume = read_image(options.image, options)
    if document.get("image", volume.key) != volume.key:
        raise InputError(f"{options.image.name} is not the image of {options.case.name}: its voxels are others")
    volume_node = add_volume_node(headless.scene, volume, name)
    node = None
    if not is_scored:
        path = options.segmentation or (_segments_beside(options.case) if document else options.case)
        node = _segmentation_node(headless.scene, volume_node, volume, path, document)
    patient = patient_of(_patient_tags(options)) if options.with_patient else {}
    yield [ReportCase(name, volume_node, node, document, patient, volume)]


def _read_document(path: Path) -> dict[str, Any]:
    """Read the report of a command.

    Raises:
        InputError: it cannot be read, or is none of `segment` or `classify` for one image.
    """
    document = report_document(path)
    is_report = isinstance(document, dict) and isinstance(document.get("model"), dict)
    if not is_report or document.get("version") != 1 or not ("labels" in document or "segments" in document):
        raise InputError(f"{path.name} is no report of 'segment' or 'classify' on one image")
    return dict(document)


def _segments_beside(report: Path) -> Path:
    """Find the segments of a report by its name, as `batch` gives it.

    Raises:
        InputError: there is no such file.
    """
    paths = [report.with_name(report.stem + ending) for ending in _RESULTS]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise InputError(f"there are no segments beside {report.name}; say where they are: --segmentation FILE")
    return path


def _segmentation_node(scene: Any, volume_node: Any, volume: Volume, path: Path, document: Mapping[str, Any]) -> Any:
    """Read the segments of a file on the image: with all that a .seg.nrrd keeps, from others names and voxels."""
    from ..io.segmentations import open_segments
    from ..mrml.files import SUFFIX, read_segmentation
    from ..mrml.segments import SegmentWriter
    from ..session.segment_store import OverlapPolicy

    if path.name.lower().endswith(SUFFIX):
        node = read_segmentation(scene, path)
        SegmentWriter(node, volume_node)  # refuses what was drawn on another grid
        return node
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
    node.CreateDefaultDisplayNodes()
    writer = SegmentWriter(node, volume_node)
    rows = document.get("segments", ())
    file = open_segments(path)
    for name in file.names():
        is_number = name.isdecimal() and 0 < int(name) <= len(rows)  # a label map numbers what the report names
        segment_id = writer.add_segment(rows[int(name) - 1]["name"] if is_number else name)
        writer.write(segment_id, mask_on(volume.geometry, file, name), policy=OverlapPolicy.ALLOW)
    return node


def _patient_tags(options: argparse.Namespace) -> dict[str, str]:
    from ..io.dicom import choose_series, find_series, patient_tags

    path = options.image
    if path.is_dir():
        path = choose_series(find_series(path), options.series).slices[0].path
    return patient_tags(path)
