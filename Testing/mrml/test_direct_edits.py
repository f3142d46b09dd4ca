import pytest
import slicer

from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.geometry import as_vector
from FoundationSegLib.mrml.segment_tags import lock, write_tag
from FoundationSegLib.prompts.kinds import BoxPrompt
from FoundationSegLib.session.segment_store import SegmentEdited
from FoundationSegLib.session.segments import clear_segments, last_deleted, new_segment, take_withheld
from FoundationSegLib.session.steps import SegmentState
from Testing.mrml.scene_session import SceneSession


@pytest.fixture
def desk(segmentation_node, volume_node):
    """Two boxes that overlap: the second one's neighbour kept four voxels."""
    segmentation_node.CreateDefaultDisplayNodes()
    desk = SceneSession(segmentation_node, volume_node)
    for name, first, last in (("Spleen", (1, 1, 2), (4, 4, 2)), ("Lesion", (3, 3, 2), (6, 6, 2))):
        to_ras = desk.session.volume.geometry.to_ras
        new_segment(desk.session, name).add(BoxPrompt((as_vector(to_ras(first)), as_vector(to_ras(last)))))
    yield desk
    desk.prompts.stop()


def everything(desk, segmentation_node):
    """All that a user sees of the segments, in order."""
    segmentation, display = segmentation_node.GetSegmentation(), segmentation_node.GetDisplayNode()
    rows = []
    for key in desk.session.segment_ids:
        segment, prompts = segmentation.GetSegment(key), desk.segment(key).prompts
        look = segment.GetName(), segment.GetColor(), segment.GetTerminology(), display.GetSegmentVisibility(key)
        nodes = [desk.prompts.scene.node(key, prompt) is not None for prompt in prompts]
        rows.append((key, look, desk.session.mask(key), dict(prompts), nodes))
    return rows


@pytest.mark.parametrize("removes", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_undo_brings_all_back(desk, segmentation_node, removes, count):
    ids = desk.session.segment_ids[:count]
    write_tag(segmentation_node.GetSegmentation().GetSegment(ids[0]), "Mine", "yes")
    segmentation_node.GetDisplayNode().SetSegmentVisibility(ids[0], False)
    before = everything(desk, segmentation_node)
    clear_segments(desk.session, ids, removes)
    after = everything(desk, segmentation_node)
    assert desk.outcomes[-1].kind == ("deleted" if removes else "cleared")
    assert [row[0] for row in after] == [row[0] for row in before[count if removes else 0 :]]
    assert last_deleted(desk.session) == (ids[0] if removes else "")
    assert removes or not any(row[2].voxels or row[3] for row in after[:count])
    assert desk.session.undo(ids[0]) and everything(desk, segmentation_node) == before
    assert segmentation_node.GetSegmentation().GetSegment(ids[0]).HasTag("Mine")
    assert desk.session.redo(ids[0]) and everything(desk, segmentation_node) == after
    assert desk.session.undo(ids[0]) and everything(desk, segmentation_node) == before
    assert desk.session.undo(ids[0]) and desk.session.voxels(ids[0]) == 0  # the box that came before


def test_locked_segments_stay(desk, segmentation_node):
    ids = desk.session.segment_ids
    lock(segmentation_node.GetSegmentation().GetSegment(ids[1]), True)
    before = everything(desk, segmentation_node)
    with pytest.raises(InputError, match="unlock it first"):
        clear_segments(desk.session, ids, removes=True)
    assert everything(desk, segmentation_node) == before


@pytest.mark.parametrize("is_locked", [False, True])
def test_neighbours_are_named_and_their_voxels_can_be_taken(desk, segmentation_node, is_locked):
    spleen, lesion = desk.session.segment_ids
    assert desk.outcomes[-1].withheld == {spleen: 4} and desk.session.voxels(lesion) == 12
    lock(segmentation_node.GetSegmentation().GetSegment(spleen), is_locked)
    before = everything(desk, segmentation_node)
    take_withheld(desk.session, lesion)
    assert desk.session.voxels(lesion) == (12 if is_locked else 16)
    assert desk.session.voxels(spleen) == (16 if is_locked else 12)
    assert desk.session.undo(lesion) and everything(desk, segmentation_node) == before
    with pytest.raises(InputError, match="no neighbour kept"):
        take_withheld(desk.session, spleen)


def test_an_answer_tells_of_all_its_tags_at_once(desk, segmentation_node):
    """Each event has all views, tables and the subject hierarchy updated, which holds the window."""
    segment = desk.segment(desk.session.segment_ids[0])
    before = segment.session.provenance(segment.segment_id)
    heard = []
    code = slicer.vtkSegmentation.SegmentModified
    tag = segmentation_node.AddObserver(code, lambda *_: heard.append(segment.session.provenance(segment.segment_id)))
    now = SegmentState(provenance={"Model": "another", "Repository": "elsewhere", "Revision": "2"})
    desk.store.describe(SegmentEdited("others", {segment.segment_id: now}))
    segmentation_node.RemoveObserver(tag)
    assert before and heard == [{"Model": "another", "Repository": "elsewhere", "Revision": "2"}]
