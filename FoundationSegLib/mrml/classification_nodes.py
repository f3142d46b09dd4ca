"""The answers of classifiers in the scene: a table of scores, one of slices, and charts of both."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import slicer
import vtk

from .. import __version__
from ..core.classification import NONE_OF_THESE, RESEARCH_USE, Classification
from .terminology import generic_colour

REPORT = "FoundationSeg.Classification"  # the attribute with the answer, as JSON
VOLUME = "FoundationSeg.ClassifiedVolume"  # the reference to the image
_MOST_CURVES = 8  # more lines than that cannot be told apart
_LABEL, _SCORE, _SLICE = "Label", "Score", "Slice"


@dataclass(frozen=True, slots=True)
class ClassificationNodes:
    """What :func:`show_classification` made.

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
    """New nodes that show an answer; they keep it whole, see :func:`read_report`.

    Args:
        scene: where they go.
        answer: what a classifier said.
        volume_node: the image, which the tables then refer to.
    """
    subject = volume_node.GetName() if volume_node is not None else "image"
    name = f"{subject}: {answer.label_set}"
    table = _table(scene, f"{name} scores", answer, volume_node)
    _fill_scores(table, answer)
    bars = _chart(scene, f"{name} scores", _summary(answer), (_LABEL, "Score"))
    _series(scene, bars, table, _SCORE, x=None, colour=generic_colour(0))
    bars.SetYAxisRangeAuto(False)
    bars.SetYAxisRange(0.0, 1.0)
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


def _table(scene: Any, name: str, answer: Classification, volume_node: Any | None) -> Any:
    table = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
    table.SetUseColumnTitleAsColumnHeader(True)
    table.SetDescription(RESEARCH_USE)
    report = {"software": {"FoundationSeg": __version__}, **answer.to_document()}
    table.SetAttribute(REPORT, json.dumps(report, ensure_ascii=False))
    if volume_node is not None:
        table.SetNodeReferenceID(VOLUME, volume_node.GetID())
    return table


def _fill_scores(table: Any, answer: Classification) -> None:
    ranked, count = answer.ranked, len(answer.ranked)
    checkpoint = answer.checkpoint
    _add_texts(table, _LABEL, (one.name for one in ranked))
    for title, name in ((_SCORE, "score"), ("Spread", "spread"), ("Lowest", "low"), ("Highest", "high")):
        _add_numbers(table, title, [getattr(one, name) for one in ranked])
    _add_numbers(table, "Margin", [one.margin for one in ranked])
    _add_texts(table, "Stands out", ("yes" if one.stands_out else "no" for one in ranked))
    # In every row, so that they are not lost where the table is copied or saved as text.
    _add_texts(table, "Scoring", [answer.rule] * count)
    _add_texts(table, "Aggregation", [str(answer.aggregation)] * count)
    _add_texts(table, "Model", [checkpoint.model_id] * count)
    _add_texts(table, "Revision", [checkpoint.revision] * count)
    _add_texts(table, "Note", [RESEARCH_USE] * count)


def _show_curves(scene: Any, name: str, answer: Classification, volume_node: Any | None) -> dict[str, Any]:
    table = _table(scene, f"{name} by slice", answer, volume_node)
    _add_numbers(table, _SLICE, list(answer.slices))
    for number, one in enumerate(answer.scores):
        _add_numbers(table, one.name, answer.curves[:, number].tolist())
    chart = _chart(scene, f"{name} by slice", _summary(answer), (f"Slice across {answer.axis}", "Score"))
    for number, one in enumerate(answer.ranked[:_MOST_CURVES]):
        _series(scene, chart, table, one.name, x=_SLICE, colour=generic_colour(number))
    chart.SetYAxisRangeAuto(False)
    chart.SetYAxisRange(0.0, 1.0)
    return {"curve_table": table, "curves": chart}


def _show_concepts(scene: Any, name: str, answer: Classification, volume_node: Any | None) -> dict[str, Any]:
    ordered = sorted(answer.concepts, key=lambda one: -one.similarity)
    table = _table(scene, f"{name} concepts", answer, volume_node)
    _add_texts(table, "Concept", (f"{one.label}: {one.concept}" for one in ordered))
    _add_numbers(table, "Similarity", [one.similarity for one in ordered])
    title = f"Concepts, without training. {RESEARCH_USE}"
    chart = _chart(scene, f"{name} concepts", title, ("Concept", "Similarity"))
    _series(scene, chart, table, "Similarity", x=None, colour=generic_colour(1), labels="Concept")
    return {"concept_table": table, "concept_bars": chart}


def _summary(answer: Classification) -> str:
    return f"{', '.join(answer.verdict) or NONE_OF_THESE}. {RESEARCH_USE}"


def _chart(scene: Any, name: str, title: str, axes: tuple[str, str]) -> Any:
    chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", name)
    chart.SetTitle(title)
    chart.SetTitleFontSize(10)
    chart.SetXAxisTitle(axes[0])
    chart.SetYAxisTitle(axes[1])
    chart.SetDescription(RESEARCH_USE)
    return chart


def _series(
    scene: Any,
    chart: Any,
    table: Any,
    y: str,
    *,
    x: str | None,
    colour: Sequence[float],
    labels: str = _LABEL,
) -> None:
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


def _add_texts(table: Any, title: str, values: Iterable[str]) -> None:
    column = vtk.vtkStringArray()
    column.SetName(title)
    for value in values:
        column.InsertNextValue(value)
    table.AddColumn(column)


def _add_numbers(table: Any, title: str, values: Iterable[float]) -> None:
    column = vtk.vtkDoubleArray()
    column.SetName(title)
    for value in values:
        column.InsertNextValue(value)
    table.AddColumn(column)
