import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from FoundationSegLib.errors import GeometryError, InputError
from FoundationSegLib.imaging.geometry import Box, Geometry, geometry_from_spacing
from FoundationSegLib.imaging.masks import EMPTY_MASK, Edit, PackedMask, SegmentChange, pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.labelmaps import BINARY_LABELMAP
from FoundationSegLib.mrml.segment_tags import lock
from FoundationSegLib.mrml.segments import SegmentWriter, read_segment
from FoundationSegLib.mrml.terminology import find_term
from FoundationSegLib.mrml.volumes import add_volume_node, parent_to_world, volume_from_node
from FoundationSegLib.session.segment_store import OverlapPolicy
from Testing.mrml.random_geometries import add_parent, geometries, masks, parent_matrices, solid

in_one_scene = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
POLICIES = list(OverlapPolicy)


def collapse(segmentation_node):
    """What saving does: segments that do not overlap come to share a layer."""
    segmentation_node.GetSegmentation().CollapseBinaryLabelmaps(False)


def count_layers(segmentation_node):
    return segmentation_node.GetSegmentation().GetNumberOfLayers(BINARY_LABELMAP)


@in_one_scene
@given(geometry=geometries(), parent=parent_matrices(), seed=st.integers(0, 99))
def test_a_mask_is_read_back_as_it_was_written(scene, geometry, parent, seed):
    volume_node = add_volume_node(scene, Volume(np.zeros(geometry.shape_kji, np.uint8), geometry))
    transform = add_parent(scene, parent, volume_node)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    writer = SegmentWriter(node, volume_node)
    segment_id, mask = writer.add_segment("Any"), masks(geometry, seed)
    edit = writer.write(segment_id, mask)
    assert np.array_equal(writer.read(segment_id), mask) and node.GetParentTransformNode() is transform
    assert np.array_equal(parent_to_world(node), parent_to_world(volume_node))
    for voxel in np.argwhere(mask)[:3]:
        assert slicers_opinion(node, segment_id, volume_node, voxel[::-1])
    assert sum(change.gained.voxels for change in edit.changes.values()) == mask.sum()
    for gone in (node, volume_node, transform):
        scene.RemoveNode(gone) if gone else None


def slicers_opinion(segmentation_node, segment_id, volume_node, index_ijk):
    """Is this voxel of the volume in the segment, by Slicer's matrices alone?"""
    labelmap = segmentation_node.GetBinaryLabelmapInternalRepresentation(segment_id)
    to_ras, to_image = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(to_ras)
    labelmap.GetWorldToImageMatrix(to_image)
    place = to_image.MultiplyPoint(to_ras.MultiplyPoint((*(float(n) for n in index_ijk), 1)))[:3]
    return labelmap.GetScalarComponentAsDouble(*(round(n) for n in place), 0) > 0


@st.composite
def histories(draw):
    """A few writes: which of three segments, which box, how dense, which policy; None stands for saving."""
    corner = st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(0, 7))
    write = st.tuples(st.integers(0, 2), corner, corner, st.integers(0, 99), st.sampled_from(POLICIES))
    return draw(st.lists(st.none() | write, min_size=1, max_size=6))


def boxed(one, two):
    return Box(tuple(map(min, one, two)), tuple(max(pair) + 1 for pair in zip(one, two, strict=True)))


def expect(model, ids, locked, segment_id, mask, box, policy):
    """The same write on plain arrays."""
    others = [other for other in ids if other != segment_id]
    of_locked = {True: [n for n in others if n == locked], False: [n for n in others if n != locked]}
    keep, lose = {OverlapPolicy.PROTECT: others}, {OverlapPolicy.OVERWRITE: others}
    for by_lock in (OverlapPolicy.PROTECT_LOCKED, OverlapPolicy.OVERWRITE_VISIBLE):  # nobody is hidden here
        keep[by_lock], lose[by_lock] = of_locked[True], of_locked[False]
    wanted = mask.copy()
    for other in keep.get(policy, ()):
        wanted &= ~model[other][box.slices] | model[segment_id][box.slices]
    gained = wanted & ~model[segment_id][box.slices]
    for other in lose.get(policy, ()):
        model[other][box.slices] &= ~gained
    model[segment_id][box.slices] = wanted


@in_one_scene
@given(history=histories())
def test_writing_and_undoing_as_on_plain_arrays(scene, volume_node, history):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    writer = SegmentWriter(node, volume_node)
    ids = [writer.add_segment(name) for name in "ABC"]
    lock(writer.segment(ids[2]))
    model = {segment_id: np.zeros(writer.geometry.shape_kji, bool) for segment_id in ids}
    undo = []
    for step in history:
        if step is None:
            collapse(node)
            continue
        number, one, two, seed, policy = step
        box = boxed(one, two)
        mask = masks(Geometry(np.eye(4), box.shape_kji), seed, density=0.5)
        before = {segment_id: mask.copy() for segment_id, mask in model.items()}
        if number == 2:
            with pytest.raises(InputError):
                writer.write(ids[2], mask, box, policy)
            lock(writer.segment(ids[2]), False)
            expect(model, ids, None, ids[2], mask, box, policy)
            edit = writer.write(ids[2], mask, box, policy)
            lock(writer.segment(ids[2]))
        else:
            expect(model, ids, ids[2], ids[number], mask, box, policy)
            edit = writer.write(ids[number], mask, box, policy)
        undo.append((before, edit))
        assert all(np.array_equal(writer.read(segment_id), model[segment_id]) for segment_id in ids)
        edit.apply(before_copy := {key: value.copy() for key, value in before.items()})
        assert all(np.array_equal(before_copy[segment_id], model[segment_id]) for segment_id in ids)
    for before, edit in reversed(undo):
        assert writer.apply(edit.inverse()) == edit.inverse()
        assert all(np.array_equal(writer.read(segment_id), before[segment_id]) for segment_id in ids)
    for _, edit in undo:
        assert writer.apply(edit) == edit
    assert all(np.array_equal(writer.read(segment_id), model[segment_id]) for segment_id in ids)
    scene.RemoveNode(node)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_mask_across_two_neighbours(writer, policy):
    left, right, new = (writer.add_segment(name) for name in ("Left", "Right", "New"))
    writer.write(left, solid(writer, Box((0, 0, 0), (6, 7, 3))))
    writer.write(right, solid(writer, Box((0, 0, 5), (6, 7, 8))))
    lock(writer.segment(right))
    edit = writer.write(new, solid(writer, Box((2, 2, 1), (3, 3, 7))), policy=policy)
    # Voxels 1 and 2 belong to the left one, 5 and 6 to the right one.
    expected = {
        OverlapPolicy.PROTECT: (2, 0, 0),
        OverlapPolicy.PROTECT_LOCKED: (4, 2, 0),
        OverlapPolicy.OVERWRITE_VISIBLE: (4, 2, 0),
        OverlapPolicy.ALLOW: (6, 0, 0),
        OverlapPolicy.OVERWRITE: (6, 2, 2),
    }[policy]
    lost = [edit.changes[n].lost.voxels if n in edit.changes else 0 for n in (left, right)]
    assert (edit.changes[new].gained.voxels, *lost) == expected
    assert writer.read(left).sum() == 6 * 7 * 3 - lost[0]
    assert writer.read(right).sum() == 6 * 7 * 3 - lost[1]


def test_what_a_segment_has_already_is_its_own(writer):
    """Overlapping segments stay as they are where nothing is to change."""
    first, second = writer.add_segment("First"), writer.add_segment("Second")
    mask = solid(writer, Box((1, 1, 1), (4, 4, 4)))
    writer.write(first, mask)
    writer.write(second, mask, policy=OverlapPolicy.ALLOW)
    for policy in POLICIES:
        assert writer.write(second, mask, policy=policy) == Edit({})


@pytest.mark.parametrize("before", [True, False])
def test_an_empty_segment_does_not_spoil_the_others_when_they_are_saved(writer, segmentation_node, before):
    """Slicer puts all segments on the grid of the first one, which is that of the identity for an empty one."""
    segmentation = segmentation_node.GetSegmentation()
    first = segmentation.AddEmptySegment() if before else writer.add_segment("First")
    segment_id, mask = writer.add_segment("Any"), masks(writer.geometry, 5)
    writer.write(segment_id, mask)
    collapse(segmentation_node)
    assert np.array_equal(writer.read(segment_id), mask)
    writer.write(first, ~mask)
    assert np.array_equal(writer.read(segment_id), mask) and np.array_equal(writer.read(first), ~mask)


def test_a_new_segment_does_not_share_a_layer(writer, segmentation_node):
    for name in "ABC":
        writer.add_segment(name)
    assert count_layers(segmentation_node) == 3


def test_packed_masks(writer):
    segment_id = writer.add_segment("Any")
    mask = masks(writer.geometry, 4)
    writer.write(segment_id, pack_mask(mask))
    assert np.array_equal(writer.read(segment_id), mask)
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    assert logic.GetSegmentStatus(writer.segment(segment_id)) == logic.InProgress
    writer.write(segment_id, EMPTY_MASK, Box((0, 0, 0), (1, 7, 8)))
    mask[0] = False
    assert np.array_equal(writer.read(segment_id), mask)
    writer.write(segment_id, EMPTY_MASK)
    assert not writer.read(segment_id).any()


@pytest.mark.parametrize(
    ("mask", "box"),
    [
        (np.ones((1, 1, 1), bool), Box((6, 0, 0), (7, 1, 1))),
        (np.ones((1, 1, 1), bool), Box((-1, 0, 0), (0, 1, 1))),
        (np.ones((2, 1, 1), bool), Box((0, 0, 0), (1, 1, 1))),
        (np.ones((6, 7, 9), bool), None),
        (PackedMask(Box((0, 0, 0), (1, 1, 2)), b"\xc0"), Box((0, 0, 0), (1, 1, 1))),
        (PackedMask(Box((0, 0, 7), (1, 1, 9)), b"\xc0"), None),
    ],
)
def test_a_mask_out_of_place_changes_nothing(writer, mask, box):
    segment_id = writer.add_segment("Any")
    with pytest.raises(GeometryError):
        writer.write(segment_id, mask, box)
    assert not writer.read(segment_id).any()
    with pytest.raises(GeometryError):
        writer.read(segment_id, Box((0, 0, 0), (7, 1, 1)))


def test_an_edit_out_of_place_changes_nothing(writer):
    ids = [writer.add_segment(name) for name in "AB"]
    inside, outside = PackedMask(Box((0, 0, 0), (1, 1, 1)), b"\x80"), PackedMask(Box((6, 0, 0), (7, 1, 1)), b"\x80")
    with pytest.raises(GeometryError):
        writer.apply(Edit({ids[0]: SegmentChange(inside), ids[1]: SegmentChange(outside)}))
    with pytest.raises(InputError):
        writer.apply(Edit({ids[0]: SegmentChange(inside), "gone": SegmentChange(inside)}))
    assert not writer.read(ids[0]).any()


def test_undo_reports_what_somebody_else_changed(writer):
    segment_id = writer.add_segment("Any")
    edit = writer.write(segment_id, solid(writer, Box((0, 0, 0), (2, 2, 2))))
    writer.write(segment_id, np.zeros((1, 2, 2), bool), Box((0, 0, 0), (1, 2, 2)))
    assert writer.apply(edit.inverse()).changes[segment_id].lost.voxels == 4


def test_a_locked_segment_is_not_written_but_can_be_undone(writer):
    segment_id = writer.add_segment("Any")
    edit = writer.write(segment_id, solid(writer, Box((0, 0, 0), (2, 2, 2))))
    lock(writer.segment(segment_id))
    with pytest.raises(InputError, match="'Any' is locked"):
        writer.write(segment_id, EMPTY_MASK)
    writer.apply(edit.inverse())
    assert not writer.read(segment_id).any()


def test_the_users_segment_editor_settings_do_not_matter(scene, writer):
    editor = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.SetOverwriteMode(editor.OverwriteAllSegments)
    editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideAllSegments)
    ids = [writer.add_segment(name) for name in "AB"]
    for segment_id in ids:
        writer.write(segment_id, solid(writer, Box((0, 0, 0), (2, 2, 2))), policy=OverlapPolicy.ALLOW)
    assert [writer.read(segment_id).sum() for segment_id in ids] == [8, 8]
    assert editor.GetMaskMode() == slicer.vtkMRMLSegmentationNode.EditAllowedInsideAllSegments


def test_many_segments(scene, writer, segmentation_node):
    """More label values in one layer than a byte holds."""
    places = list(np.ndindex(writer.geometry.shape_kji))[:260]
    labels = np.zeros(writer.geometry.shape_kji, np.int16)
    labels.flat[:260] = range(1, 261)
    label_node = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    label_node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(writer.geometry.ijk_to_ras))
    slicer.util.updateVolumeFromArray(label_node, labels)
    slicer.vtkSlicerSegmentationsModuleLogic().ImportLabelmapToSegmentationNode(label_node, segmentation_node)
    ids = segmentation_node.GetSegmentation().GetSegmentIDs()
    assert count_layers(segmentation_node) == 1
    edit = writer.write(ids[0], np.ones(writer.geometry.shape_kji, bool), policy=OverlapPolicy.OVERWRITE)
    assert len(edit.changes) == 260
    writer.apply(edit.inverse())
    assert all(writer.read(segment_id)[place] for segment_id, place in zip(ids, places, strict=True))


def test_a_known_name_brings_term_and_colour(writer):
    segment = writer.segment(writer.add_segment("left_kidney"))
    term = find_term("left kidney")
    assert (segment.GetName(), segment.GetTerminology()) == ("left_kidney", term.serialized)
    assert np.allclose(segment.GetColor(), term.colour)


@pytest.mark.parametrize("names", [("left lung", "right lung"), ("heart", "aorta"), ("liver", "liver 2", "liver")])
def test_segments_of_nearly_one_colour_can_be_told_apart(writer, names):
    colours = [writer.segment(writer.add_segment(name)).GetColor() for name in names]
    assert min(np.linalg.norm(np.subtract(a, b)) for n, a in enumerate(colours) for b in colours[:n]) > 0.15
    assert np.allclose(colours[0], find_term(names[0]).colour)


def test_what_is_given_wins(writer):
    term = find_term("spleen").serialized
    segment = writer.segment(
        writer.add_segment("liver", colour=(0.1, 0.2, 0.3), terminology=term, tags={"FoundationSeg.Model": "x"})
    )
    assert np.allclose(segment.GetColor(), (0.1, 0.2, 0.3)) and segment.GetTerminology() == term
    assert segment.HasTag("FoundationSeg.Model")


def test_a_segmentation_is_filed_with_its_image_unless_it_was_filed_elsewhere(scene, segmentation_node, volume_node):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    root = hierarchy.GetSceneItemID()
    study, own = (hierarchy.CreateFolderItem(root, name) for name in ("Study", "Own"))
    item = hierarchy.CreateItem(root, segmentation_node)
    hierarchy.CreateItem(study, volume_node)
    SegmentWriter(segmentation_node, volume_node)
    assert hierarchy.GetItemParent(item) == study
    hierarchy.SetItemParent(item, own)
    SegmentWriter(segmentation_node, volume_node)
    assert hierarchy.GetItemParent(item) == own


def another_volume(scene, geometry):
    return add_volume_node(scene, Volume(np.zeros(geometry.shape_kji, np.int16), geometry))


def test_another_grid_is_read_but_not_taken_over(scene, segmentation_node, volume_node):
    fine = another_volume(scene, geometry_from_spacing((12, 12, 12), (0.5, 0.5, 0.5)))
    coarse = another_volume(scene, geometry_from_spacing((6, 6, 6)))
    made = SegmentWriter(segmentation_node, fine)
    segment_id = made.add_segment("Fine")
    made.write(segment_id, np.ones((12, 12, 12), bool))
    before = segmentation_node.GetSegmentation().GetConversionParameter("Reference image geometry")
    with pytest.raises(GeometryError, match="'Fine' was drawn on another grid"):
        SegmentWriter(segmentation_node, coarse)
    assert segmentation_node.GetSegmentation().GetConversionParameter("Reference image geometry") == before
    assert read_segment(made.segment(segment_id), geometry_from_spacing((6, 6, 6))).all()


def test_a_segment_that_changed_its_grid_meanwhile_is_left_alone(scene, writer, segmentation_node):
    mine, other = writer.add_segment("Mine"), writer.add_segment("Other")
    fine = slicer.vtkOrientedImageData()
    fine.SetExtent(0, 3, 0, 3, 0, 3)
    fine.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    fine.GetPointData().GetScalars().Fill(1)
    fine.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(writer.geometry.ijk_to_ras @ np.diag([0.5, 0.5, 0.5, 1])))
    writer.segment(other).AddRepresentation(BINARY_LABELMAP, fine)
    with pytest.raises(GeometryError, match="'Other' was drawn on another grid"):
        writer.write(mine, np.ones((6, 7, 8), bool), policy=OverlapPolicy.OVERWRITE)
    assert not writer.read(mine).any()
    writer.write(mine, np.ones((6, 7, 8), bool))
    assert 0 < (~writer.read(mine)).sum() == writer.read(other).sum() < 27


def test_a_larger_image_on_the_same_grid(scene, segmentation_node):
    """A segmentation made on an image that begins two voxels earlier and ends later."""
    large = another_volume(
        scene, Geometry(np.array([[1.0, 0, 0, -2], [0, 1, 0, -2], [0, 0, 1, -2], [0, 0, 0, 1]]), (9, 9, 9))
    )
    made = SegmentWriter(segmentation_node, large)
    segment_id = made.add_segment("Large")
    made.write(segment_id, np.ones((9, 9, 9), bool))
    writer = SegmentWriter(segmentation_node, another_volume(scene, geometry_from_spacing((5, 5, 5))))
    assert writer.read(segment_id).all()
    edit = writer.write(segment_id, np.zeros((5, 5, 5), bool))
    assert edit.changes[segment_id].lost.voxels == 125 and made.read(segment_id).sum() == 9**3 - 5**3


def test_a_closed_surface_is_refused(scene, segmentation_node, volume_node):
    segmentation_node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    with pytest.raises(InputError, match="closed surface"):
        SegmentWriter(segmentation_node, volume_node)


def test_segments_are_not_moved_under_another_transform(scene, writer, segmentation_node, volume_node):
    segment_id = writer.add_segment("Any")
    add_parent(scene, np.diag([2.0, 1, 1, 1]), volume_node)
    SegmentWriter(segmentation_node, volume_node)
    assert segmentation_node.GetParentTransformNode() is volume_node.GetParentTransformNode()
    writer.write(segment_id, np.ones((6, 7, 8), bool))
    volume_node.SetAndObserveTransformNodeID(None)
    with pytest.raises(GeometryError, match="under different transforms"):
        SegmentWriter(segmentation_node, volume_node)
    assert segmentation_node.GetParentTransformNode() is not None


MODES = slicer.vtkMRMLSegmentationNode


@pytest.fixture
def shown_writer(segmentation_node, volume_node):
    segmentation_node.CreateDefaultDisplayNodes()
    return SegmentWriter(segmentation_node, volume_node)


@pytest.fixture
def editor(scene):
    return scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")


@pytest.fixture
def area(shown_writer):
    """A segment that covers a third of the volume."""
    segment_id = shown_writer.add_segment("Area")
    shown_writer.write(segment_id, np.ones((2, 7, 8), bool), Box((1, 0, 0), (3, 7, 8)))
    return segment_id


def write_everywhere(writer, editor):
    segment_id = writer.add_segment("Any")
    whole = np.ones(writer.geometry.shape_kji, bool)
    writer.write(segment_id, whole, policy=OverlapPolicy.ALLOW, masking_node=editor)
    return writer.read(segment_id)


@pytest.mark.parametrize(
    ("mode", "inside"),
    [
        (MODES.EditAllowedInsideAllSegments, True),
        (MODES.EditAllowedInsideVisibleSegments, True),
        (MODES.EditAllowedInsideSingleSegment, True),
        (MODES.EditAllowedOutsideAllSegments, False),
        (MODES.EditAllowedOutsideVisibleSegments, False),
    ],
)
def test_the_editable_area(shown_writer, editor, area, mode, inside):
    editor.SetMaskMode(mode)
    editor.SetMaskSegmentID(area)
    assert np.array_equal(write_everywhere(shown_writer, editor), shown_writer.read(area) == inside)


def test_erasing_keeps_to_the_area_too(shown_writer, editor, area):
    writer = shown_writer
    segment_id = writer.add_segment("Any")
    writer.write(segment_id, np.ones((6, 7, 8), bool), policy=OverlapPolicy.ALLOW)
    editor.SetMaskMode(MODES.EditAllowedInsideSingleSegment)
    editor.SetMaskSegmentID(area)
    writer.write(segment_id, np.zeros((6, 7, 8), bool), masking_node=editor)
    assert np.array_equal(writer.read(segment_id), ~writer.read(area))
    assert writer.read(area).sum() == 112


def test_the_intensity_range(writer, editor, volume_node):
    editor.SetSourceVolumeIntensityMask(True)
    editor.SetSourceVolumeIntensityMaskRange(100, 200)
    voxels = volume_from_node(volume_node).array_kji
    assert np.array_equal(write_everywhere(writer, editor), (voxels >= 100) & (voxels <= 200))


def test_an_area_of_another_segmentation(writer, editor):
    editor.SetMaskMode(MODES.EditAllowedInsideSingleSegment)
    editor.SetMaskSegmentID("elsewhere")
    with pytest.raises(InputError, match="another segmentation"):
        write_everywhere(writer, editor)
