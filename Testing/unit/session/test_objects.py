import numpy as np
import pytest

from FoundationSegLib.errors import GoneError, InputError, PromptError
from FoundationSegLib.prompts.kinds import BoxPrompt, PointPrompt, PromptSet, SegmentPrompts
from FoundationSegLib.prompts.prompts_file import parse_prompts, prompts_to_document
from FoundationSegLib.session import segments
from FoundationSegLib.session.segment_store import NewSegment, OverlapPolicy
from Testing.unit.session.session_cases import make_session, mask_of, ras


@pytest.fixture
def session():
    return make_session()[0]


def points(*slices):
    return [PointPrompt(ras(k, 4, 5)) for k in slices]


def masks(session):
    return [int(mask_of(segments.SegmentSession(session, key)).sum()) for key in session.store.segment_ids]


def names(session):
    return [session.store.name(key) for key in session.store.segment_ids]


def test_one_click_for_each_lesion_in_one_request(session):
    outcomes = []
    session.on_outcome = outcomes.append
    new = segments.add_objects(session, points(1, 3, 5))
    assert names(session) == ["Lesion 1", "Lesion 2", "Lesion 3"]
    assert len(session.client.requests) == 1 and masks(session) == [25, 25, 25]
    assert outcomes[0].created == session.store.segment_ids == new
    (more,) = segments.add_objects(session, points(7))
    assert session.store.name(more) == "Lesion 4"
    assert segments.add_objects(session, []) == ()


def test_they_are_undone_together(session):
    told = []
    session.on_outcome = told.append
    segments.add_objects(session, points(1, 3))
    assert session.undo("2") and masks(session) == [] and told[-1].removed == ("1", "2")
    assert not session.undo("2"), "there is nothing more"
    assert session.redo("1") and masks(session) == [25, 25] and told[-1].created == ("1", "2")
    assert names(session) == ["Lesion 1", "Lesion 2"]


def test_they_are_there_while_their_request_is_out_and_go_if_it_is_given_up(session):
    queued = []
    session.on_queued = queued.append
    session.client.fails = True
    new = segments.add_objects(session, points(1, 3))
    assert masks(session) == [0, 0] and queued == list(new)
    session.client.fails = False
    session.retry()
    assert masks(session) == [25, 25]
    session.client.fails = True
    segments.add_objects(session, points(5))
    assert session.discard() and names(session) == ["Lesion 1", "Lesion 2"]
    assert session.history.provisional == {}


def test_one_that_somebody_painted_in_meanwhile_stays(session):
    session.client.is_slow = True
    first, second = segments.add_objects(session, points(1, 3))
    mask = mask_of(segments.SegmentSession(session, first))
    mask[6, 6, 6] = True
    session.store.put(first, mask)
    session.discard()
    assert session.store.segment_ids == (first,) and masks(session) == [1]
    assert second not in session.known_ids


def test_prompts_that_wait_for_one_and_another_action(session):
    """The same new segment is in two actions; giving one up keeps it while the other waits."""
    session.client.is_slow = True
    (new,) = segments.add_objects(session, points(1))
    segment = segments.SegmentSession(session, new)
    segment.propagate()
    segment.add(*points(3))
    session.discard(new)
    assert session.store.segment_ids == ()


def test_a_new_segment_is_taken_away_by_undoing_and_comes_back(session):
    told = []
    session.on_outcome = told.append
    segment = segments.new_segment(session, "Liver")
    assert told == [], "whoever makes it knows"
    segment.add(*points(1))
    for _ in range(2):
        assert session.undo(segment.segment_id) and masks(session) == [0]
        assert session.undo(segment.segment_id) and names(session) == []
        assert not session.undo(segment.segment_id)
        assert session.redo(segment.segment_id) and names(session) == ["Liver"]
        assert session.redo(segment.segment_id) and masks(session) == [25]
        assert not session.redo(segment.segment_id)
    with pytest.raises(InputError, match="no change to reject"):
        other = segments.new_segment(session, "Spleen")
        session.reject(other.segment_id)


@pytest.mark.parametrize("what", ["renamed", "locked", "painted", "erased"])
def test_one_that_somebody_changed_stays(session, what):
    store = session.store
    segment = segments.new_segment(session, "Liver")
    if what == "renamed":
        store.rename(segment.segment_id, "Mine")
    elif what == "locked":
        store.lock(segment.segment_id)
    else:
        store.put(segment.segment_id, np.ones(store.geometry.shape_kji))
        session.detect_external_changes()
        if what == "erased":
            store.put(segment.segment_id, np.zeros(store.geometry.shape_kji))
    assert session.undo(segment.segment_id) == (what in ("renamed", "locked"))
    assert store.segment_ids == (segment.segment_id,)


def test_one_that_somebody_brought_back_is_theirs(session):
    segment = segments.new_segment(session, "Liver")
    session.undo(segment.segment_id)
    session.store.add(NewSegment("Liver", segment_id=segment.segment_id))
    assert not session.redo(segment.segment_id) and not session.undo(segment.segment_id)
    assert names(session) == ["Liver"]


def test_nothing_comes_back_where_all_is_gone(session):
    segment = segments.new_segment(session, "Liver")
    session.undo(segment.segment_id)
    session.store.is_gone = True
    with pytest.raises(GoneError):
        session.redo(segment.segment_id)


def test_names_of_objects_that_wait_are_taken(session):
    session.client.is_slow = True
    segments.add_objects(session, points(1))
    segments.add_objects(session, points(3))
    session.client.reply()
    store = session.store
    assert [store.name(key) for key in store.segment_ids] == ["Lesion 1", "Lesion 2"]


@pytest.mark.parametrize("policy", OverlapPolicy)
def test_objects_that_overlap(session, policy):
    session.options.policy = policy
    segments.add_objects(session, points(3, 3))
    first, second = masks(session)
    assert (first, second) == {"protect": (25, 0), "allow": (25, 25)}.get(policy, (0, 25))
    assert session.undo("1") and masks(session) == []


def test_prompts_go_out_and_in(session):
    segment = segments.next_segment(session, "Liver")
    segment.add(*points(1, 3))
    segments.next_segment(session, "Empty")
    document = prompts_to_document(segments.export_prompts(session))
    assert [entry["name"] for entry in document["segments"]] == ["Liver 1"]
    other, _ = make_session()
    segments.import_prompts(other, parse_prompts(document))
    assert segments.export_prompts(other) == segments.export_prompts(session) and masks(other) == [50]
    segments.import_prompts(other, parse_prompts(document))
    assert masks(other) == [50] and len(segments.SegmentSession(other, "1").prompts) == 4


def test_prompts_in_voxels(session):
    prompts = PromptSet((SegmentPrompts("A", (PointPrompt((5.0, 4.0, 3.0)),)),), "ijk")
    segments.import_prompts(session, prompts)
    assert masks(session) == [25]


def test_equal_names_are_told_apart(session):
    for _ in range(2):
        segment = segments.next_segment(session, "A")
        session.store.rename(segment.segment_id, "Same")
        segment.add(*points(3))
    assert [segment.name for segment in segments.export_prompts(session).segments] == ["Same", "Same (2)"]


def test_a_prompt_that_makes_no_sense_makes_nothing(session):
    with pytest.raises(PromptError):
        segments.add_objects(session, [BoxPrompt((ras(1, 1, 1), ras(1, 1, 1)))])
    assert session.store.segment_ids == ()
