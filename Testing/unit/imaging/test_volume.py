import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.geometry import Geometry, geometry_from_spacing
from FoundationSegLib.imaging.volume import Turn, Volume, require_image, towards_ras
from Testing.unit.strategies import geometries, rotation

SHAPE = (3, 4, 5)
RAMP = np.arange(60, dtype=np.int16).reshape(SHAPE)
GRID = geometry_from_spacing(SHAPE)


@pytest.mark.parametrize(
    "array",
    [RAMP.copy(), np.asfortranarray(RAMP), np.repeat(RAMP, 2, axis=2)[:, :, ::2], RAMP[::-1].copy()[::-1]],
    ids=["copy", "fortran", "strided", "reversed"],
)
def test_the_key_is_of_the_voxels_not_of_their_memory(array):
    first, second = Volume(RAMP, GRID), Volume(array, geometry_from_spacing(SHAPE), name="other", modality="CT")
    assert second.take_key("its key there", first.checksum) and second.key == "its key there"
    assert first.key == Volume(array, GRID).key
    assert len(first.key) == 32
    assert int(first.key, 16) >= 0


@given(st.integers(0, 59), st.integers(1, 2**15))
def test_one_voxel_changes_the_key(place, difference):
    other = RAMP.copy()
    other.flat[place] ^= np.int16(difference) if difference < 2**15 else np.int16(-(2**15))
    sent, torn = Volume(RAMP, GRID), Volume(other, GRID)
    assert not torn.take_key(sent.key, sent.checksum)
    assert sent.key != torn.key


def test_everything_that_makes_another_image_makes_another_key():
    moved = np.eye(4)
    moved[0, 3] = 1e-9
    flat = geometry_from_spacing((1, 3, 20))
    volumes = [
        Volume(RAMP, GRID),
        Volume(RAMP.astype(np.uint16), GRID),
        Volume(RAMP.astype(np.int32), GRID),
        Volume(RAMP.astype(np.float32), GRID),
        Volume(RAMP, geometry_from_spacing(SHAPE, (1.0, 1.0, 1.1))),
        Volume(RAMP, Geometry(moved, SHAPE)),
        Volume(RAMP.reshape(1, 3, 20), flat),
        Volume(RAMP.reshape(1, 1, 20, 3), geometry_from_spacing((1, 1, 20))),
    ]
    assert all(first.key != second.key for first, second in itertools.combinations(volumes, 2))


@pytest.mark.parametrize(("shape", "colour"), [((3, 4, 5), False), ((3, 4, 5, 3), True), ((1, 4, 3), False)])
def test_colour_is_a_fourth_axis_of_three(shape, colour):
    assert Volume(np.zeros(shape, np.uint8), geometry_from_spacing(shape[:3])).is_colour is colour


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5)), "three axes"),
        (np.zeros((3, 4, 5, 4)), "three colours"),
        (np.zeros((3, 4, 5, 1)), "three colours"),
        (np.zeros((2, 3, 4, 5, 3)), "three axes"),
        (np.zeros(SHAPE, bool), "bool"),
        (np.zeros(SHAPE, complex), "complex"),
        (np.zeros(SHAPE, "U1"), "whole or real numbers"),
        (np.zeros((5, 4, 3)), "do not agree"),
        (np.zeros((3, 4, 0)), "do not agree"),
    ],
)
def test_arrays_that_are_no_image_are_refused(array, message):
    with pytest.raises(InputError, match=message):
        Volume(array, GRID)


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "u8", "i8", "f2", "<f4", ">f4", "f8"])
def test_an_image_with_something_to_see_is_accepted(dtype):
    volume = Volume(RAMP.astype(dtype), GRID)
    require_image(volume)
    swapped = Volume(volume.array_kji[::-1], GRID)
    assert not swapped.take_key(volume.key, volume.checksum)
    assert swapped.key != volume.key
    with pytest.raises(InputError, match="every voxel is 7"):
        require_image(Volume(np.full(SHAPE, 7, dtype), GRID))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_values_that_are_not_finite_are_refused_and_counted(wrong, dtype):
    array = RAMP.astype(dtype)
    array[0, 0, 0] = array[2, 3, 4] = wrong
    with pytest.raises(InputError, match="has 2 values that are not a number or infinite"):
        require_image(Volume(array, GRID))


def test_a_constant_colour_image_is_refused():
    with pytest.raises(InputError, match="constant"):
        require_image(Volume(np.full((*SHAPE, 3), 9, np.uint8), GRID))


@pytest.mark.parametrize("window", [(float("nan"), 40.0), (400.0, float("inf"))])
def test_a_display_window_that_is_no_number_is_refused(window):
    array = np.zeros((2, 3, 4), np.int16)
    with pytest.raises(InputError, match="display window"):
        Volume(array, geometry_from_spacing(array.shape), window_level=window)


TURNS = [
    Turn(axes, is_reversed)
    for axes in itertools.permutations(range(3))
    for is_reversed in itertools.product((False, True), repeat=3)
]


@pytest.mark.parametrize("turn", TURNS)
def test_voxels_stay_where_they_are(turn):
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 1000, (3, 4, 5))
    matrix = np.eye(4)
    matrix[:3] = rng.normal(size=(3, 4))
    geometry = Geometry(matrix, stored.shape)
    turned, place = turn.turn(stored), turn.geometry(geometry)
    assert turned.shape == place.shape_kji
    assert np.array_equal(turn.turn_back(turned), stored)
    for voxel in np.ndindex(turned.shape):
        there = geometry.nearest_voxel(place.to_ras(voxel[::-1]))[::-1]
        assert stored[tuple(there)] == turned[voxel]


@given(geometries())
def test_what_is_turned_needs_no_turn(geometry):
    turned = towards_ras(geometry).geometry(geometry)
    assert towards_ras(turned) == Turn()
    assert sorted(turned.shape_kji) == sorted(geometry.shape_kji)
    assert np.allclose(turned.voxel_volume_mm3, geometry.voxel_volume_mm3)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (0.3, -0.2, 0.1)])
def test_a_grid_is_turned_back_to_what_it_was_made_of(turn, angles):
    """Every orientation that there is, straight and oblique: permuted and flipped from a grid along RAS."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(angles) * (0.7, 0.8, 2.5)
    ras = Geometry(matrix, (6, 7, 8))
    stored = turn.geometry(ras)
    found = towards_ras(stored)
    assert found.geometry(stored).shape_kji == (6, 7, 8)
    assert np.allclose(found.geometry(stored).ijk_to_ras, matrix)


@given(geometries())
def test_the_rule_is_nibabels(geometry):
    orientations = pytest.importorskip("nibabel.orientations", reason="the package nibabel is absent")
    wanted = orientations.io_orientation(geometry.ijk_to_ras)
    turn = towards_ras(geometry)
    for axis, (towards, sign) in enumerate(wanted):
        assert turn.axes[2 - int(towards)] == 2 - axis
        assert turn.is_reversed[2 - int(towards)] == (sign < 0)
