import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from FoundationSegLib.errors import GeometryError, InputError
from FoundationSegLib.imaging.geometry import Box, geometry_from_spacing
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.mrml import volumes
from Testing.mrml.conftest import AWKWARD
from Testing.mrml.random_geometries import add_parent, geometries, parent_matrices
from Testing.mrml.scene_session import open_bundle, save_bundle

in_one_scene = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
GRID = geometry_from_spacing((2, 3, 4), (1.0, 2.0, 3.0))


def grey(dtype, fill=1):
    return Volume(np.full(GRID.shape_kji, fill, dtype), GRID)


def count_volumes(scene):
    return scene.GetNumberOfNodesByClass("vtkMRMLVolumeNode")


@in_one_scene
@given(geometry=geometries())
def test_any_geometry_survives_node_and_back(scene, geometry):
    voxels = np.arange(np.prod(geometry.shape_kji), dtype=np.int32).reshape(geometry.shape_kji)
    node = volumes.add_volume_node(scene, Volume(voxels, geometry))
    back = volumes.volume_from_node(node)
    assert np.array_equal(back.array_kji, voxels)
    # Slicer keeps spacing and unit vectors, and ignores changes below 2.3e-16: right to the last digits of a double.
    assert np.allclose(back.geometry.ijk_to_ras, geometry.ijk_to_ras, rtol=0, atol=1e-15 * max(1, *geometry.spacing_mm))
    again = volumes.add_volume_node(scene, back)
    assert volumes.geometry_from_node(again).almost_equals(geometry)
    scene.RemoveNode(node)
    scene.RemoveNode(again)


@in_one_scene
@given(geometry=geometries(), parent=parent_matrices())
def test_voxels_lie_where_slicer_puts_them(scene, geometry, parent):
    node = volumes.add_volume_node(scene, Volume(np.zeros(geometry.shape_kji, np.uint8), geometry))
    transform = add_parent(scene, parent, node)
    to_ras, to_world = vtk.vtkMatrix4x4(), vtk.vtkGeneralTransform()
    node.GetIJKToRASMatrix(to_ras)
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(transform, None, to_world)
    k, j, i = (n - 1 for n in geometry.shape_kji)
    for index in ((0, 0, 0), (i, j, k), (i, 0, k), (0.5, -1, k + 2)):
        own = to_ras.MultiplyPoint((*index, 1))[:3]
        assert np.allclose(volumes.geometry_from_node(node).to_ras(index), own, rtol=0, atol=1e-9)
        world = volumes.parent_to_world(node) @ (*volumes.geometry_from_node(node).to_ras(index), 1)
        assert np.allclose(world[:3], to_world.TransformDoublePoint(own), rtol=0, atol=1e-9)
    scene.RemoveNode(node)


def test_an_image_that_does_not_start_at_voxel_zero(scene):
    node = volumes.add_volume_node(scene, Volume(np.zeros((2, 3, 4), np.int16), GRID))
    node.GetImageData().SetExtent(10, 13, 20, 22, 5, 6)
    assert np.array_equal(volumes.geometry_from_node(node).to_ras((0, 0, 0)), [10, 40, 15])


def test_voxels_are_a_read_only_view(volume_node):
    view = volumes.volume_from_node(volume_node).array_kji
    assert np.shares_memory(view, slicer.util.arrayFromVolume(volume_node))
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0, 0] = 1
    slicer.util.arrayFromVolume(volume_node)[0, 0, 0] = 99
    assert view[0, 0, 0] == 99


def test_the_node_has_a_copy_of_its_own(scene):
    voxels = np.zeros(GRID.shape_kji, np.int16)
    node = volumes.add_volume_node(scene, Volume(voxels, GRID))
    voxels[...] = 7
    assert not volumes.volume_from_node(node).array_kji.any()


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"])
def test_types_that_slicer_has_are_kept(scene, dtype):
    assert volumes.volume_from_node(volumes.add_volume_node(scene, grey(dtype))).array_kji.dtype == np.dtype(dtype)


@pytest.mark.parametrize(
    ("dtype", "fill", "stored"),
    [
        ("i8", -5, "i4"),
        ("u8", 5, "i4"),
        ("i8", 2**31, "u4"),
        ("i8", 2**40, "f8"),
        ("u8", 2**53, "f8"),
        ("f2", 0.1, "f4"),
        (">i2", 300, "i2"),
        (np.longdouble, 0.5, "f4"),
        (np.longdouble, np.nan, "f4"),
    ],
)
def test_other_types_become_one_that_holds_every_value(scene, dtype, fill, stored):
    volume = grey(dtype, fill)
    back = volumes.volume_from_node(volumes.add_volume_node(scene, volume)).array_kji
    assert back.dtype == np.dtype(stored) and np.array_equal(back, volume.array_kji, equal_nan=True)


@pytest.mark.parametrize(("dtype", "fill"), [("i8", 2**53 + 1), ("u8", 2**64 - 1), ("i8", -(2**60))])
def test_values_that_cannot_be_stored_leave_no_node_behind(scene, dtype, fill):
    with pytest.raises(InputError, match="exactly"):
        volumes.add_volume_node(scene, grey(dtype, fill))
    assert count_volumes(scene) == 0


def test_colour(scene):
    voxels = np.arange(72, dtype=np.uint8).reshape(2, 3, 4, 3)
    node = volumes.add_volume_node(scene, Volume(voxels, GRID))
    assert node.IsA("vtkMRMLVectorVolumeNode") and np.array_equal(volumes.volume_from_node(node).array_kji, voxels)


def vectors(scene, components, node_class="vtkMRMLVectorVolumeNode"):
    voxels = np.arange(24 * components, dtype=np.uint8).reshape(2, 3, 4, components)
    return slicer.util.addVolumeFromArray(voxels, nodeClassName=node_class), voxels


def test_alpha_is_left_out(scene):
    node, voxels = vectors(scene, 4)
    assert np.array_equal(volumes.volume_from_node(node).array_kji, voxels[..., :3])


@pytest.mark.parametrize("components", [2, 6, 9])
def test_other_components_are_refused(scene, components):
    with pytest.raises(InputError, match=f"{components} numbers"):
        volumes.volume_from_node(vectors(scene, components)[0])


def test_a_vector_field_is_no_colour(scene):
    node, _ = vectors(scene, 3)
    node.SetVoxelVectorType(slicer.vtkMRMLVolumeNode.VoxelVectorTypeSpatial)
    with pytest.raises(InputError, match="no colours"):
        volumes.volume_from_node(node)


def test_labels_are_refused(scene):
    node = slicer.util.addVolumeFromArray(np.zeros((2, 3, 4), np.int16), nodeClassName="vtkMRMLLabelMapVolumeNode")
    with pytest.raises(InputError, match="holds labels"):
        volumes.volume_from_node(node)


def test_an_empty_node_is_refused(scene):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    for read in (volumes.geometry_from_node, volumes.volume_from_node):
        with pytest.raises(InputError, match="holds no image"):
            read(node)


def test_a_matrix_that_cannot_be_inverted_is_refused(volume_node):
    volume_node.SetIJKToRASDirections(1, 1, 0, 0, 0, 0, 0, 0, 1)
    with pytest.raises(GeometryError):
        volumes.geometry_from_node(volume_node)


@pytest.mark.parametrize(
    ("file", "slices", "spacing", "in_pixels"),
    [
        ("", 1, 1.0, True),  # nobody has placed it
        ("a.nrrd", 1, 1.0, True),
        ("a.nrrd", 1, 0.35, False),
        ("a.nrrd", 5, 1.0, False),
        ("IM0001.dcm", 1, 1.0, True),  # an ultrasound image
        ("IM0001.dcm", 1, 0.2, False),
        ("a.PNG", 1, 0.35, True),  # of 72 dots per inch
        ("a.jpeg", 1, 1.0, True),
        ("a.tif", 5, 1.0, True),
        ("a.tif", 5, 0.02, False),  # a stack to which somebody has given its spacing
    ],
)
def test_a_picture_that_slicer_has_loaded_is_measured_in_pixels(scene, file, slices, spacing, in_pixels):
    array = np.zeros((slices, 4, 5), np.uint8)
    node = volumes.add_volume_node(scene, Volume(array, geometry_from_spacing(array.shape, (spacing,) * 3)))
    if file:
        storage = scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
        storage.SetFileName(f"/there/{file}")
        node.SetAndObserveStorageNodeID(storage.GetID())
    assert volumes.volume_from_node(node).in_pixels is in_pixels


@pytest.mark.parametrize("kept_by", ["the node", "the scene", "the file"])
def test_a_picture_that_is_saved_as_nrrd_stays_one(scene, tmp_path, kept_by):
    array = np.random.default_rng(0).integers(0, 255, (1, 4, 5), np.uint8)
    node = volumes.add_volume_node(scene, Volume(array, geometry_from_spacing(array.shape, (0.35, 0.35, 1.0))))
    storage = scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName("/there/polyp.png")
    node.SetAndObserveStorageNodeID(storage.GetID())
    assert volumes.volume_from_node(node).in_pixels
    storage.SetFileName(str(tmp_path / "polyp.nrrd"))
    if kept_by == "the scene":
        scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        keep, node, _ = open_bundle(save_bundle(scene, tmp_path), tmp_path / "opened")
        assert keep
    elif kept_by == "the file":
        writer = scene.AddNewNodeByClass("vtkMRMLNRRDStorageNode")
        writer.SetFileName(str(tmp_path / "polyp.nrrd"))
        assert writer.WriteData(node)
        assert read_volume(tmp_path / "polyp.nrrd").in_pixels
        node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        assert writer.ReadData(node)
    assert volumes.volume_from_node(node).in_pixels


def test_what_the_source_said_is_kept(scene):
    volume = Volume(np.zeros(GRID.shape_kji, np.int16), GRID, "CT", (400.0, 40.0), "Chest")
    back = volumes.volume_from_node(volumes.add_volume_node(scene, volume))
    assert (back.modality, back.window_level, back.name) == ("CT", (400.0, 40.0), "Chest")
    assert volumes.add_volume_node(scene, volume, "Other").GetName() == "Other"


def test_window_and_level_are_those_of_the_display(volume_node):
    volume_node.GetDisplayNode().AutoWindowLevelOff()
    volume_node.GetDisplayNode().SetWindowLevel(350, 50)
    assert volumes.volume_from_node(volume_node).window_level == (350, 50)
    volume_node.RemoveAllDisplayNodeIDs()
    assert volumes.volume_from_node(volume_node).window_level is None


def test_modality_from_the_subject_hierarchy(scene, volume_node):
    assert volumes.volume_from_node(volume_node).modality is None
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), volume_node)
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "MR")
    assert volumes.volume_from_node(volume_node).modality == "MR"


@pytest.mark.parametrize(("unit", "modality"), [("[hnsf'U]", "CT"), ("1", None)])
def test_modality_from_the_unit(volume_node, unit, modality):
    entry = slicer.vtkCodedEntry()
    entry.SetValueSchemeMeaning(unit, "UCUM", "unit")
    volume_node.SetVoxelValueUnits(entry)
    assert volumes.volume_from_node(volume_node).modality == modality


def test_modality_from_the_quantity(volume_node):
    entry = slicer.vtkCodedEntry()
    entry.SetValueSchemeMeaning("110852", "DCM", "MR signal intensity")
    volume_node.SetVoxelValueQuantity(entry)
    assert volumes.volume_from_node(volume_node).modality == "MR"


def bend(scene, *nodes):
    parent = scene.AddNewNodeByClass("vtkMRMLTransformNode")
    spline = vtk.vtkThinPlateSplineTransform()
    ends = []
    for lift in (0, 5):
        points = vtk.vtkPoints()
        for corner in ((0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 50), (50, 50, 50 + lift)):
            points.InsertNextPoint(corner)
        ends.append(points)
    spline.SetSourceLandmarks(ends[0])
    spline.SetTargetLandmarks(ends[1])
    spline.SetBasisToR()
    parent.SetAndObserveTransformToParent(spline)
    for node in nodes:
        node.SetAndObserveTransformNodeID(parent.GetID())
    return parent


def test_a_bent_parent_transform_is_refused(scene, volume_node):
    bend(scene, volume_node)
    with pytest.raises(GeometryError, match="harden the transform first"):
        volumes.parent_to_world(volume_node)


def test_others_follow_the_volume(scene, volume_node, segmentation_node):
    markups = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    parent = add_parent(scene, np.diag([2.0, 1, 1, 1]), volume_node)
    volumes.share_parent_transform(volume_node, segmentation_node, markups)
    assert segmentation_node.GetParentTransformNode() is parent and markups.GetParentTransformNode() is parent
    volume_node.SetAndObserveTransformNodeID(None)
    volumes.share_parent_transform(volume_node, segmentation_node, markups)
    assert segmentation_node.GetParentTransformNode() is None


def test_an_image_that_others_change_is_noticed(scene):
    node = volumes.add_volume_node(scene, Volume(np.zeros((3, 4, 5), np.int16), geometry_from_spacing((3, 4, 5))))
    source = volumes.NodeImage(node)
    stamp, key = source.stamp(), source.read().key
    assert source.stamp() == stamp
    slicer.util.arrayFromVolume(node)[1] = 7
    slicer.util.arrayFromVolumeModified(node)
    assert source.stamp() != stamp and source.read().key != key
    stamp = source.stamp()
    slicer.util.updateVolumeFromArray(node, np.ones((3, 4, 5), np.int16))
    assert source.stamp() != stamp and source.read().array_kji.min() == 1
    stamp = source.stamp()
    node.SetSpacing(1, 2, 3)
    assert source.stamp() != stamp
    node.SetAndObserveImageData(None)
    assert source.stamp() != stamp
    with pytest.raises(InputError):
        source.read()


def roi_at(scene, centre, size):
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    node.SetCenter(*centre)
    node.SetSize(*size)
    return node


def test_it_holds_the_voxels_whose_centres_are_inside(scene, volume_node):
    centre = AWKWARD.to_ras((4, 3, 2))
    around = volumes.box_of_roi(roi_at(scene, centre, (0.4, 0.4, 0.4)), volume_node)
    assert around.contains(type(around)((2, 3, 4), (3, 4, 5)))
    whole = volumes.box_of_roi(roi_at(scene, centre, (500, 500, 500)), volume_node)
    assert whole == AWKWARD.box


def test_one_on_a_straight_grid_is_exact(scene):
    geometry = geometry_from_spacing((10, 12, 14), (1.0, 2.0, 3.0))
    node = volumes.add_volume_node(scene, Volume(np.arange(1680, dtype=np.int16).reshape(10, 12, 14), geometry))

    @given(st.tuples(*[st.integers(0, 8)] * 3), st.tuples(*[st.integers(1, 5)] * 3))
    def check(start, extent):
        wanted = Box(start, tuple(a + b for a, b in zip(start, extent, strict=True))).intersection(geometry.box)
        low, high = (
            np.array(side[::-1]) * geometry.spacing_mm for side in (wanted.start_kji, np.subtract(wanted.stop_kji, 1))
        )
        roi = roi_at(scene, (low + high) / 2, high - low + 0.5)
        assert volumes.box_of_roi(roi, node) == wanted
        scene.RemoveNode(roi)

    check()


def test_a_transform_of_the_volume_is_taken_into_account(scene, volume_node):
    roi = roi_at(scene, AWKWARD.to_ras((4, 3, 2)), (3, 3, 6))
    before = volumes.box_of_roi(roi, volume_node)
    matrix = np.eye(4)
    matrix[0, 3] = 55
    transform = add_parent(scene, matrix, volume_node)
    with pytest.raises(InputError, match="no voxel"):
        volumes.box_of_roi(roi, volume_node)
    roi.SetAndObserveTransformNodeID(transform.GetID())
    assert volumes.box_of_roi(roi, volume_node) == before


def test_one_that_was_not_placed_is_told(scene, volume_node):
    with pytest.raises(InputError, match="no size"):
        volumes.box_of_roi(roi_at(scene, (0, 0, 0), (0, 0, 0)), volume_node)
