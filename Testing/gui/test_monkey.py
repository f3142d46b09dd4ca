"""A monkey at the panel: whatever it does in whatever order, nothing breaks, and no other segment loses a voxel."""

import random
from collections import Counter

import numpy as np
import pytest
import slicer
import vtk

from FoundationSegLib.mrml.segments import read_segment
from Testing.gui.panel_desk import GRID
from Testing.gui.test_effect import NAME, SEGMENT_EDITOR
from Testing.mrml.test_sequences import Sequence

EDITS = ("undo", "undo", "redo", "effect", "area", "range", "select", "button")

# What stays where somebody removes a node, enters the Segment Editor, or reads a segment as an array.
SLICERS_OWN = {
    "vtkMRMLScalarVolumeDisplayNode",
    "vtkMRMLVolumeArchetypeStorageNode",
    "vtkMRMLSegmentationDisplayNode",
    "vtkMRMLSegmentationStorageNode",
    "vtkMRMLSegmentEditorNode",
    "vtkMRMLLabelMapVolumeDisplayNode",  # of slicer.util's functions for arrays
}

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
        self.frames = None  # the sequence that is open
        at_panel.desk.complete_startup()
        at_panel.desk.load_module(SEGMENT_EDITOR)

    def act(self):
        name = self.random.choices(
            (
                *[
                    "click",
                    "combo",
                    "draw",
                    "key",
                    "spin",
                    "segment",
                    "foreign",
                    "scene",
                    "slow",
                    "visit",
                    "edit",
                    "transform",
                    "layout",
                    "sequence",
                ],
            ),
            (10, 4, 10, 4, 2, 3, 1, 1, 1, 2, 6, 1, 1, 1),
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
        if self.at.panel.effect is not None:
            self.show_segments()
        view = self.random.choice(("Red", "Green", "Yellow"))
        first = self.at.at(*self.place())
        node = self.at.desk.slice_widget(view).mrmlSliceNode()
        node.JumpSliceByOffsetting(*first)
        across, along = ([node.GetSliceToRAS().GetElement(n, column) for n in range(3)] for column in (0, 1))
        last = (
            first + self.random.randrange(-40, 41) * np.array(across) + self.random.randrange(-40, 41) * np.array(along)
        )
        ctrl = self.random.random() < 0.2
        self.at.desk.mouse(view).drag(first, tuple(last.tolist()), ctrl=ctrl)

    def show_segments(self):
        """Show what a change of the image has hidden, as the effect's question would."""
        node = self.editor.mrmlSegmentEditorNode().GetSegmentationNode()
        if node is not None and node.GetDisplayNode() is not None:
            node.GetDisplayNode().SetVisibility(True)
            node.GetDisplayNode().SetAllSegmentsVisibility(True)
            keys = node.GetSegmentation().GetSegmentIDs()
            if self.editor.mrmlSegmentEditorNode().GetSelectedSegmentID() not in keys:  # Slicer's table selects another
                self.editor.mrmlSegmentEditorNode().SetSelectedSegmentID(keys[0] if keys else "")

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
        if node.GetParentTransformNode() and not read_segment(node.GetSegmentation().GetSegment(key), GRID).any():
            return  # Slicer cannot read an empty segment through a transform
        voxels = slicer.util.arrayFromSegmentBinaryLabelmap(node, key, self.at.wanted.volume)
        if voxels is not None and voxels.shape == GRID.shape_kji:  # not turned by a transform that was hardened
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
        if what == "close":
            self.frames = None
            if self.editor is not None:
                self.visit()
        if at.volume_node.GetScene() is None:
            at.volume_node = at.add_volume("CT")
            desk.show_volume(at.volume_node)
            at.wanted.volume = at.volume_node

    def transform(self):
        """Image or segmentation is moved by a transform, which is changed, hardened or taken away."""
        at, what = self.at, self.random.choice(("image", "both", "change", "harden", "harden", "remove"))
        self.done[-1] = f"transform {what}"
        nodes = [node for node in (at.wanted.volume, at.wanted.segmentation) if node is not None]
        transforms = [node.GetParentTransformNode() for node in nodes if node.GetParentTransformNode() is not None]
        if what in ("image", "both"):
            transform = at.desk.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
            for node in nodes[: 1 if what == "image" else 2]:
                node.SetAndObserveTransformNodeID(transform.GetID())
            transforms = [transform]
        if what in ("image", "both", "change"):
            for transform in transforms:
                matrix = vtk.vtkMatrix4x4()
                matrix.SetElement(self.random.randrange(3), 3, self.random.randrange(-8, 9))
                transform.SetMatrixTransformToParent(matrix)
        elif what == "harden":
            for node in nodes:
                node.HardenTransform()
        else:
            for transform in set(transforms):
                at.desk.scene.RemoveNode(transform)

    def layout(self):
        """Another layout of the views, or another plane in one of them."""
        number = self.random.choice((2, 3, 6, 7, 8))
        self.done[-1] = f"layout {number}"
        slicer.app.layoutManager().setLayout(number)
        view = self.random.choice(("Red", "Green"))
        node = self.at.desk.slice_widget(view).mrmlSliceNode()
        turn = vtk.vtkTransform()
        turn.RotateX(self.random.choice((0, 0, 20)))
        orientation = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Multiply4x4(turn.GetMatrix(), node.GetSliceToRAS(), orientation)
        if self.random.random() < 0.3:
            node.GetSliceToRAS().DeepCopy(orientation)
            node.UpdateMatrices()
        else:
            node.SetOrientation({"Red": "Axial", "Green": "Coronal"}[view])

    def sequence(self):
        """The image becomes a frame of a sequence, another frame is shown, or the panel goes back to a lone image."""
        at = self.at
        what = self.random.choice(("frame", "frame", "image")) if self.frames is not None else "open"
        self.done[-1] = f"sequence {what}"
        if what == "open":
            arrays = [np.roll(np.arange(12 * 40 * 32, dtype=np.int16), n).reshape(12, 40, 32) for n in range(3)]
            self.frames = Sequence(at.desk.scene, arrays, lambda _n: at.add_volume("frames"))
        elif what == "frame":
            at.wanted.volume = self.frames.node
            self.frames.show(self.random.randrange(3))
        else:
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
        if not node.GetSaveWithScene():
            continue  # it shows a change that waits for an answer
        for key in node.GetSegmentation().GetSegmentIDs():
            found[node.GetID(), key] = read_segment(node.GetSegmentation().GetSegment(key), GRID)
    return found


def kinds(scene):
    """How many nodes there are of each class."""
    return Counter(scene.GetNthNode(n).GetClassName() for n in range(scene.GetNumberOfNodes()))


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_monkey_does(at_panel, seed, full):
    monkey = Monkey(at_panel, seed)
    for section in ("propagateSection", "promptsSection", "advancedSection"):
        getattr(at_panel.ui, section).collapsed = False
    at_panel.let_pass()
    at_first = kinds(at_panel.desk.scene)
    for _ in range(2500 if full else 70):
        before, touched = segments(at_panel), {at_panel.work.segment_id}
        if at_panel.work.session is not None:  # an answer may come for what was asked before another was selected
            touched |= at_panel.work.session.queued_targets()
        monkey.act()
        touched.add(at_panel.work.segment_id)
        what = monkey.done[-1]
        if what.startswith(("foreign", "scene", "transform", "sequence", "edit undo", "edit redo", "edit button")):
            continue
        after = segments(at_panel)
        for key, mask in before.items():
            if key[1] not in touched and key in after:
                assert np.array_equal(after[key], mask), f"{monkey.done[-8:]} changed another segment"
            elif key not in after:
                assert not mask.any() or key[1] in touched, f"{monkey.done[-8:]} deleted a segment with voxels"
    at_panel.client.is_slow = False
    if at_panel.client._open is not None:
        at_panel.client.reply()
    at_panel.settle()
    for name in ("Segmentation", "SequenceBrowser", "Sequence", "ScalarVolume", "LinearTransform"):
        for node in slicer.util.getNodesByClass(f"vtkMRML{name}Node"):
            at_panel.desk.scene.RemoveNode(node)
    at_panel.let_pass()
    left = kinds(at_panel.desk.scene) - at_first
    left = {name: count for name, count in left.items() if name not in SLICERS_OWN}
    assert not left, f"left behind: {left}"
