"""Classification in the scene: tables, charts, evidence to lay over the image, names accepted for segments."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from .. import __version__
from ..catalog.label_sets import Label
from ..codec import frozen
from ..errors import InputError
from ..imaging.geometry import Box, Geometry
from ..imaging.volume import Volume
from ..requests.classification_answer import LIMITS, MOST_SHOWN, RESEARCH_USE, Classification, EvidenceMap
from ..requests.uncertainty import UncertaintyMap
from ..session.segment_store import OverlapPolicy
from . import segment_tags
from .segments import SegmentWriter
from .terminology import Code, Colour, Term, find_term, generic_colour
from .volumes import add_volume_node, geometry_from_node, patient_item, share_parent_transform

REPORT = "FoundationSeg.Classification"  # the attribute with the answer, as JSON
VOLUME = "FoundationSeg.ClassifiedVolume"  # the reference to the image
_MAP = "FoundationSeg.Map"  # the attribute of a volume of values that were computed: it is no image of the patient
_IMAGE = "vtkMRMLScalarVolumeNode"
_MOST_CURVES = 8  # more lines than that cannot be told apart
_LABEL, _SCORE, _SLICE = "Label", "Score", "Slice"


@frozen
class ClassificationNodes:
    """The nodes of one answer.

    Attributes:
        table: one row for each label, by rank.
        bars: a plot chart of the scores, the highest at the left.
        curve_table, curves: one row for each slice, and a plot chart of the best labels over them; None for one slice.
        concept_table, concept_bars: similarities to concepts and a plot chart of them; None where none were asked for.
    """

    table: Any
    bars: Any
    curve_table: Any | None = None
    curves: Any | None = None
    concept_table: Any | None = None
    concept_bars: Any | None = None


def show_classification(scene: Any, answer: Classification, volume_node: Any | None = None) -> ClassificationNodes:
    """New nodes that show an answer, of many labels the best; they keep it whole, see :func:`read_report`.

    Args:
        scene: where they go.
        answer: a classifier's answer.
        volume_node: the image, which the tables then refer to.
    """
    subject = volume_node.GetName() if volume_node is not None else "image"
    name = f"{subject}: {answer.label_set}"
    table = _table(scene, f"{name} scores", answer, volume_node)
    _fill_scores(table, answer)
    bars = _chart(scene, f"{name} scores", _summary(answer), (_LABEL, _SCORE), has_range=True)
    _series(scene, bars, table, _SCORE, x=None, colour=generic_colour(0))
    nodes = {"table": table, "bars": bars}
    if len(answer.slices) > 1:
        nodes |= _show_curves(scene, name, answer, volume_node)
    if answer.concepts:
        nodes |= _show_concepts(scene, name, answer, volume_node)
    return ClassificationNodes(**nodes)


def read_report(node: Any) -> dict[str, Any] | None:
    """The answer that a node was made for, in the report's form; None for any other node."""
    text = node.GetAttribute(REPORT)
    return None if text is None else json.loads(text)


def comparable_images(volume_node: Any) -> list[Any]:
    """List the scene's other images of the same patient; where the hierarchy knows none, those without a patient."""
    patient, scene = patient_item(volume_node), volume_node.GetScene()
    nodes = [scene.GetNthNodeByClass(n, _IMAGE) for n in range(scene.GetNumberOfNodesByClass(_IMAGE))]
    return [
        node
        for node in nodes
        if node is not volume_node
        and not node.IsA("vtkMRMLLabelMapVolumeNode")
        and not (node.GetAttribute(_MAP) or node.GetAttribute(REPORT))  # the latter: a map of an earlier version
        and patient_item(node) == patient
    ]


def _table(scene: Any, name: str, answer: Classification, volume_node: Any | None) -> Any:
    table = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
    table.SetUseColumnTitleAsColumnHeader(True)
    table.SetDescription(answer.caution)
    report = {"software": {"FoundationSeg": __version__}, **answer.to_document()}
    table.SetAttribute(REPORT, json.dumps(report, ensure_ascii=False))
    if volume_node is not None:
        table.SetNodeReferenceID(VOLUME, volume_node.GetID())
    return table


def _fill_scores(table: Any, answer: Classification) -> None:
    ranked, checkpoint = answer.ranked[:MOST_SHOWN], answer.checkpoint
    _add_column(table, _LABEL, [score.name for score in ranked])
    for title, name in ((_SCORE, "score"), ("Spread", "spread"), ("Lowest", "low"), ("Highest", "high")):
        _add_column(table, title, [getattr(score, name) for score in ranked])
    _add_column(table, "Margin", [score.margin for score in ranked])
    _add_column(table, "Stands out", ["yes" if score.stands_out else "no" for score in ranked])
    # In every row, so that they are not lost where the table is copied or saved as text.
    for title, text in (
        ("Scoring", answer.rule),
        ("Aggregation", str(answer.aggregation)),
        ("Model", checkpoint.model_id),
        ("Revision", checkpoint.revision),
        ("Note", answer.caution),
    ):
        _add_column(table, title, [text] * len(ranked))


def _show_curves(scene: Any, name: str, answer: Classification, volume_node: Any | None) -> dict[str, Any]:
    table = _table(scene, f"{name} by slice", answer, volume_node)
    _add_column(table, _SLICE, [float(number) for number in answer.slices])
    for number, score in enumerate(answer.scores):
        _add_column(table, score.name, answer.curves[:, number].tolist())
    axes = (f"Slice across {answer.axis}", _SCORE)
    chart = _chart(scene, f"{name} by slice", _summary(answer), axes, has_range=True)
    for number, score in enumerate(answer.ranked[:_MOST_CURVES]):
        _series(scene, chart, table, score.name, x=_SLICE, colour=generic_colour(number))
    return {"curve_table": table, "curves": chart}


def _show_concepts(scene: Any, name: str, answer: Classification, volume_node: Any | None) -> dict[str, Any]:
    ordered = sorted(answer.concepts, key=lambda concept: -concept.similarity)
    table = _table(scene, f"{name} concepts", answer, volume_node)
    _add_column(table, "Concept", [f"{concept.label}: {concept.concept}" for concept in ordered])
    _add_column(table, "Similarity", [concept.similarity for concept in ordered])
    title = f"Concepts, without training. {RESEARCH_USE}"
    chart = _chart(scene, f"{name} concepts", title, ("Concept", "Similarity"))
    _series(scene, chart, table, "Similarity", x=None, colour=generic_colour(1), labels="Concept")
    return {"concept_table": table, "concept_bars": chart}


def _summary(answer: Classification) -> str:
    how = "" if answer.is_calibrated else " (not calibrated)"
    return f"{answer.verdict_text}{how}. {answer.caution}"


def _chart(scene: Any, name: str, title: str, axes: tuple[str, str], has_range: bool = False) -> Any:
    """A new plot chart; with a range, its values run from 0 to 1."""
    chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", name)
    chart.SetTitle(title)
    chart.SetTitleFontSize(10)
    chart.SetXAxisTitle(axes[0])
    chart.SetYAxisTitle(axes[1])
    chart.SetDescription(RESEARCH_USE)
    if has_range:
        chart.SetYAxisRangeAuto(False)
        chart.SetYAxisRange(0.0, 1.0)
    return chart


def _series(
    scene: Any, chart: Any, table: Any, y: str, *, x: str | None, colour: Sequence[float], labels: str = _LABEL
) -> None:
    """Add a column of a table to a chart: as a line over the column ``x``, or as bars with labels."""
    series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", y)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetYColumnName(y)
    if x is None:
        series.SetLabelColumnName(labels)
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeBar)
    else:
        series.SetXColumnName(x)
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)  # a line by a column of its own
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
    series.SetColor(*colour)
    chart.AddAndObservePlotSeriesNodeID(series.GetID())


def _add_column(table: Any, title: str, values: Sequence[str] | Sequence[float]) -> None:
    column = vtk.vtkStringArray() if isinstance(next(iter(values), 0.0), str) else vtk.vtkDoubleArray()
    column.SetName(title)
    for value in values:
        column.InsertNextValue(value)
    table.AddColumn(column)


def show_evidence(scene: Any, evidence: EvidenceMap, answer: Classification, volume_node: Any) -> Any:
    """A new volume node with the evidence, voxel on voxel with the image, cut to the slices that have it.

    What is below the middle of all values is not shown.
    """
    box, painted = evidence.paint(geometry_from_node(volume_node))
    name = f"{volume_node.GetName()}: evidence for {evidence.label} ({evidence.method})"
    low, high = evidence.threshold(0.0), evidence.threshold(1.0)
    node = _show_values(scene, name, box, painted, (low, high if high > low else low + 1.0), volume_node)
    node.SetDescription(f"{RESEARCH_USE} {LIMITS}")
    node.SetAttribute(REPORT, json.dumps(answer.to_document(), ensure_ascii=False))
    return node


def show_uncertainty(scene: Any, uncertain: UncertaintyMap, name: str, volume_node: Any) -> Any:
    """A new volume node with a map of uncertainty, voxel on voxel with the image, cut to what some answer has.

    It is shown with its true range, 0 to 1 bit; where all answers agree, nothing is shown.
    """
    title = f"{volume_node.GetName()}: uncertainty of {name}"
    node = _show_values(scene, title, uncertain.box, uncertain.values_kji, (0.0, 1.0), volume_node)
    text = f"Entropy (bits) of the vote of {uncertain.answers} answers to jittered prompts: 0 where all agree."
    node.SetDescription(f"{text} {RESEARCH_USE}")
    return node


def _show_values(
    scene: Any, name: str, box: Box, values_kji: NDArray[np.float32], limits: tuple[float, float], volume_node: Any
) -> Any:
    """A new volume node with values in a box of an image; those at the lower limit are not shown."""
    geometry = geometry_from_node(volume_node)
    k, j, i = box.start_kji
    matrix = np.array(geometry.ijk_to_ras)
    matrix[:3, 3] = geometry.to_ras((i, j, k))
    node = add_volume_node(scene, Volume(values_kji, Geometry(matrix, box.shape_kji), name=name))
    node.SetAttribute(_MAP, "true")
    share_parent_transform(volume_node, node)
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeIron")
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(*limits)
    display.AutoThresholdOff()
    least = float(np.nextafter(np.float32(limits[0]), np.float32(np.inf)))
    display.SetThreshold(least, max(limits[1], limits[0] + 1.0))
    display.SetApplyThreshold(True)
    return node


def add_evidence_segment(
    segmentation_node: Any, evidence: EvidenceMap, answer: Classification, volume_node: Any, share: float = 0.5
) -> str:
    """Add a segment of where the evidence is above :meth:`~.EvidenceMap.threshold`; returns its id.

    Other segments keep their voxels, and the new one may overlap them.

    Raises:
        InputError, GeometryError: the segmentation cannot be written on the image's grid.
    """
    writer = SegmentWriter(segmentation_node, volume_node)
    segment_id = writer.add_segment(f"Evidence: {evidence.label}")
    box, mask = evidence.mask(writer.geometry, share)
    writer.write(segment_id, mask, box, policy=OverlapPolicy.ALLOW)
    request = {"label": evidence.label, "method": evidence.method, "share": share, "research_use": RESEARCH_USE}
    segment_tags.set_provenance(writer.segment(segment_id), provenance(answer, request))
    return segment_id


def provenance(answer: Classification, request: dict[str, Any]) -> dict[str, str]:
    """The provenance of a segment that a classifier had a part in, as :mod:`.segment_tags` keeps it."""
    return {
        **answer.checkpoint.provenance,
        "Prompts": json.dumps(request, ensure_ascii=False),
        "Intensity": json.dumps([dict(look) for look in answer.looks]),
        "Version": __version__,
    }


NAMED_BY = f"{segment_tags.PREFIX}NamedBy"
_CONTEXT = "Segmentation category and type - DICOM master list"
_CATEGORIES = {
    "structure": Code("123037004", "Anatomical Structure"),
    "tissue": Code("85756007", "Tissue"),
    "finding": Code("49755003", "Morphologically Altered Structure"),
}


@frozen
class SegmentIdentity:
    """The name of a segment, its terminology in Slicer's serialised form, its colour, and the tag of who named it."""

    name: str
    terminology: str
    colour: Colour
    named_by: str | None


def label_term(label: Label) -> Term | None:
    """The coded term of a label: Slicer's own for its name, else its code; None where it has neither."""
    term, code = find_term(label.name), label.code
    if term is not None or code is None or code.scheme != "SCT" or not label.category:
        return term
    return Term(_CONTEXT, _CATEGORIES[label.category], Code(code.value, code.meaning))


def accept_label(segment: Any, label: Label, answer: Classification) -> SegmentIdentity:
    """Give a `vtkSegment` the name of a label, and its terminology and colour where there is a code.

    A tag says which model proposed it. Returns what the segment was called before, for :func:`take_back`.

    Raises:
        InputError: the segment is locked, or the answer is not about this label.
    """
    if segment_tags.is_locked(segment):
        raise InputError(f"the segment '{segment.GetName()}' is locked: unlock it first")
    score = next((score for score in answer.scores if score.name == label.name), None)
    if score is None:
        raise InputError(f"the classifier was not asked about {label.name!r}")
    before = identity(segment)
    segment.SetName(label.name)
    segment.SetNameAutoGenerated(False)
    term = label_term(label)
    if term is not None:
        segment.SetTerminology(term.serialized)
        if term.colour is not None:
            segment.SetColor(*term.colour)
            segment.SetColorAutoGenerated(False)
    named_by = {
        "model": answer.checkpoint.to_document(),
        "label_set": answer.label_set,
        "label": label.name,
        "score": round(score.score, 6),
        "research_use": RESEARCH_USE,
    }
    segment_tags.write_tag(segment, NAMED_BY, json.dumps(named_by, ensure_ascii=False))
    return before


def identity(segment: Any) -> SegmentIdentity:
    """The name, term and colour of a `vtkSegment` now."""
    red, green, blue = segment.GetColor()
    named_by = segment_tags.read_tag(segment, NAMED_BY)
    return SegmentIdentity(segment.GetName(), segment.GetTerminology() or "", (red, green, blue), named_by)


def take_back(segment: Any, before: SegmentIdentity) -> None:
    """Call a segment again what it was called before :func:`accept_label`."""
    segment.SetName(before.name)
    segment.SetTerminology(before.terminology)
    segment.SetColor(*before.colour)
    if before.named_by is None:
        segment.RemoveTag(NAMED_BY)
    else:
        segment_tags.write_tag(segment, NAMED_BY, before.named_by)
