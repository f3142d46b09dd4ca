import json
from dataclasses import replace

import numpy as np
import pytest

from FoundationSegLib import __version__
from FoundationSegLib.commands.results import build_segmentation
from FoundationSegLib.commands.segment_report import ResultOptions
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.masks import EMPTY_MASK, pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml import segment_tags
from FoundationSegLib.mrml.files import read_segmentation
from FoundationSegLib.mrml.scene import boot_scene
from FoundationSegLib.prompts.kinds import BoxPrompt, PromptSet, SegmentPrompts
from FoundationSegLib.prompts.prompts_file import parse_prompts
from FoundationSegLib.requests.segmentation import CheckpointRecord, Prediction, SegmentPrediction
from Testing.unit.commands.conftest import BLOCKS, SHAPE, block_mask, ct_array

OBLIQUE = np.array([[0.0, -2.0, 0.0, 5.0], [0.8, 0.0, 1.8, -7.0], [0.6, 0.0, -2.4, 9.0], [0.0, 0.0, 0.0, 1.0]])
PREDICTION = Prediction(
    request_id=0,
    segments=(SegmentPrediction(EMPTY_MASK, 0.66666),),
    intensity={"policy": "auto", "rule": "percentile", "low": -160.0, "high": 240.0},
    checkpoint=CheckpointRecord("fake", "fake-wheel", "1.0", "ab" * 32),
    device="cpu",
    precision="float32",
)


def build(masks, overlap="allow", **fields):
    """The result for segments with these names and masks, and the prompts that it says they came from."""
    volume = Volume(ct_array(), Geometry(OBLIQUE, SHAPE), name="ct", **fields)
    box = BoxPrompt(((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    prompts = PromptSet(tuple(SegmentPrompts(name, (box,)) for name in masks), "ijk")
    found = tuple(SegmentPrediction(pack_mask(mask), 0.66666) for mask in masks.values())
    return build_segmentation(
        volume, prompts, replace(PREDICTION, segments=found), ResultOptions("key", overlap=overlap)
    ), prompts


def blocks(*more):
    return {name: block_mask(name) for name in BLOCKS} | dict(more)


@pytest.mark.parametrize(
    ("fields", "has_volume"), [({}, True), ({"in_pixels": True}, False), ({"sides": ("L", "I")}, False)]
)
def test_what_has_no_depth_has_no_millilitres(fields, has_volume):
    """As a picture, or an X-ray, whatever its millimetres."""
    row = build(blocks(), **fields)[0].segments[0]
    assert row["voxels"] == block_mask(row["name"]).sum() and (row["volume_ml"] is not None) == has_volume


def test_every_segment_says_where_it_came_from(tmp_path):
    result, prompts = build(blocks(('Körper | a:b\\n"c" 影', np.ones(SHAPE, bool))))
    result.writer(tmp_path / "a.seg.nrrd")(tmp_path / "a.seg.nrrd")
    headless = boot_scene()
    segmentation = read_segmentation(headless.scene, tmp_path / "a.seg.nrrd").GetSegmentation()
    assert segmentation.GetNumberOfSegments() == 3
    for n, segment in enumerate(prompts.segments):
        stored = segmentation.GetNthSegment(n)
        assert stored.GetName() == segment.name
        assert segment_tags.read_tag(stored, "DICOM.SegmentAlgorithmType") == "SEMIAUTOMATIC"
        assert segment_tags.read_tag(stored, "DICOM.SegmentAlgorithmName").startswith("fake 1.0 (FoundationSeg ")
        provenance = segment_tags.provenance(stored)
        assert parse_prompts(json.loads(provenance.pop("Prompts"))) == PromptSet((segment,), "ijk")
        assert json.loads(provenance.pop("Intensity")) == PREDICTION.intensity
        options = json.loads(provenance.pop("Options"))
        assert (options["device"], options["precision"], options["overlap"]) == ("cpu", "float32", "allow")
        assert options["propagation"] is None and options["box_rule"] == "surest"
        assert provenance == {
            "Model": "fake",
            "Repository": "fake-wheel",
            "Revision": "1.0",
            "SHA256": "ab" * 32,
            "Version": __version__,
        }
