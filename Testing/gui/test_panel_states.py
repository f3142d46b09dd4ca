"""What the panel shows and does when things happen in another order than a tutorial's."""

import json
from dataclasses import replace

import numpy as np
import pytest
import slicer

from FoundationSegLib.catalog.catalogue import CARDS_VARIABLE
from FoundationSegLib.mrml.segment_tags import lock
from FoundationSegLib.mrml.surfaces import CLOSED_SURFACE, has_surfaces, make_surfaces, smoothing
from Testing.gui.panel_desk import MODULE
from Testing.mrml.controller_cases import CATALOGUE
from Testing.slicer_standin.proxy import unwrap


def roi(at_panel, center=(0.0, 0.0, 14.0), size=(20.0, 20.0, 20.0)):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    node.SetCenter(*center)
    node.SetSize(*size)
    return node


def test_an_answer_leaves_the_selection_alone(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.box((5, 6, 4), (14, 20, 4))
    first = at_panel.work.segment_id
    desk.click(ui.objectsBox)
    at_panel.client.is_slow = True
    at_panel.box((20, 6, 4), (25, 20, 4))
    ui.segmentsTable.setSelectedSegmentIDs([first])
    at_panel.let_pass()
    at_panel.reply()
    assert at_panel.work.segment_id == at_panel.wanted.segmentId == first


def test_an_error_goes_with_what_is_done_next(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.box((5, 6, 4), (14, 20, 4))
    ui.promptsSection.collapsed = False
    desk.click(ui.removePromptButton)
    assert "select prompts" in ui.messageLabel.text
    at_panel.box((20, 6, 4), (25, 20, 4))
    assert not ui.messageFrame.visible


def test_an_error_hides_no_question(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.model("SlimSAM-77")
    at_panel.box((5, 6, 4), (8, 9, 4))
    ui.promptsSection.collapsed = False
    desk.click(ui.removePromptButton)
    at_panel.tool(ui.pointButton)
    at_panel.click(6, 7, 4, ctrl=True)
    assert "delete 100 %" in ui.messageLabel.text


@pytest.mark.parametrize("what", ["refused", "pending"])
@pytest.mark.parametrize("how", ["undo", "reject"])
def test_a_message_goes_with_what_it_was_about(at_panel, what, how):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.model("SlimSAM-77")
    at_panel.box((5, 6, 4), (8, 9, 4))
    at_panel.client.fails = what == "refused"
    at_panel.tool(ui.pointButton)
    at_panel.click(6, 7, 4, ctrl=True)
    assert ui.messageFrame.visible
    desk.click(ui.undoButton if how == "undo" else ui.rejectButton)
    assert not ui.messageFrame.visible
    at_panel.let_pass()
    assert at_panel.voxels() == 16 and not ui.messageFrame.visible


@pytest.mark.parametrize(
    ("first", "last", "view", "text"),
    [
        ((5, 6, 4), (14, 6, 4), "Red", "the box is one voxel thick along j and k: it needs two or more"),
        ((5, 6, 0), (14, 6, 0), "Green", "the box is one voxel thick along j and k: it needs two or more"),
    ],
)
def test_what_cannot_be_drawn_is_refused_without_a_place_in_a_file(at_panel, first, last, view, text):
    at_panel.box(first, last, view)
    assert at_panel.ui.messageLabel.text.startswith(text) and not at_panel.client.asked


def test_notes_name_no_place_in_a_file(at_panel):
    at_panel.box((5, 6, 4), (14, 20, 4))
    edited = at_panel.work.outcome
    notes = {
        "segments[0]: the model found nothing": "the model found nothing",
        "segments[0].prompts[1].corners: clipped to the image": "clipped to the image",
        "segments[0].prompts[0] and segments[0].prompts[1]: two clicks became a box": "two clicks became a box",
        "encoded again: 1 of 2 slices": "encoded again: 1 of 2 slices",
    }
    at_panel.work.outcome = replace(edited, notes=tuple(notes))
    at_panel.panel.answer.show()
    assert at_panel.ui.changeLabel.text.endswith("".join(f"<br>{text}" for text in notes.values()))


def test_nothing_is_shown_within_the_turn_of_the_mouse_or_of_the_answer(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.client.is_slow = True
    at_panel.look_at(5, 6, 4)
    at_panel.tool(ui.boxButton)
    mouse, rig = desk.mouse("Red"), desk.slice_widget("Red").rig
    rig.drag(mouse.pixels(at_panel.at(5, 6, 4)), mouse.pixels(at_panel.at(14, 20, 4)))
    assert at_panel.work.is_busy and not ui.progressRow.visible
    at_panel.let_pass()
    assert ui.progressRow.visible
    at_panel.client.reply()
    at_panel.work.tick()
    assert at_panel.voxels() == 150 and not ui.changeLabel.visible and ui.progressRow.visible
    at_panel.let_pass()
    assert ui.changeLabel.visible and not ui.progressRow.visible


def test_a_failure_is_not_shown_while_it_is_asked_again(at_panel):
    ui = at_panel.ui
    at_panel.client.fails = True
    at_panel.box((5, 6, 4), (14, 20, 4))
    at_panel.client.fails, at_panel.client.is_slow = False, True
    at_panel.box((20, 6, 4), (25, 20, 4))
    assert not ui.messageFrame.visible and ui.progressRow.visible
    at_panel.reply()
    assert at_panel.voxels() == 240


def test_a_segment_that_is_locked_while_the_model_works(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.box((5, 6, 4), (14, 20, 4))
    at_panel.client.is_slow = True
    at_panel.box((20, 6, 4), (25, 20, 4))
    desk.click(ui.lockButton)
    assert "'Segment' waits for an answer" in ui.messageLabel.text and not ui.lockButton.checked
    lock(at_panel.work.selected_node_segment, True)  # as a script does
    at_panel.reply()
    assert at_panel.voxels() == 150 and "locked meanwhile" in ui.messageLabel.text
    assert len(slicer.util.getNodesByClass("vtkMRMLMarkupsNode")) == 1 and not ui.progressRow.visible
    desk.click(ui.messageYesButton)
    desk.click(ui.lockButton)
    at_panel.client.is_slow = False
    ui.promptsSection.collapsed = False
    at_panel.let_pass()
    assert ui.promptsTable.rowCount == 1
    at_panel.box((20, 6, 4), (25, 20, 4))
    assert at_panel.voxels() == 240 and ui.promptsTable.rowCount == 2


def test_a_range_begins_with_all_slices(at_panel):
    ui, desk, wanted = at_panel.ui, at_panel.desk, at_panel.wanted
    for section in (ui.propagateSection, ui.advancedSection):
        section.collapsed = False
    at_panel.let_pass()
    desk.click(ui.rangeBox)
    assert (wanted.rangeFrom, wanted.rangeTo, ui.rangeToBox.value) == (0, 11, 11)
    desk.choose(ui.regionBox, "In a range of slices only")
    assert (wanted.regionFrom, wanted.regionTo, ui.regionToBox.value) == (0, 11, 11)
    ui.tabs.setCurrentIndex(1)
    desk.choose(ui.subjectBox, "A range of slices")
    assert (wanted.classifyFrom, wanted.classifyTo, ui.classifyToBox.value) == (0, 11, 11)


def test_a_region_that_is_moved_is_where_it_is(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.box((5, 6, 4), (14, 20, 4))
    node = roi(at_panel, (0.0, 0.0, 6.0), (200.0, 200.0, 9.0))  # slices 3 to 5
    at_panel.wanted.roi, at_panel.wanted.region = node, "roi"
    node.SetCenter(0.0, 0.0, 18.0)  # slices 6 to 8
    node.SetSize(200.0, 200.0, 49.0)
    ui.propagateSection.collapsed = False
    at_panel.let_pass()
    desk.click(ui.propagateButton)
    at_panel.settle()
    assert at_panel.voxels() > 450  # of its first place


@pytest.mark.parametrize("what", ["none", "outside"])
def test_without_the_wished_region_nothing_is_done(at_panel, what):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.wanted.roi = None if what == "none" else roi(at_panel, (900.0, 0.0, 0.0))
    ui.advancedSection.collapsed = False
    desk.choose(ui.regionBox, "In a region of interest only")
    assert not ui.messageFrame.visible
    at_panel.box((5, 6, 4), (14, 20, 4))
    assert "region of interest" in ui.messageLabel.text and at_panel.client.asked == []
    desk.click(ui.messageYesButton)
    ui.kindBox.setEditText("Liver")
    at_panel.let_pass()
    assert not ui.messageFrame.visible


def test_many_objects_keep_to_the_region(at_panel):
    ui = at_panel.ui
    at_panel.wanted.manyObjects = True
    at_panel.wanted.regionFrom, at_panel.wanted.regionTo, at_panel.wanted.region = 4, 5, "slices"
    at_panel.box((5, 6, 2), (14, 6, 8), "Green")
    assert at_panel.voxels() == 10 * 2 and not ui.messageFrame.visible


def test_words_keep_to_the_region(at_panel):
    at_panel.model(CATALOGUE["vista3d"].title)
    at_panel.wanted.regionFrom, at_panel.wanted.regionTo, at_panel.wanted.region = 4, 5, "slices"
    at_panel.ui.wordsBox.setEditText("liver, spleen")
    at_panel.desk.click(at_panel.ui.wordsButton)
    at_panel.settle()
    assert at_panel.names() == ["liver", "spleen"] and 0 < at_panel.voxels("liver") <= 2 * 32 * 40
    assert at_panel.work.segment_id == at_panel.segmentation.GetNthSegmentID(1)


def test_a_segment_that_is_unselected_is_shown_as_selected_while_it_is(at_panel):
    at_panel.box((5, 6, 4), (14, 20, 4))
    at_panel.ui.segmentsTable.clearSelection()
    at_panel.let_pass()
    assert list(at_panel.ui.segmentsTable.selectedSegmentIDs()) == [at_panel.work.segment_id]


def test_a_window_that_makes_no_sense_is_refused(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    desk.choose(ui.intensityBox, "Width, level:")
    for text in ("wide", "0,40", "350", "nan,1"):
        desk.type(ui.windowEdit, text, enter=True)
        assert ui.messageFrame.visible and at_panel.wanted.intensity == "auto"
        desk.click(ui.messageYesButton)
    desk.type(ui.windowEdit, "350, 50", enter=True)
    assert at_panel.wanted.intensity == "350,50" and not ui.messageFrame.visible


def test_doubt_is_shown_on_wish_jumps_and_is_mapped_and_slices_between_are_asked_for(at_panel):
    ui, desk, work = at_panel.ui, at_panel.desk, at_panel.work
    ui.propagateSection.collapsed = False
    assert not ui.uncertaintyButton.enabled and not ui.doubtLabel.visible
    at_panel.box((5, 6, 4), (14, 20, 4))
    state = work.session.history.segments[work.segment_id].state
    scores = {"axis": "k", "numbers": [3, 4, 5, 6], "scores": [0.95, 0.9, 0.4, 0.9]}
    options = json.dumps(json.loads(state.provenance["Options"]) | {"slices": scores})
    told = replace(state, provenance={**state.provenance, "Options": options})
    work.session.history.segments[work.segment_id].state = told
    ui.doubtBox.checked = True
    at_panel.let_pass()
    assert ui.doubtLabel.visible and ui.doubtLabel.text.count('href="') == 5
    slice_node = desk.slice_widget("Red").mrmlSliceNode()
    for link, k in (("3", 3), ("next", 5), ("next", 5)):
        unwrap(ui.doubtLabel).linkActivated.emit(link)
        assert slice_node.GetSliceOffset() == pytest.approx(at_panel.at(0, 0, k)[2])
    ui.doubtBox.checked = False
    at_panel.let_pass()
    assert not ui.doubtLabel.visible
    before = at_panel.voxels()
    desk.click(ui.uncertaintyButton)
    at_panel.settle()
    assert len(at_panel.client.asked[-1].segments) == 8 and at_panel.voxels() == before
    (node,) = [
        node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if "uncertainty" in node.GetName()
    ]
    display = node.GetDisplayNode()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 1)
    assert 0 < slicer.util.arrayFromVolume(node).max() <= 1
    at_panel.box((5, 6, 8), (14, 20, 8))
    desk.choose(ui.betweenBox, "Interpolate between mine")
    desk.click(ui.propagateButton)
    at_panel.settle()
    assert at_panel.client.asked[-1].propagation.hand_over == "interpolate"
    assert [prompt.kind for prompt in at_panel.client.asked[-1].segments[0].prompts] == ["mask", "mask"]


def test_surfaces_are_smoothed_for_display_alone(at_panel):
    ui = at_panel.ui
    at_panel.box((5, 6, 4), (14, 20, 4))
    before, node = at_panel.voxels(), at_panel.wanted.segmentation
    make_surfaces(node)
    surface = node.GetSegmentation().GetNthSegment(0).GetRepresentation(CLOSED_SURFACE)
    smooth = surface.GetPoint(0)
    assert ui.smoothingBox.value == smoothing(node) == 0.5
    ui.smoothingBox.value = 0.0
    at_panel.desk.wait_until(lambda: surface.GetPoint(0) != smooth)
    assert smoothing(node) == 0.0 and at_panel.voxels() == before


def test_what_is_drawn_by_hand_can_be_propagated(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "By hand")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(at_panel.volume_node)
    key = node.GetSegmentation().AddEmptySegment("", "Lung")
    voxels = np.zeros((12, 40, 32), np.uint8)
    voxels[5, 6:21, 5:15] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, key, at_panel.volume_node)
    desk.choose(ui.segmentationSelector, node)
    ui.segmentsTable.setSelectedSegmentIDs([key])
    at_panel.let_pass()
    assert "2.40 ml" in ui.segmentLabel.text
    voxels[4] = voxels[5]
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, key, at_panel.volume_node)
    ui.propagateSection.collapsed = False
    at_panel.model("SlimSAM-77")
    desk.click(ui.propagateButton)
    at_panel.settle()
    assert not ui.messageFrame.visible and at_panel.client.asked


def test_surfaces_of_others_stay_and_follow(at_panel):
    """Slicer would make them anew within every write; they are made when there is time."""
    at_panel.box((5, 6, 4), (14, 20, 4))
    node = at_panel.wanted.segmentation
    make_surfaces(node)
    surface = at_panel.segmentation.GetNthSegment(0).GetRepresentation("Closed surface")
    before = surface.GetBounds()
    at_panel.box((20, 6, 4), (25, 20, 4))
    assert has_surfaces(node) and surface.GetBounds() == before
    at_panel.desk.wait_until(lambda: surface.GetBounds() != before, 5)


def test_surfaces_of_another_segmentation(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.box((5, 6, 4), (14, 20, 4))
    first = at_panel.wanted.segmentation
    desk.choose(ui.segmentationSelector, None)
    ui.advancedSection.collapsed = False
    at_panel.let_pass()
    desk.click(ui.surfaceBox)
    desk.choose(ui.segmentationSelector, first)
    desk.wait_until(lambda: has_surfaces(first), 5)


def test_numbers_of_slices_are_never_negative(at_panel):
    ui = at_panel.ui
    for name in ("range", "region", "classify"):
        for box in (getattr(ui, f"{name}FromBox"), getattr(ui, f"{name}ToBox")):
            assert box.minimum == 0


def test_a_wrong_card_of_the_users_own_leaves_the_panel_usable(desk, tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text("no card")
    monkeypatch.setenv(CARDS_VARIABLE, str(tmp_path))
    monkeypatch.syspath_prepend(str(MODULE.parent))
    widget = desk.open_module(MODULE)
    assert widget.ui.modelBox.count > 5 and "mine.toml" in str(widget.panel.installer.catalogue_problem)


def test_what_was_given_up_is_said_until_somebody_has_read_it(at_panel):
    """The answer to what waited behind it comes at once, and must not wipe the message away."""
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.box((5, 6, 4), (14, 20, 4))
    at_panel.client.is_slow = True
    at_panel.box((20, 6, 4), (25, 20, 4))
    lock(at_panel.work.selected_node_segment, True)
    desk.click(ui.addButton)
    at_panel.box((5, 25, 6), (14, 26, 6))
    at_panel.reply()
    assert "locked meanwhile" in ui.messageLabel.text and at_panel.voxels() == 20
    at_panel.box((5, 25, 8), (14, 26, 8))
    at_panel.reply()
    assert at_panel.voxels() == 40 and "locked meanwhile" in ui.messageLabel.text
    desk.click(ui.messageYesButton)
    assert not ui.messageFrame.visible
