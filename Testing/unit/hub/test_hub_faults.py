"""Random faults, cancels, kills and restarts: each download ends ready and right, or told and resumable."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from FoundationSegLib.core.errors import Cancelled, CheckpointError
from FoundationSegLib.hub.hugging_face import ALLOW_VARIABLE
from FoundationSegLib.hub.store import Store
from Testing.unit.hub.hub_cases import CONFIG, QUICK, cancel_after, content_of, fetch, hub_card, partial_bytes, strays
from Testing.unit.hub.loopback_hub import Fault

ROOT = Path(__file__).resolve().parents[3]
BYTE_FAULTS = ["cut", "cut", "cut", "stall", "wrong_bytes", "short", "long", "overrun", "ignore_range", "wrong_range"]
BYTE_FAULTS += ["changed_etag", "gzip", "loop", "portal", *["status"] * 4]
CODES = [401, 403, 404, 408, 416, 429, 500, 502, 503]
IMPATIENT = type(QUICK)(attempts=3, first_wait_s=0.001, longest_wait_s=0.002, timeout_s=0.15)
CALM = dataclasses.replace(QUICK, timeout_s=10.0)  # however busy the machine is

# A process of its own that downloads, as a worker does; its Hub, store and cards come through the command line.
CHILD = """
import sys
from pathlib import Path
from FoundationSegLib.hub.hugging_face import ALLOW_VARIABLE
from FoundationSegLib.hub.store import Store
from Testing.unit.hub.hub_cases import content_of, fetch, hub_card
store, repository = Store(Path(sys.argv[1])), sys.argv[2]
files = {name: bytes(int(size)) for name, size in (item.split("=") for item in sys.argv[3:])}
card = hub_card(files, repository=repository)
from huggingface_hub import HfApi  # it takes its time, and nothing can be killed meanwhile
from huggingface_hub.utils import get_session
get_session()
print("started", flush=True)
fetch(store, card)
print(sum(map(len, content_of(store, card).values())), flush=True)
"""


def start_child(hub, store, repository, files, cache, **variables):
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    environment |= variables
    sizes = [f"{name}={len(content)}" for name, content in files.items()]
    command = (sys.executable, "-c", CHILD, str(store.folder), repository, *sizes)
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def random_fault(source):
    kind = source.choice(BYTE_FAULTS)
    retry_after = source.choice(["", "0", "1", "99999", "soon"])
    return Fault(kind, source.randrange(40_000), source.choice(CODES), retry_after)


def random_files(source):
    count = source.randrange(1, 4)
    return {f"part{n}/file{n}.bin": source.randbytes(source.choice([0, 1, 1999, 5000, 40_000])) for n in range(count)}


def test_random_faults_cancels_and_restarts(hub, tmp_path, full, bar, monkeypatch):
    """Small files; several attempts each, the last without a fault."""
    source, outcomes = random.Random(7), {"ready": 0, "told": 0, "cancelled": 0}
    for round_ in range(470 if full else 40):
        repository, store = f"org/model{round_}", Store(tmp_path / f"store{round_}")
        files = random_files(source)
        hub.add(repository, files)
        card = hub_card(files, repository=repository, hashes=source.random() < 0.5)
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
            require_right_or_unfinished(store, card, files)
        hub.faults.clear()
        hub.api_faults.clear()
        whole = sum(path.stat().st_size for path in finished(store, card))
        has_halves = partial_bytes(store, card) > 0  # one that is wrong, and found out at its end, is fetched anew
        # Requests of earlier attempts may still be on their way; the name tells them from those of this one.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_USER_AGENT_ORIGIN", f"last-{round_}-")
        fetch(store, card, policy=CALM)
        assert content_of(store, card) == files
        assert strays(store, card) == []
        sent = sum(count for agent, count in hub.sent_to.items() if f"last-{round_}-" in agent)
        assert sent <= (1 + has_halves) * (sum(map(len, files.values())) - whole)
    assert min(outcomes.values()) > 0
    bar("faulty downloads that ended neither right nor told", 0.0, "0")


def finished(store, card):
    return [path for file in card.source.files if (path := store.file_path(card, file)).is_file()]


def require_right_or_unfinished(store, card, files):
    """What is ready is right, and a file that has its place has its bytes."""
    if store.status(card) == "ready":
        assert content_of(store, card) == files
    for file in card.source.files:
        path = store.file_path(card, file)
        assert not path.exists() or path.read_bytes() == files[file.path]


def test_kills_at_random_moments(hub, tmp_path, full):
    """A process that is killed leaves half files that the next one goes on from, and no lock."""
    source = random.Random(11)
    files = {"weights.bin": bytes(3_000_000), "config.json": bytes(10)}
    hub.add("org/killed", files)
    card = hub_card(files, repository="org/killed")
    hub.slow_s = 0.005
    halves = 0
    for round_ in range(30 if full else 3):
        store = Store(tmp_path / f"store{round_}")
        child = start_child(hub, store, "org/killed", files, tmp_path / "cache")
        assert child.stdout.readline() == "started\n"
        time.sleep(source.uniform(0.05, 0.4))
        child.send_signal(signal.SIGKILL)
        assert child.communicate()[1] == ""
        require_right_or_unfinished(store, card, files)
        kept, was_ready = partial_bytes(store, card), store.status(card) == "ready"
        placed = sum(path.stat().st_size for path in finished(store, card))
        halves += 0 < kept < 3_000_000
        hub.start_count()
        begin = time.monotonic()
        fetch(store, card)
        assert time.monotonic() - begin < 5, "a dead process's lock holds nobody up"
        assert content_of(store, card) == files
        assert strays(store, card) == []
        assert hub.sent == (0 if was_ready else sum(map(len, files.values())) - kept - placed)
    assert halves


def test_two_processes_download_once(hub, tmp_path):
    files = {"weights.bin": bytes(2_000_000), "config.json": bytes(len(CONFIG))}
    hub.add("org/shared", files)
    hub.slow_s = 0.005
    store = Store(tmp_path / "store")
    children = [start_child(hub, store, "org/shared", files, tmp_path / "cache") for _ in range(2)]
    total = sum(map(len, files.values()))
    for child in children:
        out, err = child.communicate(timeout=30)
        assert (out, child.returncode) == (f"started\n{total}\n", 0), err
    assert hub.sent == total
    assert strays(store, hub_card(files, repository="org/shared")) == []


def test_a_worker_that_is_offline_may_still_be_told_to_download(hub, tmp_path):
    """The worker's environment has the offline mode on; whether the user wants it so, a variable of our own says."""
    files = {"weights.bin": bytes(5000)}
    hub.add("org/allowed", files)
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    for allowed, told in (("0", "offline mode is on"), ("1", "")):
        store = Store(tmp_path / "store")
        variables = {**offline, ALLOW_VARIABLE: allowed}
        child = start_child(hub, store, "org/allowed", files, tmp_path / "cache", **variables)
        err = child.communicate(timeout=30)[1]
        assert told in err
        assert (child.returncode == 0) == (told == ""), err
    assert store.status(hub_card(files, repository="org/allowed")) == "ready"
