import os
import time
from dataclasses import replace

import numpy as np
import pytest

from FoundationSegLib.catalog.label_sets import label_set_of
from FoundationSegLib.errors import (
    Cancelled,
    DeviceLostError,
    InferenceError,
    InputError,
    PromptError,
    VolumeMissingError,
)
from FoundationSegLib.imaging.geometry import geometry_from_spacing
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.requests.classification import ClassifyRequest
from FoundationSegLib.requests.maintenance import DownloadRequest, MemoryBudget, WorkerSettings
from FoundationSegLib.worker.client import ask
from FoundationSegLib.worker.protocol import Answered, Failed, PartlyAnswered, Progressed
from Testing.unit.worker.conftest import events_until, has_ended, scripted, until
from Testing.unit.worker.fake_worker import positive_mask


@pytest.fixture
def client(running_client):
    """Tests that need one without a worker call `make_client`."""
    return running_client


def test_nothing_is_started_before_it_is_needed(make_client):
    client = make_client()
    assert client.worker_pid is None
    assert not client.is_busy
    assert client.poll() == ()
    client.wait(0)
    client.cancel(1)
    client.remove_volume("12")
    client.stop()
    assert client.worker_pid is None


def test_an_answer_is_the_one_of_the_engine(client, sent):
    reports = []
    prediction = ask(client, scripted(sent, "steps=3 pause=0", 7), reports.append)
    assert np.array_equal(prediction.segments[0].mask.expand(sent.geometry.shape_kji), positive_mask(sent))
    assert (prediction.request_id, prediction.segments[0].score, prediction.notes) == (7, 0.5, ("a note",))
    assert [(report.stage, report.total) for report in reports][:1] == [("slices", 3)]
    assert prediction.counts["pid"] == client.worker_pid != os.getpid()
    assert not client.is_busy


def test_a_volume_is_sent_once(client, sent):
    ask(client, scripted(sent))
    client.send_volume(sent)
    assert not client._link.is_sending
    again = Volume(sent.array_kji.copy(), sent.geometry)
    client.send_volume(again)
    assert not client._link.is_sending, "the key tells them apart, not the object"
    with pytest.raises(InputError, match="constant"):
        client.send_volume(Volume(np.zeros((2, 2, 2)), geometry_from_spacing((2, 2, 2))))


def test_a_request_leaves_at_once_though_nobody_polls_for_a_while(client, sent):
    """Slicer draws its views after a click."""
    worker = ask(client, scripted(sent)).counts["pid"]
    client.submit(scripted(sent, "die=3", 2))
    until(lambda: has_ended(worker))


def test_a_volume_that_was_not_sent_is_missing(client, volume):
    with pytest.raises(VolumeMissingError):
        ask(client, scripted(volume))
    client.send_volume(volume)
    ask(client, scripted(volume))
    client.remove_volume(volume.key)
    with pytest.raises(VolumeMissingError):
        ask(client, scripted(volume))


def test_a_volume_that_had_to_make_room_is_sent_again(make_client, volume):
    other = Volume(volume.array_kji + 1, volume.geometry)
    client = make_client(WorkerSettings(budget=MemoryBudget(volumes=1)))
    client.send_volume(volume)
    client.send_volume(other)
    for image in (volume, other, volume):
        prediction = ask(client, scripted(image))
        assert prediction.counts["volumes"] == 1
        assert np.array_equal(prediction.segments[0].mask.expand((4, 6, 8)), positive_mask(image))


def test_voxels_that_change_on_their_way_are_found_out(make_client):
    client = make_client()  # its worker only starts, so that the voxels wait
    voxels = np.random.default_rng(3).integers(-9, 9, (4, 6, 8), dtype=np.int16)
    torn = Volume(voxels, geometry_from_spacing(voxels.shape))
    client.send_volume(torn)
    voxels[0, 0, 0] += 1
    with pytest.raises(InferenceError, match="changed on its way"):
        ask(client, scripted(torn))


def test_after_a_lost_device_another_worker_answers(client, sent):
    first = ask(client, scripted(sent)).counts["pid"]
    with pytest.raises(DeviceLostError, match="gone"):
        ask(client, scripted(sent, "lose=gone"))
    second = ask(client, scripted(sent))
    assert second.counts["pid"] != first
    assert second.segments[0].mask.voxels == int((sent.array_kji > 0).sum())


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("fail=out-of-memory", InferenceError, "^out-of-memory"),
        ("refuse=nowhere", PromptError, r"^segments\[0\]\.prompts\[0\]: nowhere"),
        ("stumble=what", InferenceError, "not foreseen.*ZeroDivisionError: what"),
        ("unheard-of", InferenceError, "AttributeError"),
    ],
)
def test_a_failure_comes_through_and_spoils_nothing(client, sent, script, kind, message):
    with pytest.raises(kind, match=message) as caught:
        ask(client, scripted(sent, script))
    assert "Traceback" in caught.value.__notes__[0], "for developers"
    pid = client.worker_pid
    assert ask(client, scripted(sent)).counts["pid"] == pid
    if kind is PromptError:
        assert caught.value.location == "segments[0].prompts[0]"


def test_cancel_is_acknowledged_at_once_and_the_worker_lives(client, sent, bar):
    client.submit(scripted(sent, "steps=1000", 5))
    events_until(client, Progressed)
    pid, start = client.worker_pid, time.perf_counter()
    client.cancel(6)
    assert client._work is not None, "another number is left alone"
    client.cancel(5)
    (event,) = (event for event in client.poll() if isinstance(event, Failed))
    acknowledged = time.perf_counter() - start
    assert isinstance(event.error, Cancelled)
    assert ask(client, scripted(sent)).counts["pid"] == pid
    bar("cancel acknowledged, ms", acknowledged * 1000, "<= 200")
    bar("worker usable after a cancel, s", time.perf_counter() - start, "<= 3")
    assert client._ending is None


def test_parts_of_an_answer_arrive_and_it_can_end_early(client, sent):
    client.submit(scripted(sent, "parts=100000", 5))
    part = next(event for event in events_until(client, PartlyAnswered) if isinstance(event, PartlyAnswered))
    assert part.request_id == 5 and [mask.voxels for mask in part.part.masks] == [4]
    client.finish(6)
    client.finish(5)
    answer = events_until(client, Answered)[-1]
    assert answer.request_id == 5 and answer.answer.segments
    assert ask(client, scripted(sent, "parts=2")).counts["pid"] == client.worker_pid


def test_a_cancel_leaves_a_worker_alone_that_is_only_starting(make_client, volume):
    client = make_client(cancel_s=0.02)
    client.send_volume(volume)
    pid = client.worker_pid
    client.submit(scripted(volume))
    client.cancel(1)
    until(lambda: (client.poll() and False) or not client.is_busy)
    assert client.worker_pid == pid


def test_the_newest_request_does_not_wait_for_ever_for_a_deaf_one(make_client, volume):
    client = make_client(supersede_s=0.2)
    client.send_volume(volume)
    client.submit(scripted(volume, "steps=1 hang=600", 1))
    events_until(client, Progressed)
    pid = client.worker_pid
    assert ask(client, scripted(volume, "answer", 2)).counts["pid"] != pid


def test_more_files_may_be_open_than_select_knows(make_client, volume):
    client = make_client()
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, limits[1]))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        client.send_volume(volume)
        assert ask(client, scripted(volume)).segments[0].score == 0.5
    finally:
        for number in opened:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_stop_ends_the_process_and_the_next_request_starts_another(client, sent):
    pid = ask(client, scripted(sent)).counts["pid"]
    client.submit(scripted(sent, "steps=1000", 5))
    client.stop()
    assert has_ended(pid)
    (event,) = client.poll()
    assert isinstance(event.error, Cancelled)
    assert not client.is_busy
    assert ask(client, scripted(sent)).counts["pid"] != pid, "the image is still known"


def test_a_worker_gets_the_environment_that_it_is_given(make_client, volume, monkeypatch, tmp_path):
    """Another Python than Slicer's must not find what Slicer's launcher has set: here, a home that has no Python."""
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    client = make_client()
    client.inherited = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
    client.send_volume(volume)
    assert ask(client, scripted(volume)).segments


def test_a_request_to_classify_and_one_to_download_are_requests_like_others(make_client):
    client = make_client()
    voxels = np.arange(240, dtype=np.int16).reshape(5, 6, 8)
    image = Volume(voxels, geometry_from_spacing(voxels.shape), "CT", (np.float32(400), np.float32(40)))
    labels = replace(label_set_of(["Liver", "Spleen", "Kidney"]), title="steps=3 pause=0")
    with pytest.raises(VolumeMissingError):
        ask(client, ClassifyRequest(7, "fake", image.key, labels))
    client.send_volume(image)
    reports = []
    classification = ask(client, ClassifyRequest(np.int64(7), "fake", image.key, labels), reports.append)
    assert [score.name for score in classification.ranked] == ["Spleen", "Liver", "Kidney"]
    assert classification.counts == {"pid": client.worker_pid, "labels": 3}
    assert classification.evidence[0].values.shape == (2, 4, 4) and classification.curves.shape == (3, 3)
    assert ask(client, DownloadRequest(7, "steps=3 pause=0"), reports.append) is None
    assert [report.stage for report in reports if report.done == 0] == ["slices", "slices"]
    with pytest.raises(InferenceError, match=r"the download failed .* not foreseen.*ZeroDivisionError"):
        ask(client, DownloadRequest(7, "stumble=what"))
    assert ask(client, scripted(image)).precision == "", "what is downloaded is not prepared for it"
    client.prepare("fake")
    assert ask(client, scripted(image)).precision == "fake"


def test_the_newest_request_wins(client, sent):
    client.submit(DownloadRequest(1, "steps=1000"))
    events_until(client, Progressed)
    labels = replace(label_set_of(["a", "b"]), title="steps=1000")
    for request in (
        scripted(sent, "steps=1000", 2),
        ClassifyRequest(3, "fake", sent.key, labels),
        scripted(sent, "steps=1000", 4),  # the same number may come again
        scripted(sent, "steps=2", 4),
    ):
        client.submit(request)
    events = events_until(client, Answered)
    failed = [event for event in events if isinstance(event, Failed)]
    assert [event.request_id for event in failed] == [1, 2, 3, 4]
    assert all(isinstance(event.error, Cancelled) for event in failed)
    assert events[-1].request_id == 4 and events[-1].answer.segments
    assert not {event.request_id for event in events if isinstance(event, Progressed)} - {1, 4}


def test_asking_again_after_an_interrupt(client, sent):

    def interrupt(report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(client, scripted(sent, "steps=1000"), interrupt)
    assert ask(client, scripted(sent)).segments[0].score == 0.5


@pytest.mark.parametrize("is_on", [True, False])
def test_encoding_ahead_is_dropped_the_moment_a_request_comes_and_can_be_turned_off(make_client, volume, is_on):
    client = make_client(WorkerSettings(encode_ahead=is_on))
    client.send_volume(volume)
    assert ask(client, scripted(volume, "ahead=50")).counts["ahead"] == 50
    time.sleep(0.3)
    start = time.perf_counter()
    assert ask(client, scripted(volume)).counts["ahead"] == 50 - is_on
    assert time.perf_counter() - start < 0.9, "one piece of it takes a second"
