"""A monkey at the panel: whatever it does in whatever order, nothing breaks, and no other segment loses a voxel."""

import random

import numpy as np
import pytest
import slicer

from FoundationSegLib.mrml.segments import read_segment
from Testing.gui.panel_desk import GRID
from Testing.gui.test_effect import NAME, SEGMENT_EDITOR

EDITS = ("undo", "undo", "redo", "effect", "area", "range", "select", "button")

# They open dialogs; those have tests of their own.
_NOT_FOR_MONKEYS = {
    "modelsButton",
    "readyButton",
    "classifyReadyButton",
    "settingsButton",
    "diagnosisButton",
    "importPromptsButton",
    "exportPromptsButton",
    "reportButton",
    "teachButton",
    "measuresButton",
}


class Monkey:
    """Does something random with what a user could reach."""

    def __init__(self, at_panel, seed):
        self.at, self.random = at_panel, random.Random(seed)
        self.done = []
        self.editor = None  # of the Segment Editor, while that is entered and not the panel
        at_panel.desk.complete_startup()
        at_panel.desk.load_module(SEGMENT_EDITOR)

    def act(self):
        name = self.random.choices(
            ("click", "combo", "draw", "key", "spin", "segment", "foreign", "scene", "slow", "visit", "edit"),
            (10, 4, 10, 4, 2, 3, 1, 1, 1, 2, 6),
        )[0]
        self.done.append(name)
        getattr(self, name)()
        if not self.at.client.is_slow and self.random.random() < 0.8:
            self.at.settle()
        self.at.let_pass()

    def widgets(self, *classes):
        found = []
        for name, widget in vars(self.at.ui).items():
            if name not in _NOT_FOR_MONKEYS and widget.className() in classes and widget.visible and widget.enabled:
                found.append(widget)
        return sorted(found, key=lambda widget: widget.objectName)

    def click(self):
        buttons = self.widgets("QPushButton", "QToolButton", "QCheckBox")
        if buttons:
            button = self.random.choice(buttons)
            self.done[-1] = f"click {button.objectName}"
            self.at.desk.click(button)

    def combo(self):
        combo = self.random.choice(self.widgets("QComboBox") or [None])
        if combo is not None and combo.count and combo.objectName not in ("overlapBox", "kindBox"):
            text = combo.itemText(self.random.randrange(combo.count))
            self.done[-1] = f"{combo.objectName} {text}"
            self.at.desk.choose(combo, text)

    def place(self):
        return self.random.randrange(32), self.random.randrange(40), self.random.randrange(12)

    def draw(self):
        # Without a tool the mouse is Slicer's own business, whose widgets are not what is tested here.
        drawing = self.at.panel.effect or self.at.panel
        if self.at.volume_node.GetScene() is None or not drawing.tools.tool.is_enabled:
            return
        view = self.random.choice(("Red", "Green", "Yellow"))
        first, last = self.place(), list(self.place())
        last[{"Red": 2, "Green": 1, "Yellow": 0}[view]] = first[{"Red": 2, "Green": 1, "Yellow": 0}[view]]
        self.at.look_at(*first)
        ctrl = self.random.random() < 0.2
        self.at.desk.mouse(view).drag(self.at.at(*first), self.at.at(*last), ctrl=ctrl)

    def key(self):
        keys = self.random.choice(("1", "2", "3", "4", "X", "N", "Ctrl+Z", "Ctrl+Y", "Backspace", "Return"))
        self.done[-1] = f"key {keys}"
        self.at.desk.press_key(self.at.desk.slice_widget("Red").sliceView(), keys)

    def spin(self):
        boxes = self.widgets("QSpinBox", "QDoubleSpinBox")
        if boxes:
            self.random.choice(boxes).value = self.random.randrange(12)

    def segment(self):
        if self.at.wanted.segmentation is not None:
            keys = self.at.segmentation.GetSegmentIDs()
            if keys:
                self.at.ui.segmentsTable.setSelectedSegmentIDs([self.random.choice(keys)])

    def visit(self):
        """Go to the Segment Editor and its effect, or back to the panel."""
        if self.editor is not None:
            self.editor = None
            self.at.desk.select_module("FoundationSeg")
        else:
            self.at.desk.select_module("SegmentEditor")
            self.editor = slicer.modules.SegmentEditorWidget.editor
            node = self.editor.mrmlSegmentEditorNode()
            node.SetOverwriteMode(node.OverwriteNone)
            self.editor.setActiveEffectByName(NAME)

    def edit(self):
        """Do something in the Segment Editor."""
        if self.editor is None:
            return
        node, what = self.editor.mrmlSegmentEditorNode(), self.random.choice(EDITS)
        self.done[-1] = f"edit {what}"
        segmentation = node.GetSegmentationNode()
        keys = segmentation.GetSegmentation().GetSegmentIDs() if segmentation is not None else ()
        if what in ("undo", "redo"):
            getattr(self.editor, what)()
        elif what == "effect":
            self.editor.setActiveEffectByName(self.random.choice(("", NAME, NAME)))
        elif what == "area":
            node.SetMaskMode(self.random.randrange(5))
        elif what == "range":
            node.SetSourceVolumeIntensityMask(self.random.random() < 0.5)
            node.SetSourceVolumeIntensityMaskRange(self.random.randrange(9000), 12000)
        elif what == "select":
            node.SetSelectedSegmentID(self.random.choice(("", *keys)))
        elif what == "button" and self.at.panel.effect is not None:
            ui = self.at.panel.effect._ui
            names = ("undoButton", "redoButton", "acceptButton", "boxButton", "lassoButton", "messageNoButton")
            button = getattr(ui, self.random.choice(names))
            if button.enabled and button.visible:
                self.at.desk.click(button)

    def foreign(self):
        """Somebody else paints, or deletes a segment."""
        node = self.at.wanted.segmentation
        if node is None or not node.GetSegmentation().GetNumberOfSegments() or self.at.wanted.volume is None:
            return
        key = self.random.choice(node.GetSegmentation().GetSegmentIDs())
        if self.random.random() < 0.3:
            node.GetSegmentation().RemoveSegment(key)
            return
        voxels = slicer.util.arrayFromSegmentBinaryLabelmap(node, key, self.at.wanted.volume)
        if voxels is not None:
            i, j, k = self.place()
            voxels[k, j : j + 2, i : i + 2] = self.random.randrange(2)
            slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, key, self.at.wanted.volume)

    def scene(self):
        """Nodes come and go, the scene is closed, another module is visited."""
        what = self.random.choice(("close", "segmentation", "volume", "new segmentation", "leave"))
        self.done[-1] = f"scene {what}"
        desk, at = self.at.desk, self.at
        if what == "close":
            desk.scene.Clear(0)
        elif what == "segmentation" and at.wanted.segmentation is not None:
            desk.scene.RemoveNode(at.wanted.segmentation)
        elif what == "volume" and at.volume_node.GetScene() is not None:
            desk.scene.RemoveNode(at.volume_node)
        elif what == "new segmentation":
            node = desk.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
            node.CreateDefaultDisplayNodes()
            at.wanted.segmentation = node
        elif what == "leave" and self.editor is None:
            at.widget.exit()
            at.let_pass()
            at.widget.enter()
        at.let_pass()
        if what == "close" and self.editor is not None:
            self.visit()
        if at.volume_node.GetScene() is None:
            at.volume_node = at.add_volume("CT")
            desk.show_volume(at.volume_node)
            at.wanted.volume = at.volume_node

    def slow(self):
        """The model answers late, or fails, or both no more."""
        client = self.at.client
        client.is_slow, client.fails = self.random.random() < 0.3, self.random.random() < 0.2
        if not client.is_slow and client._open is not None:
            client.reply()


def segments(at_panel):
    """The voxels of every segment of every segmentation, by node and segment."""
    found = {}
    if at_panel.volume_node.GetScene() is None:
        return found
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        for key in node.GetSegmentation().GetSegmentIDs():
            found[node.GetID(), key] = read_segment(node.GetSegmentation().GetSegment(key), GRID)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_monkey_does(at_panel, seed, full):
    monkey = Monkey(at_panel, seed)
    for section in ("propagateSection", "promptsSection", "advancedSection"):
        getattr(at_panel.ui, section).collapsed = False
    at_panel.let_pass()
    for _ in range(2500 if full else 70):
        before, touched = segments(at_panel), {at_panel.work.segment_id}
        if at_panel.work.session is not None:  # an answer may come for what was asked before another was selected
            touched |= at_panel.work.session.queued_targets()
        monkey.act()
        touched.add(at_panel.work.segment_id)
        what = monkey.done[-1]
        if what.startswith(("foreign", "scene", "edit undo", "edit redo", "edit button")):
            continue
        after = segments(at_panel)
        for key, mask in before.items():
            if key[1] not in touched and key in after:
                assert np.array_equal(after[key], mask), f"{monkey.done[-8:]} changed another segment"
            elif key not in after:
                assert not mask.any() or key[1] in touched, f"{monkey.done[-8:]} deleted a segment with voxels"
