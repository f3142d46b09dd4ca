import math
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from FoundationSegLib.errors import PromptError
from FoundationSegLib.imaging.geometry import AXES, Geometry, geometry_from_spacing
from FoundationSegLib.mrml import gestures
from FoundationSegLib.mrml.slice_tool import preview_lines
from FoundationSegLib.prompts.kinds import ObliquePlane, Polarity
from FoundationSegLib.prompts.oblique import PARALLEL_VOXELS
from FoundationSegLib.prompts.placement import place_box, slice_number
from Testing.mrml.random_geometries import geometries

PLACES = st.tuples(st.integers(0, 300), st.integers(0, 300)).map(lambda at: (float(at[0]), float(at[1])))
KINDS = st.sampled_from(gestures.TOOL_KINDS)
POLARITIES = st.sampled_from(Polarity)


def drawn(kind, *way, polarity=Polarity.POSITIVE, repeated=False):
    state = gestures.press(kind, polarity, way[0], repeated).state
    for at in way[1:]:
        state = gestures.move(state, at).state
    return gestures.release(state, way[-1])


@given(KINDS, POLARITIES, st.lists(PLACES, min_size=1, max_size=30))
def test_a_drawing_ends_idle_with_at_most_one_gesture_of_its_kind(kind, polarity, way):
    reaction = drawn(kind, *way, polarity=polarity)
    gesture = reaction.finished
    assert reaction.swallow
    assert reaction.state == gestures.Idle() or (kind == "corners" and reaction.state.is_hovering and gesture is None)
    if gesture is None:
        assert kind in ("box", "lasso", "corners")
        return
    assert (gesture.kind, gesture.polarity) == ("box" if kind == "corners" else kind, polarity)
    assert set(gesture.path) <= set(way) and gesture.path[-1] == way[-1]
    assert kind == "point" or gesture.path[0] == way[0]


@given(PLACES, st.lists(PLACES, max_size=5), PLACES)
def test_two_clicks_make_a_box(first, way, second):
    state = drawn("corners", first).state
    assert state.is_hovering
    for at in way:
        reaction = gestures.move(state, at)
        assert not reaction.swallow  # no button is down: the view may follow the mouse
        state = reaction.state
    reaction = gestures.press_again(state, second)
    assert reaction.swallow and gestures.release(reaction.state, second).state == gestures.Idle()
    if math.dist(first, second) < 3:
        assert reaction.finished is None
    else:
        assert (reaction.finished.kind, reaction.finished.path) == ("box", (first, second))


EVENTS = st.one_of(
    st.tuples(st.just("press"), KINDS, POLARITIES, PLACES, st.booleans()),
    st.tuples(st.just("move"), PLACES),
    st.tuples(st.just("release"), PLACES),
    st.tuples(st.just("cancel")),
)


@given(st.lists(EVENTS, max_size=60))
def test_any_order_of_events(events):
    reactions = {"press": gestures.press, "move": gestures.move, "release": gestures.release, "cancel": gestures.cancel}
    state, pressed, since_press = gestures.Idle(), 0, []
    for name, *arguments in events:
        before = state
        reaction = gestures.press(*arguments) if name == "press" else reactions[name](state, *arguments)
        state = reaction.state
        since_press = [name] if name == "press" else [*since_press, name]
        is_held = since_press[:1] == ["press"] and set(since_press[1:]) <= {"move"}
        is_hovering = isinstance(state, gestures.Drawing) and state.is_hovering
        assert isinstance(state, gestures.Drawing) == is_held or is_hovering
        if reaction.finished is not None:
            assert name == "release" and isinstance(before, gestures.Drawing) and reaction.swallow
        if name in ("move", "cancel"):
            is_free = isinstance(before, gestures.Drawing) and before.is_hovering and name == "move"
            assert reaction.swallow == (isinstance(before, gestures.Drawing) and not is_free)
        pressed += name == "press"


@pytest.mark.parametrize("kind", gestures.TOOL_KINDS)
def test_what_comes_without_a_press_is_left_alone(kind):
    for reaction in (
        gestures.move(gestures.Idle(), (1.0, 1.0)),
        gestures.release(gestures.Idle(), (1.0, 1.0)),
        gestures.cancel(gestures.Idle()),
    ):
        assert (reaction.state, reaction.finished, reaction.swallow) == (gestures.Idle(), None, False)


@pytest.mark.parametrize("kind", gestures.TOOL_KINDS)
def test_after_a_cancel_the_release_is_swallowed_and_moves_are_not(kind):
    state = gestures.cancel(gestures.press(kind, Polarity.POSITIVE, (5.0, 5.0)).state).state
    assert state == gestures.AwaitingRelease() and not gestures.move(state, (9.0, 9.0)).swallow
    ended = gestures.release(state, (50.0, 50.0))
    assert (ended.state, ended.finished, ended.swallow) == (gestures.Idle(), None, True)


@pytest.mark.parametrize(("kind", "is_drawn"), [("point", True), ("scribble", True), ("box", False), ("lasso", False)])
def test_a_click(kind, is_drawn):
    assert (drawn(kind, (30.0, 40.0), (31.0, 40.0)).finished is not None) == is_drawn
    assert drawn(kind, (30.0, 40.0), (31.0, 40.0), repeated=True).finished is None


@pytest.mark.parametrize("kind", gestures.TOOL_KINDS)
def test_the_second_press_of_a_double_click_may_begin_a_drawing(kind):
    assert drawn(kind, (0.0, 0.0), (40.0, 0.0), (40.0, 50.0), repeated=True).finished is not None


@pytest.mark.parametrize("way", [[(0, 0), (50, 0), (90, 0)], [(0, 0), (50, 50)], [(0, 0), (40, 40), (0, 0)]])
def test_a_lasso_that_encloses_nothing_is_none(way):
    assert drawn("lasso", *[(float(x), float(y)) for x, y in way]).finished is None


def test_an_eight_is_a_lasso():
    eight = [(50 + 40 * math.sin(t), 50 + 40 * math.sin(2 * t)) for t in np.linspace(0, 2 * np.pi, 60)]
    assert drawn("lasso", *eight).finished is not None


@given(st.lists(PLACES, min_size=1, max_size=80), st.floats(0, 20))
def test_a_simplified_path_is_nowhere_further_than_the_tolerance(path, tolerance):
    kept = gestures.simplified(path, tolerance)
    assert kept[0] == path[0] and kept[-1] == path[-1]
    for at in path:
        assert distance(at, kept) <= tolerance + 1e-9


def distance(at, way):
    at, way = np.array(at), np.array(way)
    best = np.linalg.norm(way - at, axis=1).min()
    for start, end in pairwise(way):
        along = end - start
        if along @ along:
            part = np.clip((at - start) @ along / (along @ along), 0, 1)
            best = min(best, np.linalg.norm(at - start - part * along))
    return best


def test_a_long_smooth_stroke_needs_few_points():
    circle = [(200 + 150 * math.cos(t), 200 + 150 * math.sin(t)) for t in np.linspace(0, 6, 1500)]
    gesture = drawn("scribble", *circle).finished
    assert 20 < len(gesture.path) < 80


@pytest.mark.parametrize("kind", ["scribble", "lasso"])
def test_the_moves_of_a_pen_cost_the_same_however_many_came_before(kind):
    """A pen sends hundreds of moves a second, and each draws the stroke so far."""

    def drawn_points(count):
        state, points = gestures.press(kind, Polarity.POSITIVE, (350.0, 200.0)).state, 0
        for t in np.linspace(0, 6, count):
            state = gestures.move(state, (200 + 150 * math.cos(t), 200 + 150 * math.sin(t))).state
            points += len(state.gesture.path)
        return points, gestures.release(state, (200 + 150 * math.cos(6), 200 + 150 * math.sin(6))).finished

    (few, _), (many, stroke) = drawn_points(1000), drawn_points(2000)
    assert many < 3 * few and many < 2000 * 120
    assert 20 < len(stroke.path) < 80


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
    return gestures.ViewPlane(matrix, SIZE, geometry)


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
        assert gestures.ViewPlane(view.xy_to_ras, SIZE, geometry).axis == "k"


@given(geometries(largest=40), st.floats(0.01, 1.5), st.floats(0, 6.28), st.floats(-50, 50), st.floats(-50, 50))
def test_an_oblique_plane_does_not_change_with_pan_and_zoom(geometry, tilt, turn, pan_x, pan_y):
    view = slice_view_of(geometry, "k", geometry.shape_kji[0] / 2, 2.0, turn, tilt)
    assume(view.axis is None)
    matrix = view.xy_to_ras.copy()
    matrix[:3, :2] *= 0.4
    matrix[:3, 3] += view.xy_to_ras[:3, 0] * pan_x + view.xy_to_ras[:3, 1] * pan_y
    moved = gestures.ViewPlane(matrix, SIZE, geometry).plane
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
        view = gestures.ViewPlane(shaken, SIZE, geometry)
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
        prompt = gestures.prompt_of(gestures.Gesture("box", Polarity.POSITIVE, tuple(path)), view)
        placed = place_box(prompt, geometry)
    except PromptError:
        return
    assert placed.axis == axis
    outline = gestures.box_outline(path, view)
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
            gestures.prompt_of(gestures.Gesture(kind, Polarity.POSITIVE, tuple(path)), view)


def test_a_box_one_voxel_wide_is_refused():
    view = slice_view_of(geometry_from_spacing((10, 10, 10)), "k", 5, zoom=20.0)
    with pytest.raises(PromptError, match="one voxel thick"):
        gestures.prompt_of(gestures.Gesture("box", Polarity.POSITIVE, ((205, 150), (207, 240))), view)


def test_a_box_in_an_oblique_view_is_a_rectangle_of_it():
    view = slice_view_of(geometry_from_spacing((50, 50, 50)), "k", 25, zoom=2.0, tilt=0.5)
    prompt = gestures.prompt_of(gestures.Gesture("box", Polarity.NEGATIVE, ((180, 140), (220, 170))), view)
    assert prompt.plane == view.plane
    assert np.allclose(view.pixels(prompt.corners), [(180, 140), (220, 170)], atol=1e-5)
    with pytest.raises(PromptError, match="wholly outside"):
        gestures.prompt_of(gestures.Gesture("box", Polarity.POSITIVE, ((0, 0), (9, 9))), view)


PATH = ((190.0, 140.0), (210.0, 150.0), (200.0, 165.0))
PREVIEW_VIEW = slice_view_of(geometry_from_spacing((50, 50, 50)), "k", 25, zoom=4.0, turn=0.3)


def length(lines):
    return sum(np.linalg.norm(np.diff(line, axis=0), axis=1).sum() for line in lines)


@pytest.mark.parametrize("kind", get_args(gestures.GestureKind))
def test_negative_lines_have_gaps(kind):
    positive, negative = (preview_lines(gestures.Gesture(kind, polarity, PATH), PREVIEW_VIEW) for polarity in Polarity)
    assert 0.4 * length(positive) < length(negative) < 0.95 * length(positive)
    for line in (*positive, *negative):
        assert line.shape[1] == 2 and np.isfinite(line).all()


def test_a_box_shows_whole_voxels():
    (line,) = preview_lines(gestures.Gesture("box", Polarity.POSITIVE, PATH), PREVIEW_VIEW)
    assert np.array_equal(line[0], line[-1])
    sides = np.linalg.norm(np.diff(line, axis=0), axis=1) / 4.0  # four pixels a voxel
    assert np.allclose(sides, np.round(sides))


@pytest.mark.parametrize("kind", get_args(gestures.GestureKind))
@pytest.mark.parametrize("polarity", Polarity)
def test_a_gesture_of_one_place_is_drawn_too(kind, polarity):
    for path in (PATH[:1], (PATH[0], PATH[0])):
        preview_lines(gestures.Gesture(kind, polarity, path), PREVIEW_VIEW)
