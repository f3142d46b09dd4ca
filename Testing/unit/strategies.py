"""Random values of the core, for hypothesis."""

import math

import numpy as np
from hypothesis import strategies as st

from FoundationSegLib.imaging.geometry import AXES, Box, Geometry
from FoundationSegLib.prompts import kinds


def finite(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_infinity=False)


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    """The (3, 3) rotation about the first, then the second, then the third axis, in radians."""
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        a, b = (n for n in range(3) if n != axis)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        result = turn @ result
    return result


shapes = st.tuples(*[st.integers(1, 40)] * 3) | st.tuples(st.just(1), st.integers(1, 600), st.integers(1, 600))


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Grids of every kind: permuted, flipped, oblique, sheared, anisotropic, far from the origin, of one slice."""
    axes = np.eye(3)[:, draw(st.permutations(range(3)))] * draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    angle = finite(-math.pi, math.pi)
    turned = rotation(draw(st.just((0.0, 0.0, 0.0)) | st.tuples(angle, angle, angle))) @ axes
    shear = np.eye(3)
    shear[np.triu_indices(3, 1)] = draw(st.just((0.0, 0.0, 0.0)) | st.tuples(*[finite(-0.7, 0.7)] * 3))
    spacing = draw(st.tuples(*[finite(0.02, 20.0)] * 3))
    matrix = np.eye(4)
    matrix[:3, :3] = turned @ shear * spacing
    matrix[:3, 3] = draw(st.tuples(*[finite(-2000.0, 2000.0)] * 3))
    return Geometry(matrix, draw(shapes))


@st.composite
def boxes(draw: st.DrawFn, low: int = -3, high: int = 9) -> Box:
    """Boxes inside, outside, empty and inside out."""
    corner = st.tuples(*[st.integers(low, high)] * 3)
    return Box(draw(corner), draw(corner))


coordinates = finite(-1e4, 1e4) | st.integers(-500, 500).map(float)
vectors = st.tuples(coordinates, coordinates, coordinates)
polarities = st.sampled_from(kinds.Polarity)
ORIGIN = (0.0, 0.0, 0.0)
ONE_OF_EACH = {
    "point": kinds.PointPrompt(ORIGIN),
    "box": kinds.BoxPrompt((ORIGIN, ORIGIN)),
    "scribble": kinds.ScribblePrompt((ORIGIN,)),
    "lasso": kinds.LassoPrompt((ORIGIN, ORIGIN, ORIGIN)),
    "mask": kinds.MaskPrompt("seed.seg.nrrd", "Liver"),
    "text": kinds.TextPrompt("liver"),
    "class": kinds.ClassPrompt("liver"),
}

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12).filter(str.strip)
oblique_planes = st.builds(
    lambda origin, angles, length: kinds.ObliquePlane(
        origin, *(tuple((length * column).tolist()) for column in rotation(angles)[:, :2].T)
    ),
    vectors,
    st.tuples(*[finite(-math.pi, math.pi)] * 3),
    finite(0.01, 100.0),
)
planes = st.none() | st.sampled_from(AXES) | oblique_planes
prompts = st.one_of(
    st.builds(kinds.PointPrompt, vectors, polarities, planes),
    st.builds(kinds.BoxPrompt, st.tuples(vectors, vectors), polarities, planes),
    st.builds(
        kinds.ScribblePrompt,
        st.lists(vectors, min_size=1, max_size=4).map(tuple),
        st.none() | finite(0.01, 50.0),
        polarities,
        planes,
    ),
    st.builds(kinds.LassoPrompt, st.lists(vectors, min_size=3, max_size=6).map(tuple), polarities, planes),
    st.builds(kinds.MaskPrompt, names, names, polarities),
    st.builds(kinds.TextPrompt, names, polarities),
    st.builds(kinds.ClassPrompt, names, polarities),
)
segments = st.builds(kinds.SegmentPrompts, names, st.lists(prompts, min_size=1, max_size=4).map(tuple))
prompt_sets = st.builds(
    kinds.PromptSet,
    st.lists(segments, min_size=1, max_size=3, unique_by=lambda segment: segment.name).map(tuple),
    st.sampled_from(["ras", "ijk"]),
)


def paths_of(value, path=()):
    """The way to every value of a document, the document itself first."""
    yield path
    if isinstance(value, dict | list):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths_of(inner, (*path, step))
