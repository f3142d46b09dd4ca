import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.geometry import Box, Geometry
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.prompts.kinds import BoxPrompt, LassoPrompt, MaskPrompt, PointPrompt, ScribblePrompt, TextPrompt
from FoundationSegLib.prompts.regions import AroundPrompt, InsideBox, SliceRange, inside_region, prompt_extent, slab
from Testing.unit.strategies import geometries

GEOMETRY = Geometry(np.diag([1.0, 2.0, 3.0, 1.0]), (6, 8, 10))
WHOLE = GEOMETRY.box


def test_a_range_of_slices_and_a_box():
    inside = inside_region(SliceRange("k", 2, 4), (), GEOMETRY, WHOLE)
    assert inside[2:4].all() and inside.sum() == 2 * 80
    box = Box((1, 2, 3), (3, 4, 5))
    assert inside_region(InsideBox(box), (), GEOMETRY, WHOLE).sum() == 8
    assert inside_region(InsideBox(box), (), GEOMETRY, Box((2, 0, 0), (6, 8, 10))).sum() == 4
    assert slab("j", 5, 20, GEOMETRY) == Box((0, 5, 0), (6, 8, 10))


@given(geometry=geometries(), where=st.tuples(*[st.floats(0, 1)] * 3), radius=st.floats(0.1, 30))
def test_around_a_point_is_a_distance_in_mm(geometry, where, radius):
    k, j, i = (int(part * (n - 1)) for part, n in zip(where, geometry.shape_kji, strict=True))
    centre = geometry.to_ras((i, j, k))
    inside = inside_region(AroundPrompt(radius), (PointPrompt(tuple(centre)),), geometry, geometry.box)
    index = np.indices(geometry.shape_kji).reshape(3, -1).T[:, ::-1]
    distance = np.linalg.norm(geometry.to_ras(index) - centre, axis=1).reshape(inside.shape)
    clear = abs(distance - radius) > 1e-6 * (1 + radius)
    assert np.array_equal(inside[clear], (distance <= radius)[clear])


def test_a_stroke_is_followed():
    stroke = ScribblePrompt(((0.0, 4.0, 6.0), (9.0, 4.0, 6.0)))
    inside = inside_region(AroundPrompt(1.2), (stroke,), GEOMETRY, WHOLE)
    assert inside[2, 2].all() and inside.sum() == 10


def test_boxes_lassos_and_masks_get_a_margin():
    box = BoxPrompt(((4.0, 6.0, 6.0), (5.0, 8.0, 6.0)))
    assert inside_region(AroundPrompt(2.0), (box,), GEOMETRY, WHOLE).sum() == 3 * 4 * 6
    lasso = LassoPrompt(((4.0, 6.0, 6.0), (5.0, 6.0, 6.0), (5.0, 8.0, 6.0)))
    assert inside_region(AroundPrompt(2.0), (lasso,), GEOMETRY, WHOLE).sum() == 3 * 4 * 6
    mask = MaskPrompt("a", "b", voxels=pack_mask(np.ones((1, 1, 1)), (3, 3, 3)))
    assert inside_region(AroundPrompt(1.0), (mask,), GEOMETRY, WHOLE).sum() == 3 * 3 * 3


def test_words_have_no_place():
    assert prompt_extent(TextPrompt("liver"), GEOMETRY) is None
    assert inside_region(AroundPrompt(1.0), (TextPrompt("liver"),), GEOMETRY, WHOLE).all()


@pytest.mark.parametrize("wrong", [lambda: AroundPrompt(0.0), lambda: AroundPrompt(float("nan"))])
def test_no_radius(wrong):
    with pytest.raises(InputError, match="above 0"):
        wrong()


def test_no_slices():
    with pytest.raises(InputError, match="no slice"):
        SliceRange("k", 3, 3)
