"""Pixels to places: planes, borders between voxels, boxes along voxel axes."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from FoundationSegLib.errors import PromptError
from FoundationSegLib.imaging.geometry import AXES, Geometry, geometry_from_spacing
from FoundationSegLib.mrml.gestures import PARALLEL_VOXELS, Gesture, ViewPlane, box_outline, prompt_of
from FoundationSegLib.prompts.kinds import ObliquePlane, Polarity
from FoundationSegLib.prompts.placement import place_box, slice_number
from Testing.mrml.random_geometries import geometries

SIZE = (400, 300)


def slice_view_of(geometry, axis, index, zoom=1.0, turn=0.0, tilt=0.0):
    """A view of a slice, turned in its plane and tilted out of it by angles in radians."""
    n = AXES.index(axis)
    a, b = (geometry.ijk_to_ras[:3, m] for m in range(3) if m != n)
    right = a / np.linalg.norm(a)
    up = b - right * (b @ right)
    up /= np.linalg.norm(up)
    normal = np.cross(right, up)
    right, up = np.cos(turn) * right + np.sin(turn) * up, np.cos(turn) * up - np.sin(turn) * right
    right, normal = np.cos(tilt) * right + np.sin(tilt) * normal, np.cos(tilt) * normal - np.sin(tilt) * right
    middle = (np.array(geometry.shape_kji[::-1]) - 1) / 2
    middle[n] = index
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack([right / zoom, up / zoom, normal])
    matrix[:3, 3] = geometry.to_ras(middle) - matrix[:3, :2] @ (np.array(SIZE) / 2)
    return ViewPlane(matrix, SIZE, geometry)


@given(geometries(largest=40), st.sampled_from(AXES), st.floats(0, 6.28), st.floats(0.2, 20))
def test_a_view_of_slices_is_known_however_it_is_turned(geometry, axis, turn, zoom):
    view = slice_view_of(geometry, axis, 0, zoom, turn)
    assert view.axis == view.plane == axis


@given(geometries(largest=40), st.sampled_from(AXES), st.integers(0, 5), st.floats(0, 6.28), st.data())
def test_all_places_in_a_view_of_slices_are_on_one_slice(geometry, axis, index, turn, data):
    # On the slice, or exactly between two.
    view = slice_view_of(geometry, axis, index + data.draw(st.sampled_from([0, 0.5, 0.2])), 3.0, turn)
    places = data.draw(st.lists(st.tuples(st.integers(0, 399), st.integers(0, 299)), min_size=1, max_size=9))
    slice_number(view.positions(places), axis, geometry)


def test_the_tolerance_is_kept():
    geometry = geometry_from_spacing((100, 100, 100))
    limit = np.arctan(PARALLEL_VOXELS / 100)
    assert slice_view_of(geometry, "k", 50, tilt=0.99 * limit).axis == "k"
    assert slice_view_of(geometry, "k", 50, tilt=1.01 * limit).axis is None


def test_directions_with_six_decimals_are_no_tilt():
    rng = np.random.default_rng(0)
    for _ in range(100):
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        geometry = Geometry(np.block([[np.round(rotation, 6), np.zeros((3, 1))], [np.zeros(3), 1]]), (600, 600, 600))
        exact = Geometry(np.block([[rotation, np.zeros((3, 1))], [np.zeros(3), 1]]), (600, 600, 600))
        view = slice_view_of(exact, "k", 300)
        assert ViewPlane(view.xy_to_ras, SIZE, geometry).axis == "k"


@given(geometries(largest=40), st.floats(0.01, 1.5), st.floats(0, 6.28), st.floats(-50, 50), st.floats(-50, 50))
def test_an_oblique_plane_does_not_change_with_pan_and_zoom(geometry, tilt, turn, pan_x, pan_y):
    view = slice_view_of(geometry, "k", geometry.shape_kji[0] / 2, 2.0, turn, tilt)
    assume(view.axis is None)
    matrix = view.xy_to_ras.copy()
    matrix[:3, :2] *= 0.4
    matrix[:3, 3] += view.xy_to_ras[:3, 0] * pan_x + view.xy_to_ras[:3, 1] * pan_y
    moved = ViewPlane(matrix, SIZE, geometry).plane
    for name in ("origin", "normal", "up"):
        assert np.allclose(getattr(view.plane, name), getattr(moved, name), atol=1e-6)
    # The positions lie in it.
    plane = view.plane
    assert isinstance(plane, ObliquePlane)
    for position in view.positions([(0, 0), (399, 0), (17, 299)]):
        away = (np.array(position) - plane.origin) @ plane.normal
        assert abs(away) < 1e-5 * max(geometry.spacing_mm)


def test_a_pixel_between_two_voxels_is_the_higher_ones():
    geometry = geometry_from_spacing((5, 300, 400))
    matrix = np.eye(4)
    matrix[:3, 3] = -0.5, -0.5, 2
    for noise in (-1e-10, 0, 1e-10):
        shaken = matrix + np.array([[0, 0, 0, noise]] * 3 + [[0] * 4])
        view = ViewPlane(shaken, SIZE, geometry)
        positions = view.positions([(x, x) for x in range(300)])
        assert [geometry.nearest_voxel(p).tolist() for p in positions] == [[x, x, 2] for x in range(300)]


@given(
    geometries(largest=40),
    st.sampled_from(AXES),
    st.floats(0, 6.28),
    st.lists(st.tuples(st.integers(0, 399), st.integers(0, 299)), min_size=2, max_size=2),
)
def test_a_box_holds_what_its_outline_shows(geometry, axis, turn, path):
    index = geometry.shape_kji[2 - AXES.index(axis)] // 2
    view = slice_view_of(geometry, axis, index, 8.0, turn)
    try:
        prompt = prompt_of(Gesture("box", Polarity.POSITIVE, tuple(path)), view)
        placed = place_box(prompt, geometry)
    except PromptError:
        return
    assert placed.axis == axis
    outline = box_outline(path, view)
    matrix = np.column_stack([outline, np.zeros(4), np.ones(4)]) @ view.xy_to_ras[:3].T
    corners = geometry.to_ijk(matrix)
    n = AXES.index(axis)
    low, high = np.array(placed.box.start_kji[::-1]), np.array(placed.box.stop_kji[::-1])
    for m in (m for m in range(3) if m != n):
        inside = np.clip([corners[:, m].min() + 0.5, corners[:, m].max() + 0.5], 0, geometry.shape_kji[::-1][m])
        assert np.allclose(inside, [low[m], high[m]], atol=1e-6)


def test_what_lies_outside_is_refused():
    view = slice_view_of(geometry_from_spacing((10, 10, 10)), "k", 5, zoom=2.0)
    for kind, path in (("point", [(0, 0)]), ("scribble", [(0, 0), (9, 9)]), ("box", [(0, 0), (20, 20)])):
        with pytest.raises(PromptError, match="wholly outside"):
            prompt_of(Gesture(kind, Polarity.POSITIVE, tuple(path)), view)


def test_a_box_one_voxel_wide_is_refused():
    view = slice_view_of(geometry_from_spacing((10, 10, 10)), "k", 5, zoom=20.0)
    with pytest.raises(PromptError, match="one voxel thick"):
        prompt_of(Gesture("box", Polarity.POSITIVE, ((205, 150), (207, 240))), view)


def test_a_box_in_an_oblique_view_is_a_rectangle_of_it():
    view = slice_view_of(geometry_from_spacing((50, 50, 50)), "k", 25, zoom=2.0, tilt=0.5)
    prompt = prompt_of(Gesture("box", Polarity.NEGATIVE, ((180, 140), (220, 170))), view)
    assert prompt.plane == view.plane
    assert np.allclose(view.pixels(prompt.corners), [(180, 140), (220, 170)], atol=1e-5)
    with pytest.raises(PromptError, match="wholly outside"):
        prompt_of(Gesture("box", Polarity.POSITIVE, ((0, 0), (9, 9))), view)


def test_places_beyond_the_view_are_taken_back():
    view = slice_view_of(geometry_from_spacing((10, 10, 10)), "k", 5)
    assert view.clamped((-40.0, 500.0)) == (0.0, 299.0)
    assert view.clamped((12.0, 13.0)) == (12.0, 13.0)
