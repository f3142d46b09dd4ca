"""A SAM 2 checkpoint in transformers' layout: loaded strictly, or refused with the model's name."""

import json
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Sam2VideoConfig, Sam2VideoModel

from FoundationSegLib.catalog.catalogue import card_folder, read_catalogue
from FoundationSegLib.errors import CheckpointError
from FoundationSegLib.models.preprocessing import Normalisation
from FoundationSegLib.models.protocols import SlicePrompt, load_slice_model
from FoundationSegLib.models.segmentation.sam2 import Preparation
from Testing.models.small_sam2 import slice_of, small_network, write_checkpoint

CARD = read_catalogue(card_folder())["sam2.1-hiera-tiny"]
CONFIG, PREPARATION, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
SHARED = "prompt_encoder.shared_embedding.positional_embedding"


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.fixture
def files(network, tmp_path):
    return write_checkpoint(tmp_path, network)


def edit_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edit_weights(path, **weights):
    """None takes a tensor away."""
    state = load_file(path) | weights
    save_file({name: weight.clone() for name, weight in state.items() if weight is not None}, path)


def refused(files):
    with pytest.raises(CheckpointError, match=r"SAM 2\.1 Hiera Tiny"):
        load_slice_model(CARD, files, "cpu")


def same_weights(model, network):
    loaded, expected = model.network.state_dict(), network.state_dict()
    return loaded.keys() == expected.keys() and all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_every_weight_is_loaded_and_nothing_is_asked_of_the_network(files, network, monkeypatch):
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a socket was opened"))
    model = load_slice_model(CARD, files, "cpu")
    assert same_weights(model, network)
    assert (model.device, model.precision) == ("cpu", "float32")
    assert not model.fresh_each_way
    assert not model.largest_part_only
    assert not model.network.training


@pytest.mark.parametrize("name", [SHARED, "shared_image_embedding.positional_embedding"])
def test_the_shared_embedding_may_be_there_once(files, network, name):
    """Files that transformers 4 wrote leave out the one of the prompt encoder."""
    edit_weights(files[WEIGHTS], **{name: None})
    assert same_weights(load_slice_model(CARD, files, "cpu"), network)


def test_the_preparation_is_the_checkpoints_own(files):
    image = slice_of((48, 64))
    edit_json(files[PREPARATION], image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4], rescale_factor=1 / 256)
    model = load_slice_model(CARD, files, "cpu")
    wanted = Preparation(256, Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 1 / 256))
    torch.testing.assert_close(model._prepare(image), wanted(image))
    del files[PREPARATION]
    torch.testing.assert_close(load_slice_model(CARD, files, "cpu")._prepare(image), Preparation(256)(image))


@pytest.mark.parametrize(
    "values",
    [
        {"size": {"height": 512, "width": 512}},
        {"size": {"longest_edge": 256}},
    ],
)
def test_another_size_is_refused(files, values):
    edit_json(files[PREPARATION], **values)
    refused(files)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_missing_file_is_refused(files, name):
    del files[name]
    refused(files)


@pytest.mark.parametrize(
    "weights",
    [
        {"no_memory_embedding": None},
        {SHARED: None, "shared_image_embedding.positional_embedding": None},
        {"of.another.model": torch.zeros(1)},
        {"no_object_pointer": torch.zeros(1, 127)},
    ],
    ids=["missing", "missing twice", "left over", "another shape"],
)
def test_other_weights_are_refused(files, weights):
    edit_weights(files[WEIGHTS], **weights)
    refused(files)


@pytest.mark.parametrize("name", [CONFIG, PREPARATION, WEIGHTS])
@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe\x00"])
def test_a_damaged_file_is_refused(files, name, content):
    files[name].write_bytes(content)
    refused(files)


@pytest.mark.parametrize(
    "values",
    [
        {"model_type": "sam2"},
        {"model_type": "sam"},
        {"image_size": 512},
        {"image_size": "large"},
        {"memory_attention_rope_feat_sizes": [64, 64]},
        {"prompt_encoder_config": {"image_size": 1024, "hidden_size": 128}},
        {"vision_config": {"model_type": "sam2_vision_model"}},
        {"vision_config": 3},
        {"num_maskmem": "seven"},
        {"mask_decoder_config": {"hidden_size": 128, "hidden_act": "no such thing"}},
        {"memory_fuser_num_layers": -1, "mask_downsampler_stride": 0},
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(files, values):
    edit_json(files[CONFIG], **values)
    refused(files)


def test_a_configuration_as_transformers_4_wrote_it_is_understood(files, network):
    """It has the theta of the rotary embedding by itself."""
    values = json.loads(files[CONFIG].read_text())
    del values["rope_parameters"]
    files[CONFIG].write_text(json.dumps(values | {"memory_attention_rope_theta": 10000}))
    assert same_weights(load_slice_model(CARD, files, "cpu"), network)


def test_the_true_size_is_loaded_strictly(full, tmp_path, bar):
    if not full:
        pytest.skip("a checkpoint of 156 MB is written with --full")
    network = Sam2VideoModel(Sam2VideoConfig())
    model = load_slice_model(CARD, write_checkpoint(tmp_path, network), "cpu")
    assert same_weights(model, network)
    assert model.network.config.image_size == 1024
    assert model.nbytes == pytest.approx(CARD.source.files[0].bytes, rel=0.01)
    bar("SAM 2.1 tiny, MB of weights", model.nbytes / 1e6, "155.9 as published")
    embedding = model.encode(slice_of((512, 512)))
    assert embedding.nbytes == 16 * 2**20
    assert model.decode(embedding, SlicePrompt((10, 10, 200, 300))).mask.shape == (512, 512)
