import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from FoundationSegLib.errors import PromptError
from FoundationSegLib.imaging.geometry import AXES, Box, Geometry, array_axis, geometry_from_spacing, round_index
from FoundationSegLib.prompts import kinds, placement
from Testing.unit.strategies import finite, geometries, planes, prompt_sets

GRID = geometry_from_spacing((10, 20, 30), (0.5, 1.0, 4.0))
PLACE = "segments[2].prompts[0]"


def box_ijk(first, second, **fields):
    """A box prompt in RAS whose corners are given in voxels of GRID."""
    corners = tuple(tuple(GRID.to_ras(corner).tolist()) for corner in (first, second))
    return kinds.BoxPrompt(corners, **fields)


def in_ras(prompt, geometry, space="ijk"):
    return (
        placement.prompts_in_ras(kinds.PromptSet((kinds.SegmentPrompts("Liver", (prompt,)),), space), geometry)
        .segments[0]
        .prompts[0]
    )


index = st.integers(-3, 45).map(float) | finite(-3.0, 45.0) | st.integers(-3, 45).map(lambda n: n + 0.5)
corners = st.tuples(*[st.tuples(index, index, index)] * 2)


@given(geometries(), corners)
def test_a_box_in_ijk_and_its_twin_in_ras_are_the_same_voxels(geometry, corners_ijk):
    rounded = round_index(corners_ijk)
    low, high = rounded.min(axis=0), rounded.max(axis=0)
    thin = [axis for axis, same in zip(AXES, low == high, strict=True) if same]
    stop = np.minimum(high + 1, geometry.shape_kji[::-1])
    start = np.maximum(low, 0)
    prompt = in_ras(kinds.BoxPrompt(corners_ijk), geometry)
    if len(thin) > 1 or (start >= stop).any():
        with pytest.raises(PromptError) as caught:
            placement.place_box(prompt, geometry, PLACE)
        assert caught.value.location == f"{PLACE}.corners"
        return
    placed = placement.place_box(prompt, geometry, PLACE)
    assert placed.box == Box(tuple(start[::-1].tolist()), tuple(stop[::-1].tolist()))
    assert placed.axis == (thin[0] if thin else "k")
    assert placed.is_2d == bool(thin)
    assert placed.clipped == ((start != low).any() or (stop != high + 1).any())
    assert placed.slices == range(start[AXES.index(placed.axis)], stop[AXES.index(placed.axis)])
    in_space = tuple(tuple(geometry.to_ras(corner).tolist()) for corner in rounded)
    assert placement.place_box(kinds.BoxPrompt(in_space), geometry) == placed


@pytest.mark.parametrize("axis", AXES)
def test_one_voxel_thick_in_one_axis_is_a_box_on_that_slice(axis):
    second = [8, 9, 7]
    second[AXES.index(axis)] = 5
    placed = placement.place_box(box_ijk((5, 5, 5), second), GRID, PLACE)
    assert (placed.axis, placed.is_2d, placed.slices) == (axis, True, range(5, 6))
    same = placement.place_box(box_ijk((5, 5, 5), second, plane=axis), GRID, PLACE)
    assert same == placed
    for other in set(AXES) - {axis}:
        with pytest.raises(PromptError, match=f"thin along {axis}.*no slice of {other}") as caught:
            placement.place_box(box_ijk((5, 5, 5), second, plane=other), GRID, PLACE)
        assert caught.value.location == f"{PLACE}.plane"


@pytest.mark.parametrize(
    ("second", "axes"),
    [((5, 5, 8), "i and j"), ((5, 8, 5), "i and k"), ((8, 5, 5), "j and k"), ((5, 5, 5), "i and j and k")],
)
def test_thin_in_two_or_three_axes_is_an_error(second, axes):
    with pytest.raises(PromptError, match=f"one voxel thick along {axes}: it needs") as caught:
        placement.place_box(box_ijk((5, 5, 5), second), GRID, PLACE)
    assert caught.value.location == f"{PLACE}.corners"


def test_thin_is_a_matter_of_the_prompt_not_of_what_the_image_leaves_of_it():
    placed = placement.place_box(box_ijk((1, 1, -3), (5, 5, 0)), GRID)
    assert placed == placement.PlacedBox(Box((0, 1, 1), (1, 6, 6)), "k", is_2d=False, clipped=True)
    single = geometry_from_spacing((1, 20, 30))
    assert placement.place_box(kinds.BoxPrompt(((1, 1, 0), (5, 5, 0))), single).is_2d
    rounded_thin = placement.place_box(box_ijk((1, 1, 4.6), (5, 5, 5.4)), GRID)
    assert (rounded_thin.is_2d, rounded_thin.slices) == (True, range(5, 6))


@pytest.mark.parametrize("axis", AXES)
def test_a_thick_box_is_cut_along_its_plane(axis):
    placed = placement.place_box(box_ijk((1, 2, 3), (4, 6, 8), plane=axis), GRID)
    assert (placed.axis, placed.is_2d) == (axis, False)
    assert placed.slices == {"i": range(1, 5), "j": range(2, 7), "k": range(3, 9)}[axis]
    assert len(placed.slices) == placed.box.shape_kji[array_axis(axis)]


def test_of_a_rectangle_in_an_oblique_plane_the_box_around_it_counts():
    corners = np.array([(1.0, 2.0, 3.0), (4.0, 6.0, 8.0)])
    across, up = np.array([4.0, 0.0, 3.0]) / 5, np.array([0.0, 1.0, 0.0])
    plane = kinds.ObliquePlane(tuple(corners[0]), tuple(np.cross(across, up)), tuple(up))
    corners[1] = corners[0] + 5 * across + 4 * up
    placed = placement.place_box(box_ijk(*map(tuple, corners), plane=plane), GRID, PLACE)
    assert placed.box == placement.place_box(box_ijk((1, 2, 3), (5, 6, 6)), GRID).box and not placed.is_2d


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((-5, 2, 3), (4, 6, 8), Box((3, 2, 0), (9, 7, 5))),
        ((1, 2, 3), (30, 6, 8), Box((3, 2, 1), (9, 7, 30))),
        ((-100, -100, -100), (100, 100, 100), GRID.box),
        ((1, 2, 3), (1e300, 1e300, 8), Box((3, 2, 1), (9, 20, 30))),
        ((-1e300, 2, 3), (4, 6, 8), Box((3, 2, 0), (9, 7, 5))),
    ],
)
def test_a_box_partly_outside_is_clipped_and_says_so(first, second, expected):
    prompt = box_ijk(first, second)
    assert placement.place_box(prompt, GRID) == placement.PlacedBox(expected, "k", is_2d=False, clipped=True)
    assert placement.require_inside(prompt, GRID) is True


@pytest.mark.parametrize("place", [PLACE, ""])
@pytest.mark.parametrize(
    ("first", "second"),
    [((-9, 2, 3), (-1, 6, 8)), ((30, 2, 3), (40, 6, 8)), ((1, 2, 10), (4, 6, 10)), ((1, -1e300, 3), (4, -1e299, 8))],
)
def test_a_box_wholly_outside_is_an_error_with_its_place(first, second, place):
    for check in (placement.place_box, placement.require_inside):
        with pytest.raises(PromptError, match=r"wholly outside the image.*30 x 20 x 10 voxels") as caught:
            check(box_ijk(first, second), GRID, place)
        assert caught.value.location == f"{place}.corners".lstrip(".")


def test_positions_that_overflow_are_an_error_with_its_place():
    oblique = Geometry([[1, 1, 0, 0], [1, -1, 0, 0], [0, 0, 1e-3, 0], [0, 0, 0, 1]], (5, 6, 7))
    for position in ((1e308, 1e308, 1e308), (1.7e308, -1.7e308, 0.0), (math.nan, 0.0, 0.0)):
        with pytest.raises(PromptError) as caught:
            placement.require_inside(kinds.PointPrompt(position), oblique, PLACE)
        assert caught.value.location == f"{PLACE}.position"
        with pytest.raises(PromptError) as caught:
            placement.place_box(kinds.BoxPrompt((position, position)), oblique, PLACE)
        assert caught.value.location == f"{PLACE}.corners"


INSIDE, OUTSIDE = (1.0, 2.0, 3.0), (1.0, 2.0, 300.0)


@pytest.mark.parametrize(
    ("prompt", "partly_outside"),
    [
        (kinds.PointPrompt(INSIDE), False),
        (kinds.PointPrompt((-0.25, -0.5, -2.0)), False),
        (kinds.ScribblePrompt((INSIDE,)), False),
        (kinds.ScribblePrompt((INSIDE, OUTSIDE)), True),
        (kinds.ScribblePrompt((OUTSIDE, (1.0, 2.0, -300.0))), True),
        (kinds.LassoPrompt((INSIDE, (2.0, 2.0, 3.0), (2.0, 5.0, 3.0))), False),
        (kinds.LassoPrompt((INSIDE, INSIDE, OUTSIDE)), True),
        (kinds.LassoPrompt(((-50.0, -50.0, 4.0), (50.0, -50.0, 4.0), (50.0, 50.0, 4.0), (-50.0, 50.0, 4.0))), True),
        (kinds.MaskPrompt("seed.seg.nrrd", "Liver"), False),
        (kinds.TextPrompt("liver"), False),
        (kinds.ClassPrompt("liver"), False),
    ],
)
def test_prompts_that_touch_the_image_say_whether_a_part_is_outside(prompt, partly_outside):
    assert placement.require_inside(prompt, GRID, PLACE) is partly_outside


@pytest.mark.parametrize(
    ("prompt", "field"),
    [
        (kinds.PointPrompt(OUTSIDE), "position"),
        (kinds.PointPrompt((-0.2501, 0.0, 0.0)), "position"),
        (kinds.PointPrompt((14.75, 0.0, 0.0)), "position"),
        (kinds.ScribblePrompt((OUTSIDE,)), "points"),
        (kinds.ScribblePrompt((OUTSIDE, (5.0, 5.0, 400.0))), "points"),
        (kinds.LassoPrompt((OUTSIDE, OUTSIDE, OUTSIDE)), "points"),
    ],
)
def test_prompts_wholly_outside_are_an_error_with_their_place(prompt, field):
    with pytest.raises(PromptError, match=r"from RAS 0.0, 0.0, 0.0 to 14.5, 19.0, 36.0 mm") as caught:
        placement.require_inside(prompt, GRID, PLACE)
    assert caught.value.location == f"{PLACE}.{field}"


@given(geometries(), prompt_sets)
def test_prompts_in_ras_stay_and_prompts_in_ijk_move_to_where_their_voxels_are(geometry, prompts):
    moved = placement.prompts_in_ras(prompts, geometry)
    assert moved.space == "ras"
    if prompts.space == "ras":
        assert moved is prompts
        return
    for before, after in zip(prompts.segments, moved.segments, strict=True):
        assert after.name == before.name
        for old, new in zip(before.prompts, after.prompts, strict=True):
            assert type(new) is type(old)
            assert new.polarity is old.polarity
            if placement.prompt_positions(old):
                expected = (
                    round_index(old.corners) if isinstance(old, kinds.BoxPrompt) else placement.prompt_positions(old)
                )
                assert geometry.to_ijk(placement.prompt_positions(new)) == pytest.approx(
                    np.array(expected, float), abs=1e-4
                )
            else:
                assert new == old


@given(geometries(), planes.filter(lambda plane: isinstance(plane, kinds.ObliquePlane)), finite(-9, 9), finite(-9, 9))
def test_an_oblique_plane_moves_with_its_points(geometry, plane, along, across):
    """Points of the plane in voxels are points of the plane in space, and up stays up."""
    normal, up = np.array(plane.normal), np.array(plane.up)
    sideways = np.cross(up, normal) / np.linalg.norm(normal)
    index_ijk = plane.origin + along * up + across * sideways
    moved = in_ras(kinds.PointPrompt(tuple(index_ijk.tolist()), kinds.Polarity.NEGATIVE, plane), geometry)
    assert moved.polarity is kinds.Polarity.NEGATIVE
    offset = np.subtract(moved.position, moved.plane.origin)
    length = np.linalg.norm(moved.plane.normal)
    assume(length > 0)
    # float64 keeps about 1e-12 of the largest numbers in play
    scale = np.linalg.norm(moved.plane.origin) + np.linalg.norm(moved.position) + 1
    assert np.dot(moved.plane.normal, offset) / length == pytest.approx(0, abs=1e-9 * scale)
    assert moved.plane.up == pytest.approx(tuple(geometry.to_ras(up) - geometry.to_ras((0, 0, 0))), abs=1e-9 * scale)


@pytest.mark.parametrize("plane", [None, "i", "j", "k"])
def test_what_is_no_position_is_kept(plane):
    scribble = kinds.ScribblePrompt((INSIDE,), 2.5, kinds.Polarity.NEGATIVE, plane)
    moved = in_ras(scribble, GRID)
    assert (moved.radius_mm, moved.polarity, moved.plane) == (2.5, kinds.Polarity.NEGATIVE, plane)
    assert moved.points == ((0.5, 2.0, 12.0),)


def test_a_lasso_must_be_planar():
    geometry = geometry_from_spacing((10, 20, 30), (1.0, 2.0, 3.0))
    flat = ((1.0, 1.0, 4.0), (9.0, 1.0, 4.0), (9.0, 9.0, 4.4), (1.0, 9.0, 4.0))
    assert placement.require_inside(kinds.LassoPrompt(flat), geometry) is False
    tilted = tuple((x, y, x + 2 * y) for x, y, _ in flat)
    assert placement.require_inside(kinds.LassoPrompt(tilted[:3]), geometry) is False
    bent = (*flat[:3], (1.0, 9.0, 8.0))
    with pytest.raises(PromptError, match="planar") as caught:
        placement.require_inside(kinds.LassoPrompt(bent), geometry, "segments[0].prompts[1]")
    assert caught.value.location == "segments[0].prompts[1].points"


@pytest.mark.parametrize(
    "prompt",
    [
        kinds.ScribblePrompt(()),
        kinds.LassoPrompt(()),
        kinds.ScribblePrompt(((1.0, 2.0),)),
        kinds.PointPrompt((1.0,)),
        kinds.BoxPrompt(((1.0,), (2.0,))),
    ],
    ids=repr,
)
def test_a_prompt_without_positions_in_space_is_refused(prompt):
    with pytest.raises(PromptError, match="needs at least one position, of three numbers each"):
        placement.require_inside(prompt, geometry_from_spacing((4, 5, 6)))


@pytest.mark.parametrize("far", [float("nan"), float("inf"), 1.7e308])
def test_a_lasso_beyond_all_numbers_is_refused_with_its_place(far):
    lasso = kinds.LassoPrompt(((far, far, 3.0), (-far, 1.0, 3.0), (1.0, far, 3.0)))
    with pytest.raises(PromptError, match="is at no position in space") as caught:
        placement.require_inside(lasso, geometry_from_spacing((12, 20, 30)), "p")
    assert caught.value.location == "p.points"
