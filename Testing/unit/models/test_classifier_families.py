"""CLIP, SigLIP, BiomedCLIP and FLAIR with small random weights against the networks and processors they come from.

CLIP and SigLIP are held against transformers, BiomedCLIP against timm, transformers and, where it is there, open_clip,
FLAIR against its authors' network built anew.
"""

import importlib.util
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms import Resize
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPImageProcessor,
    CLIPModel,
    SiglipImageProcessor,
    SiglipModel,
)

from FoundationSegLib.errors import Cancelled, CheckpointError
from FoundationSegLib.models.classification import biomedclip, clip, siglip
from FoundationSegLib.models.classification.two_towers import CLIP_COLOURS, PicturePreparation, TextReader
from FoundationSegLib.models.preprocessing import Normalisation
from FoundationSegLib.requests.scoring import LabelVectors, joined, scores
from Testing.models.small_image_text import (
    SMALL_TRUNK,
    TEXTS,
    assert_same,
    in_colour,
    logits_of,
    open_clip_config,
    padded,
    square_pictures,
    write_biomedclip,
    write_clip,
    write_siglip,
)
from Testing.models.small_models import CATALOGUE, LIGHTEST, WRITERS, load_small
from Testing.models.small_specialists import FLAIR_SIZE, FlairReference

FAMILIES = ("clip", "siglip", "biomedclip", "flair")
SIDES_OF_PARTS = {"biomedclip": 14, "flair": 2}


class Reference:
    """The processor, the tokenizer and the model of transformers on a folder."""

    def __init__(self, folder: Path, family: str) -> None:
        processor, model = (CLIPImageProcessor, CLIPModel) if family == "clip" else (SiglipImageProcessor, SiglipModel)
        self.model, self.processor = model.from_pretrained(folder).eval(), processor.from_pretrained(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.inputs = 2 if family == "clip" else 1  # SigLIP sees its padding
        self.padding = {"padding": True} if family == "clip" else {"padding": "max_length", "max_length": 64}

    def tokens(self, texts):
        return self.tokenizer(list(texts), truncation=True, return_tensors="pt", **self.padding)

    def pixels(self, pictures):
        shown = [Image.fromarray(in_colour(picture)) for picture in pictures]
        return self.processor(shown, return_tensors="pt")["pixel_values"]

    @torch.inference_mode()
    def images(self, pictures):
        return self.model(pixel_values=self.pixels(pictures), **self._texts(("a",))).image_embeds.numpy()

    @torch.inference_mode()
    def texts(self, texts):
        return self.model(pixel_values=self.pixels(square_pictures()[:1]), **self._texts(texts)).text_embeds.numpy()

    @torch.inference_mode()
    def logits(self, pictures, texts):
        return self.model(pixel_values=self.pixels(pictures), **self._texts(texts)).logits_per_image.numpy()

    def _texts(self, texts):
        tokens = self.tokens(texts)
        return {name: tokens[name] for name in ("input_ids", "attention_mask")[: self.inputs]}


class BiomedReference:
    """The same weights in networks that are made another way, and the pictures prepared by hand."""

    def __init__(self, folder: Path) -> None:
        import timm

        self.state = torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True)
        self.trunk = timm.create_model(SMALL_TRUNK, num_classes=0).eval()
        self.trunk.load_state_dict(self._part("visual.trunk."))
        self.bert = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False).eval()
        text = self._part("text.transformer.")
        self.bert.load_state_dict({name: text[name] for name in text if not name.endswith("position_ids")})
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def _part(self, prefix):
        return {name[len(prefix) :]: value for name, value in self.state.items() if name.startswith(prefix)}

    def tokens(self, texts):
        cleaned = [biomedclip.clean(text) for text in texts]
        return self.tokenizer(cleaned, padding=True, max_length=256, truncation=True, return_tensors="pt")

    @torch.inference_mode()
    def images(self, pictures):
        mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_COLOURS.mean, CLIP_COLOURS.std))
        shown = [Image.fromarray(in_colour(one)).resize((224, 224), Image.Resampling.BICUBIC) for one in pictures]
        batch = torch.stack([(torch.from_numpy(np.array(one)).permute(2, 0, 1) / 255 - mean) / std for one in shown])
        return (self.trunk(batch) @ self.state["visual.head.proj.weight"].T).numpy()

    @torch.inference_mode()
    def texts(self, texts):
        hidden = self.bert(**self.tokens(texts)).last_hidden_state[:, 0]
        return (
            torch.nn.functional.gelu(hidden @ self.state["text.proj.0.weight"].T) @ self.state["text.proj.2.weight"].T
        ).numpy()

    def logits(self, pictures, texts):
        images, labels = (
            vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            for vectors in (self.images(pictures), self.texts(texts))
        )
        return float(self.state["logit_scale"].exp()) * images @ labels.T


class FlairsReference:
    """The authors' network, pictures prepared by hand, and each text asked for alone."""

    def __init__(self, folder: Path) -> None:
        self.network = FlairReference().eval().requires_grad_(False)
        self.network.load_state_dict(load_file(folder / "model.safetensors"))
        self.tokenizer = BertTokenizer(str(folder / "vocab.txt"))

    def tokens(self, texts):
        return self.tokenizer(list(texts), padding=True, max_length=77, truncation=True, return_tensors="pt")

    @torch.inference_mode()
    def images(self, pictures):
        levels = [
            torch.from_numpy(in_colour(picture).astype(np.float32) / 255).permute(2, 0, 1) for picture in pictures
        ]
        sized = [Resize((FLAIR_SIZE, FLAIR_SIZE), antialias=True)(level[None]) for level in levels]
        return self.network.images(torch.cat(sized)).numpy()

    @torch.inference_mode()
    def texts(self, texts):
        tokens = [self.tokens([text]) for text in texts]
        return torch.cat([self.network.texts(part["input_ids"], part["attention_mask"]) for part in tokens]).numpy()

    def logits(self, pictures, texts):
        return float(self.network.logit_scale.exp()) * self.images(pictures) @ self.texts(texts).T


REFERENCES = {"biomedclip": BiomedReference, "flair": FlairsReference}


@dataclass(frozen=True)
class Family:
    name: str
    files: dict[str, Path]
    adapter: Any
    reference: Any


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    folder, name = tmp_path_factory.mktemp(request.param), request.param
    files = WRITERS[name](folder)
    reference = REFERENCES[name](folder) if name in REFERENCES else Reference(folder, name)
    return Family(name, files, load_small(LIGHTEST[name], files, "cpu"), reference)


def test_vectors_and_logits_are_the_references(family):
    pictures = square_pictures()
    assert_same(family.adapter.encode_images(pictures), family.reference.images(pictures))
    assert_same(family.adapter.encode_texts(TEXTS).vectors, family.reference.texts(TEXTS))
    theirs = family.reference.logits(pictures, TEXTS)
    assert np.abs(logits_of(family.adapter, pictures, TEXTS) - theirs).max() < 1e-4


def test_scores_by_sigmoid_are_siglips_own(family):
    head = family.adapter.head
    if family.name != "siglip":
        assert not head.is_sigmoid and head.bias == 0 and head.scale == pytest.approx(np.exp(2.5))
        return
    pictures = square_pictures()
    vectors = family.adapter.encode_texts(TEXTS).vectors.astype(np.float64)
    images = family.adapter.encode_images(pictures).astype(np.float64)
    ours = scores(images, LabelVectors(tuple(vectors[:, None])), "sigmoid", head)
    theirs = torch.from_numpy(family.reference.logits(pictures, TEXTS)).sigmoid().numpy()
    assert np.allclose(ours, theirs, atol=1e-5)
    assert head.is_sigmoid and head.bias == -3


def test_one_by_one_is_the_same_as_together(family):
    pictures, adapter = square_pictures(), family.adapter
    alone = np.concatenate([adapter.encode_images([picture]) for picture in pictures])
    assert_same(alone, adapter.encode_images(pictures))
    texts = np.concatenate([adapter.encode_texts([text]).vectors for text in TEXTS])
    assert_same(texts, adapter.encode_texts(TEXTS).vectors)


def test_tokens_are_cut_and_padded_as_in_training(family):
    cleaned = [biomedclip.clean(text) for text in TEXTS] if family.name == "biomedclip" else TEXTS
    tokens = family.adapter.reader.tokens(cleaned)["input_ids"]
    assert torch.equal(tokens, family.reference.tokens(TEXTS).input_ids)
    assert tokens.shape[1] == {"clip": 77, "siglip": 64, "biomedclip": 256, "flair": 77}[family.name]
    assert family.adapter.encode_texts(TEXTS).truncated == (False, False, False, False, False, True)


def test_parts_lie_where_they_are(family):
    """The patches of the last layer, each as if it were the whole picture's vector."""
    pictures = square_pictures()[:3]
    parts = family.adapter.encode_parts(pictures)
    side = SIDES_OF_PARTS.get(family.name, 8)
    assert parts.shape[:3] == (3, side, side) and np.allclose(np.linalg.norm(parts, axis=-1), 1, atol=1e-5)
    if family.name in SIDES_OF_PARTS:
        return
    model = family.reference.model
    with torch.inference_mode():
        patches = model.vision_model(family.reference.pixels(pictures)).last_hidden_state
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
    assert_same(family.adapter.encode_images([padded(picture)]), family.reference.images([padded(picture)]))
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


def test_it_loads_with_the_network_off_and_names_what_is_missing(family, monkeypatch):
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, lambda *_arguments, **_options: pytest.fail("somebody asked the network"))
    monkeypatch.setattr(socket.socket, "connect", lambda *_arguments: pytest.fail("somebody asked the network"))
    assert load_small(LIGHTEST[family.name], family.files, "cpu").encode_texts(["an x-ray"]).vectors.shape[0] == 1
    missing = "vocab.txt" if family.name == "flair" else "tokenizer_config.json"
    with pytest.raises(CheckpointError, match=missing):
        files = {name: path for name, path in family.files.items() if name != missing}
        load_small(LIGHTEST[family.name], files, "cpu")


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="open_clip_torch is not installed")
@torch.inference_mode()
def test_biomedclip_says_what_open_clip_says(tmp_path, full):
    """By the recipe of its authors, with the network off: `local-dir:`, and the text tower's config in a folder."""
    import open_clip

    trunk, tower = "vit_base_patch16_224" if full else SMALL_TRUNK, tmp_path / "text_encoder"
    files = write_biomedclip(tmp_path, trunk)
    adapter = biomedclip.load(LIGHTEST["biomedclip"], files, "cpu", trunk)
    tower.mkdir()
    (tower / "config.json").write_bytes(files["config.json"].read_bytes())
    files["config.json"].unlink()
    document = open_clip_config(trunk)
    document["model_cfg"]["text_cfg"] |= {"hf_model_name": str(tower), "hf_tokenizer_name": str(tmp_path)}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(document))
    model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(list(TEXTS), context_length=256)
    model, pictures = model.eval(), square_pictures()
    pixels = torch.stack([prepare(Image.fromarray(in_colour(picture))) for picture in pictures])
    images, texts = model.encode_image(pixels, normalize=True), model.encode_text(tokens, normalize=True)
    assert_same(adapter.encode_images(pictures), images.numpy())
    vectors = adapter.encode_texts(TEXTS).vectors
    assert_same(vectors, texts.numpy())
    theirs = (model.logit_scale.exp() * images @ texts.T).numpy()
    assert np.abs(logits_of(adapter, pictures, TEXTS) - theirs).max() < 1e-4
    mean = texts[:4].mean(dim=0)
    assert float(joined(vectors[:4].astype(np.float64)) @ (mean / mean.norm()).numpy()) > 1 - 1e-6
    ours = adapter.reader.tokens([biomedclip.clean(text) for text in TEXTS])["input_ids"]
    assert torch.equal(ours, tokens[:, : ours.shape[1]]) and not tokens[:, ours.shape[1] :].any()


def test_a_folder_cannot_run_code(tmp_path):
    files = write_clip(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')", encoding="utf-8")
    path = files["tokenizer_config.json"]
    evil = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    path.write_text(json.dumps(json.loads(path.read_text()) | evil))
    try:
        clip.load(LIGHTEST["clip"], files, "cpu")
    except CheckpointError as error:
        assert "tokenizer" in str(error)


@pytest.mark.parametrize("resample", [2, 3])
def test_the_checkpoints_own_preparation_is_followed(tmp_path, resample):
    for name in ("clip", "siglip"):
        folder = tmp_path / name
        folder.mkdir()
        own = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "resample": resample}
        clips = name == "clip"
        files = write_clip(folder, preprocessor=own) if clips else write_siglip(folder, resample=resample)
        adapter, pictures = load_small(LIGHTEST[name], files, "cpu"), square_pictures()
        assert_same(adapter.encode_images(pictures), Reference(folder, name).images(pictures))


def test_letters_are_made_small_whatever_siglips_tokenizer_does(tmp_path):
    """SigLIP 2 is published with Gemma's tokenizer, which leaves capitals as they are."""
    adapter = siglip.load(LIGHTEST["siglip"], write_siglip(tmp_path), "cpu")
    path, config = tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    assert "Lowercase" in json.dumps(document["normalizer"])
    document["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    path.write_text(json.dumps(document), encoding="utf-8")
    gemmas = {"tokenizer_class": "PreTrainedTokenizerFast", "padding_side": "left"}
    config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | gemmas), encoding="utf-8")
    plain = siglip.load(LIGHTEST["siglip"], {path.name: path for path in tmp_path.iterdir()}, "cpu")
    ids = [model.reader.tokens(["A CT Scan"])["input_ids"][0].tolist() for model in (plain, adapter)]
    assert ids[0] != ids[1], "without it they differ"
    assert_same(plain.encode_texts(["A CT Scan"]).vectors, adapter.encode_texts(["a ct scan"]).vectors)


MISSING = [name for name in ("sentencepiece", "google") if importlib.util.find_spec(name) is None]


def test_medsiglips_tokenizer_is_read_or_the_package_that_it_needs_is_named(tmp_path):
    """MedSigLIP comes with SigLIP's own tokenizer, in sentencepiece's format."""
    files = write_siglip(tmp_path)
    for name in set(files) - {"model.safetensors", "config.json", "preprocessor_config.json"}:
        files[name].unlink()
    tokens = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "SiglipTokenizer"}
    tokens |= {"model_max_length": 64, "do_lower_case": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokens))
    (tmp_path / "spiece.model").write_bytes(b"")
    if MISSING:
        with pytest.raises(ModuleNotFoundError) as error:
            siglip.load(CATALOGUE["medsiglip"], {path.name: path for path in tmp_path.iterdir()}, "cpu")
        assert error.value.name in ("sentencepiece", "protobuf")
        return
    import sentencepiece

    lines = tmp_path / "lines.txt"
    lines.write_text("a photo of a cat\nchest x-ray with effusion\nno finding here\n" * 50)
    numbers = {"vocab_size": 27, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    prefix = str(tmp_path / "spiece")
    sentencepiece.SentencePieceTrainer.train(input=str(lines), minloglevel=2, model_prefix=prefix, **numbers)
    adapter = siglip.load(CATALOGUE["medsiglip"], {path.name: path for path in tmp_path.iterdir()}, "cpu")
    texts = ["a photo of a cat", "Chest X-ray"]
    assert_same(adapter.encode_texts(texts).vectors, Reference(tmp_path, "siglip").texts(texts))


class Words:
    """A tokenizer whose tokens are the lengths of words."""

    def __call__(self, texts, padding=False, max_length=None, truncation=False, return_tensors=None, verbose=True):
        ids = [[len(word) for word in text.split()] for text in texts]
        if not truncation:
            return {"input_ids": ids}
        ids = [row[:max_length] for row in ids]
        longest = max_length if padding == "max_length" else max(map(len, ids))
        return {"input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in ids])}


def test_texts_come_back_in_order_and_in_batches_of_bounded_size():
    shapes = []

    def tower(tokens):
        shapes.append(tuple(tokens["input_ids"].shape))
        return torch.nn.functional.one_hot(tokens["input_ids"][:, 0], 10).float()

    texts = [" ".join(["x" * (n % 9 + 1)] * (n % 300 + 1)) for n in range(700)]
    encoded = TextReader(Words(), 256, is_padded=False).encode(texts, tower, lambda: None)
    assert [int(vector.argmax()) for vector in encoded.vectors] == [n % 9 + 1 for n in range(700)]
    assert encoded.truncated == tuple(n % 300 + 1 > 256 for n in range(700))
    assert all(rows * columns <= 2**13 for rows, columns in shapes)
    assert sum(rows for rows, _ in shapes) == 700 and len(shapes) < 20


def test_pictures_of_any_shape_become_a_square_batch_either_way():
    rng, plain = np.random.default_rng(0), Normalisation((0.0,) * 3, (1.0,) * 3)
    pictures = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((5, 9), (40, 40, 3), (1, 1), (100, 3))]
    for by_pillow in (False, True):
        batch = PicturePreparation(16, plain, by_pillow=by_pillow)(pictures, "cpu")
        assert batch.shape == (4, 3, 16, 16) and batch.dtype == torch.float32
        assert batch.min() >= 0 and batch.max() <= 1
        assert torch.equal(batch[0, 0], batch[0, 2])
    large = [rng.integers(0, 256, (100, 100, 3), dtype=np.uint8)]
    one, other = (PicturePreparation(40, plain, by_pillow=by_pillow)(large, "cpu") for by_pillow in (False, True))
    assert (one - other).abs().max() <= 1.01 / 255
