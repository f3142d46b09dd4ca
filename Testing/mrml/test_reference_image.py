"""Whose image a segmentation belongs to: prompts on one image never go into another one's without an explicit yes."""

import numpy as np
import pytest

from FoundationSegLib.api_nodes import NodeSession, make_segmentation, propagate_node, segment_node
from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.prompt_nodes import prompt_nodes
from FoundationSegLib.mrml.volumes import add_volume_node, belongs_to, own_segmentation, reference_image
from FoundationSegLib.prompts.kinds import PointPrompt
from FoundationSegLib.session.segments import next_segment
from FoundationSegLib.worker.client import InlineClient
from Testing.mrml.conftest import AWKWARD
from Testing.mrml.controller_cases import make_controller, run
from Testing.unit.session.session_cases import SLICES
from Testing.unit.test_api import FakeEngine

POINT = PointPrompt(tuple(AWKWARD.to_ras((4, 3, 2)).tolist()), plane="k")


@pytest.fixture
def copy_node(scene):
    """Another image on the very same lattice."""
    voxels = np.arange(6 * 7 * 8, dtype=np.int16).reshape(AWKWARD.shape_kji)[::-1].copy()
    return add_volume_node(scene, Volume(voxels, AWKWARD, name="MR"))


@pytest.fixture
def worked(volume_node):
    """A desk, with a segment on the first image."""
    node = make_segmentation(volume_node)
    desk, client, ticks = make_controller(volume_node, node)
    desk.add_prompt(POINT)
    run(desk, ticks)
    yield desk, client, ticks, node
    desk.close()


def markups(node):
    return [one for _, one in prompt_nodes(node)]


def is_visible(node):
    return [bool(one.GetDisplayVisibility()) for one in (node, *markups(node))]


def test_the_same_lattice_is_not_the_same_image(worked, volume_node, copy_node):
    desk, client, _ticks, node = worked
    key, asked = desk.segment_id, len(client.asked)
    before = desk.session.read(key)
    desk.use(copy_node, node)
    with pytest.raises(InputError, match=r"belongs to the image 'CT', not to 'MR': choose"):
        desk.add_prompt(POINT)
    assert len(client.asked) == asked and len(markups(node)) == 1 and node.GetSegmentation().GetNumberOfSegments() == 1
    assert reference_image(node) is volume_node and desk.is_foreign
    desk.use(volume_node, node)
    assert np.array_equal(desk.open().read(key), before)


def test_an_explicit_yes_goes_on(worked, volume_node, copy_node):
    """For a copy: the segmentation is the copy's from then on."""
    desk, _client, ticks, node = worked
    desk.use(copy_node, node)
    desk.allow_foreign()
    desk.add_prompt(POINT)
    run(desk, ticks)
    assert node.GetSegmentation().GetNumberOfSegments() == 2 and reference_image(node) is copy_node
    desk.use(volume_node, node)
    with pytest.raises(InputError, match="belongs to the image 'MR'"):
        desk.add_prompt(POINT)
    desk.use(copy_node, node)
    desk.add_prompt(POINT)


def test_the_yes_is_for_these_two_nodes_alone(worked, copy_node):
    desk, _client, _ticks, node = worked
    desk.use(copy_node, node)
    desk.allow_foreign()
    desk.use(copy_node, None)
    desk.use(copy_node, node)
    with pytest.raises(InputError, match="belongs to"):
        desk.open()


def test_masks_and_prompts_of_other_images_are_hidden_meanwhile(worked, volume_node, copy_node):
    desk, _client, ticks, node = worked
    by_hand = make_segmentation(volume_node)
    by_hand.SetDisplayVisibility(False)
    other = make_segmentation(copy_node)
    desk.use(copy_node, other)
    assert is_visible(node) == [False, False] and is_visible(other) == [True]
    desk.add_prompt(POINT)
    run(desk, ticks)
    desk.use(volume_node, node)
    assert is_visible(node) == [True, True] and is_visible(other) == [False, False]
    assert is_visible(by_hand) == [False], "what the user has hidden stays hidden"
    desk.close()
    assert is_visible(node) == is_visible(other) == [True, True] and is_visible(by_hand) == [False]


def test_an_image_has_its_own(worked, scene, volume_node, copy_node):
    desk, _client, _ticks, node = worked
    assert desk.own_segmentation(volume_node) is node and desk.own_segmentation(copy_node) is None
    newer = make_segmentation(volume_node)
    assert own_segmentation(volume_node) is newer and desk.own_segmentation(volume_node) is node
    free = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert belongs_to(free, volume_node) and belongs_to(free, copy_node)
    scene.RemoveNode(volume_node)
    assert belongs_to(newer, copy_node), "its image was deleted"


PROMPTS = {
    "version": 1,
    "space": "ijk",
    "segments": [{"name": "Lesion", "prompts": [{"type": "point", "position": [4, 3, 2]}]}],
}


@pytest.mark.parametrize("call", ["segment", "session", "propagate"])
def test_scripts_say_so_explicitly(worked, copy_node, call, script_client):
    node = worked[3]
    calls = {
        "segment": lambda **more: segment_node(copy_node, PROMPTS, script_client, SLICES, node, **more),
        "session": lambda **more: NodeSession(copy_node, node, script_client, SLICES, **more).close(),
        "propagate": lambda **more: propagate_node(copy_node, node, "Segment", script_client, SLICES, **more),
    }
    worked[0].leave()
    with pytest.raises(InputError, match="belongs to the image 'CT'"):
        calls[call]()
    calls[call](allow_foreign=True)
    assert reference_image(node) is copy_node


@pytest.fixture
def script_client():
    return InlineClient(FakeEngine())


def test_a_free_segmentation_is_taken_and_belongs_then(scene, volume_node, copy_node, script_client):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    with NodeSession(volume_node, node, script_client, SLICES) as session:
        next_segment(session, "Liver").add(POINT)
    assert reference_image(node) is volume_node
    with pytest.raises(InputError, match="belongs to"):
        NodeSession(copy_node, node, script_client, SLICES)
