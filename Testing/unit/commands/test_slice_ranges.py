"""Ranges of slices and boxes, as they are typed."""

import argparse

import pytest

from FoundationSegLib.commands.slice_ranges import box_of, box_ranges, slice_range, slices_argument
from FoundationSegLib.imaging.geometry import Box, geometry_from_spacing


def test_a_range_may_be_open():
    assert [slice_range(text) for text in ("2:5", "2:", ":5", ":")] == [(2, 5), (2, None), (None, 5), (None, None)]


def test_slices_are_all_of_them_one_or_a_range():
    texts = ("all", "0", "7", "2:5", ":5")
    assert [slices_argument(text) for text in texts] == [(None, None), (0, 1), (7, 8), (2, 5), (None, 5)]


@pytest.mark.parametrize("text", ["", "a", "-1", "1:2:3", "1-2", "9" * 5000])
def test_what_is_neither(text):
    with pytest.raises(argparse.ArgumentTypeError, match="neither all, nor a number"):
        slices_argument(text)


def test_a_box_is_of_i_j_and_k_and_may_reach_out():
    geometry = geometry_from_spacing((6, 10, 12), (1.0, 1.0, 2.0))
    assert box_of(box_ranges("1:4,:,5:99"), geometry) == Box((5, 0, 1), (99, 10, 4))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1:2", "is not of the form"),
        ("1:2,3:4,5:6,7:8", "is not of the form"),
        ("1:2,:,a:", "is not of the form"),
        ("1:2,:,5:5", "no voxel from 5 to before 5"),
        ("1:2,:0,:", "no voxel from 0 to before 0"),
    ],
)
def test_what_is_no_box(text, told):
    with pytest.raises(argparse.ArgumentTypeError, match=told):
        box_ranges(text)
