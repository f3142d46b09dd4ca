"""Downloads from a Hub on loopback: what comes, what is kept, what is said."""

import dataclasses
import errno
import os
import shutil
import time

import pytest

from FoundationSegLib.core.errors import Cancelled, CheckpointError
from FoundationSegLib.core.progress import Progress
from FoundationSegLib.hub.fetch import download_checkpoint, ensure_checkpoint
from FoundationSegLib.hub.store import Store
from Testing.unit.hub.hub_cases import (
    CONFIG,
    FILES,
    QUICK,
    REPOSITORY,
    WEIGHTS,
    cancel_after,
    cancel_in,
    content_of,
    fetch,
    hub_card,
    partial_bytes,
    strays,
)
from Testing.unit.hub.loopback_hub import Fault


@pytest.mark.parametrize("hashes", [True, False])
@pytest.mark.parametrize("sizes", [True, False])
def test_a_checkpoint_comes_whole(hub, store, commit, hashes, sizes):
    card = hub_card(hashes=hashes, sizes=sizes)
    download_checkpoint(store, card, Progress())
    assert store.status(card) == "ready"
    assert content_of(store, card) == FILES
    assert strays(store, card) == []
    assert store.model_folder(card).name == commit
    assert hub.sent == len(WEIGHTS) + len(CONFIG)
    assert {path for _, path, _, _ in hub.requests if path.startswith("/api")} == {
        f"/api/models/{REPOSITORY}/revision/main?blobs=true"
    }, "nothing but the model is asked for"


def test_a_ready_checkpoint_asks_nobody(hub, store, commit):
    card = hub_card()
    download_checkpoint(store, card, Progress())
    hub.requests.clear()
    download_checkpoint(store, card, Progress())
    assert ensure_checkpoint(store, card, Progress())
    assert hub.requests == []


def test_progress_counts_bytes_of_each_file_and_of_all(hub, store, commit):
    reports = []
    fetch(store, hub_card(), Progress(reports.append))
    total = len(WEIGHTS) + len(CONFIG)
    assert {report.stage for report in reports} == {"download"}
    assert {report.total for report in reports} == {total}
    assert [report.done for report in reports] == sorted(report.done for report in reports)
    assert reports[-1].done == total
    last = {report.item: (report.item_done, report.item_total) for report in reports if report.item}
    assert last == {"model.safetensors": (len(WEIGHTS),) * 2, "config.json": (len(CONFIG),) * 2}


MENDED = [
    [Fault("cut", 100_000)],
    [Fault("cut", 0), Fault("cut", 0), Fault("cut", 1), Fault("cut", 70_001)],
    [Fault("stall", 100_000)],
    [Fault("status", code=500), Fault("status", code=503)],
    [Fault("status", code=429, retry_after="0")],
    [Fault("status", code=429, retry_after="86400")],
    [Fault("status", code=429, retry_after="Wed, 21 Oct 2035 07:28:00 GMT")],
    [Fault("cut", 100_000), Fault("ignore_range")],
    [Fault("cut", 100_000), Fault("wrong_range")],
    [Fault("cut", 100_000), Fault("status", code=416)],
    [Fault("cut", 100_000), Fault("wrong_bytes")],
    [Fault("gzip")],
    [Fault("status", code=403)],
]


@pytest.mark.parametrize("faults", MENDED, ids=lambda faults: "-".join(f"{f.kind}{f.code}" for f in faults))
def test_faults_that_pass_are_overcome(hub, store, commit, faults):
    hub.faults.extend(faults)
    fetch(store, hub_card(hashes=True))
    assert content_of(store, hub_card()) == FILES
    assert strays(store, hub_card()) == []


FATAL = [
    ([Fault("status", code=500)] * 9, "error 500", True),
    ([Fault("cut", 0)] * 9, "cannot be downloaded", True),
    ([Fault("cut", 100_000), *[Fault("cut", 0)] * 9], "what has arrived is kept", True),
    ([Fault("wrong_bytes")], "wrong hash and was thrown away", False),
    ([Fault("short")], "is not the 300000 bytes", False),
    ([Fault("long")], "is not the 300000 bytes", False),
    ([Fault("portal")], "proxy or firewall", False),
    ([Fault("loop")] * 40, "redirects in circles", True),
    ([Fault("status", code=401)] * 9, "error 401", True),
    ([Fault("status", code=403)] * 9, "error 403", True),
    ([Fault("status", code=404)] * 9, "error 404", True),
    ([Fault("status", code=418)] * 9, "error 418", True),
    ([Fault("status", code=416)] * 9, "is not the 300000 bytes", False),
]


@pytest.mark.parametrize(("faults", "told", "may_keep"), FATAL, ids=lambda value: str(value)[:40])
def test_faults_that_stay_are_told_and_the_next_download_succeeds(hub, store, commit, faults, told, may_keep):
    card = hub_card(hashes=True)
    hub.faults.extend(faults)
    with pytest.raises(CheckpointError, match=told) as caught:
        fetch(store, card)
    assert "://" not in str(caught.value).replace(hub.endpoint, ""), "addresses may be signed"
    assert store.status(card) == "partial"
    assert may_keep or partial_bytes(store, card) == 0
    hub.faults.clear()
    fetch(store, card)
    assert content_of(store, card) == FILES
    assert strays(store, card) == []


@pytest.mark.parametrize("kind", ["changed_etag"])
def test_a_changed_etag_starts_the_file_again(hub, store, kind):
    files = {"config.json": CONFIG * 100}
    hub.add(REPOSITORY, files)
    hub.faults.extend([Fault("cut", 500), Fault(kind)])
    fetch(store, hub_card(files))
    assert content_of(store, hub_card(files)) == files
    store2 = Store(store.folder.with_name("second"))
    hub.faults.extend([Fault(kind)] * 9)
    with pytest.raises(CheckpointError, match="the file has changed"):
        fetch(store2, hub_card(files))


@pytest.mark.parametrize("after", [1, 99_999, 200_000, 299_999])
def test_a_resumed_download_transfers_what_was_missing(hub, store, commit, after, bar):
    card = hub_card()
    hub.faults.extend([Fault("cut", after), *[Fault("status", code=500)] * 9])
    with pytest.raises(CheckpointError):
        fetch(store, card)
    assert store.status(card) == "partial"
    assert partial_bytes(store, card) == after
    hub.faults.clear()
    hub.start_count()
    fetch(Store(store.folder), card)
    beyond = hub.sent - (len(WEIGHTS) - after + len(CONFIG))
    bar(f"bytes beyond what was missing, after {after} bytes", beyond, "<= 1048576")
    assert beyond == 0
    assert content_of(store, card) == FILES


def test_a_partial_that_was_changed_is_found_out(hub, store, commit):
    card = hub_card()
    hub.faults.extend([Fault("cut", 200_000), *[Fault("status", code=500)] * 9])
    with pytest.raises(CheckpointError):
        fetch(store, card)
    (partial,) = store.model_folder(card).glob("incoming/*.partial")
    partial.write_bytes(b"x" * 150_000)
    hub.faults.clear()
    fetch(store, card)
    assert content_of(store, card) == FILES


@pytest.mark.parametrize("where", ["api", "body", "wait"])
def test_a_cancel_is_quick_whatever_the_server_does(hub, store, commit, where, bar):
    if where == "api":
        hub.api_faults.append(Fault("stall"))
    else:
        hub.faults.append(Fault("stall", 100_000) if where == "body" else Fault("status", code=503, retry_after="20"))
    slow = dataclasses.replace(QUICK, timeout_s=10.0, longest_wait_s=20.0)
    begin = time.monotonic()
    with pytest.raises(Cancelled):
        fetch(store, hub_card(), cancel_in(0.4), slow)
    taken = time.monotonic() - begin - 0.4
    bar(f"cancel of a silent {where}, ms", 1000 * taken, "< 200")
    assert taken < 0.2
    hub.released.set()
    hub.start_count()
    kept = partial_bytes(store, hub_card())
    assert kept == (100_000 if where == "body" else 0)
    fetch(store, hub_card())
    assert hub.sent == len(WEIGHTS) + len(CONFIG) - kept


def test_a_cancel_between_chunks_keeps_what_came(hub, store, commit):
    hub.slow_s = 0.01
    with pytest.raises(Cancelled):
        fetch(store, hub_card(), cancel_after(100_000))
    assert store.status(hub_card()) == "partial"
    assert partial_bytes(store, hub_card()) >= 100_000
    assert store.bytes_here(hub_card()) == partial_bytes(store, hub_card())


def test_a_full_disk_midway_is_told_and_the_next_download_goes_on(hub, store, commit, monkeypatch):
    card, write = hub_card(), os.write

    def fill(descriptor, data):
        room = 150_000 - os.fstat(descriptor).st_size
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[: min(room, 50_000)])

    monkeypatch.setattr(os, "write", fill)
    with pytest.raises(CheckpointError, match=r"No space left on device; make room"):
        fetch(store, card)
    monkeypatch.setattr(os, "write", write)
    assert store.status(card) == "partial"
    kept = partial_bytes(store, card)
    assert kept == 150_000
    hub.start_count()
    fetch(store, card)
    assert hub.sent == len(WEIGHTS) + len(CONFIG) - kept
    assert content_of(store, card) == FILES


def test_room_is_looked_for_before_a_byte_travels(hub, store, commit, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(CheckpointError, match=r"needs 300 kB more, and the disk has 1 kB free"):
        fetch(store, hub_card())
    assert hub.sent == 0


def test_a_large_file_holds_little_memory(hub, store, tmp_path):
    """Whatever the length, no more than a few chunks are in memory."""
    import tracemalloc

    big = tmp_path / "big.bin"
    with big.open("wb") as stream:
        for n in range(64):
            stream.write(bytes([n]) * (1 << 20))
    hub.add(REPOSITORY, {"big.bin": big})
    card = hub_card({"big.bin": b""}, sizes=False)
    tracemalloc.start()
    fetch(store, card)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20
    assert store.status(card) == "ready"


def test_a_file_without_bytes_is_a_file(hub, store):
    hub.add(REPOSITORY, {"empty.txt": b""})
    card = hub_card({"empty.txt": b""})
    fetch(store, card)
    assert store.status(card) == "ready"
