import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.imaging.geometry import Box, Geometry
from FoundationSegLib.imaging.masks import (
    EMPTY_MASK,
    boxes_by_slice,
    connected_part,
    cut_out,
    pack_mask,
    touched_slices,
)
from FoundationSegLib.prompts.regions import InsideBox
from FoundationSegLib.session.plan import AnswerMerge

SHAPE = (4, 5, 6)
GEOMETRY = Geometry(np.eye(4), SHAPE)


def random_mask(seed, density=0.4):
    return pack_mask(np.random.default_rng(seed).random(SHAPE) < density)


boxes = st.tuples(*[st.tuples(st.integers(0, 4), st.integers(1, 4))] * 3).map(
    lambda ends: Box(tuple(a for a, _ in ends), tuple(a + b for a, b in ends)).intersection(GEOMETRY.box)
)
masks = st.integers(0, 50).map(lambda seed: EMPTY_MASK if seed == 0 else random_mask(seed, seed / 60))


@st.composite
def combinations(draw):
    return AnswerMerge(
        GEOMETRY,
        seed=draw(masks),
        ground=draw(masks),
        replaces=draw(st.booleans()),
        erased=tuple(draw(st.lists(boxes, max_size=2))),
        erased_parts=tuple(draw(st.lists(masks, max_size=1))),
        around=draw(st.none() | st.sampled_from(["i", "j", "k"])),
        zone=draw(st.none() | boxes),
        kept=tuple(draw(st.lists(boxes, max_size=2))),
        region=draw(st.none() | boxes.map(InsideBox)),
        denied=draw(masks),
        retained=draw(masks),
    )


@given(combination=combinations(), answer=masks, box=boxes)
def test_a_box_of_the_result_is_a_box_of_the_whole_result(combination, answer, box):
    whole = combination.result(answer, GEOMETRY.box)
    assert np.array_equal(combination.result(answer, box), whole[box.slices])


@given(combination=combinations(), answer=masks)
def test_outside_the_reach_the_seed_stays(combination, answer):
    whole, seed = combination.result(answer, GEOMETRY.box), combination.seed.expand(SHAPE)
    whole[combination.reach(answer).slices] = seed[combination.reach(answer).slices]
    assert np.array_equal(whole, seed)


@given(combination=combinations(), answer=masks)
def test_outside_the_region_nothing_changes(combination, answer):
    if combination.region is not None and combination.denied == combination.retained == EMPTY_MASK:
        outside = np.ones(SHAPE, bool)
        outside[combination.region.box.slices] = False
        whole = combination.result(answer, GEOMETRY.box)
        assert np.array_equal(whole[outside], combination.seed.expand(SHAPE)[outside])


@given(seed=st.integers(0, 999), size=st.integers(1, 9))
def test_connected_parts_against_a_flood(seed, size):
    rng = np.random.default_rng(seed)
    voxels = rng.random((3, size, 7)) < 0.6
    at = tuple(int(rng.integers(0, n)) for n in voxels.shape)
    expected = np.zeros_like(voxels)
    open_ends = [at] if voxels[at] else []
    while open_ends:
        here = open_ends.pop()
        if all(0 <= n < size for n, size in zip(here, voxels.shape, strict=True)) and voxels[here] > expected[here]:
            expected[here] = True
            steps = [tuple(int(n) for n in row) for row in (*np.eye(3, dtype=int), *-np.eye(3, dtype=int))]
            open_ends += [tuple(a + b for a, b in zip(here, step, strict=True)) for step in steps]
    part = connected_part(pack_mask(voxels, (1, 2, 3)), Box((0, 0, 0), (9, 20, 20)), [tuple(np.add(at, (1, 2, 3)))])
    assert np.array_equal(cut_out(part, Box((1, 2, 3), tuple(np.add(voxels.shape, (1, 2, 3))))), expected)


def test_slices_of_a_mask():
    mask = np.zeros(SHAPE, bool)
    mask[1, 2, 3] = mask[3, 1:3, 2] = True
    packed = pack_mask(mask)
    assert touched_slices(packed, "k") == (1, 3) and touched_slices(packed, "j") == (1, 2)
    assert touched_slices(EMPTY_MASK, "i") == ()
    assert boxes_by_slice(packed, "k") == (Box((1, 2, 3), (2, 3, 4)), Box((3, 1, 2), (4, 3, 3)))
    assert boxes_by_slice(EMPTY_MASK, "k") == ()
