"""What the Segment Editor's effect relies on: edits masked as Slicer masks them, and the editor's undo as our own."""

from dataclasses import replace

import numpy as np
import pytest
import slicer

from FoundationSegLib.imaging.geometry import Box, Geometry
from FoundationSegLib.imaging.masks import PackedMask, SegmentChange, pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.labelmaps import mask_image
from FoundationSegLib.mrml.segments import read_segment
from FoundationSegLib.mrml.volumes import add_volume_node
from FoundationSegLib.prompts.kinds import PointPrompt
from FoundationSegLib.session.segment_store import OverlapPolicy
from FoundationSegLib.session.segments import next_segment
from Testing.mrml.controller_cases import make_controller

MODES, OVERWRITES = slicer.vtkMRMLSegmentationNode, slicer.vtkMRMLSegmentEditorNode
AREAS = (
    MODES.EditAllowedEverywhere,
    MODES.EditAllowedInsideAllSegments,
    MODES.EditAllowedInsideVisibleSegments,
    MODES.EditAllowedOutsideAllSegments,
    MODES.EditAllowedOutsideVisibleSegments,
    MODES.EditAllowedInsideSingleSegment,
)
POLICIES = {
    OVERWRITES.OverwriteAllSegments: OverlapPolicy.PROTECT_LOCKED,
    OVERWRITES.OverwriteVisibleSegments: OverlapPolicy.OVERWRITE_VISIBLE,
    OVERWRITES.OverwriteNone: OverlapPolicy.ALLOW,
}
SHAPE = (6, 7, 8)


@pytest.fixture
def editing(headless):
    """An image, four random segments of which the last is hidden, and a Segment Editor's logic on both."""
    geometry = Geometry([[-2.0, 0, 0, 3], [0, -1.0, 0, 4], [0, 0, 4.0, -1], [0, 0, 0, 1]], SHAPE)
    voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    volume_node = add_volume_node(headless.scene, Volume(voxels, geometry))
    return Editing(headless.application_logic, headless.scene, volume_node)


class Editing:
    def __init__(self, application_logic, scene, volume_node):
        self.volume_node, self.scene = volume_node, scene
        self.node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        self.node.CreateDefaultDisplayNodes()
        self.controller, self.client, _ = make_controller(volume_node, self.node)
        self.session = self.controller.open()
        self.store = self.session.store
        self.editor_node = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        self.logic = slicer.vtkSlicerSegmentEditorLogic()
        self.logic.SetMRMLApplicationLogic(application_logic)
        self.logic.SetMRMLScene(scene)
        self.logic.SetSegmentEditorNode(self.editor_node)
        self.editor_node.SetAndObserveSegmentationNode(self.node)
        self.editor_node.SetAndObserveSourceVolumeNode(volume_node)
        self.logic.SetMaximumNumberOfUndoStates(10)
        self.saved = 0

    def save(self):
        self.saved += 1
        self.logic.SaveStateForUndo()

    def masks(self):
        return {key: self.store.read(key) for key in self.store.segment_ids}

    def ask(self, k, key=""):
        """Point at a slice, whose middle the model takes."""
        self.controller.options = replace(self.controller.options, save_state=self.save, ask_above=None)
        self.controller.select(key or self.controller.segment_id)
        place = self.store.geometry.to_ras((4, 3, k))
        self.controller.add_prompt(PointPrompt(tuple(place.tolist())))
        for _ in range(3):
            self.controller.tick()


@pytest.mark.parametrize("overwrite", POLICIES)
@pytest.mark.parametrize("seed", range(2))
def test_edits_are_masked_as_slicer_masks_them(editing, overwrite, seed):
    """Against Slicer's own logic, for each editable area, with and without a range of intensities."""
    rng, store = np.random.default_rng(seed), editing.store
    mine, inside, _shown, hidden = keys = [store.add_segment(name) for name in ("Mine", "Inside", "Shown", "Hidden")]
    editing.node.GetDisplayNode().SetSegmentVisibility(hidden, False)
    editing.editor_node.SetOverwriteMode(overwrite)
    editing.editor_node.SetMaskSegmentID(inside)
    editing.editor_node.SetSelectedSegmentID(mine)
    for area in AREAS:
        for is_limited in (False, True):
            editing.editor_node.SetMaskMode(area)
            editing.editor_node.SetSourceVolumeIntensityMask(is_limited)
            editing.editor_node.SetSourceVolumeIntensityMaskRange(60, 250)
            start = {key: rng.random(SHAPE) < 0.3 for key in keys}
            wanted = rng.random(SHAPE) < 0.5
            results = []
            for by_slicer in (True, False):
                for key, mask in start.items():
                    store.write(key, mask, policy=OverlapPolicy.ALLOW)
                gained = wanted & ~start[mine]
                if by_slicer:
                    whole = PackedMask(Box((0, 0, 0), SHAPE), np.packbits(gained).tobytes())
                    image = mask_image(whole, None, store.geometry)
                    mode = editing.logic.ModificationModeAdd
                    editing.logic.ModifySegmentByLabelmap(editing.node, mine, image, mode, True, False)
                else:
                    store.write_change(mine, SegmentChange(pack_mask(gained)), POLICIES[overwrite], editing.editor_node)
                results.append(editing.masks())
            for key in keys:
                assert np.array_equal(results[0][key], results[1][key]), (area, is_limited, store.name(key))


def test_one_edit_is_one_state_of_the_editors_undo_and_its_undo_is_ours(editing):
    stack = editing.session.history.undo_stack
    editing.ask(1)
    key = editing.controller.segment_id
    editing.ask(3)
    both, prompts = editing.masks()[key], dict(editing.controller.summary().prompts)
    assert editing.saved == 2 and len(stack.done) == len(prompts) == 2
    editing.logic.Undo()
    editing.session.detect_external_changes()
    assert (len(stack.done), len(stack.undone), editing.controller.outcome.kind) == (1, 1, "undone")
    assert len(editing.controller.summary().prompts) == 1 and editing.logic.CanRedo()
    editing.logic.Undo()
    editing.session.detect_external_changes()
    assert not editing.store.segment_ids and len(stack.undone) == 2 and not editing.logic.CanUndo()
    editing.logic.Redo()
    editing.session.detect_external_changes()
    editing.logic.Redo()
    editing.session.detect_external_changes()
    assert np.array_equal(editing.masks()[key], both) and dict(editing.controller.summary().prompts) == prompts
    assert (len(stack.done), len(stack.undone), editing.controller.outcome.kind) == (2, 0, "redone")
    editing.logic.Undo()
    editing.logic.Undo()  # nobody looked in between
    assert editing.controller.redo() and editing.controller.redo() and np.array_equal(editing.masks()[key], both)


def test_whatever_is_undone_and_redone_by_whom(editing, full):
    """Nothing is lost or doubled: each undo and redo leads to voxels that were there before, prompts with them."""
    rng = np.random.default_rng(0)
    reached = {}

    def note():
        editing.session.detect_external_changes()
        for key, mask in editing.masks().items():
            segment = editing.session.history.segments.get(key)
            if segment is not None and len(segment.state.prompts) == len(segment.state.steps):
                prompts = tuple(active.key for active in segment.state.prompts)
                assert np.array_equal(reached.setdefault((key, prompts), mask), mask)

    for _ in range(400 if full else 40):
        keys = editing.store.segment_ids
        act = rng.choice(["ask", "ask", "new", "undo", "redo", "ours", "ours again"])
        if act in ("ask", "new") and len(keys) < 6:
            editing.controller.segment_id = ""
            editing.ask(int(rng.integers(6)), str(rng.choice(keys)) if keys and act == "ask" else "")
        elif act == "undo" and editing.logic.CanUndo():
            editing.logic.Undo()
        elif act == "redo" and editing.logic.CanRedo():
            editing.logic.Redo()
        elif keys and act == "ours":
            editing.controller.select(str(rng.choice(keys)))
            editing.controller.undo()
        elif keys and act == "ours again":
            editing.controller.select(str(rng.choice(keys)))
            editing.controller.redo()
        note()
    for key in editing.store.segment_ids:
        known = editing.session.history.segment(key)
        present = read_segment(editing.node.GetSegmentation().GetSegment(key), editing.store.geometry)
        assert np.array_equal(known.mask().expand(SHAPE), present)


def test_paint_between_prompt_and_answer_is_a_state_of_its_own(editing):
    editing.client.is_slow = True
    editing.ask(1)
    other = next_segment(editing.session, "Other").segment_id
    editing.logic.SaveStateForUndo()
    editing.store.save_state = None
    editing.store.write(other, np.ones(SHAPE, bool), policy=OverlapPolicy.ALLOW)
    editing.store.save_state = editing.save
    editing.client.reply()
    editing.controller.tick()
    editing.logic.Undo()
    assert editing.store.read(other).all()
