"""A prompts file, a user's cards and a store of earlier versions: read, gone on with, written as they were."""

import json
import random
import shutil
from pathlib import Path

import pytest

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.hub.fetch import download_checkpoint, require_fetchable
from FoundationSegLib.hub.store import Store
from FoundationSegLib.io.segmentations import read_mask_prompt
from FoundationSegLib.progress import Progress
from FoundationSegLib.prompts.prompts_file import read_prompts, write_prompts
from Testing.unit.hub.loopback_hub import hub_of_the_client

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
HUB_FILES = {"weights/model.safetensors": random.Random(15).randbytes(20_000), "config.json": b'{"layers": 2}'}
ARRIVED = 7_000  # bytes of the first file, when its download was interrupted


@pytest.fixture
def store(tmp_path):
    return Store(shutil.copytree(FIXTURES / "store", tmp_path / "store"))


@pytest.fixture
def catalogue():
    return read_catalogue(FIXTURES / "cards")


def test_a_checkpoint_is_used_where_it_lies(store, catalogue):
    card = catalogue["fake"]
    (path,) = store.checkpoint_files(card).values()
    assert path == store.folder / "models" / "fake" / "1.0" / "fake.pth" and path.read_bytes() == b"weights " * 50
    assert store.status(card) == "ready"
    require_fetchable(card, store=store)  # its licence was accepted


def test_a_download_goes_on_where_it_was_interrupted(store, catalogue, monkeypatch, tmp_path):
    card = catalogue["far"]
    assert (store.status(card), store.bytes_here(card)) == ("partial", ARRIVED)
    with hub_of_the_client(monkeypatch, tmp_path / "hf-cache") as hub:
        hub.add("org/model", HUB_FILES)
        download_checkpoint(store, card, Progress())
        assert hub.sent == sum(map(len, HUB_FILES.values())) - ARRIVED
    assert {name: path.read_bytes() for name, path in store.checkpoint_files(card).items()} == HUB_FILES


def test_a_prompts_file_means_what_it_meant(tmp_path):
    path = FIXTURES / "prompts.json"
    prompts = read_prompts(path)
    write_prompts(tmp_path / "prompts.json", prompts)
    assert json.loads((tmp_path / "prompts.json").read_text("utf-8")) == json.loads(path.read_text("utf-8"))
    assert [len(segment.prompts) for segment in prompts.segments] == [11, 3]
    mask_kji, _ = read_mask_prompt(FIXTURES / "seed.seg.nrrd", "Liver")
    assert (mask_kji.shape, mask_kji.sum()) == ((6, 10, 12), 64)
