"""Prompts in the views: whose are shown, how, and what becomes of them when segments, modules and images change."""

import numpy as np
import pytest
import slicer

from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.volumes import add_volume_node
from Testing.gui.panel_desk import GRID
from Testing.slicer_standin.proxy import unwrap


@pytest.fixture
def two(at_panel):
    """Two segments with a box each; the second is selected."""
    at_panel.box((5, 6, 4), (14, 20, 4))
    at_panel.desk.click(at_panel.ui.addButton)
    at_panel.box((20, 6, 4), (25, 20, 4))
    return at_panel


def prompts():
    return slicer.util.getNodesByClass("vtkMRMLMarkupsNode")


def shown():
    return [bool(node.GetDisplayVisibility()) for node in prompts()]


def test_prompts_have_the_colour_of_their_segment_and_stand_out_with_it(two):
    displays = [node.GetDisplayNode() for node in prompts()]
    colours = [two.segmentation.GetNthSegment(n).GetColor() for n in range(2)]
    assert [display.GetSelectedColor() for display in displays] == colours
    assert [display.GetOpacity() for display in displays] == [0.35, 1.0]
    assert not any(display.GetVisibility3D() for display in displays)
    two.ui.segmentsTable.setSelectedSegmentIDs([two.segmentation.GetNthSegmentID(0)])
    two.let_pass()
    assert [display.GetOpacity() for display in displays] == [1.0, 0.35]


def test_prompts_hide_with_their_segment_and_by_their_switch(two):
    display = two.wanted.segmentation.GetDisplayNode()
    display.SetSegmentVisibility(two.segmentation.GetNthSegmentID(0), False)
    two.let_pass()
    assert shown() == [False, True]
    two.ui.promptsSection.collapsed = False
    two.desk.click(two.ui.showPromptsBox)
    two.let_pass()
    assert shown() == [False, False]
    two.desk.click(two.ui.showPromptsBox)
    display.SetSegmentVisibility(two.segmentation.GetNthSegmentID(0), True)
    two.let_pass()
    assert shown() == [True, True]


def test_prompts_are_the_modules_own(two):
    two.desk.select_module("SegmentEditor")
    two.let_pass()
    assert shown() == [False, False]
    two.desk.select_module("FoundationSeg")
    two.let_pass()
    assert shown() == [True, True]


@pytest.mark.parametrize("is_worked_on", [True, False])
def test_prompts_go_with_their_segmentation(two, is_worked_on):
    node = two.wanted.segmentation
    if not is_worked_on:
        two.desk.choose(two.ui.segmentationSelector, None)
        two.let_pass()
    two.desk.scene.RemoveNode(node)
    two.let_pass()
    assert prompts() == []


def test_an_image_that_is_loaded_is_chosen_once_it_takes_the_views(two):
    before, desk = two.wanted.volume, two.desk
    other = add_volume_node(desk.scene, Volume(np.ones(GRID.shape_kji, np.int16), GRID, name="Next patient"))
    desk.wait_until(lambda: not two.panel._loading.active, 5)
    assert two.wanted.volume is before, "it is in the background of no view"
    another = add_volume_node(desk.scene, Volume(np.ones(GRID.shape_kji, np.int16), GRID, name="The one after"))
    desk.show_volume(another)
    desk.wait_until(lambda: two.wanted.volume is another, 5)
    assert two.wanted.segmentation is None and other is not another


def test_a_scene_that_is_opened_again_shows_its_prompts_at_once(two, tmp_path):
    two.panel.controller.leave()  # as a scene is that comes with segments and prompts, and no session
    two.wanted.segmentId = two.segmentation.GetNthSegmentID(0)
    two.let_pass()
    assert two.work.session is not None and two.ui.promptsTable.rowCount == 0 and shown() == [True, True]
    two.ui.promptsSection.collapsed = False
    two.let_pass()
    assert two.ui.promptsTable.rowCount == 1


def test_a_corner_is_dragged_with_the_tool_in_hand_and_the_cursor_says_so(two, qt):
    two.tool(two.ui.boxButton)
    two.look_at(20, 6, 4)
    view, mouse = unwrap(two.desk.slice_widget("Red").sliceView()), two.desk.mouse("Red")
    assert view.cursor().shape().name == "BitmapCursor"
    corner = tuple(prompts()[1].GetNthControlPointPosition(0))
    mouse.move(corner)
    assert view.cursor().shape().name == "SizeAllCursor"
    assert two.panel.tools.tool.handles() and len(prompts()) == 2
    mouse.drag(corner, two.at(16, 3, 4))
    two.settle()
    assert len(prompts()) == 2, "no new box was drawn"
    assert two.voxels() > 90, "Slicer moved the corner, and the box followed"
    mouse.move(two.at(2, 2, 4))
    assert view.cursor().shape().name == "BitmapCursor"
    two.desk.select_module("SegmentEditor")
    assert view.cursor().shape().name == "ArrowCursor"


def test_a_click_with_the_box_tool_says_what_to_do(two):
    two.tool(two.ui.boxButton)
    two.click(10, 30, 4)
    assert "drag the box" in two.ui.messageLabel.text and two.voxels() == 90


def test_an_oblique_view_takes_a_box(two):
    node = two.desk.slice_widget("Red").mrmlSliceNode()
    node.GetSliceToRAS().SetElement(2, 0, 0.4)
    node.UpdateMatrices()
    two.tool(two.ui.boxButton)
    two.desk.mouse("Red").drag((100, 100), (180, 160))
    two.settle()
    assert len(prompts()) == 3 and two.voxels() > 90 and prompts()[2].GetNumberOfControlPoints() == 4


@pytest.fixture
def frames(at_panel):
    """The panel on an image in two frames; the browser."""
    scene, image = at_panel.desk.scene, unwrap(at_panel.volume_node)
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode")
    for n in range(2):
        slicer.util.updateVolumeFromArray(image, slicer.util.arrayFromVolume(image) + n)
        sequence.SetDataNodeAtValue(image, str(n))
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    at_panel.wanted.volume = browser.GetProxyNode(sequence)
    at_panel.desk.show_volume(at_panel.wanted.volume)
    at_panel.let_pass()
    at_panel.volume_node = at_panel.wanted.volume
    return browser


def test_segments_are_followed_through_all_frames_and_back(at_panel, frames):
    ui, desk = at_panel.ui, at_panel.desk
    desk.click(ui.timeButton)
    assert "Give a segment a prompt" in ui.messageLabel.text
    at_panel.box((5, 6, 4), (14, 20, 4))
    drawn = at_panel.wanted.segmentation
    desk.click(ui.timeButton)
    at_panel.settle()
    desk.click(ui.messageNoButton)
    assert at_panel.wanted.segmentation is drawn and drawn.GetDisplayVisibility() and at_panel.voxels() == 150
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 1, "the run was undone"
    desk.click(ui.timeButton)
    at_panel.settle()
    frames.SetSelectedItemNumber(1)
    at_panel.let_pass()
    assert at_panel.voxels() == 150
    desk.click(ui.messageNoButton)
    assert at_panel.wanted.segmentation is None, "undone in a frame that has no segments of its own"
    frames.SetSelectedItemNumber(0)
    at_panel.let_pass()
    assert at_panel.wanted.segmentation is drawn
    at_panel.wanted.segmentId = drawn.GetSegmentation().GetNthSegmentID(0)
    desk.click(ui.timeButton)
    at_panel.settle()
    followed = at_panel.wanted.segmentation
    assert followed is not drawn and "Followed through 2 frames" in ui.messageLabel.text
    assert followed.GetDisplayVisibility() and not drawn.GetDisplayVisibility()
    frames.SetSelectedItemNumber(1)
    at_panel.let_pass()
    assert at_panel.wanted.segmentation is followed and at_panel.voxels() == 150
    frames.SetSelectedItemNumber(0)
    at_panel.let_pass()
    at_panel.box((5, 6, 5), (14, 20, 5))  # the image of the session is still there
    assert at_panel.voxels() == 300
    desk.click(ui.timeButton)
    at_panel.settle()
    assert "1 corrected frames stayed" in ui.messageLabel.text
    desk.click(ui.messageNoButton)
    assert at_panel.wanted.segmentation is followed and at_panel.voxels() == 300, "a correction is no part of a run"


def test_each_frame_of_a_sequence_has_segments_and_prompts_of_its_own(at_panel, frames):
    browser = frames
    at_panel.box((5, 6, 4), (14, 20, 4))
    first = at_panel.wanted.segmentation
    assert at_panel.voxels() == 150 and len(prompts()) == 1
    browser.SetSelectedItemNumber(1)
    at_panel.let_pass()
    assert at_panel.wanted.segmentation is None and not prompts() and not first.GetDisplayVisibility()
    at_panel.box((20, 6, 4), (25, 20, 4))
    assert at_panel.voxels() == 90 and len(prompts()) == 1 and at_panel.wanted.segmentation is not first
    browser.SetSelectedItemNumber(0)
    at_panel.let_pass()
    assert at_panel.wanted.segmentation is first and first.GetDisplayVisibility() and shown() == [True]
    assert first.GetSegmentation().GetNumberOfSegments() == 1
    browser.SetPlaybackActive(True)
    browser.SetSelectedItemNumber(1)
    at_panel.let_pass()
    assert not prompts() and at_panel.work.session is None, "what is played is not read"


def test_views_wait_while_an_answer_is_written_and_are_drawn_afterwards(at_panel):
    pauses = []
    at_panel.box((5, 6, 4), (14, 20, 4))
    at_panel.work.session.listeners.append(lambda _edited: pauses.append(slicer.app._q._paused))
    at_panel.box((20, 6, 4), (25, 20, 4))
    assert pauses and all(pauses)
    at_panel.desk.wait_until(lambda: slicer.app._q._paused == 0)  # a prompt waits a moment, to be drawn with its answer
