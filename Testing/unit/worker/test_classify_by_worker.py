"""Requests to classify through the client and real worker processes, with a scripted engine."""

import os
import time
from dataclasses import replace

import pytest

from FoundationSegLib.catalog.label_sets import label_set_of
from FoundationSegLib.errors import Cancelled, InferenceError, VolumeMissingError
from FoundationSegLib.requests.classification import ClassifyRequest
from FoundationSegLib.worker.client import InlineClient, ask
from FoundationSegLib.worker.protocol import Answered, Failed, Progressed
from Testing.unit.worker.conftest import events_until, scripted
from Testing.unit.worker.fake_worker import ScriptedEngine

LABELS = label_set_of(["Liver", "Spleen", "Kidney"])


def asked(volume, script="answer", number=1, labels=LABELS):
    return ClassifyRequest(number, "fake", volume.key, replace(labels, title=script))


def tall(volume):
    """The scripted answer tells of slices 2 to 4."""
    return replace(
        volume, array_kji=volume.array_kji.repeat(2, axis=0), geometry=replace(volume.geometry, shape_kji=(8, 6, 8))
    )


@pytest.fixture
def image(volume):
    return tall(volume)


def test_an_answer_comes_back_whole_and_with_progress(client, image):
    client.send_volume(image)
    reports = []
    found = ask(client, asked(image, "steps=3 pause=0", 7), reports.append)
    assert found.request_id == 7 and [one.name for one in found.ranked] == ["Spleen", "Liver", "Kidney"]
    assert found.counts == {"pid": client.worker_pid, "labels": 3} and client.worker_pid != os.getpid()
    assert found.evidence[0].values.shape == (2, 4, 4) and found.curves.shape == (3, 3)
    assert reports and not client.is_busy


def test_a_newer_request_takes_the_place_of_an_older_one(client, image):
    client.send_volume(image)
    client.submit(asked(image, "steps=1000 pause=0.01", 1))
    events_until(client, Progressed)
    client.submit(scripted(image, "answer", 2))
    events = events_until(client, Answered)
    (failed,) = (event for event in events if isinstance(event, Failed))
    assert failed.request_id == 1 and isinstance(failed.error, Cancelled)
    client.submit(asked(image, "answer", 3))
    assert events_until(client, Answered)[-1].request_id == 3


def test_cancel_ends_it_at_once(client, image):
    client.send_volume(image)
    client.submit(asked(image, "steps=1000 pause=0.01"))
    events_until(client, Progressed)
    begin = time.monotonic()
    client.cancel(1)
    failed = events_until(client, Failed)[-1]
    assert isinstance(failed.error, Cancelled) and time.monotonic() - begin < 1


def test_a_worker_that_dies_is_asked_again(client, image, tmp_path):
    client.send_volume(image)
    found = ask(client, asked(image, f"die_once={tmp_path / 'died'}"))
    assert found.counts["labels"] == 3


def test_an_answer_about_other_labels_is_none(client, image):
    client.send_volume(image)
    with pytest.raises(InferenceError, match="cannot be understood"):
        ask(client, asked(image, labels=label_set_of(["Liver", "Spleen"])))


def test_images_that_were_not_sent_are_told(client, image):
    with pytest.raises(VolumeMissingError):
        ask(client, asked(image))


def test_in_line_it_is_the_same(image):
    client = InlineClient(ScriptedEngine())
    client.send_volume(image)
    found = ask(client, asked(image, "steps=2 pause=0", 5))
    assert found.request_id == 5 and found.counts["pid"] == os.getpid()
    with pytest.raises(InferenceError, match="broken"):
        ask(client, asked(image, "fail=broken"))
