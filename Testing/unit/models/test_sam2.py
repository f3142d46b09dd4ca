"""Slices by themselves: SAM 2 and EdgeTAM against transformers' models of images, from pixels to the mask."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import Sam2VideoConfig, Sam2VideoModel

from FoundationSegLib.models.protocols import SliceMask, SlicePoint, SlicePrompt
from FoundationSegLib.models.segmentation import edgetam, sam2
from FoundationSegLib.models.segmentation.sam2 import Sam2, Sam2Preparation
from Testing.models.reference_sam2 import image_said
from Testing.models.sam_reference import Embeddings
from Testing.models.small_models import CATALOGUE
from Testing.models.small_sam2 import (
    SIZE,
    enliven,
    image_part,
    slice_of,
    small_edgetam,
    small_network,
    write_checkpoint,
)

SEED = 6
SHAPES = {
    "landscape": (48, 64),
    "portrait": (150, 90),
    "square": (256, 256),
    "one row": (1, 61),
    "one column": (53, 1),
    "odd": (37, 501),
    "colour": (60, 44, 3),
    "large": (700, 640),
}


def prompts_on(shape):
    """One of each kind, in fractions of the slice, so that they are inside it whatever its shape."""
    rows, columns = shape[0] - 1, shape[1] - 1
    box = (0.3 * columns, 0.1 * rows, 0.9 * columns, 0.7 * rows)
    inside, outside = SlicePoint(0.6 * columns, 0.4 * rows), SlicePoint(0.1 * columns, 0.9 * rows, False)
    return {
        "box": SlicePrompt(box),
        "point": SlicePrompt(points=(inside,)),
        "negative": SlicePrompt(points=(outside,)),
        "points": SlicePrompt(points=(inside, outside)),
        "box and point": SlicePrompt(box, (outside,)),
        "box and points": SlicePrompt(box, (inside, outside)),
    }


@pytest.fixture(scope="module", params=[small_network, small_edgetam], ids=["SAM 2", "EdgeTAM"])
def small(request):
    return request.param


@pytest.fixture(scope="module")
def model(small):
    return Sam2(small(SEED), Sam2Preparation(SIZE), "cpu")


@pytest.fixture(scope="module")
def reference(small):
    return Embeddings(image_part(small(SEED)))


def check_answer(answer, said):
    torch.testing.assert_close(answer.logits, said.coarse, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(answer.mask, said.mask)
    assert answer.score == pytest.approx(min(max(said.score, 0), 1), abs=1e-5)
    assert answer.mask.dtype == bool


def check_slice(model, reference, image):
    embedding = model.encode(image)
    for prompt in prompts_on(image.shape).values():
        check_answer(model.decode(embedding, prompt), image_said(reference, SIZE, image, prompt))


def check_masks(model, reference, image):
    """A mask alone and with points, as logits of -10 to 10 in the size that the prompt encoder wants."""
    mask = np.zeros(image.shape[:2], bool)
    mask[: mask.shape[0] // 2, mask.shape[1] // 3 :] = True
    stretched = torch.nn.functional.interpolate(
        torch.from_numpy(mask)[None, None].float(), size=(SIZE, SIZE), mode="bilinear", antialias=True
    )
    coarse = torch.nn.functional.interpolate(
        torch.where(stretched >= 0.5, 10.0, -10.0), size=(SIZE // 4, SIZE // 4), mode="bilinear", antialias=True
    )
    embedding = model.encode(image)
    for prompt in (SlicePrompt(), prompts_on(image.shape)["point"], prompts_on(image.shape)["box and points"]):
        answer = model.decode(embedding, SlicePrompt(prompt.box, prompt.points, SliceMask.pack(mask)))
        check_answer(answer, image_said(reference, SIZE, image, prompt, coarse))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_slice_by_itself_is_what_sam2model_says(model, reference, shape):
    check_slice(model, reference, slice_of(shape))


@pytest.mark.parametrize("shape", [(48, 64), (150, 90)])
def test_a_mask_is_what_sam2model_says(model, reference, shape):
    check_masks(model, reference, slice_of(shape))


def test_a_refinement_starts_from_the_answer_before(model, reference):
    image = slice_of((60, 80))
    embedding = model.encode(image)
    one, two = prompts_on(image.shape)["point"], prompts_on(image.shape)["points"]
    first = model.decode(embedding, one)
    second = model.decode(embedding, two, first)
    coarse = image_said(reference, SIZE, image, one).coarse
    check_answer(second, image_said(reference, SIZE, image, two, coarse))
    assert (second.mask != model.decode(embedding, two).mask).any()
    # A refinement of a refinement, and of an answer that came from a mask: what came before is in the logits.
    check_answer(model.decode(embedding, two, second), image_said(reference, SIZE, image, two, second.logits))
    masked = SlicePrompt(points=two.points, mask=SliceMask.pack(first.mask))
    check_answer(model.decode(embedding, masked, second), image_said(reference, SIZE, image, two, second.logits))


def test_an_unstable_single_mask_gives_way_to_the_best_of_three(small):
    """The rule is transformers'; here it has something to do."""
    networks = small(SEED), small(SEED)
    for network in networks:
        # A single mask about zero: 0.05 more or less, and its area changes by more than 2 %.
        network.mask_decoder.output_hypernetworks_mlps[0].proj_out.weight.mul_(0.005)
    model, reference = Sam2(networks[0], Sam2Preparation(SIZE), "cpu"), Embeddings(image_part(networks[1]))
    image = slice_of((48, 64))
    check_slice(model, reference, image)
    prompt = prompts_on(image.shape)["box"]
    unruly = model.decode(model.encode(image), prompt)
    model.network.mask_decoder.dynamic_multimask_via_stability = False
    assert not torch.equal(unruly.logits, model.decode(model.encode(image), prompt).logits)


def test_an_embedding_has_three_levels_and_counts_its_bytes(model):
    embedding = model.encode(slice_of((48, 64)))
    assert [tuple(level.shape) for level in embedding.maps] == [(4096, 1, 16), (1024, 1, 32), (256, 1, 128)]
    assert embedding.nbytes == 4 * (4096 * 16 + 1024 * 32 + 256 * 128)
    assert embedding.shape == (48, 64)


@pytest.mark.parametrize("shape", [(512, 512), (100, 400)])
def test_a_box_around_a_mask_has_three_pixels_of_256_to_spare(model, shape):
    mask = np.zeros(shape, bool)
    mask[40:61, 50:91] = True
    for wider in (0, 2):
        down, across = ((3 + wider) * n / 256 for n in shape)
        expected = (50 - across, 40 - down, 90 + across, 60 + down)
        assert model.box_around(mask, wider) == pytest.approx(expected)
    assert model.box_around(np.ones(shape, bool)) == (0, 0, shape[1] - 1, shape[0] - 1)
    assert model.box_around(np.zeros(shape, bool)) is None


def test_a_slice_at_the_true_size_is_what_sam2model_says(small, full):
    """The usual 1024 pixels, at the reduced width; with --full, SAM 2.1 tiny itself."""
    networks = [small(SEED, 1024) for _ in range(2)]
    if full and small is small_network:
        networks = [Sam2VideoModel(Sam2VideoConfig()).eval().requires_grad_(False) for _ in range(2)]
        for network in networks:
            enliven(network, SEED)
    image = slice_of((37, 501))
    model, reference = Sam2(networks[0], Sam2Preparation(1024), "cpu"), Embeddings(image_part(networks[1]))
    embedding = model.encode(image)
    for name in ("box", "point"):
        prompt = prompts_on(image.shape)[name]
        answer, said = model.decode(embedding, prompt), image_said(reference, 1024, image, prompt)
        torch.testing.assert_close(answer.logits, said.coarse, rtol=1e-6, atol=1e-4)
        np.testing.assert_array_equal(answer.mask, said.mask)


def test_a_draft_is_the_network_with_images_of_its_resolution(small, tmp_path):
    """Of a checkpoint for 256 pixels: the same answers as of one for 128."""
    model_id, family = ("edgetam", edgetam) if small is small_edgetam else ("sam2.1-hiera-tiny", sam2)
    image, answers = slice_of((48, 64)), []
    for size, resolution in ((SIZE, 128), (128, 0)):
        files = write_checkpoint(tmp_path / str(size), small(SEED, size))
        model = family.load(replace(CATALOGUE[model_id], resolution=resolution), files, "cpu")
        embedding, memory = model.encode(image), model.remember(3)
        first = memory.prompt(0, embedding, prompts_on(image.shape)["box"])
        answers.append((first.mask, memory.follow(1, embedding, True).mask))
    np.testing.assert_array_equal(*answers)


def test_edgetams_joined_convolutions_change_only_what_rounding_does(tmp_path):
    network, image = small_edgetam(SEED), slice_of((48, 64))
    files = write_checkpoint(tmp_path, network)
    joined = edgetam.load(CATALOGUE["edgetam"], files, "cpu").encode(image)
    for ours, theirs in zip(joined.maps, Sam2(network, Sam2Preparation(SIZE), "cpu").encode(image).maps, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
