import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.errors import PromptError
from FoundationSegLib.imaging.geometry import AXES, Geometry, array_axis, as_vector, geometry_from_spacing
from FoundationSegLib.prompts.drawing import lasso_voxels, scribble_voxels
from FoundationSegLib.prompts.kinds import LassoPrompt, ObliquePlane, ScribblePrompt
from Testing.unit.strategies import geometries

GEOMETRY = geometry_from_spacing((6, 8, 10), (1.0, 2.0, 3.0))


def distance_to_line(points, start, end):
    """How far (n, 3) points are from a straight piece."""
    way = end - start
    share = np.clip((points - start) @ way / (way @ way), 0, 1) if way @ way else np.zeros(len(points))
    return np.linalg.norm(points - start - share[:, None] * way, axis=1)


@given(
    geometry=geometries(),
    axis=st.sampled_from(AXES),
    ends=st.tuples(*[st.tuples(*[st.floats(-0.3, 1.3)] * 3)] * 2),
    radius=st.none() | st.floats(0.05, 10),
)
def test_a_stroke_covers_what_is_near_it_on_its_slice_and_is_never_broken(geometry, axis, ends, radius):
    """Of every voxel of the slice: within the radius it is covered, and only where the stroke passes beyond it."""
    shape_ijk = np.array(geometry.shape_kji[::-1])
    index_ijk = np.array(ends) * (shape_ijk - 1)
    n = AXES.index(axis)
    index_ijk[:, n] = int(shape_ijk[n] // 2)
    points = geometry.to_ras(index_ijk)
    prompt = ScribblePrompt(tuple(map(as_vector, points)), radius, plane=axis)
    try:
        found = scribble_voxels(prompt, geometry).expand(geometry.shape_kji)
    except PromptError:
        found = np.zeros(geometry.shape_kji, np.bool_)
    spacing = [mm for other, mm in zip(AXES, geometry.spacing_mm, strict=True) if other != axis]
    radius_mm = radius or min(spacing) / 2
    voxels = np.indices(geometry.shape_kji).reshape(3, -1).T[:, ::-1]
    away = distance_to_line(geometry.to_ras(voxels), *points).reshape(found.shape)
    on_slice = np.zeros(found.shape, np.bool_)
    on_slice[(slice(None),) * array_axis(axis) + (int(shape_ijk[n] // 2),)] = True
    assert not (found & ~on_slice).any()
    assert (found | (away > radius_mm * (1 - 1e-9)) | ~on_slice).all(), "all within the radius"
    # Beyond it only the voxels that the stroke passes through: their centres are within half a voxel's diagonal.
    corners = np.array([(a, b, c) for a in (1, -1) for b in (1, -1) for c in (1, -1)]) / 2
    diagonal = np.linalg.norm(corners @ geometry.ijk_to_ras[:3, :3].T, axis=1).max()
    assert away[found].max(initial=0) <= max(radius_mm, diagonal) * (1 + 1e-9)


def test_a_thin_stroke_is_one_voxel_wide_and_whole():
    stroke = ScribblePrompt(((1.0, 2.0, 3.0), (8.0, 14.0, 3.0)))
    voxels = np.argwhere(scribble_voxels(stroke, GEOMETRY).expand(GEOMETRY.shape_kji))
    assert set(voxels[:, 0]) == {1}
    assert set(voxels[:, 2]) == set(range(1, 9))
    assert len(voxels) <= 2 * 8
    single = ScribblePrompt(((4.2, 5.0, 3.0),))
    assert np.argwhere(scribble_voxels(single, GEOMETRY).expand(GEOMETRY.shape_kji)).tolist() == [[1, 3, 4]]


def test_a_stroke_in_an_oblique_plane_goes_through_slices():
    plane = ObliquePlane((0.0, 0.0, 0.0), (0.0, -1.0, 1.0), (0.0, 1.0, 1.0))
    stroke = ScribblePrompt(((5.0, 0.0, 0.0), (5.0, 14.0, 14.0)), plane=plane)
    voxels = np.argwhere(scribble_voxels(stroke, GEOMETRY).expand(GEOMETRY.shape_kji))
    assert set(voxels[:, 0]) == set(range(6)), "all slices up to 15 mm"


def test_a_stroke_from_far_away_costs_no_more_than_what_is_inside():
    stroke = ScribblePrompt(((-1e12, 4.0, 6.0), (1e12, 4.0, 6.0)))
    assert scribble_voxels(stroke, GEOMETRY).voxels == 10


@pytest.mark.parametrize("points", [((20.0, 0.0, 0.0), (0.0, 40.0, 0.0)), ((-50.0, 0.0, 0.0),)])
def test_a_stroke_beside_the_image_says_nothing(points):
    with pytest.raises(PromptError, match="too little of the scribble") as caught:
        scribble_voxels(ScribblePrompt(points), GEOMETRY, "segments[0].prompts[1]")
    assert caught.value.location == "segments[0].prompts[1].points"


def test_a_stroke_on_several_slices_is_refused():
    with pytest.raises(PromptError, match="lies on the slices 0 to 3 of k, not on one"):
        scribble_voxels(ScribblePrompt(((0.0, 0.0, 0.0), (0.0, 0.0, 9.0))), GEOMETRY)


@pytest.mark.parametrize("axis", AXES)
def test_a_lasso_holds_the_centres_inside_it(axis):
    geometry = geometry_from_spacing((9, 9, 9))
    ring = np.array([(1.5, 1.5), (6.5, 1.5), (6.5, 4.5), (1.5, 4.5)])
    points = np.insert(ring, AXES.index(axis), 5.0, axis=1)
    found = lasso_voxels(LassoPrompt(tuple(map(as_vector, points)), plane=axis), geometry).expand((9, 9, 9))
    wanted = np.zeros((9, 9, 9), np.bool_)
    rows, columns = (n for n in range(3) if n != array_axis(axis))
    place = [slice(5, 6)] * 3
    place[rows], place[columns] = slice(2, 5), slice(2, 7)
    wanted[tuple(place)] = True
    assert np.array_equal(found, wanted)


def test_a_lasso_around_the_whole_slice_is_cut_to_it():
    ring = ((-50.0, -50.0, 3.0), (50.0, -50.0, 3.0), (50.0, 50.0, 3.0), (-50.0, 50.0, 3.0))
    assert lasso_voxels(LassoPrompt(ring), GEOMETRY).voxels == 80


def test_a_lasso_between_centres_is_refused():
    ring = ((1.1, 0.2, 3.0), (1.9, 0.2, 3.0), (1.5, 1.8, 3.0))
    with pytest.raises(PromptError, match="no voxel of the image lies inside the lasso"):
        lasso_voxels(LassoPrompt(ring), GEOMETRY)


@pytest.mark.parametrize("tilt", [0.0, 0.3, math.pi / 4])
def test_a_lasso_in_an_oblique_plane_is_one_layer(tilt):
    """As an axial lasso that is tilted: about as many voxels, all near the plane."""
    geometry = Geometry(np.eye(4), (40, 40, 40))
    right, up = np.array([1.0, 0.0, 0.0]), np.array([0.0, math.cos(tilt), math.sin(tilt)])
    normal = np.cross(right, up)
    centre = np.array([20.2, 19.7, 20.1])
    turns = np.linspace(0, 2 * math.pi, 60, endpoint=False)
    ring = [as_vector(centre + 10 * (math.cos(a) * right + math.sin(a) * up)) for a in turns]
    plane = ObliquePlane(as_vector(centre), as_vector(normal), as_vector(up))
    found = np.argwhere(lasso_voxels(LassoPrompt(tuple(ring), plane=plane), geometry).expand(geometry.shape_kji))
    away = found[:, ::-1] - centre
    assert np.abs(away @ normal).max() <= 0.5 + 1e-9
    assert np.linalg.norm(away, axis=1).max() <= 10.1
    layers = math.pi * 100 * np.abs(normal).max()
    assert 0.9 * layers < len(found) < 1.1 * layers
