import pytest

from FoundationSegLib.core.errors import PromptError
from FoundationSegLib.core.objects import add_objects, export_prompts, import_prompts, next_segment
from FoundationSegLib.core.overlap import OverlapPolicy
from FoundationSegLib.core.prompts import BoxPrompt, PointPrompt, PromptSet, SegmentPrompts
from FoundationSegLib.core.prompts_document import parse_prompts, prompts_to_document
from FoundationSegLib.core.session_segment import SegmentSession
from Testing.unit.core.session_cases import make_session, mask_of, ras


@pytest.fixture
def session():
    return make_session()[0]


def points(*slices):
    return [PointPrompt(ras(k, 4, 5)) for k in slices]


def masks(session):
    return [int(mask_of(SegmentSession(session, key)).sum()) for key in session.ledger.store.segment_ids]


def test_one_click_for_each_lesion_in_one_request(session):
    outcomes = []
    session.on_outcome = outcomes.append
    new = add_objects(session, points(1, 3, 5))
    assert [one.name for one in new] == ["Lesion 1", "Lesion 2", "Lesion 3"]
    assert len(session.client.requests) == 1 and masks(session) == [25, 25, 25]
    assert outcomes[0].created == session.ledger.store.segment_ids
    assert [one.name for one in add_objects(session, points(7))] == ["Lesion 4"]
    assert add_objects(session, []) == ()


def test_they_are_undone_together(session):
    add_objects(session, points(1, 3))
    assert session.undo("2") and masks(session) == [0, 0]
    assert session.redo("1") and masks(session) == [25, 25]


def test_nothing_is_made_where_the_request_fails(session):
    session.client.fails = True
    add_objects(session, points(1, 3))
    assert session.ledger.store.segment_ids == () and session.discard()


def test_names_of_objects_that_wait_are_taken(session):
    session.client.is_slow = True
    add_objects(session, points(1))
    add_objects(session, points(3))
    session.client.reply()
    store = session.ledger.store
    assert [store.name(key) for key in store.segment_ids] == ["Lesion 1", "Lesion 2"]


@pytest.mark.parametrize("policy", OverlapPolicy)
def test_objects_that_overlap(session, policy):
    session.options.policy = policy
    add_objects(session, points(3, 3))
    first, second = masks(session)
    assert (first, second) == {"protect": (25, 0), "allow": (25, 25)}.get(policy, (0, 25))
    assert session.undo("1") and masks(session) == [0, 0]


def test_the_next_segment_has_the_next_number(session):
    names = [session.ledger.store.name(next_segment(session, "Nodule").segment_id) for _ in range(3)]
    assert names == ["Nodule 1", "Nodule 2", "Nodule 3"]


def test_prompts_go_out_and_in(session):
    segment = next_segment(session, "Liver")
    segment.add(*points(1, 3))
    next_segment(session, "Empty")
    document = prompts_to_document(export_prompts(session))
    assert [entry["name"] for entry in document["segments"]] == ["Liver 1"]
    other, _ = make_session()
    import_prompts(other, parse_prompts(document))
    assert export_prompts(other) == export_prompts(session) and masks(other) == [50]
    import_prompts(other, parse_prompts(document))
    assert masks(other) == [50] and len(SegmentSession(other, "1").prompts) == 4


def test_prompts_in_voxels(session):
    prompts = PromptSet((SegmentPrompts("A", (PointPrompt((5.0, 4.0, 3.0)),)),), "ijk")
    import_prompts(session, prompts)
    assert masks(session) == [25]


def test_equal_names_are_told_apart(session):
    for _ in range(2):
        segment = next_segment(session, "A")
        session.ledger.store._segments[segment.segment_id].name = "Same"
        segment.add(*points(3))
    assert [segment.name for segment in export_prompts(session).segments] == ["Same", "Same (2)"]


def test_a_prompt_that_makes_no_sense_makes_nothing(session):
    with pytest.raises(PromptError):
        add_objects(session, [BoxPrompt((ras(1, 1, 1), ras(1, 1, 1)))])
    assert session.ledger.store.segment_ids == ()
