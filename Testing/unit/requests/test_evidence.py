import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.geometry import AXES, array_axis, geometry_from_spacing
from FoundationSegLib.requests.classification import Frame, slice_count, slice_frame, square
from FoundationSegLib.requests.classification_answer import EvidenceMap
from Testing.unit.strategies import geometries


def made(values, frame, axis="k", slices=None):
    values = np.asarray(values, np.float32)
    return EvidenceMap("Nodule", "similarity", axis, tuple(slices or range(len(values))), frame, values)


@given(geometries(), st.sampled_from(AXES), st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_painting_is_interpolation_between_the_middles_of_cells(geometry, axis, rows, columns, seed):
    rng = np.random.default_rng(seed)
    frame = square(slice_frame(geometry, axis), geometry, axis)
    if max(frame.shape) > 500:
        return
    count = slice_count(geometry, axis)
    index = int(rng.integers(count))
    evidence = made(rng.normal(size=(1, rows, columns)), frame, axis, [index])
    box, painted = evidence.paint(geometry)
    place = array_axis(axis)
    assert box.shape_kji == tuple(1 if n == place else size for n, size in enumerate(geometry.shape_kji))
    assert box.start_kji[place] == index
    plane = painted.take(0, axis=place)
    assert evidence.values.min() - 1e-5 <= plane.min() and plane.max() <= evidence.values.max() + 1e-5
    grid = evidence.values[0].astype(np.float64)
    for r, c in zip(rng.integers(plane.shape[0], size=5), rng.integers(plane.shape[1], size=5), strict=True):
        y = (r + 0.5 - frame.rows[0]) / (frame.shape[0] / rows) - 0.5
        x = (c + 0.5 - frame.columns[0]) / (frame.shape[1] / columns) - 0.5
        along = [np.interp(x, range(columns), row) for row in grid]
        assert plane[r, c] == pytest.approx(np.interp(y, range(rows), along), abs=1e-4)


def test_slices_between_hold_nothing():
    geometry = geometry_from_spacing((6, 4, 4))
    evidence = made([[[2.0]], [[3.0]]], Frame((0, 4), (0, 4)), slices=[1, 4])
    box, painted = evidence.paint(geometry)
    assert (box.start_kji, box.stop_kji) == ((1, 0, 0), (5, 4, 4))
    assert [float(plane.max()) for plane in painted] == [2, 2, 2, 3]


def test_a_frame_that_reaches_out_is_cut():
    geometry = geometry_from_spacing((2, 4, 6))
    evidence = made(np.arange(4.0).reshape(1, 2, 2), Frame((-2, 6), (-1, 7)), slices=[1])
    box, painted = evidence.paint(geometry)
    assert (box.start_kji, box.stop_kji) == ((1, 0, 0), (2, 4, 6))
    assert painted[0, 0, 0] < painted[0, -1, -1]


def test_the_threshold_is_between_the_middle_and_the_highest():
    geometry = geometry_from_spacing((1, 8, 8))
    values = np.zeros((1, 4, 4))
    values[0, 2, 1] = 1
    evidence = made(values, Frame((0, 8), (0, 8)))
    assert evidence.threshold(0.5) == 0.5 and evidence.threshold(0) == 0 and evidence.threshold(1) == 1
    _, mask = evidence.mask(geometry)
    rows, columns = np.nonzero(mask[0])
    assert (set(rows), set(columns)) == ({4, 5}, {2, 3})
    with pytest.raises(InputError):
        evidence.threshold(1.5)


def test_flat_evidence_is_no_segment():
    _, mask = made(np.ones((1, 3, 3)), Frame((0, 5), (0, 5))).mask(geometry_from_spacing((1, 5, 5)))
    assert not mask.any()


@pytest.mark.parametrize("values", [np.zeros((2, 3, 3)), np.zeros((1, 0, 3)), np.zeros((1, 3)), [[[np.nan]]]])
def test_values_that_are_none_are_refused(values):
    with pytest.raises(InputError):
        made(values, Frame((0, 5), (0, 5)), slices=[0])
