import json

import pytest

from FoundationSegLib.api_nodes import NodeSession, make_segmentation, propagate_node, segment_node, uncertainty_node
from FoundationSegLib.errors import InferenceError, InputError, PromptError
from FoundationSegLib.mrml.classification import comparable_images
from FoundationSegLib.prompts.kinds import BoxPrompt, PointPrompt
from FoundationSegLib.requests.segmentation import Propagation
from FoundationSegLib.session.segments import new_segment
from FoundationSegLib.session.steps import ModelChoice
from FoundationSegLib.worker.client import InlineClient
from Testing.unit.session.session_cases import SLICES
from Testing.unit.test_api import FakeEngine

PROMPTS = {
    "version": 1,
    "space": "ijk",
    "segments": [{"name": "Liver", "prompts": [{"type": "box", "corners": [[1, 1, 2], [4, 3, 2]]}]}],
}


@pytest.fixture
def client():
    return InlineClient(FakeEngine())


def names(node):
    segmentation = node.GetSegmentation()
    return [segmentation.GetSegment(key).GetName() for key in segmentation.GetSegmentIDs()]


def voxels(node, volume_node, name, client, model=SLICES):
    opened = NodeSession(volume_node, node, client, model)
    with opened as session:
        return int(session.read(opened.segment(name).segment_id).sum())


@pytest.mark.parametrize("form", ["document", "file"])
def test_prompts_become_a_segmentation(volume_node, client, tmp_path, form):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(PROMPTS))
    node = segment_node(volume_node, PROMPTS if form == "document" else path, client, SLICES)
    assert node.GetName() == "CT segmentation" and names(node) == ["Liver"]
    assert voxels(node, volume_node, "Liver", client) == 12
    assert not client.engine.volumes, "the image is let go"


def test_a_failure_leaves_nothing_behind(scene, volume_node):
    before = scene.GetNumberOfNodes()
    with pytest.raises(InferenceError):
        segment_node(volume_node, PROMPTS, InlineClient(FakeEngine(InferenceError("no memory"))), SLICES)
    with pytest.raises(PromptError):
        segment_node(volume_node, {"version": 1, "segments": []}, InlineClient(FakeEngine()), SLICES)
    assert scene.GetNumberOfNodes() == before


def test_an_existing_segmentation_is_gone_on_with(volume_node, client):
    node = segment_node(volume_node, PROMPTS, client, SLICES)
    assert segment_node(volume_node, PROMPTS, client, SLICES, node) is node
    with NodeSession(volume_node, node, client, SLICES) as session:
        second = new_segment(session, "Second")
        position = tuple(session.volume.geometry.to_ras((6, 5, 4)).tolist())
        second.add(PointPrompt(position, plane="k"))
        assert len(second.prompts) == 1
        second.session.undo(second.segment_id)
    assert names(node) == ["Liver", "Second"]


def test_propagation_by_name(volume_node, client):
    node = segment_node(volume_node, PROMPTS, client, SLICES)
    propagate_node(volume_node, node, "Liver", client, SLICES, Propagation(1, 4))
    assert voxels(node, volume_node, "Liver", client) == 36
    with pytest.raises(InputError, match="0 segments"):
        propagate_node(volume_node, node, "Spleen", client, SLICES)


def test_a_map_of_uncertainty_is_a_volume_with_its_true_range(scene, volume_node, client):
    node = segment_node(volume_node, PROMPTS, client, SLICES)
    before = voxels(node, volume_node, "Liver", client)
    uncertain = uncertainty_node(volume_node, node, "Liver", client, SLICES)
    display, low_high = uncertain.GetDisplayNode(), uncertain.GetImageData().GetScalarRange()
    assert uncertain.IsA("vtkMRMLScalarVolumeNode") and uncertain.GetName() == "CT: uncertainty of Liver"
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 1) and 0 <= low_high[0] < low_high[1] <= 1
    assert uncertain.GetImageData().GetScalarTypeAsString() == "float"
    assert comparable_images(volume_node) == [], "a map is no earlier image"
    assert not client.engine.volumes and voxels(node, volume_node, "Liver", client) == before


def test_prompts_are_markups_with_the_segmentation(scene, volume_node, client):
    node = make_segmentation(volume_node)
    with NodeSession(volume_node, node, client, ModelChoice("fake")) as session:
        corners = tuple(tuple(session.volume.geometry.to_ras(place).tolist()) for place in ((1, 1, 2), (4, 3, 2)))
        new_segment(session, "Liver").add(BoxPrompt(corners))
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsNode") == 1
