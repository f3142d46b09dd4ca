import numpy as np
import pytest

from FoundationSegLib.engine.volume_parts import place_in_volume
from FoundationSegLib.errors import PromptError
from FoundationSegLib.imaging.geometry import Box, geometry_from_spacing
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.models.protocols import VolumeBox, VolumePoint, VolumeVoxels, VolumeWords
from FoundationSegLib.prompts.kinds import (
    BoxPrompt,
    ClassPrompt,
    LassoPrompt,
    MaskPrompt,
    PointPrompt,
    Polarity,
    ScribblePrompt,
    TextPrompt,
)

GEOMETRY = geometry_from_spacing((6, 10, 12))
NO = Polarity.NEGATIVE


def placed(*prompts):
    places = [f"segments[0].prompts[{n}]" for n in range(len(prompts))]
    return place_in_volume(prompts, places, GEOMETRY).parts


def voxels(*indices):
    mask = np.zeros(GEOMETRY.shape_kji, np.bool_)
    for index in indices:
        mask[index] = True
    return pack_mask(mask)


def test_every_kind_is_put_into_voxels_and_keeps_its_place_and_order():
    seed = voxels((1, 2, 3))
    ring = ((1.0, 1.0, 2.0), (3.0, 1.0, 2.0), (3.0, 3.0, 2.0), (1.0, 3.0, 2.0))
    found = placed(
        MaskPrompt("a", "b", voxels=seed),
        PointPrompt((4.4, 5.0, 2.0)),
        BoxPrompt(((1.0, 2.0, 3.0), (4.0, 5.0, 3.0)), NO),
        BoxPrompt(((1.0, 2.0, 3.0), (4.0, 5.0, 9.0))),
        ScribblePrompt(((2.0, 2.0, 1.0), (4.0, 2.0, 1.0)), polarity=NO),
        LassoPrompt(ring),
        TextPrompt("liver"),
        ClassPrompt("7"),
    )
    assert found[:6] == (
        VolumeVoxels("mask", seed),
        VolumePoint((2, 5, 4)),
        VolumeBox(Box((3, 2, 1), (4, 6, 5)), False),
        VolumeBox(Box((3, 2, 1), (6, 6, 5))),
        VolumeVoxels("scribble", voxels((1, 2, 2), (1, 2, 3), (1, 2, 4)), False),
        found[5],
    )
    assert found[5].kind == "lasso" and found[5].voxels.expand(GEOMETRY.shape_kji)[2, 2, 2]
    assert found[6:] == (VolumeWords("text", "liver"), VolumeWords("class", "7"))
    assert [part.place for part in found] == [f"segments[0].prompts[{n}]" for n in range(8)]


def test_parts_that_say_the_same_are_equal_wherever_they_stand():
    assert placed(PointPrompt((4.4, 5.0, 2.0)))[0] == placed(TextPrompt("a"), PointPrompt((3.6, 5.0, 2.0)))[1]


@pytest.mark.parametrize(
    ("prompts", "message", "place"),
    [
        ((PointPrompt((1.0, 1.0, 1.0), NO),), "negative point alone does not say", "segments[0].prompts[0].polarity"),
        ((TextPrompt("a"), PointPrompt((99.0, 1.0, 1.0))), "wholly outside", "segments[0].prompts[1].position"),
        ((MaskPrompt("a", "b"),), "was not read", "segments[0].prompts[0].file"),
    ],
)
def test_what_says_nothing_is_refused_with_its_place(prompts, message, place):
    with pytest.raises(PromptError, match=message) as caught:
        placed(*prompts)
    assert caught.value.place == place
