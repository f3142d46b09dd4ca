import gc

import numpy as np
import pytest
import vtk

from FoundationSegLib.errors import GeometryError, InputError, PromptError
from FoundationSegLib.mrml.gestures import TOOL_KINDS
from FoundationSegLib.mrml.slice_tool import SliceTool
from FoundationSegLib.prompts.kinds import BoxPrompt, LassoPrompt, PointPrompt, Polarity, ScribblePrompt
from Testing.mrml.random_geometries import add_parent
from Testing.mrml.slice_rig import SliceRig, UsedTool, add_volume

A, B, C, D = (150, 100), (250, 100), (250, 200), (170, 200)
TYPES = {
    "point": PointPrompt,
    "box": BoxPrompt,
    "scribble": ScribblePrompt,
    "lasso": LassoPrompt,
    "corners": BoxPrompt,
}


def slicers_state(rig, shown):
    """What Slicer's own reactions to the mouse change."""
    display = shown.GetDisplayNode()
    return (
        rig.slice_node.GetSliceOffset(),
        rig.slice_node.GetFieldOfView(),
        rig.slice_node.GetXYZOrigin(),
        rig.composite_node.GetForegroundOpacity(),
        (display.GetWindow(), display.GetLevel()),
    )


@pytest.mark.parametrize("kind", TOOL_KINDS)
@pytest.mark.parametrize("ctrl", [False, True])
def test_press_drag_release_makes_a_prompt(rig, shown, used, kind, ctrl):
    used.tool.kind = kind
    before = slicers_state(rig, shown)
    rig.drag(A, B, C, D, ctrl=ctrl)
    (prompt,) = used.prompts
    assert type(prompt) is TYPES[kind] and prompt.polarity is (Polarity.NEGATIVE if ctrl else Polarity.POSITIVE)
    assert prompt.plane == "k" and slicers_state(rig, shown) == before and not used.errors


def test_two_clicks_make_the_box_that_a_drag_makes(rig, shown, used):
    used.tool.kind = "corners"
    before = slicers_state(rig, shown)
    rig.drag(A)
    assert not used.prompts and rig.lines() == 2
    rig.event("MouseMoveEvent", B)
    rig.drag(D)
    rig.drag(A, B, D)
    clicked, dragged = used.prompts
    assert clicked == dragged and rig.lines() == 0 and slicers_state(rig, shown) == before


def test_escape_forgets_a_first_corner(rig, used):
    used.tool.kind = "corners"
    rig.drag(A)
    rig.event("KeyPressEvent", A, key="Escape")
    assert rig.lines() == 0
    rig.drag(D)
    assert not used.prompts and rig.lines() == 2


def test_ctrl_turns_the_polarity_round(rig, used):
    used.tool.polarity = Polarity.NEGATIVE
    rig.drag(A)
    rig.drag(A, ctrl=True)
    assert [prompt.polarity for prompt in used.prompts] == [Polarity.NEGATIVE, Polarity.POSITIVE]


def test_without_the_tool_slicer_reacts_to_the_same_mouse(rig, shown, used):
    """Or the test above would prove nothing: Ctrl and left blends, in its own mode left changes window and level."""
    used.tool.disable()
    rig.composite_node.SetForegroundVolumeID(shown.GetID())
    interaction = rig.scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
    before = slicers_state(rig, shown)
    rig.drag(A, B, C, ctrl=True)
    blended = slicers_state(rig, shown)
    assert blended != before
    interaction.SetCurrentInteractionMode(interaction.AdjustWindowLevel)
    rig.drag(A, B, C)
    assert slicers_state(rig, shown) != blended
    used.tool.enable(shown, [rig.view], "lasso")
    before = slicers_state(rig, shown)
    rig.drag(A, B, C)
    rig.drag(A, B, C, ctrl=True)
    assert slicers_state(rig, shown) == before and len(used.prompts) == 2


def test_wheel_pan_zoom_and_crosshair_stay_slicers(rig, shown, used):
    seen = [slicers_state(rig, shown)]

    def changed(n):
        seen.append(slicers_state(rig, shown))
        return seen[-1][n] != seen[-2][n]

    rig.event("MouseWheelForwardEvent", A)
    assert changed(0)
    for button, n in (("Right", 1), ("Middle", 2)):
        rig.event(f"{button}ButtonPressEvent", A)
        rig.event("MouseMoveEvent", C)
        rig.event(f"{button}ButtonReleaseEvent", C)
        assert changed(n)
    rig.drag(A, B, shift=True)
    assert changed(2)
    crosshair = rig.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    before = crosshair.GetCrosshairRAS()
    rig.event("KeyPressEvent", A, shift=True, key="Shift_L")
    rig.event("MouseMoveEvent", C, shift=True)
    assert crosshair.GetCrosshairRAS() != before
    rig.event("KeyPressEvent", A, key="f")
    assert changed(0) and not used.prompts and not used.errors


@pytest.mark.parametrize("modifier", ["shift", "alt"])
def test_a_press_with_another_modifier_is_slicers(rig, used, modifier):
    rig.drag(A, B, **{modifier: True})
    assert not used.prompts


@pytest.mark.parametrize("kind", TOOL_KINDS)
def test_the_preview_comes_and_goes(rig, used, kind):
    used.tool.kind = kind
    rig.press(A)
    assert rig.lines() == 2
    rig.event("MouseMoveEvent", C)
    drawn = rig.renders
    rig.event("MouseMoveEvent", D)
    assert rig.lines() == 2 and rig.renders == drawn + 1
    rig.release(D)
    assert rig.lines() == 0 and rig.renders == drawn + 2


@pytest.mark.parametrize("kind", TOOL_KINDS)
def test_escape_cancels(rig, shown, used, kind):
    used.tool.kind = kind
    before = slicers_state(rig, shown)
    rig.press(A)
    rig.event("MouseMoveEvent", B)
    rig.event("KeyPressEvent", B, key="Escape")
    assert rig.lines() == 0
    rig.event("MouseMoveEvent", C)
    rig.release(C)
    assert not used.prompts and slicers_state(rig, shown) == before
    rig.drag(A, B, C, D)
    assert len(used.prompts) == 1


def test_escape_without_a_gesture_is_not_ours(rig, used):
    keys = []
    rig.interactor.AddObserver("KeyPressEvent", lambda *_: keys.append(rig.interactor.GetKeySym()))
    rig.event("KeyPressEvent", A, key="Escape")
    rig.press(A)
    rig.event("KeyPressEvent", A, key="Escape")
    assert keys == ["Escape"]


@pytest.mark.parametrize(
    "event", ["MouseWheelForwardEvent", "MouseWheelBackwardEvent", "RightButtonPressEvent", "MiddleButtonPressEvent"]
)
def test_another_button_or_the_wheel_cancels(rig, shown, used, event):
    used.tool.kind = "lasso"
    before = slicers_state(rig, shown)
    rig.press(A)
    rig.event("MouseMoveEvent", B)
    rig.event(event, B)
    assert rig.lines() == 0 and slicers_state(rig, shown) == before
    rig.event("MouseMoveEvent", C)
    rig.release(D)
    assert not used.prompts


def test_a_view_that_moves_under_the_mouse_cancels(rig, used):
    used.tool.kind = "scribble"
    for change in (
        lambda: rig.logic.SetSliceOffset(rig.slice_node.GetSliceOffset() + 2),
        lambda: rig.logic.ResizeSliceNode(500, 300),
        lambda: rig.slice_node.SetOrientation("Coronal"),
    ):
        rig.press(A)
        rig.event("MouseMoveEvent", B)
        change()
        rig.event("MouseMoveEvent", C)
        assert rig.lines() == 0
        rig.release(C)
    assert not used.prompts


def test_a_pen_of_a_tablet_draws_one_stroke(rig, used):
    """Qt makes mouse events of a pen's, since neither Slicer's views nor CTK or VTK take those; only more of them."""
    used.tool.kind = "scribble"
    turns = np.linspace(0, 12, 1000)
    way = np.column_stack([200 + 6 * turns * np.cos(turns), 150 + 6 * turns * np.sin(turns)])
    rig.drag(*way, way[-1])
    (prompt,) = used.prompts
    assert 30 < len(prompt.points) < 300 and rig.lines() == 0


def test_a_tool_switched_in_mid_drag_cancels(rig, used):
    rig.press(A)
    used.tool.kind = "box"
    assert rig.lines() == 0
    rig.release(C)
    assert not used.prompts
    rig.press(A)
    used.tool.disable()
    rig.release(C)
    assert not used.prompts and rig.lines() == 0


def test_a_lost_release_is_forgotten_at_the_next_press(rig, used):
    used.tool.kind = "scribble"
    rig.press(A)
    rig.event("MouseMoveEvent", B)
    rig.event("LeaveEvent", B)
    rig.drag(D, C)
    (prompt,) = used.prompts
    assert len(prompt.points) == 2


def test_outside_the_window_the_mouse_stays_at_the_edge(rig, shown, used):
    used.tool.kind = "box"
    rig.press((200, 150))
    rig.event("LeaveEvent", (399, 150))
    rig.event("MouseMoveEvent", (2000, 3000))
    rig.release((2000, 3000))
    rig.drag((200, 150), (399, 299))
    assert used.prompts[0] == used.prompts[1]


def test_a_double_click_is_one_point_and_maximises_nothing(rig, used):
    maximised = []
    rig.interactor.AddObserver("LeftButtonDoubleClickEvent", lambda *_: maximised.append(1))
    rig.drag(A)
    rig.event("LeftButtonDoubleClickEvent", A)
    rig.release(A)
    assert len(used.prompts) == 1 and not maximised
    used.tool.kind = "scribble"
    rig.event("LeftButtonDoubleClickEvent", A)
    rig.event("MouseMoveEvent", B)
    rig.release(B)
    assert len(used.prompts) == 2
    used.tool.disable()
    rig.event("LeftButtonDoubleClickEvent", A)
    assert maximised


def test_a_view_of_another_volume_is_left_alone(rig, scene, shown, used):
    other = add_volume(scene)
    rig.show(other)
    rig.drag(A, B)
    assert not used.prompts
    rig.composite_node.SetForegroundVolumeID(shown.GetID())
    rig.composite_node.SetForegroundOpacity(0)
    rig.drag(A, B)
    assert not used.prompts
    rig.composite_node.SetForegroundOpacity(0.3)
    rig.drag(A, B)
    assert len(used.prompts) == 1
    rig.show(None, fit=False)
    rig.composite_node.SetForegroundVolumeID(None)
    rig.drag(A, B)
    assert len(used.prompts) == 1


def test_while_markups_are_placed_the_mouse_is_theirs(rig, used):
    interaction = rig.scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
    interaction.SetCurrentInteractionMode(interaction.Place)
    rig.drag(A, B)
    assert not used.prompts
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    rig.drag(A, B)
    assert len(used.prompts) == 1


def test_a_volume_under_a_transform_that_bends_or_flattens_is_refused(rig, scene, shown, used):
    transform = scene.AddNewNodeByClass("vtkMRMLTransformNode")
    transform.SetAndObserveTransformToParent(vtk.vtkThinPlateSplineTransform())
    shown.SetAndObserveTransformNodeID(transform.GetID())
    rig.drag(A, B)
    shown.SetAndObserveTransformNodeID(None)
    add_parent(scene, np.diag([1.0, 1, 0, 1]), shown)
    rig.drag(A, B)
    warped, flattened = used.errors
    assert isinstance(warped, GeometryError) and "harden" in str(warped)
    assert isinstance(flattened, GeometryError) and "flattens space" in str(flattened)
    assert not used.prompts and rig.lines() == 0


def test_a_volume_that_loses_its_image(rig, shown, used):
    rig.press(A)
    shown.SetAndObserveImageData(None)
    rig.release(B)
    assert not used.prompts
    rig.drag(A, B)
    assert isinstance(used.errors[0], InputError)


def test_what_the_callback_refuses_is_reported(rig, shown):
    errors = []

    def refuse(prompt):
        raise PromptError("no")

    tool = SliceTool(refuse, errors.append)
    tool.enable(shown, [rig.view])
    rig.drag(A)
    assert [str(error) for error in errors] == ["no"]
    tool.disable()


def test_a_callback_may_disable_the_tool_and_slicer_still_does_not_act(rig, shown):
    prompts, released = [], []
    tool = SliceTool(lambda prompt: (prompts.append(prompt), tool.disable()))
    tool.enable(shown, [rig.view])
    rig.interactor.AddObserver("LeftButtonReleaseEvent", lambda *_: released.append(1))
    rig.drag(A)
    assert len(prompts) == 1 and not released and not tool.is_enabled
    rig.drag(A)
    assert len(prompts) == 1 and released


@pytest.mark.parametrize("end", [lambda scene, node: scene.RemoveNode(node), lambda scene, node: scene.Clear(False)])
def test_the_tool_stops_with_its_volume_and_its_scene(rig, scene, shown, used, end):
    rig.press(A)
    end(scene, shown)
    assert not used.tool.is_enabled and rig.lines() == 0
    rig.release(B)
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
    assert observers() == before and not tool.is_enabled
