import gc
from contextlib import contextmanager
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import slicer
import slicer.util

from FoundationSegLib.errors import GoneError, InferenceError, InputError, PromptError
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml import segment_tags
from FoundationSegLib.mrml.prompt_nodes import prompt_nodes
from FoundationSegLib.mrml.scene_prompts import ScenePrompts, SessionPrompts
from FoundationSegLib.mrml.volumes import add_volume_node
from FoundationSegLib.prompts.kinds import BoxPrompt, MaskPrompt, PointPrompt, Polarity
from FoundationSegLib.session.segments import add_objects, new_segment
from Testing.mrml.scene_session import SceneSession
from Testing.unit.session.session_cases import SHAPE, SLICES, VOLUMES, mask_of, point, ras, small_volume

SEEDED = '{"version":1,"steps":[{"step":"seed","mask":"ff","reason":"hand"}],"result":""}'
TURNED = {"ijk_to_ras": np.diag([-1.0, 1, 1, 1]).tolist(), "shape_kji": list(SHAPE)}


@pytest.fixture
def volume_node(scene):
    return add_volume_node(scene, small_volume())


@pytest.fixture
def open_desk(segmentation_node, volume_node):
    """Opens desks one after the other, and closes them in the end."""
    desks = []

    def open_desk():
        if desks:
            desks[-1].prompts.stop()
        desks.append(SceneSession(segmentation_node, volume_node))
        return desks[-1]

    yield open_desk
    desks[-1].prompts.stop()


@pytest.fixture
def desk(open_desk):
    return open_desk()


@pytest.fixture
def segment(desk):
    return new_segment(desk.session, "Liver")


@contextmanager
def dragged(node):
    node.InvokeCustomModifiedEvent(node.PointStartInteractionEvent)
    yield
    node.InvokeCustomModifiedEvent(node.PointEndInteractionEvent)


def markups(scene):
    return slicer.util.getNodesByClass("vtkMRMLMarkupsNode", scene)


def test_prompts_of_the_session_are_markups(scene, desk, segment):
    segment.add(point(3), point(5))
    assert len(markups(scene)) == 2 and desk.place(segment, "2") == ras(5, 4, 5)
    assert desk.kept(segment) == dict(segment.prompts) and desk.record(segment).model == "fake"
    segment.remove("1")
    assert [key for key, _ in desk.kept(segment).items()] == ["2"] and len(markups(scene)) == 1
    segment.set_polarity("2", Polarity.NEGATIVE)
    assert desk.kept(segment)["2"].polarity is Polarity.NEGATIVE and not desk.errors


@pytest.mark.parametrize("event", ["turn", "save", "answer", "stop"])
def test_markups_are_drawn_a_turn_later_and_before_anybody_misses_them(scene, segmentation_node, volume_node, event):
    turns, seen = [], []
    desk = SceneSession(segmentation_node, volume_node, later=turns.append)
    segment = new_segment(desk.session, "Liver")
    desk.client.is_slow = True
    desk.session.on_outcome = lambda outcome: seen.append(len(markups(scene)))
    segment.add(point(3))
    assert len(desk.kept(segment)) == 1 and markups(scene) == [] and turns
    if event == "turn":
        turns[-1]()
    elif event == "save":
        scene.InvokeEvent(scene.StartSaveEvent)
    elif event == "answer":
        desk.client.reply()
        assert seen == [1]
    else:
        desk.prompts.stop()
    assert len(markups(scene)) == 1
    desk.prompts.stop()


def test_a_moved_markup_asks_again_and_undo_puts_it_back(desk, segment):
    segment.add(point(3))
    before, steps = mask_of(segment), segment.steps
    desk.drag(segment, "1", ras(5, 6, 7))
    assert segment.prompts["1"].position == ras(5, 6, 7)
    moved = mask_of(segment)
    assert moved[5, 4:9, 5:10].all() and moved.sum() == 25 and len(desk.client.requests) == 2
    assert desk.session.undo(segment.segment_id)
    assert np.array_equal(mask_of(segment), before) and segment.steps == steps
    assert desk.place(segment, "1") == ras(3, 4, 5) and desk.session.redo(segment.segment_id)
    assert np.array_equal(mask_of(segment), moved) and desk.place(segment, "1") == ras(5, 6, 7)
    assert len(desk.client.requests) == 2 and not desk.errors


def test_a_removed_markup_takes_its_prompt_back(scene, desk, segment):
    segment.add(point(3), point(5))
    scene.RemoveNode(desk.node(segment, "1"))
    assert list(segment.prompts) == ["2"] and mask_of(segment).sum() == 25
    desk.session.undo(segment.segment_id)
    assert mask_of(segment).sum() == 50 and desk.place(segment, "1") == ras(3, 4, 5)


def test_a_mistake_puts_the_markup_back(desk, segment):
    segment.add(BoxPrompt((ras(3, 2, 2), ras(3, 5, 5))))
    before, asked, node = mask_of(segment), len(desk.client.requests), desk.node(segment, "1")
    positions = [node.GetNthControlPointPosition(n) for n in range(4)]
    with dragged(node):
        for n, (x, y, z) in enumerate(positions):
            node.SetNthControlPointPosition(n, (x + 900, y, z))
    (error,) = desk.errors
    assert isinstance(error, PromptError) and "outside" in str(error)
    assert [node.GetNthControlPointPosition(n) for n in range(4)] == positions
    segment_tags.lock(desk.store.segment(segment.segment_id))
    node.SetNthControlPointPosition(0, ras(3, 0, 0))
    assert isinstance(desk.errors[-1], InputError) and "locked" in str(desk.errors[-1])
    assert [node.GetNthControlPointPosition(n) for n in range(4)] == positions
    assert np.array_equal(mask_of(segment), before) and len(desk.client.requests) == asked


class TestWaiting:
    """Markups are where the prompts are that wait for an answer, until that is taken back."""

    def test_a_prompt_is_drawn_before_its_answer(self, scene, desk, segment):
        desk.client.is_slow = True
        segment.add(point(3))
        assert len(markups(scene)) == 1 and desk.session.discard()
        assert not markups(scene) and desk.record(segment).prompts == ()

    def test_an_earlier_answer_does_not_move_what_waits(self, desk, segment):
        desk.client.is_slow = True
        segment.add(point(3))
        desk.client.reply()
        segment.propagate()
        desk.drag(segment, "1", ras(5, 6, 7))
        desk.client.reply()
        assert desk.session.request_id is not None and desk.place(segment, "1") == ras(5, 6, 7)
        desk.session.discard()
        assert desk.place(segment, "1") == ras(3, 4, 5)

    def test_what_failed_is_put_back_when_it_is_discarded(self, desk, segment):
        segment.add(point(3))
        desk.client.fails = True
        desk.drag(segment, "1", ras(5, 6, 7))
        assert isinstance(desk.outcomes[-1].error, InferenceError) and desk.place(segment, "1") == ras(5, 6, 7)
        assert desk.session.undo(segment.segment_id)
        assert desk.place(segment, "1") == ras(3, 4, 5) and mask_of(segment)[3].sum() == 25

    def test_what_is_pending_is_put_back_when_it_is_discarded(self, desk, segment):
        segment.add(BoxPrompt((ras(3, 1, 1), ras(3, 8, 9))))
        desk.session.options.ask_above = 0.0
        drawn = []
        desk.session.on_outcome = lambda outcome: drawn.append(desk.node(segment, "2") is not None)
        segment.add(point(3, 4, 5, Polarity.NEGATIVE))
        assert drawn == [True], "it is there when the user is asked"
        assert desk.session.confirmation and desk.place(segment, "2") == ras(3, 4, 5)
        desk.session.discard()
        assert desk.node(segment, "2") is None
        segment.add(point(3, 5, 6, Polarity.NEGATIVE))
        desk.session.confirm()
        assert desk.place(segment, "2") == ras(3, 5, 6) and not mask_of(segment)[3, 5, 6]

    def test_tags_and_markups_are_there_when_the_outcome_is_told(self, desk, segment):
        def listen(outcome):
            tags = desk.store.provenance(segment.segment_id)
            heard.append((outcome.kind, tags.get("Prompts", "").count("position"), [*desk.kept(segment)]))

        heard, desk.session.on_outcome = [], listen
        segment.add(point(3))
        segment.add(point(5))
        for work in (desk.session.undo, desk.session.redo, desk.session.reject):
            work(segment.segment_id)
        both, first = (2, ["1", "2"]), (1, ["1"])
        ways = [("predicted", *first), ("predicted", *both), ("undone", *first), ("redone", *both)]
        assert heard == [*ways, ("rejected", *first)]

    def test_what_moves_over_voxels_drawn_by_hand_is_put_back(self, desk, segment, segmentation_node, volume_node):
        segment.add(point(3))
        mask = mask_of(segment)
        mask[3, 4, 5] = False
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            mask.astype(np.uint8), segmentation_node, segment.segment_id, volume_node
        )
        segment.add(point(6))
        desk.session.options.ask_above = 0.0
        desk.drag(segment, "2", ras(3, 4, 5))
        assert desk.session.confirmation.by_hand and desk.place(segment, "2") == ras(3, 4, 5)
        desk.session.discard()
        assert desk.place(segment, "2") == ras(6, 4, 5) and not mask_of(segment)[3, 4, 5]

    def test_objects_are_drawn_before_their_answer(self, scene, desk):
        desk.client.is_slow = True
        new = add_objects(desk.session, [point(1), point(5)])
        assert len(markups(scene)) == 2 and desk.store.segment_ids == new
        assert desk.place(desk.segment(new[1]), "1") == ras(5, 4, 5)
        desk.session.discard()
        assert not markups(scene) and desk.store.segment_ids == ()
        add_objects(desk.session, [point(1), point(5)])
        desk.client.reply()
        assert len(markups(scene)) == 2
        first = desk.store.segment_ids[0]
        look = desk.store.segment(first).GetColor()
        assert desk.session.undo(first) and desk.store.segment_ids == () and not markups(scene)
        assert desk.session.redo(first) and len(markups(scene)) == 2
        assert desk.store.segment(first).GetColor() == look and desk.store.provenance(first)["Model"] == "fake"

    def test_another_model_is_asked(self, desk, segment):
        segment.add(point(3))
        desk.client.is_slow = True
        segment.ask_again(VOLUMES)
        assert list(segment.prompts) == ["1"] and desk.place(segment, "1") == ras(3, 4, 5)
        desk.client.reply()
        assert mask_of(segment).sum() == 125 and desk.record(segment).model == "volumes"


def test_a_second_segment_has_its_own(scene, desk, segment):
    other = new_segment(desk.session, "Spleen")
    segment.add(point(3))
    other.add(point(1))
    desk.drag(other, "1", ras(7, 4, 5))
    assert desk.place(segment, "1") == ras(3, 4, 5) and mask_of(other)[7].sum() == 25
    desk.session.undo(segment.segment_id)
    assert len(markups(scene)) == 1 and mask_of(other).sum() == 25
    add_objects(desk.session, [point(0, 8, 9), point(2, 8, 9)])
    assert len(markups(scene)) == 3 and desk.prompts.scene.segment_ids[1:] == desk.store.segment_ids[2:]


def test_a_mask_is_kept_once(open_desk, desk, segment):
    noise = np.random.default_rng(7).random(desk.store.geometry.shape_kji) < 0.5
    segment.add(MaskPrompt("a.nrrd", "A", voxels=pack_mask(noise)))
    text = segment_tags.read_tag(desk.store.segment(segment.segment_id), segment_tags.RECORD_TAG)
    assert text.count("voxels") == 1 and "bits" not in text
    again = open_desk()
    copy = again.segment(segment.segment_id)
    assert copy.steps == segment.steps and copy.prompts["1"].voxels == pack_mask(noise)


class TestWithoutASession:
    """What becomes of prompts that the user changes while no session is there, or before it met their segment."""

    @pytest.fixture
    def left(self, desk, segment):
        segment.add(point(3), point(5))
        desk.prompts.stop()
        return segment

    def test_a_segment_not_met_yet(self, open_desk, left):
        steps, again = left.steps, open_desk()
        copy = again.segment(left.segment_id)
        again.drag(copy, "1", ras(1, 6, 7))
        assert copy.steps[:-1] == steps and copy.prompts["1"] == point(1, 6, 7)
        assert not mask_of(copy)[3].any() and mask_of(copy)[1, 4:9, 5:10].all()
        again.session.undo(copy.segment_id)
        assert copy.steps == steps and mask_of(copy)[3].sum() == 25

    def test_a_markup_removed_before_its_segment_was_met(self, scene, open_desk, left):
        again = open_desk()
        scene.RemoveNode(again.node(left, "1"))
        copy = again.segment(left.segment_id)
        assert list(copy.prompts) == ["2"] and not mask_of(copy)[3].any()

    def test_prompts_changed_meanwhile_are_kept_and_so_are_voxels(
        self, scene, open_desk, left, segmentation_node, volume_node
    ):
        before = mask_of(left)
        alone = SessionPrompts(segmentation_node, volume_node)
        alone.scene.node(left.segment_id, "1").SetNthControlPointPosition(0, ras(1, 6, 7))
        scene.RemoveNode(alone.scene.node(left.segment_id, "2"))
        alone.stop()
        again = open_desk()
        copy = again.segment(left.segment_id)
        assert copy.prompts == {"1": point(1, 6, 7)} and np.array_equal(mask_of(copy), before)
        copy.add(point(7))
        assert np.array_equal(mask_of(copy)[:7], before[:7]) and list(copy.prompts) == ["1", "3"]
        replayed = new_segment(again.session, "Replayed")
        replayed.replay(copy.steps)
        assert np.array_equal(mask_of(replayed), mask_of(copy))

    def test_prompts_without_steps(self, open_desk, desk, segment, segmentation_node, volume_node):
        desk.prompts.stop()
        scene_prompts = ScenePrompts(segmentation_node, volume_node)
        kept = (segment_tags.KeptPrompt("1", point(3)), segment_tags.KeptPrompt("2", point(5)))
        scene_prompts.set_record(segment.segment_id, segment_tags.PromptRecord(kept))
        scene_prompts.stop()
        again = open_desk()
        copy = again.segment(segment.segment_id)
        again.drag(copy, "1", ras(1, 4, 5))
        assert mask_of(copy)[1].sum() == 25 and again.kept(copy) == {"1": point(1), "2": point(5)}
        copy.ask_again(SLICES)
        assert mask_of(copy).sum() == 50

    @pytest.mark.parametrize(
        "change",
        [
            {"steps": '{"version":9}'},
            {"steps": '{"version":1}'},
            {"masks": {"ff": "{"}},
            {"settings": {"grid": None}},
            {"settings": {"grid": TURNED}},
        ],
    )
    def test_steps_that_cannot_be_used_are_set_aside(
        self, open_desk, desk, left, segmentation_node, volume_node, change
    ):
        segment = desk.store.segment(left.segment_id)
        record = replace(segment_tags.read_record(segment), **change)
        desk.prompts.stop()
        if "masks" in change:
            record = replace(record, steps=SEEDED)
        segment_tags.RecordTags().write(segment, record)
        text, before = segment_tags.read_tag(segment, segment_tags.RECORD_TAG), mask_of(left)
        again = open_desk()
        copy = again.segment(left.segment_id)
        assert dict(copy.prompts) == {"1": point(3), "2": point(5)} and copy.steps[-1].reason == "hand"
        assert len(again.errors) == ("settings" not in change) and np.array_equal(mask_of(copy), before)
        assert (
            not segment.HasTag(segment_tags.UNREAD_TAG)
            and segment_tags.read_tag(segment, segment_tags.RECORD_TAG) == text
        )
        copy.add(point(7))
        assert segment_tags.read_tag(segment, segment_tags.UNREAD_TAG) == text
        third = open_desk()
        assert third.segment(left.segment_id).steps == copy.steps and not third.errors

    def test_a_record_of_a_later_version_is_set_aside(self, open_desk, desk, left):
        segment = desk.store.segment(left.segment_id)
        later = segment_tags.read_tag(segment, segment_tags.RECORD_TAG).replace(
            '"version":1,"model"', '"version":2,"model"'
        )
        segment_tags.write_tag(segment, segment_tags.RECORD_TAG, later)
        again = open_desk()
        assert len(again.errors) == 1 and segment_tags.read_tag(segment, segment_tags.RECORD_TAG) == later
        copy = again.segment(left.segment_id)
        copy.add(point(7))
        assert segment_tags.read_tag(segment, segment_tags.UNREAD_TAG) == later and list(again.kept(copy)) == ["1"]
        again.prompts.stop()
        segment_tags.write_tag(
            segment, segment_tags.RECORD_TAG, later.replace('"version":2,"model"', '"version":1,"model"')
        )
        assert list(open_desk().kept(copy)) == ["1", "2"], "it is whole"


@pytest.mark.parametrize("what", ["volume", "segmentation", "segment", "scene"])
@pytest.mark.parametrize("fails", [False, True])
def test_what_is_deleted_while_a_request_is_out(what, fails, desk, segment, scene, segmentation_node, volume_node):
    segment.add(point(3))
    desk.outcomes.clear()
    desk.client.is_slow, desk.client.fails = True, fails
    desk.drag(segment, "1", ras(5, 6, 7))
    add_objects(desk.session, [point(1)])
    if what == "scene":
        scene.Clear(False)
    elif what == "segment":
        segmentation_node.GetSegmentation().RemoveSegment(segment.segment_id)
    else:
        scene.RemoveNode(volume_node if what == "volume" else segmentation_node)
    nodes = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
    for n in range(len(desk.client.requests)):
        desk.client.reply(n)
    assert not desk.errors
    for call in (lambda: segment.add(point(6)), lambda: desk.session.undo(segment.segment_id)):
        with pytest.raises(GoneError):
            call()
    if what != "segment":
        assert desk.outcomes == [] and nodes == [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
        assert desk.session.request_id is None and desk.session.confirmation is None
    if what in ("scene", "segmentation"):
        assert not markups(scene)
    elif what == "segment":
        assert all(place.segment_id != segment.segment_id for place, _ in prompt_nodes(segmentation_node))
    else:
        desk.drag(segment, "1", ras(1, 1, 1))
        assert not desk.errors and mask_of(segment)[3].sum() == 25
    gc.collect()


WAYS_TO_TAKE_BACK = {
    "remove": lambda desk, segment: segment.remove("1"),
    "delete the markup": lambda desk, segment: desk.node(segment, "1").GetScene().RemoveNode(desk.node(segment, "1")),
    "add another one first": lambda desk, segment: (segment.add(point(6)), segment.remove("1")),
    "move first": lambda desk, segment: (segment.move("1", point(2)), segment.remove("1")),
    "turn first": lambda desk, segment: (segment.set_polarity("1", Polarity.NEGATIVE), segment.remove("1")),
}


@pytest.mark.parametrize("way", WAYS_TO_TAKE_BACK)
def test_a_prompt_whose_first_answer_was_out_is_taken_back(open_desk, way):
    before = open_desk()
    before.client.is_slow = True
    key = new_segment(before.session, "Liver").segment_id
    before.segment(key).add(point(3))
    desk = open_desk()
    segment = desk.segment(key)
    assert list(segment.prompts) == ["1"]
    WAYS_TO_TAKE_BACK[way](desk, segment)
    assert "1" not in segment.prompts and desk.errors == [] and mask_of(segment).sum() == 25 * len(segment.prompts)


def other_grid(kind, volume_node):
    array, matrix = slicer.util.arrayFromVolume(volume_node), np.eye(4)
    if kind == "turned":
        array, matrix = array[:, :, ::-1], np.diag([-1.0, 1, 1, 1])
        matrix[0, 3] = array.shape[2] - 1
    else:
        array, matrix[:3, 3] = array[1:6, 2:9, 2:9], (2, 2, 1)
    return add_volume_node(volume_node.GetScene(), Volume(array.copy(), Geometry(matrix, array.shape)))


@pytest.mark.parametrize("kind", ["cropped", "turned"])
@pytest.mark.parametrize("key", ["1", "outside", "box outside"])
@pytest.mark.parametrize("first", ["nothing", "undo"])
@pytest.mark.parametrize("choice", [SLICES, VOLUMES, None])
def test_prompts_of_a_cropped_or_turned_image_are_taken_back(segmentation_node, volume_node, kind, key, first, choice):
    before = SceneSession(segmentation_node, volume_node)
    segment = new_segment(before.session, "Liver")
    prompts = (point(3), point(7), BoxPrompt((ras(7, 0, 0), ras(7, 2, 3))))
    segment.add(*prompts)
    keys = dict(zip(("1", "outside", "box outside"), segment.prompts, strict=True))
    before.prompts.stop()
    desk = SceneSession(segmentation_node, other_grid(kind, volume_node), choice)
    again = desk.segment(segment.segment_id)
    voxels = mask_of(again)
    if first == "undo" and choice is not None:
        again.add(PointPrompt(tuple(desk.session.volume.geometry.to_ras((3, 3, 2)))))
        assert desk.session.undo(again.segment_id)
    again.remove(keys[key])
    assert keys[key] not in again.prompts and not desk.session.queued_targets()
    if choice is None:
        assert np.array_equal(mask_of(again), voxels), "nothing is asked, and what it added stays"
    desk.prompts.stop()


@pytest.mark.parametrize("action", ["remove", "delete", "move", "add and remove"])
def test_a_prompt_whose_first_answer_was_out_at_the_save_can_be_changed(open_desk, scene, action):
    desk = open_desk()
    desk.client.is_slow = True
    segment = new_segment(desk.session, "Liver")
    segment.add(point(3))
    desk = open_desk()  # as after a save or a crash: nothing was answered
    again = desk.segment(segment.segment_id)
    assert list(again.prompts) == ["1"]
    if action == "remove":
        again.remove("1")
    elif action == "delete":
        scene.RemoveNode(desk.node(again, "1"))
    elif action == "move":
        again.move("1", point(5))
    else:
        again.add(point(5))
        again.remove("1")
    assert not desk.errors and not desk.session.queued_targets()
    assert list(again.prompts) == {"move": ["1"], "add and remove": ["2"]}.get(action, [])
    assert mask_of(again).any() == bool(again.prompts)


@pytest.mark.parametrize("decimals", [4, 5, 6])
def test_a_label_that_nifti_rounded_is_on_the_grid_of_its_volume(scene, segmentation_node, tmp_path, decimals):
    axes = np.linalg.qr(np.random.default_rng(decimals).normal(size=(3, 3)))[0]
    matrix = np.eye(4)
    matrix[:3, :3] = np.round(axes, decimals) * (0.5, 0.5, 3)
    labels = np.zeros((6, 256, 256), np.uint8)
    labels[1:3, 100:140, 100:140] = 1
    image = np.arange(labels.size, dtype=np.int16).reshape(labels.shape)
    volume_node = add_volume_node(scene, Volume(image, Geometry(matrix, labels.shape)))
    written = nibabel.Nifti1Image(labels.T, matrix)
    written.set_qform(matrix, code=1)  # single precision, and axes made orthogonal
    written.set_sform(None, code=0)
    nibabel.save(written, tmp_path / "tool.nii.gz")
    label_node = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(tmp_path / "tool.nii.gz"))
    assert storage.ReadData(label_node)
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    assert logic.ImportLabelmapToSegmentationNode(label_node, segmentation_node)
    desk = SceneSession(segmentation_node, volume_node)
    (segment_id,) = desk.store.segment_ids
    assert np.array_equal(mask_of(desk.segment(segment_id)), labels > 0)
    desk.prompts.stop()
