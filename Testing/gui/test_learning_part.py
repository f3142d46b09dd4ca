"""More objects like a segment, their measures, and the dialog that teaches a model, driven by their buttons."""

import csv
import hashlib

import numpy as np
import pytest
import slicer
from PySide6.QtCore import Qt

from FoundationSegLib.catalog.catalogue import CARD_FILE, DELTA_FILE, make_card
from FoundationSegLib.catalog.model_cards import LearnedFrom
from FoundationSegLib.catalog.resource_files import toml_text
from FoundationSegLib.hub.exchange import adaptation_folder
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.files import write_segmentation
from FoundationSegLib.mrml.segment_tags import group, set_completed
from FoundationSegLib.mrml.volumes import add_volume_node
from FoundationSegLib.progress import ProgressReport
from FoundationSegLib.requests import adaptation
from FoundationSegLib.worker.protocol import Answered, Progressed
from Testing.gui.model_rig import TaskClient, cells
from Testing.slicer_standin.dialogs import choose_file
from Testing.slicer_standin.proxy import unwrap


@pytest.fixture
def proposed(at_panel):
    """A segment, and a proposal in its image and one in another image."""
    at_panel.other = at_panel.add_volume("Earlier", slices=11)
    at_panel.box((5, 6, 4), (14, 20, 4))
    at_panel.ui.learningSection.collapsed = False
    assert not at_panel.ui.similarFrame.visible and "is hidden" in at_panel.ui.similarLabel.text
    unwrap(at_panel.ui.similarLabel).linkActivated.emit("show")
    at_panel.desk.click(at_panel.ui.similarOthersBox)
    at_panel.desk.click(at_panel.ui.similarButton)
    at_panel.settle()
    return at_panel


def rows(at_panel):
    return cells(at_panel.ui.proposalsTable, 6)


def groups(at_panel):
    keys = at_panel.segmentation.GetSegmentIDs()
    return [group(at_panel.segmentation.GetSegment(key)) for key in keys]


def test_proposals_are_shown_and_become_segments_of_a_group_that_undo_takes_away(proposed):
    ui, desk = proposed.ui, proposed.desk
    assert sorted(rows(proposed)) == [
        ("CT", "7", "1.92", "14.42", "0.25", "90 %"),
        ("Earlier", "7", "1.92", "14.42", "0.25", "90 %"),
    ]
    assert proposed.names() == ["Segment"], "nothing is added before it is accepted"
    ui.proposalsTable.selectRow([row[0] for row in rows(proposed)].index("CT"))
    assert proposed.work.preview.node is not None
    desk.click(ui.acceptAllProposalsButton)
    proposed.settle()
    assert proposed.names() == ["Segment", "Segment 1"] and groups(proposed) == ["Segment", "Segment"]
    assert proposed.voxels("Segment 1") == 120 and proposed.work.preview.node is None
    assert [row[0] for row in rows(proposed)] == ["Earlier"]
    desk.click(ui.undoButton)
    proposed.let_pass()
    assert proposed.names() == ["Segment"]


def test_those_of_another_image_wait_for_it_and_go_with_it(proposed):
    ui, desk = proposed.ui, proposed.desk
    ui.proposalsTable.selectRow([row[0] for row in rows(proposed)].index("Earlier"))
    desk.click(ui.acceptProposalButton)
    assert "in another image" in ui.messageLabel.text and proposed.names() == ["Segment"]
    desk.click(ui.messageYesButton)
    ui.proposalsTable.selectRow([row[0] for row in rows(proposed)].index("CT"))
    desk.click(ui.rejectProposalButton)
    assert [row[0] for row in rows(proposed)] == ["Earlier"]
    desk.scene.RemoveNode(proposed.other)
    proposed.panel.follow()
    assert rows(proposed) == [] and not ui.proposalsTable.visible


def test_another_model_has_to_be_asked_anew(proposed):
    ui, desk = proposed.ui, proposed.desk
    proposed.wanted.intensity = "raw"
    proposed.let_pass()
    desk.click(ui.acceptAllProposalsButton)
    assert "find them again" in ui.messageLabel.text and proposed.names() == ["Segment"]


def test_measures_are_exported(proposed, tmp_path):
    proposed.desk.click(proposed.ui.acceptAllProposalsButton)
    proposed.settle()
    proposed.desk.answer_dialogs(choose_file(tmp_path / "measures.csv"))
    proposed.desk.click(proposed.ui.measuresButton)
    with (tmp_path / "measures.csv").open(newline="", encoding="utf-8") as stream:
        table = {row["segment"]: row for row in csv.DictReader(stream)}
    assert list(table) == ["Segment", "Segment 1"] and table["Segment 1"]["group"] == "Segment"
    second = table["Segment 1"]
    assert (second["volume_ml"], second["longest_diameter_mm"], second["slice"]) == ("1.92", "14.422", "7")


# Teaching


def teacher(passes=True, ends=True):
    """A client that trains at once, or until it is cancelled."""

    def reply(request):
        for step in (0, 50, 100):
            point = adaptation.CurvePoint(step, 1.0 - step / 200, 1.1 - step / 200)
            yield Progressed(1, adaptation.curve_report(point, 300))
        yield Progressed(1, ProgressReport("train", 120, 300))
        if ends:
            yield Answered(1, taught(request, passes))

    return TaskClient(reply)


def taught(request, passes):
    """The result of a training."""
    gain = adaptation.Gain(0.5, 0.3 if passes else -0.1, 0.7)
    lower = adaptation.LabelScores("Spleen", 4, 0.75, 0.7, adaptation.Gain(-0.05, -0.1, 0.02))
    kind = adaptation.KindScores("point", 9, 0.01, 0.78, 0.6, gain, gain, (lower,))
    lost = adaptation.KindScores("box", 9, 0.88, 0.86, 0.7, adaptation.Gain(-0.02), adaptation.Gain(0.1))
    mask = np.zeros((20, 24), np.bool_)
    mask[5:12, 6:15] = True
    example = adaptation.HeldOutExample("Liver", 3, np.full((20, 24), 90, np.uint8), mask, mask & False, mask)
    return adaptation.Adaptation(
        f"{request.model_id}+{request.name}", request.model_id, "0" * 64, "1" * 64, 9, (kind,), (lost,), "blocks", 3,
        1, 1, 300, 300, (), {}, ("a note",), request.training, (example,) * 3,
    )  # fmt: skip


def completed(scene, name, *, slices=6):
    """An image with a segment that is completed, and one that is not."""
    array = np.arange(slices * 80, dtype=np.int16).reshape(slices, 8, 10) + len(name)
    image = add_volume_node(scene, Volume(array, Geometry(np.eye(4), array.shape), name=name))
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.SetReferenceImageGeometryParameterFromVolumeNode(image)
    for number, segment in enumerate(("Liver", "Draft")):
        key = node.GetSegmentation().AddEmptySegment(segment, segment)
        mask = np.zeros((slices, 8, 10), np.uint8)
        mask[1:4, 2 * number : 2 * number + 2, 3:7] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, key, image)
    set_completed(node.GetSegmentation().GetSegment("Liver"), True)
    return image, node


@pytest.fixture
def teach(rig):
    """Opens the dialog for a client."""

    def make(client):
        from FoundationSegPanel.learning_part import TeachDialog
        from FoundationSegPanel.model_installer import ModelInstaller

        rig.card()
        rig.models.append(ModelInstaller(open_client=lambda *_: client))
        rig.kept = []
        models = rig.models[-1]
        return rig.show(TeachDialog(models, models.catalogue["lite-medsam"], "auto", rig.kept.append))

    return make


def cases(dialog):
    return cells(dialog.ui.casesTable, 3)


def test_it_learns_from_completed_segments_of_the_scene_and_of_a_folder(rig, teach, tmp_path):
    completed(rig.desk.scene, "Here")
    image, node = completed(rig.desk.scene, "there")
    (tmp_path / "cases").mkdir()
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(tmp_path / "cases" / "there.nrrd"))
    assert storage.WriteData(image)
    write_segmentation(node, tmp_path / "cases" / "there.seg.nrrd")
    for each in (image, node):
        rig.desk.scene.RemoveNode(each)
    client = teacher()
    dialog = teach(client)
    assert cases(dialog) == [("Here", "Liver", "3")] and "min" in dialog.ui.estimateLabel.text
    rig.desk.answer_dialogs(choose_file(tmp_path / "cases"))
    rig.desk.click(dialog.ui.folderButton)
    assert cases(dialog) == [("Here", "Liver", "3"), ("there.nrrd", "Liver", "3")]
    unwrap(dialog.ui.casesTable).item(1, 0).setCheckState(Qt.CheckState.Unchecked)
    rig.desk.click(dialog.ui.startButton)
    rig.wait(lambda: "beyond chance" in dialog.ui.messageLabel.text)
    segments = client.requests[0].segments
    assert [(part.name, part.mask.voxels, part.elsewhere) for part in segments] == [
        ("Liver", 24, False),
        ("Liver", 24, True),
    ]
    assert len(client.volumes) == len({part.patient for part in segments}) == 2
    assert rig.desk.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


def test_a_result_is_shown_before_and_after_and_discarded(rig, teach):
    completed(rig.desk.scene, "Here")
    dialog = teach(teacher(passes=False))
    rig.desk.click(dialog.ui.startButton)
    rig.wait(lambda: dialog.ui.discardButton.enabled)
    assert "not better" in dialog.ui.messageLabel.text and not dialog.ui.keepButton.enabled
    assert "not better" in dialog.ui.keepButton.toolTip
    text = dialog.ui.resultLabel.text
    assert text.count("<img") == 3 and "0.01 to 0.78" in text and "a note" in text
    assert "lower for Spleen: Dice 0.75 to 0.70 (gain" in text
    assert "Elsewhere, a box: Dice 0.88 to 0.86, without a model 0.70<br>" in text, "one patient has no interval"
    assert "after 100 steps" in dialog.ui.curveLabel.text and "<img" in dialog.ui.curveLabel.text
    rig.desk.click(dialog.ui.discardButton)
    assert not dialog.ui.discardButton.enabled and dialog.ui.startButton.enabled and not rig.kept


def test_a_result_that_is_kept_is_a_model_like_any_other(rig, teach):
    completed(rig.desk.scene, "Here")
    dialog = teach(teacher())
    rig.desk.click(dialog.ui.startButton)
    rig.wait(lambda: dialog.ui.keepButton.enabled)
    installer, content = rig.models[-1], b"the difference"
    store, base = installer.installation.store, installer.catalogue["lite-medsam"]
    learned_from = LearnedFrom("0" * 64, 1, 1, 300, "2026-01-01", "0", ())
    card = make_card(base, "mine", ("point",), learned_from, hashlib.sha256(content).hexdigest(), len(content))
    folder = adaptation_folder(store.folder, card.id)
    folder.mkdir(parents=True)
    (folder / DELTA_FILE).write_bytes(content)
    (folder / CARD_FILE).write_text(toml_text(card), encoding="utf-8")
    rig.desk.click(dialog.ui.keepButton)
    assert "is kept" in dialog.ui.messageLabel.text and [kept.id for kept in rig.kept] == [card.id]
    assert installer.catalogue[card.id] == card and store.status(card) == "ready" and not dialog.is_busy
    rig.desk.click(dialog.ui.startButton)
    assert "there is a lite-medsam+mine already" in dialog.ui.messageLabel.text


def test_it_can_be_stopped_and_closed_at_any_time(rig, teach):
    completed(rig.desk.scene, "Here")
    dialog = teach(teacher(ends=False))
    rig.desk.click(dialog.ui.startButton)
    rig.wait(lambda: "Training: 120 of 300" in dialog.ui.messageLabel.text)
    assert not dialog.ui.startButton.enabled
    rig.desk.click(dialog.ui.stopButton)
    rig.wait(lambda: "goes on from the last 50 steps" in dialog.ui.messageLabel.text)
    rig.desk.click(dialog.ui.startButton)
    assert dialog.is_busy and not dialog.ui.startButton.enabled


def test_without_a_completed_segment_it_says_what_to_do(rig, teach):
    dialog = teach(teacher())
    assert "Accept one" in dialog.ui.messageLabel.text and not dialog.ui.startButton.enabled
