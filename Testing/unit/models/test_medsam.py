"""MedSAM with small random weights against its authors' script, and what the comparison would catch."""

import numpy as np
import pytest
import torch

from FoundationSegLib.errors import PromptError
from FoundationSegLib.models.protocols import SlicePoint, SlicePrompt
from FoundationSegLib.models.segmentation import medsam
from Testing.models.sam_cases import SHAPES, image_of, prompt_of
from Testing.models.sam_parity import AuthorsMedSam, assert_defects_are_noticed, assert_parity
from Testing.unit.models.test_preprocessing import resize_by_the_book

BOX = prompt_of("box", (120, 150))


@pytest.fixture(scope="module")
def model(medsam_card, sam_files):
    return medsam.load(medsam_card, sam_files, "cpu")


def whole(image, side):
    """scikit-image's result without the rounding errors below whole numbers."""
    return resize_by_the_book(image, side) + 1e-6


@pytest.fixture(scope="module")
def reference(sam_folder):
    return AuthorsMedSam(sam_folder, whole)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_says_what_the_authors_script_says(model, reference, shape):
    answer = assert_parity(model, reference, image_of(shape), prompt_of("box", shape))
    assert answer.logits is None


def test_says_what_the_authors_script_says_at_1024_pixels(medsam_card, large_folder):
    """Their library's own resizing where scipy is installed; it is one level off here and there."""
    ndimage = pytest.importorskip("scipy.ndimage")

    def resize(image, side):
        factors = (side / image.shape[0], side / image.shape[1])
        planes = [
            ndimage.zoom(image[:, :, n].astype(float), factors, order=3, mode="mirror", grid_mode=True)
            for n in range(3)
        ]
        return np.clip(np.stack(planes, axis=2), image.min(), image.max()) + 1e-6

    files = {path.name: path for path in large_folder.iterdir()}
    adapter = medsam.load(medsam_card, files, "cpu")
    assert_parity(adapter, AuthorsMedSam(large_folder, resize), image_of((120, 150)), BOX)


@pytest.mark.parametrize("level", [0, 7, 255])
def test_a_constant_slice_is_black(model, reference, level):
    image = np.full((120, 150), level, np.uint8)
    assert not medsam.prepare(image, 256).any()
    assert_parity(model, reference, image, BOX)


def test_the_hubs_preprocessor_config_is_never_read(medsam_card, sam_files, tmp_path, model):
    """It is plain SAM's."""
    damaged = tmp_path / "preprocessor_config.json"
    damaged.write_text("{")
    adapter = medsam.load(medsam_card, {**sam_files, damaged.name: damaged}, "cpu")
    image = image_of((120, 150))
    assert torch.equal(adapter.encode(image).features, model.encode(image).features)


def test_a_prompt_without_a_box_is_refused(model):
    embedding = model.encode(image_of((120, 150)))
    with pytest.raises(PromptError, match="needs a box"):
        model.decode(embedding, SlicePrompt(points=(SlicePoint(1, 2),)))


def test_the_box_for_a_neighbour_is_wider_by_the_same_part_of_each_axis(model):
    mask = np.zeros((100, 200), bool)
    mask[40:61, 90:131] = True
    x, y = 200 * 3 / 256, 100 * 3 / 256
    assert model.box_around(mask) == pytest.approx((90 - x, 40 - y, 130 + x, 60 + y))
    x, y = 200 * 5 / 256, 100 * 5 / 256
    assert model.box_around(mask, 2) == pytest.approx((90 - x, 40 - y, 130 + x, 60 + y))
    assert model.box_around(np.zeros((100, 200), bool)) is None


def test_the_comparison_notices_defects(model, reference):
    assert_defects_are_noticed(model, reference, BOX)
