"""Ranges of slices, boxes, and the region that a model sees, as they are typed."""

import argparse
import json

import numpy as np
import pytest

from FoundationSegLib.commands.arguments import box_ranges, roi_argument, slice_range, slices_argument
from FoundationSegLib.imaging.geometry import Box, geometry_from_spacing
from FoundationSegLib.io.segmentations import read_mask_prompt
from FoundationSegLib.prompts.kinds import PointPrompt, PromptSet, SegmentPrompts
from Testing.unit.commands.conftest import block_mask

GEOMETRY = geometry_from_spacing((6, 10, 12), (1.0, 1.0, 2.0))
PROMPTS = PromptSet((SegmentPrompts("A", (PointPrompt((5.0, 4.0, 4.0)),)),))


def test_slices_are_all_of_them_one_or_a_range():
    assert [slice_range(text) for text in ("2:5", "2:", ":5", ":")] == [(2, 5), (2, None), (None, 5), (None, None)]
    texts = ("all", "0", "7", "2:5", ":5")
    assert [slices_argument(text) for text in texts] == [(None, None), (0, 1), (7, 8), (2, 5), (None, 5)]


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("2:5,0:4,1:3", Box((1, 0, 2), (3, 4, 5))),
        (":5,4:,:", Box((0, 4, 0), (6, 10, 5))),
        ("2:99,0:4,1:3", Box((1, 0, 2), (3, 4, 12))),
        ("prompts:2", Box((1, 2, 3), (4, 7, 8))),
        ("prompts", GEOMETRY.box),
    ],
)
def test_a_region_means_a_box_of_the_image(text, box):
    assert roi_argument(text).box(PROMPTS, GEOMETRY) == box


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        *((slices_argument, text, "neither all, nor a number") for text in ("", "a", "-1", "1:2:3", "1-2", "9" * 5000)),
        *((box_ranges, text, "is not of the form") for text in ("", "1:2", "1:2,3:4,5:6,7:8", "1:2,:,a:", "1:2,3:4,5")),
        (box_ranges, "1:2,:,5:5", "the range 5:5 holds no voxel"),
        (box_ranges, "1:2,:0,:", "the range 0:0 holds no voxel"),
        (roi_argument, "1:2,3:4", "or prompts:MM"),
        (roi_argument, "prompts:0", "above 0 mm"),
        (roi_argument, "prompts:-2", "or prompts:MM"),
    ],
)
def test_what_cannot_be_parsed_is_explained(parse, text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        parse(text)


def test_the_model_sees_no_more_than_the_region_and_the_report_says_so(desk):
    report = desk.folder / "report.json"
    assert desk.segment(prompts=desk.write_prompts(desk.document("Left")), roi="0:4,:,2:4", report=report) == 0
    inside = np.zeros_like(block_mask("Left"))
    inside[2:4, :, :4] = block_mask("Left")[2:4, :, :4]
    assert np.array_equal(read_mask_prompt(desk.output, "Left")[0], inside)
    assert {image.shape for image in desk.model.encoded} == {(10, 4)}
    assert (
        "the model saw the region i 0:4, j 0:10, k 2:4 only" in json.loads(report.read_text(encoding="utf-8"))["notes"]
    )
    desk.model.encoded.clear()
    assert desk.segment(prompts=desk.write_prompts(desk.document("Right")), roi="prompts:1") == 0, desk.err
    assert np.array_equal(read_mask_prompt(desk.output, "Right")[0], block_mask("Right"))
    assert {image.shape for image in desk.model.encoded} == {(9, 7)}


@pytest.mark.parametrize(
    ("roi", "message"),
    [
        ("20:30,:,:", "lies outside the image"),
        ("8:12,:,:", "segments[0].prompts[0].corners: the prompt lies wholly outside"),
        ("2:4", "--roi"),
    ],
)
def test_a_region_with_nothing_in_it_is_refused(desk, roi, message):
    desk.segment(roi=roi)
    desk.assert_refused(2, message)
