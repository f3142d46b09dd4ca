"""Downloads in real workers with their own engine, against a Hub on loopback: cancelled, killed, refused, resumed."""

import os
import random
import signal
import sys
import threading
import time

import pytest

from FoundationSegLib.catalog.catalogue import CARDS_VARIABLE, read_catalogue
from FoundationSegLib.errors import Cancelled, CheckpointError, InferenceError
from FoundationSegLib.hub.store import Store
from FoundationSegLib.requests.maintenance import DownloadRequest, InspectRequest, WorkerSettings
from FoundationSegLib.worker.client import ask
from FoundationSegLib.worker.process import RetryPolicy
from FoundationSegLib.worker.protocol import Answered, Failed, Progressed
from Testing.unit.hub.hub_cases import REPOSITORY, card_text, content_of, partial_bytes, strays, tell_processes
from Testing.unit.hub.loopback_hub import Fault, run_hub
from Testing.unit.worker import hub_worker
from Testing.unit.worker.conftest import events_until, has_ended, until

FILES = {"weights/model.safetensors": random.Random(3).randbytes(3_000_000), "config.json": b'{"layers": 2}'}
TOTAL = sum(map(len, FILES.values()))
on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals between processes")


@pytest.fixture
def cards(tmp_path, monkeypatch):
    """The folder of the user's own cards, with one of the Hub in it."""
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "far.toml").write_text(card_text(files=FILES))
    monkeypatch.setenv(CARDS_VARIABLE, str(tmp_path / "cards"))
    return tmp_path / "cards"


@pytest.fixture
def hub(tmp_path, monkeypatch, cards):
    with run_hub() as hub:
        hub.add(REPOSITORY, FILES)
        tell_processes(monkeypatch, hub, tmp_path / "hf")
        yield hub


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def full_disk(tmp_path):
    return tmp_path / "full"


@pytest.fixture
def new_client(make_client, store, full_disk):
    settings = WorkerSettings(store_folder=store.folder)
    return lambda **fields: make_client(settings, hub_worker.command(full_disk), **fields)


@pytest.fixture
def client(new_client):
    return new_client()


def far(number=1, model="far", **fields):
    return DownloadRequest(number, model, **fields)


def card(name="far"):
    return read_catalogue()[name]


def begun(client, request=None):
    """Ask for a slow download, and wait until bytes have come."""
    client.submit(request or far())
    until(lambda: any(isinstance(e, Progressed) and e.report.item_done > 0 for e in client.poll()))


def byte_requests(hub):
    """The ranges in which the weights were asked of the storage; empty for all of them."""
    return [range_ for _, _, range_, _ in hub.asked("/lfs/")]


def require_resumed(client, hub, store, number=2):
    """Ask again: the download goes on from the bytes that are there."""
    kept = partial_bytes(store, card())
    assert 0 < kept < TOTAL
    hub.slow_s = 0
    ask(client, far(number))
    assert byte_requests(hub)[-1] == f"bytes={kept}-"
    assert content_of(store, card()) == FILES


def test_a_worker_downloads_and_tells_how_far_it_is(client, hub, store):
    hub.slow_s = 0.002
    reports = []
    assert ask(client, far(), reports.append) is None
    assert content_of(store, card()) == FILES
    assert strays(store, card()) == []
    downloads = [report for report in reports if report.stage == "download"]
    assert {report.total for report in downloads} == {TOTAL}
    assert downloads[-1].done == TOTAL
    items = [report for report in downloads if report.item == "model.safetensors"]
    assert {report.item_total for report in items} == {3_000_000}
    assert [report.item_done for report in items] == sorted(report.item_done for report in items)
    assert len(items) > 2
    hub.start_count()
    ask(client, far(2))
    assert hub.sent == 0, "one that is whole is left alone"
    assert not client.is_busy


def test_a_download_that_is_cancelled_is_kept_and_the_worker_goes_on(client, hub, store, bar):
    hub.slow_s = 0.01
    begun(client)
    pid, start = client.worker_pid, time.perf_counter()
    client.cancel(1)
    (failed,) = (event for event in client.poll() if isinstance(event, Failed))
    bar("cancel of a download acknowledged, ms", (time.perf_counter() - start) * 1000, "<= 200")
    assert isinstance(failed.error, Cancelled)
    until(lambda: (client.poll() and False) or not client.is_busy)
    bar("worker free after a download was cancelled, s", time.perf_counter() - start, "<= 3")
    require_resumed(client, hub, store)
    assert client.worker_pid == pid


def test_a_silent_hub_holds_up_no_cancel(client, hub):
    hub.api_faults.extend([Fault("stall")] * 3)
    client.submit(far())
    until(lambda: (client.poll() and False) or hub.asked("/api/"))
    client.cancel(1)
    hub.api_faults.clear()
    start = time.perf_counter()
    ask(client, far(2))
    assert time.perf_counter() - start < 20, "the Hub itself lets go only then"


@on_posix
def test_a_worker_that_is_killed_is_replaced_and_goes_on_from_there(client, hub, store):
    hub.slow_s = 0.01
    begun(client)
    pid = client.worker_pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: has_ended(pid))
    kept = partial_bytes(store, card())
    hub.slow_s = 0
    events = events_until(client, Answered)
    assert [event.report.stage for event in events if isinstance(event, Progressed)].count("restart") == 1
    assert client.worker_pid != pid
    assert kept > 0
    assert byte_requests(hub)[-1] == f"bytes={kept}-"
    assert content_of(store, card()) == FILES
    assert strays(store, card()) == []


@on_posix
def test_a_worker_that_is_killed_again_and_again_is_given_up_and_another_goes_on(new_client, hub, store):
    client = new_client(retries=RetryPolicy(kills=3))
    hub.slow_s = 0.05
    begun(client)
    for _ in range(2):
        pid = client.worker_pid
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: has_ended(pid))
        until(lambda: any(isinstance(e, Progressed) and e.report.item_done > 0 for e in client.poll()))
        assert client.worker_pid != pid
    os.kill(client.worker_pid, signal.SIGKILL)
    error = events_until(client, Failed)[-1].error
    assert isinstance(error, InferenceError)
    assert "the worker failed 3 times" in str(error)
    require_resumed(client, hub, store)


def test_a_full_disk_is_told_and_the_same_worker_goes_on_when_there_is_room(client, hub, store, full_disk):
    hub.slow_s = 0.01
    begun(client)
    full_disk.touch()
    error = events_until(client, Failed)[-1].error
    assert isinstance(error, CheckpointError)
    assert "cannot be stored: No space left on device; make room" in str(error)
    pid = client.worker_pid
    full_disk.unlink()
    require_resumed(client, hub, store)
    assert client.worker_pid == pid


def test_the_users_own_offline_mode_holds_in_the_worker(client, hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="offline mode is on"):
        ask(client, far())
    assert hub.requests == []


def test_a_second_download_takes_the_place_of_the_first_which_can_go_on(client, hub, store, cards):
    hub.add("org/other", FILES)
    (cards / "other.toml").write_text(card_text(files=FILES, name="other", repository="org/other"))
    hub.slow_s = 0.005
    begun(client)
    pid = client.worker_pid
    client.submit(far(2, "other"))
    events = events_until(client, Answered)
    (failed,) = (event for event in events if isinstance(event, Failed))
    assert (failed.request_id, type(failed.error), events[-1]) == (1, Cancelled, Answered(2))
    assert client.worker_pid == pid
    assert (store.status(card()), store.status(card("other"))) == ("partial", "ready")
    require_resumed(client, hub, store, 3)


def test_two_workers_download_the_same_model_once(new_client, hub, store):
    hub.slow_s = 0.5
    first, second = new_client(), new_client()
    ask(second, InspectRequest(9, ()))  # its process runs before the first download begins
    begun(first)
    second.submit(far())
    assert events_until(second, Progressed)[-1].report.stage == "wait"
    hub.slow_s = 0
    events_until(first, Answered)
    events_until(second, Answered)
    assert hub.sent == TOTAL
    assert content_of(store, card()) == FILES


@on_posix
def test_a_closed_client_leaves_half_a_file_and_no_process(client, hub, store):
    hub.slow_s = 0.01
    begun(client)
    pid = client.worker_pid
    client.close()
    assert has_ended(pid)
    require_resumed(client, hub, store)


@on_posix
def test_killed_and_cancelled_at_random_moments_it_ends_right(client, hub, store, full):
    chance = random.Random(4)
    hub.slow_s = 0.002
    for number in range(40 if full else 4):
        client.submit(far(number))
        timer = threading.Timer(chance.uniform(0, 0.4), os.kill, (client.worker_pid, signal.SIGKILL))
        if number % 2:
            timer.start()
        else:
            time.sleep(chance.uniform(0, 0.3))
            client.cancel(number)
        until(lambda: (client.poll() and False) or not client.is_busy)
        timer.cancel()
        assert store.status(card()) in ("absent", "partial", "ready")
        if store.status(card()) == "ready":
            assert content_of(store, card()) == FILES
            (store.folder / "models" / "far").rename(store.folder / f"done{number}")
    ask(client, far(99))
    assert content_of(store, card()) == FILES
