"""The result of `segment`: a segmentation node in a scene of its own, and from there files."""

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..codec import to_document
from ..errors import OutputError
from ..imaging.volume import Volume
from ..io.dicom_segmentation import TISSUE, Coded, DicomSegment, write_dicom_segmentation
from ..io.output_files import output_format
from ..io.writing import write_label_map
from ..mrml import segment_tags
from ..mrml.files import write_segmentation
from ..mrml.rendering.overview import render_overview
from ..mrml.scene import HeadlessScene, boot_scene
from ..mrml.segments import SegmentWriter
from ..mrml.volumes import add_volume_node
from ..prompts.kinds import PromptSet
from ..prompts.prompts_file import prompts_to_document
from ..requests.segmentation import Prediction, SegmentPrediction
from ..session.segment_store import OverlapPolicy
from .segment_report import ResultOptions


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """A segmentation in a scene of its own.

    Attributes:
        headless: the scene; it must live as long as its nodes are used.
        volume_node, segmentation_node: the image and the result.
        segment_writer: reads and writes the segments.
        segments: name, voxels, volume in ml and score of each segment, for the report.
        low, high: the intensities that the model saw as black and white.
        in_pixels, sides: of the image (:class:`.volume.Volume`).
    """

    headless: HeadlessScene
    volume_node: Any
    segmentation_node: Any
    segment_writer: SegmentWriter
    segments: list[dict[str, object]]
    low: float
    high: float
    in_pixels: bool
    sides: tuple[str, str] | None
    volume_key: str

    def writer(self, path: Path, slices: Sequence[Path] = ()) -> Callable[[Path], None]:
        """Return the function that writes the segments in the format of that path's ending, to the path it is given.

        Args:
            path: the path.
            slices: for a .dcm, the DICOM files that the segments lie on, in the order of k.

        Raises:
            OutputError: the format is a label map, and segments overlap.
        """
        kind = output_format(path)
        if kind == "seg.nrrd":
            return lambda target: write_segmentation(self.segmentation_node, target)
        if kind == "dcm":
            segments = [self._dicom_segment(segment_id) for segment_id in self.segment_writer.segment_ids]
            return lambda target: write_dicom_segmentation(target, slices, segments)
        labels = self._labels()
        return lambda target: write_label_map(target, labels, self.segment_writer.geometry)

    def render(self, path: Path, size: tuple[int, int]) -> None:
        """Draw the overview."""
        options = {"low": self.low, "high": self.high, "in_pixels": self.in_pixels, "sides": self.sides}
        render_overview(self.volume_node, self.segmentation_node, path, size=size, **options)

    def _dicom_segment(self, segment_id: str) -> DicomSegment:
        segment, mask = self.segment_writer.segment(segment_id), self.segment_writer.read(segment_id)
        _, category, kind, modifier, *_ = [*segment.GetTerminology().split("~"), "", "", "", ""]
        name = segment_tags.read_tag(segment, segment_tags.ALGORITHM_NAME) or "FoundationSeg"
        is_automatic = segment_tags.read_tag(segment, segment_tags.ALGORITHM_TYPE) == "AUTOMATIC"
        tracking_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.volume_key}/{segment.GetName()}"))
        codes = (_coded(category) or TISSUE, _coded(kind) or TISSUE, _coded(modifier))
        algorithm = (is_automatic, name, __version__)
        return DicomSegment(segment.GetName(), mask, segment.GetColor(), *codes, *algorithm, tracking_id)

    def _labels(self) -> np.ndarray:
        """Number every voxel by its segment, from 1; (K, J, I)."""
        shape = self.segment_writer.geometry.shape_kji
        labels = np.zeros(shape, np.uint16)
        for number, segment_id in enumerate(self.segment_writer.segment_ids, start=1):
            mask = self.segment_writer.read(segment_id)
            shared = np.unique(labels[mask & (labels > 0)])
            if shared.size:
                first, second = (self.segments[n - 1]["name"] for n in (int(shared[0]), number))
                remedy = "write a .seg.nrrd, or use --overlap protect"
                raise OutputError(f"{first!r} and {second!r} overlap, which a label map cannot hold: {remedy}")
            labels[mask] = number
        return labels


def build_segmentation(
    volume: Volume, prompts: PromptSet, prediction: Prediction, options: ResultOptions
) -> SegmentResult:
    """Make a scene with the image and the segments of a prediction, in the order of the prompts.

    Args:
        volume: the image.
        prompts: the prompts as they were given, for the segments' provenance.
        prediction: the engine's answer to ``prompts``.
        options: what else determines the voxels; of overlap ``"protect"``, no segment takes one of an earlier.
    """
    headless = boot_scene()
    volume_node = add_volume_node(headless.scene, volume)
    node = headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
    node.CreateDefaultDisplayNodes()
    writer = SegmentWriter(node, volume_node)
    rows = []
    for segment, predicted in zip(prompts.segments, prediction.segments, strict=True):
        segment_id = writer.add_segment(segment.name)
        writer.write(segment_id, predicted.mask, policy=OverlapPolicy(options.overlap))
        document = prompts_to_document(PromptSet((segment,), prompts.space))
        segment_tags.set_provenance(writer.segment(segment_id), _provenance(prediction, options, document))
        rows.append(_row(segment.name, writer, segment_id, predicted, volume))
    low, high = (float(prediction.intensity[name]) for name in ("low", "high"))
    return SegmentResult(
        headless, volume_node, node, writer, rows, low, high, volume.in_pixels, volume.sides, volume.key
    )


def _provenance(prediction: Prediction, options: ResultOptions, prompts: dict[str, Any]) -> dict[str, str]:
    base = prediction.checkpoint.base_document()
    computed = {"device": prediction.device, "precision": prediction.precision, **base}
    return {
        **prediction.checkpoint.provenance,
        "Prompts": json.dumps(prompts, ensure_ascii=False),
        "Intensity": json.dumps(dict(prediction.intensity)),
        "Options": json.dumps(computed | to_document(replace(options, left_out=None)), ensure_ascii=False),
        "Version": __version__,
    }


def _row(
    name: str, writer: SegmentWriter, segment_id: str, predicted: SegmentPrediction, volume: Volume
) -> dict[str, object]:
    voxels = int(np.count_nonzero(writer.read(segment_id)))
    return {
        "name": name,
        "voxels": voxels,
        "volume_ml": None if volume.voxel_ml is None else round(voxels * volume.voxel_ml, 4),
        "score": None if predicted.score is None else round(predicted.score, 4),
    }


def _coded(text: str) -> Coded | None:
    """Parse a code as Slicer serializes it, scheme, value and meaning; None where it is empty."""
    scheme, value, meaning = [*text.split("^"), "", "", ""][:3]
    return Coded(scheme, value, meaning) if value else None
