"""SAM with small random weights against SamProcessor and SamModel: images, points and boxes."""

import json

import numpy as np
import pytest
import torch

from FoundationSegLib.errors import Cancelled, CheckpointError
from FoundationSegLib.models.segmentation import sam
from Testing.models.sam_cases import KINDS, SHAPES, image_of, prompt_of
from Testing.models.sam_parity import TransformersSam, assert_parity
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


def test_grey_is_colour_with_equal_channels(sam_model):
    grey = image_of((37, 501))
    one, other = (sam_model.encode(image).features for image in (grey, np.stack([grey] * 3, axis=2)))
    assert torch.equal(one, other)


def test_the_same_prompt_gives_the_same_bits_whatever_comes_between(sam_model):
    shape = (120, 150)
    embedding = sam_model.encode(image_of(shape))
    before = embedding.features.clone()
    prompts = [prompt_of(kind, shape) for kind in KINDS]
    forwards = [sam_model.decode(embedding, prompt) for prompt in prompts]
    backwards = [sam_model.decode(embedding, prompt) for prompt in reversed(prompts)][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert torch.equal(one.logits, other.logits)
        assert (one.mask == other.mask).all() and one.score == other.score
    assert torch.equal(embedding.features, before)
    assert torch.equal(sam_model.encode(image_of(shape)).features, before)


def test_a_second_prompt_never_encodes_again(sam_model, monkeypatch):
    calls = []
    hook = sam_model.network.model.vision_encoder.register_forward_hook(lambda *_: calls.append(1))
    embedding = sam_model.encode(image_of((120, 150)))
    for kind in KINDS:
        sam_model.decode(embedding, prompt_of(kind, (120, 150)))
    hook.remove()
    assert len(calls) == 1


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
