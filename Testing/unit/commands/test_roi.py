import argparse
import json

import numpy as np
import pytest

from FoundationSegLib.commands.roi import Roi, roi_argument
from FoundationSegLib.imaging.geometry import Box, geometry_from_spacing
from FoundationSegLib.io.segmentations import read_mask_prompt
from FoundationSegLib.prompts.kinds import PointPrompt, PromptSet, SegmentPrompts
from Testing.unit.commands.conftest import block_mask

GEOMETRY = geometry_from_spacing((6, 10, 12), (1.0, 1.0, 2.0))
PROMPTS = PromptSet((SegmentPrompts("A", (PointPrompt((5.0, 4.0, 4.0)),)),))


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
def test_what_a_region_means(text, box):
    assert roi_argument(text).box(PROMPTS, GEOMETRY) == box


@pytest.mark.parametrize(
    "text", ["", "1:2", "1:2,3:4", "1:2,3:4,5", "prompts:0", "prompts:-2", "a:b,1:2,3:4", "1:2,3:4,5:6,7:8"]
)
def test_what_is_no_region(text):
    with pytest.raises(argparse.ArgumentTypeError):
        roi_argument(text)


def test_ranges_are_those_of_i_j_and_k():
    assert roi_argument("1:2,3:,:6") == Roi(((1, 2), (3, None), (None, 6)))


def test_the_model_sees_no_more_and_the_report_says_so(desk):
    report = desk.folder / "report.json"
    document = desk.document("Left")
    assert desk.segment(prompts=desk.write_prompts(document), roi="0:4,:,2:4", report=report) == 0, desk.err
    wanted = np.zeros_like(block_mask("Left"))
    wanted[2:4, :, :4] = block_mask("Left")[2:4, :, :4]
    assert np.array_equal(read_mask_prompt(desk.output, "Left")[0], wanted)
    assert {image.shape for image in desk.model.encoded} == {(10, 4)}
    notes = json.loads(report.read_text())["notes"]
    assert "the model saw the region i 0:4, j 0:10, k 2:4 only" in notes


def test_around_the_prompts(desk):
    assert desk.segment(prompts=desk.write_prompts(desk.document("Right")), roi="prompts:1") == 0, desk.err
    assert np.array_equal(read_mask_prompt(desk.output, "Right")[0], block_mask("Right"))
    assert {image.shape for image in desk.model.encoded} == {(9, 7)}


@pytest.mark.parametrize(
    ("roi", "told"),
    [("20:30,:,:", "lies outside the image"), ("8:12,:,:", "segments[0].prompts[0].corners: lies wholly outside")],
)
def test_a_region_with_nothing_in_it_is_refused(desk, roi, told):
    desk.segment(roi=roi)
    desk.assert_refused(2, told)


def test_a_region_that_is_none_is_refused(desk):
    desk.segment(roi="2:4")
    desk.assert_refused(2, "--roi")
