import base64
import json
import math
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from FoundationSegLib.errors import GeometryError, InputError
from FoundationSegLib.imaging.geometry import EMPTY_BOX, Box, bounding_box
from FoundationSegLib.imaging.masks import (
    EMPTY_MASK,
    Edit,
    MaskTable,
    PackedMask,
    SegmentChange,
    change_between,
    changed_checksum,
    checksum,
    mask_key,
    merge_masks,
    pack_mask,
)

image_shapes = array_shapes(min_dims=3, max_dims=3, max_side=7)


@st.composite
def masks(draw, shape):
    """Full, empty and anything between, drawn as bits: one by one would take long."""
    count = math.prod(shape)
    size = -(-count // 8)
    bits = draw(st.binary(min_size=size, max_size=size) | st.sampled_from([bytes(size), b"\xff" * size]))
    mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=count).astype(bool)
    mask[draw(st.integers(0, count)) :] = False
    return mask.reshape(shape)


several_masks = image_shapes.flatmap(lambda shape: st.lists(masks(shape), min_size=2, max_size=6))
starts = st.tuples(*[st.integers(0, 5)] * 3)


def placed(mask, start, room=(13, 14, 15)):
    """A mask in a larger image, its first voxel at ``start``."""
    image = np.zeros(room, bool)
    image[tuple(slice(a, a + n) for a, n in zip(start, mask.shape, strict=True))] = mask
    return image


@given(image_shapes.flatmap(masks), starts)
def test_packing_loses_nothing(mask, start):
    packed = pack_mask(mask, start)
    image = placed(mask, start)
    assert packed.box == bounding_box(image)
    assert np.array_equal(packed.expand(image.shape), image)
    assert np.array_equal(packed.unpack(), image[packed.box.slices])
    assert packed.voxels == np.count_nonzero(mask)
    assert packed.nbytes == len(packed.bits) == -(-int(np.prod(packed.box.shape_kji)) // 8)


@given(arrays(np.int16, image_shapes, elements=st.sampled_from([0, 0, 1, -1, 256, -32768])))
def test_any_type_any_order_of_memory_packs_alike(labels):
    expected = pack_mask(labels != 0)
    strided = np.repeat(labels, 2, axis=0)[::2]
    for twin in (labels.astype(">f8"), np.asfortranarray(labels), labels.astype(np.float16), strided):
        assert pack_mask(twin) == expected


def test_unpacking_gives_an_array_of_ones_own():
    packed = pack_mask(np.ones((2, 2, 2), bool))
    packed.unpack()[...] = False
    assert packed.unpack().dtype == np.bool_
    assert packed.unpack().all()


@pytest.mark.parametrize("box", [Box((5, 5, 5), (5, 9, 9)), Box((3, 3, 3), (1, 1, 1)), Box((-2, 0, 0), (-2, 4, 4))])
def test_every_empty_mask_is_the_same_and_fits_everywhere(box):
    empty = PackedMask(box, b"")
    assert empty == EMPTY_MASK
    assert empty.box == EMPTY_BOX
    assert empty.voxels == empty.nbytes == 0
    assert not empty.expand((1, 2, 3)).any()
    image = np.ones((1, 2, 3), bool)
    SegmentChange(empty, empty).apply(image)
    assert image.all()


@pytest.mark.parametrize("size", [0, 7, 9, 64])
def test_bits_that_do_not_fit_the_box_are_refused(size):
    with pytest.raises(GeometryError, match="does not fit its box"):
        PackedMask(Box((0, 0, 0), (4, 4, 4)), b"\xff" * size)


@pytest.mark.parametrize("start", [(-1, 0, 0), (0, 3, 0), (0, 0, 4), (100, 0, 0), (-3, 0, 0)])
def test_a_mask_outside_the_image_is_refused(start):
    packed = pack_mask(np.ones((2, 2, 2), bool), start)
    with pytest.raises(GeometryError, match="does not fit an image"):
        packed.expand((4, 4, 5))
    image = np.zeros((4, 4, 5), bool)
    inside = pack_mask(np.ones((1, 1, 1), bool))
    for change in (SegmentChange(gained=packed, lost=inside), SegmentChange(gained=inside, lost=packed)):
        image[0, 0, 0] = True
        with pytest.raises(GeometryError, match="does not fit an image"):
            change.apply(image)
        assert np.count_nonzero(image) == 1, "a refused change must change nothing"


def test_the_bits_are_in_order_of_the_array():
    mask = np.zeros((1, 2, 8), bool)
    mask[0, 0, 0] = mask[0, 1, 7] = True
    assert pack_mask(mask).bits == b"\x80\x01"


@given(several_masks, st.data())
def test_merging_is_the_union(some, data):
    packed, expected = [], np.zeros((13, 14, 15), bool)
    for mask in some:
        start = data.draw(starts)
        packed.append(pack_mask(mask, start))
        expected |= placed(mask, start)
    assert merge_masks(packed) == pack_mask(expected)


def test_merging_nothing_is_empty():
    assert merge_masks([]) == merge_masks([EMPTY_MASK, EMPTY_MASK]) == EMPTY_MASK


@given(several_masks, starts)
def test_a_change_leads_there_and_back(some, start):
    before, after = (placed(mask, start) for mask in some[:2])
    for change in (change_between(some[0], some[1], start), change_between(before, after)):
        image = before.copy()
        change.apply(image)
        assert np.array_equal(image, after)
        change.inverse().apply(image)
        assert np.array_equal(image, before)


@given(several_masks)
def test_a_change_is_what_was_gained_and_what_was_lost(some):
    before, after = some[:2]
    change = change_between(before, after)
    assert change.gained == pack_mask(after & ~before)
    assert change.lost == pack_mask(before & ~after)
    assert change.is_empty == np.array_equal(before, after)
    assert change.inverse().inverse() == change
    assert change.nbytes == change.gained.nbytes + change.lost.nbytes


@given(several_masks)
def test_arrays_of_labels_change_like_masks(some):
    before, after = some[:2]
    change = change_between(before * np.uint8(2), after * np.uint8(255))
    assert change == change_between(before, after)
    labels = before.astype(np.uint8)
    change.apply(labels)
    assert np.array_equal(labels, after.astype(np.uint8))


def test_a_change_touches_nothing_but_its_own_voxels():
    """Another hand may have painted beside the change meanwhile; undo leaves that alone."""
    before, after = np.zeros((3, 6, 6), bool), np.zeros((3, 6, 6), bool)
    after[1, 1, 1] = after[1, 4, 4] = True
    image = after.copy()
    image[1, 2, 2] = True
    change_between(before, after).inverse().apply(image)
    assert np.argwhere(image).tolist() == [[1, 2, 2]]


def test_masks_of_different_shapes_cannot_be_compared():
    with pytest.raises(GeometryError, match=r"\(1, 2, 3\) and \(3, 2, 1\)"):
        change_between(np.zeros((1, 2, 3), bool), np.zeros((3, 2, 1), bool))


@given(st.lists(several_masks, min_size=1, max_size=4))
def test_an_edit_of_several_segments_leads_there_and_back(pairs):
    before = {f"segment-{n}": pair[0] for n, pair in enumerate(pairs)}
    after = {f"segment-{n}": pair[1] for n, pair in enumerate(pairs)}
    edit = Edit({name: change_between(before[name], after[name]) for name in before})
    masks_kji = {name: mask.copy() for name, mask in before.items()} | {"other": np.ones((2, 2, 2), bool)}
    edit.apply(masks_kji)
    assert all(np.array_equal(masks_kji[name], after[name]) for name in after)
    edit.inverse().apply(masks_kji)
    assert all(np.array_equal(masks_kji[name], before[name]) for name in before)
    assert masks_kji["other"].all()
    assert edit.nbytes == edit.inverse().nbytes == sum(change.nbytes for change in edit.changes.values())


def test_an_edit_costs_what_it_changes_not_what_is_there():
    before = np.ones((40, 50, 60), bool)
    after = before.copy()
    after[20, 10:20, 10:18] = False
    assert Edit({"liver": change_between(before, after)}).nbytes == 10


@given(seed=st.integers(0, 99), ends=st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_some_slices_are_those_of_the_whole(seed, ends):
    rng = np.random.default_rng(seed)
    mask = pack_mask(rng.random((5, *rng.integers(1, 7, 2))) > 0.3)
    start, stop = sorted(min(end, mask.box.shape_kji[0]) for end in ends)
    assert np.array_equal(mask.unpack_slices(start, stop), mask.unpack()[start:stop])


MASK = pack_mask(np.random.default_rng(0).random((5, 6, 7)) > 0.5, (1, 2, 3))


def test_a_mask_is_found_by_its_key():
    table = MaskTable()
    key = table.put(MASK)
    assert table.get(key) == MASK and key == mask_key(MASK) and len(key) == 32
    assert table.put(EMPTY_MASK) == "" and table.get("") == EMPTY_MASK


def test_masks_travel_as_json():
    table, other = MaskTable(), MaskTable()
    key = table.put(MASK)
    other.take_document(json.loads(json.dumps(table.to_document([key, ""]))))
    assert other.get(key) == MASK and other.nbytes == table.nbytes > 0


def test_the_same_voxels_elsewhere_are_another_mask():
    assert mask_key(pack_mask(np.ones((1, 1, 1)), (0, 0, 1))) != mask_key(pack_mask(np.ones((1, 1, 1)), (0, 1, 0)))


def test_a_missing_mask_is_named():
    with pytest.raises(InputError, match="abc is missing"):
        MaskTable().get("abc")


@pytest.mark.parametrize(
    "damage",
    [
        {"bits": "%%"},
        {"bits": ""},
        {"start_kji": [0, 0]},
        {"stop_kji": [9, 9, 9]},
        {"stop_kji": [2**60, 9, 9]},
        {"stop_kji": [9.5, 9, 9]},
        {"bits": 7},
        {"bits": base64.b64encode(zlib.compress(bytes(10**7))).decode()},
    ],
)
def test_damage_is_found(damage):
    table = MaskTable()
    key = table.put(MASK)
    document = table.to_document([key])
    document[key] |= damage
    with pytest.raises(InputError, match="damaged"):
        MaskTable().take_document(document)
    with pytest.raises(InputError, match="voxels are others"):
        MaskTable().take_document({"0" * 32: table.to_document([key])[key]})


def test_no_more_memory_is_taken_than_the_image_needs():
    """Ten kilobytes of text that hold ten megabytes, with a box to match."""
    bits = base64.b64encode(zlib.compress(bytes(10**7))).decode()
    document = {"0" * 32: {"start_kji": (0, 0, 0), "stop_kji": (80_000, 100, 10), "bits": bits}}
    tracemalloc.start()
    with pytest.raises(InputError, match="reaches out of the image"):
        MaskTable(Box((0, 0, 0), (5, 6, 7))).take_document(document)
    small = document["0" * 32] | {"stop_kji": (5, 6, 7)}
    with pytest.raises(InputError, match="does not fit its box"):
        MaskTable(Box((0, 0, 0), (5, 6, 7))).take_document({"0" * 32: small})
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


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
