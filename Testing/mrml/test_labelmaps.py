import itertools

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from vtk.util import numpy_support

from FoundationSegLib.errors import GeometryError
from FoundationSegLib.imaging.geometry import EMPTY_BOX, Box, Geometry, geometry_from_spacing
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.mrml.labelmaps import (
    BINARY_LABELMAP,
    grid_offset,
    is_empty,
    mask_image,
    occupied_box,
    oriented_image,
    read_labels,
    take_labelmaps,
    turned_labelmaps,
)

GRID = Geometry([[-0.7, 0.1, 0.3, 10], [-0.2, 0.9, 0.05, -20], [0.1, 0.02, 3, 5], [0, 0, 0, 1]], (6, 7, 8))


def labelmap(labels, start_kji=(0, 0, 0), matrix=GRID.ijk_to_ras):
    image = oriented_image(Box((0, 0, 0), labels.shape).shifted(start_kji), matrix)
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(labels.reshape(-1), deep=True))
    return image


def moved(matrix, offset_ijk):
    shift = np.eye(4)
    shift[:3, 3] = offset_ijk
    return matrix @ shift


LABELS = np.arange(1, 25, dtype=np.uint8).reshape(2, 3, 4)


def whole(start_kji):
    """LABELS in their place in the volume, cut off at its border."""
    padded = np.zeros((26, 27, 28), np.uint8)
    k, j, i = (n + 10 for n in start_kji)
    padded[k : k + 2, j : j + 3, i : i + 4] = LABELS
    return padded[10:16, 10:17, 10:18]


@pytest.mark.parametrize("start", [(0, 0, 0), (1, 2, 3), (4, 4, 4), (-1, -2, -3), (5, 6, 7), (9, 9, 9)])
def test_a_label_map_with_an_extent_of_its_own(start):
    image = labelmap(LABELS, start)
    assert np.array_equal(read_labels(image, GRID, GRID.box), whole(start))
    box = Box((0, 1, 2), (3, 5, 6))
    assert np.array_equal(read_labels(image, GRID, box), whole(start)[box.slices])


@pytest.mark.parametrize("offset_ijk", [(3, 2, 1), (-3, -1, 0)])
def test_a_label_map_that_counts_from_another_voxel(offset_ijk):
    image = labelmap(LABELS, (0, 0, 0), moved(GRID.ijk_to_ras, offset_ijk))
    assert grid_offset(image, GRID) == offset_ijk[::-1]
    assert np.array_equal(read_labels(image, GRID, GRID.box), whole(offset_ijk[::-1]))
    assert occupied_box(image, GRID) == Box((0, 0, 0), (2, 3, 4)).shifted(offset_ijk[::-1]).intersection(GRID.box)


def test_a_box_inside_is_read_without_copying():
    image = labelmap(LABELS)
    read = read_labels(image, GRID, Box((0, 1, 1), (2, 3, 3)))
    assert np.shares_memory(read, numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()))


def test_rounding_in_files_makes_no_other_grid():
    rounded = GRID.ijk_to_ras.astype(np.float32).astype(np.float64)
    assert grid_offset(labelmap(LABELS, (1, 2, 3), rounded), GRID) == (0, 0, 0)


@pytest.mark.parametrize(
    "change",
    [np.diag([0.5, 1, 1, 1]), np.diag([-1.0, 1, 1, 1]), moved(np.eye(4), (0.4, 0, 0)), np.eye(4)[[1, 0, 2, 3]]],
)
def test_another_grid_is_read_by_the_nearest_voxel(change):
    grid = geometry_from_spacing((6, 7, 8), (1.0, 1.0, 1.0))
    image = labelmap(LABELS, (1, 1, 1), change)
    assert grid_offset(image, grid) is None
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
    assert is_empty(image)
    assert grid_offset(image, GRID) == (0, 0, 0)
    assert occupied_box(image, GRID) == EMPTY_BOX
    assert not read_labels(image, GRID, GRID.box).any()


def test_a_mask_takes_the_matrix_and_the_voxel_numbers_of_its_label_map():
    mask = pack_mask(LABELS > 5, (1, 2, 3))
    for target, first_ijk in (
        (labelmap(LABELS, matrix=moved(GRID.ijk_to_ras, (1, 1, 1))), (2, 1, 0)),
        (None, (3, 2, 1)),
    ):
        image = mask_image(mask, target, GRID)
        assert image.GetExtent()[::2] == first_ijk
        assert np.array_equal(read_labels(image, GRID, mask.box), mask.unpack())
        if target is not None:
            matrices = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
            image.GetImageToWorldMatrix(matrices[0])
            target.GetImageToWorldMatrix(matrices[1])
            assert np.array_equal(*map(slicer.util.arrayFromVTKMatrix, matrices))


def test_an_empty_box_reads_nothing():
    assert read_labels(labelmap(LABELS), GRID, EMPTY_BOX).shape == (0, 0, 0)


TURNS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
][1:]


def segmentation_of(*labelmaps):
    segmentation = slicer.vtkSegmentation()
    segmentation.SetSourceRepresentationName(BINARY_LABELMAP)
    for number, image in enumerate(labelmaps):
        segment = slicer.vtkSegment()
        segment.AddRepresentation(BINARY_LABELMAP, image)
        segmentation.AddSegment(segment, str(number))
    return segmentation


def turning(order, signs):
    """A matrix that takes indices of a grid turned so to those of the other, with its origin anywhere."""
    matrix = np.zeros((4, 4))
    for n, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        matrix[n, axis] = sign
    matrix[:, 3] = 3, 5, 2, 1
    return matrix


@pytest.mark.parametrize(("order", "signs"), TURNS)
def test_a_label_map_that_counts_in_other_directions(order, signs):
    image = labelmap(LABELS, (1, -2, 0), GRID.ijk_to_ras @ turning(order, signs))
    before = read_labels(image, GRID, GRID.box).copy()
    segmentation = segmentation_of(image, image)
    turned = turned_labelmaps(segmentation, GRID)
    assert len(turned) == 1
    take_labelmaps(segmentation, turned)
    first, second = (segmentation.GetNthSegment(n).GetRepresentation(BINARY_LABELMAP) for n in range(2))
    assert first is second, "a shared one stays shared"
    assert grid_offset(first, GRID) is not None
    assert np.array_equal(read_labels(first, GRID, GRID.box), before) and before.any()
    i0, i1, j0, j1, k0, k1 = first.GetExtent()
    whole_array = read_labels(first, GRID, Box((k0, j0, i0), (k1 + 1, j1 + 1, i1 + 1)))
    assert sorted(whole_array.ravel()) == sorted(LABELS.ravel()), "what reaches out of the volume stays, too"


@pytest.mark.parametrize("change", [np.diag([1, 1, -1.01, 1]), moved(np.diag([1.0, 1, -1, 1]), (0, 0, 0.5))])
def test_one_beside_the_grid_is_left_alone(change):
    image = labelmap(LABELS, (0, 0, 0), GRID.ijk_to_ras @ change)
    assert turned_labelmaps(segmentation_of(image), GRID) == {}
