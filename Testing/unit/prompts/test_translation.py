import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.catalog.model_cards import TRANSLATIONS
from FoundationSegLib.errors import PromptError
from FoundationSegLib.imaging.geometry import AXES, Geometry, geometry_from_spacing
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.prompts import kinds
from FoundationSegLib.prompts.capabilities import POINTS_OF_A_SCRIBBLE, require_understood, translate
from FoundationSegLib.prompts.placement import place_box
from Testing.unit.fakes import fake_card
from Testing.unit.strategies import geometries

GRID = geometry_from_spacing((12, 40, 50))
BOXES_ONLY = fake_card(translations={"point": "box", "scribble": "box", "lasso": "box", "mask": "box"})
POINTS_TOO = fake_card(
    prompts=["point", "box"], negative=["point"], translations={"scribble": "points", "lasso": "box+points"}
)
RING = ((10.0, 10.0, 3.0), (30.0, 12.0, 3.0), (28.0, 30.0, 3.0), (8.0, 25.0, 3.0))


def into(card, *prompts, geometry=GRID):
    segment = kinds.SegmentPrompts("Liver", prompts)
    require_understood(card, segment)
    return translate(card, segment, geometry)


def box_of(prompt, geometry=GRID):
    placed = place_box(prompt, geometry)
    return placed.box.start_kji, placed.box.stop_kji


def test_what_is_understood_stays_as_it_is():
    prompts = (kinds.PointPrompt((5.0, 6.0, 3.0)), kinds.BoxPrompt(((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))))
    translated = into(POINTS_TOO, *prompts)
    assert (translated.segment.prompts, translated.origins, translated.notes) == (prompts, (0, 1), ())


def test_two_clicks_become_the_corners_of_a_box():
    clicks = kinds.PointPrompt((20.0, 6.0, 3.0)), kinds.PointPrompt((5.0, 16.0, 3.0))
    translated = into(BOXES_ONLY, *clicks)
    (box,) = translated.segment.prompts
    assert box_of(box) == ((3, 6, 5), (4, 17, 21))
    assert translated.origins == (1,)
    assert translated.notes == ("segment.prompts[0] and segment.prompts[1]: two clicks became the corners of a box",)


@pytest.mark.parametrize(
    ("clicks", "message", "place"),
    [
        ([(5, 6, 3)], "makes a box of two clicks", "segment.prompts[0].position"),
        ([(5, 6, 3), (9, 9, 3), (1, 1, 3)], "makes a box of two clicks", "segment.prompts[2].position"),
        ([(5, 6, 3), (9, 9, 4)], "lie on one slice", "segment.prompts[1].position"),
        ([(5, 6, 3), (5, 9, 3)], "extent along i", "segment.prompts[1].position"),
        ([(5, 6, 3), (5, 6, 3)], "extent along i and j", "segment.prompts[1].position"),
    ],
)
def test_clicks_that_make_no_box_are_refused_with_their_place(clicks, message, place):
    with pytest.raises(PromptError, match=message) as caught:
        into(BOXES_ONLY, *(kinds.PointPrompt(tuple(map(float, click))) for click in clicks))
    assert caught.value.location == place


def test_corners_on_slices_of_two_axes_are_refused():
    with pytest.raises(PromptError, match="one axis"):
        into(BOXES_ONLY, kinds.PointPrompt((5.0, 6.0, 3.0)), kinds.PointPrompt((9.0, 9.0, 3.0), plane="i"))


def test_a_negative_click_is_no_corner():
    with pytest.raises(PromptError, match="negative points"):
        into(BOXES_ONLY, kinds.PointPrompt((5.0, 6.0, 3.0), kinds.Polarity.NEGATIVE))


def test_a_scribble_becomes_points_along_it():
    translated = into(
        POINTS_TOO, kinds.ScribblePrompt(((0.0, 5.0, 3.0), (20.0, 5.0, 3.0)), polarity=kinds.Polarity.NEGATIVE)
    )
    points = translated.segment.prompts
    assert [point.position for point in points] == [(x, 5.0, 3.0) for x in (2.0, 6.0, 10.0, 14.0, 18.0)]
    assert {point.polarity for point in points} == {kinds.Polarity.NEGATIVE}
    assert translated.origins == (0,) * POINTS_OF_A_SCRIBBLE
    assert translated.notes == ("segment.prompts[0]: the scribble became 5 points, which Fake Model understands",)


def test_a_short_scribble_becomes_one_point_for_each_voxel():
    points = into(POINTS_TOO, kinds.ScribblePrompt(((5.0, 5.0, 3.0), (5.2, 5.0, 3.0)))).segment.prompts
    assert len(points) == 1
    (dot,) = into(POINTS_TOO, kinds.ScribblePrompt(((5.0, 5.0, 3.0),))).segment.prompts
    assert dot.position == (5.0, 5.0, 3.0)


def test_of_a_scribble_that_leaves_the_image_only_places_inside_count():
    points = into(POINTS_TOO, kinds.ScribblePrompt(((-100.0, 5.0, 3.0), (10.0, 5.0, 3.0)))).segment.prompts
    assert points and all(0 <= point.position[0] <= 49 for point in points)


def test_a_scribble_becomes_the_box_around_it_with_its_width():
    stroke = ((10.0, 10.0, 3.0), (20.0, 14.0, 3.0))
    (thin,) = into(BOXES_ONLY, kinds.ScribblePrompt(stroke)).segment.prompts
    (thick,) = into(BOXES_ONLY, kinds.ScribblePrompt(stroke, radius_mm=2.0)).segment.prompts
    assert box_of(thin) == ((3, 10, 10), (4, 15, 21))
    assert box_of(thick) == ((3, 8, 8), (4, 17, 23))
    with pytest.raises(PromptError, match="extent along j"):
        into(BOXES_ONLY, kinds.ScribblePrompt(((10.0, 10.0, 3.0), (20.0, 10.0, 3.0))))
    with pytest.raises(PromptError, match="slices 3 to 5 of k"):
        into(BOXES_ONLY, kinds.ScribblePrompt(((10.0, 10.0, 3.0), (20.0, 14.0, 5.0))))


def test_a_lasso_becomes_its_box_and_its_most_inner_point():
    box, point = into(POINTS_TOO, kinds.LassoPrompt(RING)).segment.prompts
    assert box_of(box) == ((3, 10, 8), (4, 31, 31))
    assert np.allclose(point.position, (19, 20, 3), atol=2)
    (alone,) = into(BOXES_ONLY, kinds.LassoPrompt(RING)).segment.prompts
    assert alone == box
    (outside,) = into(POINTS_TOO, kinds.LassoPrompt(RING, kinds.Polarity.NEGATIVE)).segment.prompts
    assert (outside.position, outside.polarity) == (point.position, kinds.Polarity.NEGATIVE)


def test_the_point_of_a_hollow_lasso_lies_in_its_flesh():
    horseshoe = ((5, 5), (35, 5), (35, 35), (25, 35), (25, 15), (15, 15), (15, 35), (5, 35))
    lasso = kinds.LassoPrompt(tuple((float(x), float(y), 3.0) for x, y in horseshoe))
    _, point = into(POINTS_TOO, lasso).segment.prompts
    x, y, _ = point.position
    assert not (15 < x < 25 and y > 15)


def test_a_lasso_around_the_image_has_its_point_in_it_and_one_beside_it_is_refused():
    around = kinds.LassoPrompt(((-50.0, -50.0, 3.0), (150.0, -50.0, 3.0), (150.0, 150.0, 3.0), (-50.0, 150.0, 3.0)))
    _, point = into(POINTS_TOO, around).segment.prompts
    assert 0 <= point.position[0] <= 49 and 0 <= point.position[1] <= 39
    sliver = kinds.LassoPrompt(((0.2, 0.2, 3.0), (0.4, 0.2, 3.0), (0.4, 0.4, 3.0)))
    with pytest.raises(PromptError, match=r"no voxel|extent"):
        into(POINTS_TOO, sliver)


@given(geometries(), st.sampled_from(AXES), st.integers(0, 10**6))
def test_the_inner_point_is_inside_on_every_grid_and_axis(geometry, axis, seed):
    random = np.random.default_rng(seed)
    shape_ijk = np.array(geometry.shape_kji[::-1])
    n = AXES.index(axis)
    others = [other for other in range(3) if other != n]
    if min(shape_ijk[others]) < 3:
        return
    low = [int(random.integers(0, shape_ijk[other] - 2)) for other in others]
    high = [int(random.integers(start + 2, shape_ijk[other])) for start, other in zip(low, others, strict=True)]
    index = int(random.integers(0, shape_ijk[n]))

    def corner(a, b):
        place = np.empty(3)
        place[others], place[n] = (a, b), index
        return tuple(geometry.to_ras(place).tolist())

    outline = [corner(low[0], low[1]), corner(high[0], low[1]), corner(high[0], high[1]), corner(low[0], high[1])]
    card = fake_card(prompts=["point", "box"], translations={"lasso": "box+points"})
    box, point = into(card, kinds.LassoPrompt(tuple(outline), plane=axis), geometry=geometry).segment.prompts
    placed = place_box(box, geometry)
    assert placed.axis == axis and placed.is_2d
    voxel = geometry.nearest_voxel(point.position)
    assert voxel[n] == index
    assert all(a <= voxel[other] <= b for a, b, other in zip(low, high, others, strict=True))


def test_a_mask_becomes_the_box_around_it():
    seed = np.zeros(GRID.shape_kji, bool)
    seed[2:5, 10:14, 20] = seed[3, 12, 18:30] = True
    (box,) = into(BOXES_ONLY, kinds.MaskPrompt("a", "b", voxels=pack_mask(seed))).segment.prompts
    assert box_of(box) == ((2, 10, 18), (5, 14, 30))
    seed[:] = False
    seed[3, 3, 4:9] = True
    with pytest.raises(PromptError, match="one voxel thick along j and k"):
        into(BOXES_ONLY, kinds.MaskPrompt("a", "b", voxels=pack_mask(seed)))
    with pytest.raises(PromptError, match="was not read"):
        into(BOXES_ONLY, kinds.MaskPrompt("a", "b"))


def test_corners_name_the_same_voxels_on_an_oblique_grid():
    matrix = np.array([[0.0, -2.0, 0.0, 5.0], [0.8, 0.0, 1.8, -7.0], [0.6, 0.0, -2.4, 9.0], [0.0, 0.0, 0.0, 1.0]])
    geometry = Geometry(matrix, (9, 10, 11))
    seed = np.zeros(geometry.shape_kji, bool)
    seed[2:5, 3:7, 4:9] = True
    (box,) = into(BOXES_ONLY, kinds.MaskPrompt("a", "b", voxels=pack_mask(seed)), geometry=geometry).segment.prompts
    assert box_of(box, geometry) == ((2, 3, 4), (5, 7, 9))


def test_every_card_names_translations_that_there_are_and_none_of_what_it_understands():
    for card in read_catalogue().values():
        for kind, words in card.translations.items():
            assert set(TRANSLATIONS[kind][words]) <= set(card.prompts)
            assert kind not in card.prompts


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("points", [((-3.0, 1.0, 3.0), (1.0, -3.0, 3.0)), ((-1e300, 1.0, 3.0), (1e300, 1.0, 3.0))])
def test_a_scribble_that_only_passes_by_the_image_is_refused_with_its_place(points):
    past = kinds.ScribblePrompt(points)
    with pytest.raises(PromptError, match="too little of the scribble") as caught:
        translate(POINTS_TOO, kinds.SegmentPrompts("a", (past,)), GRID, "s")
    assert caught.value.location == "s.prompts[0].points"


def test_a_text_that_is_the_name_of_a_class_becomes_that_class():
    made = translate(read_catalogue()["vista3d"], kinds.SegmentPrompts("L", (kinds.TextPrompt("Livers"),)), GRID)
    assert made.segment.prompts == (kinds.ClassPrompt("liver"),)
    assert made.notes == (
        "segment.prompts[0]: the text became the class 'liver', which VISTA3D (NV-Segment-CT) understands",
    )
    with pytest.raises(PromptError, match="no class called 'a livr'") as caught:
        translate(read_catalogue()["vista3d"], kinds.SegmentPrompts("L", (kinds.TextPrompt("a livr"),)), GRID)
    assert caught.value.location == "segment.prompts[0].text"
    kidney = kinds.SegmentPrompts("K", (kinds.TextPrompt("kidney"), kinds.PointPrompt((1.0, 1.0, 1.0))))
    with pytest.raises(PromptError, match="one part of 'kidney'"):
        translate(read_catalogue()["vista3d"], kidney, GRID)


def test_a_class_becomes_a_text_for_a_model_of_texts():
    made = translate(read_catalogue()["voxtell"], kinds.SegmentPrompts("L", (kinds.ClassPrompt("left kidney"),)), GRID)
    assert made.segment.prompts == (kinds.TextPrompt("left kidney"),)
    assert made.notes == (
        "segment.prompts[0]: the class became the text 'left kidney', which VoxTell v1.1 understands",
    )
