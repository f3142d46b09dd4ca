import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.engine.orientation import AS_STORED, Orientation, is_rising, radiological
from FoundationSegLib.imaging.geometry import AXES, Geometry, array_axis

ORIENTATIONS = st.builds(Orientation, st.booleans(), st.booleans(), st.booleans())
# What is shown to the right and at the bottom, by the axis of the body that is looked along.
SHOWN = dict.fromkeys("RL", ("P", "I")) | dict.fromkeys("AP", ("L", "I")) | dict.fromkeys("SI", ("L", "P"))
DIRECTIONS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


def geometry_of(letters, tilt=0.0):
    """A grid whose i, j and k lead to these sides of the body, turned by an angle about an oblique line."""
    about = np.array((1.0, 2.0, 3.0)) / np.sqrt(14)
    x, y, z = about
    cross = np.array(((0, -z, y), (z, 0, -x), (-y, x, 0)))
    rotation = np.eye(3) + np.sin(tilt) * cross + (1 - np.cos(tilt)) * cross @ cross
    matrix = np.eye(4)
    matrix[:3, :3] = rotation @ np.array([DIRECTIONS[letter] for letter in letters]).T * (0.7, 1.3, 5.0)
    return Geometry(matrix, (3, 4, 5))


@st.composite
def letters(draw):
    order = draw(st.permutations(("RL", "AP", "SI")))
    return "".join(draw(st.sampled_from(pair)) for pair in order)


@given(letters(), st.sampled_from(AXES), st.floats(-0.3, 0.3))
def test_left_is_right_and_posterior_or_inferior_is_below(stored, axis, tilt):
    """However the grid is stored, along every axis: positions grow to the right and downwards as on a screen."""
    geometry = geometry_of(stored)
    index_kji = np.moveaxis(np.indices(geometry.shape_kji), 0, -1)
    place = [slice(None)] * 3
    place[array_axis(axis)] = 1
    position_ras = geometry.to_ras(index_kji[tuple(place)][..., ::-1])
    seen = np.stack([radiological(geometry, axis).turn(position_ras[..., n]) for n in range(3)], axis=-1)
    right, below = SHOWN[stored["ijk".index(axis)]]
    assert np.all(np.diff(seen, axis=1) @ DIRECTIONS[right] > 0)
    assert np.all(np.diff(seen, axis=0) @ DIRECTIONS[below] > 0)
    assert radiological(geometry_of(stored, tilt), axis) == radiological(geometry, axis)


@given(ORIENTATIONS, st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_turned_back_a_slice_is_what_it_was(orientation, rows, columns, colour):
    stored = np.arange(rows * columns * (3 if colour else 1)).reshape(rows, columns, *([3] if colour else []))
    seen = orientation.turn(stored)
    assert np.array_equal(orientation.turn_back(seen), stored)
    assert seen.flags.c_contiguous


@given(ORIENTATIONS, st.data())
def test_a_box_stays_around_its_voxels(orientation, data):
    rows, columns = data.draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
    y0, x0 = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    y1, x1 = data.draw(st.integers(y0, rows - 1)), data.draw(st.integers(x0, columns - 1))
    stored = np.zeros((rows, columns), bool)
    stored[y0 : y1 + 1, x0 : x1 + 1] = True
    x0, y0, x1, y1 = orientation.turn_box((x0, y0, x1, y1), (rows, columns))
    seen = orientation.turn(stored)
    assert seen[y0 : y1 + 1, x0 : x1 + 1].all()
    assert np.count_nonzero(seen) == (y1 - y0 + 1) * (x1 - x0 + 1)


@pytest.mark.parametrize("axis", AXES)
def test_the_grid_of_most_formats_is_seen_as_it_is(axis):
    """DICOM and pictures: i to the left, j to posterior; only along k, as the slices were taken."""
    orientation = radiological(geometry_of("LPS"), axis)
    assert (orientation == AS_STORED) == (axis == "k")


@pytest.mark.parametrize(("stored", "rising"), [("RAS", "ijk"), ("LPS", "k"), ("LPI", ""), ("SRA", "ijk"), ("ILP", "")])
def test_slice_numbers_rise_to_the_right_the_front_and_the_head(stored, rising):
    assert "".join(axis for axis in AXES if is_rising(geometry_of(stored), axis)) == rising
