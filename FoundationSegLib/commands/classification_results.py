"""Results of `classify`: lines, a report, rows of a table, evidence."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..imaging.volume import Volume
from ..io.output_files import output_format
from ..requests.classification_answer import NONE_OF_THESE, RESEARCH_USE, Classification
from .outputs import software_versions
from .terminal import interrupts_wait, one_line

COLUMNS = (
    *("image", "label", "score", "spread", "lowest", "highest", "margin", "stands_out", "scoring", "aggregation"),
    *("slices", "model", "revision", "sha256", "error", "note"),
)


def answer_lines(answer: Classification) -> list[str]:
    """Return the printed lines: the verdict, the labels by rank, and the line on research use."""
    width = max(len(one_line(label.name)) for label in answer.scores)
    lines = [
        f"{one_line(label.name).ljust(width)}  {label.score:6.3f}  wording {label.low:.3f} to {label.high:.3f}"
        for label in answer.ranked
    ]
    count = "one slice" if len(answer.slices) == 1 else f"{answer.aggregation} of {len(answer.slices)} slices"
    verdict = ", ".join(map(one_line, answer.verdict)) or NONE_OF_THESE
    return [f"{verdict} ({answer.rule}, {count}, {answer.checkpoint.model_id})", *lines, RESEARCH_USE]


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


def rows_of(image: str, answer: Classification) -> list[dict[str, object]]:
    """Return the rows of a table for an image: one for each label, by rank."""
    how = {"scoring": answer.rule, "aggregation": str(answer.aggregation), "slices": len(answer.slices)}
    checkpoint = answer.checkpoint
    origin = {"model": checkpoint.model_id, "revision": checkpoint.revision, "sha256": checkpoint.sha256}
    shared = {"image": image, **how, **origin, "note": RESEARCH_USE}
    numbers = {"score": "score", "spread": "spread", "lowest": "low", "highest": "high", "margin": "margin"}
    return [
        {column: f"{getattr(label, name):.6f}" for column, name in numbers.items()}
        | {"label": label.name, "stands_out": int(label.stands_out), **shared}
        for label in answer.ranked
    ]


def failure_rows(image: str, model_id: str, reason: str) -> list[dict[str, object]]:
    """Return the row of an image that could not be classified."""
    return [{"image": image, "model": model_id, "error": one_line(reason), "note": RESEARCH_USE}]


def csv_text(rows: Iterable[Mapping[str, object]]) -> str:
    """Format rows as a table of comma-separated values (RFC 4180), with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def evidence_writer(path: Path, volume: Volume, answer: Classification) -> Callable[[Path], None]:
    """Return the writer of the evidence: a segment in a .seg.nrrd, values on the image's grid in a .nrrd or .nii.gz.

    Raises:
        InputError, GeometryError, OutputError: it cannot be put into that format.
    """
    (evidence,) = answer.evidence
    if output_format(path) == "seg.nrrd":
        return _segment_writer(volume, answer)
    from ..io.writing import write_values

    box, painted = evidence.paint(volume.geometry)
    values = np.full(volume.geometry.shape_kji, evidence.values.min(), np.float32)
    values[box.slices] = painted
    return lambda target: write_values(target, values, volume.geometry)


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
    render_overview(volume_node, node, path, size=size, in_pixels=volume.in_pixels)
