import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.imaging.masks import change_between, checksum, pack_mask
from FoundationSegLib.session import segment_history
from FoundationSegLib.session.segment_history import TrackedSegment
from FoundationSegLib.session.segment_store import NewSegment
from FoundationSegLib.session.steps import SeedStep
from Testing.unit.session.session_cases import make_session, segment_of


@pytest.mark.parametrize("limit", [0, 40, 10**6])
@given(seeds=st.lists(st.integers(0, 99), min_size=1, max_size=8))
def test_a_tracked_mask_follows_every_change(seeds, limit):
    masks = [np.random.default_rng(seed).random((3, 4, 5)) < seed / 100 for seed in seeds]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_history, "_UNFOLDED_BYTES", limit)
        tracked, before = TrackedSegment(), masks[0]
        tracked.see(pack_mask(before))
        if seeds[0] % 2:
            tracked.checksum()
        for mask in masks[1:]:
            tracked.follow(change_between(before, mask))
            before = mask
        assert tracked.checksum() == checksum(pack_mask(before))
        assert tracked.voxels == before.sum() and tracked.mask() == pack_mask(before)


def test_a_segment_that_was_there_has_a_seed():
    session, _ = make_session()
    assert segment_of(session).steps == ()
    other = session.store.add(NewSegment("Old"))
    session.store.put(other, np.ones(session.volume.geometry.shape_kji))
    (seed,) = session.steps(other)
    assert isinstance(seed, SeedStep) and seed.reason == "start" and seed.mask
