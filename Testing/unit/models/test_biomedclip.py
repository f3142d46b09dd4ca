"""BiomedCLIP with random weights: against open_clip itself where it is installed, and against timm and transformers."""

import importlib.util
import json
import socket

import numpy as np
import pytest
import torch
from PIL import Image

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.errors import CheckpointError
from FoundationSegLib.models.classification import biomedclip
from FoundationSegLib.models.classification.two_towers import CLIP_COLOURS
from FoundationSegLib.requests.scoring import joined
from Testing.models.image_text_parity import TEXTS, assert_same, in_colour, logits_of, square_pictures
from Testing.models.small_image_text import open_clip_config, write_biomedclip

CARD = read_catalogue()["biomedclip"]
needs_open_clip = pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is None, reason="open_clip_torch is not installed"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_biomedclip(tmp_path_factory.mktemp("biomedclip"))


@pytest.fixture(scope="module")
def adapter(files):
    return biomedclip.load(CARD, files, "cpu")


@pytest.fixture(scope="module")
def reference(files, tmp_path_factory):
    """By the recipe of its authors, with the network off: `local-dir:`, and the text tower's config in a folder."""
    import open_clip

    source, folder = files["config.json"].parent, tmp_path_factory.mktemp("open_clip")
    for name in ("open_clip_pytorch_model.bin", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).symlink_to(source / name)
    tower = folder / "text_encoder"
    tower.mkdir()
    (tower / "config.json").symlink_to(source / "config.json")
    document = open_clip_config(224)
    document["model_cfg"]["text_cfg"] |= {"hf_model_name": str(tower), "hf_tokenizer_name": str(folder)}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval(), prepare, open_clip.get_tokenizer(f"local-dir:{folder}")


def pixels(prepare, pictures):
    return torch.stack([prepare(Image.fromarray(in_colour(picture))) for picture in pictures])


@needs_open_clip
@torch.inference_mode()
def test_vectors_and_logits_are_open_clips(adapter, reference):
    model, prepare, tokenizer = reference
    pictures = square_pictures()
    images = model.encode_image(pixels(prepare, pictures), normalize=True)
    texts = model.encode_text(tokenizer(list(TEXTS), context_length=256), normalize=True)
    assert_same(adapter.encode_images(pictures), images.numpy())
    assert_same(adapter.encode_texts(TEXTS).vectors, texts.numpy())
    theirs = (model.logit_scale.exp() * images @ texts.T).numpy()
    assert np.abs(logits_of(adapter, pictures, TEXTS) - theirs).max() < 1e-4
    mean = texts[:4].mean(dim=0)
    mine = joined(adapter.encode_texts(TEXTS[:4]).vectors.astype(np.float64))
    assert float(mine @ (mean / mean.norm()).numpy()) > 1 - 1e-6


@needs_open_clip
def test_tokens_are_open_clips_but_for_the_padding(adapter, reference):
    theirs = reference[2](list(TEXTS), context_length=256)
    mine = adapter.reader.tokens([biomedclip.clean(text) for text in TEXTS])["input_ids"]
    assert mine.shape[1] <= 256 and not theirs[:, mine.shape[1] :].any()
    assert torch.equal(mine, theirs[:, : mine.shape[1]])


@torch.inference_mode()
def test_the_towers_are_timms_and_transformers(adapter, files):
    """The same weights in networks that are made another way, and the pictures prepared by hand."""
    import timm
    from transformers import BertConfig, BertModel

    state = torch.load(files["open_clip_pytorch_model.bin"], weights_only=True)

    def part(prefix):
        return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}

    trunk = timm.create_model("vit_base_patch16_224", num_classes=0).eval()
    trunk.load_state_dict(part("visual.trunk."))
    pictures = square_pictures()[2:5]
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_COLOURS.mean, CLIP_COLOURS.std))
    shown = [Image.fromarray(in_colour(one)).resize((224, 224), Image.Resampling.BICUBIC) for one in pictures]
    batch = torch.stack([(torch.from_numpy(np.array(one)).permute(2, 0, 1) / 255 - mean) / std for one in shown])
    assert_same(adapter.encode_images(pictures), (trunk(batch) @ state["visual.head.proj.weight"].T).numpy())
    text = BertModel(BertConfig.from_json_file(files["config.json"]), add_pooling_layer=False).eval()
    text.load_state_dict(
        {name: value for name, value in part("text.transformer.").items() if not name.endswith("position_ids")}
    )
    tokens = adapter.reader.tokenizer(
        [biomedclip.clean(one) for one in TEXTS],
        padding="max_length",
        max_length=256,
        truncation=True,
        return_tensors="pt",
    )
    read = text(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state[:, 0]
    projected = torch.nn.functional.gelu(read @ state["text.proj.0.weight"].T) @ state["text.proj.2.weight"].T
    assert_same(adapter.encode_texts(TEXTS).vectors, projected.numpy())


def test_it_loads_with_the_network_off(files, monkeypatch):
    def trapped(*_args, **_kwargs):
        raise AssertionError("somebody asked the network")

    monkeypatch.setattr(socket, "create_connection", trapped)
    monkeypatch.setattr(socket, "getaddrinfo", trapped)
    monkeypatch.setattr(socket.socket, "connect", trapped)
    loaded = biomedclip.load(CARD, files, "cpu")
    assert loaded.encode_texts(["this is a photo of a chest x-ray"]).vectors.shape == (1, 512)


def test_what_it_says_of_itself(adapter):
    assert adapter.encode_texts(TEXTS).truncated == (False, False, False, False, False, True)
    assert adapter.head.scale == pytest.approx(np.exp(2.5)) and not adapter.head.is_sigmoid
    parts = adapter.encode_parts(square_pictures()[:1])
    assert parts.shape == (1, 14, 14, 512) and np.allclose(np.linalg.norm(parts, axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"vision_cfg": {"timm_model_name": "vit_large_patch16_224"}},
        {"vision_cfg": {"timm_pool": "avg"}},
        {"text_cfg": {"hf_pooler_type": "mean_pooler"}},
        {"text_cfg": {"hf_proj_type": "linear"}},
        {"text_cfg": {"context_length": 1000}},
        {"vision_cfg": {"image_size": 0}},
    ],
    ids=str,
)
def test_other_towers_are_refused(tmp_path, files, change):
    document = open_clip_config(224)
    for section, values in change.items():
        document["model_cfg"][section] |= values
    path = tmp_path / "open_clip_config.json"
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="does not describe"):
        biomedclip.load(CARD, {**files, path.name: path}, "cpu")


@pytest.mark.parametrize("content", ["[]", "{}", '{"model_cfg": 3}', '{"model_cfg": {"vision_cfg": {}}}'])
def test_no_configuration_is_told(tmp_path, files, content):
    path = tmp_path / "open_clip_config.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match="BiomedCLIP"):
        biomedclip.load(CARD, {**files, path.name: path}, "cpu")
