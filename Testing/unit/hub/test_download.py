"""Downloads from a Hub on loopback: what comes, what is kept, what is trusted, what is said."""

import dataclasses
import errno
import json
import logging
import os
import shutil
import time
import tracemalloc

import pytest
from huggingface_hub import constants, hf_hub_download

from FoundationSegLib.catalog.model_cards import CheckpointFile
from FoundationSegLib.errors import Cancelled, CheckpointError
from FoundationSegLib.hub.exchange import export_checkpoint, import_checkpoint
from FoundationSegLib.hub.fetch import download_checkpoint, ensure_checkpoint
from FoundationSegLib.hub.hugging_face import ALLOW_VARIABLE
from FoundationSegLib.hub.plan import plan_download, plan_removal, remove
from FoundationSegLib.hub.store import Store
from FoundationSegLib.progress import Progress
from Testing.unit.hub.hub_cases import (
    FILES,
    QUICK,
    REPOSITORY,
    cancel_when,
    content_of,
    fetch,
    hub_card,
    partial_bytes,
    release_card,
    require_whole,
    strays,
)
from Testing.unit.hub.loopback_hub import Fault

WEIGHTS, CONFIG = FILES.values()
TOTAL = len(WEIGHTS) + len(CONFIG)
TOKEN = "hf_ThisIsVerySecret0123456789"
DOWN = [Fault("status", code=500)] * 9


def break_off(hub, store, after):
    """Have a download end after so many bytes of the first file."""
    hub.faults.extend([Fault("cut", after), *DOWN])
    with pytest.raises(CheckpointError):
        fetch(store, hub_card())
    hub.faults.clear()


def fetch_whole(store, card=None):
    """Download, and make sure that every byte is right and nothing else is left."""
    fetch(store, card or hub_card())
    require_whole(store, card or hub_card())


@pytest.mark.parametrize("hashes", [True, False])
@pytest.mark.parametrize("sizes", [True, False])
def test_a_checkpoint_comes_whole_and_once(hub, store, commit, hashes, sizes):
    card = hub_card(hashes=hashes, sizes=sizes)
    assert ensure_checkpoint(store, card, Progress())
    assert (store.status(card), store.model_folder(card).name) == ("ready", commit)
    require_whole(store, card)
    assert hub.sent == TOTAL
    assert {path for _, path, _, _ in hub.requests if path.startswith("/api")} == {
        f"/api/models/{REPOSITORY}/revision/main?blobs=true"
    }, "nothing but the model is asked for"
    hub.requests.clear()
    download_checkpoint(store, card, Progress())
    assert ensure_checkpoint(store, card, Progress())
    assert hub.requests == [], "a ready checkpoint asks nobody"


MENDED = [
    [Fault("cut", 100_000)],
    [Fault("cut", 0), Fault("cut", 0), Fault("cut", 1), Fault("cut", 70_001)],
    [Fault("stall", 100_000)],
    [Fault("status", code=500), Fault("status", code=503)],
    *([Fault("status", code=429, retry_after=text)] for text in ("0", "86400", "Wed, 21 Oct 2035 07:28:00 GMT")),
    [Fault("cut", 100_000), Fault("ignore_range")],
    [Fault("cut", 100_000), Fault("wrong_range")],
    [Fault("cut", 100_000), Fault("status", code=416)],
    [Fault("cut", 100_000), Fault("wrong_bytes")],
    [Fault("gzip")],
    [Fault("status", code=403)],
]


def card_of(kind, hub):
    return release_card(hub) if kind == "release" else hub_card(hashes=True)


@pytest.mark.parametrize("kind", ["hub", "release"])
@pytest.mark.parametrize("faults", MENDED, ids=lambda faults: "-".join(f"{f.kind}{f.code}" for f in faults))
def test_faults_that_pass_are_overcome(hub, store, commit, faults, kind):
    hub.faults.extend(faults)
    fetch_whole(store, card_of(kind, hub))


FATAL = [
    (DOWN, "error 500", True),
    ([Fault("cut", 0)] * 9, "cannot be downloaded", True),
    ([Fault("cut", 100_000), *[Fault("cut", 0)] * 9], "what has arrived is kept", True),
    ([Fault("wrong_bytes")], "wrong hash and was thrown away", False),
    ([Fault("short")], "is not the 300000 bytes", False),
    ([Fault("long")], "is not the 300000 bytes", False),
    ([Fault("portal")], "proxy or firewall", False),
    ([Fault("loop")] * 40, "redirects in circles", True),
    *(([Fault("status", code=code)] * 9, f"error {code}", True) for code in (401, 403, 404, 418)),
    ([Fault("status", code=416)] * 9, "is not the 300000 bytes", False),
]


@pytest.mark.parametrize("kind", ["hub", "release"])
@pytest.mark.parametrize(("faults", "message", "may_keep"), FATAL, ids=lambda value: str(value)[:40])
def test_faults_that_stay_are_told_and_the_next_download_succeeds(hub, store, commit, faults, message, may_keep, kind):
    card, settings = card_of(kind, hub), (constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY)
    hub.faults.extend(faults)
    with pytest.raises(CheckpointError, match=message) as caught:
        fetch(store, card)
    assert "://" not in str(caught.value).replace(hub.endpoint, ""), "addresses may be signed"
    assert settings == (constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY)
    assert store.status(card) in ("absent", "partial")
    assert may_keep or partial_bytes(store, card) == 0
    hub.faults.clear()
    fetch_whole(store, card)


def test_a_release_comes_whole_resumed_and_without_the_login(hub, store, commit, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    card = release_card(hub)
    assert plan_download(store, card, Progress()).bytes_to_fetch == TOTAL
    hub.faults.extend([Fault("cut", 100_000), *DOWN])
    with pytest.raises(CheckpointError, match="HTTPS_PROXY") as caught:
        fetch(store, card)
    assert "HF_ENDPOINT" not in str(caught.value), "a mirror of the Hub has no releases"
    hub.faults.clear()
    plan = plan_download(store, card, Progress())
    assert (plan.bytes_to_fetch, plan.asked_hub, plan.notes) == (TOTAL - 100_000, False, ())
    assert ensure_checkpoint(store, card, Progress())
    require_whole(store, card)
    assert (store.status(card), store.model_folder(card).name) == ("ready", "v1")
    assert {login for *_, login in hub.requests} == {""}
    assert hub.asked("/api") == []
    export_checkpoint(store, card, tmp_path / "release.zip", Progress())
    remove(store, card, plan_removal(store, card))
    assert store.status(card) == "absent"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="offline mode"):
        fetch(store, card)
    import_checkpoint(store, card, tmp_path / "release.zip", Progress())
    require_whole(store, card)


def test_a_release_is_imported_by_the_names_that_it_has_there(hub, store, tmp_path):
    card, contents = release_card(hub), dict(zip(("own0.bin", "own1.bin"), FILES.values(), strict=True))
    files = [dataclasses.replace(file, path=name) for file, name in zip(card.source.files, contents, strict=True)]
    card = dataclasses.replace(card, source=dataclasses.replace(card.source, files=tuple(files)))
    for path, content in FILES.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    import_checkpoint(store, card, tmp_path, Progress())
    require_whole(store, card, contents)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("{endpoint}/nothing", "127.0.0.1 answered with error 404 .*models import"),
        ("http://127.1:{port}/org/model/resolve/main", "without encryption"),
    ],
)
def test_a_release_that_is_gone_or_leads_astray_is_told(hub, store, commit, address, words):
    hub.storage = hub.storage.replace("127.0.0.1", "127.1")  # to which the server redirects
    card = release_card(hub, by=address.format(endpoint=hub.endpoint, port=hub.endpoint.rpartition(":")[2]))
    with pytest.raises(CheckpointError, match=words):
        fetch(store, card)
    assert store.status(card) == "absent"
    with pytest.raises(CheckpointError, match="without encryption"):
        fetch(store, release_card(hub))


def test_a_changed_etag_starts_the_file_again(hub, store):
    files = {"config.json": CONFIG * 100}
    hub.add(REPOSITORY, files)
    hub.faults.extend([Fault("cut", 500), Fault("changed_etag")])
    fetch(store, hub_card(files))
    assert content_of(store, hub_card(files)) == files
    hub.faults.extend([Fault("changed_etag")] * 9)
    with pytest.raises(CheckpointError, match="the file has changed"):
        fetch(Store(store.folder.with_name("second")), hub_card(files))


@pytest.mark.parametrize("after", [1, 99_999, 200_000, 299_999])
def test_a_resumed_download_transfers_what_was_missing(hub, store, commit, after, bar):
    break_off(hub, store, after)
    assert (store.status(hub_card()), partial_bytes(store, hub_card())) == ("partial", after)
    assert plan_download(store, hub_card(), Progress()).bytes_to_fetch == TOTAL - after
    hub.start_count()
    fetch_whole(Store(store.folder))
    bar(f"bytes beyond what was missing, after {after} bytes", hub.sent - (TOTAL - after), "<= 1048576")
    assert hub.sent == TOTAL - after


def test_a_half_file_that_was_changed_is_found_out(hub, store, commit):
    break_off(hub, store, 200_000)
    (partial,) = store.model_folder(hub_card()).glob("incoming/*.partial")
    partial.write_bytes(b"x" * 150_000)
    fetch_whole(store)


@pytest.mark.parametrize("where", ["api", "body", "wait"])
def test_a_cancel_is_quick_whatever_the_server_does(hub, store, commit, where, bar):
    if where == "api":
        hub.api_faults.append(Fault("stall"))
    else:
        hub.faults.append(Fault("stall", 100_000) if where == "body" else Fault("status", code=503, retry_after="20"))
    half = 100_000 if where == "body" else 0
    progress, moments = cancel_when(
        lambda: not hub.faults and not hub.api_faults and partial_bytes(store, hub_card()) == half
    )
    with pytest.raises(Cancelled):
        fetch(store, hub_card(), progress, dataclasses.replace(QUICK, timeout_s=100.0, longest_wait_s=200.0))
    taken = time.monotonic() - moments[0]
    bar(f"cancel of a silent {where}, ms", 1000 * taken, "< 200")
    assert taken < 20
    hub.released.set()
    hub.start_count()
    kept = partial_bytes(store, hub_card())
    assert kept == half
    assert store.bytes_here(hub_card()) == kept
    fetch(store, hub_card())
    assert hub.sent == TOTAL - kept


def test_a_full_disk_midway_is_told_and_the_next_download_goes_on(hub, store, commit, monkeypatch):
    write = os.write

    def fill(descriptor, content):
        room = 150_000 - os.fstat(descriptor).st_size
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, content[: min(room, 50_000)])

    with monkeypatch.context() as full, pytest.raises(CheckpointError, match=r"No space left on device; make room"):
        full.setattr(os, "write", fill)
        fetch(store, hub_card())
    assert (store.status(hub_card()), partial_bytes(store, hub_card())) == ("partial", 150_000)
    hub.start_count()
    fetch_whole(store)
    assert hub.sent == TOTAL - 150_000


def test_room_is_looked_for_before_a_byte_travels(hub, store, commit, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(CheckpointError, match=r"needs 300 kB more, and the disk has 1 kB free"):
        fetch(store, hub_card())
    assert hub.sent == 0


def test_a_large_file_holds_little_memory(hub, store, tmp_path):
    """Whatever the length, no more than a few chunks are in memory."""
    big = tmp_path / "big.bin"
    with big.open("wb") as stream:
        stream.truncate(64 << 20)
    hub.add(REPOSITORY, {"big.bin": big})
    card = hub_card({"big.bin": b""}, sizes=False)
    tracemalloc.start()
    fetch(store, card)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20
    assert store.status(card) == "ready"


def test_a_branch_that_moves_does_not_mix_two_versions(hub, store, commit):
    break_off(hub, store, 100_000)
    later = hub.add(REPOSITORY, {path: content[::-1] for path, content in FILES.items()})
    assert later != commit
    fetch_whole(store)
    assert store.model_folder(hub_card()).name == commit


def test_without_hashes_on_the_card_a_later_change_is_an_error(hub, store, commit):
    card, commits = hub_card(), hub.repositories[REPOSITORY].commits
    fetch(store, card)
    store.file_path(card, card.source.files[0]).write_bytes(b"x")
    commits[commit] = commits[hub.add(REPOSITORY, {**FILES, "weights/model.safetensors": WEIGHTS[::-1]})]
    with pytest.raises(CheckpointError, match="not what the Hub had when it was first downloaded"):
        fetch(store, card)
    assert store.status(card) == "damaged"


@pytest.mark.parametrize("content", [WEIGHTS[::-1], WEIGHTS + b"x"], ids=["hash", "size"])
def test_a_card_and_a_hub_that_differ_are_told_before_a_byte_travels(hub, store, content):
    hub.add(REPOSITORY, {**FILES, "weights/model.safetensors": content})
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


def test_only_the_damaged_file_is_fetched_again_and_a_touched_one_is_not(hub, store, commit):
    card = hub_card()
    fetch(store, card)
    weights, config = (store.file_path(card, file) for file in card.source.files)
    config.write_bytes(b"y" * len(CONFIG))
    os.utime(weights, (1, 1))
    with pytest.raises(CheckpointError, match="damaged"):
        store.verify(card)
    hub.start_count()
    fetch(store, card)
    assert hub.sent == len(CONFIG)
    assert content_of(store, hub_card()) == FILES
    os.utime(weights, (1, 1))
    fetch(store, card)
    assert hub.sent == len(CONFIG)
    assert store.status(card) == "ready"


def test_a_second_repository_has_a_folder_of_its_own(hub, store, commit):
    hub.add("other/text-model", {"config.json": b"{}"})
    card = hub_card({"weights/model.safetensors": WEIGHTS})
    elsewhere = CheckpointFile("config.json", 2, repository="other/text-model", revision="main")
    card = dataclasses.replace(card, source=dataclasses.replace(card.source, files=(*card.source.files, elsewhere)))
    fetch(store, card)
    path = store.checkpoint_files(card)["config.json"]
    assert (path.read_bytes(), path.parent.name) == (b"{}", "other--text-model")
    pins = json.loads((store.all_of(card) / "pins.json").read_text())["pins"]
    assert set(pins) == {"org/model@main", "other/text-model@main"}


def test_a_mirror_that_leaves_lengths_out_is_asked_file_by_file(hub, store, commit):
    hub.leaves_lengths_out = True
    fetch(store, hub_card(sizes=False))
    assert content_of(store, hub_card()) == FILES
    assert [method for method, *_ in hub.requests].count("HEAD") == 2


def test_a_small_file_that_only_git_knows_is_held_to_its_git_hash(hub, store, commit):
    hub.faults.extend([Fault("none"), Fault("wrong_bytes")])
    with pytest.raises(CheckpointError, match="wrong hash"):
        fetch(store, hub_card())
    fetch_whole(store)


def test_a_file_without_any_hash_is_not_downloaded(hub, store, commit):
    siblings = [{"rfilename": path, "size": len(content)} for path, content in FILES.items()]
    hub.raw_answer = json.dumps({"id": REPOSITORY, "sha": commit, "siblings": siblings}).encode()
    with pytest.raises(CheckpointError, match="neither the Hub nor the card says what the hash"):
        fetch(store, hub_card())
    assert hub.sent == 0
    fetch_whole(store, hub_card(hashes=True))


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
    fetch_whole(store, card)


def test_what_killed_processes_left_goes_with_the_next_download(hub, store, commit):
    card = hub_card()
    for folder in (store.all_of(card), store.model_folder(card), store.all_of(card) / commit):
        (folder / "incoming-dead").mkdir(parents=True, exist_ok=True)
        (folder / "incoming-dead" / "pins.json").write_text("{")
    fetch(store, card)
    assert strays(store, card) == [str(store.all_of(card) / "main" / "incoming-dead" / "pins.json")]


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
    fetch_whole(store, card)
    storage = [login for _, path, _, login in hub.requests if path.startswith("/lfs/")]
    assert storage == [""], "the login is for the Hub, not for its storage"
    written = b"".join(path.read_bytes() for path in store.folder.rglob("*") if path.is_file())
    for text in (caplog.text, *capfd.readouterr(), written.decode("latin-1")):
        assert TOKEN not in text


def test_a_private_repository_without_a_login(hub, store):
    hub.add(REPOSITORY, FILES, private=True, granted={TOKEN})
    with pytest.raises(CheckpointError, match=r"opens in your browser, log in.*hf auth login"):
        fetch(store, hub_card())


@pytest.mark.parametrize("code", [400, 401, 403, 404, 418, 500])
def test_a_server_that_repeats_the_login_is_not_quoted(hub, store, commit, monkeypatch, code):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.api_faults.extend([Fault("status", code=code)] * QUICK.attempts)
    with pytest.raises(CheckpointError) as caught:
        fetch(store, hub_card())
    assert not any(TOKEN in str(error) for error in (caught.value, caught.value.__cause__))


def test_offline_mode_is_honoured_at_once(hub, store, commit, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"offline mode is on.*models import"):
        fetch(store, hub_card())
    plan = plan_download(store, hub_card(), Progress())
    assert "offline mode is on" in plan.notes[0]
    assert (plan.asked_hub, plan.bytes_to_fetch) == (False, TOTAL)
    assert hub.requests == []
    monkeypatch.setenv(ALLOW_VARIABLE, "1")
    fetch(store, hub_card())
    assert store.status(hub_card()) == "ready"
    assert constants.HF_HUB_OFFLINE, "offline again after the download"


def files_of(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): (path.lstat().st_mtime_ns, path.read_bytes()) for path in paths}


def refuse(source, target):
    raise OSError("another disk")


@pytest.mark.parametrize("case", ["linked", "copied", "another commit", "wrong"])
def test_the_users_own_cache_is_used_and_never_changed(hub, commit, store, tmp_path, monkeypatch, case):
    cache = tmp_path / "hf-cache"
    for path in FILES:
        hf_hub_download(REPOSITORY, path)
    if case == "copied":
        monkeypatch.setattr(os, "link", refuse)
    if case == "another commit":
        hub.add(REPOSITORY, {**FILES, "README.md": b"changed"})
    if case == "wrong":
        for path in cache.rglob("blobs/*"):
            path.write_bytes(path.read_bytes()[::-1])
    hub.start_count()
    before = files_of(cache)
    fetch_whole(store)
    assert hub.sent == (TOTAL if case == "wrong" else 0)
    plan = plan_removal(store, hub_card())
    assert plan.bytes_shared == (0 if case in ("copied", "wrong") else TOTAL)
    remove(store, hub_card(), plan)
    assert files_of(cache) == before
