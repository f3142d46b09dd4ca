"""What is taken for a checkpoint of SAM's family, and what is refused."""

import json
import os
import pickle
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SamConfig
from transformers.models.sam.configuration_sam import SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.errors import CheckpointError
from FoundationSegLib.models.protocols import load_slice_model
from FoundationSegLib.models.segmentation.sam import load_network
from FoundationSegLib.models.weights import read_config
from Testing.models.small_sam import random_model, small_config, write_checkpoint

SHARED = "prompt_encoder.shared_embedding.positional_embedding"
OTHER_NAME = "shared_image_embedding.positional_embedding"
NO_WEIGHTS = "the checkpoint does not hold the weights of SAM ViT-B"
DAMAGED = r"SAM ViT-B: model\.safetensors is damaged or not in the safetensors format"
NOT_SAM = r"SAM ViT-B: config\.json does not describe"


@pytest.fixture
def files(sam_folder, tmp_path):
    """A copy that may be damaged."""
    return {path.name: Path(shutil.copy(path, tmp_path)) for path in sam_folder.iterdir()}


def change_weights(files, change):
    state = load_file(files["model.safetensors"])
    change(state)
    save_file(state, files["model.safetensors"])


def change_config(files, change):
    document = json.loads(files["config.json"].read_text())
    files["config.json"].write_text(json.dumps(change(document) or document))


def test_holds_what_was_saved(sam_card, files):
    model, expected = load_network(sam_card, files, "cpu").model, random_model(small_config())
    assert not model.training
    # On the CPU, an attention without windows stands inside one that works in strips.
    state = {name.replace(".attn.module.", ".attn."): value for name, value in model.state_dict().items()}
    assert state.keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(state[name], value), name
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", [SHARED, OTHER_NAME])
def test_the_table_of_positions_may_come_under_either_name_or_both(sam_card, files, name):
    table = load_file(files["model.safetensors"])[OTHER_NAME]
    change_weights(files, lambda state: state.pop(OTHER_NAME) is None or state.update({name: table}))
    state = load_network(sam_card, files, "cpu").model.state_dict()
    assert torch.equal(state[SHARED], table) and torch.equal(state[OTHER_NAME], table)
    change_weights(files, lambda state: state.update({SHARED: table.clone(), OTHER_NAME: table.clone()}))
    assert torch.equal(load_network(sam_card, files, "cpu").model.state_dict()[SHARED], table)


def test_files_are_found_in_a_folder_of_their_repository(sam_card, files):
    assert load_network(sam_card, {f"sub/folder/{name}": path for name, path in files.items()}, "cpu")


def test_weights_in_half_precision_become_float32(sam_card, files):
    change_weights(files, lambda state: state.update({k: v.half() for k, v in state.items()}))
    assert {p.dtype for p in load_network(sam_card, files, "cpu").model.parameters()} == {torch.float32}


def test_the_file_may_go_once_it_is_loaded(sam_card, files):
    model, path = load_network(sam_card, files, "cpu").model, files["model.safetensors"]
    before = [p.clone() for p in model.parameters()]
    path.write_bytes(b"\0" * path.stat().st_size)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def wider(state):
    state["vision_encoder.neck.conv1.weight"] = torch.zeros(32, 33, 1, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("mask_decoder.iou_token.weight"),
        lambda state: state.pop("vision_encoder.layers.1.attn.rel_pos_h"),
        lambda state: state.pop(OTHER_NAME),
        lambda state: state.update(extra=torch.zeros(1)),
        lambda state: state.update({"vision_encoder.layers.2.layer_norm1.weight": torch.zeros(32)}),
        lambda state: state.clear() or state.update(weights=torch.zeros(3)),
        wider,
    ],
)
def test_weights_that_lack_or_exceed_are_refused(sam_card, files, change):
    change_weights(files, change)
    with pytest.raises(CheckpointError, match=NO_WEIGHTS):
        load_network(sam_card, files, "cpu")


def of_a_pickle(path):
    with path.open("wb") as file:
        pickle.dump({"weight": os.getcwd}, file)


def of_torch(path):
    torch.save({"weight": torch.zeros(3)}, path)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1000])


def cut_in_the_header(path):
    path.write_bytes(path.read_bytes()[:100])


def lying_header(path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


def huge_header(path):
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")


DAMAGES = [of_a_pickle, of_torch, cut_short, cut_in_the_header, lying_header, huge_header]


@pytest.mark.parametrize("damage", [*DAMAGES, lambda path: path.write_bytes(b""), lambda path: path.unlink()])
def test_what_poses_as_safetensors_is_refused(sam_card, files, damage):
    damage(files["model.safetensors"])
    with pytest.raises(CheckpointError, match=DAMAGED):
        load_network(sam_card, files, "cpu")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(sam_card, files, name):
    del files[name]
    with pytest.raises(CheckpointError, match=f"SAM ViT-B: its card names no {name}"):
        load_network(sam_card, files, "cpu")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\x00"])
def test_a_damaged_configuration_is_refused(sam_card, files, text):
    files["config.json"].write_text(text)
    with pytest.raises(CheckpointError, match=r"SAM ViT-B: config\.json"):
        load_network(sam_card, files, "cpu")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("model_type") and None,
        lambda d: d.update(model_type="sam2_video"),
        lambda d: d.update(vision_config=3),
        lambda d: d["vision_config"].update(hidden_size="32"),
        lambda d: d["vision_config"].update(hidden_size=0),
        lambda d: d["vision_config"].update(num_attention_heads=True),
        lambda d: d["vision_config"].update(patch_size=0),
        lambda d: d["vision_config"].update(image_size=[256, 256]),
        lambda d: d["vision_config"].update(global_attn_indexes=["1"]),
        lambda d: d["vision_config"].update(hidden_act="no such thing"),
        lambda d: d["vision_config"].update(use_rel_pos="yes"),
        lambda d: d["prompt_encoder_config"].update(image_size=1024),
        lambda d: d["mask_decoder_config"].update(num_attention_heads=5),
        lambda d: d["mask_decoder_config"].update(layer_norm_eps="1e-6"),
    ],
)
def test_a_configuration_of_another_network_is_refused(sam_card, files, change):
    change_config(files, change)
    with pytest.raises(CheckpointError, match=NOT_SAM):
        load_network(sam_card, files, "cpu")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["vision_config"].update(num_hidden_layers=3),
        lambda d: d["vision_config"].update(hidden_size=64),
        lambda d: d["vision_config"].update(window_size=7),
        lambda d: d["mask_decoder_config"].update(num_multimask_outputs=4),
    ],
)
def test_a_configuration_that_the_weights_do_not_fit_is_refused(sam_card, files, change):
    change_config(files, change)
    with pytest.raises(CheckpointError, match=NO_WEIGHTS):
        load_network(sam_card, files, "cpu")


def test_an_old_configuration_with_much_beside_the_network_is_read(sam_card, tmp_path):
    """Those of 2023 hold all that generation of text ever needed, and leave out what has not changed."""
    old = {"_name_or_path": "", "torch_dtype": None, "top_k": 50, "bad_words_ids": None, "id2label": {"0": "LABEL_0"}}
    document = {
        "model_type": "sam",
        "torch_dtype": "float32",
        "transformers_version": None,
        "vision_config": {**old, "hidden_size": 168, "mlp_dim": 696, "model_type": "", "projection_dim": 512},
        "prompt_encoder_config": {**old, "model_type": "", "image_embedding_size": 64},
        "mask_decoder_config": {**old, "model_type": "sam_mask_decoder", "mlp_dim": None},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document))
    sections = {
        "vision_config": SamVisionConfig,
        "prompt_encoder_config": SamPromptEncoderConfig,
        "mask_decoder_config": SamMaskDecoderConfig,
    }
    config = read_config(path, sam_card, SamConfig, sections)
    sizes = (config.vision_config.hidden_size, config.vision_config.mlp_dim, config.vision_config.num_hidden_layers)
    assert sizes == (168, 696, 12)
    assert (config.prompt_encoder_config.image_embedding_size, config.mask_decoder_config.mlp_dim) == (64, 2048)


@pytest.mark.parametrize("model", ["sam-vit-base", "medsam"])
def test_a_network_of_the_true_size_is_loaded_strictly(tmp_path, model, full, bar):
    """93,735,472 weights, as many as the original network has beside its table of positions."""
    if not full:
        pytest.skip("a network of the true size only with --full")
    card = read_catalogue()[model]
    files = write_checkpoint(tmp_path, SamConfig())
    adapter = load_slice_model(card, files, "cpu")
    tables = (SHARED, OTHER_NAME)
    weights = sum(p.numel() for name, p in adapter.network.model.named_parameters() if name not in tables)
    bar(f"{card.title}, weights in millions", weights / 1e6, "93.7")
    assert weights == 93_735_472
    change_weights(files, lambda state: state.pop("vision_encoder.layers.11.mlp.lin2.bias"))
    with pytest.raises(CheckpointError, match=f"does not hold the weights of {card.title}"):
        load_slice_model(card, files, "cpu")
