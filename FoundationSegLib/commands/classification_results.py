"""What `classify` writes and prints: lines, a report, rows of a table, evidence."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..imaging.volume import Volume
from ..io.output_files import output_format
from ..requests.classification_answer import NONE_OF_THESE, RESEARCH_USE, Classification
from .interrupts import interrupts_wait
from .report import software_versions
from .terminal import one_line

COLUMNS = (
    *("image", "label", "score", "spread", "lowest", "highest", "margin", "stands_out", "scoring", "aggregation"),
    *("slices", "model", "revision", "sha256", "error", "note"),
)


def answer_lines(answer: Classification) -> list[str]:
    """What is printed: the verdict, the labels by rank, and what all of it is for."""
    width = max(len(one_line(one.name)) for one in answer.scores)
    lines = [
        f"{one_line(one.name).ljust(width)}  {one.score:6.3f}  wording {one.low:.3f} to {one.high:.3f}"
        for one in answer.ranked
    ]
    count = "one slice" if len(answer.slices) == 1 else f"{answer.aggregation} of {len(answer.slices)} slices"
    verdict = ", ".join(map(one_line, answer.verdict)) or NONE_OF_THESE
    return [f"{verdict} ({answer.rule}, {count}, {answer.checkpoint.model_id})", *lines, RESEARCH_USE]


def classify_report(
    answer: Classification, notes: Sequence[str], timings_s: Mapping[str, float], subject: Mapping[str, Any]
) -> dict[str, Any]:
    """The report of ``classify``.

    Args:
        answer: the classifier's.
        notes: what was done to the image, in addition to what the answer notes.
        timings_s: seconds of the command's own stages: ``start``, ``total``.
        subject: what was classified.
    """
    document = answer.to_document()
    stages = {name: round(value, 3) for name, value in timings_s.items()}
    document |= {"notes": [*notes, *document["notes"]], "timings_s": {**document["timings_s"], **stages}}
    return {"version": 1, "command": "classify", "subject": dict(subject), **document, "software": software_versions()}


def rows_of(image: str, answer: Classification) -> list[dict[str, object]]:
    """The rows of a table for an image: one for each label, by rank."""
    checkpoint = answer.checkpoint
    shared = {
        "image": image,
        "scoring": answer.rule,
        "aggregation": str(answer.aggregation),
        "slices": len(answer.slices),
        "model": checkpoint.model_id,
        "revision": checkpoint.revision,
        "sha256": checkpoint.sha256,
        "note": RESEARCH_USE,
    }
    return [
        shared
        | {
            "label": one.name,
            "score": f"{one.score:.6f}",
            "spread": f"{one.spread:.6f}",
            "lowest": f"{one.low:.6f}",
            "highest": f"{one.high:.6f}",
            "margin": f"{one.margin:.6f}",
            "stands_out": int(one.stands_out),
        }
        for one in answer.ranked
    ]


def failure_rows(image: str, model_id: str, why: str) -> list[dict[str, object]]:
    """The row of an image that could not be classified."""
    return [{"image": image, "model": model_id, "error": one_line(why), "note": RESEARCH_USE}]


def csv_text(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows as a table of comma-separated values (RFC 4180), with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def evidence_writer(path: Path, volume: Volume, answer: Classification) -> Callable[[Path], None]:
    """Who writes the evidence: as a segment to a .seg.nrrd, as values on the image's grid to a .nrrd or .nii.gz.

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
