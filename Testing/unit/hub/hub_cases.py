"""Cards, stores and patience for downloads from the Hub on loopback."""

import dataclasses
import hashlib
import random
import threading
import time

from FoundationSegLib.catalog.model_cards import CheckpointFile
from FoundationSegLib.hub.download import fetch_files
from FoundationSegLib.hub.hugging_face import ALLOW_VARIABLE, Retries
from FoundationSegLib.progress import CancelToken, Progress
from Testing.unit.fakes import CARD_TOML, fake_card

REPOSITORY = "org/model"
WEIGHTS = random.Random(1).randbytes(300_000)
CONFIG = b'{"layers": 2}'
FILES = {"weights/model.safetensors": WEIGHTS, "config.json": CONFIG}
QUICK = Retries(attempts=4, first_wait_s=0.01, longest_wait_s=0.05, timeout_s=0.5)


def hub_card(files=FILES, *, hashes=False, sizes=True, repository=REPOSITORY, revision="main", **changes):
    """A card of files on the Hub, which knows their hashes or not."""
    listed = tuple(
        CheckpointFile(path, len(content) if sizes else None, hashlib.sha256(content).hexdigest() if hashes else "")
        for path, content in files.items()
    )
    card = fake_card(**changes)
    source = dataclasses.replace(card.source, kind="hub", repository=repository, revision=revision, files=listed)
    return dataclasses.replace(card, source=source)


def release_card(hub, files=FILES, *, repository=REPOSITORY, by=""):
    """A card of files of a release, which the server redirects to its storage unless ``by`` is another address."""
    card = hub_card(files, hashes=True, revision="v1")
    listed = [
        dataclasses.replace(file, url=f"{by or f'{hub.endpoint}/{repository}/resolve/main'}/{file.path}")
        for file in card.source.files
    ]
    return dataclasses.replace(card, source=dataclasses.replace(card.source, kind="release", files=tuple(listed)))


def card_text(*replacements, files=FILES, name="far", repository=REPOSITORY):
    """Such a card as a file, some of its words replaced."""
    listed = ", ".join(f'{{path = "{path}", bytes = {len(content)}}}' for path, content in files.items())
    head, tail = CARD_TOML.split("[source]")
    source = f'kind = "hub"\nrepository = "{repository}"\nrevision = "main"\nfiles = [{listed}]\n\n'
    text = f"{head}[source]\n{source}{tail[tail.index('[license]') :]}".replace('id = "fake"', f'id = "{name}"')
    for old, new in replacements:
        text = text.replace(old, new)
    return text


def tell_processes(monkeypatch, hub, cache):
    """Have processes that are started from now on talk to a Hub, with the user's login and cache out of their reach."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", ALLOW_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(cache), "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)


def fetch(store, card, progress=None, retries=QUICK):
    """What download_checkpoint does for a card of the Hub, with the patience of a test."""
    progress = progress or Progress()
    with store.lock(card, progress):
        if store.status(card) != "ready":
            fetch_files(store, card, progress, retries)


def cancel_after(count):
    """A progress that is cancelled once so many bytes have been reported."""
    token = CancelToken()
    return Progress(lambda report: token.cancel() if report.done >= count else None, token)


def cancel_in(seconds):
    """A progress that another thread cancels."""
    token = CancelToken()
    timer = threading.Timer(seconds, token.cancel)
    timer.daemon = True
    timer.start()
    return Progress(token=token)


def cancel_when(condition):
    """A progress that another thread cancels once a condition holds, and a list with the moment of that."""
    token, moments = CancelToken(), []

    def watch():
        while not condition():
            time.sleep(0.005)
        moments.append(time.monotonic())
        token.cancel()

    threading.Thread(target=watch, daemon=True).start()
    return Progress(token=token), moments


def content_of(store, card):
    """The bytes of a ready checkpoint."""
    return {path: file.read_bytes() for path, file in store.checkpoint_files(card).items()}


def partial_bytes(store, card):
    """The bytes of every half file."""
    return sum(path.stat().st_size for path in store.model_folder(card).glob("incoming/*.partial"))


def require_whole(store, card, files=FILES):
    """A checkpoint that has these bytes, and nothing beside it in the store."""
    assert content_of(store, card) == files
    assert strays(store, card) == []


def strays(store, card):
    """What a finished download should not have left."""
    expected = {store.file_path(card, file) for file in card.source.files}
    expected |= {store.model_folder(card) / "complete.json", store.all_of(card) / "pins.json"}
    expected |= {store.folder / "licenses.json"}
    return sorted(str(path) for path in store.folder.rglob("*") if path.is_file() and path not in expected)
