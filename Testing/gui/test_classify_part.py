import pytest
import slicer

from FoundationSegLib.catalog.label_sets import label_set_of
from FoundationSegLib.requests.classification_answer import RESEARCH_USE
from Testing.gui.model_rig import cells


@pytest.fixture
def tab(at_panel):
    at_panel.ui.tabs.setCurrentIndex(1)
    at_panel.desk.choose(at_panel.ui.labelSetBox, "Own labels")
    at_panel.ui.ownLabelsEdit.setPlainText("bright\ndark\n\n")
    at_panel.let_pass()
    return at_panel


def ask(tab, button=None):
    tab.desk.click(button or tab.ui.classifyButton)
    tab.desk.wait_until(lambda: not tab.client.is_busy and not tab.work.is_busy)
    tab.let_pass()


def rows(tab):
    return cells(tab.ui.scoresTable, 4)


def test_the_slice_in_view(tab):
    assert not tab.ui.scoresTable.visible, "no empty table"
    tab.look_at(10, 10, 7)
    assert tab.ui.classifyImageLabel.text == "CT, axial, slice 7 (S 18.0 mm)"
    ask(tab)
    (request,) = tab.client.asked
    assert request.labels == label_set_of(["bright", "dark"])
    assert (request.subject.axis, request.subject.start, request.subject.stop) == ("k", 7, 8)
    found = rows(tab)
    assert {name for name, *_ in found} == {"bright", "dark"}
    assert float(found[0][1]) >= float(found[1][1]) and sum(float(one[1]) for one in found) == pytest.approx(
        1, abs=2e-3
    )
    assert RESEARCH_USE in tab.ui.researchLabel.text and "slices: 1" in tab.ui.verdictLabel.text


def test_the_whole_image_and_its_charts(tab):
    tab.desk.choose(tab.ui.subjectBox, "The whole image")
    tab.desk.choose(tab.ui.aggregationBox, "Mean of the highest five")
    ask(tab)
    assert tab.client.asked[-1].subject.start is None and str(tab.client.asked[-1].aggregation) == "top-5"
    tab.desk.click(tab.ui.keepButton)
    tables = slicer.util.getNodesByClass("vtkMRMLTableNode")
    assert len(tables) == 2 and all(RESEARCH_USE in table.GetDescription() for table in tables)
    assert len(slicer.util.getNodesByClass("vtkMRMLPlotChartNode")) == 2


def test_evidence_becomes_an_overlay_and_a_segment(tab):
    ask(tab)
    ask(tab, tab.ui.whereButton)
    assert tab.client.asked[-1].evidence.label == rows(tab)[0][0]
    assert any(name.startswith("Evidence: ") for name in tab.names())
    overlays = [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if "evidence" in node.GetName()]
    assert len(overlays) == 1


def test_a_segment_is_classified_and_named(tab):
    tab.ui.tabs.setCurrentIndex(0)
    tab.box((5, 6, 4), (14, 20, 4))
    tab.ui.tabs.setCurrentIndex(1)
    tab.desk.choose(tab.ui.subjectBox, "The selected segment")
    ask(tab)
    assert tab.client.asked[-1].subject.segment.voxels == 150
    tab.desk.click(tab.ui.nameButton)
    assert tab.names() == [rows(tab)[0][0]] and tab.voxels() == 150


@pytest.mark.parametrize("subject", ["The region of interest", "The selected segment"])
def test_what_is_not_there_is_said(tab, subject):
    tab.desk.choose(tab.ui.subjectBox, subject)
    tab.desk.click(tab.ui.classifyButton)
    assert tab.ui.classifyMessageLabel.visible and "first" in tab.ui.classifyMessageLabel.text
    assert tab.client.asked == []


def test_labels_that_make_no_set_are_said(tab):
    tab.ui.ownLabelsEdit.setPlainText("same\nsame")
    tab.let_pass()
    tab.desk.click(tab.ui.classifyButton)
    assert "same" in tab.ui.classifyMessageLabel.text and tab.client.asked == []


def test_a_failure_is_said_and_a_cancel_is_not(tab):
    tab.client.fails = True
    ask(tab)
    assert "no memory" in tab.ui.classifyMessageLabel.text
    tab.client.fails, tab.client.is_slow = False, True
    tab.desk.click(tab.ui.classifyButton)
    tab.let_pass()
    assert tab.ui.classifyProgressRow.visible and tab.ui.classifyMessageLabel.text == ""
    tab.desk.click(tab.ui.classifyCancelButton)
    tab.desk.wait_until(lambda: not tab.client.is_busy and not tab.work.is_busy)
    tab.let_pass()
    assert not tab.ui.classifyMessageLabel.visible and not tab.ui.classifyProgressRow.visible


def test_label_sets_come_along_and_are_remembered(tab):
    tab.desk.choose(tab.ui.labelSetBox, "Modality")
    assert not tab.ui.ownLabelsEdit.visible
    tab.desk.choose(tab.ui.subjectBox, "A range of slices")
    tab.ui.classifyFromBox.value, tab.ui.classifyToBox.value = 6, 2
    tab.let_pass()
    ask(tab)
    request = tab.client.asked[-1]
    assert request.labels.id == "modality" and (request.subject.start, request.subject.stop) == (2, 7)
    assert len(rows(tab)) == len(request.labels.labels)
