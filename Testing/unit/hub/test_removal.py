import pytest

from FoundationSegLib.core.errors import CheckpointError
from FoundationSegLib.core.progress import Progress
from FoundationSegLib.hub.plan import plan_partial_removal, plan_removal, remove
from FoundationSegLib.hub.store import Store
from Testing.unit.fakes import WEIGHTS, fake_card, fill_store
from Testing.unit.hub.hub_cases import FILES, REPOSITORY, cancel_after, content_of, fetch, hub_card
from Testing.unit.hub.hub_cases import WEIGHTS as LARGE

CARD = fake_card()


def test_the_plan_says_what_is_freed_and_touches_nothing(tmp_path):
    store = fill_store(tmp_path)
    plan = plan_removal(store, CARD)
    assert store.status(CARD) == "ready"
    record = (store.model_folder(CARD) / "complete.json").stat().st_size
    assert plan.bytes_freed == len(WEIGHTS) + record
    remove(store, CARD, plan)
    assert store.status(CARD) == "absent"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert plan_removal(store, CARD).folders == ()


def test_other_models_stay(tmp_path):
    other = fake_card(id="other")
    store = fill_store(tmp_path)
    fill_store(tmp_path, other)
    remove(store, CARD, plan_removal(store, CARD))
    assert store.status(other) == "ready"


def test_half_downloads_go_alone(hub, tmp_path):
    hub.add(REPOSITORY, FILES)
    hub.slow_s = 0.01
    store, card = Store(tmp_path / "store"), hub_card()
    from FoundationSegLib.core.errors import Cancelled

    with pytest.raises(Cancelled):
        fetch(store, card, cancel_after(100_000))
    plan = plan_partial_removal(store, card)
    assert 100_000 <= plan.bytes_freed < len(LARGE)
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


def test_a_linked_folder_is_not_followed(tmp_path):
    store = Store(tmp_path / "store")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("work of years")
    (store.folder / "models").mkdir(parents=True)
    store.all_of(CARD).symlink_to(tmp_path / "mine")
    with pytest.raises(CheckpointError):
        remove(store, CARD, plan_removal(store, CARD))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "work of years"


class TestTheUsersOwnCache:
    """The Hugging Face cache is read, and never changed."""

    @pytest.fixture
    def filled(self, hub, tmp_path):
        from huggingface_hub import snapshot_download

        hub.add(REPOSITORY, FILES)
        snapshot_download(REPOSITORY)
        hub.start_count()
        return tmp_path / "hf-cache"

    def look(self, folder):
        return {
            path.relative_to(folder): (path.lstat().st_mtime_ns, path.read_bytes())
            for path in folder.rglob("*")
            if path.is_file()
        }

    def test_what_is_in_it_is_linked(self, hub, filled, tmp_path):
        before, store, card = self.look(filled), Store(tmp_path / "store"), hub_card()
        fetch(store, card)
        assert hub.sent == 0
        assert content_of(store, card) == FILES
        assert plan_removal(store, card).bytes_shared == sum(map(len, FILES.values()))
        remove(store, card, plan_removal(store, card))
        assert self.look(filled) == before

    def test_where_there_can_be_no_link_it_is_copied(self, hub, filled, tmp_path, monkeypatch):
        import os

        def refuse(source, target):
            raise OSError("another disk")

        monkeypatch.setattr(os, "link", refuse)
        before, store, card = self.look(filled), Store(tmp_path / "store"), hub_card()
        fetch(store, card)
        assert hub.sent == 0
        assert content_of(store, card) == FILES
        assert plan_removal(store, card).bytes_shared == 0
        assert self.look(filled) == before

    def test_what_is_wrong_in_it_is_downloaded(self, hub, filled, tmp_path):
        for path in filled.rglob("blobs/*"):
            path.write_bytes(path.read_bytes()[::-1])
        before, store, card = self.look(filled), Store(tmp_path / "store"), hub_card()
        fetch(store, card)
        assert hub.sent == sum(map(len, FILES.values()))
        assert content_of(store, card) == FILES
        assert self.look(filled) == before
        assert not list(store.folder.rglob("*.found"))
