"""What a file has to be: by its card, by the Hub, and by what was downloaded before."""

import dataclasses
import json
import os

import pytest

from FoundationSegLib.core.cards import CheckpointFile
from FoundationSegLib.core.errors import CheckpointError
from Testing.unit.hub.hub_cases import (
    CONFIG,
    FILES,
    REPOSITORY,
    WEIGHTS,
    content_of,
    fetch,
    hub_card,
    strays,
)
from Testing.unit.hub.loopback_hub import Fault, File


def test_a_branch_that_moves_does_not_mix_two_versions(hub, store, commit):
    card = hub_card()
    hub.faults.extend([Fault("cut", 100_000), *[Fault("status", code=500)] * 9])
    with pytest.raises(CheckpointError):
        fetch(store, card)
    hub.faults.clear()
    later = hub.add(REPOSITORY, {path: content[::-1] for path, content in FILES.items()})
    assert later != commit
    fetch(store, card)
    assert content_of(store, card) == FILES
    assert store.model_folder(card).name == commit


def test_without_hashes_on_the_card_a_later_change_is_an_error(hub, store, commit):
    card = hub_card()
    fetch(store, card)
    store.file_path(card, card.source.files[0]).write_bytes(b"x")
    changed = {**FILES, "weights/model.safetensors": WEIGHTS[::-1]}
    hub.repositories[REPOSITORY].commits[commit] = {}
    moved = hub.add(REPOSITORY, changed)
    hub.repositories[REPOSITORY].commits[commit] = hub.repositories[REPOSITORY].commits[moved]
    with pytest.raises(CheckpointError, match="not what the Hub had when it was first downloaded"):
        fetch(store, card)
    assert store.status(card) == "damaged"


@pytest.mark.parametrize("part", ["hash", "size"])
def test_a_card_and_a_hub_that_differ_are_told_before_a_byte_travels(hub, store, part):
    wrong = {**FILES, "weights/model.safetensors": WEIGHTS[::-1] if part == "hash" else WEIGHTS + b"x"}
    hub.add(REPOSITORY, wrong)
    with pytest.raises(CheckpointError, match="changed there, so it is not downloaded"):
        fetch(store, hub_card(hashes=True))
    assert hub.sent == 0


def test_a_card_that_is_not_sure_of_a_size_takes_the_hubs(hub, store, commit):
    card = hub_card()
    files = tuple(dataclasses.replace(file, bytes=file.bytes + 10) for file in card.source.files)
    source = dataclasses.replace(card.source, files=files)
    unsure = dataclasses.replace(card, source=source, unverified=("source.files",))
    fetch(store, unsure)
    assert store.status(unsure) == "ready"


def test_a_file_that_the_hub_lacks_is_named(hub, store, commit):
    with pytest.raises(CheckpointError, match=r"more\.bin of fake is not in org/model"):
        fetch(store, hub_card({**FILES, "more.bin": b"x"}))


def test_only_the_damaged_file_is_fetched_again(hub, store, commit):
    card = hub_card()
    fetch(store, card)
    path = store.file_path(card, card.source.files[1])
    path.write_bytes(b"y" * len(CONFIG))
    with pytest.raises(CheckpointError, match="damaged"):
        store.verify(card)
    hub.start_count()
    fetch(store, card)
    assert hub.sent == len(CONFIG)
    assert content_of(store, card) == FILES


def test_damage_that_only_the_hash_shows_is_mended_after_verifying(hub, store, commit):
    card = hub_card()
    fetch(store, card)
    path = store.file_path(card, card.source.files[0])
    times = path.stat()
    path.write_bytes(WEIGHTS[::-1])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert store.status(card) == "ready"
    with pytest.raises(CheckpointError, match="damaged"):
        store.verify(card)
    assert store.status(card) == "damaged"
    fetch(store, card)
    assert content_of(store, card) == FILES


def test_a_touched_file_is_not_fetched_again(hub, store, commit):
    card = hub_card()
    fetch(store, card)
    os.utime(store.file_path(card, card.source.files[0]), (1, 1))
    hub.start_count()
    fetch(store, card)
    assert hub.sent == 0
    assert store.status(card) == "ready"


def test_a_second_repository_has_a_folder_of_its_own(hub, store, commit):
    hub.add("other/text-model", {"config.json": b"{}"})
    card = hub_card({"weights/model.safetensors": WEIGHTS})

    elsewhere = CheckpointFile("config.json", 2, repository="other/text-model", revision="main")
    files = (*card.source.files, elsewhere)
    card = dataclasses.replace(card, source=dataclasses.replace(card.source, files=files))
    fetch(store, card)
    found = store.checkpoint_files(card)
    assert found["config.json"].read_bytes() == b"{}"
    assert found["config.json"].parent.name == "other--text-model"
    pins = json.loads((store.all_of(card) / "pins.json").read_text())["pins"]
    assert set(pins) == {"org/model@main", "other/text-model@main"}


def test_a_mirror_that_leaves_lengths_out_is_asked_file_by_file(hub, store, commit):
    hub.leaves_lengths_out = True
    fetch(store, hub_card(sizes=False))
    assert content_of(store, hub_card()) == FILES
    assert [method for method, *_ in hub.requests].count("HEAD") == 2


def test_a_file_that_only_git_knows_is_held_to_its_git_hash(hub, store, commit, monkeypatch):
    """A mirror may say no sha256, even of large files."""
    monkeypatch.setattr(File, "is_lfs", False)
    hub.faults.append(Fault("wrong_bytes"))
    with pytest.raises(CheckpointError, match="wrong hash"):
        fetch(store, hub_card())
    fetch(store, hub_card())
    assert content_of(store, hub_card()) == FILES


def test_a_file_without_any_hash_is_not_downloaded(hub, store, commit, monkeypatch):
    monkeypatch.setattr(File, "is_lfs", False)
    monkeypatch.setattr(File, "git_oid", "")
    with pytest.raises(CheckpointError, match="neither the Hub nor the card says what the hash"):
        fetch(store, hub_card())
    assert hub.sent == 0
    fetch(store, hub_card(hashes=True))
    assert content_of(store, hub_card()) == FILES


@pytest.mark.parametrize("odd", ["../../evil", "con", "", "A" * 64, "0" * 63])
def test_a_record_cannot_name_a_half_download(hub, store, commit, odd):
    card = hub_card()
    fetch(store, card)
    record = store.model_folder(card) / "complete.json"
    document = json.loads(record.read_text())
    document["files"][0]["sha256"] = odd
    record.write_text(json.dumps(document))
    store.file_path(card, card.source.files[0]).unlink()
    assert store.status(card) == "partial"
    fetch(store, card)
    assert content_of(store, card) == FILES
    assert strays(store, card) == []


def test_what_killed_processes_left_goes_with_the_next_download(hub, store, commit):
    card = hub_card()
    for folder in (store.all_of(card), store.model_folder(card), store.all_of(card) / commit):
        (folder / "incoming-dead").mkdir(parents=True, exist_ok=True)
        (folder / "incoming-dead" / "pins.json").write_text("{")
    fetch(store, card)
    assert strays(store, card) == [str(store.all_of(card) / "main" / "incoming-dead" / "pins.json")]
