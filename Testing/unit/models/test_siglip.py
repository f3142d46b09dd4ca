"""SigLIP with small random weights against SiglipImageProcessor, the tokenizer and SiglipModel called directly."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, SiglipImageProcessor, SiglipModel

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.errors import CheckpointError
from FoundationSegLib.models.classification import siglip
from FoundationSegLib.requests.scoring import LabelVectors, scores
from Testing.models.image_text_parity import TEXTS, assert_same, in_colour, logits_of, square_pictures
from Testing.models.small_image_text import write_siglip

CARD = read_catalogue()["siglip2-base"]


class Reference:
    def __init__(self, folder):
        self.model = SiglipModel.from_pretrained(folder).eval()
        self.processor = SiglipImageProcessor.from_pretrained(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def tokens(self, texts):
        return self.tokenizer(list(texts), padding="max_length", max_length=64, truncation=True, return_tensors="pt")

    def pixels(self, pictures):
        return self.processor([Image.fromarray(in_colour(one)) for one in pictures], return_tensors="pt")

    @torch.inference_mode()
    def __call__(self, pictures, texts):
        return self.model(**self.pixels(pictures), input_ids=self.tokens(texts).input_ids)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_siglip(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="module")
def adapter(files):
    return siglip.load(CARD, files, "cpu")


@pytest.fixture(scope="module")
def reference(files):
    return Reference(files["config.json"].parent)


def test_pictures_texts_and_logits_are_transformers(adapter, reference):
    pictures = square_pictures()
    said = reference(pictures, TEXTS)
    assert_same(adapter.encode_images(pictures), said.image_embeds.numpy())
    assert_same(adapter.encode_texts(TEXTS).vectors, said.text_embeds.numpy())
    assert np.abs(logits_of(adapter, pictures, TEXTS) - said.logits_per_image.numpy()).max() < 1e-4


def test_scores_by_sigmoid_are_the_models_own(adapter, reference):
    pictures = square_pictures()
    vectors = adapter.encode_texts(TEXTS).vectors.astype(np.float64)
    images = adapter.encode_images(pictures).astype(np.float64)
    mine = scores(images, LabelVectors(tuple(vectors[:, None])), "sigmoid", adapter.head)
    assert np.allclose(mine, torch.sigmoid(reference(pictures, TEXTS).logits_per_image).numpy(), atol=1e-5)
    assert adapter.head.is_sigmoid and adapter.head.bias == -3


def test_every_text_is_padded_as_in_training(adapter, reference):
    tokens = adapter.reader.tokens(TEXTS)["input_ids"]
    assert torch.equal(tokens, reference.tokens(TEXTS).input_ids) and tokens.shape[1] == 64
    assert adapter.encode_texts(TEXTS).truncated == (False, False, False, False, False, True)
    alone = np.concatenate([adapter.encode_texts([text]).vectors for text in TEXTS])
    assert_same(alone, adapter.encode_texts(TEXTS).vectors)


def test_letters_are_made_small_whatever_the_tokenizer_does(tmp_path, files, adapter):
    """SigLIP 2 is published with Gemma's tokenizer, which leaves capitals as they are."""
    for name, path in files.items():
        (tmp_path / name).write_bytes(path.read_bytes())
    path = tmp_path / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    assert "Lowercase" in json.dumps(document["normalizer"])
    document["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    path.write_text(json.dumps(document), encoding="utf-8")
    config = tmp_path / "tokenizer_config.json"
    told = json.loads(config.read_text(encoding="utf-8")) | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "padding_side": "left",
    }
    config.write_text(json.dumps(told), encoding="utf-8")
    plain = siglip.load(CARD, {path.name: path for path in tmp_path.iterdir()}, "cpu")
    ids = [one.reader.tokens(["A CT Scan"])["input_ids"][0].tolist() for one in (plain, adapter)]
    assert ids[0] != ids[1], "without it they differ"
    assert_same(plain.encode_texts(["A CT Scan"]).vectors, adapter.encode_texts(["a ct scan"]).vectors)
    assert_same(adapter.encode_texts(["A CT Scan"]).vectors, adapter.encode_texts(["a ct scan"]).vectors)


def test_parts_are_pooled_one_by_one(adapter, reference):
    pictures = square_pictures()[:2]
    parts = adapter.encode_parts(pictures)
    assert parts.shape == (2, 8, 8, 48)
    with torch.inference_mode():
        seen = reference.model.vision_model(**reference.pixels(pictures)).last_hidden_state
        for row, column in ((0, 0), (3, 6)):
            theirs = reference.model.vision_model.head(seen[:, 8 * row + column][:, None])
            assert_same(parts[:, row, column], theirs.numpy())


@pytest.mark.parametrize("resample", [2, 3])
def test_the_checkpoints_own_kernel_is_used(tmp_path, resample):
    files = write_siglip(tmp_path, resample=resample)
    pictures = square_pictures()
    mine = siglip.load(CARD, files, "cpu").encode_images(pictures)
    assert_same(mine, Reference(tmp_path)(pictures, ["a"]).image_embeds.numpy())


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_damaged_files_are_refused(tmp_path, files, name):
    path = tmp_path / name
    path.write_bytes(files[name].read_bytes()[:-20])
    with pytest.raises(CheckpointError, match="SigLIP 2 Base"):
        siglip.load(CARD, {**files, name: path}, "cpu")


def test_another_network_is_refused(tmp_path, files):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "siglip2"}))
    with pytest.raises(CheckpointError, match="does not describe"):
        siglip.load(CARD, {**files, "config.json": path}, "cpu")


MISSING = [name for name in ("sentencepiece", "google.protobuf") if find_spec(name.split(".")[0]) is None]


def old_tokenizer(folder, files):
    """The files of `google/medsiglip-448` but for spiece.model."""
    tokens = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "SiglipTokenizer"}
    tokens |= {"model_max_length": 64, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        (folder / name).write_bytes(files[name].read_bytes())
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.skipif(not MISSING, reason="both are installed")
def test_a_package_that_medsiglips_tokenizer_needs_is_named(tmp_path, files):
    (tmp_path / "spiece.model").write_bytes(b"")
    card = read_catalogue()["medsiglip"]
    with pytest.raises(ModuleNotFoundError) as error:
        siglip.load(card, old_tokenizer(tmp_path, files), "cpu")
    assert error.value.name in ("sentencepiece", "protobuf")


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_medsiglips_tokenizer_is_read(tmp_path, files):
    """MedSigLIP comes with SigLIP's own tokenizer, in sentencepiece's format."""
    import sentencepiece

    lines = tmp_path / "lines.txt"
    lines.write_text("a photo of a cat\nchest x-ray with effusion\nno finding here\n" * 50)
    made = {
        "model_prefix": str(tmp_path / "spiece"),
        "vocab_size": 27,
        "pad_id": 0,
        "eos_id": 1,
        "unk_id": 2,
        "bos_id": -1,
    }
    sentencepiece.SentencePieceTrainer.train(input=str(lines), minloglevel=2, **made)
    adapter = siglip.load(read_catalogue()["medsiglip"], old_tokenizer(tmp_path, files), "cpu")
    said = Reference(tmp_path)(square_pictures(), ["a photo of a cat", "Chest X-ray"])
    assert_same(adapter.encode_texts(["a photo of a cat", "Chest X-ray"]).vectors, said.text_embeds.numpy())
