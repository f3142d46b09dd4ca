"""The effect "Foundation prompt" in a Segment Editor, by mouse: the panel's session in another place."""

from pathlib import Path

import pytest
import slicer

from Testing.gui.panel_desk import MODULE
from Testing.slicer_standin.dialogs import press

SEGMENT_EDITOR = Path(__file__).resolve().parents[1] / "slicer_standin" / "slicer_packages" / "SegmentEditor.py"
NAME = "Foundation prompt"


class EditorDesk:
    """The Segment Editor with the effect chosen, beside the module's panel."""

    def __init__(self, at_panel):
        self.at, self.desk = at_panel, at_panel.desk
        self.desk.complete_startup()
        self.desk.load_module(SEGMENT_EDITOR)
        self.desk.select_module("SegmentEditor")
        self.editor = slicer.modules.SegmentEditorWidget.editor
        self.choose(NAME)

    def choose(self, name):
        self.editor.setActiveEffectByName(name)
        self.at.let_pass()

    @property
    def node(self):
        return self.editor.mrmlSegmentEditorNode()

    @property
    def ui(self):
        return self.at.panel.effect._ui

    def box(self, first, last, view="Red"):
        self.at.look_at(*first)
        self.desk.mouse(view).drag(self.at.at(*first), self.at.at(*last))
        self.at.settle()

    def voxels(self):
        """The size of each segment, by name."""
        segmentation = self.node.GetSegmentationNode()
        ids = segmentation.GetSegmentation().GetSegmentIDs()
        names = [segmentation.GetSegmentation().GetSegment(key).GetName() for key in ids]
        arrays = [slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, key, self.at.volume_node) for key in ids]
        return dict(zip(names, [int(array.sum()) for array in arrays], strict=True))

    def selected(self):
        key = self.node.GetSelectedSegmentID()
        return key and self.node.GetSegmentationNode().GetSegmentation().GetSegment(key).GetName()

    def undo(self, count=1):
        for _ in range(count):
            self.editor.undo()
            self.at.let_pass()

    def redo(self, count=1):
        for _ in range(count):
            self.editor.redo()
            self.at.let_pass()


@pytest.fixture
def at_editor(at_panel):
    return EditorDesk(at_panel)


def test_nothing_of_the_panel_is_made_before_the_effect_is_chosen(desk):
    desk.load_module(MODULE)
    desk.complete_startup()
    desk.complete_startup()  # registered once, whoever does it again
    desk.load_module(SEGMENT_EDITOR)
    desk.select_module("SegmentEditor")
    editor = slicer.modules.SegmentEditorWidget.editor
    effect = editor.effectByName(NAME)
    assert effect.title == NAME and "boxes" in effect.self().helpText() and not effect.self().icon().isNull()
    assert not hasattr(slicer.modules, "FoundationSegWidget")
    editor.setActiveEffectByName(NAME)
    desk.process_events()
    panel = slicer.modules.FoundationSegWidget.panel
    assert panel.effect is not None and not panel.is_entered and "LiteMedSAM" in panel.effect._ui.modelLabel.text


def test_a_box_is_one_state_of_the_editors_undo_and_a_step_of_our_history(at_editor):
    at, ui = at_editor.at, at_editor.ui
    at_editor.box((5, 6, 4), (14, 20, 4))
    assert at_editor.voxels() == {"Segment": 150} and at_editor.selected() == "Segment"
    at_editor.box((5, 6, 6), (14, 20, 6))
    assert at_editor.voxels() == {"Segment": 300} and len(at.work.summary().prompts) == 2
    at_editor.undo()
    assert at_editor.voxels() == {"Segment": 150} and len(at.work.summary().prompts) == 1
    assert "Undone" in ui.changeLabel.text and ui.redoButton.enabled
    at_editor.undo()
    assert at_editor.voxels() == {} and not at_editor.editor._q.logic.CanUndo()
    at_editor.redo(2)
    assert at_editor.voxels() == {"Segment": 300}
    at_editor.node.SetSelectedSegmentID(at_editor.node.GetSegmentationNode().GetSegmentation().GetNthSegmentID(0))
    at.let_pass()
    assert len(at.work.summary().prompts) == 2
    at_editor.desk.click(ui.undoButton)
    assert at_editor.voxels() == {"Segment": 150}
    at_editor.undo()  # what our button did is a state of the editor's, too
    assert at_editor.voxels() == {"Segment": 300} and len(at.work.summary().prompts) == 2

    at.client.is_slow = True  # an answer that comes once the effect was left is a state as well
    at_editor.box((5, 6, 8), (14, 20, 8))
    tool = at.panel.effect.tools.tool
    at_editor.choose("")
    assert not tool.is_enabled and at.panel.effect is None
    at.client.is_slow = False
    at.reply()
    assert at_editor.voxels() == {"Segment": 450}
    at_editor.undo()
    assert at_editor.voxels() == {"Segment": 300}

    session = at.work.session  # the panel goes on with the same one
    at_editor.desk.select_module("FoundationSeg")
    at.let_pass()
    assert at.panel.tools.tool.is_enabled and at.work.session is session and at.work.can_undo
    assert at.wanted.segmentId == at_editor.node.GetSelectedSegmentID()
    at.box((5, 6, 10), (14, 20, 10))
    assert at_editor.voxels() == {"Segment": 450}
    at_editor.desk.select_module("SegmentEditor")
    at_editor.choose(NAME)
    assert not at.panel.tools.tool.is_enabled and at.panel.effect.tools.tool.is_enabled


def test_masking_overwriting_and_choices_are_the_editors(at_editor):
    at, node = at_editor.at, at_editor.node
    at.wanted.region, at.wanted.manyObjects, at.wanted.overlap = "slices", True, "protect"  # of the panel alone
    at_editor.box((5, 6, 4), (14, 20, 4))
    first = node.GetSelectedSegmentID()
    for mode, area, sizes in (
        (node.OverwriteNone, "EditAllowedEverywhere", {"Segment": 150, "Segment 1": 150}),
        (node.OverwriteAllSegments, "EditAllowedEverywhere", {"Segment": 75, "Segment 1": 150}),
        (node.OverwriteNone, "EditAllowedInsideSingleSegment", {"Segment": 150, "Segment 1": 75}),
    ):
        node.SetOverwriteMode(mode)
        node.SetMaskMode(getattr(slicer.vtkMRMLSegmentationNode, area))
        node.SetMaskSegmentID(first)
        node.SetSelectedSegmentID("")
        at.let_pass()
        at_editor.box((10, 6, 4), (19, 20, 4))
        assert at_editor.voxels() == sizes, (mode, area)
        at_editor.undo()
        assert at_editor.voxels() == {"Segment": 150}
    node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere)

    node.SetSelectedSegmentID(first)  # a hidden segment is asked for, as by any effect
    node.GetSegmentationNode().GetDisplayNode().SetSegmentVisibility(first, False)
    at_editor.desk.answer_dialogs(press("Cancel", containing="hidden"), press("Yes", containing="hidden"))
    for count in (150, 300):
        at_editor.box((5, 6, 6), (14, 20, 6))
        assert at_editor.voxels() == {"Segment": count}

    theirs = at_editor.desk.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    theirs.GetSegmentation().AddEmptySegment("", "Theirs")
    at_editor.editor.setSegmentationNode(theirs)
    at.let_pass()
    assert at.panel.effect is None  # Slicer puts the effect away then
    at_editor.choose(NAME)
    node.SetAndObserveSourceVolumeNode(at.volume_node)
    at.let_pass()
    assert at.wanted.segmentation is theirs and at_editor.selected() == "Theirs"
    at_editor.box((5, 6, 4), (14, 20, 4))
    assert at_editor.voxels() == {"Theirs": 150}
    node.SetAndObserveSourceVolumeNode(None)
    at.let_pass()
    assert at.wanted.volume is None and not at.panel.effect.tools.tool.is_enabled


def test_what_goes_while_the_effect_is_in_use(at_editor):
    at, desk = at_editor.at, at_editor.desk
    for what in ("segmentation", "scene", "image", "module"):
        at_editor.box((5, 6, 4), (14, 20, 4))
        assert at_editor.voxels() == {"Segment": 150}, what
        at.client.is_slow = True
        at_editor.box((5, 6, 6), (14, 20, 6))
        at.client.is_slow, tool = False, at.panel.effect.tools.tool
        if what == "scene":
            desk.scene.Clear(0)
        elif what == "module":
            desk.close_module("FoundationSeg")
        else:
            desk.scene.RemoveNode(at_editor.node.GetSegmentationNode() if what == "segmentation" else at.volume_node)
        at.let_pass()
        # Without a segmentation, the next box makes one, which the editor takes.
        assert tool.is_enabled == (what == "segmentation") and (at.panel.effect is None) == (
            what in ("scene", "module")
        )
        if what in ("scene", "image"):
            at.volume_node = at.add_volume("MR")
            desk.show_volume(at.volume_node)
            at_editor.editor.setSegmentationNode(desk.scene.AddNewNodeByClass("vtkMRMLSegmentationNode"))
            at_editor.editor.setSourceVolumeNode(at.volume_node)
            at_editor.choose(NAME)
