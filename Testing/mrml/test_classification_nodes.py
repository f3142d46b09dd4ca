import json
from dataclasses import replace

import numpy as np
import pytest
import slicer
import slicer.util
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from FoundationSegLib.catalog.label_sets import Label, TermCode, label_set_of, read_label_sets
from FoundationSegLib.catalog.resource_files import resource_folder
from FoundationSegLib.engine.classification import classify
from FoundationSegLib.engine.encoding import Encoder, VectorCache
from FoundationSegLib.engine.slice_inference import LoadedModel, Weights
from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.geometry import AXES, Geometry, array_axis
from FoundationSegLib.imaging.intensity import resolve_intensity_views
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml import segment_tags
from FoundationSegLib.mrml.classification import (
    NAMED_BY,
    VOLUME,
    accept_label,
    add_evidence_segment,
    identity,
    label_term,
    read_report,
    show_classification,
    show_evidence,
    take_back,
)
from FoundationSegLib.mrml.scene import boot_scene
from FoundationSegLib.mrml.segments import SegmentWriter
from FoundationSegLib.mrml.terminology import find_term
from FoundationSegLib.mrml.volumes import add_volume_node, geometry_from_node
from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.classification import ClassifyRequest, EvidenceWish, Subject, frame_of, square
from FoundationSegLib.requests.classification_answer import LIMITS, NONE_OF_THESE, RESEARCH_USE
from FoundationSegLib.requests.segmentation import CheckpointRecord
from Testing.mrml.random_geometries import add_parent, geometries, parent_matrices
from Testing.unit.reader_model import ReaderModel
from Testing.unit.requests.classification_cases import answer


def column(table, title):
    values = table.GetTable().GetColumnByName(title)
    return [values.GetValue(n) for n in range(values.GetNumberOfValues())]


@pytest.fixture
def nodes(scene, volume_node):
    return show_classification(scene, answer(), volume_node)


def test_the_table_has_labels_by_rank_with_all_that_makes_a_score(nodes):
    table = nodes.table
    assert column(table, "Label") == ["Spleen", "Liver", "Kidney"] and column(table, "Score") == [0.6, 0.3, 0.1]
    assert column(table, "Spread") == [0.02, 0.05, 0.0] and column(table, "Stands out") == ["yes", "no", "no"]
    assert set(column(table, "Aggregation")) == {"top-2"} and set(column(table, "Scoring")) == {"softmax"}
    assert set(column(table, "Model")) == {"biomedclip"} and set(column(table, "Revision")) == {"abc123"}


def test_every_table_and_chart_says_what_it_is_for(nodes):
    assert set(column(nodes.table, "Note")) == {RESEARCH_USE}
    for node in (nodes.table, nodes.curve_table, nodes.concept_table, nodes.bars, nodes.curves, nodes.concept_bars):
        assert RESEARCH_USE in node.GetDescription()
    for chart in (nodes.bars, nodes.curves, nodes.concept_bars):
        assert RESEARCH_USE in chart.GetTitle()
    assert nodes.bars.GetTitle().startswith("Spleen (not calibrated).")


def test_the_answer_is_kept_whole(nodes, volume_node):
    for table in (nodes.table, nodes.curve_table, nodes.concept_table):
        report = read_report(table)
        assert report.pop("software")["FoundationSeg"] and report == json.loads(json.dumps(answer().to_document()))
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
    assert {line.GetXColumnName() for line in lines} == {"Slice"} and len({line.GetColor() for line in lines}) == 3
    assert nodes.concept_bars.GetNthPlotSeriesNode(0).GetLabelColumnName() == "Concept"
    assert column(nodes.concept_table, "Concept") == ["Liver: a large organ"]


def test_one_slice_has_no_curve_and_no_concepts_no_bars(scene):
    nodes = show_classification(scene, answer(slices=(2,), curves=answer().curves[:1], concepts=()))
    assert nodes.curve_table is nodes.curves is nodes.concept_table is nodes.concept_bars is None
    assert scene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 1


def test_none_of_these_is_said(scene):
    none = tuple(replace(one, stands_out=False) for one in answer().scores)
    assert show_classification(scene, answer(scores=none)).bars.GetTitle().startswith(NONE_OF_THESE)


def test_many_labels_are_all_in_the_table_and_the_best_in_the_chart(scene):
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


ROWS, COLUMNS, SLICE = slice(9, 21), slice(24, 40), 1
CELLS = 16


@st.composite
def grids(draw):
    """Oblique, flipped, permuted, sheared grids of three slices, 40 x 48, across any axis."""
    matrix = np.array(draw(geometries()).ijk_to_ras)
    spacing = draw(st.tuples(*[st.floats(0.7, 1.4)] * 3))
    matrix[:3, :3] *= np.array(spacing) / np.linalg.norm(matrix[:3, :3], axis=0)
    axis = draw(st.sampled_from(AXES))
    shape = [40, 48]
    shape.insert(array_axis(axis), 3)
    return Geometry(matrix, tuple(shape)), axis


def planted(geometry, axis):
    """A volume with a bright square on one slice, and where it is."""
    voxels = np.full(geometry.shape_kji, 20, np.uint8)
    np.moveaxis(voxels, array_axis(axis), 0)[:, ::3] += 6  # something to see everywhere
    where = np.zeros(geometry.shape_kji, bool)
    np.moveaxis(where, array_axis(axis), 0)[SLICE, ROWS, COLUMNS] = True
    voxels[where] = 250
    return Volume(voxels, geometry, name="Image"), where


def explained(volume, axis, method):
    model = ReaderModel(cells=CELLS)
    weights = Weights(CheckpointRecord("reader", "owner/name", "abc", "f" * 64), "cpu", "float32")
    wish = EvidenceWish("bright", method, slices=1, parts=CELLS)
    request = ClassifyRequest(
        1, "reader", volume.key, label_set_of(["bright", "dark"]), Subject(axis), "raw", evidence=wish
    )
    encoder = Encoder(LoadedModel(model, weights), VectorCache(), Progress())
    return classify(request, volume, resolve_intensity_views("raw", volume), encoder)


EXAMPLES = settings().max_examples  # all of the full run, a quarter of the reduced one


def in_line(found, axis):
    """The planes of an array across an axis."""
    return np.moveaxis(found, array_axis(axis), 0)


@settings(max_examples=EXAMPLES if EXAMPLES >= 1000 else EXAMPLES // 4)
@given(grids(), parent_matrices(), st.sampled_from(["similarity", "occlusion"]))
def test_a_planted_square_lights_up_where_it_is(grid, parent, method):
    geometry, axis = grid
    volume, where = planted(geometry, axis)
    cell = [side / CELLS for side in square(frame_of(geometry.box, axis), geometry, axis).shape]
    assume(max(cell) < 6)
    reading = explained(volume, axis, method)
    (evidence,) = reading.evidence
    headless = boot_scene()
    node = add_volume_node(headless.scene, volume)
    add_parent(headless.scene, parent, node)
    segmentation = headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segment_id = add_evidence_segment(segmentation, evidence, reading, node)
    found = SegmentWriter(segmentation, node).read(segment_id)
    assert segmentation.GetParentTransformNode() is node.GetParentTransformNode()

    grown = np.zeros_like(where)
    rows, columns = (
        slice(max(0, line.start - round(size)), line.stop + round(size))
        for line, size in zip((ROWS, COLUMNS), cell, strict=True)
    )
    in_line(grown, axis)[SLICE, rows, columns] = True
    assert found.any() and not (found & ~grown).any() and (found & where).sum() > 0.5 * where.sum()
    middle, truth = (np.argwhere(mask).mean(axis=0) for mask in (found, where))
    in_plane = [n for n in range(3) if n != array_axis(axis)]
    assert all(abs(middle[n] - truth[n]) <= size for n, size in zip(in_plane, cell, strict=True))

    overlay = show_evidence(headless.scene, evidence, reading, node)
    assert overlay.GetParentTransformNode() is node.GetParentTransformNode()
    painted = slicer.util.arrayFromVolume(overlay)
    highest = np.unravel_index(painted.argmax(), painted.shape)[::-1]
    at = geometry.to_ijk(geometry_from_node(overlay).to_ras(highest))
    assert np.allclose(at, np.round(at), atol=1e-6)  # voxel on voxel
    i, j, k = np.round(at).astype(int)
    assert where[k, j, i]


def read_similarity(scene):
    volume, _ = planted(Geometry(np.eye(4), (3, 40, 48)), "k")
    return explained(volume, "k", "similarity"), add_volume_node(scene, volume)


def test_the_overlay_shows_what_is_above_the_middle_and_says_its_limits(scene):
    reading, node = read_similarity(scene)
    overlay = show_evidence(scene, reading.evidence[0], reading, node)
    assert LIMITS in overlay.GetDescription() and RESEARCH_USE in overlay.GetDescription()
    assert read_report(overlay)["model"]["revision"] == "abc"
    display, evidence = overlay.GetDisplayNode(), reading.evidence[0]
    assert display.GetApplyThreshold() and display.GetLowerThreshold() >= evidence.threshold(0)
    assert display.GetColorNode() is not None and slicer.util.arrayFromVolume(overlay).shape == (1, 40, 48)


def test_the_segment_says_where_it_came_from_and_spares_the_others(scene):
    reading, node = read_similarity(scene)
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    writer = SegmentWriter(segmentation, node)
    other = writer.add_segment("Liver")
    writer.write(other, np.ones(writer.geometry.shape_kji, bool))
    segment_id = add_evidence_segment(segmentation, reading.evidence[0], reading, node, share=0.8)
    assert writer.read(other).all() and writer.read(segment_id).any()
    tags = segment_tags.provenance(writer.segment(segment_id))
    assert (tags["Model"], tags["Revision"], tags["SHA256"]) == ("reader", "abc", "f" * 64)
    request = {"label": "bright", "method": "similarity", "share": 0.8, "research_use": RESEARCH_USE}
    assert json.loads(tags["Prompts"]) == request and writer.segment(segment_id).GetName() == "Evidence: bright"
    assert segment_tags.read_tag(writer.segment(segment_id), "DICOM.SegmentAlgorithmType") == "AUTOMATIC"


ORGANS = read_label_sets(resource_folder("LabelSets"))["ct-abdomen-organs"]


@pytest.fixture
def segment(writer):
    return writer.segment(writer.add_segment("Segment_1"))


def test_a_label_that_is_accepted_gives_name_terminology_and_colour(segment):
    accept_label(segment, ORGANS.label("Spleen"), answer())
    assert segment.GetName() == "Spleen" and segment.GetTerminology() == find_term("spleen").serialized
    assert segment.GetColor() == pytest.approx(find_term("spleen").colour)
    told = json.loads(segment_tags.read_tag(segment, NAMED_BY))
    assert (told["label"], told["score"], told["research_use"]) == ("Spleen", 0.6, RESEARCH_USE)
    assert told["model"]["revision"] == "abc123"


def test_it_can_be_taken_back(segment):
    before = identity(segment)
    assert accept_label(segment, ORGANS.label("Spleen"), answer()) == before
    between = accept_label(segment, ORGANS.label("Liver"), answer())
    take_back(segment, between)
    assert segment.GetName() == "Spleen" and json.loads(segment_tags.read_tag(segment, NAMED_BY))["label"] == "Spleen"
    take_back(segment, before)
    assert identity(segment) == before and segment_tags.read_tag(segment, NAMED_BY) is None


def test_a_label_without_a_code_gives_its_name_alone(segment):
    before = identity(segment)
    named = answer(scores=tuple(replace(one, name=f"my {one.name}") for one in answer().scores))
    accept_label(segment, Label("my Liver"), named)
    assert segment.GetName() == "my Liver" and segment.GetTerminology() == before.terminology


def test_codes_of_labels_become_terms_where_they_are_of_segments():
    assert label_term(ORGANS.label("Left kidney")).modifier.meaning == "Left"
    code = TermCode("SCT", "68496003", "Polyp of colon")
    term = label_term(Label("Polyp X", category="finding", code=code))
    assert "SCT^49755003^Morphologically Altered Structure~SCT^68496003^Polyp of colon" in term.serialized
    assert label_term(Label("Polyp X", code=code)) is None
    assert label_term(Label("CT", category="structure", code=TermCode("DCM", "CT", "Computed Tomography"))) is None
    for label in ORGANS.labels:
        term = label_term(label)
        assert term is not None and term.type.value == label.code.value, label.name


def test_locked_segments_and_labels_that_were_not_asked_for_are_left_alone(segment):
    with pytest.raises(InputError, match="was not asked about 'Aorta'"):
        accept_label(segment, ORGANS.label("Aorta"), answer())
    segment_tags.lock(segment)
    with pytest.raises(InputError, match="locked"):
        accept_label(segment, ORGANS.label("Spleen"), answer())
    assert segment.GetName() == "Segment_1"
