from dataclasses import replace

import numpy as np
import pytest
import slicer

from FoundationSegLib.catalog.catalogue import card_folder, read_catalogue
from FoundationSegLib.catalog.label_sets import label_set_of
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.errors import DomainError, PackageError
from FoundationSegLib.hub.store import Store
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.monitoring import MONITORING_VARIABLE, read_counts
from FoundationSegLib.mrml.volumes import add_volume_node
from FoundationSegLib.progress import ProgressReport
from FoundationSegLib.requests.classification_answer import OUTSIDE, RESEARCH_USE
from FoundationSegLib.requests.domain import DomainCheck
from FoundationSegLib.requests.heads import HEADS_VARIABLE, head_names, write_head
from FoundationSegLib.requests.segmentation import CheckpointRecord
from FoundationSegLib.worker.client import InlineClient
from FoundationSegLib.worker.protocol import Answered, Failed, Progressed
from Testing.gui.model_rig import TaskClient, cells
from Testing.gui.panel_desk import PanelDesk
from Testing.slicer_standin.dialogs import choose_file, press
from Testing.slicer_standin.proxy import unwrap
from Testing.unit.engine.test_whole_volumes import ByBrightness
from Testing.unit.fakes import fill_store
from Testing.unit.reader_model import WIDTH, make_head
from Testing.unit.requests.classification_cases import import_phenotypes


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
    return cells(tab.ui.scoresTable, 7)


def column(tab, number):
    return [row[number] for row in rows(tab)]


def test_the_slice_in_view(tab):
    assert not tab.ui.scoresTable.visible, "no empty table"
    tab.look_at(10, 10, 7)
    assert tab.ui.classifyImageLabel.text == "CT, axial, slice 7 (S 18.0 mm)"
    ask(tab)
    (request,) = tab.client.asked
    assert request.labels == label_set_of(["bright", "dark"])
    assert (request.subject.axis, request.subject.start, request.subject.stop) == ("k", 7, 8)
    assert set(column(tab, 1)) == {"bright", "dark"} and column(tab, 0) == ["1", "2"]
    assert float(column(tab, 3)[0]) >= 0 >= float(column(tab, 3)[1])
    assert tab.ui.scoresTable.isColumnHidden(2) and "Not calibrated" in tab.ui.verdictLabel.text, "no bare percentage"
    assert tab.ui.scoresTable.item(0, 1).toolTip() == f"+ {column(tab, 1)[0]}", "the wording that was used"
    assert not tab.ui.chartLabel.visible, "one slice is no chart"
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


def test_the_chart_leads_to_its_slice_and_the_table_sorts(tab):
    tab.desk.choose(tab.ui.subjectBox, "The whole image")
    ask(tab)
    assert tab.ui.chartLabel.visible and tab.ui.chartLabel.text.count("<a href=") == 12
    unwrap(tab.ui.chartLabel).linkActivated.emit("9")
    assert tab.desk.slice_widget("Red").mrmlSliceNode().GetSliceOffset() == pytest.approx(tab.at(0, 0, 9)[2])
    header, names = unwrap(tab.ui.scoresTable.horizontalHeader()), column(tab, 1)
    for number in (0, 1, 1):
        header.sectionClicked.emit(number)
    assert column(tab, 1) == sorted(names, reverse=True)


def test_a_prior_is_scored_beside_it_and_both_are_exported(tab, tmp_path):
    assert not tab.ui.priorBox.visible
    earlier = tab.add_volume("Earlier", slices=6)
    tab.panel.follow()
    tab.desk.choose(tab.ui.priorBox, "Earlier")
    tab.desk.click(tab.ui.classifyButton)
    assert "compared as a whole" in tab.ui.classifyMessageLabel.text and tab.client.asked == []
    tab.desk.choose(tab.ui.subjectBox, "The whole image")
    ask(tab)
    first, second = tab.client.asked
    assert first.labels == second.labels and first.volume_key != second.volume_key
    assert first.volume_key in tab.client.volumes and second.volume_key not in tab.client.volumes, "let go of"
    assert not tab.ui.scoresTable.isColumnHidden(6) and all(column(tab, 6))
    assert "Prior, Earlier" in tab.ui.verdictLabel.text
    tab.desk.answer_dialogs(choose_file(tmp_path / "scores.csv"))
    tab.desk.click(tab.ui.exportScoresButton)
    lines = (tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in lines] == ["image", "CT", "CT", "Earlier", "Earlier"]
    tab.desk.scene.RemoveNode(earlier)
    tab.panel.follow()
    assert not tab.ui.priorBox.visible


def test_evidence_becomes_an_overlay_and_a_segment_on_wish(tab):
    ask(tab)
    ask(tab, tab.ui.whereButton)
    assert tab.client.asked[-1].evidence.label == column(tab, 1)[0]
    overlays = [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if "evidence" in node.GetName()]
    assert len(overlays) == 1 and tab.wanted.segmentation is None
    assert "0.005 to 0.065" in tab.ui.verdictLabel.text, "how good such maps are"
    assert not tab.ui.priorBox.visible, "a map is no earlier image"
    tab.desk.click(tab.ui.evidenceSegmentButton)
    tab.let_pass()
    assert any(name.startswith("Evidence: ") for name in tab.names())


def test_a_segment_is_classified_and_named(tab):
    tab.ui.tabs.setCurrentIndex(0)
    tab.box((5, 6, 4), (14, 20, 4))
    tab.ui.tabs.setCurrentIndex(1)
    tab.desk.choose(tab.ui.subjectBox, "The selected segment")
    ask(tab)
    assert tab.client.asked[-1].subject.segment.voxels == 150
    tab.desk.click(tab.ui.nameButton)
    assert tab.names() == [column(tab, 1)[0]] and tab.voxels() == 150


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


def test_an_image_of_another_kind_is_scored_at_the_users_wish_alone_and_marked(tab, tmp_path):
    tab.desk.choose(tab.ui.classifyModelBox, "COLIPRI")
    outside = DomainError("the image is not of the domain of COLIPRI")
    tab.client.fails, tab.client.failure = True, outside
    assert not tab.ui.anyDomainButton.visible
    ask(tab)
    assert "not of the domain" in tab.ui.classifyMessageLabel.text and tab.ui.anyDomainButton.visible
    assert not tab.client.asked[-1].any_domain and not tab.ui.scoresTable.visible
    tab.desk.choose(tab.ui.classifyModelBox, "BiomedCLIP")
    ask(tab, tab.ui.anyDomainButton)
    assert not tab.client.asked[-1].any_domain, "another model has a domain of its own"
    tab.desk.choose(tab.ui.classifyModelBox, "COLIPRI")
    ask(tab)
    tab.client.fails, tab.client.domain = (
        False,
        DomainCheck("outside", ("it seems to show the head",), is_overridden=True),
    )
    ask(tab, tab.ui.anyDomainButton)
    assert tab.client.asked[-1].any_domain and not tab.ui.anyDomainButton.visible
    assert OUTSIDE in tab.ui.verdictLabel.text
    ask(tab, tab.ui.whereButton)
    assert tab.client.asked[-1].any_domain, "where is asked of the same image"
    tab.desk.answer_dialogs(choose_file(tmp_path / "scores.csv"))
    tab.desk.click(tab.ui.exportScoresButton)
    assert OUTSIDE in (tmp_path / "scores.csv").read_text(encoding="utf-8")
    ask(tab)
    assert not tab.client.asked[-1].any_domain, "the wish is for one question"


@pytest.fixture
def of_volumes(desk, monkeypatch, tmp_path):
    """The tab with an engine behind it, and COLIPRI's card with a model made of rules."""
    card = read_catalogue(card_folder())["colipri"]
    fill_store(tmp_path / "store", card)
    engine = Engine({card.id: card}, Store(tmp_path / "store"), "cpu", load_model=lambda *_: ByBrightness())
    panel = PanelDesk(desk, monkeypatch, InlineClient(engine))
    panel.ui.tabs.setCurrentIndex(1)
    panel.desk.choose(panel.ui.classifyModelBox, "COLIPRI")
    panel.desk.choose(panel.ui.labelSetBox, "Own labels")
    panel.ui.ownLabelsEdit.setPlainText("Nodule\nEffusion\n")
    panel.let_pass()
    return panel


def test_a_model_of_volumes_is_asked_about_the_whole_image_and_answers_all_the_way(of_volumes, shared_data):
    tab, ui = of_volumes, of_volumes.ui
    for name in ("TotalSegmentator/example_ct.nii.gz", "pyradiomics/lung1_crop_image.nrrd"):
        volume = read_volume(shared_data(name))
        tab.wanted.volume = add_volume_node(tab.desk.scene, volume)
        tab.desk.show_volume(tab.wanted.volume)
        tab.panel.follow()
        assert ui.subjectBox.currentText == "The whole image" and tab.wanted.subject == "slice"
        ask(tab)
        is_chest = name.startswith("pyradiomics")
        assert ui.anyDomainButton.visible != is_chest and ui.scoresTable.visible == is_chest
        assert is_chest or "seems to show the abdomen" in ui.classifyMessageLabel.text, "told before any score"
    assert column(tab, 0) == ["1", "2"] and set(column(tab, 1)) == {"Nodule", "Effusion"}
    assert ui.scoresTable.isColumnHidden(2) and "Not calibrated" in ui.verdictLabel.text
    assert not ui.chartLabel.visible, "it sees no slice by itself"
    ask(tab, ui.whereButton)
    (overlay,) = (node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if "evid" in node.GetName())
    values = slicer.util.arrayFromVolume(overlay)
    assert values.dtype == np.float32 and values.shape == volume.array_kji.shape
    assert 0.1 < overlay.GetDisplayNode().GetWindow() <= np.ptp(values), "the range is that of the map"
    tab.desk.choose(ui.classifyModelBox, "BiomedCLIP")
    assert ui.subjectBox.currentText == "The slice in view"


def test_a_model_of_certain_labels_offers_no_others(tab):
    own = tab.wanted.labelSet
    tab.desk.choose(tab.ui.classifyModelBox, "TorchXRayVision DenseNet-121")
    assert [tab.ui.labelSetBox.itemText(n) for n in range(tab.ui.labelSetBox.count)] == [
        "Chest X-ray, TorchXRayVision's findings"
    ]
    assert not tab.ui.ownLabelsEdit.visible
    ask(tab)
    assert len(tab.client.asked[-1].labels.labels) == 18
    tab.desk.choose(tab.ui.classifyModelBox, "BiomedCLIP")
    assert tab.wanted.labelSet == own and tab.ui.ownLabelsEdit.visible and tab.ui.labelSetBox.count > 9


@pytest.fixture
def phenotypes(tmp_path, monkeypatch):
    import_phenotypes(tmp_path, monkeypatch)


def test_of_many_labels_the_best_are_shown_and_all_are_exported(phenotypes, tab, tmp_path):
    """Merlin reads words, and beside them scores the labels that it was trained on."""
    tab.desk.choose(tab.ui.classifyModelBox, "Merlin")
    assert tab.ui.ownLabelsEdit.visible
    tab.desk.choose(tab.ui.labelSetBox, "merlin-phenotypes")
    ask(tab)
    assert len(tab.client.asked[-1].labels.labels) == 1692
    assert column(tab, 0) == [str(n + 1) for n in range(100)] and "best 100 of 1692" in tab.ui.verdictLabel.text
    unwrap(tab.ui.scoresTable.horizontalHeader()).sectionClicked.emit(1)
    assert column(tab, 1) == sorted(column(tab, 1), key=str.casefold)
    tab.desk.click(tab.ui.keepButton)
    assert slicer.util.getNodesByClass("vtkMRMLTableNode")[0].GetNumberOfRows() == 100
    tab.desk.answer_dialogs(choose_file(tmp_path / "scores.csv"))
    tab.desk.click(tab.ui.exportScoresButton)
    assert len((tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()) == 1693


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


@pytest.fixture
def head(tmp_path, monkeypatch):
    """Labels that were learned on vectors of the rig's model."""
    monkeypatch.setenv(HEADS_VARIABLE, str(tmp_path / "heads"))
    measured = {"auc": [0.9, 0.8, 0.95], "accuracy": [0.85, None, None], "calibration_error": [0.02, None, None]}
    record = CheckpointRecord("biomedclip", "owner/name", "abc", "f" * 64)
    weights = np.zeros((3, 2, WIDTH)) + np.array([1.0, -1.0])[None, :, None]
    origin = {"examples": 60, "patients": 30, "measured": measured}
    head = make_head(checkpoint=record, weights=weights, intensity="percentile", origin=origin)
    write_head(head)
    return head


def test_learned_labels_are_used_like_any_set_and_deleted(head, tab):
    tab.panel.follow()
    tab.desk.choose(tab.ui.labelSetBox, "contrast (learned)")
    assert not tab.ui.looksBox.enabled and tab.ui.removeHeadButton.visible
    ask(tab)
    request = tab.client.asked[-1]
    assert request.head.name == "contrast" and request.intensity == "percentile"
    assert not tab.ui.scoresTable.isColumnHidden(2) and "Not calibrated" not in tab.ui.verdictLabel.text
    text = tab.ui.verdictLabel.text
    assert "60 images of 30 patients" in text and "AUC 0.90 (0.80 to 0.95)" in text
    assert not tab.ui.whereButton.enabled, "evidence is for words"
    tab.desk.answer_dialogs(press("Ok", containing="cannot be undone"))
    tab.desk.click(tab.ui.removeHeadButton)
    tab.let_pass()
    assert head_names() == () and tab.wanted.labelSet != "head:contrast" and tab.ui.looksBox.enabled


def learner(head, error):
    """A client that learns at once, or fails for want of a package."""

    def reply(request):
        last = Failed(1, error) if error else Answered(1, replace(head, name=request.name))
        return Progressed(1, ProgressReport("images", 1, 2)), last

    return TaskClient(reply)


@pytest.mark.parametrize("error", [None, PackageError("labels are learned with the package sklearn")])
def test_labels_are_learned_from_a_table(rig, head, error, tmp_path):
    from FoundationSegPanel.model_installer import ModelInstaller
    from FoundationSegPanel.scores_part import LearnDialog

    from FoundationSegLib.installation.readiness import Readiness

    class Ready(ModelInstaller):
        def readiness(self, model_id):
            return Readiness(model_id, ())

    client, kept = learner(head, error), []
    rig.models.append(Ready(open_client=lambda *_: client))
    dialog = LearnDialog(rig.models[-1], "lite-medsam", kept.append)
    rig.dialogs.append(dialog)
    dialog.raise_dialog()
    assert not dialog.ui.startButton.enabled and not dialog.ui.conceptsEdit.visible
    rig.desk.answer_dialogs(choose_file(tmp_path / "cases.csv"))
    rig.desk.click(dialog.ui.tableButton)
    dialog.ui.nameEdit.text = "contrast"
    rig.desk.click(dialog.ui.startButton)
    assert "there is a head 'contrast'" in dialog.ui.messageLabel.text and client.requests == []
    dialog.ui.nameEdit.text = "glow"
    rig.desk.click(dialog.ui.severalBox)
    rig.desk.click(dialog.ui.startButton)
    rig.wait(lambda: dialog.ui.startButton.enabled)
    (request,) = client.requests
    assert (request.table, request.model_id, request.kind) == (tmp_path / "cases.csv", "lite-medsam", "findings")
    assert dialog.ui.installButton.visible == bool(error) and kept == ([] if error else ["glow"])
    assert ("glow" in head_names()) == (not error)
    assert ("sklearn" if error else "On held-out patients: AUC 0.90") in dialog.ui.messageLabel.text


def test_answers_are_counted_only_if_the_user_wants_it(tab, tmp_path, monkeypatch):
    monkeypatch.setenv(MONITORING_VARIABLE, str(tmp_path / "counts"))
    tab.desk.choose(tab.ui.subjectBox, "The whole image")
    ask(tab)
    assert not tab.ui.agreeButton.visible and not tab.ui.monitoringPageButton.visible
    assert len(tab.client.asked) == 1 and not (tmp_path / "counts").exists()
    tab.desk.click(tab.ui.monitoringBox)
    ask(tab)
    assert type(tab.client.asked[-1]).__name__ == "EmbedRequest", "the image is compared with earlier ones"
    tab.desk.click(tab.ui.agreeButton)
    assert not tab.ui.agreeButton.visible, "an answer counts once"
    ask(tab)
    assert type(tab.client.asked[-1]).__name__ == "ClassifyRequest", "an image counts once"
    tab.ui.scoresTable.selectRow(1)
    tab.desk.click(tab.ui.agreeButton)
    ask(tab)
    tab.desk.click(tab.ui.disagreeButton)
    tab.ui.tabs.setCurrentIndex(0)
    tab.box((5, 6, 4), (14, 20, 4))
    tab.desk.click(tab.ui.acceptButton)
    tab.let_pass()
    counts = read_counts()
    assert [list(weeks.values()) for weeks in counts.answers.values()] == [[(1, 1, 1)], [(1, 0, 0)]]
    assert [len(drift.vectors) for drift in counts.images.values()] == [1]
    text = (tmp_path / "counts" / "counts.json").read_text(encoding="utf-8")
    assert "CT" not in text and tab.client.asked[0].volume_key not in text
    tab.ui.tabs.setCurrentIndex(1)
    tab.desk.click(tab.ui.monitoringPageButton)
    assert tab.desk.opened_urls[-1].endswith("overview.html")
    tab.desk.answer_dialogs(press("Ok", containing="Delete all counts"))
    tab.desk.click(tab.ui.monitoringDeleteButton)
    tab.let_pass()
    assert not list((tmp_path / "counts").iterdir()) and not tab.ui.monitoringBox.checked


def test_without_weights_it_says_what_it_can_do_and_which_model_fits(tab):
    from FoundationSegLib.installation.readiness import MissingRequirement, Readiness

    lacks = Readiness("x", (MissingRequirement("weights", 785_000_000),))
    tab.panel.installer.readiness = lambda _model_id: lacks
    tab.volume_node.SetAttribute("DICOM.Modality", "CT")
    tab.panel.follow()
    text = tab.ui.classifyMessageLabel.text
    assert "For this image (CT): <b>BiomedCLIP</b>, 785 MB, licence MIT" in text or "about 785 MB" in text
    assert tab.ui.classifyReadyButton.visible and not tab.ui.classifyButton.enabled


def test_without_a_segmentation_no_segment_can_be_named(at_panel):
    at_panel.box((5, 6, 4), (14, 20, 4))
    ui = at_panel.ui
    ui.tabs.setCurrentIndex(1)
    greyed = (ui.keepButton, ui.nameButton, ui.whereButton)
    assert all(not button.enabled and "score the labels first" in button.toolTip for button in greyed)
    at_panel.desk.click(ui.classifyButton)
    at_panel.settle()
    assert all(button.enabled and button.toolTip == button.whatsThis for button in greyed)
    at_panel.desk.scene.RemoveNode(at_panel.wanted.segmentation)
    at_panel.let_pass()
    assert not ui.nameButton.enabled and "Select a segment" in ui.nameButton.toolTip and not ui.lockButton.enabled
    assert not ui.propagateButton.enabled and "Select a segment" in ui.propagateButton.toolTip


def test_nothing_is_classified_while_a_prompt_is_answered(at_panel):
    ui = at_panel.ui
    at_panel.client.is_slow = True
    at_panel.box((5, 6, 4), (14, 20, 4))
    ui.tabs.setCurrentIndex(1)
    assert at_panel.work.is_busy and not ui.classifyButton.enabled
    at_panel.reply()
    assert ui.classifyButton.enabled and not ui.classifyProgressRow.visible


@pytest.mark.parametrize("when", ["while asked", "answered"])
def test_scores_go_with_their_image(at_panel, when):
    ui, desk = at_panel.ui, at_panel.desk
    ui.tabs.setCurrentIndex(1)
    at_panel.client.is_slow = when == "while asked"
    desk.click(ui.classifyButton)
    at_panel.settle()
    assert ui.keepButton.enabled == (when == "answered")
    ui.tabs.setCurrentIndex(0)
    desk.choose(ui.volumeSelector, at_panel.add_volume("MR"))
    at_panel.client.is_slow = False
    at_panel.settle()
    assert not ui.keepButton.enabled and not ui.whereButton.enabled and ui.scoresTable.rowCount == 0
    ui.tabs.setCurrentIndex(1)
    assert not ui.verdictLabel.visible and not ui.classifyProgressRow.visible


def test_cancel_beside_the_scores_stops_whatever_is_under_way(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.client.is_slow = True
    at_panel.box((5, 6, 4), (14, 20, 4))
    ui.tabs.setCurrentIndex(1)
    at_panel.let_pass()
    desk.click(ui.classifyCancelButton)
    desk.wait_until(lambda: not at_panel.client.is_busy)
    assert not at_panel.work.is_busy and not ui.classifyProgressRow.visible
