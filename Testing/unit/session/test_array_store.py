import numpy as np
import pytest

from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.masks import SegmentChange, pack_mask
from FoundationSegLib.session.segment_store import ArrayStore, NewSegment, OverlapPolicy

SHAPE = (3, 4, 5)


@pytest.fixture
def store():
    """A, locked B, and an empty C; A and B have a corner each."""
    store = ArrayStore(Geometry(np.eye(4), SHAPE))
    for name, corner in (("A", (0, 0, 0)), ("B", (1, 1, 1)), ("C", None)):
        mask = np.zeros(SHAPE, bool)
        if corner:
            mask[corner] = True
        store.put(store.add(NewSegment(name)), mask)
    store.lock("2")
    return store


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("protect", (1, 1, 58)), ("protect-locked", (0, 1, 59)), ("allow", (1, 1, 60)), ("overwrite", (0, 0, 60))],
)
def test_policies(store, policy, expected):
    edit = store.write_change("3", SegmentChange(gained=pack_mask(np.ones(SHAPE))), OverlapPolicy(policy))
    assert tuple(int(store.read(key).sum()) for key in "123") == expected
    store.apply(edit.inverse())
    assert tuple(int(store.read(key).sum()) for key in "123") == (1, 1, 0)
