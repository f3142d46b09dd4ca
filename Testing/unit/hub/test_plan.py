"""Plans: what a download would take and on what terms, what a removal would free; and the removal itself."""

from dataclasses import replace

import pytest

from FoundationSegLib.errors import Cancelled, CheckpointError
from FoundationSegLib.hub.plan import plan_download, plan_partial_removal, plan_removal, remove
from FoundationSegLib.progress import Progress
from Testing.unit.fakes import WEIGHTS, fake_card, fill_store
from Testing.unit.hub.hub_cases import FILES, REPOSITORY, cancel_after, fetch, hub_card, partial_bytes

CARD = fake_card()
TOTAL = sum(map(len, FILES.values()))


def test_the_plan_says_what_and_on_what_terms(hub, store):
    commit = hub.add(REPOSITORY, FILES, gated="auto")
    card = hub_card(license={"name": "Terms", "commercial_use": "no", "must_accept": True})
    plan = plan_download(store, card, Progress())
    assert (plan.status, plan.commit, plan.asked_hub) == ("absent", commit, True)
    assert plan.bytes == plan.bytes_to_fetch == TOTAL
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


def test_a_removal_says_what_it_frees_and_leaves_other_models(tmp_path):
    other, store = fake_card(id="other"), fill_store(tmp_path)
    fill_store(tmp_path, other)
    plan = plan_removal(store, CARD)
    assert store.status(CARD) == "ready", "a plan touches nothing"
    record = (store.model_folder(CARD) / "complete.json").stat().st_size
    assert plan.bytes_freed == len(WEIGHTS) + record
    remove(store, CARD, plan)
    assert (store.status(CARD), store.status(other)) == ("absent", "ready")
    assert plan_removal(store, CARD).folders == ()
    remove(store, other, plan_removal(store, other))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_cannot_be_removed_is_not_called_stored(tmp_path):
    store = fill_store(tmp_path)
    plan = plan_removal(store, CARD)
    file = plan.folders[0] / "file"
    file.touch()
    with pytest.raises(CheckpointError, match="fake cannot be removed: Not a directory"):
        remove(store, CARD, replace(plan, folders=(file,)))


def test_half_downloads_go_alone(hub, commit, store):
    hub.slow_s, card = 0.01, hub_card()
    with pytest.raises(Cancelled):
        fetch(store, card, cancel_after(100_000))
    assert store.status(card) == "partial"
    plan = plan_partial_removal(store, card)
    assert 100_000 <= plan.bytes_freed == partial_bytes(store, card) < TOTAL
    remove(store, card, plan)
    assert store.status(card) == "absent"
    hub.slow_s = 0
    fetch(store, card)
    assert plan_partial_removal(store, card).folders == ()
    assert store.status(card) == "ready"


def test_what_is_being_downloaded_stays(tmp_path):
    store = fill_store(tmp_path)
    plan = plan_removal(store, CARD)
    with store.lock(CARD, Progress()), pytest.raises(CheckpointError, match="in use by another download"):
        remove(store, CARD, plan)
    assert store.status(CARD) == "ready"


def test_a_linked_folder_is_not_followed(store, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("work of years")
    (store.folder / "models").mkdir(parents=True)
    store.all_of(CARD).symlink_to(tmp_path / "mine")
    with pytest.raises(CheckpointError):
        remove(store, CARD, plan_removal(store, CARD))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "work of years"
