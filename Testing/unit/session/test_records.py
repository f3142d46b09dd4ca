import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.imaging.masks import change_between, checksum, pack_mask
from FoundationSegLib.session import segment_state as records
from FoundationSegLib.session.segment_state import KnownMask, RecordState, kept_steps, open_record
from FoundationSegLib.session.segment_store import NewSegment
from FoundationSegLib.session.steps import SeedStep, state_of
from Testing.unit.session.session_cases import document_of, make_session, point, segment_of


@pytest.mark.parametrize("limit", [0, 40, 10**6])
@given(seeds=st.lists(st.integers(0, 99), min_size=1, max_size=8))
def test_what_is_known_follows_every_change(seeds, limit):
    masks = [np.random.default_rng(seed).random((3, 4, 5)) < seed / 100 for seed in seeds]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_UNFOLDED_BYTES", limit)
        known, before = KnownMask.of(pack_mask(masks[0])), masks[0]
        if seeds[0] % 2:
            known.checksum()
        for mask in masks[1:]:
            known.take(change_between(before, mask))
            before = mask
        assert known.checksum() == checksum(pack_mask(before))
        assert known.voxels == before.sum() and known.mask() == pack_mask(before)


def test_a_record_goes_on_where_it_ended():
    session, _ = make_session()
    segment = segment_of(session)
    segment.add(point(3))
    history = session.history
    record = history.record(segment.segment_id)
    document = document_of(kept_steps(record, history.masks))
    again = open_record(history.store, segment.segment_id, history.masks, document)
    assert again.state.steps == record.state.steps and again.state.standing == state_of(record.state.steps)
    assert again.state.provenance["Model"] == "fake"


def test_a_segment_that_was_there_has_a_seed():
    session, _ = make_session()
    segment = segment_of(session)
    store = session.store
    assert session.history.record(segment.segment_id).state == RecordState()
    other = store.add(NewSegment("Old"))
    store.put(other, np.ones(store.geometry.shape_kji))
    (seed,) = session.history.record(other).state.steps
    assert isinstance(seed, SeedStep) and seed.reason == "start" and seed.mask
