"""The result of `segment`: a segmentation node in a scene of its own, and from there files."""

import functools
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..codec import to_document
from ..errors import OutputError
from ..folders import output_format
from ..imaging.masks import pack_mask
from ..imaging.volume import Volume
from ..io.dicom_measurements import Measured, measurement_report
from ..io.dicom_segmentation import TISSUE, Coded, DicomSegment, dicom_segmentation, write_dicom
from ..io.segmentations import write_label_map
from ..mrml import segment_tags
from ..mrml.files import write_segmentation
from ..mrml.rendering.overview import render_overview
from ..mrml.scene import HeadlessScene, boot_scene
from ..mrml.segments import SegmentWriter
from ..mrml.terminology import codes_of
from ..mrml.volumes import add_volume_node
from ..prompts.kinds import PromptSet
from ..prompts.prompts_file import prompts_to_document
from ..requests.segmentation import Prediction, SegmentPrediction
from ..session.measures import longest_diameter
from ..session.segment_store import OverlapPolicy
from .outputs import FileWriter
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

    def writer(self, path: Path) -> Callable[[Path], None]:
        """Return the function that writes the segments in the format of that path's ending, to the path it is given.

        Raises:
            OutputError: the format is a label map, and segments overlap.
        """
        if output_format(path) == "seg.nrrd":
            return lambda target: write_segmentation(self.segmentation_node, target)
        labels = self._labels()
        return lambda target: write_label_map(target, labels, self.segment_writer.geometry, self.in_pixels)

    def dicom_writers(
        self, path: Path, slices: Sequence[Path], volume: Volume, measurements: Path | None
    ) -> list[FileWriter]:
        """Return the writers of a DICOM SEG and, where a path is given, of the measurements of its segments.

        Args:
            path: of the segmentation.
            slices: the DICOM files that the segments lie on, in the order of k.
            volume: the image that they make.
            measurements: of the report of measurements; None for none.
        """
        segments = [self._dicom_segment(segment_id) for segment_id in self.segment_writer.segment_ids]

        @functools.cache
        def segmentation() -> Any:
            return dicom_segmentation(slices, segments)

        writers: list[FileWriter] = [(path, lambda target: write_dicom(target, segmentation))]
        if measurements is not None:
            measured = [_measured(segment.mask, volume) for segment in segments if segment.mask.any()]

            def report() -> Any:
                return measurement_report(segmentation(), slices, segments, measured)

            writers.append((measurements, lambda target: write_dicom(target, report)))
        return writers

    def render(self, path: Path, size: tuple[int, int]) -> None:
        """Draw the overview."""
        options = {"low": self.low, "high": self.high, "in_pixels": self.in_pixels, "sides": self.sides}
        render_overview(self.volume_node, self.segmentation_node, path, size=size, **options)

    def _dicom_segment(self, segment_id: str) -> DicomSegment:
        segment, mask = self.segment_writer.segment(segment_id), self.segment_writer.read(segment_id)
        category, kind, modifier = map(_coded, codes_of(segment.GetTerminology()))
        name = segment_tags.read_tag(segment, segment_tags.ALGORITHM_NAME) or "FoundationSeg"
        is_automatic = segment_tags.read_tag(segment, segment_tags.ALGORITHM_TYPE) == "AUTOMATIC"
        tracking_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.volume_key}/{segment.GetName()}"))
        codes = (category or TISSUE, kind or TISSUE, modifier)
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
        origin = _provenance(prediction, options, document, predicted.score)
        segment_tags.set_provenance(writer.segment(segment_id), origin)
        rows.append(_row(segment.name, writer, segment_id, predicted, volume))
    low, high = (float(prediction.intensity[name]) for name in ("low", "high"))
    return SegmentResult(
        headless, volume_node, node, writer, rows, low, high, volume.in_pixels, volume.sides, volume.key
    )


def _provenance(
    prediction: Prediction, options: ResultOptions, prompts: dict[str, Any], score: float | None
) -> dict[str, str]:
    base = prediction.checkpoint.base_document()
    computed = {"device": prediction.device, "precision": prediction.precision, "score": _rounded(score), **base}
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
        "score": _rounded(predicted.score),
    }


def _measured(mask: NDArray[np.bool_], volume: Volume) -> Measured:
    geometry = volume.geometry
    volume_mm3 = None if volume.voxel_ml is None else np.count_nonzero(mask) * volume.voxel_ml * 1000
    diameter_mm, _ = longest_diameter(pack_mask(mask), geometry)
    return Measured(volume_mm3, diameter_mm, float(volume.array_kji[mask].mean(dtype=np.float64)))


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 4)


def _coded(code: tuple[str, str, str]) -> Coded | None:
    return Coded(*code) if code[1] else None
