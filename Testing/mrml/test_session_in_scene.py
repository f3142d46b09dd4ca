"""From the mouse to a saved scene and on: clicks in a slice view, markups, undo, `.mrb`, another model."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
import slicer
import slicer.util

from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.mrml.scene import boot_scene
from FoundationSegLib.mrml.slice_tool import SliceTool
from FoundationSegLib.mrml.volumes import add_volume_node
from FoundationSegLib.prompts.kinds import PointPrompt, Polarity
from FoundationSegLib.prompts.prompts_file import read_prompts, write_prompts
from FoundationSegLib.session.segment_store import OverlapPolicy
from FoundationSegLib.session.segments import export_prompts, import_prompts, next_segment
from Testing.mrml.conftest import AWKWARD
from Testing.mrml.scene_session import SceneSession, open_bundle, save_bundle
from Testing.unit.session.session_cases import SHAPE, SLICES, VOLUMES, mask_of, point, ras, small_volume

A, B = (150, 100), (250, 200)


class Bench(SceneSession):
    """A desk with the tool in a slice view, drawing into one segment or another."""

    def __init__(self, segmentation_node, volume_node, rig):
        super().__init__(segmentation_node, volume_node)
        self.rig = rig
        self.target = next_segment(self.session, "Lesion")
        self.tool = SliceTool(lambda prompt: self.target.add(prompt), self.errors.append)
        self.tool.enable(volume_node, [rig.view])

    def close(self):
        self.tool.disable()
        self.prompts.stop()


@pytest.fixture
def bench(segmentation_node, shown, rig):
    bench = Bench(segmentation_node, shown, rig)
    yield bench
    bench.close()
    assert rig.lines() == 0 and not bench.errors


def fill(bench):
    """Two segments, worked on as a user would."""
    first = bench.target
    bench.rig.drag(A)
    bench.rig.drag(B)
    bench.rig.drag((160, 110), ctrl=True)
    node = bench.node(first, "2")
    node.InvokeCustomModifiedEvent(node.PointStartInteractionEvent)
    x, y, z = node.GetNthControlPointPosition(0)
    node.SetNthControlPointPosition(0, (x + 6, y, z))
    node.InvokeCustomModifiedEvent(node.PointEndInteractionEvent)
    bench.target = next_segment(bench.session, "Lesion")
    bench.rig.slice_node.SetSliceOffset(bench.rig.slice_node.GetSliceOffset() + 4)
    bench.tool.kind = "box"
    bench.rig.drag((120, 90), (200, 180))
    return first, bench.target


def test_clicks_become_prompts_markups_and_voxels(bench):
    segment = bench.target
    bench.rig.drag(A)
    (prompt,) = segment.prompts.values()
    assert isinstance(prompt, PointPrompt) and np.allclose(bench.place(segment, "1"), prompt.position)
    k, j, i = bench.store.geometry.nearest_voxel(prompt.position)[::-1]
    first = mask_of(segment)
    assert first[k, j - 2 : j + 3, i - 2 : i + 3].all() and first.sum() == 25
    bench.rig.drag((160, 110), ctrl=True)
    assert segment.prompts["2"].polarity is Polarity.NEGATIVE and mask_of(segment).sum() < 25
    second, place = mask_of(segment), bench.place(segment, "1")
    bench.drag(segment, "1", (place[0] + 6, place[1], place[2]))
    assert not np.array_equal(mask_of(segment), second) and segment.prompts["1"].position != prompt.position
    assert bench.session.undo(segment.segment_id)
    assert np.array_equal(mask_of(segment), second) and np.allclose(bench.place(segment, "1"), place)
    assert bench.session.undo(segment.segment_id) and np.array_equal(mask_of(segment), first)
    assert bench.node(segment, "2") is None
    assert bench.session.undo(segment.segment_id) and not mask_of(segment).any() and bench.node(segment, "1") is None
    assert bench.session.redo(segment.segment_id) and np.array_equal(mask_of(segment), first)


@pytest.fixture
def saved(bench, scene, tmp_path):
    """A bundle, and what was in it."""
    segments = fill(bench)
    told = [
        (
            one.steps,
            dict(one.prompts),
            mask_of(one),
            dict(bench.store.provenance(one.segment_id)),
            bench.store.segment(one.segment_id).GetTerminology(),
            bench.store.name(one.segment_id),
        )
        for one in segments
    ]
    path = save_bundle(scene, tmp_path)
    bench.close()
    return path, told


@contextmanager
def opened(path, tmp_path):
    """A desk for the bundle, in another scene."""
    kept, volume, segmentation = open_bundle(path, tmp_path / "other cache")
    desk = SceneSession(segmentation, volume)
    yield desk, segmentation
    desk.prompts.stop()
    del kept


@pytest.fixture
def reopened(saved, tmp_path):
    """The bundle of a whole session."""
    path, told = saved
    with opened(path, tmp_path) as (desk, segmentation):
        yield desk, segmentation, told


def test_a_saved_session_goes_on(reopened):
    desk, segmentation, told = reopened
    scene = segmentation.GetScene()
    segments = [desk.segment(key) for key in desk.store.segment_ids]
    assert len(slicer.util.getNodesByClass("vtkMRMLMarkupsNode", scene)) == 4
    for one, (steps, prompts, mask, provenance, terminology, name) in zip(segments, told, strict=True):
        assert one.steps == steps and dict(one.prompts) == prompts == desk.kept(one)
        assert np.array_equal(mask_of(one), mask)
        assert desk.store.provenance(one.segment_id) == provenance and provenance["Model"] == "fake"
        assert desk.store.segment(one.segment_id).GetTerminology() == terminology != ""
        assert desk.store.name(one.segment_id) == name
        assert not desk.session.undo(one.segment_id), "the history starts here"
    first, (steps, _, mask, *_) = segments[0], told[0]
    desk.drag(first, "2", first.prompts["1"].position)
    assert first.steps[:-1] == steps and not np.array_equal(mask_of(first), mask)
    assert desk.session.undo(first.segment_id) and np.array_equal(mask_of(first), mask) and first.steps == steps
    assert desk.place(first, "2") == first.prompts["2"].position
    first.replay(steps)
    assert np.array_equal(mask_of(first), mask), "the steps give the same voxels again"
    assert not desk.errors


def test_a_saved_session_is_replayed_on_another_model(reopened, tmp_path):
    desk, _, told = reopened
    segments = [desk.segment(key) for key in desk.store.segment_ids]
    prompts = export_prompts(desk.session)
    write_prompts(tmp_path / "prompts.json", prompts)
    assert json.loads((tmp_path / "prompts.json").read_text())["segments"][0]["name"] == "Lesion 1"
    desk.session.options.policy = OverlapPolicy.ALLOW  # or it counts who was asked first
    for one in segments:
        one.ask_again(VOLUMES)
        assert desk.store.provenance(one.segment_id)["Model"] == desk.record(one).model == "volumes"
    asked_again = [mask_of(one) for one in segments]
    assert asked_again[0].sum() > told[0][2].sum()
    with scene_like(desk) as fresh:
        fresh.session.options.policy = OverlapPolicy.ALLOW
        keys = import_prompts(fresh.session, read_prompts(tmp_path / "prompts.json"))
        made = [fresh.segment(key) for key in fresh.store.segment_ids]
        assert len(keys) == len(made) == 2
        assert [fresh.store.name(one.segment_id) for one in made] == ["Lesion 1", "Lesion 2"]
        assert all(np.array_equal(mask_of(one), mask) for one, mask in zip(made, asked_again, strict=True))
        assert export_prompts(fresh.session) == prompts
        assert len(slicer.util.getNodesByClass("vtkMRMLMarkupsNode", fresh.scene)) == 4
    assert not desk.errors and not fresh.errors


@contextmanager
def scene_like(desk):
    """The same image in a scene of its own, with a model of volumes."""
    headless = boot_scene()
    volume_node = add_volume_node(headless.scene, desk.session.volume)
    fresh = SceneSession(headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode"), volume_node, VOLUMES)
    fresh.scene = headless.scene
    yield fresh
    fresh.prompts.stop()


def test_saved_while_a_request_is_out(scene, segmentation_node, tmp_path):
    desk = SceneSession(segmentation_node, add_volume_node(scene, small_volume()))
    segment = next_segment(desk.session)
    segment.add(point(3))
    before = mask_of(segment)
    desk.client.is_slow = True
    desk.drag(segment, "1", ras(5, 6, 7))
    segment.add(point(1))
    path = save_bundle(scene, tmp_path)
    desk.prompts.stop()
    with opened(path, tmp_path) as (again, _):
        copy = again.segment(segment.segment_id)
        assert copy.prompts == {"1": point(5, 6, 7), "2": point(1)} and np.array_equal(mask_of(copy), before)
        copy.ask_again(SLICES)
        assert mask_of(copy)[5, 4:9, 5:10].all() and mask_of(copy)[1].sum() == 25 and not mask_of(copy)[3].any()


@pytest.mark.parametrize("matrix", [np.diag([-1.0, 1, 1, 1]), np.array(AWKWARD.ijk_to_ras)], ids=["flipped", "sheared"])
def test_a_left_handed_image_is_turned_round_and_gone_on_with(matrix, scene, segmentation_node, tmp_path):
    """Slicer counts its slices from the other end when it reads it; the segmentation in the same bundle it does not."""
    volume = small_volume(geometry=Geometry(matrix, SHAPE))
    before = SceneSession(segmentation_node, add_volume_node(scene, volume))
    one, other = next_segment(before.session), next_segment(before.session)
    one.add(PointPrompt(tuple(volume.geometry.to_ras((5, 4, 3)).tolist())))
    other.add(PointPrompt(tuple(volume.geometry.to_ras((9, 8, 6)).tolist())))
    told = {segment.segment_id: mask_of(segment) for segment in (one, other)}
    path = save_bundle(scene, tmp_path)
    before.prompts.stop()
    with opened(path, tmp_path) as (desk, _):
        geometry = desk.session.volume.geometry
        assert np.linalg.det(matrix[:3, :3]) < 0 < np.linalg.det(geometry.ijk_to_ras[:3, :3])
        assert np.array_equal(desk.session.volume.array_kji, volume.array_kji[::-1])
        for key, mask in told.items():
            segment = desk.segment(key)
            assert np.array_equal(mask_of(segment), mask[::-1]), "every voxel is where it was"
            assert dict(segment.prompts) == {"1": before.kept(segment)["1"]}
        copy, rest = desk.segment(one.segment_id), desk.segment(other.segment_id)
        copy.add(PointPrompt(tuple(geometry.to_ras((5, 4, 0)).tolist())))
        assert mask_of(copy).sum() == 50 and np.array_equal(mask_of(rest), told[rest.segment_id][::-1])
        assert desk.session.undo(copy.segment_id) and np.array_equal(mask_of(copy), told[copy.segment_id][::-1])
        assert not desk.errors
