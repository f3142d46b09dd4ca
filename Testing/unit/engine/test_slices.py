import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.engine.slices import (
    PartOnSlice,
    SliceOrientation,
    StackedBox,
    is_rising,
    place_on_slices,
    prompt_stages,
    radiological,
    stack_slices,
)
from FoundationSegLib.errors import PromptError
from FoundationSegLib.imaging.geometry import AXES, Geometry, array_axis, geometry_from_spacing
from FoundationSegLib.imaging.masks import EMPTY_MASK, pack_mask
from FoundationSegLib.models.protocols import SliceMask, SlicePoint, SlicePrompt
from FoundationSegLib.prompts.kinds import BoxPrompt, MaskPrompt, ObliquePlane, PointPrompt, Polarity, TextPrompt
from Testing.unit.strategies import geometries

STEPS = st.sampled_from((1, -1))
ORIENTATIONS = st.builds(SliceOrientation, st.booleans(), STEPS, STEPS)
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


@pytest.mark.parametrize(("stored", "rising"), [("RAS", "ijk"), ("LPS", "k"), ("LPI", ""), ("SRA", "ijk"), ("ILP", "")])
def test_slice_numbers_rise_to_the_right_the_front_and_the_head(stored, rising):
    assert "".join(axis for axis in AXES if is_rising(geometry_of(stored), axis)) == rising


GRID = geometry_from_spacing((12, 20, 30))
NOT_HERE = Polarity.NEGATIVE


def place(*prompts, geometry=GRID):
    return place_on_slices(prompts, [f"p[{n}]" for n in range(len(prompts))], geometry)[0]


@pytest.mark.parametrize("axis", AXES)
def test_a_box_has_both_corners_inside_and_x_along_the_later_axis(axis):
    placed = place(BoxPrompt(((4.0, 2.0, 1.0), (14.0, 8.0, 5.0)), plane=axis))
    x, y = {"k": ((4, 14), (2, 8)), "j": ((4, 14), (1, 5)), "i": ((2, 8), (1, 5))}[axis]
    slices = {"k": range(1, 6), "j": range(2, 9), "i": range(4, 15)}[axis]
    assert placed.boxes == (StackedBox(axis, slices, (x[0], y[0], x[1], y[1])),)
    assert placed.last == (axis, slices)


@given(geometries(), st.data())
def test_a_click_is_the_voxel_that_it_lies_in_on_every_grid(geometry, data):
    index = tuple(data.draw(st.integers(0, n - 1)) for n in geometry.shape_kji[::-1])
    axis = data.draw(st.sampled_from(AXES))
    position = tuple(geometry.to_ras(index).tolist())
    (part,) = place(PointPrompt(position, plane=axis), geometry=geometry).parts
    seen = np.zeros(geometry.shape_kji)
    seen[index[::-1]] = 1
    a_slice = np.take(seen, part.index, axis=array_axis(axis))
    assert a_slice[int(part.part.y), int(part.part.x)] == 1, "rows by y, columns by x"


def test_a_flat_box_a_click_and_a_mask_are_parts_of_their_slices_in_order():
    seed = np.zeros(GRID.shape_kji, bool)
    seed[3, 4:6, 7:9] = seed[5, 1, 1] = True
    placed = place(
        BoxPrompt(((4.0, 2.0, 3.0), (14.0, 8.0, 3.0))),
        PointPrompt((5.2, 6.4, 7.0), NOT_HERE),
        MaskPrompt("a", "b", voxels=pack_mask(seed)),
    )
    box, point, first, second = placed.parts
    assert box == PartOnSlice("k", 3, (4, 2, 14, 8), "p[0]")
    assert point == PartOnSlice("k", 7, SlicePoint(5.0, 6.0, positive=False), "p[1]")
    assert [(part.index, part.location) for part in (first, second)] == [(3, "p[2]"), (5, "p[2]")]
    assert np.array_equal(first.part.unpack(), seed[3])
    assert placed.last == ("k", range(5, 6))


@pytest.mark.parametrize("axis", AXES)
def test_a_mask_that_is_thin_along_one_axis_lies_on_a_slice_of_it(axis):
    n = array_axis(axis)
    seed = np.zeros(GRID.shape_kji, bool)
    start, stop = [2, 4, 6], [5, 9, 15]
    stop[n] = start[n] + 1
    seed[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    (part,) = place(MaskPrompt("a", "b", voxels=pack_mask(seed))).parts
    assert (part.axis, part.index) == (axis, start[n])
    assert np.array_equal(part.part.unpack(), seed.take(start[n], axis=n))
    seed[tuple(np.minimum(stop, np.subtract(GRID.shape_kji, 1)))] = True
    assert {part.axis for part in place(MaskPrompt("a", "b", voxels=pack_mask(seed))).parts} == {"k"}


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_no_negative_box_or_mask_is_taken_for_a_positive_one(kind):
    """Whatever a card of a user's own says that its model understands."""
    box = BoxPrompt(((4.0, 2.0, 3.0), (14.0, 8.0, 3.0)), NOT_HERE)
    mask = MaskPrompt("a", "b", NOT_HERE, pack_mask(np.ones(GRID.shape_kji, bool)))
    with pytest.raises(PromptError, match=f"a negative {kind} says nothing") as caught:
        place(box if kind == "box" else mask)
    assert caught.value.location == "p[0].polarity"


def test_what_says_nothing_on_a_slice_is_refused():
    with pytest.raises(PromptError, match="says nothing on a slice"):
        place(TextPrompt("liver"))
    with pytest.raises(PromptError, match="oblique"):
        place(PointPrompt((5.0, 6.0, 7.0), plane=ObliquePlane((0.0, 0.0, 0.0), (1.0, 1.0, 0.0), (0.0, 0.0, 1.0))))
    small = geometry_from_spacing((2, 2, 2))
    with pytest.raises(PromptError, match="does not fit"):
        place(MaskPrompt("a", "b", voxels=pack_mask(np.ones((3, 3, 3), bool))), geometry=small)
    with pytest.raises(PromptError, match="is empty"):
        place(MaskPrompt("a", "b", voxels=pack_mask(np.zeros((2, 2, 2), bool))), geometry=small)


def test_a_prompt_grows_part_by_part_from_where_it_can_be_answered():
    yes, no, box = SlicePoint(1.0, 2.0), SlicePoint(3.0, 4.0, positive=False), (0, 0, 5, 5)
    assert prompt_stages([no]) == ()
    assert prompt_stages([no, yes]) == (SlicePrompt(points=(no, yes)),)
    stages = (SlicePrompt(points=(yes,)), SlicePrompt(box, (yes,)), SlicePrompt(box, (yes, no)))
    assert prompt_stages([yes, box, no]) == stages
    mask, other = SliceMask.pack(np.eye(3)), SliceMask.pack(np.eye(3)[::-1])
    both = SliceMask.pack(np.eye(3) + np.eye(3)[::-1])
    assert prompt_stages([mask, other]) == (SlicePrompt(mask=mask), SlicePrompt(mask=both))
    assert prompt_stages([box, (1, 1, 2, 2)])[-1] == SlicePrompt((1, 1, 2, 2))


@given(st.integers(0, 8), st.integers(0, 8))
def test_stacked_slices_leave_the_others_empty(low, high):
    first, last = np.eye(3, dtype=bool), np.ones((3, 3), bool)
    for axis in AXES:
        mask = stack_slices(axis, {low: first, high: last}).expand((9, 9, 9))
        slices = np.moveaxis(mask, array_axis(axis), 0)
        assert {n for n in range(9) if slices[n].any()} == {low, high}
        assert np.array_equal(slices[high][:3, :3], last)
    assert stack_slices("j", {}) == EMPTY_MASK
