import json

import numpy as np
import pytest
import slicer
import slicer.util

from FoundationSegLib.mrml.classification import VOLUME, read_report, show_classification
from FoundationSegLib.mrml.scene import boot_scene
from FoundationSegLib.requests.classification_answer import NONE_OF_THESE, RESEARCH_USE
from Testing.unit.requests.classification_cases import answer


def column(table, title):
    values = table.GetTable().GetColumnByName(title)
    return [values.GetValue(n) for n in range(values.GetNumberOfValues())]


@pytest.fixture
def nodes(scene, volume_node):
    return show_classification(scene, answer(), volume_node)


def test_the_table_has_labels_by_rank_with_all_that_makes_a_score(nodes):
    table = nodes.table
    assert column(table, "Label") == ["Spleen", "Liver", "Kidney"]
    assert column(table, "Score") == [0.6, 0.3, 0.1]
    assert column(table, "Spread") == [0.02, 0.05, 0.0]
    assert column(table, "Stands out") == ["yes", "no", "no"]
    assert set(column(table, "Aggregation")) == {"top-2"} and set(column(table, "Scoring")) == {"softmax"}
    assert set(column(table, "Model")) == {"biomedclip"} and set(column(table, "Revision")) == {"abc123"}


def test_every_table_and_chart_says_what_it_is_for(nodes):
    assert set(column(nodes.table, "Note")) == {RESEARCH_USE}
    for node in (nodes.table, nodes.curve_table, nodes.concept_table, nodes.bars, nodes.curves, nodes.concept_bars):
        assert RESEARCH_USE in node.GetDescription()
    for chart in (nodes.bars, nodes.curves, nodes.concept_bars):
        assert RESEARCH_USE in chart.GetTitle()
    assert nodes.bars.GetTitle().startswith("Spleen.")


def test_the_answer_is_kept_whole(nodes, volume_node):
    for table in (nodes.table, nodes.curve_table, nodes.concept_table):
        report = read_report(table)
        assert report.pop("software")["FoundationSeg"]
        assert report == json.loads(json.dumps(answer().to_document()))
        assert table.GetNodeReference(VOLUME) is volume_node
    assert read_report(volume_node) is None


def test_the_curve_has_a_row_for_each_slice_and_gaps_where_nothing_was_seen(nodes):
    assert column(nodes.curve_table, "Slice") == [2, 3, 4]
    found = np.array([column(nodes.curve_table, name) for name in ("Liver", "Spleen", "Kidney")]).T
    assert np.allclose(found, answer().curves, equal_nan=True)


def test_charts_show_the_tables_columns(nodes):
    bar = nodes.bars.GetNthPlotSeriesNode(0)
    assert bar.GetTableNode() is nodes.table and nodes.bars.GetNumberOfPlotSeriesNodes() == 1
    assert (bar.GetPlotType(), bar.GetYColumnName()) == (slicer.vtkMRMLPlotSeriesNode.PlotTypeBar, "Score")
    assert bar.GetLabelColumnName() == "Label"
    lines = [nodes.curves.GetNthPlotSeriesNode(n) for n in range(nodes.curves.GetNumberOfPlotSeriesNodes())]
    assert [line.GetYColumnName() for line in lines] == ["Spleen", "Liver", "Kidney"]
    assert {line.GetXColumnName() for line in lines} == {"Slice"}
    assert len({line.GetColor() for line in lines}) == 3
    assert nodes.concept_bars.GetNthPlotSeriesNode(0).GetLabelColumnName() == "Concept"
    assert column(nodes.concept_table, "Concept") == ["Liver: a large organ"]


def test_one_slice_has_no_curve_and_no_concepts_no_bars(scene):
    nodes = show_classification(scene, answer(slices=(2,), curves=answer().curves[:1], concepts=()))
    assert nodes.curve_table is nodes.curves is nodes.concept_table is nodes.concept_bars is None
    assert scene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 1


def test_none_of_these_is_said(scene):
    from dataclasses import replace

    none = tuple(replace(one, stands_out=False) for one in answer().scores)
    assert show_classification(scene, answer(scores=none)).bars.GetTitle().startswith(NONE_OF_THESE)


def test_many_labels_are_all_in_the_table_and_the_best_in_the_chart(scene):
    from dataclasses import replace

    scores = tuple(replace(answer().scores[0], name=f"label {n}", score=n / 100) for n in range(50))
    many = answer(scores=scores, curves=np.zeros((3, 50), np.float32), evidence=(), concepts=())
    nodes = show_classification(scene, many)
    assert nodes.curve_table.GetNumberOfColumns() == 51 and nodes.curves.GetNumberOfPlotSeriesNodes() == 8
    assert nodes.curves.GetNthPlotSeriesNode(0).GetYColumnName() == "label 49"


def test_it_is_saved_with_the_scene(nodes, scene):
    scene.SetSaveToXMLString(1)
    scene.Commit()
    other = boot_scene().scene
    other.SetLoadFromXMLString(1)
    other.SetSceneXMLString(scene.GetSceneXMLString())
    other.Connect()
    table = other.GetFirstNodeByName(nodes.table.GetName())
    assert read_report(table) == read_report(nodes.table) and table.GetDescription() == RESEARCH_USE
    chart = other.GetFirstNodeByName(nodes.bars.GetName())
    assert chart.GetClassName() in ("vtkMRMLPlotChartNode", "vtkMRMLTableNode")
    assert other.GetNumberOfNodesByClass("vtkMRMLPlotChartNode") == 3
