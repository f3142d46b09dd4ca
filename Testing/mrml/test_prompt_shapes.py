import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from FoundationSegLib.imaging.geometry import AXES, geometry_from_spacing
from FoundationSegLib.mrml.prompt_nodes import moved_prompt, shape_of
from FoundationSegLib.prompts.kinds import BoxPrompt, LassoPrompt, ObliquePlane, PointPrompt, ScribblePrompt, TextPrompt
from FoundationSegLib.prompts.placement import place_box, slice_number
from Testing.mrml.random_geometries import geometries

PLANE = ObliquePlane((1.0, 2.0, 3.0), (0.0, 0.6, 0.8), (0.0, 0.8, -0.6))
GRIDS = geometries(largest=30)


@st.composite
def boxes(draw, geometry):
    """In the image, flat or not; at least two voxels wide otherwise."""
    size = geometry.shape_kji[::-1]
    assume(min(size) >= 1 and sorted(size)[1] >= 2)
    flat = draw(st.sampled_from([n for n in range(3) if sorted(np.delete(size, n))[0] >= 2] or [None]))
    assume(flat is not None)
    low = [draw(st.integers(0, n - 1 if m == flat else n - 2)) for m, n in enumerate(size)]
    solid = size[flat] >= 2 and draw(st.booleans())
    high = [
        low[m] if m == flat and not (solid and low[m] < n - 1) else draw(st.integers(low[m] + 1, n - 1))
        for m, n in enumerate(size)
    ]
    first, last = geometry.to_ras([low, high]).tolist()
    plane = AXES[flat] if low[flat] == high[flat] else None
    return BoxPrompt((tuple(first), tuple(last)), plane=plane)


@given(st.data(), GRIDS)
def test_a_box_is_drawn_around_its_voxels(data, geometry):
    prompt = data.draw(boxes(geometry))
    shape, placed = shape_of(prompt, geometry), place_box(prompt, geometry)
    corners = geometry.to_ijk(shape.points)
    low, high = np.array(placed.box.start_kji[::-1]) - 0.5, np.array(placed.box.stop_kji[::-1]) - 0.5
    if placed.is_2d:
        n = AXES.index(placed.axis)
        low[n] = high[n] = (low[n] + high[n]) / 2
        assert shape.kind == "loop" and len(corners) == 4
    assert np.allclose(corners.min(axis=0), low, atol=1e-6) and np.allclose(corners.max(axis=0), high, atol=1e-6)
    assert np.all((np.abs(corners - low) < 1e-6) | (np.abs(corners - high) < 1e-6))


@given(st.data(), GRIDS)
def test_what_is_not_moved_stays_bit_for_bit(data, geometry):
    prompt = data.draw(boxes(geometry))
    assert moved_prompt(prompt, shape_of(prompt, geometry).points, geometry) is prompt


@given(st.data(), GRIDS)
def test_of_a_box_the_opposite_corner_stays(data, geometry):
    prompt = data.draw(boxes(geometry))
    shape = shape_of(prompt, geometry)
    assume(shape.kind != "block" and min(geometry.spacing_mm) > 0.1)
    points = shape.points.copy()
    corner = data.draw(st.integers(0, len(points) - 1))
    index = geometry.to_ijk(points[corner])
    box = place_box(prompt, geometry).box
    low, high = np.array(box.start_kji[::-1]) - 0.5, np.array(box.stop_kji[::-1]) - 0.5
    flat = np.abs(index - low) > 1e-6
    flat &= np.abs(index - high) > 1e-6
    outwards = np.where(flat, 0, np.where(np.abs(index - low) < 1e-6, -2, 2))
    points[corner] = geometry.to_ras(index + outwards)
    moved = moved_prompt(prompt, points, geometry)
    ends = geometry.nearest_voxel(moved.corners)
    assert np.array_equal(ends.min(axis=0) - 0.5, np.where(outwards < 0, low - 2, low).round(3))
    assert np.array_equal(ends.max(axis=0) + 0.5, np.where(outwards > 0, high + 2, high).round(3))


@given(st.data(), GRIDS, st.tuples(*[st.integers(-3, 3)] * 3))
def test_a_box_moved_as_a_whole(data, geometry, by):
    prompt = data.draw(boxes(geometry))
    assume(min(geometry.spacing_mm) > 0.1)
    shift = geometry.ijk_to_ras[:3, :3] @ by
    moved = moved_prompt(prompt, shape_of(prompt, geometry).points + shift, geometry)
    difference = geometry.nearest_voxel(moved.corners) - geometry.nearest_voxel(prompt.corners)
    assert np.array_equal(difference, [by, by])


def test_a_corner_pulled_over_the_other_side_turns_the_box_inside_out():
    geometry = geometry_from_spacing((5, 30, 30))
    prompt = BoxPrompt(((10.0, 10.0, 2.0), (14.0, 14.0, 2.0)), plane="k")
    points = shape_of(prompt, geometry).points.copy()
    points[0] = (20.5, 3.5, 4.0)  # was at 9.5, 9.5; the slice does not change with one corner
    moved = moved_prompt(prompt, points, geometry)
    ends = np.sort(np.array(moved.corners), axis=0)
    assert ends.tolist() == [[15.0, 4.0, 2.0], [20.0, 14.0, 2.0]]
    points[0] = (14.5, 14.5, 2.0)  # nothing between the corners: one voxel is left
    ends = geometry.nearest_voxel(moved_prompt(prompt, points, geometry).corners)
    assert (ends[0] == ends[1]).all()


@given(GRIDS, st.sampled_from(AXES), st.data())
def test_a_stroke_stays_on_its_slice(geometry, axis, data):
    assume(min(geometry.spacing_mm) > 0.1)
    n = AXES.index(axis)
    index = np.array(data.draw(st.lists(st.tuples(*[st.floats(0, 20)] * 3), min_size=3, max_size=8)))
    index[:, n] = 3
    points = tuple(tuple(point) for point in geometry.to_ras(index).tolist())
    for prompt in (ScribblePrompt(points, plane=axis), LassoPrompt(points, plane=axis)):
        pulled = np.array(points)
        pulled[1] += geometry.ijk_to_ras[:3, n] * 2.3
        moved = moved_prompt(prompt, pulled, geometry)
        assert slice_number(moved.points, axis, geometry) == 3
        assert moved.points[0] == points[0] and moved.points[2] == points[2]
        whole = moved_prompt(prompt, np.array(points) + geometry.ijk_to_ras[:3, n] * 2, geometry)
        assert slice_number(whole.points, axis, geometry) == 5


def test_points_come_and_go():
    geometry = geometry_from_spacing((9, 9, 9))
    points = ((0.0, 0.0, 1.0), (4.0, 0.0, 1.0), (4.0, 4.0, 1.0))
    scribble, lasso = ScribblePrompt(points, 2.0), LassoPrompt(points)
    assert moved_prompt(scribble, points[:2], geometry) == ScribblePrompt(points[:2], 2.0)
    assert moved_prompt(scribble, [], geometry) is None and moved_prompt(lasso, points[:2], geometry) is None
    longer = moved_prompt(lasso, [*points, (0.0, 4.0, 3.0)], geometry)
    assert longer.points == (*points, (0.0, 4.0, 1.0)) and moved_prompt(PointPrompt(points[0]), [], geometry) is None
    box = BoxPrompt((points[0], points[2]))
    assert moved_prompt(box, shape_of(box, geometry).points[:3], geometry) is box


@given(GRIDS)
def test_an_oblique_plane_goes_with_what_is_moved_out_of_it(geometry):
    right, up = np.array([1.0, 0, 0]), np.array(PLANE.up)
    a, b, c = (tuple((np.array(PLANE.origin) + x * right + y * up).tolist()) for x, y in ((0, 0), (5, 1), (3, 8)))
    for prompt in (PointPrompt(a, plane=PLANE), LassoPrompt((a, b, c), plane=PLANE), BoxPrompt((a, c), plane=PLANE)):
        shape = shape_of(prompt, geometry)
        moved = moved_prompt(prompt, shape.points + 2 * np.array(PLANE.normal), geometry)
        assert np.allclose(moved.plane.origin, np.array(PLANE.origin) + 2 * np.array(PLANE.normal))
        assert (moved.plane.normal, moved.plane.up) == (PLANE.normal, PLANE.up)
        assert np.allclose(shape_of(moved, geometry).points, shape.points + 2 * np.array(PLANE.normal))
    pulled = np.array([a, b, c])
    pulled[1] += 4 * np.array(PLANE.normal) + right
    moved = moved_prompt(LassoPrompt((a, b, c), plane=PLANE), pulled, geometry)
    assert moved.plane == PLANE and np.allclose(moved.points[1], np.array(b) + right)


def test_a_rectangle_in_an_oblique_plane():
    geometry = geometry_from_spacing((9, 9, 9))
    first = np.array(PLANE.origin)
    last = first + 4 * np.array([1.0, 0, 0]) + 3 * np.array(PLANE.up)
    prompt = BoxPrompt((tuple(first), tuple(last)), plane=PLANE)
    shape = shape_of(prompt, geometry)
    sides = np.linalg.norm(np.diff(shape.points, axis=0), axis=1)
    assert np.allclose(sides, [4, 3, 4]) and np.allclose(shape.points[[0, 2]], [first, last])
    points = shape.points.copy()
    points[2] += np.array([2.0, 0, 0]) + np.array(PLANE.up)
    moved = moved_prompt(prompt, points, geometry)
    assert np.allclose(sorted(moved.corners), sorted([tuple(first), tuple(points[2])]))


@pytest.mark.parametrize("prompt", [TextPrompt("liver")])
def test_what_has_no_place_has_no_shape(prompt):
    geometry = geometry_from_spacing((9, 9, 9))
    assert shape_of(prompt, geometry) is None and moved_prompt(prompt, [], geometry) is prompt
