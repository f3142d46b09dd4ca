"""Placed prompts under the real mouse of Slicer's markups: moved without the tool, left alone with it."""

import numpy as np
import pytest
import slicer

from FoundationSegLib.mrml.prompt_records import KeptPrompt, PromptRecord
from FoundationSegLib.mrml.segments import SegmentWriter
from FoundationSegLib.prompts.kinds import PointPrompt
from Testing.mrml.slice_rig import SliceRig, UsedTool, add_volume

A, B = (200, 150), (260, 180)


@pytest.fixture
def placed(watch, headless, opengl, scene, segmentation_node):
    """A view with one prompt, made by the tool."""
    rig = SliceRig(headless, managers=("vtkMRMLCrosshairDisplayableManager", "vtkMRMLMarkupsDisplayableManager"))
    volume = add_volume(scene)
    rig.show(volume)
    liver = SegmentWriter(segmentation_node, volume).add_segment("Liver")
    watched = watch(segmentation_node, volume)
    used = UsedTool()
    used.tool.enable(volume, [rig.view])
    rig.drag(A)
    watched.prompts.set_record(liver, PromptRecord((KeptPrompt("a", used.prompts[0]),)))
    rig.window.Render()
    yield rig, watched, used, volume, liver
    used.tool.disable()


def test_without_the_tool_the_mouse_moves_the_prompt(placed):
    rig, watched, used, volume, liver = placed
    used.tool.disable()
    rig.drag(A, (220, 160), (240, 170), B)
    (change,) = watched.changes
    wanted = rig.view.plane(volume).positions([B])[0]
    assert change[:2] == (liver, "a") and isinstance(change[2], PointPrompt)
    # Slicer keeps the distance between the mouse and the middle of the glyph when it grabs one.
    assert np.linalg.norm(np.subtract(change[2].position, wanted)) < 0.5
    assert watched.prompts.record(liver).prompt("a") == change[2]


def test_with_the_tool_a_press_on_a_prompt_draws_another(placed):
    rig, watched, used, _, liver = placed
    rig.drag(A, (220, 160), B)
    assert len(used.prompts) == 2 and not watched.changes
    assert watched.prompts.node(liver, "a").GetNthControlPointPosition(0) == used.prompts[0].position


def test_a_locked_prompt_stays(placed):
    rig, watched, used, _, liver = placed
    used.tool.disable()
    watched.prompts.node(liver, "a").SetLocked(True)
    rig.drag(A, (220, 160), B)
    assert not watched.changes and slicer.mrmlScene is rig.scene
