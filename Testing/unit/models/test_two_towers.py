"""CLIP and SigLIP with small random weights against transformers' processors, tokenizers and models called directly."""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel, SiglipImageProcessor, SiglipModel

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.errors import Cancelled, CheckpointError
from FoundationSegLib.models.classification import clip, siglip
from FoundationSegLib.models.classification.two_towers import Preparation, TextReader
from FoundationSegLib.models.preprocessing import Normalisation
from FoundationSegLib.requests.scoring import LabelVectors, scores
from Testing.models.image_text_parity import TEXTS, assert_same, in_colour, logits_of, padded, square_pictures
from Testing.models.small_image_text import write_clip, write_siglip

FAMILIES = {"clip": (clip, "clip-vit-base-patch32", write_clip), "siglip": (siglip, "siglip2-base", write_siglip)}
CARDS = {name: read_catalogue()[model_id] for name, (_, model_id, _) in FAMILIES.items()}


class Reference:
    """The processor, the tokenizer and the model of transformers on a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        processor, model = (CLIPImageProcessor, CLIPModel) if name == "clip" else (SiglipImageProcessor, SiglipModel)
        self.model, self.processor = model.from_pretrained(folder).eval(), processor.from_pretrained(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.inputs = 2 if name == "clip" else 1  # SigLIP sees its padding
        self.padding = {"padding": True} if name == "clip" else {"padding": "max_length", "max_length": 64}

    def tokens(self, texts):
        return self.tokenizer(list(texts), truncation=True, return_tensors="pt", **self.padding)

    def pixels(self, pictures):
        return self.processor([Image.fromarray(in_colour(one)) for one in pictures], return_tensors="pt")

    @torch.inference_mode()
    def __call__(self, pictures, texts=("a",)):
        """The model's output, with ``image_embeds``, ``text_embeds`` and ``logits_per_image``."""
        tokens = self.tokens(texts)
        named = {name: tokens[name] for name in ("input_ids", "attention_mask")[: self.inputs]}
        return self.model(**self.pixels(pictures), **named)


@dataclass(frozen=True)
class Family:
    name: str
    files: dict[str, Path]
    adapter: Any
    reference: Reference

    def load(self, files):
        return FAMILIES[self.name][0].load(CARDS[self.name], files, "cpu")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    module, _, write = FAMILIES[request.param]
    files = write(tmp_path_factory.mktemp(request.param))
    adapter = module.load(CARDS[request.param], files, "cpu")
    return Family(request.param, files, adapter, Reference(files["config.json"].parent, request.param))


def test_vectors_and_logits_are_transformers(family):
    pictures = square_pictures()
    output = family.reference(pictures, TEXTS)
    assert_same(family.adapter.encode_images(pictures), output.image_embeds.numpy())
    assert_same(family.adapter.encode_texts(TEXTS).vectors, output.text_embeds.numpy())
    assert np.abs(logits_of(family.adapter, pictures, TEXTS) - output.logits_per_image.numpy()).max() < 1e-4


def test_scores_by_sigmoid_are_siglips_own(family):
    if family.name == "clip":
        assert not family.adapter.head.is_sigmoid and family.adapter.head.bias == 0
        return
    pictures = square_pictures()
    vectors = family.adapter.encode_texts(TEXTS).vectors.astype(np.float64)
    images = family.adapter.encode_images(pictures).astype(np.float64)
    ours = scores(images, LabelVectors(tuple(vectors[:, None])), "sigmoid", family.adapter.head)
    assert np.allclose(ours, torch.sigmoid(family.reference(pictures, TEXTS).logits_per_image).numpy(), atol=1e-5)
    assert family.adapter.head.is_sigmoid and family.adapter.head.bias == -3


def test_one_by_one_is_the_same_as_together(family):
    pictures, adapter = square_pictures(), family.adapter
    alone = np.concatenate([adapter.encode_images([picture]) for picture in pictures])
    assert_same(alone, adapter.encode_images(pictures))
    texts = np.concatenate([adapter.encode_texts([text]).vectors for text in TEXTS])
    assert_same(texts, adapter.encode_texts(TEXTS).vectors)


def test_tokens_are_cut_and_padded_as_in_training(family):
    tokens = family.adapter.reader.tokens(TEXTS)["input_ids"]
    assert torch.equal(tokens, family.reference.tokens(TEXTS).input_ids)
    assert tokens.shape[1] == (77 if family.name == "clip" else 64)
    assert family.adapter.encode_texts(TEXTS).truncated == (False, False, False, False, False, True)


def test_parts_lie_where_they_are(family):
    """The patches of the last layer, each as if it were the whole picture's vector."""
    pictures = square_pictures()[:3]
    parts = family.adapter.encode_parts(pictures)
    assert parts.shape[:3] == (3, 8, 8) and np.allclose(np.linalg.norm(parts, axis=-1), 1, atol=1e-5)
    model = family.reference.model
    with torch.inference_mode():
        patches = model.vision_model(**family.reference.pixels(pictures)).last_hidden_state
        for row, column in ((0, 0), (2, 5), (7, 7)):
            if family.name == "clip":  # the first is the class token
                patch = patches[:, 1 + 8 * row + column]
                expected = model.visual_projection(model.vision_model.post_layernorm(patch))
            else:
                expected = model.vision_model.head(patches[:, 8 * row + column][:, None])
            assert_same(parts[:, row, column], expected.numpy())


def test_the_edges_of_a_padded_slice_are_seen(family):
    """A processor would crop the middle of a slice that is not square; padded it is seen whole."""
    picture = np.random.default_rng(0).integers(0, 256, (40, 100), dtype=np.uint8)
    assert_same(
        family.adapter.encode_images([padded(picture)]), family.reference([padded(picture)]).image_embeds.numpy()
    )
    edges = picture.copy()
    edges[:, :20] = 0
    for shown in (padded, lambda image: image):
        one, other = family.adapter.encode_images([shown(picture), shown(edges)])
        assert one @ other < 1 - 1e-5


def test_encoding_can_be_stopped_between_layers(family):
    def stop():
        raise Cancelled

    with pytest.raises(Cancelled):
        family.adapter.encode_images(square_pictures()[:1], stop)
    with pytest.raises(Cancelled):
        family.adapter.encode_texts(["a"], stop)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_file_is_named(family, number):
    weights = "pytorch_model.bin" if family.name == "clip" else "model.safetensors"
    name = (weights, "config.json", "tokenizer_config.json")[number]
    expected = name if family.name == "clip" or number else "pytorch_model.bin"
    with pytest.raises(CheckpointError, match=expected.replace(".", r"\.")):
        family.load({key: path for key, path in family.files.items() if key != name})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", '{"model_type": "bert"}'),
        ("config.json", '{"model_type": "clip", "text_config": {"hidden_size": "wide"}}'),
        ("config.json", '{"model_type": "clip", "text_config": {"hidden_size": 50, "num_attention_heads": 3}}'),
        ("config.json", '{"model_type": "clip", "projection_dim": 0}'),
        ("config.json", '{"model_type": "siglip2"}'),
        ("config.json", "{"),
        ("pytorch_model.bin", "no weights"),
        ("model.safetensors", "no weights"),
        ("preprocessor_config.json", '{"size": 336}'),
        ("preprocessor_config.json", '{"do_rescale": false}'),
        ("preprocessor_config.json", '{"image_mean": "grey"}'),
        ("preprocessor_config.json", '{"image_std": [0, 1, 1]}'),
        ("preprocessor_config.json", '{"size": '),
        ("tokenizer_config.json", "[]"),
    ],
)
def test_a_file_that_is_something_else_is_refused(tmp_path, family, name, content):
    if name == "pytorch_model.bin" and name not in family.files:
        pytest.skip("its weights are in another file")
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=CARDS[family.name].title):
        family.load({**family.files, name: path})


def test_a_folder_cannot_run_code(tmp_path):
    files = write_clip(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')", encoding="utf-8")
    path = files["tokenizer_config.json"]
    evil = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    path.write_text(json.dumps(json.loads(path.read_text()) | evil))
    try:
        clip.load(CARDS["clip"], files, "cpu")
    except CheckpointError as error:
        assert "tokenizer" in str(error)


@pytest.mark.parametrize("resample", [2, 3])
def test_the_checkpoints_own_preparation_is_followed(tmp_path, resample):
    for folder in (tmp_path / "clip", tmp_path / "siglip"):
        folder.mkdir()
    own = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "resample": resample}
    written = {
        "clip": write_clip(tmp_path / "clip", preprocessor=own),
        "siglip": write_siglip(tmp_path / "siglip", resample=resample),
    }
    pictures = square_pictures()
    for name, files in written.items():
        adapter = FAMILIES[name][0].load(CARDS[name], files, "cpu")
        assert_same(adapter.encode_images(pictures), Reference(tmp_path / name, name)(pictures).image_embeds.numpy())


def test_defects_are_noticed(family):
    pictures = square_pictures()
    expected = family.reference(pictures).image_embeds.numpy()
    for defect in (
        [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures],
        [np.ascontiguousarray(picture.swapaxes(0, 1)) for picture in pictures],
        [255 - picture for picture in pictures],
        [np.roll(picture, 1, axis=0) for picture in pictures],
        [(picture // 2).astype(np.uint8) for picture in pictures],
    ):
        with pytest.raises(AssertionError):
            assert_same(family.adapter.encode_images(defect), expected)


def test_letters_are_made_small_whatever_siglips_tokenizer_does(tmp_path):
    """SigLIP 2 is published with Gemma's tokenizer, which leaves capitals as they are."""
    files = write_siglip(tmp_path)
    adapter = siglip.load(CARDS["siglip"], files, "cpu")
    path = tmp_path / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    assert "Lowercase" in json.dumps(document["normalizer"])
    document["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    path.write_text(json.dumps(document), encoding="utf-8")
    config = tmp_path / "tokenizer_config.json"
    gemmas = {"tokenizer_class": "PreTrainedTokenizerFast", "padding_side": "left"}
    config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | gemmas), encoding="utf-8")
    plain = siglip.load(CARDS["siglip"], {path.name: path for path in tmp_path.iterdir()}, "cpu")
    ids = [one.reader.tokens(["A CT Scan"])["input_ids"][0].tolist() for one in (plain, adapter)]
    assert ids[0] != ids[1], "without it they differ"
    assert_same(plain.encode_texts(["A CT Scan"]).vectors, adapter.encode_texts(["a ct scan"]).vectors)


MISSING = [name for name in ("sentencepiece", "google.protobuf") if find_spec(name.split(".")[0]) is None]


@pytest.fixture
def old_files(tmp_path):
    """The files of `google/medsiglip-448` but for spiece.model."""
    files = write_siglip(tmp_path)
    for name in set(files) - {"model.safetensors", "config.json", "preprocessor_config.json"}:
        files[name].unlink()
    tokens = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "SiglipTokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(tokens | {"model_max_length": 64, "do_lower_case": True})
    )
    return {path.name: path for path in tmp_path.iterdir()}


@pytest.mark.skipif(not MISSING, reason="both are installed")
def test_a_package_that_medsiglips_tokenizer_needs_is_named(tmp_path, old_files):
    (tmp_path / "spiece.model").write_bytes(b"")
    with pytest.raises(ModuleNotFoundError) as error:
        siglip.load(read_catalogue()["medsiglip"], old_files, "cpu")
    assert error.value.name in ("sentencepiece", "protobuf")


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_medsiglips_tokenizer_is_read(tmp_path, old_files):
    """MedSigLIP comes with SigLIP's own tokenizer, in sentencepiece's format."""
    import sentencepiece

    lines = tmp_path / "lines.txt"
    lines.write_text("a photo of a cat\nchest x-ray with effusion\nno finding here\n" * 50)
    numbers = {"vocab_size": 27, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    prefix = str(tmp_path / "spiece")
    sentencepiece.SentencePieceTrainer.train(input=str(lines), minloglevel=2, model_prefix=prefix, **numbers)
    adapter = siglip.load(read_catalogue()["medsiglip"], old_files, "cpu")
    texts = ["a photo of a cat", "Chest X-ray"]
    output = Reference(tmp_path, "siglip")(square_pictures(), texts)
    assert_same(adapter.encode_texts(texts).vectors, output.text_embeds.numpy())


class Words:
    """A tokenizer whose tokens are the lengths of words."""

    def __call__(self, texts, padding=False, max_length=None, truncation=False, return_tensors=None, verbose=True):
        ids = [[len(word) for word in text.split()] for text in texts]
        if not truncation:
            return {"input_ids": ids}
        ids = [one[:max_length] for one in ids]
        longest = max_length if padding == "max_length" else max(map(len, ids))
        return {"input_ids": torch.tensor([one + [0] * (longest - len(one)) for one in ids])}


def test_texts_come_back_in_order_and_in_batches_of_bounded_size():
    shapes = []

    def tower(tokens):
        shapes.append(tuple(tokens["input_ids"].shape))
        return torch.nn.functional.one_hot(tokens["input_ids"][:, 0], 10).float()

    texts = [" ".join(["x" * (n % 9 + 1)] * (n % 300 + 1)) for n in range(700)]
    read = TextReader(Words(), 256, is_padded=False).encode(texts, tower, lambda: None)
    assert [int(vector.argmax()) for vector in read.vectors] == [n % 9 + 1 for n in range(700)]
    assert read.truncated == tuple(n % 300 + 1 > 256 for n in range(700))
    assert all(rows * columns <= 2**13 for rows, columns in shapes)
    assert sum(rows for rows, _ in shapes) == 700 and len(shapes) < 20


def test_pictures_of_any_shape_become_a_square_batch_either_way():
    rng, plain = np.random.default_rng(0), Normalisation((0.0,) * 3, (1.0,) * 3)
    pictures = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((5, 9), (40, 40, 3), (1, 1), (100, 3))]
    batches = [Preparation(16, plain, by_pillow=by_pillow)(pictures, "cpu") for by_pillow in (False, True)]
    for batch in batches:
        assert batch.shape == (4, 3, 16, 16) and batch.dtype == torch.float32
        assert batch.min() >= 0 and batch.max() <= 1
        assert torch.equal(batch[0, 0], batch[0, 2])
    large = [rng.integers(0, 256, (100, 100, 3), dtype=np.uint8)]
    one, other = (Preparation(40, plain, by_pillow=by_pillow)(large, "cpu") for by_pillow in (False, True))
    assert (one - other).abs().max() <= 1.01 / 255
