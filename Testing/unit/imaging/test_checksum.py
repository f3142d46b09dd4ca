import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.imaging.masks import EMPTY_MASK, change_between, changed_checksum, checksum, pack_mask

SHAPE = (19, 5, 21)  # more slices than are looked at at once, and rows of several words


def mask(seed, share):
    return np.random.default_rng(seed).random(SHAPE) < share


@given(st.lists(st.tuples(st.integers(0, 99), st.floats(0, 1)), min_size=2, max_size=6))
def test_it_follows_changes(states):
    before = mask(*states[0])
    found = checksum(pack_mask(before))
    for state in states[1:]:
        after = mask(*state)
        found = changed_checksum(found, change_between(before, after))
        before = after
    assert found == checksum(pack_mask(before))


@given(st.integers(0, 99), st.tuples(*(st.integers(0, 40) for _ in SHAPE)))
def test_the_place_counts_and_the_array_around_does_not(seed, start):
    part = pack_mask(mask(seed, 0.3), start)
    roomy = np.zeros([n + 60 for n in SHAPE], bool)
    roomy[part.box.slices] = part.unpack()
    assert checksum(part) == checksum(pack_mask(roomy))
    moved = pack_mask(mask(seed, 0.3), (start[0], start[1], start[2] + 1))
    assert checksum(moved) != checksum(part)


def test_all_that_differ_have_others():
    """Every single voxel, every pair that swaps two, and many random masks."""
    single = {}
    for index in np.ndindex(*SHAPE):
        one = np.zeros(SHAPE, bool)
        one[index] = True
        single[index] = checksum(pack_mask(one))
    assert len(set(single.values())) == np.prod(SHAPE)
    sums = np.array(list(single.values()), np.uint64)
    some = sums[np.random.default_rng(0).choice(len(sums), 1000, replace=False)]
    pairs = (some[:, None] + some[None])[np.triu_indices(len(some), 1)]
    assert len(np.unique(pairs)) == len(pairs)
    assert len({checksum(pack_mask(mask(seed, 0.5))) for seed in range(200)}) == 200


def test_nothing_has_none():
    assert checksum(EMPTY_MASK) == 0


def test_it_is_the_same_everywhere():
    """Scenes keep it: another number system, byte order or numpy must not change it."""
    assert f"{checksum(pack_mask(mask(1, 0.5), (1, 2, 3))):016x}" == "9247f391e1a05c0c"
