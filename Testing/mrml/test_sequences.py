"""Sequences in time: a frame is an image of its own, and segments are followed from one frame to all."""

import numpy as np
import pytest
import slicer

from FoundationSegLib.api_nodes import NodeSession, make_segmentation, report_nodes, segment_node, segment_sequence
from FoundationSegLib.errors import Cancelled, FoundationSegError, GeometryError, GoneError, InputError
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml import segment_tags
from FoundationSegLib.mrml.files import corrected_images
from FoundationSegLib.mrml.scene import read_scene
from FoundationSegLib.mrml.segments import SegmentWriter, read_segment
from FoundationSegLib.mrml.volumes import (
    FRAME_ATTRIBUTE,
    ForeignSegmentationError,
    add_volume_node,
    hide_other_images,
    own_segmentation,
)
from FoundationSegLib.prompts.kinds import BoxPrompt
from FoundationSegLib.requests.segmentation import CheckpointRecord, Prediction, SegmentPrediction
from FoundationSegLib.session.segments import new_segment
from FoundationSegLib.worker.client import InlineClient
from Testing.mrml.controller_cases import make_controller, run
from Testing.mrml.scene_session import open_bundle, save_bundle
from Testing.unit.commands.test_segment_frames import SHAPE, SIZE, STARTS, block_at
from Testing.unit.session.session_cases import SLICES
from Testing.unit.test_api import FakeEngine

GRID = Geometry(np.diag([-1.0, -1.0, 2.0, 1.0]), SHAPE)


class BrightEngine(FakeEngine):
    """Answers with what is bright in a box, or all of it."""

    asked = 0

    def predict(self, request, progress):
        super().predict(request, progress)
        self.asked += 1
        volume, segments = self.volumes[request.volume_key], []
        for segment in request.segments:
            corners = np.sort(volume.geometry.nearest_voxel(segment.prompts[-1].corners)[:, ::-1], axis=0)
            mask = np.zeros(SHAPE, bool)
            mask[tuple(slice(max(0, a), b + 1) for a, b in corners.T)] = True
            bright = mask & (volume.array_kji > 0)
            segments.append(SegmentPrediction(pack_mask(bright if bright.any() else mask), 0.9))
        record = CheckpointRecord("bright", "rules", "1", "0" * 64)
        return Prediction(request.request_id, tuple(segments), {"low": 0, "high": 1}, record, "cpu", "float32")


def box_at(start, margin=1, size=SIZE):
    k, j, i = start
    low = [i - margin, j - margin, k]
    return {"type": "box", "corners": [low, [i + size[2] - 1 + margin, j + size[1] - 1 + margin, k + size[0] - 1]]}


def prompts_at(*starts):
    names = ("Block", "Other")
    segments = [{"name": name, "prompts": [box_at(start)]} for name, start in zip(names, starts, strict=False)]
    return {"version": 1, "space": "ijk", "segments": segments}


class Sequence:
    """A sequence browser, in which a node shows one image of several."""

    def __init__(self, scene, arrays, node_of=None):
        self.scene, self.sequence = scene, scene.AddNewNodeByClass("vtkMRMLSequenceNode", "CT")
        for n, array in enumerate(arrays):
            node = node_of(n) if node_of else add_volume_node(scene, Volume(array, GRID, "CT", name="CT"))
            self.sequence.SetDataNodeAtValue(node, str(10 * n))
            scene.RemoveNode(node)
        self.browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
        self.browser.SetAndObserveMasterSequenceNodeID(self.sequence.GetID())
        self.client = InlineClient(BrightEngine())

    @property
    def node(self):
        return self.browser.GetProxyNode(self.sequence)

    def show(self, number):
        self.browser.SetSelectedItemNumber(number)

    def segment(self, prompts=None, *arguments, **options):
        prompts = prompts or prompts_at(STARTS[self.browser.GetSelectedItemNumber()])
        return segment_sequence(self.node, prompts, self.client, SLICES, *arguments, **options)


@pytest.fixture
def moving(scene):
    return Sequence(scene, map(block_at, STARTS))


def mask_of(node, name="Block"):
    segmentation = node.GetSegmentation()
    segment = segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName(name))
    return read_segment(segment, GRID) if segment else np.zeros(SHAPE, bool)


def all_masks(moving, node):
    masks = []
    for n in range(len(STARTS)):
        moving.show(n)
        masks.append(mask_of(node))
    return masks


def is_block(mask, start):
    return np.argwhere(mask).min(axis=0).tolist() == list(start) and mask.sum() == np.prod(SIZE)


def test_segments_follow_the_image_from_the_frame_that_is_shown_to_all(moving):
    moving.show(2)
    reports = []
    answer = moving.segment(on_progress=reports.append)
    node = answer.segmentation_node
    assert moving.browser.GetSelectedItemNumber() == 2 and is_block(mask_of(node), STARTS[2])
    assert all(map(is_block, all_masks(moving, node), STARTS))
    assert [report.done for report in reports] == [0, 1, 2, 3, 4] and not moving.client.engine.volumes
    assert answer.consistency["Block"]["volumes_ml"] == pytest.approx([np.prod(SIZE) * 2e-3] * 5)
    assert answer.consistency["Block"]["largest_step"] == 0 and answer.corrected == ()
    table = moving.scene.GetNodeByID(answer.chart_node.GetNthPlotSeriesNode(0).GetTableNodeID())
    columns = slicer.util.arrayFromTableColumn(table, "frame"), slicer.util.arrayFromTableColumn(table, "Block")
    assert columns[0].tolist() == [0, 1, 2, 3, 4] and columns[1].tolist() == pytest.approx([0.512] * 5)
    segment = node.GetSegmentation().GetNthSegment(0)
    assert segment_tags.provenance(segment)["Model"] == "bright"
    assert node.GetNodeReference("referenceImageGeometryRef") is moving.node
    assert moving.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
    last_frame = moving.browser.GetSequenceNode(node).GetNthDataNode(4).GetSegmentation()
    assert last_frame.GetConversionParameter("Reference image geometry")


def test_a_run_is_taken_back_as_long_as_nobody_has_changed_what_it_wrote(moving):
    kinds = ("vtkMRMLStorableNode", "vtkMRMLStorageNode", "vtkMRMLDisplayNode", "vtkMRMLPlotSeriesNode")
    before = [slicer.util.getNodesByClass(kind, moving.scene) for kind in kinds]
    moving.segment().undo()
    assert [slicer.util.getNodesByClass(kind, moving.scene) for kind in kinds] == before, "sequence and chart go"
    first = moving.segment()
    before = all_masks(moving, first.segmentation_node)
    moving.show(1)
    again = moving.segment(prompts_at(STARTS[2]), first.segmentation_node)
    after = all_masks(moving, first.segmentation_node)
    assert not np.array_equal(before, after)
    again.undo()
    assert np.array_equal(all_masks(moving, first.segmentation_node), before)
    with pytest.raises(InputError, match="changed since: nothing was undone"):
        again.undo()
    moving.show(3)
    writer = SegmentWriter(first.segmentation_node, moving.node)
    writer.write(first.segmentation_node.GetSegmentation().GetSegmentIDs()[0], pack_mask(np.ones((2, 2, 2), bool)))
    with pytest.raises(InputError, match="changed since: nothing was undone"):
        first.undo()
    assert len(all_masks(moving, first.segmentation_node)) == 5


def test_frames_that_the_user_corrected_stay(moving):
    node = moving.segment().segmentation_node
    before = all_masks(moving, node)
    moving.show(3)
    writer = SegmentWriter(node, moving.node)
    (key,) = writer.segment_ids
    own = np.zeros(SHAPE, bool)
    own[3:5, 9:14, 12:15] = True
    writer.write(key, own)
    extra = writer.add_segment("Mine")
    writer.write(extra, np.roll(own, 8, axis=1))
    moving.show(1)
    segment_tags.set_completed(node.GetSegmentation().GetNthSegment(0), True)
    moving.show(0)
    asked = moving.client.engine.asked
    answer = moving.segment(None, node, frame_prompts={4: prompts_at(STARTS[4])})
    assert answer.segmentation_node is node and answer.corrected == (1, 3) and moving.client.engine.asked == asked + 3
    after = all_masks(moving, node)
    assert np.array_equal(after[3], own) and all(np.array_equal(after[n], before[n]) for n in (0, 1, 4))
    moving.show(3)
    assert mask_of(node, "Mine").sum() == own.sum(), "what else is there stays"
    assert answer.consistency["Block"]["volumes_ml"][3] == pytest.approx(own.sum() * 2e-3)


def test_two_segments_keep_apart_and_look_alike(moving):
    node = moving.segment(prompts_at(STARTS[0], (1, 12, 10))).segmentation_node
    looks = set()
    for n in range(len(STARTS)):
        moving.show(n)
        segmentation = node.GetSegmentation()
        looks.add(tuple((key, segmentation.GetSegment(key).GetColor()) for key in segmentation.GetSegmentIDs()))
        assert not (mask_of(node) & mask_of(node, "Other")).any()
    assert len(looks) == 1 and len(looks.pop()) == 2


def test_a_sequence_under_a_transform_is_followed_in_its_own_coordinates(moving):
    transform = moving.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([1.0, -1.0, 1.0, 1.0])))
    moving.node.SetAndObserveTransformNodeID(transform.GetID())
    node = moving.segment().segmentation_node
    assert node.GetParentTransformNode() is transform and all(map(is_block, all_masks(moving, node), STARTS))


def transform_of(scene):
    return lambda _n: scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")


def other_grid(scene):
    grids = [GRID, GRID, Geometry(np.diag([-1.0, -1.0, 2.5, 1.0]), SHAPE)]
    return lambda n: add_volume_node(scene, Volume(block_at(STARTS[n]), grids[n], name="CT"))


@pytest.mark.parametrize(
    ("count", "node_of", "error", "text"),
    [
        (1, None, InputError, "one frame"),
        (3, transform_of, InputError, "no image of a sequence"),
        (3, other_grid, GeometryError, "at 20 has another grid"),
    ],
)
def test_what_is_no_sequence_of_images_is_refused(scene, count, node_of, error, text):
    bad = Sequence(scene, map(block_at, STARTS[:count]), node_of and node_of(scene))
    before = scene.GetNumberOfNodes()
    with pytest.raises(error, match=text):
        bad.segment()
    assert scene.GetNumberOfNodes() == before


def test_an_image_without_time_and_a_plain_segmentation_are_refused(moving, volume_node):
    with pytest.raises(InputError, match="no image of a sequence"):
        segment_sequence(volume_node, prompts_at(STARTS[0]), moving.client, SLICES)
    with pytest.raises(InputError, match="is no sequence"):
        moving.segment(None, make_segmentation(moving.node))
    with pytest.raises(InputError, match="no frame 9"):
        moving.segment(frame_prompts={9: prompts_at(STARTS[0])})


def cancel(moving):
    raise Cancelled("stopped")


def delete(moving):
    moving.scene.RemoveNode(moving.node)


def delete_browser(moving):
    moving.scene.RemoveNode(moving.browser)


def add_frame(moving):
    moving.sequence.SetDataNodeAtValue(moving.sequence.GetNthDataNode(0), "99")


@pytest.mark.parametrize("what", [cancel, delete, delete_browser, add_frame])
def test_what_is_cancelled_or_loses_its_image_writes_nothing(moving, what):
    with pytest.raises(FoundationSegError):
        moving.segment(on_progress=lambda report: report.done == 2 and what(moving))
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert moving.scene.GetNumberOfNodesByClass("vtkMRMLSequenceNode") == 1


def test_a_correction_that_comes_meanwhile_is_not_lost(moving):
    node = moving.segment().segmentation_node

    def draw(report):
        if report.done == 3:
            writer = SegmentWriter(node, moving.node)
            writer.write(writer.segment_ids[0], np.zeros(SHAPE, bool))

    with pytest.raises(InputError, match="meanwhile"):
        moving.segment(None, node, on_progress=draw)
    assert not mask_of(node).any()


def test_a_scene_that_is_opened_again_goes_on_where_it_was_saved(moving, tmp_path):
    node = moving.segment().segmentation_node
    moving.show(3)
    writer = SegmentWriter(node, moving.node)
    writer.write(writer.segment_ids[0], np.zeros(SHAPE, bool))
    path = save_bundle(moving.scene, tmp_path)
    kept, image, segmentation = open_bundle(path, tmp_path / "other")
    answer = segment_sequence(image, prompts_at(STARTS[3]), moving.client, SLICES, segmentation)
    assert kept and answer.corrected == (3,) and answer.consistency["Block"]["volumes_ml"][3] == 0
    with read_scene(path) as headless:
        assert headless.scene.GetNumberOfNodesByClass("vtkMRMLSequenceNode") == 2


def test_segments_that_another_image_hides_come_back_on_whatever_frame(moving, volume_node):
    node = moving.segment().segmentation_node
    hide_other_images(volume_node)
    assert not node.GetDisplayVisibility()
    moving.show(2)
    hide_other_images(moving.node)
    assert node.GetDisplayVisibility()


# A frame is an image: what belongs to one never goes into another.


def test_a_segmentation_belongs_to_its_frame(moving, tmp_path):
    first = segment_node(moving.node, prompts_at(STARTS[0]), moving.client, SLICES)
    assert first.GetAttribute(FRAME_ATTRIBUTE) == "0"
    segment_tags.set_completed(first.GetSegmentation().GetNthSegment(0), True)
    assert len(list(corrected_images(moving.scene))) == 1
    moving.show(1)
    with pytest.raises(ForeignSegmentationError, match=r"belongs to frame 0, not to 'CT'"):
        segment_node(moving.node, prompts_at(STARTS[1]), moving.client, SLICES, first)
    with pytest.raises(InputError, match="frame that is shown"):
        report_nodes(tmp_path / "page.html", [first])
    assert not list(corrected_images(moving.scene)), "nobody learns a mask on another frame"
    second = segment_node(moving.node, prompts_at(STARTS[1]), moving.client, SLICES)
    assert own_segmentation(moving.node) is second
    moving.show(0)
    assert own_segmentation(moving.node) is first and is_block(mask_of(first), STARTS[0])
    segment_node(moving.node, prompts_at(STARTS[0]), moving.client, SLICES, second, allow_foreign=True)
    assert second.GetAttribute(FRAME_ATTRIBUTE) == "0", "from now on"


def box(start=(4, 15, 15)):
    return BoxPrompt(tuple(tuple(map(float, GRID.to_ras(c))) for c in box_at(start)["corners"]))


@pytest.mark.parametrize("is_sequence", [False, True])
def test_prompts_and_answers_of_a_frame_never_go_into_another(moving, is_sequence):
    node = moving.segment().segmentation_node if is_sequence else make_segmentation(moving.node)
    with NodeSession(moving.node, node, moving.client, SLICES) as session:
        segment = new_segment(session, "Lesion")
        segment.add(box())
        before, markups = mask_of(node, "Lesion"), slicer.util.getNodesByClass("vtkMRMLMarkupsNode")
        assert len(markups) == 1 and before.any()
        moving.show(1)
        shown = [mask_of(node), mask_of(node, "Lesion")]
        assert not slicer.util.getNodesByClass("vtkMRMLMarkupsNode")
        for action in (lambda: segment.add(box()), lambda: session.undo(segment.segment_id)):
            with pytest.raises(GoneError, match="another frame"):
                action()
        assert all(map(np.array_equal, shown, [mask_of(node), mask_of(node, "Lesion")]))
        moving.show(0)
        assert len(slicer.util.getNodesByClass("vtkMRMLMarkupsNode")) == 1
        assert np.array_equal(mask_of(node, "Lesion"), before)
        assert len(segment.prompts) == 1


@pytest.mark.parametrize("is_sequence", [False, True])
def test_an_answer_that_comes_on_another_frame_is_dropped(moving, is_sequence):
    node = moving.segment().segmentation_node if is_sequence else make_segmentation(moving.node)
    controller, _client, timer = make_controller(moving.node, node, ask_above=None)
    try:
        controller.add_prompt(box())
        moving.show(1)
        before = {key: mask_of(node, key) for key in ("Block", "Segment")}
        run(controller, timer)
        assert all(np.array_equal(mask_of(node, key), mask) for key, mask in before.items())
        if is_sequence:  # each frame has its own: the next prompt goes into this one's
            controller.add_prompt(box())
            run(controller, timer)
            assert mask_of(node, "Segment").any()
        else:
            with pytest.raises(ForeignSegmentationError, match="frame 0"):
                controller.add_prompt(box())
            controller.allow_foreign()
            controller.add_prompt(box())
            run(controller, timer)
            moving.show(2)
            assert controller.is_foreign, "allowed for one frame, and not for the next"
    finally:
        controller.close()


def test_changes_that_the_browser_would_lose_are_refused(moving):
    node = moving.segment().segmentation_node
    moving.browser.SetSaveChanges(moving.browser.GetSequenceNode(node), False)
    with pytest.raises(InputError, match="Save changes"):
        segment_node(moving.node, prompts_at(STARTS[0]), moving.client, SLICES, node)
    with pytest.raises(InputError, match="Save changes"):
        moving.segment(None, node)
