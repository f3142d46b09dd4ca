"""SAM with small random weights against SamProcessor and SamModel: images, points and boxes."""

import json

import numpy as np
import pytest
import torch

from FoundationSegLib.errors import Cancelled, CheckpointError, PromptError
from FoundationSegLib.models.protocols import SliceAnswer, SliceMask, SlicePrompt
from FoundationSegLib.models.segmentation import sam
from Testing.models.sam_cases import KINDS, SHAPES, box_of, disc, image_of, log_odds, prompt_of
from Testing.models.sam_parity import TransformersSam, assert_defects_are_noticed, assert_parity
from Testing.models.small_sam import preprocessor, random_model, small_config, write_checkpoint


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_says_what_transformers_says(sam_model, sam_reference, shape, kind):
    assert_parity(sam_model, sam_reference, image_of(shape), prompt_of(kind, shape))


def test_says_what_transformers_says_at_1024_pixels(sam_card, large_folder):
    files = {path.name: path for path in large_folder.iterdir()}
    adapter, reference = sam.load(sam_card, files, "cpu"), TransformersSam(large_folder)
    answer = assert_parity(adapter, reference, image_of((60, 80, 3)), prompt_of("box and points", (60, 80)))
    assert answer.logits.shape == (1, 1, 256, 256)


def test_says_the_same_without_the_fast_decoder(sam_card, sam_files, sam_reference, monkeypatch):
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    plain = sam.load(sam_card, sam_files, "cpu")
    for kind in KINDS:
        assert_parity(plain, sam_reference, image_of((120, 150)), prompt_of(kind, (120, 150)))


def test_what_an_embedding_says_of_itself(sam_model):
    embedding = sam_model.encode(image_of((120, 150)))
    assert (embedding.shape, embedding.resized) == ((120, 150), (205, 256))
    assert (embedding.features.dtype, embedding.nbytes) == (torch.float32, 32 * 16 * 16 * 4)
    assert (sam_model.device, sam_model.precision) == ("cpu", "float32")
    assert sam_model.nbytes == sum(value.nbytes for value in random_model(small_config()).state_dict().values())


def test_an_encoding_can_be_stopped_anywhere_and_started_again(sam_model):
    image = image_of((120, 150))
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


def test_the_checkpoints_own_mean_and_deviation_are_followed(tmp_path, sam_card):
    files = write_checkpoint(tmp_path, small_config(), image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7])
    adapter, reference = sam.load(sam_card, files, "cpu"), TransformersSam(tmp_path)
    assert_parity(adapter, reference, image_of((70, 90, 3)), prompt_of("box", (70, 90)))


def test_without_its_file_the_preparation_is_the_usual_one(sam_card, sam_files, sam_model):
    files = {name: path for name, path in sam_files.items() if name != "preprocessor_config.json"}
    image = image_of((120, 150))
    assert torch.equal(sam.load(sam_card, files, "cpu").encode(image).features, sam_model.encode(image).features)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": {"longest_edge": 1024}},
        {"size": {"shortest_edge": 256}},
        {"pad_size": {"height": 256, "width": 512}},
        {"do_pad": False},
    ],
    ids=str,
)
def test_another_shape_than_sams_is_refused(tmp_path, sam_card, sam_files, changes):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(preprocessor(256, **changes)))
    with pytest.raises(CheckpointError, match=r"SAM ViT-B: preprocessor_config\.json asks for"):
        sam.load(sam_card, {**sam_files, path.name: path}, "cpu")


@pytest.mark.parametrize("kind", ["box", "points"])
def test_the_comparison_notices_defects(sam_model, sam_reference, kind):
    assert_defects_are_noticed(sam_model, sam_reference, prompt_of(kind, (120, 150)))


@pytest.mark.parametrize("shape", [(120, 150), (150, 120), (37, 501)])
def test_refining_goes_on_from_the_last_logits(sam_model, sam_reference, shape):
    image, points = image_of(shape), prompt_of("points", shape).points
    previous, known = None, None
    for count in range(1, len(points) + 1):
        previous = assert_parity(sam_model, sam_reference, image, SlicePrompt(points=points[:count]), previous, known)
        known = previous.logits
    assert known.shape == (1, 1, 64, 64)


def test_what_was_said_before_matters(sam_model):
    shape = (120, 150)
    embedding = sam_model.encode(image_of(shape))
    first, second = (SlicePrompt(points=prompt_of("points", shape).points[:n]) for n in (1, 2))
    fresh = sam_model.decode(embedding, second)
    refined = sam_model.decode(embedding, second, sam_model.decode(embedding, first))
    assert not torch.allclose(fresh.logits, refined.logits, atol=0.1)


def test_an_answer_without_logits_is_none_to_refine(sam_model):
    embedding, prompt = sam_model.encode(image_of((120, 150))), prompt_of("point", (120, 150))
    empty = SliceAnswer(np.zeros((120, 150), bool), 0.0)
    assert torch.equal(sam_model.decode(embedding, prompt, empty).logits, sam_model.decode(embedding, prompt).logits)


@pytest.mark.parametrize("shape", [(120, 150), (150, 120), (37, 501), (256, 256)])
def test_a_mask_goes_in_as_log_odds_with_the_box_around_it(sam_model, sam_reference, shape):
    mask = disc(shape)
    prompt = SlicePrompt(mask=SliceMask.pack(mask))
    asked = SlicePrompt(box_of(mask))
    assert_parity(sam_model, sam_reference, image_of(shape), prompt, known=log_odds(mask), asked=asked)


def test_a_mask_goes_in_with_the_prompts_own_box_and_points(sam_model, sam_reference):
    shape = (120, 150)
    mask, with_box, with_point = disc(shape), prompt_of("box", shape), prompt_of("point", shape)
    packed, known = SliceMask.pack(mask), log_odds(mask)
    image = image_of(shape)
    prompt = SlicePrompt(with_box.box, mask=packed)
    assert_parity(sam_model, sam_reference, image, prompt, known=known, asked=with_box)
    prompt = SlicePrompt(points=with_point.points, mask=packed)
    asked = SlicePrompt(box_of(mask), with_point.points)
    assert_parity(sam_model, sam_reference, image, prompt, known=known, asked=asked)


def test_a_corrected_mask_goes_in_as_the_last_logits_and_points_alone(sam_model, sam_reference):
    shape = (120, 150)
    image, points, mask = image_of(shape), prompt_of("points", shape).points, SliceMask.pack(disc(shape))
    previous = sam_model.decode(sam_model.encode(image), SlicePrompt(mask=mask))
    prompt, asked = SlicePrompt(points=points, mask=mask), SlicePrompt(points=points)
    assert_parity(sam_model, sam_reference, image, prompt, previous, previous.logits, asked)


@pytest.mark.parametrize("prompt", [SlicePrompt(), SlicePrompt(mask=SliceMask.pack(np.zeros((120, 150), bool)))])
def test_a_prompt_that_says_nothing_is_refused(sam_model, prompt):
    with pytest.raises(PromptError, match="nothing of where"):
        sam_model.decode(sam_model.encode(image_of((120, 150))), prompt)
