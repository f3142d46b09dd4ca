"""Licences, gates, logins and the user's offline mode."""

import dataclasses
import json
import logging

import pytest

from FoundationSegLib.core.errors import CheckpointError
from FoundationSegLib.core.progress import Progress
from FoundationSegLib.hub.fetch import download_checkpoint, ensure_checkpoint, is_accepted, require_fetchable
from FoundationSegLib.hub.hugging_face import ALLOW_VARIABLE, online
from FoundationSegLib.hub.plan import plan_download
from FoundationSegLib.hub.store import Store
from Testing.unit.hub.hub_cases import CONFIG, FILES, QUICK, REPOSITORY, WEIGHTS, content_of, fetch, hub_card
from Testing.unit.hub.loopback_hub import Fault

TOKEN = "hf_ThisIsVerySecret0123456789"
CLOSED = {"license": {"name": "Terms", "commercial_use": "no", "must_accept": True, "url": "https://example.org/terms"}}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_terms_are_accepted_once_and_written_down(hub, store):
    hub.add(REPOSITORY, FILES)
    card = hub_card(**CLOSED)
    with pytest.raises(CheckpointError, match=r"Terms, https://example\.org/terms.*--accept-license"):
        download_checkpoint(store, card, Progress())
    assert not store.folder.exists()
    download_checkpoint(store, card, Progress(), accept_license=True)
    (entry,) = json.loads((store.folder / "licenses.json").read_text())["accepted"]
    assert entry["terms"]["model"] == "fake"
    assert entry["accepted"].endswith("Z")
    import shutil

    shutil.rmtree(store.folder / "models")
    assert ensure_checkpoint(store, card, Progress()), "nobody is asked twice"
    assert len(json.loads((store.folder / "licenses.json").read_text())["accepted"]) == 1


def test_terms_that_changed_are_asked_for_again(hub, store):
    hub.add(REPOSITORY, FILES)
    card = hub_card(**CLOSED)
    download_checkpoint(store, card, Progress(), accept_license=True)
    changed = dataclasses.replace(card, license=dataclasses.replace(card.license, name="Terms 2"))
    assert is_accepted(store, card)
    assert not is_accepted(store, changed)
    with pytest.raises(CheckpointError, match="Terms 2"):
        require_fetchable(changed, store=store)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"accepted": 3}', '{"accepted": [3, {"terms": 3}]}', "\0"])
def test_a_broken_list_of_licences_accepts_nothing(store, text):
    store.folder.mkdir()
    (store.folder / "licenses.json").write_text(text)
    assert not is_accepted(store, hub_card(**CLOSED))


def everything_written(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_gate_says_what_to_do_and_the_login_opens_it(hub, store, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    hub.add(REPOSITORY, FILES, gated="manual", granted={TOKEN})
    card = hub_card(gated=True)
    with pytest.raises(CheckpointError, match=f"hf auth login.*{hub.endpoint}/{REPOSITORY}"):
        fetch(store, card)
    monkeypatch.setenv("HF_TOKEN", TOKEN[::-1])
    with pytest.raises(CheckpointError, match=f"open {hub.endpoint}/{REPOSITORY} in a browser.*accept") as caught:
        fetch(store, card)
    assert TOKEN[::-1] not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fetch(store, card)
    assert content_of(store, card) == FILES
    storage = [login for _, path, _, login in hub.requests if path.startswith("/lfs/")]
    assert storage == [""], "the login is for the Hub, not for its storage"
    out, err = capfd.readouterr()
    for text in (caplog.text, out, err, everything_written(store.folder).decode("latin-1")):
        assert TOKEN not in text


def test_a_private_repository_without_a_login(hub, store):
    hub.add(REPOSITORY, FILES, private=True, granted={TOKEN})
    with pytest.raises(CheckpointError, match=f"opens in your browser, log in.*{'hf auth login'}"):
        fetch(store, hub_card())


def test_a_server_that_repeats_the_login_is_not_quoted(hub, store, monkeypatch):
    hub.add(REPOSITORY, FILES)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for code in (400, 401, 403, 404, 418, 500):
        hub.api_faults.extend([Fault("status", code=code)] * QUICK.attempts)
        with pytest.raises(CheckpointError) as caught:
            fetch(store, hub_card())
        chain = [caught.value, caught.value.__cause__]
        assert not any(TOKEN in str(error) for error in chain)


def test_offline_mode_is_honoured_at_once(hub, store, monkeypatch):
    from huggingface_hub import constants

    hub.add(REPOSITORY, FILES)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"offline mode is on.*models import"):
        fetch(store, hub_card())
    assert hub.requests == []
    plan = plan_download(store, hub_card(), Progress())
    assert not plan.asked_hub
    assert "offline mode is on" in plan.notes[0]
    assert plan.bytes_to_fetch == len(WEIGHTS) + len(CONFIG)
    assert hub.requests == []
    monkeypatch.setenv(ALLOW_VARIABLE, "1")
    fetch(store, hub_card())
    assert store.status(hub_card()) == "ready"
    assert constants.HF_HUB_OFFLINE, "offline again after the download"


def test_the_clients_settings_come_back_after_an_error(hub):
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY
    with pytest.raises(KeyError), online():
        assert constants.HF_HUB_DISABLE_TELEMETRY
        raise KeyError
    assert before == (constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY)


def test_the_plan_says_what_and_on_what_terms(hub, store):
    commit = hub.add(REPOSITORY, FILES, gated="auto")
    card = hub_card(**CLOSED)
    plan = plan_download(store, card, Progress())
    assert (plan.status, plan.commit, plan.asked_hub) == ("absent", commit, True)
    assert plan.bytes == plan.bytes_to_fetch == len(WEIGHTS) + len(CONFIG)
    assert (plan.license, plan.hub_license, plan.commercial_use) == ("Terms", "apache-2.0", "no")
    assert (plan.must_accept, plan.accepted, plan.gated) == (True, False, True)
    assert plan.free_bytes > 0
    assert "gate" in plan.notes[0]
    assert not store.folder.exists(), "looking leaves no trace"
    assert hub.sent == 0


def test_the_plan_says_where_card_and_hub_differ(hub, store):
    hub.add(REPOSITORY, {**FILES, "config.json": b"longer than it was"})
    plan = plan_download(store, hub_card(hashes=True), Progress())
    assert not plan.asked_hub
    assert "config.json of fake has 18 bytes on the Hub and not" in plan.notes[0]


def test_the_plan_of_a_half_download_counts_what_is_there(hub, store):
    hub.add(REPOSITORY, FILES)
    hub.faults.extend([Fault("cut", 200_000), *[Fault("status", code=500)] * 9])
    with pytest.raises(CheckpointError):
        fetch(store, hub_card())
    plan = plan_download(store, hub_card(), Progress())
    assert plan.status == "partial"
    assert plan.bytes_to_fetch == len(WEIGHTS) - 200_000 + len(CONFIG)
