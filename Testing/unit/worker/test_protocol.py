"""The table of tasks, and what crosses between a client and its process."""

import socket
from dataclasses import fields
from pathlib import Path

import pytest

from FoundationSegLib import errors
from FoundationSegLib.errors import FoundationSegError, InferenceError, InputError, PromptError
from FoundationSegLib.progress import ProgressReport
from FoundationSegLib.requests.maintenance import DownloadRequest, ImportRequest, InspectRequest, RemoveRequest
from FoundationSegLib.requests.segmentation import Propagation
from FoundationSegLib.worker.protocol import (
    TASKS,
    Failure,
    Message,
    message,
    request_message,
    task_of,
    value_of,
    volume_message,
)
from FoundationSegLib.worker.server import FUNCTIONS, Channel, Inbox
from Testing.unit.worker.conftest import scripted

OURS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FoundationSegError)]


def test_each_task_has_a_function_a_request_with_a_number_and_a_name_of_its_own():
    assert FUNCTIONS.keys() == TASKS.keys()
    requests = [task().request for task in TASKS.values()]
    assert len(set(requests)) == len(requests)
    assert all(fields(request)[0].name == "request_id" for request in requests)


@pytest.mark.parametrize(
    "request_",
    [
        InspectRequest(1, ("a",)),
        ImportRequest(2, "m", Path("x")),
        RemoveRequest(3, ("a", "b")),
        DownloadRequest(4, "m"),
    ],
    ids=lambda request: type(request).__name__,
)
def test_a_request_names_its_task(request_):
    name, task = task_of(request_)
    frame = request_message(request_, 9)
    assert (frame.header["task"], frame.header["ticket"]) == (name, 9)
    assert value_of(frame, task.request) == request_


def test_what_is_no_request_is_no_task():
    with pytest.raises(TypeError, match="Propagation is no request"):
        task_of(Propagation())


def test_the_name_of_an_image_stays_here(volume):
    object.__setattr__(volume, "name", "Jane Doe")
    frame = volume_message(volume)
    assert "Jane" not in str(frame.header)
    assert value_of(frame, type(volume)).key == volume.key


@pytest.mark.parametrize("kind", OURS)
def test_every_error_of_ours_arrives_as_what_it_was(kind):
    error = value_of(message("failure", Failure.of(kind("what happened")), ticket=3), Failure).error()
    assert type(error) is kind
    assert str(error) == "what happened"
    assert not hasattr(error, "__notes__")


def test_the_place_of_a_mistake_arrives():
    error = Failure.of(PromptError("outside", "segments[1].prompts[0]"), "a traceback").error()
    assert (str(error), error.location) == ("segments[1].prompts[0]: outside", "segments[1].prompts[0]")
    assert error.__notes__ == ["a traceback"]


@pytest.mark.parametrize("kind", ["NoSuchError", "Exception", "__name__", "annotations"])
def test_an_error_of_another_version_is_an_inference_error(kind):
    error = Failure(kind, "what happened").error()
    assert (type(error), str(error)) == (InferenceError, "what happened")


def test_a_message_of_another_form_is_refused():
    with pytest.raises(InputError, match="progress: stage: must be str"):
        value_of(message("progress", ProgressReport(3, 0, 0)), ProgressReport)
    with pytest.raises(KeyError):
        value_of(Message({"type": "progress"}), ProgressReport)


# The worker's side of the connection


def test_a_client_that_is_gone_is_no_error():
    near, far = socket.socketpair()
    channel = Channel(near)
    far.close()
    with near:
        for _ in range(3):
            channel.send(message("alive", text="x" * 100000))
        assert channel.receive() is None


def test_a_cancel_reaches_the_request_it_names_before_its_turn_comes(volume):
    near, far = socket.socketpair()
    with near, far:
        inbox, client = Inbox(Channel(near)), Channel(far)
        for request in (scripted(volume), DownloadRequest(1, "m")):
            inbox.take(request_message(request, 5))
            inbox.take(message("cancel", ticket=5))
            inbox.take(message("cancel", ticket=6))
            assert inbox.token(5).cancelled
            assert not inbox.token(6).cancelled, "a number that comes later is not tainted"
            inbox.forget(5)
            inbox.forget(6)
            assert not inbox.token(5).cancelled
            inbox.forget(5)
        client.send(message("alive"))
        assert inbox.channel.receive().header["type"] == "alive"


def test_whatever_comes_stops_what_nobody_asked_for():
    with socket.socket() as nobody:
        inbox = Inbox(Channel(nobody))
        inbox.take(message("prepare", model="fake"))
    assert inbox.idle_token.cancelled
