import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from FoundationSegLib.errors import GeometryError
from FoundationSegLib.imaging.geometry import (
    EMPTY_BOX,
    SAME_GRID_VOXELS,
    Box,
    Geometry,
    array_axis,
    bounding_box,
    geometry_from_spacing,
    round_index,
)
from Testing.unit.strategies import boxes, finite, geometries, rotation

# Large enough to hold every box of the strategy, moved by 3.
CANVAS = (12, 12, 12)


def drawn(box):
    """The voxels of a box as an array, voxel by voxel; the box is moved by 3 to make room for negative numbers."""
    index = np.indices(CANVAS) - 3
    start, stop = (np.reshape(corner, (3, 1, 1, 1)) for corner in (box.start_kji, box.stop_kji))
    return ((index >= start) & (index < stop)).all(axis=0)


def moved(box):
    return Box(tuple(n + 3 for n in box.start_kji), tuple(n + 3 for n in box.stop_kji))


@given(boxes(), boxes())
def test_intersection_is_the_voxels_in_both(first, second):
    both = first.intersection(second)
    assert np.array_equal(drawn(both), drawn(first) & drawn(second))
    assert both.is_empty == (not (drawn(first) & drawn(second)).any())


@given(boxes(), boxes())
def test_union_is_the_smallest_box_around_both(first, second):
    around = bounding_box(drawn(first) | drawn(second))
    union = first.union(second)
    assert union.is_empty if around.is_empty else moved(union) == around


@given(boxes(), boxes())
def test_contains_means_every_voxel(first, second):
    assert first.contains(second) == bool((~drawn(second) | drawn(first)).all())


@given(boxes())
def test_shape_and_slices_agree_with_the_voxels(box):
    assert math.prod(box.shape_kji) == np.count_nonzero(drawn(box))
    assert box.is_empty == (not drawn(box).any())
    cut = np.zeros(CANVAS, bool)
    cut[moved(box).slices] = True
    assert np.array_equal(cut, drawn(box))


@given(boxes(low=-4, high=8))
def test_slices_of_a_box_that_sticks_out_cut_only_what_is_inside(box):
    image = np.zeros((5, 4, 3), bool)
    image[box.slices] = True
    inside = np.zeros((5, 4, 3), bool)
    inside[box.intersection(Box((0, 0, 0), image.shape)).slices] = True
    assert np.array_equal(image, inside)
    assert np.array_equal(image, drawn(box)[3:8, 3:7, 3:6])


def test_boxes_beyond_32_bits_count_right():
    box = Box((0, 0, 0), (4096, 4096, 4096)).union(Box((-(2**40), 0, 0), (0, 1, 1)))
    assert box.shape_kji == (2**40 + 4096, 4096, 4096)
    assert not box.is_empty


@given(arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.sampled_from([0, 0, 0, 1, 200])))
def test_bounding_box_is_tight(mask):
    for array in (mask, mask[::-1, ::2].astype(">f4"), np.asfortranarray(mask)):
        where = np.argwhere(array)
        expected = Box(tuple(where.min(0)), tuple(where.max(0) + 1)) if where.size else EMPTY_BOX
        assert bounding_box(array) == expected


@pytest.mark.parametrize(
    ("index", "voxel"),
    [
        *((0.5, 1), (-0.5, 0), (1.5, 2), (2.5, 3), (-1.5, -1), (0.49, 0), (-0.51, -1), (5e-324, 0), (-5e-324, 0)),
        *((1e30, 2**62), (-1e30, -(2**62)), (math.inf, 2**62), (-math.inf, -(2**62))),
    ],
)
def test_halves_go_up_on_either_side_of_zero_and_nothing_wraps_around(index, voxel):
    assert round_index((index, 0.0, index)).tolist() == [voxel, 0, voxel]


@given(finite(-1e6, 1e6))
def test_rounding_is_the_rule_of_the_prompts_file(x):
    assert round_index(x) == math.floor(x + 0.5)


def test_a_position_that_is_no_number_is_refused():
    with pytest.raises(GeometryError, match="not a number"):
        round_index((0.0, math.nan, 0.0))


@given(geometries(), st.lists(st.tuples(*[st.integers(-700, 700)] * 3), min_size=1, max_size=5))
def test_whole_voxels_survive_the_way_through_space(geometry, index_ijk):
    assert geometry.nearest_voxel(geometry.to_ras(index_ijk)).tolist() == [list(index) for index in index_ijk]


@given(geometries(), st.tuples(*[finite(-700.0, 700.0)] * 3))
def test_continuous_positions_survive_the_way_through_space(geometry, index_ijk):
    position_ras = geometry.to_ras(index_ijk)
    assert geometry.to_ijk(position_ras) == pytest.approx(index_ijk, abs=1e-6)
    assert geometry.to_ras(geometry.to_ijk(position_ras)) == pytest.approx(position_ras, abs=1e-6)


@given(geometries(), st.tuples(*[st.integers(-50, 50)] * 3))
def test_conversion_is_the_matrix_times_the_column(geometry, index_ijk):
    expected = geometry.ijk_to_ras @ (*index_ijk, 1.0)
    assert geometry.to_ras(index_ijk) == pytest.approx(expected[:3], rel=1e-12, abs=1e-9)
    many = geometry.to_ras(np.tile(index_ijk, (2, 3, 1)))
    assert many.shape == (2, 3, 3)
    assert many[1, 2] == pytest.approx(expected[:3], rel=1e-12, abs=1e-9)


@given(geometries())
def test_spacing_and_volume_are_those_of_the_cell(geometry):
    first, second, third = (geometry.to_ras(step) - geometry.to_ras((0, 0, 0)) for step in np.eye(3))
    lengths = tuple(np.linalg.norm(step) for step in (first, second, third))
    assert geometry.spacing_mm == pytest.approx(lengths, abs=1e-9)
    assert geometry.voxel_volume_mm3 == pytest.approx(abs(np.dot(first, np.cross(second, third))), rel=1e-5)
    assert geometry.voxel_volume_mm3 <= math.prod(lengths) * (1 + 1e-6)


@given(geometries())
def test_equal_geometries_hash_equal_and_others_differ(geometry):
    twin = Geometry(geometry.ijk_to_ras.copy(), geometry.shape_kji)
    assert geometry == twin
    assert hash(geometry) == hash(twin)
    k, j, i = geometry.shape_kji
    assert geometry != Geometry(geometry.ijk_to_ras, (k + 1, j, i))
    shifted = geometry.ijk_to_ras.copy()
    shifted[0, 3] = np.nextafter(shifted[0, 3], np.inf)
    assert geometry != Geometry(shifted, geometry.shape_kji)


def test_the_sign_of_zero_makes_no_difference():
    matrix = np.diag((-1.0, -1.0, -1.0, 1.0))
    plain, flipped = Geometry(matrix, (1, 2, 3)), Geometry(np.where(matrix == 0, -0.0, matrix), (1, 2, 3))
    assert flipped == plain
    assert hash(flipped) == hash(plain)
    assert flipped.ijk_to_ras.tobytes() == plain.ijk_to_ras.tobytes()


def test_a_geometry_is_a_value():
    matrix = np.eye(4)
    geometry = Geometry(matrix, (1, 2, 3))
    matrix[0, 0] = 7
    assert geometry.spacing_mm == (1.0, 1.0, 1.0)
    for kept in (geometry.ijk_to_ras, geometry.ras_to_ijk):
        with pytest.raises(ValueError, match="read-only"):
            kept[0, 0] = 7
    assert geometry != "geometry"


@given(geometries(), st.tuples(*[finite(-1.0, 1.0)] * 3))
def test_almost_equal_means_no_voxel_is_off_by_more(geometry, direction):
    length = max(abs(n) for n in direction)
    offset = np.zeros(3) if length < 1e-3 else np.divide(direction, length)
    for part, close in ((0.9 * SAME_GRID_VOXELS, True), (1.1 * SAME_GRID_VOXELS, not offset.any())):
        other = geometry.ijk_to_ras.copy()
        other[:3, 3] = geometry.to_ras(part * offset)
        assert geometry.almost_equals(Geometry(other, geometry.shape_kji)) == close


def test_almost_equal_looks_at_the_far_corner_and_the_shape():
    geometry = geometry_from_spacing((100, 200, 300), (1.0, 1.0, 1.0))
    assert not geometry.almost_equals(geometry_from_spacing((100, 200, 300), (1.0, 1.0 + 3e-4, 1.0)))
    assert geometry.almost_equals(geometry_from_spacing((100, 200, 300), (1.0, 1.0 + 2e-4, 1.0)))
    assert not geometry.almost_equals(geometry_from_spacing((100, 200, 301)))


def test_an_array_runs_kji():
    geometry = geometry_from_spacing((4, 3, 2), (0.5, 2.0, 5.0))
    assert [array_axis(axis) for axis in "ijk"] == [2, 1, 0]
    assert geometry.spacing_mm == (0.5, 2.0, 5.0)
    assert geometry.to_ras((1, 1, 1)).tolist() == [0.5, 2.0, 5.0]
    assert geometry.box == Box((0, 0, 0), (4, 3, 2))


SINGULAR = np.diag((1.0, 1.0, 0.0, 1.0))
FLAT = np.eye(4)
FLAT[:3, 2] = (0.0, 1.0, 1e-4)
PROJECTIVE = np.eye(4)
PROJECTIVE[3, 0] = 1e-9


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), "4x4"),
        (np.diag((1.0, math.nan, 1.0, 1.0)), "finite"),
        (np.diag((1.0, math.inf, 1.0, 1.0)), "finite"),
        (PROJECTIVE, "affine"),
        (SINGULAR, "inverted"),
        (FLAT, "inverted"),
        (np.zeros((4, 4)) + np.diag((0.0, 0.0, 0.0, 1.0)), "inverted"),
        (np.diag((5e-324, 1.0, 1.0, 1.0)), "inverted"),
    ],
)
def test_matrices_that_are_no_grid_are_refused(matrix, message):
    with pytest.raises(GeometryError, match=message):
        Geometry(matrix, (1, 1, 1))


@pytest.mark.parametrize("shape", [(), (1, 2), (1, 2, 3, 4), (0, 1, 1), (1, -2, 3), (1.5, 2, 3), (1, 2, math.nan)])
def test_shapes_that_are_no_image_are_refused(shape):
    with pytest.raises(GeometryError, match="three axes"):
        Geometry(np.eye(4), shape)


@pytest.mark.parametrize("spacing", [1e-90, 1e-6, 1e90])
def test_the_unit_does_not_decide_whether_a_grid_can_be_inverted(spacing):
    matrix = np.eye(4)
    matrix[:3, :3] = rotation((0.3, 0.2, 0.1)) * spacing
    geometry = Geometry(matrix, (2, 3, 4))
    assert geometry.nearest_voxel(geometry.to_ras((3, 2, 1))).tolist() == [3, 2, 1]


def test_a_box_is_counted_from_the_first_voxel_of_a_region():
    assert Box((5, 6, 7), (8, 9, 9)).relative_to(Box((4, 4, 4), (9, 9, 9))) == Box((1, 2, 3), (4, 5, 5))
    assert Box((1, 2, 3), (4, 5, 5)).shifted((4, 4, -4)) == Box((5, 6, -1), (8, 9, 1))


def on_other_axes(geometry, order, backwards, box):
    """The grid of a box of voxels, whose array axes are the image's in another order, some of them turned round."""
    kji_to_ras = geometry.ijk_to_ras[:3, 2::-1]
    last = np.subtract(box.stop_kji, 1)
    corner = [last[axis] if axis in backwards else box.start_kji[axis] for axis in range(3)]
    matrix = np.eye(4)
    signs = np.where(np.isin(range(3), list(backwards)), -1, 1)
    matrix[:3, 2::-1] = (kji_to_ras * signs)[:, list(order)]
    matrix[:3, 3] = geometry.to_ras(corner[::-1])
    return Geometry(matrix, tuple(box.shape_kji[axis] for axis in order))


@given(
    geometries(),
    st.permutations(range(3)),
    st.sets(st.integers(0, 2)),
    st.tuples(*[st.integers(-5, 5)] * 3),
    st.tuples(*[st.integers(2, 6)] * 3),
    st.tuples(*[finite(-1.0, 1.0)] * 3),
)
def test_the_same_voxels_are_the_same_grid_in_any_order_and_direction_of_axes(
    geometry, order, backwards, start, shape, direction
):
    box = Box(start, tuple(np.add(start, shape).tolist()))
    other = on_other_axes(geometry, order, backwards, box)
    match = geometry.match(other)
    assert match.box == box
    there = match.turned(np.arange(math.prod(shape)).reshape(other.shape_kji)).ravel()
    k, j, i = np.unravel_index(there, other.shape_kji)
    here = np.stack(np.meshgrid(*[np.arange(n, n + m) for n, m in zip(start, shape, strict=True)], indexing="ij"), -1)
    found = geometry.nearest_voxel(other.to_ras(np.stack([i, j, k], axis=-1)))[:, ::-1]
    assert np.array_equal(found, here.reshape(-1, 3))
    length = max(map(abs, direction))
    for part in (0.9 * SAME_GRID_VOXELS, 1.1 * SAME_GRID_VOXELS) if length > 1e-3 else ():
        beside = other.ijk_to_ras.copy()
        beside[:3, 3] += geometry.ijk_to_ras[:3, :3] @ (part * np.divide(direction, length))
        assert (geometry.match(Geometry(beside, other.shape_kji)) is not None) == (part < SAME_GRID_VOXELS)


def test_turned_by_45_degrees_is_another_grid():
    matrix = np.eye(4)
    matrix[:3, :3] = rotation((0, 0, math.pi / 4))
    assert geometry_from_spacing((4, 4, 4)).match(Geometry(matrix, (4, 4, 4))) is None
