import itertools

import numpy as np
import pytest
import slicer
import slicer.util
from vtk.util import numpy_support

from FoundationSegLib.errors import GeometryError, InputError
from FoundationSegLib.imaging.geometry import EMPTY_BOX, Box, Geometry, geometry_from_spacing
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.labelmaps import (
    BINARY_LABELMAP,
    image_to_world,
    is_on_grid,
    label_image,
    mask_image,
    occupied_box,
    read_labels,
)
from FoundationSegLib.mrml.segments import SegmentWriter
from FoundationSegLib.mrml.volumes import add_volume_node
from Testing.mrml.conftest import AWKWARD as GRID
from Testing.mrml.test_source_representations import make_source

LABELS = np.arange(1, 25, dtype=np.uint8).reshape(2, 3, 4)


def labelmap(start_kji=(0, 0, 0), matrix=GRID.ijk_to_ras):
    return label_image(LABELS, Box((0, 0, 0), LABELS.shape).shifted(start_kji), matrix)


def moved(matrix, offset_ijk):
    shift = np.eye(4)
    shift[:3, 3] = offset_ijk
    return matrix @ shift


def whole(start_kji):
    """LABELS where they are in the volume, cut off at its border."""
    padded = np.zeros((26, 27, 28), np.uint8)
    k, j, i = (n + 10 for n in start_kji)
    padded[k : k + 2, j : j + 3, i : i + 4] = LABELS
    return padded[10:16, 10:17, 10:18]


ROUNDED = GRID.ijk_to_ras.round(3)  # as files do; by at most 0.02 of a voxel here


@pytest.mark.parametrize("matrix", [GRID.ijk_to_ras, ROUNDED])
@pytest.mark.parametrize("start", [(0, 0, 0), (1, 2, 3), (4, 4, 4), (-1, -2, -3), (5, 6, 7), (9, 9, 9)])
def test_a_label_map_with_an_extent_of_its_own(start, matrix):
    for image in (labelmap(start, matrix), labelmap(matrix=moved(matrix, start[::-1]))):
        assert np.array_equal(read_labels(image, GRID, GRID.box), whole(start))
        assert occupied_box(image, GRID) == Box((0, 0, 0), LABELS.shape).shifted(start).intersection(GRID.box)
        for box in (Box((0, 1, 2), (3, 5, 6)), EMPTY_BOX):
            assert np.array_equal(read_labels(image, GRID, box), whole(start)[box.slices])


def test_a_box_inside_is_read_without_copying():
    image = labelmap()
    read = read_labels(image, GRID, Box((0, 1, 1), (2, 3, 3)))
    assert np.shares_memory(read, numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()))


@pytest.mark.parametrize("change", [np.diag([0.5, 1, 1, 1]), moved(np.eye(4), (0.4, 0, 0))])
def test_another_grid_is_read_by_the_nearest_voxel(change):
    grid = geometry_from_spacing((6, 7, 8), (1.0, 1.0, 1.0))
    image = labelmap((1, 1, 1), change)
    assert occupied_box(image, grid) == grid.box
    expected = np.zeros(grid.shape_kji, np.uint8)
    for k, j, i in np.ndindex(grid.shape_kji):
        x, y, z = np.floor((np.linalg.inv(change) @ (i, j, k, 1))[:3] + 0.5).astype(int) - 1
        if 0 <= z < 2 and 0 <= y < 3 and 0 <= x < 4:
            expected[k, j, i] = LABELS[z, y, x]
    assert np.array_equal(read_labels(image, grid, grid.box), expected)
    with pytest.raises(GeometryError, match="another grid"):
        mask_image(pack_mask(np.ones((1, 1, 1), bool)), image, grid)


@pytest.mark.parametrize("image", [None, slicer.vtkOrientedImageData()])
def test_a_label_map_without_voxels(image):
    assert occupied_box(image, GRID) == EMPTY_BOX and not read_labels(image, GRID, GRID.box).any()


def test_a_mask_takes_the_matrix_and_the_voxel_numbers_of_its_label_map():
    mask = pack_mask(LABELS > 5, (1, 2, 3))
    target = labelmap(matrix=moved(ROUNDED, (1, 1, 1)))
    for image, first_ijk in ((mask_image(mask, target, GRID), (2, 1, 0)), (mask_image(mask, None, GRID), (3, 2, 1))):
        assert image.GetExtent()[::2] == first_ijk
        assert np.array_equal(read_labels(image, GRID, mask.box), mask.unpack())
    assert np.array_equal(image_to_world(mask_image(mask, target, GRID)), image_to_world(target))


TURNS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


@pytest.mark.parametrize(("order", "signs"), TURNS[1:])
def test_a_label_map_that_counts_in_other_directions_is_turned_and_written(
    segmentation_node, volume_node, order, signs
):
    """Two segments share it; it reaches out of the volume."""
    turning = np.zeros((4, 4))
    turning[range(3), order] = signs
    turning[:, 3] = 3, 5, 2, 1
    image = labelmap((1, -2, 0), GRID.ijk_to_ras @ turning)
    segmentation, before = segmentation_node.GetSegmentation(), read_labels(image, GRID, GRID.box).copy()
    for key, label in (("a", 5), ("b", 9)):
        segment = slicer.vtkSegment()
        segment.AddRepresentation(BINARY_LABELMAP, image)
        segment.SetLabelValue(label)
        segmentation.AddSegment(segment, key)
    writer = SegmentWriter(segmentation_node, volume_node)
    assert segmentation.GetNumberOfLayers(BINARY_LABELMAP) == 1
    assert before.any() and np.array_equal(read_labels(writer.labelmap("a"), GRID, GRID.box), before)
    i0, i1, j0, j1, k0, k1 = writer.labelmap("b").GetExtent()
    everything = read_labels(writer.labelmap("b"), GRID, Box((k0, j0, i0), (k1 + 1, j1 + 1, i1 + 1)))
    assert sorted(everything.ravel()) == sorted(LABELS.ravel())
    writer.write("a", np.ones(GRID.shape_kji, bool))
    assert np.array_equal(writer.read("a"), before != 9) and np.array_equal(writer.read("b"), before == 9)


def test_what_slicer_turns_in_the_midst_of_work_is_turned_back(scene, segmentation_node):
    """After a fractional label map was the source, all are on the grid of the first, which has no voxels here."""
    grid = Geometry(np.array([[0, -1, 0, 7], [1, 0, 0, -3], [0, 0, 1, 2], [0, 0, 0, 1.0]]), (8, 10, 12))
    writer = SegmentWriter(segmentation_node, add_volume_node(scene, Volume(np.arange(960.0).reshape(8, 10, 12), grid)))
    _first, *keys = (writer.add_segment(name) for name in "ABC")
    for n, key in enumerate(keys):
        mask = np.zeros(grid.shape_kji, bool)
        mask[2 + 3 * n : 5 + 3 * n, 2:8, 3:9] = True
        writer.write(key, mask)
    for source in ("Fractional labelmap", BINARY_LABELMAP):
        make_source(segmentation_node, source)
    assert not any(is_on_grid(writer.labelmap(key), grid) for key in keys)
    wider, other = writer.read(keys[0]), writer.read(keys[1])
    assert wider.any() and other.any()
    wider[:2] = True
    writer.write(keys[0], wider)
    assert np.array_equal(writer.read(keys[0]), wider) and np.array_equal(writer.read(keys[1]), other)


@pytest.mark.parametrize("change", [np.diag([1, 1, -1.2, 1]), moved(np.diag([1.0, 1, -1, 1]), (0, 0, 0.5))])
def test_a_label_map_beside_the_grid_is_refused(segmentation_node, volume_node, change):
    segment = slicer.vtkSegment()
    segment.AddRepresentation(BINARY_LABELMAP, labelmap(matrix=GRID.ijk_to_ras @ change))
    segmentation_node.GetSegmentation().AddSegment(segment, "a")
    with pytest.raises(GeometryError, match="another grid"):
        SegmentWriter(segmentation_node, volume_node)


@pytest.fixture
def reader(segmentation_node, volume_node):
    return SegmentWriter(segmentation_node, volume_node)


def slicers_segment(segmentation_node, volume_node, mask):
    segment_id = segmentation_node.GetSegmentation().AddEmptySegment("", "Slicer's")
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), segmentation_node, segment_id, volume_node)
    return segment_id


@pytest.fixture
def stripes(reader, segmentation_node, volume_node):
    """Three segments along i, two voxels wide each, in one layer; by id, their masks."""
    stripes = {}
    for n in range(3):
        mask = np.zeros(reader.geometry.shape_kji, bool)
        mask[1:4, 2:5, 2 * n : 2 * n + 2] = True
        stripes[slicers_segment(segmentation_node, volume_node, mask)] = mask
    segmentation_node.GetSegmentation().CollapseBinaryLabelmaps(False)
    assert segmentation_node.GetSegmentation().GetNumberOfLayers(BINARY_LABELMAP) == 1
    return stripes


def test_segments_of_one_layer_are_told_apart_whole_and_in_part(reader, stripes):
    assert reader.segment_ids == tuple(stripes)
    for segment_id, mask in stripes.items():
        for box in (reader.geometry.box, Box((0, 3, 1), (3, 7, 4)), EMPTY_BOX):
            assert np.array_equal(reader.read(segment_id, box), mask[box.slices])
        reader.read(segment_id)[...] = False
        assert reader.read(segment_id).any(), "a copy is read"


def test_segments_and_boxes_that_are_not_there(reader, stripes):
    for ask in (reader.segment, reader.labelmap, reader.read):
        with pytest.raises(InputError, match="no segment with the id 'gone'"):
            ask("gone")
    for box in (Box((0, 0, 0), (7, 1, 1)), Box((0, -1, 0), (1, 1, 1))):
        with pytest.raises(GeometryError, match="reaches out"):
            reader.read(next(iter(stripes)), box)
