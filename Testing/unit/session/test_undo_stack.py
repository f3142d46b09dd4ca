import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.imaging.masks import Edit, SegmentChange, change_between, checksum, pack_mask
from FoundationSegLib.session.steps import AcceptStep, SegmentState
from FoundationSegLib.session.tracking import TrackedSegment, UndoEntry, UndoStack


def change(*voxels):
    mask = np.zeros((2, 3, 4), bool)
    mask.flat[list(voxels)] = True
    return SegmentChange(gained=pack_mask(mask))


def entry(number, *segment_ids):
    edit = Edit({key: change(number) for key in segment_ids})
    return UndoEntry([edit], dict.fromkeys(segment_ids, state(number - 1)), dict.fromkeys(segment_ids, state(number)))


def state(number):
    return SegmentState().after(*[AcceptStep()] * number)


def number_of(entry):
    """The number that :func:`entry` made it with; None for none."""
    return next(len(state.steps) for state in entry.after.values()) if entry is not None else None


def test_what_lies_below_a_lost_action_is_lost():
    history = UndoStack()
    for number, keys in enumerate(("B", "A", "AB", "B", "C"), start=1):
        history.push(entry(number, *keys))
    history.forget("A")
    assert history.undo("A") is None
    assert number_of(history.undo("B")) == 4 and history.undo("B") is None
    assert number_of(history.undo("C")) == 5


def test_what_waits_below_a_lost_redo_is_lost():
    history = UndoStack()
    history.push(entry(1, "A", "B"))
    history.push(entry(2, "A"))
    assert history.undo("A") and history.undo("A")
    history.push(entry(3, "B"))
    assert history.redo("A") is None


def noise(seed, size=40):
    return pack_mask(np.random.default_rng(seed).random((size,) * 3) > 0.5)


def noisy(number):
    edit = Edit({"A": SegmentChange(noise(number), noise(1000 + number))})
    return UndoEntry([edit], {"A": state(number - 1)}, {"A": state(number)})


def test_the_oldest_fall_out_and_that_is_told():
    history = UndoStack(budget_bytes=6 * noisy(0).edits[0].nbytes)
    gone = [history.push(noisy(number)) for number in range(10)]
    assert sum(gone) >= 4 and history.nbytes <= history.budget_bytes
    left = 10 - sum(gone)
    for number in reversed(range(10 - left, 10)):
        assert number_of(history.undo("A")) == number
    assert history.undo("A") is None
    for number in range(10 - left, 10):
        assert number_of(history.redo("A")) == number


def test_what_is_larger_than_the_budget_cannot_be_undone():
    history = UndoStack(budget_bytes=100)
    assert history.push(noisy(1)) == 1
    assert history.undo("A") is None and history.nbytes == 0


def test_older_edits_are_compressed_and_come_back_as_they_were():
    history = UndoStack(budget_bytes=10**6)
    solid = [pack_mask(np.ones((100, 100, 50 + number), bool)) for number in range(20)]
    entries = [UndoEntry([Edit({"A": SegmentChange(gained=mask)})], {"A": state(0)}, {"A": state(1)}) for mask in solid]
    edits = [one.edits for one in entries]
    assert sum(history.push(one) for one in entries) == 0
    assert sum(mask.nbytes for mask in solid) > 10**6 > history.nbytes
    assert [history.undo("A").edits for _ in entries] == edits[::-1]


@pytest.mark.parametrize("kind", ["smooth", "noise"])
def test_a_hundred_prompts_of_150_voxels_stay_within_the_budget(bar, full, kind):
    """Each changes a cube of 150 voxels, gains and losses all over it; with noise nothing can be compressed."""
    history, size = UndoStack(), 150
    rng = np.random.default_rng(0)
    before = np.zeros((size,) * 3, bool)
    forgotten = 0
    for _ in range(100 if full else 30):
        if kind == "noise":
            after = rng.random(before.shape) > 0.5
        else:
            after = np.kron(rng.random((size // 10,) * 3) > 0.5, np.ones((10, 10, 10), bool))
        start = tuple(int(n) for n in rng.integers(0, (450, 362, 362)))
        edit = Edit({"A": change_between(before, after, start)})
        forgotten += history.push(UndoEntry([edit], {"A": state(0)}, {"A": state(1)}))
        before = after
    assert forgotten == 0 and history.nbytes < 200e6
    bar(f"history of {100 if full else 30} prompts, 150 voxels, {kind}, MB", history.nbytes / 1e6, "< 200")


@given(seeds=st.lists(st.integers(0, 99), min_size=1, max_size=8))
def test_a_tracked_mask_follows_every_change(seeds):
    masks = [np.random.default_rng(seed).random((3, 4, 5)) < seed / 100 for seed in seeds]
    tracked, before = TrackedSegment(), masks[0]
    tracked.see(pack_mask(before))
    if seeds[0] % 2:
        tracked.checksum()
    for mask in masks[1:]:
        tracked.follow(change_between(before, mask))
        before = mask
    assert tracked.checksum() == checksum(pack_mask(before))
    assert tracked.voxels == before.sum() and tracked.mask() == pack_mask(before)
