import tracemalloc

import numpy as np
import pytest
import slicer
import slicer.util
import vtk

from FoundationSegLib.errors import GeometryError, PromptError
from FoundationSegLib.imaging.geometry import Box, Geometry
from FoundationSegLib.imaging.masks import PackedMask
from FoundationSegLib.mrml import segment_tags
from FoundationSegLib.mrml.prompt_nodes import COLOURS, owner_of
from FoundationSegLib.mrml.segment_tags import RECORD_TAG, KeptPrompt, PromptRecord, read_record, write_tag
from FoundationSegLib.mrml.segments import SegmentWriter
from FoundationSegLib.prompts import kinds
from Testing.mrml.conftest import AWKWARD
from Testing.mrml.random_geometries import add_parent
from Testing.mrml.slice_rig import SliceRig, UsedTool, add_volume


def at(*index_ijk):
    return tuple(AWKWARD.to_ras(index_ijk).tolist())


OBLIQUE = kinds.ObliquePlane(at(3, 3, 3), (0.0, 0.6, 0.8), (0.0, 0.8, -0.6))
POINT = kinds.PointPrompt(at(1, 2, 3), plane="k")
BOX = kinds.BoxPrompt((at(1, 1, 2), at(4, 5, 2)), kinds.Polarity.NEGATIVE, "k")
BLOCK = kinds.BoxPrompt((at(1, 1, 2), at(4, 5, 4)))
SCRIBBLE = kinds.ScribblePrompt((at(1, 1, 1), at(3, 4, 1), at(5, 2, 1)), 1.5, plane="k")
LASSO = kinds.LassoPrompt((at(1, 1, 1), at(1, 4, 1), at(1, 2, 4)), kinds.Polarity.NEGATIVE, "i")
PLACED = (POINT, BOX, BLOCK, SCRIBBLE, LASSO, kinds.PointPrompt(at(3, 3, 3), plane=OBLIQUE))
PROMPTS = (*PLACED, kinds.TextPrompt("liver"), kinds.ClassPrompt("liver"))
RECORD = PromptRecord(tuple(KeptPrompt(f"p{n}", prompt) for n, prompt in enumerate(PROMPTS)), "lite-medsam", {"a": 1})


@pytest.fixture
def liver(writer):
    return writer.add_segment("Liver")


@pytest.fixture
def watched(watch, liver, segmentation_node, volume_node):
    watched = watch(segmentation_node, volume_node)
    watched.prompts.set_record(liver, RECORD)
    assert not watched.changes
    return watched


def nodes_in(scene):
    return [node for node in slicer.util.getNodesByClass("vtkMRMLMarkupsNode", scene) if owner_of(node)]


def names_in(hierarchy):
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    return [hierarchy.GetItemName(items.GetId(n)) for n in range(items.GetNumberOfIds())]


def test_each_placed_prompt_has_a_node(scene, watched, segmentation_node, liver):
    assert len(nodes_in(scene)) == len(PLACED)
    for n, prompt in enumerate(PROMPTS):
        node = watched.prompts.node(liver, f"p{n}")
        assert (node is not None) == (prompt in PLACED)
        if node is not None:
            segment = segmentation_node.GetSegmentation().GetSegment(liver)
            colour = segment.GetColor() if prompt.polarity is kinds.Polarity.POSITIVE else COLOURS[prompt.polarity]
            assert np.allclose(node.GetDisplayNode().GetSelectedColor(), colour)
            assert node.GetName().startswith(f"Liver - {n + 1} ")
    assert watched.prompts.segment_ids == (liver,) and watched.prompts.record(liver) == RECORD


def test_the_polarities_differ_in_colour_and_glyph(watched, liver):
    watched.prompts.set_record(liver, PromptRecord((KeptPrompt("a", POINT),)))
    display = watched.prompts.node(liver, "a").GetDisplayNode()
    before = display.GetSelectedColor(), display.GetGlyphType()
    negative = kinds.PointPrompt(POINT.position, kinds.Polarity.NEGATIVE, "k")
    watched.prompts.set_record(liver, PromptRecord((KeptPrompt("a", negative),)))
    after = display.GetSelectedColor(), display.GetGlyphType()
    assert before[0] != after[0] and before[1] != after[1]


def test_a_folder_beside_the_segmentation_has_them_all(scene, watched, segmentation_node, liver):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folders = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) for node in nodes_in(scene)}
    (folder,) = folders
    assert hierarchy.GetItemName(folder) == f"Prompts: {segmentation_node.GetName()}"
    assert hierarchy.GetItemParent(folder) == hierarchy.GetItemParent(hierarchy.GetItemByDataNode(segmentation_node))
    hierarchy.SetItemName(folder, "My prompts")
    watched.prompts.set_record(liver, PromptRecord((*RECORD.prompts, KeptPrompt("new", POINT))))
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(watched.prompts.node(liver, "new"))) == folder
    watched.prompts.set_record(liver, PromptRecord())
    assert not nodes_in(scene) and names_in(hierarchy).count("My prompts") == 1


def test_setting_a_record_again_changes_nothing_but_what_changed(watched, liver):
    nodes = [watched.prompts.node(liver, f"p{n}") for n in range(len(PLACED))]
    times = [node.GetMTime() for node in nodes]
    nodes[0].GetDisplayNode().SetSelectedColor(0, 0, 1)
    watched.prompts.set_record(liver, RECORD.changed("p3", kinds.ScribblePrompt(SCRIBBLE.points[:2], plane="k")))
    assert [watched.prompts.node(liver, f"p{n}") for n in range(len(PLACED))] == nodes
    changed = [n for n, node in enumerate(nodes) if node.GetMTime() != times[n]]
    assert changed in ([], [3]) and nodes[3].GetNumberOfControlPoints() == 2
    assert nodes[0].GetDisplayNode().GetSelectedColor() == (0, 0, 1) and not watched.changes


def test_of_a_drag_only_the_end_counts(watched, liver):
    node = watched.prompts.node(liver, "p0")
    node.InvokeCustomModifiedEvent(node.PointStartInteractionEvent)
    for x in range(5):
        node.SetNthControlPointPosition(0, at(x, 2, 3))
    assert not watched.changes
    node.InvokeCustomModifiedEvent(node.PointEndInteractionEvent)
    assert watched.changes == [(liver, "p0", kinds.PointPrompt(at(4, 2, 3), plane="k"))]
    node.InvokeCustomModifiedEvent(node.PointStartInteractionEvent)
    node.InvokeCustomModifiedEvent(node.PointEndInteractionEvent)
    assert len(watched.changes) == 1


def test_a_moved_corner_snaps_to_voxels(watched, liver):
    node = watched.prompts.node(liver, "p1")
    node.SetNthControlPointPosition(2, at(5.7, 5.3, 2.4))
    (change,) = watched.changes
    assert np.allclose(AWKWARD.to_ijk(change[2].corners), [[1, 1, 2], [5, 5, 2]])
    points = [AWKWARD.to_ijk(node.GetNthControlPointPosition(n)) for n in range(4)]
    assert np.allclose(
        sorted(np.round(points, 6).tolist()), [[0.5, 0.5, 2], [0.5, 5.5, 2], [5.5, 0.5, 2], [5.5, 5.5, 2]]
    )


def test_a_block_may_be_resized(watch, segmentation_node, liver, volume_node, watched):
    straight = Geometry(np.diag([-2.0, 1, 3, 1]), AWKWARD.shape_kji)  # mirrored, but with right angles
    volume_node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(straight.ijk_to_ras))
    watched.prompts.stop()
    other = watch(segmentation_node, volume_node)
    corners = tuple(tuple(corner) for corner in straight.to_ras([(1, 1, 1), (3, 3, 3)]).tolist())
    other.prompts.set_record(liver, PromptRecord((KeptPrompt("a", kinds.BoxPrompt(corners)),)))
    node = other.prompts.node(liver, "a")
    assert node.IsA("vtkMRMLMarkupsROINode") and node.GetSize() == (6, 3, 9)
    size, centre = node.GetSize(), np.array(node.GetCenter())
    node.SetSize(size[0] + 4, size[1], size[2])
    assert np.allclose(sorted(straight.to_ijk(other.changes[-1][2].corners).tolist()), [[0, 1, 1], [4, 3, 3]])
    node.SetCenter(*np.add(centre, (0, 2, 0)))
    assert np.allclose(sorted(straight.to_ijk(other.changes[-1][2].corners).tolist()), [[0, 3, 1], [4, 5, 3]])
    assert not other.errors


def test_deleting_in_subject_hierarchy_removes_prompts(scene, watched, liver):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(watched.prompts.node(liver, "p0")))
    hierarchy.RemoveItem(folder)
    assert not nodes_in(scene)
    assert [kept.prompt for kept in watched.prompts.record(liver).prompts] == [
        kinds.TextPrompt("liver"),
        kinds.ClassPrompt("liver"),
    ]


def test_points_of_points_and_boxes_cannot_be_added_or_removed(watched, liver):
    for key in ("p0", "p1", "p2"):
        assert watched.prompts.node(liver, key).GetFixedNumberOfControlPoints()
    watched.prompts.node(liver, "p3").RemoveNthControlPoint(1)
    assert watched.changes == [
        (liver, "p3", kinds.ScribblePrompt((SCRIBBLE.points[0], SCRIBBLE.points[2]), 1.5, plane="k"))
    ]
    watched.prompts.node(liver, "p4").RemoveNthControlPoint(1)
    assert watched.changes[1:] == [(liver, "p4", None)] and watched.prompts.node(liver, "p4") is None


def test_renames_are_harmless(watched, writer, liver):
    watched.prompts.node(liver, "p0").SetName("Something else")
    writer.segment(liver).SetName("Leber")
    assert not watched.changes and watched.prompts.record(liver) == RECORD
    watched.prompts.node(liver, "p0").SetNthControlPointPosition(0, at(2, 2, 2))
    assert watched.changes[0][:2] == (liver, "p0")


def test_a_deleted_segment_takes_its_prompts_along(scene, watched, segmentation_node, writer, liver):
    other = writer.add_segment("Spleen")
    watched.prompts.set_record(other, PromptRecord((KeptPrompt("p0", POINT),)))
    segmentation_node.GetSegmentation().RemoveSegment(liver)
    assert [owner_of(node).segment_id for node in nodes_in(scene)] == [other]
    assert watched.prompts.segment_ids == (other,) and not watched.changes
    watched.prompts.set_record(liver, RECORD)
    assert len(nodes_in(scene)) == 1


def saved_state(segmentation_node):
    history = slicer.vtkSegmentationHistory()
    history.SetSegmentation(segmentation_node.GetSegmentation())
    history.SaveState()
    return history


def test_slicers_undo_does_not_undo_prompts(watched, writer, segmentation_node, liver):
    history = saved_state(segmentation_node)
    newer = RECORD.changed("p0", None)
    watched.prompts.set_record(liver, newer)
    writer.write(liver, np.ones(AWKWARD.shape_kji, bool))
    assert history.RestorePreviousState() and not writer.read(liver).any()
    assert read_record(writer.segment(liver)) == watched.prompts.record(liver) == newer


def test_a_segment_that_slicers_undo_brings_back_brings_its_prompts(scene, watched, segmentation_node, liver):
    history = saved_state(segmentation_node)
    segmentation_node.GetSegmentation().RemoveSegment(liver)
    assert not nodes_in(scene) and history.RestorePreviousState()
    assert watched.prompts.record(liver) == RECORD and len(nodes_in(scene)) == len(PLACED)


def test_a_deleted_segmentation_leaves_no_orphan(scene, watched, segmentation_node):
    scene.RemoveNode(segmentation_node)
    assert not nodes_in(scene) and not watched.changes
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    assert "Prompts" not in names_in(hierarchy)


def test_closing_the_scene_reports_nothing(scene, watched):
    scene.Clear(False)
    assert not watched.changes and not watched.errors


def test_a_stopped_one_watches_no_more(scene, watched, liver):
    node = watched.prompts.node(liver, "p0")
    watched.prompts.stop()
    node.SetNthControlPointPosition(0, at(2, 2, 2))
    scene.RemoveNode(node)
    assert not watched.changes


def test_all_follow_the_volumes_transform(scene, watched, volume_node, segmentation_node):
    parent = add_parent(scene, np.diag([1.0, 2, 1, 1]), volume_node)
    for node in (segmentation_node, *nodes_in(scene)):
        assert node.GetParentTransformNode() is parent
    scene.RemoveNode(parent)
    for node in (segmentation_node, *nodes_in(scene)):
        assert node.GetParentTransformNode() is None
    assert not watched.changes and not watched.errors


def test_a_transform_that_warps_is_reported(scene, watched, volume_node, segmentation_node, liver):
    transform = scene.AddNewNodeByClass("vtkMRMLTransformNode")
    transform.SetAndObserveTransformToParent(vtk.vtkThinPlateSplineTransform())
    volume_node.SetAndObserveTransformNodeID(transform.GetID())
    assert isinstance(watched.errors[0], GeometryError)
    assert watched.prompts.node(liver, "p0").GetParentTransformNode() is None and not watched.changes


def test_some_may_be_hidden(watched, writer, liver):
    other = writer.add_segment("Spleen")
    watched.prompts.set_record(other, PromptRecord((KeptPrompt("a", POINT),)))
    watched.prompts.show([other])
    watched.prompts.set_record(liver, PromptRecord((*RECORD.prompts, KeptPrompt("new", POINT))))
    for key, segment_id, shown in (("p0", liver, 0), ("new", liver, 0), ("a", other, 1)):
        assert watched.prompts.node(segment_id, key).GetDisplayVisibility() == shown
    watched.prompts.show()
    assert watched.prompts.node(liver, "p0").GetDisplayVisibility() == 1


def test_a_damaged_record_is_told_once_and_kept(watch, segmentation_node, volume_node, writer, liver):
    write_tag(writer.segment(liver), RECORD_TAG, "{")
    watched = watch(segmentation_node, volume_node)
    writer.segment(liver).SetName("Leber")
    assert [type(error) for error in watched.errors] == [PromptError]
    with pytest.raises(PromptError):
        read_record(writer.segment(liver))


def test_a_users_copy_of_a_markup_is_the_users(watch, scene, watched, segmentation_node, volume_node, liver):
    original = watched.prompts.node(liver, "p0")
    watched.prompts.stop()
    copy = scene.AddNode(slicer.vtkMRMLMarkupsFiducialNode())
    copy.Copy(original)
    other = watch(segmentation_node, volume_node)
    assert len(nodes_in(scene)) == len(PLACED)
    (mine,) = {original, copy} & set(nodes_in(scene))
    assert other.prompts.node(liver, "p0") is mine
    scene.RemoveNode(({original, copy} - {mine}).pop())
    assert not other.changes


PIXEL, OTHER_PIXEL = (200, 150), (260, 180)


@pytest.fixture
def placed(watch, headless, opengl, scene, segmentation_node):
    """PIXEL view with one prompt, made by the tool."""
    rig = SliceRig(headless, managers=("vtkMRMLCrosshairDisplayableManager", "vtkMRMLMarkupsDisplayableManager"))
    volume = add_volume(scene)
    rig.show(volume)
    liver = SegmentWriter(segmentation_node, volume).add_segment("Liver")
    watched = watch(segmentation_node, volume)
    used = UsedTool()
    used.tool.enable(volume, [rig.view])
    rig.drag(PIXEL)
    watched.prompts.set_record(liver, PromptRecord((KeptPrompt("a", used.prompts[0]),)))
    rig.window.Render()
    yield rig, watched, used, volume, liver
    used.tool.disable()


def test_without_the_tool_the_mouse_moves_the_prompt(placed):
    rig, watched, used, volume, liver = placed
    used.tool.disable()
    rig.drag(PIXEL, (220, 160), (240, 170), OTHER_PIXEL)
    (change,) = watched.changes
    wanted = rig.view.plane(volume).positions([OTHER_PIXEL])[0]
    assert change[:2] == (liver, "a") and isinstance(change[2], kinds.PointPrompt)
    # Slicer keeps the distance between the mouse and the middle of the glyph when it grabs one.
    assert np.linalg.norm(np.subtract(change[2].position, wanted)) < 0.5
    assert watched.prompts.record(liver).prompt("a") == change[2]


def test_with_the_tool_a_press_on_a_prompt_draws_another(placed):
    rig, watched, used, _, liver = placed
    rig.drag(PIXEL, (220, 160), OTHER_PIXEL)
    assert len(used.prompts) == 2 and not watched.changes
    assert watched.prompts.node(liver, "a").GetNthControlPointPosition(0) == used.prompts[0].position


def test_a_mask_in_a_scene_takes_no_more_memory_than_the_image_has_room_for(watch, segmentation_node, volume_node):
    """Ten kilobytes of text that hold ten megabytes; they are set aside, and not lost."""
    segmentation = segmentation_node.GetSegmentation()
    segment = segmentation.GetSegment(segmentation.AddEmptySegment("1", "Liver"))
    mask = PackedMask(Box((0, 0, 0), (80_000, 100, 10)), b"\xff" * 10**7)
    kept = segment_tags.KeptPrompt("1", kinds.MaskPrompt("seed.nrrd", "Liver", voxels=mask))
    segment_tags.RecordTags().write(segment, segment_tags.PromptRecord((kept,)))
    text = segment_tags.record_text(segment)
    tracemalloc.start()
    watched = watch(segmentation_node, volume_node)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000 and len(watched.errors) == 1
    assert segment_tags.record_text(segment) == text and not watched.prompts.record("1").prompts
