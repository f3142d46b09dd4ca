import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from FoundationSegLib.engine.hand_over import choose_hand_over, handed_over, inner_points
from FoundationSegLib.errors import InputError
from FoundationSegLib.models.protocols import SliceMask, SlicePrompt
from Testing.unit.fakes import FakeModel

BLOCK = np.zeros((9, 12), bool)
BLOCK[2:7, 3:10] = True


@pytest.mark.parametrize(
    ("wanted", "prompts", "way"),
    [
        ("auto", ("point", "box", "mask"), "box"),
        ("auto", ("point", "mask"), "mask"),
        ("auto", ("point", "text"), "points"),
        ("mask", ("point", "box", "mask"), "mask"),
        ("points", ("point", "box"), "points"),
    ],
)
def test_the_first_way_that_the_model_understands_is_taken(wanted, prompts, way):
    assert choose_hand_over(wanted, prompts) == way


def test_a_model_without_prompts_on_slices_has_no_way():
    for wanted in ("auto", "box"):
        with pytest.raises(InputError):
            choose_hand_over(wanted, ("text", "class"))


def test_each_way_says_what_the_mask_says():
    model = FakeModel()
    assert handed_over(model, BLOCK, "box") == SlicePrompt((2, 1, 10, 7))
    assert handed_over(model, BLOCK, "box", 2) == SlicePrompt((0, -1, 12, 9))
    assert handed_over(model, BLOCK, "mask") == SlicePrompt(mask=SliceMask.pack(BLOCK))
    assert handed_over(model, BLOCK, "points").points[0].y == 4
    for way in ("box", "mask", "points"):
        assert handed_over(model, np.zeros_like(BLOCK), way) is None


def test_small_parts_get_no_point_and_the_largest_comes_first():
    mask = BLOCK.copy()
    mask[0, 11] = True
    assert len(inner_points(mask)) == 1
    mask[8, 0:4] = True
    assert [(point.y > 7) for point in inner_points(mask)] == [False, True]
    (middle,) = inner_points(np.ones((5, 7), bool))
    assert middle.y == 2 and 2 <= middle.x <= 4, "beyond the slice counts as outside"


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(np.any))
def test_points_lie_inside_the_mask(mask):
    points = inner_points(mask)
    assert points
    for point in points:
        assert mask[int(point.y), int(point.x)]
        assert point.positive
