"""Defects that the comparison with transformers would catch, planted in SAM's adapter one at a time."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from FoundationSegLib.models.preprocessing import Normalisation
from FoundationSegLib.models.protocols import SliceMask, SlicePoint, SlicePrompt
from FoundationSegLib.models.segmentation import sam
from Testing.models import planted
from Testing.models.sam_cases import box_of, disc, image_of, log_odds, prompt_of
from Testing.models.sam_parity import assert_parity

with_image = partial(planted.argument, sam, "prepare")
with_surface = partial(planted.result, sam, "unpadded")


def moved(points, change):
    return tuple(SlicePoint(*change(p.x, p.y), p.positive) for p in points)


def with_coordinates(change):
    """The adapter with every coordinate changed before it is scaled."""

    def plant(patch):
        planted.argument(sam, "point_tensors", lambda points: moved(points, change))(patch)
        planted.argument(sam, "box_tensor", lambda box: (*change(*box[:2]), *change(*box[2:])))(patch)

    return plant


def with_preparation(**changes):
    def plant(patch):
        prepare = sam.prepare
        patch.setattr(sam, "prepare", lambda image, size, _: prepare(image, size, Normalisation(**changes)))

    return plant


def stretched(patch):
    """Resized to the square, as MedSAM is, instead of padded."""
    patch.setattr(sam, "longest_side_shape", lambda shape, size: (size, size))


def scaled_by_one_axis(patch):
    patch.setattr(sam, "scale_to", lambda resized, shape: (resized[0] / shape[0] * 0.99, resized[0] / shape[0]))


COLUMNS, ROWS = 150, 120
DEFECTS = {
    "x and y swapped": with_coordinates(lambda x, y: (y, x)),
    "half a pixel to the right": with_coordinates(lambda x, y: (x + 0.5, y)),
    "half a pixel up": with_coordinates(lambda x, y: (x, y - 0.5)),
    "coordinates from the right": with_coordinates(lambda x, y: (COLUMNS - 1 - x, y)),
    "coordinates from below": with_coordinates(lambda x, y: (x, ROWS - 1 - y)),
    "coordinates cut to whole pixels": with_coordinates(lambda x, y: (int(x) + 0.25, int(y) + 0.25)),
    "other scale": scaled_by_one_axis,
    "image mirrored left and right": with_image(lambda image: image[:, ::-1]),
    "image upside down": with_image(lambda image: image[::-1]),
    "image turned by half": with_image(lambda image: image[::-1, ::-1]),
    "image one pixel to the side": with_image(lambda image: np.roll(image, 1, axis=1)),
    "image stretched": stretched,
    "wrong mean": with_preparation(mean=(0.5, 0.5, 0.5)),
    "wrong standard deviation": with_preparation(std=(0.5, 0.5, 0.5)),
    "means in the order blue, green, red": with_preparation(mean=(0.406, 0.456, 0.485)),
    "not scaled to 0..1": with_preparation(factor=1.0),
    "mask mirrored left and right": with_surface(lambda surface: surface.flip(1)),
    "mask upside down": with_surface(lambda surface: surface.flip(0)),
    "mask one pixel to the side": with_surface(lambda surface: surface.roll(1, 1)),
    "other threshold": with_surface(lambda surface: surface - 0.05),
    "positive and negative swapped": planted.argument(
        sam, "point_tensors", lambda given: [replace(point, positive=not point.positive) for point in given]
    ),
    "one mask for an ambiguous point": lambda patch: patch.setattr(sam, "is_ambiguous", lambda *_: False),
}


@pytest.mark.parametrize("plant", DEFECTS.values(), ids=DEFECTS)
def test_a_planted_defect_is_caught(sam_model, sam_reference, plant, monkeypatch):
    image, prompt = image_of((ROWS, COLUMNS)), prompt_of("point", (ROWS, COLUMNS))
    assert_parity(sam_model, sam_reference, image, prompt)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        assert_parity(sam_model, sam_reference, image, prompt)


@pytest.mark.parametrize("name", [name for name in DEFECTS if "coordinates" in name or "pixel" in name])
def test_a_planted_defect_is_caught_with_a_box(sam_model, sam_reference, name, monkeypatch):
    image, prompt = image_of((ROWS, COLUMNS)), prompt_of("box", (ROWS, COLUMNS))
    DEFECTS[name](monkeypatch)
    with pytest.raises(AssertionError):
        assert_parity(sam_model, sam_reference, image, prompt)


def test_swapped_colours_are_caught(sam_model, sam_reference, monkeypatch):
    with_image(lambda image: image[:, :, ::-1])(monkeypatch)
    with pytest.raises(AssertionError):
        assert_parity(sam_model, sam_reference, image_of((70, 90, 3)), prompt_of("box", (70, 90)))


@pytest.mark.parametrize(
    "change", [torch.zeros_like, torch.neg, lambda t: t / 2, lambda t: t.mT, lambda t: t.flip(3)], ids=range(5)
)
def test_a_wrong_mask_prompt_is_caught(sam_model, sam_reference, change, monkeypatch):
    mask = disc((120, 150))
    planted.result(sam, "mask_tensor", change)(monkeypatch)
    with pytest.raises(AssertionError):
        assert_parity(
            sam_model,
            sam_reference,
            image_of((120, 150)),
            SlicePrompt(mask=SliceMask.pack(mask)),
            known=log_odds(mask),
            asked=SlicePrompt(box_of(mask)),
        )
