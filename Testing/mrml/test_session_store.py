import re
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util

from FoundationSegLib.errors import GeometryError
from FoundationSegLib.mrml.segment_store import SceneStore
from FoundationSegLib.mrml.segment_tags import lock
from FoundationSegLib.mrml.terminology import find_term
from FoundationSegLib.mrml.volumes import NodeImage, add_volume_node, volume_from_node
from FoundationSegLib.prompts.kinds import BoxPrompt, PointPrompt
from FoundationSegLib.session.segment_store import (
    ImageChanged,
    Options,
    OverlapPolicy,
    SegmentEdited,
)
from FoundationSegLib.session.segments import add_objects, next_segment
from FoundationSegLib.session.session import Session
from FoundationSegLib.worker.client import InlineClient
from Testing.unit.session.session_cases import SLICES, FakeClient, mask_of, ras, small_volume
from Testing.unit.session.session_machine import Machine
from Testing.unit.test_api import FakeEngine


@pytest.fixture
def volume_node(scene):
    return add_volume_node(scene, small_volume())


@pytest.fixture
def store(segmentation_node, volume_node):
    return SceneStore(segmentation_node, volume_node)


@pytest.fixture
def client(volume_node):
    return FakeClient(volume_from_node(volume_node))


@pytest.fixture
def session(store, client):
    outcomes = []
    session = Session(
        client.volume,
        store,
        client,
        Options(SLICES),
        on_outcome=outcomes.append,
        on_request=client.on_request,
        version="0",
    )
    session.listeners.append(store.describe)
    client.session, client.outcomes = session, outcomes
    return session


def paint(node, key, volume_node, mask):
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, key, volume_node)


def test_a_click_is_written_described_and_undone(session, store):
    segment = next_segment(session, "Liver")
    segment.add(PointPrompt(ras(3, 4, 5)))
    assert mask_of(segment)[3, 2:7, 3:8].all() and mask_of(segment).sum() == 25
    tags = store.provenance(segment.segment_id)
    assert (tags["Model"], tags["SHA256"], tags["Version"]) == ("fake", "ab", "0")
    assert '"position": [5.0, 4.0, 3.0]' in tags["Prompts"] and session.undo(segment.segment_id)
    assert not mask_of(segment).any() and store.provenance(segment.segment_id) == {}
    assert session.redo(segment.segment_id)
    assert mask_of(segment).sum() == 25 and store.provenance(segment.segment_id) == tags


def test_what_slicer_paints_becomes_the_seed(session, store, segmentation_node, volume_node):
    segment = next_segment(session)
    segment.add(PointPrompt(ras(3, 4, 5)))
    mask = mask_of(segment)
    mask[6, 1, 1] = True
    mask[3, 4, 5] = False
    paint(segmentation_node, segment.segment_id, volume_node, mask)
    assert not session.undo(segment.segment_id), "nothing of theirs is undone by us"
    assert np.array_equal(mask_of(segment), mask)
    segment.add(PointPrompt(ras(1, 4, 5)))
    assert segment.steps[-2].reason == "hand" and np.array_equal(mask_of(segment)[2:], mask[2:])
    assert session.undo(segment.segment_id) and np.array_equal(mask_of(segment), mask)


def test_an_edit_is_seen_though_the_layer_is_shared(session, store, segmentation_node):
    one, other = next_segment(session, "A"), next_segment(session, "B")
    one.add(PointPrompt(ras(3, 4, 5)))
    other.add(PointPrompt(ras(1, 4, 5)))
    segmentation_node.GetSegmentation().CollapseBinaryLabelmaps(False)
    assert session.detect_external_changes() == frozenset(), "saving changes nothing"
    one.add(PointPrompt(ras(5, 4, 5)))
    assert session.detect_external_changes() == frozenset()
    assert session.undo(other.segment_id) and session.undo(one.segment_id) and session.undo(one.segment_id)
    assert not mask_of(one).any() and not mask_of(other).any()


def test_numbered_segments_have_terms_and_colours_of_their_own(session, store):
    found = add_objects(session, [PointPrompt(ras(k, 4, 5)) for k in (1, 3, 5)], "Nodule")
    assert found == store.segment_ids
    segments = [store.segment(key) for key in store.segment_ids]
    assert [segment.GetName() for segment in segments] == ["Nodule 1", "Nodule 2", "Nodule 3"]
    assert len({segment.GetColor() for segment in segments}) == 3
    assert {segment.GetTerminology() for segment in segments} == {find_term("Nodule").serialized}
    assert len(session.client.requests) == 1


@pytest.mark.parametrize("what", ["nothing", "name", "colour", "term", "lock", "voxels"])
def test_a_new_segment_is_withdrawn_unless_somebody_made_it_his(session, store, what, segmentation_node, volume_node):
    segment = next_segment(session, "Nodule")
    key = segment.segment_id
    vtk_segment, look = store.segment(key), store.segment(key).GetColor()
    segment.add(PointPrompt(ras(3, 4, 5)))
    session.undo(key)
    if what == "name":
        vtk_segment.SetName("Mine")
    elif what == "colour":
        vtk_segment.SetColor(0.1, 0.2, 0.3)
    elif what == "term":
        vtk_segment.SetTerminology(find_term("Liver").serialized)
    elif what == "lock":
        lock(vtk_segment)
    elif what == "voxels":
        mask = mask_of(segment)
        mask[0, 0, 0] = True
        paint(segmentation_node, key, volume_node, mask)
    assert session.undo(key) == (what != "voxels") and (key in store.segment_ids) == (what != "nothing")
    if what == "nothing":
        next_segment(session, "Nodule")  # takes the number and the colour meanwhile
        assert session.redo(key) and session.redo(key) and mask_of(segment).sum() == 25
        again = store.segment(key)
        assert (again.GetName(), again.GetColor()) == ("Nodule 1", look)
        assert again.GetTerminology() == find_term("Nodule").serialized


def test_same_as_segment_editor(session, store, scene, segmentation_node):
    limit = next_segment(session, "Limit")
    limit.add(BoxPrompt((ras(0, 0, 0), ras(7, 4, 11))))
    editor = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.SetAndObserveSegmentationNode(segmentation_node)
    editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
    editor.SetMaskSegmentID(limit.segment_id)
    store.masking_node, session.options.policy = editor, OverlapPolicy.ALLOW
    inner = next_segment(session, "Inner")
    inner.add(PointPrompt(ras(3, 4, 5)))
    assert mask_of(inner).sum() == 15 and not mask_of(inner)[:, 5:].any()


class SceneMachine(Machine):
    """The same random operations, on Slicer's nodes."""

    def __init__(self, seed, session, client, segmentation_node, volume_node):
        self.nodes = segmentation_node, volume_node
        super().__init__(seed, session, client)

    def by_hand(self, key, mask):
        paint(self.nodes[0], key, self.nodes[1], mask)

    def remove_segment(self, key):
        self.nodes[0].GetSegmentation().RemoveSegment(key)

    def set_locked(self, key, is_locked):
        lock(self.store.segment(key), is_locked)

    def accept(self):
        """Once in a while the scene is saved, for which Slicer puts segments into one layer."""
        self.nodes[0].GetSegmentation().CollapseBinaryLabelmaps(False)
        super().accept()


def test_the_pages_script_for_slicer(segmentation_node, volume_node, capsys):
    page = Path(__file__).resolve().parents[2] / "Resources/Documentation/scripting.md"
    text = page.read_text(encoding="utf-8")
    script = re.findall(r"```python\n(.*?)```", text[text.index("## Sessions") :], re.S)[3]

    class Timer:
        is_on = False

        def start(self):
            self.is_on = True

        def stop(self):
            self.is_on = False

    names = {
        "segmentation_node": segmentation_node,
        "volume_node": volume_node,
        "client": InlineClient(FakeEngine()),
        "choice": SLICES,
        "timer": Timer(),
        "slice_views": [],
    }
    exec(script, names)
    assert names["timer"].is_on
    while names["timer"].is_on:
        names["poller"].tick()
    store = names["store"]
    assert store.read(store.segment_ids[0], store.geometry.box).sum() == 25 and "predicted" in capsys.readouterr().out
    assert names["prompts"].scene.segment_ids == store.segment_ids
    names["tool"].disable()
    names["prompts"].stop()


def test_voxels_of_the_image_that_others_change(session, client, volume_node):
    session.image_source = NodeImage(volume_node)
    session._image_stamp = session.image_source.stamp()
    segment = next_segment(session, "Liver")
    segment.add(PointPrompt(ras(3, 4, 5)))
    slicer.util.arrayFromVolume(volume_node)[0] += 1
    slicer.util.arrayFromVolumeModified(volume_node)
    segment.add(PointPrompt(ras(5, 4, 5)))
    keys = [request.volume_key for request in client.requests]
    assert keys[0] != keys[1] == volume_from_node(volume_node).key and mask_of(segment).sum() == 50
    assert [type(one) for one in client.outcomes] == [SegmentEdited, ImageChanged, SegmentEdited]
    volume_node.SetOrigin(1, 2, 3)
    with pytest.raises(GeometryError, match="moved"):
        segment.add(PointPrompt(ras(1, 4, 5)))
