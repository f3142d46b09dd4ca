"""Files that torch.save wrote, and what is refused of what poses as one. Safetensors: test_sam_checkpoint.py."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from FoundationSegLib.errors import Cancelled, CheckpointError
from FoundationSegLib.models.weights import checked, read_pickle, weight_bytes

WEIGHTS = {"one": torch.arange(6.0).view(2, 3), "two": torch.ones(1).half()}
LAYOUTS = {None: WEIGHTS, "model": {"model": WEIGHTS, "step": 3}}
both_layouts = pytest.mark.parametrize("under", LAYOUTS)


class Harmful:
    def __reduce__(self):
        return print, ("code was run",)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pt"


def refused(path, card, under):
    with pytest.raises(CheckpointError, match=r"SAM ViT-B: weights\.pt"):
        read_pickle(path, card, under)


@both_layouts
def test_the_weights_are_read(path, sam_card, under):
    torch.save(LAYOUTS[under], path)
    found = read_pickle(path, sam_card, under)
    assert found.keys() == WEIGHTS.keys() and all(torch.equal(found[name], WEIGHTS[name]) for name in found)


@both_layouts
@pytest.mark.parametrize("content", [3, {"a": 3}, {1: torch.zeros(1)}, [torch.zeros(1)], torch.zeros(1)], ids=str)
def test_another_layout_is_refused(path, sam_card, under, content):
    torch.save({under: content} if under else content, path)
    refused(path, sam_card, under)


@pytest.mark.parametrize("content", [WEIGHTS, [WEIGHTS], torch.zeros(1)], ids=["flat", "list", "tensor"])
def test_weights_in_another_place_are_refused(path, sam_card, content):
    torch.save(content, path)
    refused(path, sam_card, "model")


@both_layouts
def test_a_file_that_would_run_code_is_refused(path, sam_card, under, capsys):
    torch.save({under: {"a": Harmful()}} if under else {"a": Harmful()}, path)
    refused(path, sam_card, under)
    assert not capsys.readouterr().out


@both_layouts
@pytest.mark.parametrize("content", [b"", b"nothing", pickle.dumps({"model": {}}, 2)[:9], None])
def test_a_file_that_is_none_is_refused(path, sam_card, under, content):
    if content is not None:
        path.write_bytes(content)
    refused(path, sam_card, under)


@both_layouts
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_whatever_is_damaged_nothing_else_is_raised(path, sam_card, under, zipped, full):
    """Bytes at random places become others, or the file ends too early; where it can still be read, so be it."""
    torch.save(LAYOUTS[under], path, _use_new_zipfile_serialization=zipped)
    whole, random, refusals = np.frombuffer(path.read_bytes(), np.uint8), np.random.default_rng(0), 0
    for turn in range(1500 if full else 250):
        damaged = whole.copy()
        damaged[random.integers(0, whole.size, random.integers(1, 4))] = random.integers(0, 256)
        path.write_bytes(damaged[: random.integers(whole.size) if turn % 5 == 0 else None].tobytes())
        try:
            read_pickle(path, sam_card, under)
        except CheckpointError:
            refusals += 1
    assert refusals > 50


def test_the_check_comes_before_every_module_and_not_after():
    layers, calls = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3))), []

    def check():
        calls.append(1)
        if len(calls) == 5:
            raise Cancelled

    with checked(layers, check):
        layers(torch.zeros(2))
    assert len(calls) == 3
    with pytest.raises(Cancelled), checked(layers, check):
        layers(torch.zeros(2))
    layers(torch.zeros(2))
    assert len(calls) == 5


def test_parameters_and_buffers_are_weighed():
    assert weight_bytes(nn.Linear(2, 3), nn.BatchNorm1d(5)) == 4 * (2 * 3 + 3) + 4 * 4 * 5 + 8
