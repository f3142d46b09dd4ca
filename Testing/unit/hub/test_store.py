import errno
import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from FoundationSegLib.core.errors import Cancelled, CheckpointError
from FoundationSegLib.core.progress import Progress
from FoundationSegLib.hub import store as store_module
from FoundationSegLib.hub.store import RECORD, STORE_VARIABLE, Store, default_store_folder, hash_file
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
def empty(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def ready(tmp_path):
    return fill_store(tmp_path / "store")


def test_the_variable_names_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "mine"))
    assert default_store_folder() == tmp_path / "mine"
    monkeypatch.setenv(STORE_VARIABLE, "~/mine")
    assert default_store_folder() == Path.home() / "mine"


@pytest.mark.parametrize(
    ("platform", "variable", "ending"),
    [
        ("linux", "XDG_CACHE_HOME", "FoundationSeg"),
        ("darwin", "HOME", "Library/Caches/FoundationSeg"),
        ("win32", "LOCALAPPDATA", "FoundationSeg"),
    ],
)
def test_without_it_the_users_cache_folder_is_taken(monkeypatch, tmp_path, platform, variable, ending):
    monkeypatch.setenv(STORE_VARIABLE, "")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv(variable, str(tmp_path))
    assert default_store_folder() == tmp_path / ending


def test_looking_makes_no_folder(empty):
    assert empty.status(CARD) == "absent"
    assert empty.sha256(CARD) == ""
    with pytest.raises(CheckpointError, match="not downloaded"):
        empty.checkpoint_files(CARD)
    assert not empty.folder.exists()


def test_revisions_lie_apart(empty):
    other = fake_card(source=fake_document()["source"] | {"revision": "2.0"})
    assert empty.model_folder(CARD) != empty.model_folder(other)
    empty.fetch(CARD, fetch_bytes(), Progress())
    assert empty.status(other) == "absent"


def test_a_fetched_checkpoint_is_ready_and_known(empty):
    empty.fetch(CARD, fetch_bytes(), Progress())
    assert empty.status(CARD) == "ready"
    assert empty.sha256(CARD) == SHA256
    assert empty.checkpoint_files(CARD)[FILE.path].read_bytes() == WEIGHTS
    assert left_in(empty) == [RECORD, "fake.pth"]


@pytest.mark.parametrize(
    "content", [WEIGHTS[:-1], b"", WEIGHTS + b"x", b"x" + WEIGHTS[1:]], ids=["cut", "empty", "longer", "changed"]
)
def test_wrong_bytes_are_never_accepted(empty, content):
    with pytest.raises(CheckpointError, match=r"damaged.*run 'models download fake'"):
        empty.fetch(CARD, fetch_bytes(content), Progress())
    assert empty.status(CARD) == "absent"
    assert left_in(empty) == []


def test_a_file_that_did_not_come_is_missing(empty):
    with pytest.raises(CheckpointError, match=r"fake\.pth of fake is missing"):
        empty.fetch(CARD, lambda card, folder, progress: None, Progress())
    assert left_in(empty) == []


def half_then(error):
    def fetch(card, folder, progress):
        (folder / FILE.name).write_bytes(WEIGHTS[:100])
        (folder / "more").mkdir()
        (folder / "more" / "stuff").write_bytes(b"x")
        raise error

    return fetch


FAULTS = [Cancelled("stop"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device"), OSError("odd")]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__ + str(fault.args))
def test_a_fault_on_the_way_leaves_nothing(empty, fault):
    with pytest.raises((Cancelled, KeyboardInterrupt, CheckpointError)) as caught:
        empty.fetch(CARD, half_then(fault), Progress())
    if isinstance(fault, OSError):
        assert STORE_VARIABLE in str(caught.value)
        assert (fault.strerror or "OSError") in str(caught.value)
    assert empty.status(CARD) == "absent"
    assert left_in(empty) == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__ + str(fault.args))
def test_a_fault_on_the_way_leaves_an_earlier_checkpoint_ready(ready, fault):
    with pytest.raises((Cancelled, KeyboardInterrupt, CheckpointError)):
        ready.fetch(CARD, half_then(fault), Progress())
    assert ready.status(CARD) == "ready"
    assert left_in(ready) == [RECORD, "fake.pth"]
    assert ready.checkpoint_files(CARD)[FILE.path].read_bytes() == WEIGHTS


def test_wrong_bytes_leave_an_earlier_checkpoint_ready(ready):
    with pytest.raises(CheckpointError, match="damaged"):
        ready.fetch(CARD, fetch_bytes(b"x" * len(WEIGHTS)), Progress())
    assert ready.status(CARD) == "ready"
    assert left_in(ready) == [RECORD, "fake.pth"]


def test_no_file_is_replaced_before_every_file_is_checked(tmp_path):
    card = pair_card()
    store = fill_store(tmp_path, card)

    def second_is_cut(card, folder, progress):
        (folder / "one.pth").write_bytes(WEIGHTS)
        (folder / "two.pth").write_bytes(WEIGHTS[:-1])

    with pytest.raises(CheckpointError, match=r"two\.pth"):
        store.fetch(card, second_is_cut, Progress())
    assert store.status(card) == "ready"


def test_a_full_disk_at_the_very_end_is_told(empty, monkeypatch):
    """The record is what makes a checkpoint whole: without it, nobody may believe that it is."""

    def no_room(self, *arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", no_room)
    with pytest.raises(CheckpointError, match="No space left"):
        empty.fetch(CARD, fetch_bytes(), Progress())
    assert empty.status(CARD) == "partial"
    assert left_in(empty) == ["fake.pth"]


def test_a_store_below_a_file_is_told(tmp_path):
    (tmp_path / "store").write_text("a file")
    store = Store(tmp_path / "store")
    assert store.status(CARD) == "absent"
    with pytest.raises(CheckpointError, match="cannot be stored: Not a directory"):
        store.fetch(CARD, fetch_bytes(), Progress())


def test_what_a_killed_download_left_counts_as_nothing_and_goes(empty):
    folder = empty.model_folder(CARD)
    for name in ("incoming-old", "incoming-new"):
        (folder / name).mkdir(parents=True)
        (folder / name / FILE.name).write_bytes(WEIGHTS)
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(folder / "incoming-old", (long_ago, long_ago))
    assert empty.status(CARD) == "partial"
    with pytest.raises(CheckpointError, match="not downloaded"):
        empty.checkpoint_files(CARD)
    empty.fetch(CARD, fetch_bytes(), Progress())
    assert empty.status(CARD) == "ready"
    assert left_in(empty) == [RECORD, "fake.pth", "incoming-new"], "another process may still be at the new one"


def test_two_downloads_at_once_do_not_meet(empty):
    def other_comes_first(card, folder, progress):
        empty.fetch(CARD, fetch_bytes(), progress)
        fetch_bytes()(card, folder, progress)

    empty.fetch(CARD, other_comes_first, Progress())
    assert empty.status(CARD) == "ready"
    assert left_in(empty) == [RECORD, "fake.pth"]


def change_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_changed_byte_is_found_and_the_remedy_named(ready):
    change_a_byte(ready.file_path(CARD, FILE))
    assert ready.status(CARD) == "damaged"
    for use in (ready.checkpoint_files, ready.verify):
        with pytest.raises(CheckpointError, match=r"fake\.pth of fake is damaged.*run 'models download fake'"):
            use(CARD)
    assert ready.status(CARD) == "damaged", "looking does not make it good"
    ready.fetch(CARD, fetch_bytes(), Progress())
    assert ready.status(CARD) == "ready"


def test_a_cut_file_is_found_even_if_its_time_is_kept(ready):
    path = ready.file_path(CARD, FILE)
    times = path.stat()
    path.write_bytes(WEIGHTS[:-10])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert ready.status(CARD) == "damaged"
    with pytest.raises(CheckpointError, match="damaged"):
        ready.checkpoint_files(CARD)


def test_a_file_that_went_is_missing(ready):
    ready.file_path(CARD, FILE).unlink()
    assert ready.status(CARD) == "damaged"
    with pytest.raises(CheckpointError, match=r"missing; run 'models download fake'"):
        ready.checkpoint_files(CARD)


def test_a_touched_or_copied_checkpoint_is_still_good(ready, tmp_path):
    os.utime(ready.file_path(CARD, FILE), (1, 1))
    assert ready.status(CARD) == "damaged"
    assert ready.checkpoint_files(CARD)[FILE.path].is_file()
    assert ready.status(CARD) == "ready", "the new time is on record: nothing is hashed again"
    shutil.copytree(ready.folder, tmp_path / "copy", copy_function=shutil.copyfile)
    copy = Store(tmp_path / "copy")
    assert copy.checkpoint_files(CARD)[FILE.path] == copy.file_path(CARD, FILE)


def test_a_ready_checkpoint_is_not_hashed_again(ready, monkeypatch):
    monkeypatch.setattr(store_module, "hash_file", lambda path, progress: pytest.fail("hashed"))
    assert ready.checkpoint_files(CARD)[FILE.path].is_file()


def test_a_store_that_cannot_be_written_is_still_read(ready, monkeypatch):
    os.utime(ready.file_path(CARD, FILE), (1, 1))

    def read_only(self, *arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", read_only)
    assert ready.checkpoint_files(CARD)[FILE.path].is_file()
    assert left_in(ready) == [RECORD, "fake.pth"]


def test_a_file_that_cannot_be_read_is_told(ready, monkeypatch):
    os.utime(ready.file_path(CARD, FILE), (1, 1))

    def refuse(path, progress):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(store_module, "hash_file", refuse)
    with pytest.raises(CheckpointError, match="cannot be read: Permission denied"):
        ready.checkpoint_files(CARD)


GOOD_ENTRY = {"path": FILE.path, "bytes": len(WEIGHTS), "sha256": SHA256, "changed_ns": 1}
BROKEN_RECORDS = [
    "",
    "{",
    "\x00",
    "null",
    "[]",
    "{}",
    '{"files": null}',
    '{"files": 3}',
    '{"files": [3]}',
    '{"files": [[]]}',
    json.dumps({"files": [{"path": FILE.path}]}),
    json.dumps({"files": [GOOD_ENTRY | {"extra": 1}]}),
    json.dumps({"files": [GOOD_ENTRY | {"path": []}]}),
]


@pytest.mark.parametrize("text", BROKEN_RECORDS)
def test_a_broken_record_counts_as_none(ready, text):
    (ready.model_folder(CARD) / RECORD).write_text(text, encoding="utf-8")
    assert ready.status(CARD) == "partial"
    with pytest.raises(CheckpointError, match=r"not downloaded \(partial\)"):
        ready.checkpoint_files(CARD)
    ready.fetch(CARD, fetch_bytes(), Progress())
    assert ready.status(CARD) == "ready"


def test_a_record_that_is_no_text_counts_as_none(ready):
    (ready.model_folder(CARD) / RECORD).write_bytes(b"\xff\xfe\x00")
    assert ready.status(CARD) == "partial"


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


def test_without_a_hash_on_the_card_the_first_download_sets_it(empty):
    card = pair_card(sha256="")
    empty.fetch(card, fetch_bytes(), Progress())
    assert empty.status(card) == "ready"
    assert empty.sha256(card) == SHA256
    change_a_byte(empty.model_folder(card) / "two.pth")
    with pytest.raises(CheckpointError, match=r"two\.pth of fake is damaged"):
        empty.checkpoint_files(card)


def test_the_record_names_the_source_and_no_folder(ready):
    text = (ready.model_folder(CARD) / RECORD).read_text(encoding="utf-8")
    document = json.loads(text)
    assert (document["version"], document["model"], document["source"]) == (1, "fake", "fake-wheel")
    assert document["files"] == [
        GOOD_ENTRY | {"changed_ns": ready.file_path(CARD, FILE).stat().st_mtime_ns},
    ]
    assert str(ready.folder) not in text


def test_hash_of_a_file(tmp_path):
    (tmp_path / "file").write_bytes(WEIGHTS)
    assert hash_file(tmp_path / "file") == SHA256
