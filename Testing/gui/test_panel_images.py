"""Images, segmentations and scenes at the panel: chosen, exchanged, empty, in colour, reopened."""

import numpy as np
import pytest
import slicer

from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.volumes import add_volume_node, reference_image
from Testing.gui.panel_desk import GRID


def test_a_selection_goes_with_its_segmentation(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.box((5, 6, 4), (14, 20, 4))
    segment_id = at_panel.work.segment_id
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Other")
    other.CreateDefaultDisplayNodes()
    other.GetSegmentation().AddEmptySegment(segment_id, "Of somebody else")
    desk.choose(ui.segmentationSelector, other)
    at_panel.let_pass()
    assert at_panel.work.segment_id == at_panel.wanted.segmentId == ""
    at_panel.box((5, 6, 4), (14, 20, 4))
    assert at_panel.voxels("Of somebody else") == 0 and at_panel.voxels("Segment") == 150


def test_an_image_that_is_chosen_is_shown_and_the_hint_knows(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.tool(ui.boxButton)
    other = at_panel.add_volume("MR")
    desk.choose(ui.volumeSelector, other)
    at_panel.let_pass()
    assert "Press and drag a box" in ui.hintLabel.text


def test_an_image_without_voxels(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    at_panel.tool(ui.boxButton)
    desk.choose(ui.volumeSelector, empty)
    at_panel.let_pass()
    assert ui.segmentsTable.segmentationNode() is at_panel.wanted.segmentation and not ui.messageFrame.visible


def test_a_label_map_is_not_taken_for_an_image(at_panel):
    desk = at_panel.desk
    desk.scene.Clear(0)
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels")
    image = at_panel.add_volume("CT")
    at_panel.widget.exit()
    at_panel.widget.enter()
    assert at_panel.wanted.volume is image


def test_a_colour_image(at_panel):
    voxels = np.zeros((*GRID.shape_kji, 3), np.uint8)
    voxels[..., 0] = np.arange(32)
    image = add_volume_node(at_panel.desk.scene, Volume(voxels, GRID, name="Photograph"))
    at_panel.desk.choose(at_panel.ui.volumeSelector, image)
    at_panel.let_pass()
    at_panel.volume_node = at_panel.wanted.volume
    assert at_panel.wanted.volume is image
    at_panel.box((5, 6, 4), (14, 20, 4))
    assert at_panel.voxels() == 150
    at_panel.desk.scene.RemoveNode(image)
    at_panel.let_pass()
    assert at_panel.wanted.volume is at_panel.ui.volumeSelector.currentNode()


def test_a_scene_that_is_reopened(at_panel, tmp_path):
    ui, scene = at_panel.ui, at_panel.desk.scene
    at_panel.model("SlimSAM-77")
    at_panel.box((5, 6, 4), (14, 20, 4))
    key = at_panel.work.segment_id
    for node, ending in ((at_panel.volume_node, "nrrd"), (at_panel.wanted.segmentation, "seg.nrrd")):
        node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(str(tmp_path / f"{node.GetID()}.{ending}"))
        assert node.GetStorageNode().WriteData(node)
    scene.SetRootDirectory(str(tmp_path))
    assert scene.Commit(str(tmp_path / "scene.mrml"))
    scene.Clear(0)
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Import()
    at_panel.let_pass()
    assert ui.volumeSelector.currentNode().GetName() == "CT"
    assert ui.segmentsTable.segmentationNode() is at_panel.wanted.segmentation is not None
    assert list(ui.segmentsTable.selectedSegmentIDs()) == [key] and ui.modelBox.currentText == "SlimSAM-77"
    at_panel.volume_node = at_panel.wanted.volume
    at_panel.desk.show_volume(at_panel.volume_node)
    at_panel.box((20, 6, 4), (25, 20, 4))
    assert at_panel.voxels() == 240 and at_panel.work.segment_id == key


def second_image(at_panel):
    """An image on the same lattice as the first."""
    node = at_panel.add_volume("MR")
    at_panel.desk.choose(at_panel.ui.volumeSelector, node)
    at_panel.desk.show_volume(node)
    at_panel.let_pass()
    return node


def test_choosing_an_image_chooses_its_own_segmentation(at_panel):
    ui, desk, first = at_panel.ui, at_panel.desk, at_panel.volume_node
    at_panel.box((5, 6, 4), (14, 20, 4))
    of_first = at_panel.wanted.segmentation
    second = second_image(at_panel)
    assert at_panel.wanted.segmentation is None and not of_first.GetDisplayVisibility()
    at_panel.box((20, 6, 4), (25, 20, 4))
    of_second = at_panel.wanted.segmentation
    assert of_second is not of_first and at_panel.voxels() == 90
    desk.choose(ui.volumeSelector, first)
    at_panel.let_pass()
    assert at_panel.wanted.segmentation is of_first and at_panel.voxels("Segment") == 150
    assert of_first.GetDisplayVisibility() and not of_second.GetDisplayVisibility()
    desk.choose(ui.volumeSelector, second)
    at_panel.let_pass()
    assert at_panel.wanted.segmentation is of_second


@pytest.mark.parametrize("answer", ["yes", "no", "selector"])
def test_a_prompt_for_another_images_segmentation_asks(at_panel, answer):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.box((5, 6, 4), (14, 20, 4))
    of_first = at_panel.wanted.segmentation
    second = second_image(at_panel)
    desk.choose(ui.segmentationSelector, of_first)
    at_panel.let_pass()
    at_panel.box((20, 6, 4), (25, 20, 4))
    assert "belongs to the image 'CT'" in ui.messageLabel.text and "'MR'" in ui.messageLabel.text
    assert ui.messageNoButton.visible and of_first.GetSegmentation().GetNumberOfSegments() == 1
    if answer == "selector":
        desk.choose(ui.segmentationSelector, None)
        at_panel.let_pass()
        assert not ui.messageFrame.visible
        return
    desk.click(ui.messageYesButton if answer == "yes" else ui.messageNoButton)
    at_panel.settle()
    assert not ui.messageFrame.visible and at_panel.voxels() == 90, "the prompt is not lost"
    assert (at_panel.wanted.segmentation is of_first) == (answer == "yes")
    assert of_first.GetSegmentation().GetNumberOfSegments() == (2 if answer == "yes" else 1)
    assert reference_image(at_panel.wanted.segmentation) is second
