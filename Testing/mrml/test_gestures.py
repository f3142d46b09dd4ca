"""The mouse as a state machine: whatever events come in whatever order."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.mrml.gestures import (
    TOOL_KINDS,
    AwaitingRelease,
    Drawing,
    Idle,
    cancel,
    move,
    press,
    press_again,
    release,
    simplified,
)
from FoundationSegLib.prompts.kinds import Polarity

PLACES = st.tuples(st.integers(0, 300), st.integers(0, 300)).map(lambda at: (float(at[0]), float(at[1])))
KINDS = st.sampled_from(TOOL_KINDS)
POLARITIES = st.sampled_from(Polarity)


def drawn(kind, *way, polarity=Polarity.POSITIVE, repeated=False):
    state = press(kind, polarity, way[0], repeated).state
    for at in way[1:]:
        state = move(state, at).state
    return release(state, way[-1])


@given(KINDS, POLARITIES, st.lists(PLACES, min_size=1, max_size=30))
def test_a_drawing_ends_idle_with_at_most_one_gesture_of_its_kind(kind, polarity, way):
    reaction = drawn(kind, *way, polarity=polarity)
    gesture = reaction.finished
    assert reaction.swallow
    assert reaction.state == Idle() or (kind == "corners" and reaction.state.is_hovering and gesture is None)
    if gesture is None:
        assert kind in ("box", "lasso", "corners")
        return
    assert (gesture.kind, gesture.polarity) == ("box" if kind == "corners" else kind, polarity)
    assert set(gesture.path) <= set(way)
    assert gesture.path[-1] == way[-1]
    assert kind == "point" or gesture.path[0] == way[0]


@given(PLACES, st.lists(PLACES, max_size=5), PLACES)
def test_two_clicks_make_a_box(first, way, second):
    state = drawn("corners", first).state
    assert state.is_hovering
    for at in way:
        reaction = move(state, at)
        assert not reaction.swallow  # no button is down: the view may follow the mouse
        state = reaction.state
    reaction = press_again(state, second)
    assert reaction.swallow and release(reaction.state, second).state == Idle()
    if math.dist(first, second) < 3:
        assert reaction.finished is None
    else:
        assert (reaction.finished.kind, reaction.finished.path) == ("box", (first, second))


def test_a_first_corner_is_forgotten_by_a_cancel_and_no_release_is_waited_for():
    reaction = cancel(drawn("corners", (5.0, 5.0)).state)
    assert (reaction.state, reaction.finished, reaction.swallow) == (Idle(), None, True)


def test_a_double_click_sets_no_corner():
    assert drawn("corners", (5.0, 5.0), repeated=True).state == Idle()


EVENTS = st.one_of(
    st.tuples(st.just("press"), KINDS, POLARITIES, PLACES, st.booleans()),
    st.tuples(st.just("move"), PLACES),
    st.tuples(st.just("release"), PLACES),
    st.tuples(st.just("cancel")),
)


@given(st.lists(EVENTS, max_size=60))
def test_any_order_of_events(events):
    reactions = {"press": press, "move": move, "release": release, "cancel": cancel}
    state, pressed, since_press = Idle(), 0, []
    for name, *arguments in events:
        before = state
        reaction = press(*arguments) if name == "press" else reactions[name](state, *arguments)
        state = reaction.state
        since_press = [name] if name == "press" else [*since_press, name]
        is_held = since_press[:1] == ["press"] and set(since_press[1:]) <= {"move"}
        is_hovering = isinstance(state, Drawing) and state.is_hovering
        assert isinstance(state, Drawing) == is_held or is_hovering
        if reaction.finished is not None:
            assert name == "release" and isinstance(before, Drawing) and reaction.swallow
        if name in ("move", "cancel"):
            is_free = isinstance(before, Drawing) and before.is_hovering and name == "move"
            assert reaction.swallow == (isinstance(before, Drawing) and not is_free)
        pressed += name == "press"


@pytest.mark.parametrize("kind", TOOL_KINDS)
def test_what_comes_without_a_press_is_left_alone(kind):
    for reaction in (move(Idle(), (1.0, 1.0)), release(Idle(), (1.0, 1.0)), cancel(Idle())):
        assert (reaction.state, reaction.finished, reaction.swallow) == (Idle(), None, False)


@pytest.mark.parametrize("kind", TOOL_KINDS)
def test_after_a_cancel_the_release_is_swallowed_and_moves_are_not(kind):
    state = cancel(press(kind, Polarity.POSITIVE, (5.0, 5.0)).state).state
    assert state == AwaitingRelease()
    assert not move(state, (9.0, 9.0)).swallow
    ended = release(state, (50.0, 50.0))
    assert (ended.state, ended.finished, ended.swallow) == (Idle(), None, True)


def test_a_point_is_placed_where_the_button_goes_up():
    assert drawn("point", (3.0, 4.0), (80.0, 90.0)).finished.path == ((80.0, 90.0),)


@pytest.mark.parametrize(("kind", "is_drawn"), [("point", True), ("scribble", True), ("box", False), ("lasso", False)])
def test_a_click(kind, is_drawn):
    assert (drawn(kind, (30.0, 40.0), (31.0, 40.0)).finished is not None) == is_drawn
    assert drawn(kind, (30.0, 40.0), (31.0, 40.0), repeated=True).finished is None


@pytest.mark.parametrize("kind", TOOL_KINDS)
def test_the_second_press_of_a_double_click_may_begin_a_drawing(kind):
    assert drawn(kind, (0.0, 0.0), (40.0, 0.0), (40.0, 50.0), repeated=True).finished is not None


def test_going_there_and_back_is_no_click():
    assert drawn("scribble", (0.0, 0.0), (90.0, 0.0), (0.0, 0.0), repeated=True).finished is not None


@pytest.mark.parametrize("way", [[(0, 0), (50, 0), (90, 0)], [(0, 0), (50, 50)], [(0, 0), (40, 40), (0, 0)]])
def test_a_lasso_that_encloses_nothing_is_none(way):
    assert drawn("lasso", *[(float(x), float(y)) for x, y in way]).finished is None


def test_an_eight_is_a_lasso():
    eight = [(50 + 40 * math.sin(t), 50 + 40 * math.sin(2 * t)) for t in np.linspace(0, 2 * np.pi, 60)]
    assert drawn("lasso", *eight).finished is not None


@given(st.lists(PLACES, min_size=1, max_size=80), st.floats(0, 20))
def test_a_simplified_path_is_nowhere_further_than_the_tolerance(path, tolerance):
    kept = simplified(path, tolerance)
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
