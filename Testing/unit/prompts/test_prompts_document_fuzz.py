"""Whatever is done to a prompts file, the parser accepts it or names the place; nothing else ever comes out."""

import copy
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.errors import PromptError
from FoundationSegLib.prompts.prompts_file import parse_prompts, prompts_to_document
from Testing.unit.strategies import prompt_sets

GARBAGE = [
    *(None, True, False, 0, 1, -1, 2, 1.5, -0.0, 5e-324, 1e308, math.nan, math.inf, -math.inf, 10**400, -(2**63)),
    *("", " ", "x", "ras", "ijk", "k", "point", "box", "lasso", "mask", "negative", "\0", "\ud800", "x" * 5000),
    *([], {}, [[]], [{}], [None] * 3, [0, 0, 0], [[0, 0, 0]], [[0, 0, 0]] * 3, [1e308, 1e308, -1e308], [0] * 1000),
    *({"x": 1}, {"type": "text", "text": "x"}, {"origin": [0, 0, 0], "normal": [0, 0, 1], "up": [0, 1, 0]}),
    *((), (1, 2, 3), b"x", {1, 2}, object()),
]
garbage = st.sampled_from(GARBAGE) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["type", "x", "points"]), inner),
    max_leaves=6,
)


def paths_of(value, path=()):
    """The way to every value of a document, the document itself first."""
    yield path
    if isinstance(value, dict | list):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths_of(inner, (*path, step))


def value_at(document, path):
    for step in path:
        document = document[step]
    return document


@st.composite
def mutated_documents(draw):
    """A valid document with one thing done to it, and the path of the object or list in which it was done."""
    document = prompts_to_document(draw(prompt_sets))
    path = draw(st.sampled_from(list(paths_of(document))[1:]))
    parent, step = value_at(document, path[:-1]), path[-1]
    deed = draw(st.sampled_from(["delete", "replace", "replace", "replace", "add", "rename", "twin"]))
    if deed == "delete":
        del parent[step]
    elif deed == "replace":
        parent[step] = draw(garbage)
    elif isinstance(parent, list):
        parent.insert(step, copy.deepcopy(parent[step]) if deed == "twin" else draw(garbage))
    else:
        name = draw(st.sampled_from(["extra", "Type", "position", "points", "plane", "radius_mm", "name", "prompts"]))
        parent[name] = parent.pop(step) if deed == "rename" else draw(garbage)
    return document, path[:-1]


def steps_of(place):
    return tuple(int(number) if number else name for number, name in re.findall(r"\[(\d+)\]|([^.\[\]]+)", place))


def is_part(path, of):
    return path[: len(of)] == of


def assert_names_the_culprit(error, document, where):
    """The place leads to a value of the document, or to a field missing there, and lies around the deed."""
    steps = steps_of(error.place)
    assert steps, "a document that is an object always has a place to name"
    parent, step = value_at(document, steps[:-1]), steps[-1]
    is_there = step < len(parent) if isinstance(step, int) else step in parent
    assert is_there != (": missing" in str(error))
    twin_name = steps[-1] == "name" and "taken by an earlier segment" in str(error)
    if "plane" in where:  # a plane's normal can make its up wrong
        where = where[: where.index("plane") + 1]
    assert twin_name or is_part(steps, where) or is_part(where, steps)


@given(mutated_documents())
def test_one_mutation_anywhere_is_accepted_or_named(mutated):
    document, where = mutated
    try:
        prompts = parse_prompts(document)
    except PromptError as error:
        assert_names_the_culprit(error, document, where)
        assert len(str(error)) < 400, "a message shows no whole document"
    else:
        assert parse_prompts(prompts_to_document(prompts)) == prompts


@given(garbage)
def test_garbage_is_never_accepted_as_a_document(document):
    with pytest.raises(PromptError) as caught:
        parse_prompts(document)
    assert bool(caught.value.place) == isinstance(document, dict)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [10**5000, -(10**5000), nested(50_000)], ids=["huge", "negative", "deep"])
@pytest.mark.parametrize(
    "place",
    [
        "version",
        "space",
        "segments[0].name",
        "segments[0].prompts[0].type",
        "segments[0].prompts[0].position",
        "segments[0].prompts[0].position[1]",
        "segments[0].prompts[0].polarity",
        "segments[0].prompts[0].plane",
    ],
)
def test_values_that_python_itself_cannot_print_are_named(place, value):
    point = {"type": "point", "position": [1, 2, 3], "polarity": "positive", "plane": "k"}
    document = {"version": 1, "space": "ras", "segments": [{"name": "Liver", "prompts": [point]}]}
    *way, last = steps_of(place)
    value_at(document, way)[last] = value
    with pytest.raises(PromptError) as caught:
        parse_prompts(document)
    assert caught.value.place.startswith(place)
