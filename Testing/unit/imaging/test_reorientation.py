import itertools

import numpy as np
import pytest
from hypothesis import given

from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Turn, towards_ras
from Testing.unit.strategies import geometries, rotation

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
