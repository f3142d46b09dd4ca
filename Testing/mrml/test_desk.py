"""What a panel does, without the panel: sessions open and end with their nodes, and nothing is written late."""

import numpy as np
import pytest
import vtk

from FoundationSegLib.desk_actions import add_segment, give, lock
from FoundationSegLib.errors import GeometryError, InputError
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.prompt_records import read_record
from FoundationSegLib.mrml.volumes import add_volume_node
from FoundationSegLib.prompts.kinds import PointPrompt, SegmentPrompts
from FoundationSegLib.requests.segmentation import PredictRequest
from FoundationSegLib.session.segment_store import OverlapPolicy, Refused, SegmentEdited
from FoundationSegLib.worker.protocol import Answered
from Testing.mrml.desk_client import make_desk, run


def centre(node):
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return PointPrompt(matrix.MultiplyPoint((4, 3, 2, 1))[:3], plane="k")


def segment_of(node):
    return [node.GetSegmentation().GetSegment(key) for key in node.GetSegmentation().GetSegmentIDs()]


@pytest.fixture
def desk(volume_node, segmentation_node):
    made, _client, _ticks = made_all = make_desk(volume_node, segmentation_node)
    yield made_all
    made.close()


def test_nothing_is_opened_before_it_is_needed(desk):
    made, client, ticks = desk
    assert made.session is None and not client.volumes and not ticks.runs


def test_a_prompt_becomes_a_segment(desk, volume_node, segmentation_node):
    made, _client, ticks = desk
    give(made, centre(volume_node))
    assert made.is_busy and ticks.runs
    run(made, ticks)
    assert not made.is_busy and isinstance(made.outcome, SegmentEdited) and made.answer_s is not None
    (segment,) = segment_of(segmentation_node)
    assert segment.GetName() == "Segment"
    voxels = made.session.read(made.segment_id)
    assert voxels.sum() == 25
    assert {"busy", "outcome", "segments"} <= set(ticks.told)


def test_progress_is_known_while_it_lasts(volume_node, segmentation_node):
    made, client, ticks = make_desk(volume_node, segmentation_node, is_slow=True)
    give(made, centre(volume_node))
    made.tick()
    assert (made.report.stage, made.report.done, made.report.total) == ("encode", 1, 3)
    client.reply()
    run(made, ticks)
    assert made.report is None
    made.close()


@pytest.mark.parametrize("which", ["volume", "segmentation", "scene"])
def test_nodes_that_go_while_a_request_is_out(scene, volume_node, segmentation_node, which):
    made, _client, ticks = make_desk(volume_node, segmentation_node, is_slow=True)
    give(made, centre(volume_node))
    node = {"volume": volume_node, "segmentation": segmentation_node}.get(which)
    if node is None:
        made.close()
        scene.Clear(0)
    else:
        made.node_removed(node)
        scene.RemoveNode(node)
    nodes = scene.GetNumberOfNodes()
    run(made, ticks)
    assert made.session is None and made.error is None and made.outcome is None
    assert scene.GetNumberOfNodes() == nodes
    if which == "volume":
        assert not segment_of(segmentation_node)


def test_nodes_that_go_unseen_are_noticed_at_the_next_prompt(scene, desk, volume_node, segmentation_node):
    made, _client, ticks = desk
    give(made, centre(volume_node))
    run(made, ticks)
    prompt = centre(volume_node)
    scene.RemoveNode(segmentation_node)
    with pytest.raises(InputError, match=r"deleted|not in"):
        give(made, prompt)


def test_another_segmentation_has_a_session_of_its_own(scene, desk, volume_node, segmentation_node):
    made, client, ticks = desk
    give(made, centre(volume_node))
    run(made, ticks)
    first, keys = made.session, set(client.volumes)
    other = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    made.use(volume_node, other)
    assert made.session is None and set(client.volumes) == keys
    give(made, centre(volume_node))
    run(made, ticks)
    assert made.session is not first
    assert len(segment_of(other)) == len(segment_of(segmentation_node)) == 1
    made.use(volume_node, segmentation_node)
    made.segment_id = segmentation_node.GetSegmentation().GetNthSegmentID(0)
    made.opened()
    record = read_record(segment_of(segmentation_node)[0])
    assert len(record.prompts) == 1 and made.session.steps(made.segment_id)


def test_leaving_a_volume_gives_it_back(desk, volume_node):
    made, client, ticks = desk
    give(made, centre(volume_node))
    run(made, ticks)
    made.use(None, None)
    assert not client.volumes
    with pytest.raises(InputError, match="choose an image"):
        made.opened()


def test_without_a_segmentation_nothing_opens_and_the_model_warms_up(volume_node):
    made, client, ticks = make_desk(volume_node, None)
    made.warm_up()
    assert client.prepared == ["fake"] and len(client.volumes) == 1 and ticks.runs
    with pytest.raises(InputError, match="choose a segmentation"):
        made.opened()
    made.close()
    assert not client.volumes


@pytest.mark.parametrize("voxels", [np.full((4, 5, 6), 7, np.int16), np.full((4, 5, 6), np.nan, np.float32)])
def test_warming_up_leaves_it_to_the_first_prompt_to_refuse_an_image(scene, segmentation_node, voxels):
    node = add_volume_node(scene, Volume(voxels, Geometry(np.eye(4), voxels.shape)))
    made, client, _ticks = make_desk(node, segmentation_node)
    made.warm_up()
    with pytest.raises(InputError, match=r"constant|not a number"):
        give(made, centre(node))
    assert not client.volumes and not client.asked


def test_what_is_chosen_holds_from_the_next_action_on(desk, volume_node):
    made, _client, _ticks = desk
    session = made.opened()
    made.wishes.policy, made.wishes.ask_above = OverlapPolicy.ALLOW, None
    assert session.options.policy is OverlapPolicy.PROTECT
    assert made.opened() is session
    assert session.options.policy is OverlapPolicy.ALLOW and session.options.ask_above is None


def test_an_image_that_cannot_be_used_is_refused_and_nothing_stays_behind(scene, segmentation_node):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    before = scene.GetNumberOfNodes()
    made, client, _ticks = make_desk(node, segmentation_node)
    with pytest.raises((InputError, GeometryError)):
        add_segment(made)
    assert not client.volumes and scene.GetNumberOfNodes() == before and not segment_of(segmentation_node)


def test_a_failure_waits_to_be_asked_again(volume_node, segmentation_node):
    made, client, ticks = make_desk(volume_node, segmentation_node, fails=True)
    give(made, centre(volume_node))
    run(made, ticks)
    assert isinstance(made.outcome, Refused) and not made.is_busy
    client.fails = False
    made.session.retry()
    run(made, ticks)
    assert isinstance(made.outcome, SegmentEdited)
    made.close()


def test_other_questions_have_numbers_of_their_own(desk, volume_node):
    made, client, ticks = desk
    give(made, centre(volume_node))
    run(made, ticks)
    events = []
    volume = made.image()

    def request(number):
        return PredictRequest(number, "fake", volume.key, (SegmentPrompts("A", (centre(volume_node),)),), "auto", None)

    made.ask(request, events.append)
    assert made.is_busy
    run(made, ticks)
    assert not made.is_busy and [type(event) for event in events][-1] is Answered
    assert len({one.request_id for one in client.asked}) == len(client.asked) == 2


def test_a_markup_that_may_not_move_is_put_back_and_told(desk, volume_node):
    made, _client, ticks = desk
    give(made, centre(volume_node))
    run(made, ticks)
    lock(made, True)
    node = made._prompts.scene.node(made.segment_id, "1")
    before = node.GetNthControlPointPosition(0)
    node.SetNthControlPointPosition(0, before[0] + 1, *before[1:])
    assert "locked" in str(made.error) and node.GetNthControlPointPosition(0) == before
    assert ticks.told[-1] == "outcome"
