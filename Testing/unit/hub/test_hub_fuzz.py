"""Records, pins, cards and answers of the Hub that make no sense: a clear error or a right result, and nothing written
outside the store."""

import dataclasses
import json
import random

from FoundationSegLib.core.cards import CheckpointFile
from FoundationSegLib.core.errors import CheckpointError
from FoundationSegLib.core.progress import Progress
from FoundationSegLib.hub.fetch import is_accepted, needs_download
from FoundationSegLib.hub.hugging_face import RetryPolicy
from FoundationSegLib.hub.plan import plan_download, plan_removal
from FoundationSegLib.hub.store import Store
from Testing.unit.hub.hub_cases import REPOSITORY, content_of, fetch, hub_card

FILES = {"weights/model.bin": bytes(range(250)) * 12, "config.json": b'{"layers": 2}'}
ODD = [None, True, 0, -1, 1 << 70, 1.5, float("nan"), "", "x", "../../evil", "/etc/evil", "con", "a\0b", [], {}, [[]]]
ODD += [
    "0" * 40,
    "0" * 64,
    {"size": 3},
    [1, 2],
    "a" * 5000,
    "é\ud800".encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
]
HASTY = RetryPolicy(attempts=1, first_wait_s=0.001, longest_wait_s=0.001, timeout_s=1.0)


def places(value, path=()):
    """Every place in a JSON document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def mutated(document, source):
    """A document with one to three of its values changed, removed or doubled."""
    copy = json.loads(json.dumps(document))
    for _ in range(source.randrange(1, 4)):
        path = source.choice(list(places(copy)))
        if not path:
            if source.random() < 0.05:
                return source.choice(ODD)
            continue
        holder = copy
        for key in path[:-1]:
            holder = holder[key]
        if source.random() < 0.3:
            del holder[path[-1]]
        else:
            holder[path[-1]] = source.choice(ODD)
    return copy


def as_bytes(document, source):
    raw = json.dumps(document).encode()
    if source.random() < 0.15:
        raw = raw[: source.randrange(len(raw) + 1)]
    if source.random() < 0.1:
        raw = bytes(byte ^ (source.random() < 0.01) for byte in raw)
    return raw


def outside(folder, store):
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if not path.is_relative_to(store.folder)
    }


def a_store(hub, folder, card):
    store = Store(folder)
    fetch(store, card)
    return store


def test_answers_of_the_hub(hub, tmp_path, full):
    source, right = random.Random(5), 0
    hub.add(REPOSITORY, FILES)
    (tmp_path / "mine.txt").write_text("untouched")
    import urllib.request

    with urllib.request.urlopen(f"{hub.endpoint}/api/models/{REPOSITORY}/revision/main?blobs=true") as answer:
        good = json.load(answer)
    for n in range(400 if full else 60):
        card, store = hub_card(FILES, sizes=source.random() < 0.5), Store(tmp_path / f"store{n}")
        before = outside(tmp_path, store)
        hub.raw_answer = as_bytes(mutated(good, source), source)
        plan_download(store, card, Progress(), HASTY)
        try:
            fetch(store, card, policy=HASTY)
            assert content_of(store, card) == FILES
            right += 1
        except CheckpointError as error:
            assert len(str(error)) < 400
            assert store.status(card) in ("absent", "partial")
        after = outside(tmp_path, store)
        assert before == after
    assert right > 0


def test_records_and_pins(hub, tmp_path, full):
    source = random.Random(6)
    hub.add(REPOSITORY, FILES)
    hub.add("other/model", FILES)
    card = hub_card(FILES)
    store = a_store(hub, tmp_path / "store", card)
    record, pins = store.model_folder(card) / "complete.json", store.all_of(card) / "pins.json"
    good = {path: path.read_bytes() for path in (record, pins)}
    (store.folder / "licenses.json").write_text("{}")
    for _ in range(300 if full else 60):
        for path, content in good.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        broken = source.choice(list(good))
        broken.write_bytes(as_bytes(mutated(json.loads(good[broken]), source), source))
        before = outside(tmp_path, store)
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
            assert "not what the Hub had" in str(error) or "shows no" in str(error) or "no revision" in str(error)
        assert outside(tmp_path, store) == before


def test_cards_that_lead_elsewhere(hub, tmp_path, full):
    """Such cards do not pass the schema; the store does not rely on it."""
    source = random.Random(8)
    names = [odd for odd in ODD if isinstance(odd, str)] + [
        "../x",
        "..",
        "a/../../x",
        "C:\\x",
        "~root/x",
        "a b",
        "ok.bin",
    ]
    for n in range(300 if full else 60):
        path, repository = source.choice(names), source.choice([REPOSITORY, *names])
        hub.repositories.clear()
        hub.add(REPOSITORY, {path: b"content", "ok.bin": b"content"})
        card = hub_card({"x": b"content"}, repository=repository, revision=source.choice(["main", *names]) or "main")
        files = (CheckpointFile(path, 7),)
        card = dataclasses.replace(
            card, id=source.choice(["fake", *names]), source=dataclasses.replace(card.source, files=files)
        )
        store = Store(tmp_path / "deep" / f"store{n}")
        before = outside(tmp_path, store)
        try:
            store.status(card)
            fetch(store, card, policy=HASTY)
            assert list(content_of(store, card).values()) == [b"content"]
        except CheckpointError as error:
            assert len(str(error)) < 6000
        assert {path for path in outside(tmp_path, store) if path not in before} <= {
            (tmp_path / "deep").relative_to(tmp_path)
        }
