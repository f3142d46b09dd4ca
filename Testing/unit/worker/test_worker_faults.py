"""Workers that die, hang, cannot start or talk nonsense: the client goes on, or says what is wrong."""

import json
import os
import shlex
import signal
import sys
import tempfile
import time

import numpy as np
import pytest

from FoundationSegLib.catalog.label_sets import label_set_of
from FoundationSegLib.errors import Cancelled, InferenceError, VolumeMissingError
from FoundationSegLib.imaging.geometry import geometry_from_spacing
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.requests.classification import ClassifyRequest, Subject
from FoundationSegLib.requests.maintenance import DownloadRequest
from FoundationSegLib.requests.segmentation import CheckpointRecord, Prediction, SegmentPrediction
from FoundationSegLib.worker.client import ask
from FoundationSegLib.worker.process import RetryPolicy
from FoundationSegLib.worker.protocol import Answered, Failed, Message, Progressed, message
from Testing.unit.requests.classification_cases import answer
from Testing.unit.worker.conftest import events_until, has_ended, scripted, until
from Testing.unit.worker.fake_worker import COMMAND, positive_mask

NAMES = ("Liver", "Spleen", "Kidney")
ONCE = RetryPolicy(hangs=1)
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
has_sigstop = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGSTOP")


@pytest.fixture
def client(running_client):
    """Tests that need one without a worker call `make_client`."""
    return running_client


def test_a_worker_that_is_deaf_to_cancel_is_replaced(make_client, volume, bar):
    client = make_client(cancel_s=0.3)
    client.send_volume(volume)
    client.submit(scripted(volume, "steps=1 hang=600", 5))
    events_until(client, Progressed)
    pid, start = client.worker_pid, time.perf_counter()
    client.cancel(5)
    assert isinstance(client.poll()[-1].error, Cancelled)
    while client.is_busy:
        assert client.poll() == ()
        client.wait(0.02)
    assert client.worker_pid not in (None, pid), "it is there before it is needed"
    prediction = ask(client, scripted(volume))
    bar("worker usable after a cancel it was deaf to, s", time.perf_counter() - start, "<= 3")
    assert prediction.counts["pid"] == client.worker_pid
    assert prediction.precision == "fake", "the model was loaded meanwhile"
    assert has_ended(pid)


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(client, sent, tmp_path):
    client.submit(scripted(sent, f"die_once={tmp_path / 'died'} steps=2", 5))
    events = events_until(client, Answered)
    assert [event.report.stage for event in events[:-1]].count("restart") == 1
    assert np.array_equal(events[-1].answer.segments[0].mask.expand((4, 6, 8)), positive_mask(sent))


def test_a_download_that_is_deaf_to_cancel_is_ended_with_its_worker(make_client):
    client = make_client(cancel_s=0.3)
    client.submit(DownloadRequest(5, "steps=1 hang=600"))
    events_until(client, Progressed)
    pid = client.worker_pid
    client.cancel(5)
    (failed,) = client.poll()
    assert (failed.request_id, str(failed.error)) == (5, "the download was stopped on request")
    until(lambda: (client.poll() and False) or not client.is_busy)
    assert has_ended(pid)
    assert ask(client, DownloadRequest(5, "answer")) is None


def test_a_worker_that_dies_while_idle_is_replaced(client, sent):
    pid = ask(client, scripted(sent)).counts["pid"]
    os.kill(pid, KILL)
    assert ask(client, scripted(sent)).counts["pid"] != pid
    os.kill(client.worker_pid, KILL)
    until(lambda: not client.poll() and client.worker_pid is None)
    assert not client.is_busy
    assert ask(client, scripted(sent)).counts["pid"] == client.worker_pid


def test_a_worker_that_dies_at_the_same_step_again_and_again_is_given_up(client, sent):
    with pytest.raises(
        InferenceError, match=r"5 times at the same step \(the worker has ended with code 3\).*memory"
    ) as caught:
        ask(client, scripted(sent, "steps=3 pause=0.04 steps=2 die=3"))
    assert "last words" in caught.value.__notes__[0]
    assert np.any(ask(client, scripted(sent)).segments[0].mask.unpack()), "the next request is a new one"


@pytest.mark.usefixtures("only_in_the_full_run")
def test_a_crash_at_one_step_ends_though_the_reports_differ(client, sent):
    client.submit(scripted(sent, "jitter=20 die=3"))
    restarts = [event for event in events_until(client, Failed) if isinstance(event, Progressed)]
    assert len([event for event in restarts if event.report.stage == "restart"]) < client.retries.kills


@pytest.mark.skipif(sys.platform == "win32", reason="there is no sh")
def test_a_launcher_passes_the_exit_code_on(make_client, volume):
    """PythonSlicer may be one: the worker is its child."""
    client = make_client(command=("/bin/sh", "-c", f"{shlex.join(COMMAND)}; exit $?"))
    client.send_volume(volume)
    with pytest.raises(InferenceError, match=r"5 times.*code 3"):
        ask(client, scripted(volume, "die=3"))


def test_an_image_that_was_removed_is_missing_after_a_crash(client, sent):
    client.submit(scripted(sent, "steps=1000"))
    events_until(client, Progressed)
    client.remove_volume(sent.key)
    os.kill(client.worker_pid, KILL)
    assert isinstance(events_until(client, Failed)[-1].error, VolumeMissingError)


def test_an_image_may_be_removed_while_its_answer_is_on_its_way(client, sent):
    client.submit(scripted(sent, "steps=3"))
    client.remove_volume(sent.key)
    assert isinstance(events_until(client, Answered)[-1], Answered)


def test_a_worker_that_cannot_be_replaced_fails_the_request(client, sent, monkeypatch):
    """There is no room for its log, or no more files may be opened."""
    client.submit(scripted(sent, "steps=1000"))
    events_until(client, Progressed)
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    os.kill(client.worker_pid, KILL)
    assert "cannot be started" in str(events_until(client, Failed)[-1].error)
    assert not client.is_busy


@has_sigstop
def test_a_frozen_worker_that_is_sent_an_image_is_found_out(make_client, volume):
    client = make_client(silence_s=0.3)
    client.send_volume(volume)
    pid = ask(client, scripted(volume)).counts["pid"]
    os.kill(pid, signal.SIGSTOP)
    voxels = np.random.default_rng(0).integers(0, 99, (40, 512, 512), dtype=np.int16)
    client.send_volume(Volume(voxels, geometry_from_spacing(voxels.shape)))
    until(lambda: (client.poll() and False) or client.worker_pid != pid)
    assert not client.is_busy


def test_a_log_does_not_grow_without_bound(client, sent):
    ask(client, scripted(sent, "spam=20000000"))
    ask(client, scripted(sent))
    ask(client, scripted(sent, "spam=1000"))
    assert os.fstat(client._link._log.fileno()).st_size < 10**7


def test_a_python_that_cannot_start_is_named(make_client, volume):
    client = make_client(command=("no-such-python",))
    client.send_volume(volume)
    with pytest.raises(InferenceError, match="cannot be started: No such file"):
        ask(client, scripted(volume))
    client.prepare("fake")
    assert not client.is_busy


def test_a_program_that_is_no_worker_is_given_up(make_client, volume):
    client = make_client(command=(sys.executable, "-c", "raise SystemExit('no module named numpy')"))
    client.send_volume(volume)
    with pytest.raises(InferenceError, match=r"5 times before its first step.*code 1") as caught:
        ask(client, scripted(volume))
    assert "no module named numpy" in caught.value.__notes__[0]


def test_a_worker_that_never_calls_back_is_given_up(make_client, volume):
    client = make_client(command=(sys.executable, "-c", "import time; time.sleep(60)"), retries=ONCE, start_s=0.2)
    client.send_volume(volume)
    with pytest.raises(InferenceError, match="did not start within"):
        ask(client, scripted(volume))


@pytest.mark.parametrize(
    ("timeouts", "script", "message"),
    [
        pytest.param({"silence_s": 0.3}, "freeze", "no sign of life", marks=has_sigstop, id="frozen"),
        pytest.param({"stall_s": 0.3}, "hang=600", "no progress", id="without progress"),
    ],
)
def test_a_worker_that_hangs_is_given_up(make_client, volume, timeouts, script, message):
    client = make_client(retries=ONCE, **timeouts)
    client.send_volume(volume)
    with pytest.raises(InferenceError, match=message):
        ask(client, scripted(volume, script))


def test_a_long_answer_with_signs_of_life_is_waited_for(make_client, volume):
    client = make_client(silence_s=3)
    client.send_volume(volume)
    assert ask(client, scripted(volume, "hang=4")).segments[0].score == 0.5


# A worker that knows the secret, and answers its first request with these messages.
_TALKER = """
import json, socket, sys, time
from FoundationSegLib.worker.protocol import Message
from FoundationSegLib.worker.server import Channel
first_words = json.load(sys.stdin)
channel = Channel(socket.create_connection(("127.0.0.1", first_words["port"])))
channel.send(Message({"type": "hello", "secret": first_words["secret"]}))
while (frame := channel.receive()).header["type"] != "request":
    pass
for header, payload in json.loads(sys.argv[1]):
    channel.send(Message({"ticket": frame.header["ticket"], **header}, (bytes.fromhex(payload),)))
time.sleep(60)
"""


def talker(*frames: Message) -> tuple[str, ...]:
    said = [(frame.header, bytes(frame.payload).hex()) for frame in frames]
    return sys.executable, "-c", _TALKER, json.dumps(said)


def prediction(*starts):
    masks = (pack_mask(np.ones((1, 2, 2), np.bool_), start) for start in starts)
    segments = tuple(SegmentPrediction(mask, None) for mask in masks)
    return Prediction(1, segments, {}, CheckpointRecord("fake", "fake-wheel", "1.0", "ab"), "cpu", "float32")


@pytest.mark.parametrize(
    "frame",
    [
        Message({"type": "answer"}),
        Message({}),
        Message({"type": "progress", "stage": "s"}),
        message("novel"),
        message("answer"),
        message("answer", prediction((1, 1, 7))),
        message("answer", prediction((1, 1, 1), (1, 1, 1))),
        message("answer", prediction()),
        message("answer", answer()),
    ],
)
def test_a_worker_that_talks_nonsense_is_given_up(make_client, volume, frame):
    client = make_client(command=talker(frame), retries=ONCE)
    client.send_volume(volume)
    with pytest.raises(InferenceError, match="cannot be understood"):
        ask(client, scripted(volume))


@pytest.mark.parametrize(
    ("names", "axis", "depth"), [(("Liver", "Spleen"), "k", 5), (NAMES, "j", 5), (NAMES, "k", 4), (NAMES, "k", 5)]
)
def test_a_classification_has_to_be_one_to_the_question(make_client, names, axis, depth):
    """The answer is about three labels, and about slices 2 to 4."""
    voxels = np.arange(depth * 48, dtype=np.int16).reshape(depth, 6, 8)
    image = Volume(voxels, geometry_from_spacing(voxels.shape))
    client = make_client(command=talker(message("answer", answer())), retries=ONCE)
    client.send_volume(image)
    request = ClassifyRequest(7, "biomedclip", image.key, label_set_of(names), Subject(axis))
    if (names, axis, depth) == (NAMES, "k", 5):
        assert ask(client, request).scores == answer().scores
    else:
        with pytest.raises(InferenceError, match="cannot be understood"):
            ask(client, request)
