"""The store: only what is whole counts as ready, and an earlier checkpoint outlives every failure."""

import errno
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from FoundationSegLib.errors import Cancelled, CheckpointError
from FoundationSegLib.hub.records import RECORD
from FoundationSegLib.hub.store import STORE_VARIABLE, Store, default_store_folder
from FoundationSegLib.progress import Progress
from Testing.unit.fakes import SHA256, WEIGHTS, fake_card, fake_document, fill_store

CARD = fake_card()
FILE = CARD.source.files[0]


def pair_card(sha256=SHA256):
    """A checkpoint of two files."""
    files = [{"path": name, "bytes": len(WEIGHTS), "sha256": sha256} for name in ("a/one.pth", "a/two.pth")]
    return fake_card(source=fake_document()["source"] | {"files": files})


def fetch_bytes(content=WEIGHTS):
    def fetch(card, folder, progress):
        progress.step("download", 0, 0)
        for file in card.source.files:
            (folder / file.name).write_bytes(content)

    return fetch


def left_in(store, card=CARD):
    return sorted(path.name for path in store.model_folder(card).iterdir())


@pytest.fixture
def ready(tmp_path):
    return fill_store(tmp_path / "store")


def test_the_store_is_in_the_users_cache_folder_unless_a_variable_names_another(monkeypatch, tmp_path):
    for text, folder in ((str(tmp_path / "mine"), tmp_path / "mine"), ("~/mine", Path.home() / "mine")):
        monkeypatch.setenv(STORE_VARIABLE, text)
        assert default_store_folder() == folder
    monkeypatch.setenv(STORE_VARIABLE, "")
    assert default_store_folder().name == "FoundationSeg"


def test_looking_makes_no_folder(store):
    assert store.status(CARD) == "absent"
    assert store.sha256(CARD) == ""
    with pytest.raises(CheckpointError, match="not downloaded"):
        store.checkpoint_files(CARD)
    assert not store.folder.exists()


def test_a_fetched_checkpoint_is_ready_and_its_record_names_the_source_and_no_folder(store):
    store.fetch(CARD, fetch_bytes(), Progress())
    assert (store.status(CARD), store.sha256(CARD)) == ("ready", SHA256)
    assert store.checkpoint_files(CARD)[FILE.path].read_bytes() == WEIGHTS
    assert left_in(store) == [RECORD, "fake.pth"]
    text = (store.model_folder(CARD) / RECORD).read_text(encoding="utf-8")
    document = json.loads(text)
    assert (document["version"], document["model"], document["source"]) == (1, "fake", "fake-wheel")
    changed_ns = store.file_path(CARD, FILE).stat().st_mtime_ns
    assert document["files"] == [GOOD_ENTRY | {"changed_ns": changed_ns}]
    assert str(store.folder) not in text
    other = fake_card(source=fake_document()["source"] | {"revision": "2.0"})
    assert store.model_folder(CARD) != store.model_folder(other)
    assert store.status(other) == "absent", "revisions lie apart"


def half_then(error):
    def fetch(card, folder, progress):
        (folder / FILE.name).write_bytes(WEIGHTS[:100])
        (folder / "more").mkdir()
        (folder / "more" / "stuff").write_bytes(b"x")
        raise error

    return fetch


FAILURES = {
    "cut": (fetch_bytes(WEIGHTS[:-1]), r"damaged.*run 'foundationseg models download fake'"),
    "empty": (fetch_bytes(b""), "damaged"),
    "longer": (fetch_bytes(WEIGHTS + b"x"), "damaged"),
    "changed": (fetch_bytes(b"x" + WEIGHTS[1:]), "damaged"),
    "nothing": (lambda card, folder, progress: None, r"fake\.pth of fake is missing"),
    "cancelled": (half_then(Cancelled("stop")), "stop"),
    "interrupted": (half_then(KeyboardInterrupt("now")), "now"),
    "full disk": (
        half_then(OSError(errno.ENOSPC, "No space left on device")),
        f"No space left on device; make room.*{STORE_VARIABLE}",
    ),
    "read-only": (half_then(OSError(errno.EROFS, "Read-only file system")), "Read-only file system; choose a folder"),
    "missing folder": (half_then(OSError(errno.ENOENT, "No such file")), "No such file; make the folder first"),
    "odd": (half_then(OSError("odd")), f"OSError.*{STORE_VARIABLE}"),
}


@pytest.mark.parametrize("has_earlier", [False, True], ids=["first", "again"])
@pytest.mark.parametrize(("fetch", "message"), FAILURES.values(), ids=FAILURES)
def test_a_failure_leaves_nothing_but_an_earlier_checkpoint(store, fetch, message, has_earlier):
    if has_earlier:
        fill_store(store.folder)
    with pytest.raises((Cancelled, KeyboardInterrupt, CheckpointError), match=message):
        store.fetch(CARD, fetch, Progress())
    assert store.status(CARD) == ("ready" if has_earlier else "absent")
    assert left_in(store) == ([RECORD, "fake.pth"] if has_earlier else [])


def test_no_file_is_replaced_before_every_file_is_checked(tmp_path):
    card = pair_card()
    store = fill_store(tmp_path, card)

    def second_is_cut(card, folder, progress):
        (folder / "one.pth").write_bytes(WEIGHTS)
        (folder / "two.pth").write_bytes(WEIGHTS[:-1])

    with pytest.raises(CheckpointError, match=r"two\.pth"):
        store.fetch(card, second_is_cut, Progress())
    assert store.status(card) == "ready"


def refuse_to_write(monkeypatch, error):
    def refuse(self, *arguments, **options):
        raise error

    monkeypatch.setattr(Path, "write_text", refuse)


def test_a_full_disk_at_the_very_end_is_told(store, monkeypatch):
    """The record is what makes a checkpoint whole: without it, nobody may believe that it is."""
    refuse_to_write(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(CheckpointError, match="No space left"):
        store.fetch(CARD, fetch_bytes(), Progress())
    assert store.status(CARD) == "partial"
    assert left_in(store) == ["fake.pth"]


def test_a_store_below_a_file_is_told(store):
    store.folder.write_text("a file")
    assert store.status(CARD) == "absent"
    with pytest.raises(CheckpointError, match="cannot be stored: Not a directory"):
        store.fetch(CARD, fetch_bytes(), Progress())


def test_what_a_killed_download_left_counts_as_nothing_and_goes(store):
    folder = store.model_folder(CARD)
    for name in ("incoming-old", "incoming-new"):
        (folder / name).mkdir(parents=True)
        (folder / name / FILE.name).write_bytes(WEIGHTS)
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(folder / "incoming-old", (long_ago, long_ago))
    assert store.status(CARD) == "partial"
    with pytest.raises(CheckpointError, match="not downloaded"):
        store.checkpoint_files(CARD)
    store.fetch(CARD, fetch_bytes(), Progress())
    assert store.status(CARD) == "ready"
    assert left_in(store) == [RECORD, "fake.pth", "incoming-new"], "another process may still be at the new one"


def test_two_downloads_at_once_do_not_meet(store):
    def other_comes_first(card, folder, progress):
        store.fetch(CARD, fetch_bytes(), progress)
        fetch_bytes()(card, folder, progress)

    store.fetch(CARD, other_comes_first, Progress())
    assert store.status(CARD) == "ready"
    assert left_in(store) == [RECORD, "fake.pth"]


def change_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def keep_time(change):
    def changed(path):
        times = path.stat()
        change(path)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    return changed


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_a_byte, "is damaged"),
        (keep_time(lambda path: path.write_bytes(WEIGHTS[:-10])), "is damaged"),
        (Path.unlink, "is missing"),
    ],
    ids=["changed", "cut", "gone"],
)
def test_damage_is_found_and_the_remedy_named(ready, damage, message):
    damage(ready.file_path(CARD, FILE))
    for use in (ready.checkpoint_files, ready.verify):
        assert ready.status(CARD) == "damaged", "looking does not make it good"
        with pytest.raises(
            CheckpointError, match=rf"fake\.pth of fake {message}.*run 'foundationseg models download fake'"
        ):
            use(CARD)
    ready.fetch(CARD, fetch_bytes(), Progress())
    assert ready.status(CARD) == "ready"


def test_a_touched_or_copied_checkpoint_is_still_good(ready, tmp_path):
    os.utime(ready.file_path(CARD, FILE), (1, 1))
    assert ready.status(CARD) == "damaged"
    assert ready.checkpoint_files(CARD)[FILE.path].is_file()
    assert ready.status(CARD) == "ready", "the new time is on record: nothing is hashed again"
    shutil.copytree(ready.folder, tmp_path / "copy", copy_function=shutil.copyfile)
    copy = Store(tmp_path / "copy")
    assert copy.checkpoint_files(CARD)[FILE.path] == copy.file_path(CARD, FILE)


def test_a_ready_checkpoint_is_not_hashed_again(ready):
    keep_time(change_a_byte)(ready.file_path(CARD, FILE))
    assert ready.checkpoint_files(CARD)[FILE.path].is_file()
    with pytest.raises(CheckpointError, match="damaged"):
        ready.verify(CARD)
    assert ready.status(CARD) == "damaged"


def test_a_store_that_cannot_be_written_is_still_read(ready, monkeypatch):
    os.utime(ready.file_path(CARD, FILE), (1, 1))
    refuse_to_write(monkeypatch, OSError(errno.EROFS, "Read-only file system"))
    assert ready.checkpoint_files(CARD)[FILE.path].is_file()
    assert left_in(ready) == [RECORD, "fake.pth"]


def test_a_file_that_cannot_be_read_is_told(ready):
    ready.file_path(CARD, FILE).unlink()
    ready.file_path(CARD, FILE).mkdir()
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        ready.checkpoint_files(CARD)


GOOD_ENTRY = {"path": FILE.path, "bytes": len(WEIGHTS), "sha256": SHA256, "changed_ns": 1}
BROKEN_RECORDS = ["", "{", "\x00", "null", "[]", "{}", '{"files": null}', '{"files": 3}', '{"files": [3]}']
BROKEN_RECORDS += ['{"files": [[]]}', json.dumps({"files": [{"path": FILE.path}]}), "\ud800"]
BROKEN_RECORDS += [json.dumps({"files": [GOOD_ENTRY | change]}) for change in ({"extra": 1}, {"path": []})]


@pytest.mark.parametrize("text", BROKEN_RECORDS)
def test_a_broken_record_counts_as_none(ready, text):
    (ready.model_folder(CARD) / RECORD).write_bytes(text.encode("utf-8", "surrogatepass"))
    assert ready.status(CARD) == "partial"
    with pytest.raises(CheckpointError, match=r"not downloaded \(partial\)"):
        ready.checkpoint_files(CARD)
    ready.fetch(CARD, fetch_bytes(), Progress())
    assert ready.status(CARD) == "ready"


def test_a_record_of_other_files_does_not_speak_for_these(ready):
    (ready.model_folder(CARD) / RECORD).write_text('{"files": []}', encoding="utf-8")
    assert ready.status(CARD) == "damaged"
    assert ready.checkpoint_files(CARD)[FILE.path].is_file(), "its hash is that of the card"


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"bytes": 3}])
def test_a_card_that_wants_other_weights_is_not_served_these(ready, change):
    source = fake_document()["source"]
    other = fake_card(source=source | {"files": [source["files"][0] | change]})
    assert ready.status(other) == "damaged"
    with pytest.raises(CheckpointError, match="damaged"):
        ready.checkpoint_files(other)


def test_without_a_hash_on_the_card_the_first_download_sets_it(store):
    card = pair_card(sha256="")
    store.fetch(card, fetch_bytes(), Progress())
    assert (store.status(card), store.sha256(card)) == ("ready", SHA256)
    change_a_byte(store.model_folder(card) / "two.pth")
    with pytest.raises(CheckpointError, match=r"two\.pth of fake is damaged"):
        store.checkpoint_files(card)
