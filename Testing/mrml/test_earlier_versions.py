"""Scenes and recovery folders of earlier versions open, mean what they meant, and are gone on with.

`Testing/fixtures/README.md` says which version wrote the files, and how. All that is compared here is read from
Slicer's own nodes, so that nothing but the session that goes on has to be imported.
"""

import hashlib
import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import slicer
import slicer.util
import vtk

from FoundationSegLib.errors import InputError
from FoundationSegLib.mrml.scene_recovery import find_lost_sessions
from FoundationSegLib.prompts.kinds import PointPrompt
from Testing.mrml.scene_session import SceneSession, open_bundle

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
TAGS = ("Model", "Repository", "Revision", "SHA256", "Prompts", "Version", "Intensity", "Locked")
STEPS = (
    "accept polarity-changed prompt-added prompt-moved prompt-removed propagate region reject seed settings withheld"
)


class OpenedScene:
    """A scene file, and a session on its nodes that a model of rules answers."""

    def __init__(self, path, cache):
        self.kept, self.volume, self.segmentation = open_bundle(path, cache)
        self.scene = self.volume.GetScene()
        self.desk = SceneSession(self.segmentation, self.volume)

    def add_point(self, name, index_ijk):
        """Click on a voxel, for a segment; returns it."""
        segment = self.desk.segment(self.segmentation.GetSegmentation().GetSegmentIdBySegmentName(name))
        segment.add(PointPrompt(tuple(self.desk.session.volume.geometry.to_ras(index_ijk).tolist())))
        return segment

    def save(self, path):
        assert self.scene.WriteToMRB(str(path), None)
        return path


@contextmanager
def opened(path, tmp_path):
    cache = tmp_path / f"cache of {path.name}"
    scene = OpenedScene(path, cache)
    try:
        yield scene
        assert not scene.desk.errors
    finally:
        scene.desk.prompts.stop()


def content(segmentation_node, volume_node):
    """Steps, prompts, tags and voxels of every segment, and its markups, as JSON values."""
    segmentation = segmentation_node.GetSegmentation()
    segments = {key: segmentation.GetSegment(key) for key in segmentation.GetSegmentIDs()}
    return {
        segment.GetName(): segment_content(segmentation_node, volume_node, key) for key, segment in segments.items()
    }


def segment_content(segmentation_node, volume_node, segment_id):
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation_node, segment_id, volume_node)
    record = json.loads(tag(segment, "PromptRecord"))
    grid = record["settings"]["grid"]
    grid["ijk_to_ras"] = [[round(number, 9) for number in row] for row in grid["ijk_to_ras"]]
    nodes = slicer.util.getNodesByClass("vtkMRMLMarkupsNode", segmentation_node.GetScene())
    markups = {
        node.GetAttribute("FoundationSeg.Prompt"): [node.GetClassName(), node.GetNumberOfControlPoints()]
        for node in nodes
        if node.GetAttribute("FoundationSeg.Segment") == segment_id
        and node.GetNodeReference("FoundationSeg.Segmentation") is segmentation_node
    }
    return {
        "record": record,
        "masks": {key: digest(tag(segment, f"Mask.{key}").encode()) for key in masks_of(record)},
        "tags": {name: text for name in TAGS if (text := tag(segment, name)) is not None},
        "terminology": segment.GetTerminology(),
        "markups": markups,
        "voxels": int(mask.sum()),
        "sha256": digest(np.packbits(mask > 0).tobytes()),
    }


def tag(segment, name):
    text = vtk.reference("")
    return unquote(str(text)) if segment.GetTag(f"FoundationSeg.{name}", text) else None


def steps_of(record):
    return record["steps"]["steps"]


def masks_of(record):
    keys = ("mask", "touched", "denied", "retained", "voxels")
    return sorted({entry[key] for entry in steps_of(record) for key in keys if entry.get(key)})


def digest(content):
    return hashlib.sha256(content).hexdigest()


def test_the_scene_holds_every_kind_of_step_and_prompt():
    records = [segment["record"] for segment in EXPECTED["scene"].values()]
    assert {entry["step"] for record in records for entry in steps_of(record)} == set(STEPS.split())
    kinds = {entry["prompt"]["type"] for record in records for entry in steps_of(record) if "prompt" in entry}
    assert kinds == {"point", "box", "scribble", "lasso", "mask", "text", "class"}


@pytest.mark.parametrize(("name", "index_ijk"), [("scene", (3, 16, 10)), ("transformed", (15, 10, 5))])
def test_a_scene_opens_goes_on_and_is_saved_again(name, index_ijk, tmp_path):
    expected = EXPECTED[name]
    with opened(FIXTURES / f"{name}.mrb", tmp_path) as scene:
        assert content(scene.segmentation, scene.volume) == expected
        segment = scene.add_point("Liver", index_ijk)
        changed = content(scene.segmentation, scene.volume)["Liver"]
        assert len(steps_of(changed["record"])) > len(steps_of(expected["Liver"]["record"]))
        assert changed["voxels"] > expected["Liver"]["voxels"]
        assert len(changed["markups"]) == len(expected["Liver"]["markups"]) + 1
        assert scene.desk.session.undo(segment.segment_id)
        assert content(scene.segmentation, scene.volume) == expected, "what was read is written again as it was"
        assert scene.desk.session.redo(segment.segment_id)
        changed = content(scene.segmentation, scene.volume)
        path = scene.save(tmp_path / f"{name} again.mrb")
    with opened(path, tmp_path) as scene:
        assert content(scene.segmentation, scene.volume) == changed
        transform = scene.volume.GetParentTransformNode()
        assert (transform is not None) == (name == "transformed")
        assert scene.segmentation.GetParentTransformNode() is transform


def test_a_lock_holds(tmp_path):
    with opened(FIXTURES / "scene.mrb", tmp_path) as scene:
        with pytest.raises(InputError, match="locked"):
            scene.add_point("Mass", (15, 10, 6))
        assert content(scene.segmentation, scene.volume) == EXPECTED["scene"]


def test_the_same_steps_give_the_same_voxels(tmp_path):
    with opened(FIXTURES / "transformed.mrb", tmp_path) as scene:
        segment = scene.add_point("Liver", (15, 10, 5))
        segment.replay(segment.steps[:-1])
        assert content(scene.segmentation, scene.volume) == EXPECTED["transformed"]


def test_a_session_that_was_interrupted_is_put_back(tmp_path):
    folder = shutil.copytree(FIXTURES / "recovery", tmp_path / "recovery")
    with opened(FIXTURES / "scene.mrb", tmp_path) as scene:
        (lost,) = find_lost_sessions(folder)
        assert lost.segments == ("Left kidney", "Vessel") and lost.find_volume(scene.scene) is scene.volume
        node = lost.restore(scene.volume)
        assert node is not scene.segmentation
        lost.discard()
        assert not folder.exists() and content(node, scene.volume) == EXPECTED["recovery"]
        assert content(scene.segmentation, scene.volume) == EXPECTED["scene"]
        again = SceneSession(node, scene.volume)
        try:
            segment = again.segment(node.GetSegmentation().GetSegmentIdBySegmentName("Vessel"))
            segment.remove(tuple(segment.prompts)[-1])
            assert content(node, scene.volume)["Vessel"]["voxels"] < EXPECTED["recovery"]["Vessel"]["voxels"]
            assert again.session.undo(segment.segment_id) and content(node, scene.volume) == EXPECTED["recovery"]
        finally:
            again.prompts.stop()
