import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.imaging.geometry import AXES, Box, geometry_from_spacing
from FoundationSegLib.requests.classification import Frame, frame_of, slice_count, slice_frame, square, widened
from Testing.unit.strategies import geometries

LINES = st.tuples(st.integers(-9, 20), st.integers(1, 20)).map(lambda pair: (pair[0], pair[0] + pair[1]))
FRAMES = st.builds(Frame, LINES, LINES)


@given(FRAMES, FRAMES, st.booleans())
def test_a_cut_shows_what_is_inside_and_black_elsewhere(frame, inside, is_colour):
    shape = (12, 15, 3) if is_colour else (12, 15)
    plane = np.random.default_rng(0).integers(1, 255, shape).astype(np.uint8)
    cut = frame.cut(plane, inside)
    assert cut.shape == (*frame.shape, *shape[2:])
    for row in range(frame.shape[0]):
        for column in range(frame.shape[1]):
            r, c = frame.rows[0] + row, frame.columns[0] + column
            is_seen = (
                0 <= r < 12
                and 0 <= c < 15
                and inside.rows[0] <= r < inside.rows[1]
                and inside.columns[0] <= c < inside.columns[1]
            )
            assert np.array_equal(cut[row, column], plane[r, c] if is_seen else np.zeros(shape[2:]))


def test_a_box_covers_rows_and_columns_in_array_order():
    box = Box((1, 2, 3), (4, 6, 8))
    assert frame_of(box, "k") == Frame((2, 6), (3, 8))
    assert frame_of(box, "j") == Frame((1, 4), (3, 8))
    assert frame_of(box, "i") == Frame((1, 4), (2, 6))


@given(geometries(), st.sampled_from(AXES))
def test_a_square_is_one_in_millimetres_and_holds_the_frame(geometry, axis):
    frame = slice_frame(geometry, axis)
    found = square(frame, geometry, axis)
    assert found.rows[0] <= 0 and found.rows[1] >= frame.rows[1]
    assert found.columns[0] <= 0 and found.columns[1] >= frame.columns[1]
    spacing = [mm for name, mm in zip("kji", geometry.spacing_mm[::-1], strict=True) if name != axis]
    sides = [count * mm for count, mm in zip(found.shape, spacing, strict=True)]
    if max(found.shape) < 8192:
        assert abs(sides[0] - sides[1]) <= max(spacing) / 2 + 1e-6
    margins = [
        (-line[0], line[1] - there[1]) for line, there in ((found.rows, frame.rows), (found.columns, frame.columns))
    ]
    assert all(0 <= after - before <= 1 for before, after in margins)
    assert slice_count(geometry, axis) == geometry.shape_kji["kji".index(axis)]


def test_a_grid_of_needles_needs_no_memory():
    geometry = geometry_from_spacing((3, 500, 2), (1e-3, 100.0, 1.0))
    assert max(square(slice_frame(geometry, "k"), geometry, "k").shape) <= 8192


def test_a_margin_is_a_part_of_the_longer_side():
    assert widened(Frame((10, 20), (0, 40)), 0.1) == Frame((6, 24), (-4, 44))
    assert widened(Frame((0, 2), (0, 2)), 0.1) == Frame((-1, 3), (-1, 3))
    assert widened(Frame((0, 2), (0, 2)), 0) == Frame((0, 2), (0, 2))
