"""SAM and MobileSAM with random weights against SamProcessor and SamModel, MedSAM against the script of its authors."""

import hashlib

import numpy as np
import pytest
import torch

from FoundationSegLib.errors import Cancelled, PromptError
from FoundationSegLib.models.protocols import SliceAnswer, SliceMask, SlicePrompt
from FoundationSegLib.models.segmentation import medsam, mobile_sam, sam
from Testing.models.sam_reference import (
    KINDS,
    SHAPES,
    AuthorsMedSam,
    TransformersSam,
    Waits,
    assert_parity,
    box_of,
    disc,
    image_of,
    log_odds,
    prompt_of,
)
from Testing.models.small_models import CATALOGUE
from Testing.models.small_sam import (
    mobile_sam_modules,
    mobile_sam_state,
    random_model,
    small_config,
    write_checkpoint,
    write_mobile_sam,
)
from Testing.unit.models.test_preprocessing import resize_by_scipy

SHAPE = (120, 150)
BOX, POINTS = prompt_of("box", SHAPE), prompt_of("points", SHAPE).points


def every_kind(adapter, reference, shape):
    """Parity on one image, encoded once, with a prompt of each kind."""
    image = image_of(shape)
    embedding = adapter.encode(image)
    for kind in KINDS:
        assert_parity(adapter, reference, image, prompt_of(kind, shape), embedding=embedding)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_says_what_transformers_says(sam_model, sam_reference, shape):
    every_kind(sam_model, sam_reference, shape)


def test_says_what_transformers_says_at_1024_pixels(sam_card, large_folder):
    files = {path.name: path for path in large_folder.iterdir()}
    adapter, reference = sam.load(sam_card, files, "cpu"), TransformersSam(large_folder)
    answer = assert_parity(adapter, reference, image_of((60, 80, 3)), prompt_of("box and points", (60, 80)))
    assert answer.logits.shape == (1, 1, 256, 256)


def test_says_the_same_without_the_fast_decoder(sam_card, sam_files, sam_reference, monkeypatch):
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    every_kind(sam.load(sam_card, sam_files, "cpu"), sam_reference, SHAPE)


@pytest.mark.parametrize(
    ("name", "kind"), [*(("sam_model", kind) for kind in KINDS), ("mobile_model", "point"), ("medsam_model", "box")]
)
def test_the_device_is_waited_for_once_a_prompt(request, name, kind):
    model = request.getfixturevalue(name)
    embedding = model.encode(image_of(SHAPE))
    with Waits() as waits:
        model.decode(embedding, prompt_of(kind, SHAPE))
    assert waits.count == 1


def test_what_an_embedding_says_of_itself(sam_model):
    embedding = sam_model.encode(image_of(SHAPE))
    assert (embedding.shape, embedding.resized) == (SHAPE, (205, 256))
    assert (embedding.features.dtype, embedding.nbytes) == (torch.float32, 32 * 16 * 16 * 4)
    assert sam_model.nbytes == sum(value.nbytes for value in random_model(small_config()).state_dict().values())


def test_an_encoding_can_be_stopped_anywhere_and_started_again(sam_model):
    image = image_of(SHAPE)
    expected = sam_model.encode(image).features
    calls = []

    def stop_at(count):
        def check():
            calls.append(1)
            if len(calls) == count:
                raise Cancelled

        return check

    sam_model.encode(image, stop_at(0))
    total = len(calls)
    assert total >= 4
    for count in range(1, total + 1):
        calls.clear()
        with pytest.raises(Cancelled):
            sam_model.encode(image, stop_at(count))
        assert len(calls) == count
    calls.clear()
    assert torch.equal(sam_model.encode(image).features, expected)
    assert not calls, "a check that outlives its encoding"


def test_the_box_for_a_neighbour_is_wider_by_the_published_margin(sam_model):
    mask = np.zeros((100, 200), bool)
    mask[40:61, 90:131] = True
    margin = 12 * 200 / 1024
    assert sam_model.box_around(mask) == pytest.approx((90 - margin, 40 - margin, 130 + margin, 60 + margin))
    wider = margin + 5 * 200 / 256
    assert sam_model.box_around(mask, 5) == pytest.approx((90 - wider, 40 - wider, 130 + wider, 60 + wider))
    assert sam_model.box_around(np.ones((100, 200), bool)) == (0, 0, 199, 99)
    assert sam_model.box_around(np.zeros((100, 200), bool)) is None


def test_the_checkpoints_own_mean_and_deviation_are_followed_and_the_usual_ones_without(
    tmp_path, sam_card, sam_files, sam_model
):
    files = write_checkpoint(tmp_path, small_config(), image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7])
    adapter, reference = sam.load(sam_card, files, "cpu"), TransformersSam(tmp_path)
    assert_parity(adapter, reference, image_of((70, 90, 3)), prompt_of("box", (70, 90)))
    files, image = {name: path for name, path in sam_files.items() if "preprocessor" not in name}, image_of(SHAPE)
    assert torch.equal(sam.load(sam_card, files, "cpu").encode(image).features, sam_model.encode(image).features)


@pytest.mark.parametrize("shape", [SHAPE, (150, 120), (37, 501)])
def test_refining_goes_on_from_the_last_logits(sam_model, sam_reference, shape):
    image, points = image_of(shape), prompt_of("points", shape).points
    previous, known = None, None
    for count in range(1, len(points) + 1):
        previous = assert_parity(sam_model, sam_reference, image, SlicePrompt(points=points[:count]), previous, known)
        known = previous.logits
    assert known.shape == (1, 1, 64, 64)


def test_what_was_said_before_matters_where_there_are_logits(sam_model):
    embedding = sam_model.encode(image_of(SHAPE))
    first, second = (SlicePrompt(points=POINTS[:n]) for n in (1, 2))
    fresh = sam_model.decode(embedding, second)
    refined = sam_model.decode(embedding, second, sam_model.decode(embedding, first))
    assert not torch.allclose(fresh.logits, refined.logits, atol=0.1)
    empty = SliceAnswer(np.zeros(SHAPE, bool), 0.0)
    assert torch.equal(sam_model.decode(embedding, second, empty).logits, fresh.logits)


@pytest.mark.parametrize("shape", [SHAPE, (150, 120), (37, 501), (256, 256)])
def test_a_mask_goes_in_as_log_odds_with_the_box_around_it(sam_model, sam_reference, shape):
    mask = disc(shape)
    prompt, box = SlicePrompt(mask=SliceMask.pack(mask)), SlicePrompt(box_of(mask))
    assert_parity(sam_model, sam_reference, image_of(shape), prompt, known=log_odds(mask), asked=box)


def test_a_mask_goes_in_with_the_prompts_own_box_and_points(sam_model, sam_reference):
    mask, image = disc(SHAPE), image_of(SHAPE)
    packed, known, point = SliceMask.pack(mask), log_odds(mask), prompt_of("point", SHAPE).points
    assert_parity(sam_model, sam_reference, image, SlicePrompt(BOX.box, mask=packed), known=known, asked=BOX)
    asked = SlicePrompt(box_of(mask), point)
    assert_parity(sam_model, sam_reference, image, SlicePrompt(points=point, mask=packed), known=known, asked=asked)


def test_a_corrected_mask_goes_in_as_the_last_logits_and_points_alone(sam_model, sam_reference):
    image, mask = image_of(SHAPE), SliceMask.pack(disc(SHAPE))
    previous = sam_model.decode(sam_model.encode(image), SlicePrompt(mask=mask))
    prompt, asked = SlicePrompt(points=POINTS, mask=mask), SlicePrompt(points=POINTS)
    assert_parity(sam_model, sam_reference, image, prompt, previous, previous.logits, asked)


@pytest.mark.parametrize("prompt", [SlicePrompt(), SlicePrompt(mask=SliceMask.pack(np.zeros(SHAPE, bool)))])
def test_a_prompt_that_says_nothing_is_refused(sam_model, prompt):
    with pytest.raises(PromptError, match="nothing of where"):
        sam_model.decode(sam_model.encode(image_of(SHAPE)), prompt)


# MobileSAM


@pytest.fixture(scope="module")
def mobile_model(tmp_path_factory):
    files = write_mobile_sam(tmp_path_factory.mktemp("mobile-sam"))
    return mobile_sam.load(CATALOGUE["mobile-sam"], files, "cpu", size=256)


@pytest.fixture(scope="module")
def mobile_reference(sam_folder):
    """SamProcessor and SamModel around timm's layers as they are: nothing folded, no strips."""
    encoder, model = mobile_sam_modules()
    model.vision_encoder = encoder
    encoder.register_forward_hook(lambda _module, _inputs, features: (features,))
    return TransformersSam(sam_folder, model)


@pytest.mark.parametrize("shape", [(120, 150), (300, 1), (90, 70, 3)])
def test_mobile_sam_says_what_transformers_says(mobile_model, mobile_reference, shape):
    every_kind(mobile_model, mobile_reference, shape)


def test_mobile_sam_takes_masks_refines_and_notices_defects(mobile_model, mobile_reference):
    image, mask = image_of(SHAPE), disc(SHAPE)
    prompt, box = SlicePrompt(mask=SliceMask.pack(mask)), SlicePrompt(box_of(mask))
    first = assert_parity(mobile_model, mobile_reference, image, prompt, known=log_odds(mask), asked=box)
    points = SlicePrompt(points=POINTS)
    assert_parity(mobile_model, mobile_reference, image, points, first, first.logits)


def test_mobile_sams_checkpoint_has_the_names_and_shapes_of_the_authors_network():
    """The hash is that of the state of build_sam_vit_t in ChaoningZhang/MobileSAM at commit 34bbbfd."""
    state = mobile_sam_state(*mobile_sam_modules())
    lines = sorted(f"{name} {tuple(value.shape)}" for name, value in state.items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest().startswith("d794ba6abcfafd91e08aa7d88d0d2626")


# MedSAM


@pytest.fixture(scope="module")
def medsam_model(sam_files):
    return medsam.load(CATALOGUE["medsam"], sam_files, "cpu")


def whole(image, side):
    """scikit-image's result without the rounding errors below whole numbers."""
    return resize_by_scipy(image, side) + 1e-6


@pytest.fixture(scope="module")
def authors(sam_folder):
    return AuthorsMedSam(sam_folder, whole)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_medsam_says_what_the_authors_script_says(medsam_model, authors, shape):
    answer = assert_parity(medsam_model, authors, image_of(shape), prompt_of("box", shape))
    assert answer.logits is None


def test_medsam_says_what_the_authors_script_says_at_1024_pixels(large_folder):
    files = {path.name: path for path in large_folder.iterdir()}
    adapter = medsam.load(CATALOGUE["medsam"], files, "cpu")
    assert_parity(adapter, AuthorsMedSam(large_folder, whole), image_of(SHAPE), BOX)


@pytest.mark.parametrize("level", [0, 7, 255])
def test_medsam_sees_a_constant_slice_black(medsam_model, authors, level):
    image = np.full(SHAPE, level, np.uint8)
    assert not medsam.prepare(image, 256).any()
    assert_parity(medsam_model, authors, image, BOX)


def test_the_preprocessor_config_of_medsams_hub_is_never_read(sam_files, tmp_path, medsam_model):
    """It is plain SAM's."""
    damaged = tmp_path / "preprocessor_config.json"
    damaged.write_text("{")
    adapter, image = medsam.load(CATALOGUE["medsam"], {**sam_files, damaged.name: damaged}, "cpu"), image_of(SHAPE)
    assert torch.equal(adapter.encode(image).features, medsam_model.encode(image).features)


def test_medsam_needs_a_box(medsam_model):
    with pytest.raises(PromptError, match="needs a box"):
        medsam_model.decode(medsam_model.encode(image_of(SHAPE)), SlicePrompt())


def test_medsams_box_for_a_neighbour_is_wider_by_the_same_part_of_each_axis(medsam_model):
    mask = np.zeros((100, 200), bool)
    mask[40:61, 90:131] = True
    for wider in (0, 2):
        x, y = (side * (3 + wider) / 256 for side in (200, 100))
        assert medsam_model.box_around(mask, wider) == pytest.approx((90 - x, 40 - y, 130 + x, 60 + y))
    assert medsam_model.box_around(np.zeros((100, 200), bool)) is None
