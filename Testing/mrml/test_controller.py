from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import slicer
import vtk

from FoundationSegLib.errors import GeometryError, InputError
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.volumes import add_volume_node
from FoundationSegLib.prompts.kinds import BoxPrompt, ClassPrompt, PointPrompt, Polarity, SegmentPrompts, TextPrompt
from FoundationSegLib.prompts.regions import AroundPrompt
from FoundationSegLib.requests.segmentation import PredictRequest, Propagation
from FoundationSegLib.session.segment_store import OverlapPolicy, SegmentEdited
from FoundationSegLib.session.steps import state_of
from FoundationSegLib.worker.protocol import Answered
from Testing.mrml.controller_cases import card_choice, make_controller, run
from Testing.unit.session.session_cases import SEEING


@pytest.fixture
def rig(volume_node, segmentation_node):
    controller, client, timer = make_controller(volume_node, segmentation_node, ask_above=None)
    yield controller, client, timer
    controller.close()


def click(node, i=4, j=3, k=2, polarity=Polarity.POSITIVE):
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return PointPrompt(matrix.MultiplyPoint((i, j, k, 1))[:3], polarity, "k")


def answered(rig, *prompts):
    """Give prompts, one after the other, each with its answer."""
    controller, _client, timer = rig
    for prompt in prompts:
        controller.add_prompt(prompt)
        run(controller, timer)
    return controller


def names(controller):
    return [controller.session.segment_name(key) for key in controller.session.segment_ids]


def segments_of(node):
    return [node.GetSegmentation().GetSegment(key) for key in node.GetSegmentation().GetSegmentIDs()]


def can(controller):
    """The actions that the selected segment allows."""
    session, key = controller.session, controller.segment_id
    kinds = {"undo": session.can_undo(key), "redo": session.can_redo(key), "judge": session.can_reject(key)}
    return {kind for kind, is_possible in kinds.items() if is_possible}


def test_a_prompt_becomes_a_segment(rig, volume_node, segmentation_node):
    controller, _client, timer = rig
    controller.add_prompt(click(volume_node))
    assert controller.is_busy and timer.runs
    run(controller, timer)
    assert not controller.is_busy and isinstance(controller.outcome, SegmentEdited) and controller.answer_s is not None
    (segment,) = segments_of(segmentation_node)
    summary = controller.summary()
    assert segment.GetName() == "Segment" and (summary.voxels, len(summary.prompts)) == (25, 1)
    assert summary.volume_ml == pytest.approx(25 * controller.session.volume.geometry.voxel_volume_mm3 / 1000)
    assert not summary.is_locked and can(controller) == {"undo", "judge"}
    assert {"busy", "outcome", "segments"} <= set(timer.updates)
    controller.accept()
    assert can(controller) == {"undo"}


def test_nodes_that_go_unseen_are_noticed_at_the_next_prompt(scene, rig, volume_node, segmentation_node):
    controller, prompt = answered(rig, click(volume_node)), click(volume_node)
    scene.RemoveNode(segmentation_node)
    with pytest.raises(InputError, match=r"deleted|not in"):
        controller.add_prompt(prompt)


def test_leaving_a_volume_gives_it_back(rig, volume_node):
    controller = answered(rig, click(volume_node))
    controller.use(None, None)
    assert not rig[1].volumes
    with pytest.raises(InputError, match="choose an image"):
        controller.open()


def test_without_a_segmentation_nothing_opens_and_the_model_warms_up(volume_node):
    controller, client, timer = make_controller(volume_node, None)
    controller.warm_up()
    assert client.prepared == ["fake"] and len(client.volumes) == 1 and timer.runs
    with pytest.raises(InputError, match="choose a segmentation"):
        controller.open()
    controller.close()
    assert not client.volumes


@pytest.mark.parametrize("voxels", [np.full((4, 5, 6), 7, np.int16), np.full((4, 5, 6), np.nan, np.float32)])
def test_warming_up_leaves_it_to_the_first_prompt_to_refuse_an_image(scene, segmentation_node, voxels):
    node = add_volume_node(scene, Volume(voxels, Geometry(np.eye(4), voxels.shape)))
    controller, client, _timer = make_controller(node, segmentation_node)
    controller.warm_up()
    with pytest.raises(InputError, match=r"constant|not a number"):
        controller.add_prompt(click(node))
    assert not client.volumes and not client.asked


def test_options_hold_from_the_next_action_on(rig):
    controller = rig[0]
    session = controller.open()
    controller.options = replace(controller.options, policy=OverlapPolicy.ALLOW, ask_above=0.3)
    assert session.options.policy is OverlapPolicy.PROTECT and controller.open() is session
    assert session.options.policy is OverlapPolicy.ALLOW and session.options.ask_above == 0.3


def test_an_image_that_cannot_be_used_is_refused_and_nothing_stays_behind(scene, segmentation_node):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    before = scene.GetNumberOfNodes()
    controller, client, _timer = make_controller(node, segmentation_node)
    with pytest.raises((InputError, GeometryError)):
        controller.add_segment()
    assert not client.volumes and scene.GetNumberOfNodes() == before and not segments_of(segmentation_node)


def test_other_requests_have_numbers_of_their_own(rig, volume_node):
    controller, client, timer = rig
    answered(rig, click(volume_node))
    events = []
    segments = (SegmentPrompts("A", (click(volume_node),)),)
    controller.submit(PredictRequest(0, "fake", controller.send_image().key, segments, "auto", None), events.append)
    assert controller.is_busy
    run(controller, timer)
    assert not controller.is_busy and type(events[-1]) is Answered
    assert len({request.request_id for request in client.asked}) == len(client.asked) == 2


def test_a_segment_goes_and_comes_back_with_its_first_prompt(rig, volume_node):
    rig[0].options = replace(rig[0].options, kind="Liver")
    controller = answered(rig, click(volume_node))
    key = controller.segment_id
    assert controller.undo() and names(controller) == [] and controller.summary() is None
    assert can(controller) == {"redo"} and controller.redo() and names(controller) == ["Liver"]
    assert controller.segment_id == key and controller.summary().voxels == 25


def test_each_prompt_can_make_a_segment(rig, volume_node):
    rig[0].options = replace(rig[0].options, many_objects=True, kind="Nodule")
    controller = answered(rig, click(volume_node, 2, 2), click(volume_node, 6, 5))
    assert names(controller) == ["Nodule 1", "Nodule 2"]
    answered(rig, click(volume_node, 6, 5, polarity=Polarity.NEGATIVE))  # is about the last one
    assert names(controller) == ["Nodule 1", "Nodule 2"] and len(controller.summary().prompts) == 2


def test_words_make_segments_of_their_names(rig):
    controller, client, timer = rig
    controller.options = replace(controller.options, choice=card_choice("vista3d"))
    controller.add_words([" liver", "spleen ", "", "liver"])
    (request,) = client.asked
    assert [segment.prompts for segment in request.segments] == [(ClassPrompt("liver"),), (ClassPrompt("spleen"),)]
    run(controller, timer)
    assert names(controller) == ["liver", "spleen"] and isinstance(controller.outcome, SegmentEdited)
    controller.options = replace(controller.options, choice=card_choice("voxtell"))
    controller.add_words(["a cyst"])
    assert client.asked[-1].segments[0].prompts == (TextPrompt("a cyst"),)


@pytest.mark.parametrize(("model_id", "words"), [("lite-medsam", ["liver"]), ("vista3d", [" ", ""])])
def test_words_that_say_nothing_are_refused(rig, model_id, words):
    rig[0].options = replace(rig[0].options, choice=card_choice(model_id))
    with pytest.raises(InputError):
        rig[0].add_words(words)
    assert not rig[1].asked


def test_without_a_model_or_a_segment_nothing_is_asked(rig, volume_node):
    rig[0].options = replace(rig[0].options, choice=None)
    with pytest.raises(InputError, match="choose a model"):
        rig[0].add_prompt(click(volume_node))
    with pytest.raises(InputError, match="select a segment"):
        rig[0].lock(True)
    assert not rig[1].asked


def test_prompts_are_removed_and_flipped(rig, volume_node):
    controller, timer = answered(rig, click(volume_node, 2, 2), click(volume_node, 6, 5)), rig[2]
    first, second = controller.selected().prompts
    for polarity in (Polarity.NEGATIVE, Polarity.POSITIVE):
        controller.flip_prompts([second])
        run(controller, timer)
        assert controller.selected().prompts[second].polarity is polarity
    controller.remove_prompts([first])
    run(controller, timer)
    assert tuple(controller.selected().prompts) == (second,)
    controller.remove_prompts()
    run(controller, timer)
    assert controller.summary().voxels == 0 and not controller.selected().prompts


def test_propagation_and_regions_reach_the_request(rig, volume_node):
    controller, client, timer = answered(rig, click(volume_node)), rig[1], rig[2]
    controller.propagate(Propagation(1, 4))
    run(controller, timer)
    assert client.asked[-1].propagation == Propagation(1, 4) and controller.summary().voxels == 75
    controller.options = replace(controller.options, region=AroundPrompt(2.0))
    answered(rig, click(volume_node))
    steps = controller.selected().steps
    assert state_of(steps).region == AroundPrompt(2.0)
    answered(rig, click(volume_node, 5))
    assert len(controller.selected().steps) <= len(steps) + 2, "the region is a step once"


def test_another_model_is_asked_with_the_same_prompts(rig, volume_node):
    controller = answered(rig, click(volume_node))
    controller.options = replace(controller.options, choice=replace(SEEING, sees_seed=False))
    controller.ask_again()
    run(controller, rig[2])
    request = rig[1].asked[-1]
    assert request.model_id == "seeing" and len(request.segments[0].prompts) == 1


# What a user may do while an answer is out, and what brings the prompt back that was out, where it went: none, undo
# or redo. The answer that came meanwhile is dropped then, and asked for again.
WHILE_OUT = {
    "clear": (lambda controller: controller.clear([controller.segment_id]), "undo"),
    "delete": (lambda controller: controller.clear([controller.segment_id], removes=True), "undo"),
    "undo": (lambda controller: controller.undo(), "redo"),
    "reject": (lambda controller: controller.reject(), "redo"),
    "redo": (lambda controller: controller.redo(), ""),
    "accept": (lambda controller: controller.accept(), ""),
    "lock": (lambda controller: controller.lock(True), ""),
    "rename": (lambda controller: controller.selected_node_segment.SetName("Mine"), ""),
    "new": (lambda controller: controller.add_segment(), ""),
    "select another": (lambda controller: controller.select(""), ""),
    "move": (lambda controller: controller.segmentation_node.GetSegmentation().ReorderSegments(["Other"]), ""),
}


@pytest.mark.parametrize("action", WHILE_OUT)
@pytest.mark.parametrize("is_new", [True, False])
def test_nothing_is_lost_by_what_is_done_while_an_answer_is_out(rig, volume_node, segmentation_node, is_new, action):
    controller, client, timer = rig
    segmentation_node.GetSegmentation().AddEmptySegment("Other", "Other")
    if not is_new:
        answered(rig, click(volume_node, 1, 1))
    client.is_slow = True
    controller.add_prompt(click(volume_node))
    key, asked = controller.segment_id, len(client.asked)
    act, back = WHILE_OUT[action]
    with suppress(InputError):
        act(controller)
    client.is_slow = False
    if controller.is_busy:
        client.reply()
    run(controller, timer)
    if back:
        assert key not in controller.session.segment_ids or controller.session.voxels(key) < 25
        controller.select(key)
        assert {"undo": controller.undo, "redo": controller.redo}[back]()
        run(controller, timer)
    else:
        assert len(client.asked) == asked, "the model is not asked twice"
    assert len(controller.session.steps(key)) and controller.session.voxels(key) == (25 if is_new else 35)
    assert len(state_of(controller.session.steps(key)).prompts) == (1 if is_new else 2)


def test_clearing_a_segment_leaves_the_others_that_were_asked_with_it(rig):
    controller, client, timer = rig
    controller.options = replace(controller.options, choice=card_choice("vista3d"))
    client.is_slow = True
    controller.add_words(["liver", "spleen"])
    liver, spleen = controller.session.segment_ids
    controller.clear([spleen], removes=True)
    client.is_slow = False
    client.reply()
    run(controller, timer)
    assert names(controller) == ["liver"] and controller.session.voxels(liver) > 0
    assert controller.session.undo(spleen)
    run(controller, timer)
    assert names(controller) == ["liver", "spleen"] and controller.session.voxels(spleen) > 0


def test_a_segment_that_waits_for_its_answer_is_locked_afterwards(rig, volume_node):
    controller, client, timer = rig
    client.is_slow = True
    controller.add_prompt(click(volume_node))
    with pytest.raises(InputError, match="'Segment' waits for an answer"):
        controller.lock(True)
    client.reply()
    run(controller, timer)
    controller.lock(True)
    assert controller.summary().voxels == 25 and controller.summary().is_locked


def smooth(node, key):
    """As the Segment Editor's Smoothing does it: a median of 3 x 3 x 3 voxels over the whole label map."""
    labelmap, smoothed = slicer.vtkOrientedImageData(), slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(key, labelmap)
    padded, median = vtk.vtkImageConstantPad(), vtk.vtkImageMedian3D()
    padded.SetInputData(labelmap)
    padded.SetOutputWholeExtent([n + (1 if at % 2 else -1) for at, n in enumerate(labelmap.GetExtent())])
    median.SetInputConnection(padded.GetOutputPort())
    median.SetKernelSize(3, 3, 3)
    median.Update()
    smoothed.ShallowCopy(median.GetOutput())
    smoothed.CopyDirections(labelmap)
    slicer.vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment(smoothed, node, key)


def test_after_smoothing_a_prompt_asks_only_where_it_takes_much_of_it_back(scene, segmentation_node):
    shape = (20, 40, 40)
    image = Volume(np.arange(np.prod(shape), dtype=np.int32).reshape(shape), Geometry(np.eye(4), shape))
    node = add_volume_node(scene, image)
    rig = controller, _client, timer = make_controller(node, segmentation_node)
    whole, beside = BoxPrompt(((4, 4, 4), (35, 35, 15))), BoxPrompt(((33, 20, 10), (37, 24, 10)))
    key = answered(rig, whole).segment_id
    before = controller.session.voxels(key)
    smooth(segmentation_node, key)
    by_hand = before - controller.session.voxels(key)
    assert by_hand > 200, "edges and corners of the box"
    answered(rig, beside)
    near = controller.session.voxels(key) - (before - by_hand)
    assert controller.session.confirmation is None and near == 10 + 4, "and the corners of the first box on that slice"
    controller.add_prompt(replace(whole, corners=((4, 4, 4), (35, 35, 4))))
    run(controller, timer)
    asked = controller.session.confirmation
    assert asked.by_hand == asked.changes[key].gained.voxels == 124, "the rim of its first slice"
    (shown,) = segments_of(controller.preview.node)
    assert shown.GetName() and controller.session.voxels(key) == before - by_hand + near
    controller.accept()
    assert controller.session.voxels(key) == before - by_hand + near + 124
    answered(rig, replace(beside, corners=((33, 27, 10), (37, 30, 10))))
    assert controller.session.confirmation is None
    controller.close()
