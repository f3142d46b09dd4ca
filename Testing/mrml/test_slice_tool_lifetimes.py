"""The tool when volumes, scenes, views and windows go, also in the middle of a gesture."""

import gc

from FoundationSegLib.mrml.slice_tool import SliceTool
from Testing.mrml.slice_rig import SliceRig, UsedTool

A, B, C = (150, 100), (250, 100), (250, 200)


def test_removing_the_volume_stops_the_tool(rig, scene, shown, used):
    rig.press(A)
    scene.RemoveNode(shown)
    assert not used.tool.is_enabled and rig.lines() == 0
    rig.release(B)
    assert not used.prompts


def test_closing_the_scene_stops_the_tool(rig, scene, shown, used):
    rig.press(A)
    scene.Clear(False)
    assert not used.tool.is_enabled and rig.lines() == 0
    rig.release(B)
    rig.drag(A)
    assert not used.prompts


def test_removing_a_view_leaves_the_others(headless, rig, scene, shown, used):
    gone = SliceRig(headless, name="Green", managers=(), style=False)
    gone.show(shown)
    used.tool.enable(shown, [rig.view, gone.view])
    gone.press(A)
    scene.RemoveNode(gone.slice_node)
    assert gone.lines() == 0
    gone.release(B)
    gone.drag(A)
    assert not used.prompts
    rig.drag(A)
    assert len(used.prompts) == 1


def test_a_window_may_go_in_mid_drag(headless, shown):
    used = UsedTool()
    rig = SliceRig(headless, name="Gone")
    rig.show(shown)
    used.tool.enable(shown, [rig.view])
    rig.press(A)
    rig.window.Finalize()
    del rig
    gc.collect()
    used.tool.disable()
    assert not used.prompts


def test_two_views_are_independent(headless, rig, shown, used):
    other = SliceRig(headless, name="Green")
    other.slice_node.SetOrientation("Coronal")
    other.show(shown)
    used.tool.enable(shown, [rig.view, other.view], "box")
    rig.drag(A, C)
    other.drag(A, C)
    assert [prompt.plane for prompt in used.prompts] == ["k", "j"]


def test_after_disabling_no_observer_is_left(rig, shown):
    def observers():
        return sum(rig.interactor.HasObserver(event) for event in range(1, 60))

    before = observers()
    tool = SliceTool(lambda prompt: None)
    for _ in range(3):
        tool.enable(shown, [rig.view])
    tool.disable()
    tool.disable()
    assert observers() == before
    assert not tool.is_enabled
