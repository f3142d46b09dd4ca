"""CLIP with small random weights against CLIPImageProcessor, CLIPTokenizer and CLIPModel called directly."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.errors import Cancelled, CheckpointError
from FoundationSegLib.models.classification import clip
from FoundationSegLib.requests.scoring import joined
from Testing.models.image_text_parity import TEXTS, assert_same, in_colour, logits_of, padded, square_pictures
from Testing.models.small_image_text import write_clip

CARD = read_catalogue()["clip-vit-base-patch32"]


class Reference:
    def __init__(self, folder):
        self.model = CLIPModel.from_pretrained(folder).eval()
        self.processor = CLIPImageProcessor.from_pretrained(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def tokens(self, texts):
        return self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")

    @torch.inference_mode()
    def images(self, pictures):
        shown = [Image.fromarray(in_colour(picture)) for picture in pictures]
        return self.model.get_image_features(**self.processor(shown, return_tensors="pt")).pooler_output.numpy()

    @torch.inference_mode()
    def texts(self, texts):
        tokens = self.tokens(texts)
        return self.model.get_text_features(**tokens).pooler_output.numpy()

    @torch.inference_mode()
    def logits(self, pictures, texts):
        shown = [Image.fromarray(in_colour(picture)) for picture in pictures]
        pixels = self.processor(shown, return_tensors="pt")
        tokens = self.tokens(texts)
        return self.model(**pixels, **tokens).logits_per_image.numpy()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def adapter(files):
    return clip.load(CARD, files, "cpu")


@pytest.fixture(scope="module")
def reference(files):
    return Reference(files["config.json"].parent)


def test_pictures_and_texts_have_transformers_vectors(adapter, reference):
    pictures = square_pictures()
    assert_same(adapter.encode_images(pictures), reference.images(pictures))
    assert_same(adapter.encode_texts(TEXTS).vectors, reference.texts(TEXTS))


def test_logits_are_transformers(adapter, reference):
    pictures = square_pictures()
    assert np.abs(logits_of(adapter, pictures, TEXTS) - reference.logits(pictures, TEXTS)).max() < 1e-4


def test_one_by_one_is_the_same_as_together(adapter):
    pictures = square_pictures()
    alone = np.concatenate([adapter.encode_images([picture]) for picture in pictures])
    assert_same(alone, adapter.encode_images(pictures))
    texts = np.concatenate([adapter.encode_texts([text]).vectors for text in TEXTS])
    assert_same(texts, adapter.encode_texts(TEXTS).vectors)


def test_tokens_are_cut_and_that_is_told(adapter, reference):
    reader = adapter.reader
    tokens = reader.tokens(TEXTS)["input_ids"]
    assert torch.equal(tokens, reference.tokens(TEXTS).input_ids)
    assert tokens.shape[1] == 77
    assert adapter.encode_texts(TEXTS).truncated == (False, False, False, False, False, True)


def test_templates_are_joined_as_the_authors_do(adapter, reference):
    templates = ["a photo of {}", "{}", "an image of {}"]
    texts = [template.replace("{}", "a liver") for template in templates]
    theirs = torch.nn.functional.normalize(torch.from_numpy(reference.texts(texts)), dim=-1).mean(dim=0)
    theirs = (theirs / theirs.norm()).numpy()
    mine = joined(adapter.encode_texts(texts).vectors.astype(np.float64))
    assert float(mine @ theirs) > 1 - 1e-6


def test_the_edges_of_a_padded_slice_are_seen(adapter, reference):
    """The processor would crop the middle of a slice that is not square; padded it is seen whole."""
    slice_ = np.random.default_rng(0).integers(0, 256, (40, 100), dtype=np.uint8)
    assert_same(adapter.encode_images([padded(slice_)]), reference.images([padded(slice_)]))
    blank_middle = slice_.copy()
    blank_middle[:, 30:70] = 0
    assert (reference.images([slice_]) != reference.images([padded(slice_)])).any()
    edges = slice_.copy()
    edges[:, :20] = 0
    changed = 1 - (adapter.encode_images([padded(slice_)]) @ adapter.encode_images([padded(edges)]).T).item()
    assert changed > 1e-4


def test_a_slice_that_is_not_square_is_seen_whole(adapter):
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (64, 200), dtype=np.uint8)
    other = picture.copy()
    other[:, 190:] = 0
    one, two = adapter.encode_images([picture, other])
    assert one @ two < 1 - 1e-6


def test_parts_lie_where_they_are(adapter, reference):
    """The patches of the last layer, through the layer norm and projection that the class token goes through."""
    pictures = square_pictures()[:3]
    parts = adapter.encode_parts(pictures)
    assert parts.shape == (3, 8, 8, 32) and np.allclose(np.linalg.norm(parts, axis=-1), 1, atol=1e-5)
    shown = [Image.fromarray(in_colour(picture)) for picture in pictures]
    with torch.inference_mode():
        seen = reference.model.vision_model(**reference.processor(shown, return_tensors="pt")).last_hidden_state
        theirs = reference.model.visual_projection(reference.model.vision_model.post_layernorm(seen))[:, 1:]
    for row, column in ((0, 0), (2, 5), (7, 7)):
        assert_same(parts[:, row, column], theirs[:, 8 * row + column].numpy())


def test_encoding_can_be_stopped_between_layers(adapter):
    def stop():
        raise Cancelled

    with pytest.raises(Cancelled):
        adapter.encode_images(square_pictures()[:1], stop)
    with pytest.raises(Cancelled):
        adapter.encode_texts(["a"], stop)


def test_what_it_says_of_itself(adapter, reference):
    assert (adapter.device, adapter.precision) == ("cpu", "float32")
    assert adapter.head.scale == pytest.approx(float(reference.model.logit_scale.detach().exp()))
    assert not adapter.head.is_sigmoid and adapter.head.bias == 0
    assert adapter.nbytes >= sum(value.nbytes for value in reference.model.parameters())


@pytest.mark.parametrize("name", ["pytorch_model.bin", "config.json", "tokenizer_config.json"])
def test_a_missing_file_is_named(files, name):
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        clip.load(CARD, {key: path for key, path in files.items() if key != name}, "cpu")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", '{"model_type": "bert"}'),
        ("config.json", '{"model_type": "clip", "text_config": {"hidden_size": "wide"}}'),
        ("config.json", '{"model_type": "clip", "text_config": {"hidden_size": 50, "num_attention_heads": 3}}'),
        ("config.json", "{"),
        ("pytorch_model.bin", "no weights"),
        ("preprocessor_config.json", '{"size": 336}'),
        ("preprocessor_config.json", '{"do_rescale": false}'),
        ("preprocessor_config.json", '{"image_mean": "grey"}'),
        ("preprocessor_config.json", '{"image_std": [0, 1, 1]}'),
        ("tokenizer_config.json", "[]"),
    ],
)
def test_a_file_that_is_something_else_is_refused(tmp_path, files, name, content):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match="CLIP ViT-B/32"):
        clip.load(CARD, {**files, name: path}, "cpu")


def test_a_folder_cannot_run_code(tmp_path):
    files = write_clip(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')", encoding="utf-8")
    path = files["tokenizer_config.json"]
    document = json.loads(path.read_text()) | {
        "tokenizer_class": "Evil",
        "auto_map": {"AutoTokenizer": ["evil.Evil", None]},
    }
    path.write_text(json.dumps(document))
    try:
        clip.load(CARD, files, "cpu")
    except CheckpointError as error:
        assert "tokenizer" in str(error)


def test_the_checkpoints_own_preparation_is_followed(tmp_path):
    files = write_clip(
        tmp_path, preprocessor={"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "resample": 2}
    )
    adapter, reference = clip.load(CARD, files, "cpu"), Reference(tmp_path)
    pictures = square_pictures()
    assert_same(adapter.encode_images(pictures), reference.images(pictures))


def test_defects_are_caught(adapter, reference):
    """What goes wrong silently must be seen by these tests."""
    pictures = square_pictures()
    theirs = reference.images(pictures)
    for defect in (
        [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures],
        [np.ascontiguousarray(picture.swapaxes(0, 1)) for picture in pictures],
        [255 - picture for picture in pictures],
        [np.roll(picture, 1, axis=0) for picture in pictures],
        [(picture // 2).astype(np.uint8) for picture in pictures],
    ):
        with pytest.raises(AssertionError):
            assert_same(adapter.encode_images(defect), theirs)
