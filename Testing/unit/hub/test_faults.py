"""Random faults, cancels and senseless documents: a download ends ready and right, or told and resumable, and
nothing is written outside the store."""

import dataclasses
import json
import random
import urllib.request
from pathlib import Path

from FoundationSegLib.catalog.model_cards import CheckpointFile
from FoundationSegLib.errors import Cancelled, CheckpointError
from FoundationSegLib.hub.fetch import is_accepted, needs_download
from FoundationSegLib.hub.plan import plan_download, plan_removal
from FoundationSegLib.hub.store import Store
from FoundationSegLib.progress import Progress
from Testing.unit.hub.hub_cases import (
    QUICK,
    REPOSITORY,
    cancel_after,
    content_of,
    fetch,
    hub_card,
    partial_bytes,
    release_card,
    require_whole,
)
from Testing.unit.hub.loopback_hub import Fault

BYTE_FAULTS = ["cut", "cut", "cut", "stall", "wrong_bytes", "short", "long", "overrun", "ignore_range", "wrong_range"]
BYTE_FAULTS += ["changed_etag", "gzip", "loop", "portal", *["status"] * 4]
CODES = [401, 403, 404, 408, 416, 429, 500, 502, 503]
IMPATIENT = dataclasses.replace(QUICK, attempts=3, first_wait_s=0.001, longest_wait_s=0.002, timeout_s=0.15)
CALM = dataclasses.replace(QUICK, timeout_s=10.0)  # however busy the machine is
ONCE = dataclasses.replace(CALM, attempts=1)


def random_fault(source):
    kind, retry_after = source.choice(BYTE_FAULTS), source.choice(["", "0", "1", "99999", "soon"])
    return Fault(kind, source.randrange(40_000), source.choice(CODES), retry_after)


def random_files(source):
    count = source.randrange(1, 4)
    return {f"part{n}/file{n}.bin": source.randbytes(source.choice([0, 1, 1999, 5000, 40_000])) for n in range(count)}


def finished(store, card):
    """The files that have their place."""
    paths = {file.path: store.file_path(card, file) for file in card.source.files}
    return {name: path for name, path in paths.items() if path.is_file()}


def test_random_faults_cancels_and_restarts(hub, tmp_path, full, bar, monkeypatch):
    """Small files; several attempts each, the last without a fault."""
    source, outcomes = random.Random(7), {"ready": 0, "told": 0, "cancelled": 0}
    for round_ in range(500 if full else 40):
        repository, store = f"org/model{round_}", Store(tmp_path / f"store{round_}")
        files = random_files(source)
        hub.add(repository, files)
        card = hub_card(files, repository=repository, hashes=source.random() < 0.5)
        if round_ % 4 == 3:
            card = release_card(hub, files, repository=repository)
        for _ in range(source.randrange(1, 4)):
            hub.faults.clear()
            hub.faults.extend(random_fault(source) for _ in range(source.randrange(1, 8)))
            hub.api_faults.clear()
            if source.random() < 0.2:
                hub.api_faults.append(Fault("status", code=source.choice(CODES)))
            progress = cancel_after(source.randrange(60_000)) if source.random() < 0.3 else None
            try:
                fetch(Store(store.folder), card, progress, IMPATIENT)
                outcomes["ready"] += 1
            except Cancelled:
                outcomes["cancelled"] += 1
            except CheckpointError as error:
                outcomes["told"] += 1
                assert len(str(error)) < 400
                assert "\n" not in str(error)
            if store.status(card) == "ready":
                assert content_of(store, card) == files
            assert all(path.read_bytes() == files[name] for name, path in finished(store, card).items())
        hub.faults.clear()
        hub.api_faults.clear()
        whole = sum(path.stat().st_size for path in finished(store, card).values())
        has_halves = partial_bytes(store, card) > 0  # one that is wrong, and found out at its end, is fetched anew
        # Requests of earlier attempts may still be on their way; the name tells them from those of this one.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_USER_AGENT_ORIGIN", f"last-{round_}-")
        fetch(store, card, retries=CALM)
        require_whole(store, card, files)
        sent = sum(count for agent, count in hub.sent_to.items() if f"last-{round_}-" in agent)
        assert sent <= (1 + has_halves) * (sum(map(len, files.values())) - whole)
    assert min(outcomes.values()) > 0
    bar("faulty downloads that ended neither right nor told", 0.0, "0")


FILES = {"weights/model.bin": bytes(range(250)) * 12, "config.json": b'{"layers": 2}'}
ODD_NAMES = ["", "x", "../../evil", "/etc/evil", "con", "a\0b", "0" * 40, "0" * 64, "a" * 5000, "é\ufffd"]
ODD = [None, True, 0, -1, 1 << 70, 1.5, float("nan"), [], {}, [[]], {"size": 3}, [1, 2], *ODD_NAMES]


def changed(value, source):
    """A JSON value with one of its parts changed or removed."""
    if not isinstance(value, dict | list) or not value or source.random() < 0.05:
        return source.choice(ODD)
    value = value.copy()
    key = source.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if source.random() < 0.3:
        del value[key]
    else:
        value[key] = changed(value[key], source)
    return value


def senseless(document, source):
    """The bytes of a document with one to three changes, which may be cut off or have flipped bits."""
    for _ in range(source.randrange(1, 4)):
        document = changed(document, source)
    raw = json.dumps(document).encode()
    raw = raw[: source.randrange(len(raw) + 1)] if source.random() < 0.15 else raw
    return bytes(byte ^ (source.random() < 0.01) for byte in raw) if source.random() < 0.1 else raw


def files_outside(folder, store):
    paths = [path for path in folder.rglob("*") if not path.is_relative_to(store.folder)]
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in paths}


def test_senseless_answers_of_the_hub(hub, tmp_path, full):
    source, right = random.Random(5), 0
    hub.add(REPOSITORY, FILES)
    with urllib.request.urlopen(f"{hub.endpoint}/api/models/{REPOSITORY}/revision/main?blobs=true") as answer:
        good = json.load(answer)
    for n in range(400 if full else 60):
        card, store = hub_card(FILES, sizes=source.random() < 0.5), Store(tmp_path / f"store{n}")
        before = files_outside(tmp_path, store)
        hub.raw_answer = senseless(good, source)
        plan_download(store, card, Progress(), ONCE)
        try:
            fetch(store, card, retries=ONCE)
            assert content_of(store, card) == FILES
            right += 1
        except CheckpointError as error:
            assert len(str(error)) < 400
            assert store.status(card) in ("absent", "partial")
        assert files_outside(tmp_path, store) == before
    assert right > 0


def test_senseless_records_and_pins(hub, tmp_path, store, full):
    source, card = random.Random(6), hub_card(FILES)
    hub.add(REPOSITORY, FILES)
    hub.add("other/model", FILES)
    fetch(store, card)
    record, pins = store.model_folder(card) / "complete.json", store.all_of(card) / "pins.json"
    good = {path: path.read_bytes() for path in (record, pins)}
    before = files_outside(tmp_path, store)
    for _ in range(300 if full else 60):
        for path, content in good.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        broken = source.choice(list(good))
        broken.write_bytes(senseless(json.loads(good[broken]), source))
        try:
            assert store.status(card) in ("absent", "partial", "ready", "damaged")
            assert content_of(store, card) == FILES
        except CheckpointError as error:
            assert len(str(error)) < 400
        needs_download(store, card)
        is_accepted(store, card)
        plan_removal(store, card)
        try:
            fetch(store, card)
            assert content_of(store, card) == FILES
        except CheckpointError as error:
            assert any(text in str(error) for text in ("not what the Hub had", "shows no", "no revision"))
        assert files_outside(tmp_path, store) == before


def test_cards_that_lead_elsewhere(hub, tmp_path, full):
    """Such cards do not pass the schema; the store does not rely on it."""
    source = random.Random(8)
    names = [*ODD_NAMES, "../x", "..", "a/../../x", "C:\\x", "~root/x", "a b", "ok.bin"]
    for n in range(300 if full else 60):
        path, repository = source.choice(names), source.choice([REPOSITORY, *names])
        hub.repositories.clear()
        hub.add(REPOSITORY, {path: b"content", "ok.bin": b"content"})
        card = hub_card({"x": b"content"}, repository=repository, revision=source.choice(["main", *names]) or "main")
        origin = dataclasses.replace(card.source, files=(CheckpointFile(path, 7),))
        card = dataclasses.replace(card, id=source.choice(["fake", *names]), source=origin)
        store = Store(tmp_path / "deep" / f"store{n}")
        before = files_outside(tmp_path, store)
        try:
            store.status(card)
            fetch(store, card, retries=ONCE)
            assert list(content_of(store, card).values()) == [b"content"]
        except CheckpointError as error:
            assert len(str(error)) < 6000
        assert {path for path in files_outside(tmp_path, store) if path not in before} <= {Path("deep")}
