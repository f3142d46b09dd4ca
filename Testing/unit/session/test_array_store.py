import numpy as np
import pytest

from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.geometry import Box, Geometry
from FoundationSegLib.imaging.masks import SegmentChange, pack_mask
from FoundationSegLib.session.segment_store import ArrayStore, NewSegment, OverlapPolicy, read_segment

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


def test_locked_and_unknown_segments(store):
    with pytest.raises(InputError, match="locked"):
        store.write_change("2", SegmentChange(gained=pack_mask(np.ones(SHAPE))), OverlapPolicy.ALLOW)
    with pytest.raises(InputError, match="no segment with the id '9'"):
        store.read("9")


def test_stamps_change_with_voxels_only(store):
    stamp = store.stamps()["3"]
    store.apply(store.write_change("3", SegmentChange(), OverlapPolicy.ALLOW))
    assert store.stamps()["3"] == stamp
    store.write_change("3", SegmentChange(gained=pack_mask(np.ones(SHAPE))), OverlapPolicy.ALLOW)
    assert store.stamps()["3"] != stamp


def test_ids_do_not_come_again(store):
    store.remove("3")
    assert store.add(NewSegment("D")) == "4" and store.segment_ids == ("1", "2", "4")
    assert store.occupied("2") == Box((1, 1, 1), (2, 2, 2)) and read_segment(store, "2").voxels == 1
