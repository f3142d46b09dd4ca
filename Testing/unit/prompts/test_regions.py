import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.errors import InputError, PromptError
from FoundationSegLib.imaging.geometry import Box, Geometry
from FoundationSegLib.imaging.masks import EMPTY_MASK, pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.prompts import kinds, regions
from Testing.unit.strategies import geometries

GEOMETRY = Geometry(np.diag([1.0, 2.0, 3.0, 1.0]), (6, 8, 10))
WHOLE = GEOMETRY.box


def test_a_range_of_slices_and_a_box():
    inside = regions.inside_region(regions.SliceRange("k", 2, 4), (), GEOMETRY, WHOLE)
    assert inside[2:4].all() and inside.sum() == 2 * 80
    box = Box((1, 2, 3), (3, 4, 5))
    assert regions.inside_region(regions.InsideBox(box), (), GEOMETRY, WHOLE).sum() == 8
    assert regions.inside_region(regions.InsideBox(box), (), GEOMETRY, Box((2, 0, 0), (6, 8, 10))).sum() == 4
    assert regions.slab("j", 5, 20, GEOMETRY) == Box((0, 5, 0), (6, 8, 10))


@given(geometry=geometries(), where=st.tuples(*[st.floats(0, 1)] * 3), radius=st.floats(0.1, 30))
def test_around_a_point_is_a_distance_in_mm(geometry, where, radius):
    k, j, i = (int(part * (n - 1)) for part, n in zip(where, geometry.shape_kji, strict=True))
    centre = geometry.to_ras((i, j, k))
    inside = regions.inside_region(
        regions.AroundPrompt(radius), (kinds.PointPrompt(tuple(centre)),), geometry, geometry.box
    )
    index = np.indices(geometry.shape_kji).reshape(3, -1).T[:, ::-1]
    distance = np.linalg.norm(geometry.to_ras(index) - centre, axis=1).reshape(inside.shape)
    clear = abs(distance - radius) > 1e-6 * (1 + radius)
    assert np.array_equal(inside[clear], (distance <= radius)[clear])


def test_a_stroke_is_followed():
    stroke = kinds.ScribblePrompt(((0.0, 4.0, 6.0), (9.0, 4.0, 6.0)))
    inside = regions.inside_region(regions.AroundPrompt(1.2), (stroke,), GEOMETRY, WHOLE)
    assert inside[2, 2].all() and inside.sum() == 10


def test_boxes_lassos_and_masks_get_a_margin():
    box = kinds.BoxPrompt(((4.0, 6.0, 6.0), (5.0, 8.0, 6.0)))
    assert regions.inside_region(regions.AroundPrompt(2.0), (box,), GEOMETRY, WHOLE).sum() == 3 * 4 * 6
    lasso = kinds.LassoPrompt(((4.0, 6.0, 6.0), (5.0, 6.0, 6.0), (5.0, 8.0, 6.0)))
    assert regions.inside_region(regions.AroundPrompt(2.0), (lasso,), GEOMETRY, WHOLE).sum() == 3 * 4 * 6
    mask = kinds.MaskPrompt("a", "b", voxels=pack_mask(np.ones((1, 1, 1)), (3, 3, 3)))
    assert regions.inside_region(regions.AroundPrompt(1.0), (mask,), GEOMETRY, WHOLE).sum() == 3 * 3 * 3


def test_words_have_no_place():
    assert regions.prompt_extent(kinds.TextPrompt("liver"), GEOMETRY) is None
    assert regions.inside_region(regions.AroundPrompt(1.0), (kinds.TextPrompt("liver"),), GEOMETRY, WHOLE).all()


@pytest.mark.parametrize("wrong", [lambda: regions.AroundPrompt(0.0), lambda: regions.AroundPrompt(float("nan"))])
def test_no_radius(wrong):
    with pytest.raises(InputError, match="above 0"):
        wrong()


def test_no_slices():
    with pytest.raises(InputError, match="no slice"):
        regions.SliceRange("k", 3, 3)


GEOMETRY_CROPPING = Geometry(np.diag([1.0, 2.0, 3.0, 1.0]), (6, 8, 10))
BOX = Box((1, 2, 3), (4, 6, 9))


@given(geometries(), st.tuples(*[st.floats(0, 1)] * 6))
def test_a_voxel_of_a_part_lies_where_it_lay(geometry, shares):
    low = [int(share * (n - 1)) for share, n in zip(shares[:3], geometry.shape_kji, strict=True)]
    high = [
        start + 1 + int(share * (n - 1 - start))
        for start, share, n in zip(low, shares[3:], geometry.shape_kji, strict=True)
    ]
    box = Box(tuple(low), tuple(high))
    part = regions.crop_geometry(geometry, box)
    last = np.subtract(box.shape_kji, 1)[::-1]
    whole = geometry.to_ras(last + np.array(low[::-1]))
    assert part.shape_kji == box.shape_kji
    assert np.allclose(part.to_ras(last), whole, rtol=0, atol=1e-9 * (1 + np.abs(whole).max()))
    assert geometry.match(part).box == box


def test_what_is_seen_of_an_image():
    click = kinds.PointPrompt((5.0, 6.0, 9.0))
    assert regions.seen_box(regions.InsideBox(Box((-2, 1, 2), (3, 99, 5))), (), GEOMETRY_CROPPING) == Box(
        (0, 1, 2), (3, 8, 5)
    )
    assert regions.seen_box(regions.SliceRange("i", 2, 4), (), GEOMETRY_CROPPING) == Box((0, 0, 2), (6, 8, 4))
    assert regions.seen_box(regions.AroundPrompt(2.0), (click,), GEOMETRY_CROPPING) == Box((2, 2, 3), (5, 5, 8))
    assert (
        regions.seen_box(regions.AroundPrompt(2.0), (click, kinds.TextPrompt("liver")), GEOMETRY_CROPPING)
        == GEOMETRY_CROPPING.box
    )
    with pytest.raises(InputError, match="lies outside the image"):
        regions.seen_box(regions.InsideBox(Box((9, 0, 0), (12, 8, 10))), (), GEOMETRY_CROPPING)


def test_a_part_is_not_copied_and_has_to_show_something():
    array = np.arange(480, dtype=np.int16).reshape(GEOMETRY_CROPPING.shape_kji)
    part = regions.crop_volume(Volume(array, GEOMETRY_CROPPING, "CT"), BOX)
    assert np.shares_memory(part.array_kji, array) and np.array_equal(part.array_kji, array[1:4, 2:6, 3:9])
    assert part.modality == "CT"
    array[BOX.slices] = 3
    with pytest.raises(InputError, match="constant: every voxel is 3"):
        regions.crop_volume(Volume(array, GEOMETRY_CROPPING), BOX)


def test_masks_are_cut_and_what_lies_wholly_beyond_is_refused():
    mask = np.zeros(GEOMETRY_CROPPING.shape_kji, np.bool_)
    mask[0:3, 3, 4] = True
    seed = kinds.MaskPrompt("a", "b", voxels=pack_mask(mask))
    inside, beyond = kinds.PointPrompt((5.0, 6.0, 9.0)), kinds.PointPrompt((5.0, 6.0, 15.0))
    (segment,), notes = regions.crop_prompts(
        [kinds.SegmentPrompts("A", (seed, inside, kinds.TextPrompt("x")))], BOX, GEOMETRY_CROPPING
    )
    assert np.array_equal(segment.prompts[0].voxels.expand(BOX.shape_kji), mask[BOX.slices])
    assert segment.prompts[1:] == (inside, kinds.TextPrompt("x"))
    assert notes == ("segments[0].prompts[0]: cut to the region of interest",)
    for prompt, place in (
        (beyond, "position"),
        (kinds.MaskPrompt("a", "b", voxels=pack_mask(mask, (5, 0, 0))), "file"),
    ):
        with pytest.raises(PromptError, match="wholly outside the region of interest") as caught:
            regions.crop_prompts([kinds.SegmentPrompts("A", (inside, prompt))], BOX, GEOMETRY_CROPPING)
        assert caught.value.location == f"segments[0].prompts[1].{place}"
    with pytest.raises(PromptError, match="wholly outside the image"):
        regions.crop_prompts(
            [kinds.SegmentPrompts("A", (kinds.PointPrompt((99.0, 0.0, 0.0)),))], BOX, GEOMETRY_CROPPING
        )


def test_a_mask_comes_back_to_its_place():
    part = np.random.default_rng(1).random(BOX.shape_kji) > 0.5
    whole = regions.pasted(pack_mask(part), BOX).expand(GEOMETRY_CROPPING.shape_kji)
    assert np.array_equal(whole[BOX.slices], part)
    assert whole.sum() == part.sum()
    assert regions.pasted(EMPTY_MASK, BOX) == EMPTY_MASK


def test_who_speaks_of_a_part():
    corner = kinds.BoxPrompt(((0.0, 0.0, 0.0), (3.0, 4.0, 3.0)))
    assert regions.is_within_reach(corner, BOX, GEOMETRY_CROPPING)
    assert regions.is_within_reach(kinds.TextPrompt("x"), BOX, GEOMETRY_CROPPING)
    assert not regions.is_within_reach(kinds.PointPrompt((5.0, 6.0, 15.0)), BOX, GEOMETRY_CROPPING)


@given(st.integers(1, 600), st.tuples(*[st.integers(0, 5)] * 3))
def test_the_largest_part_that_fits(voxels, start):
    inner = Box(start, tuple(n + 1 for n in start))
    box = regions.largest_box_around(inner, voxels, GEOMETRY_CROPPING.box)
    assert box.contains(inner) and GEOMETRY_CROPPING.box.contains(box)
    assert np.prod(box.shape_kji) <= voxels
    margins = [max(b - a for a, b in zip(box.start_kji, start, strict=True)), *np.subtract(box.stop_kji, start) - 1]
    wider = Box(tuple(n - max(margins) - 1 for n in start), tuple(n + max(margins) + 2 for n in start))
    assert box == GEOMETRY_CROPPING.box or np.prod(wider.intersection(GEOMETRY_CROPPING.box).shape_kji) > voxels


def test_nothing_fits_where_the_prompts_themselves_do_not():
    assert regions.largest_box_around(BOX, 3, GEOMETRY_CROPPING.box) is None


def test_a_box_as_it_is_read():
    assert regions.box_text(BOX) == "i 3:9, j 2:6, k 1:4"
