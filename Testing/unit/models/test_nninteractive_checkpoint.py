"""nnInteractive's checkpoint: a pickle that is opened only if it is the card's, and plans that name networks alone."""

import io
import json
import pickle
import shutil
from dataclasses import replace

import pytest
import torch

from FoundationSegLib.errors import CheckpointError
from FoundationSegLib.models.protocols import load_volume_model

pytest.importorskip("nnInteractive", reason="the package nnInteractive is not installed")
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]

from Testing.models.small_nninteractive import FOLDER, card_of, write_checkpoint  # noqa: E402 - needs the package


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("nninteractive"), patch=16)


@pytest.fixture(scope="module")
def card(files):
    return card_of(files)


@pytest.fixture
def copied(files, tmp_path):
    """The files, to be damaged."""
    return {name: shutil.copy(path, _made(tmp_path / name)) for name, path in files.items()}


def test_another_file_than_the_cards_is_never_opened(card, copied, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("opened"))
    path = copied[f"{FOLDER}/fold_0/checkpoint_final.pth"]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=r"checkpoint_final.pth is not the file of the card"):
        load_volume_model(card, copied, "cpu")
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_volume_model(card, copied, "cpu")


def test_a_card_without_a_hash_is_refused(card, files, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("opened"))
    plain = tuple(replace(file, sha256="") for file in card.source.files)
    with pytest.raises(CheckpointError, match="gives no hash"):
        load_volume_model(replace(card, source=replace(card.source, files=plain)), files, "cpu")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("network_class_name", "subprocess.Popen"),
        ("network_class_name", "dynamic_network_architectures.architectures.unet.np.os.system"),
        ("conv_op", "os.system"),
        ("conv_op", "torch.nn.modules.utils.collections.abc.os"),
    ],
)
def test_a_configuration_that_names_anything_but_a_network_is_refused(card, copied, field, value):
    path = copied[f"{FOLDER}/plans.json"]
    plans = json.loads(path.read_text())
    (configuration,) = plans["configurations"].values()
    part = configuration["architecture"]
    (part if field in part else part["arch_kwargs"])[field] = value
    path.write_text(json.dumps(plans))
    with pytest.raises(CheckpointError, match="names what is no part of a network"):
        load_volume_model(card, copied, "cpu")


@pytest.mark.parametrize("content", ["[]", "{", '{"configurations": 3}', '{"configurations": {}}'])
def test_a_damaged_configuration_is_named(card, copied, content):
    copied[f"{FOLDER}/plans.json"].write_text(content)
    with pytest.raises(CheckpointError, match=r"nnInteractive v1\.0"):
        load_volume_model(card, copied, "cpu")


def test_weights_of_another_network_are_named(card, copied):
    path = copied[f"{FOLDER}/fold_0/checkpoint_final.pth"]
    buffer = io.BytesIO()
    torch.save({"network_weights": {"a": torch.zeros(1)}, "trainer_name": "x", "init_args": {}}, buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="do not fit together"):
        load_volume_model(card_of(copied), copied, "cpu")
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(CheckpointError):
        load_volume_model(card_of(copied), copied, "cpu")


def _made(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
