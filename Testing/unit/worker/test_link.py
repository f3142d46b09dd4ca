"""The connection itself: strangers on the port, and a client that comes late."""

import socket
import struct
import time

import numpy as np
import pytest

from FoundationSegLib.worker.client import ask
from Testing.unit.worker.conftest import scripted
from Testing.unit.worker.fake_worker import positive_mask


def port_of(client):
    return client._link._listener.getsockname()[1]


def test_a_stranger_who_calls_is_shown_out(client, volume):
    """Somebody else on this computer finds the port before the worker does."""
    client.prepare("fake")
    strangers = [socket.create_connection(("127.0.0.1", port_of(client))) for _ in range(3)]
    strangers[0].sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
    strangers[1].close()
    client.send_volume(volume)
    prediction = ask(client, scripted(volume))
    assert np.array_equal(prediction.segments[0].mask.expand((4, 6, 8)), positive_mask(volume))
    for stranger in (strangers[0], strangers[2]):
        stranger.settimeout(5)
        assert learned(stranger) == b""
        stranger.close()


def learned(stranger):
    try:
        return stranger.recv(1)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("hello", [b'{"secret":"\\ud800"}', b"[" * 4000, b'{"secret":null}', b"{}"])
def test_what_a_stranger_says_harms_nobody(client, volume, hello):
    client.prepare("fake")
    with socket.create_connection(("127.0.0.1", port_of(client))) as stranger:
        stranger.sendall(struct.pack("<4sIQ", b"FSW1", len(hello), 0) + hello)
        time.sleep(0.05)
        client.send_volume(volume)
        assert ask(client, scripted(volume)).segments[0].score == 0.5


def test_a_client_that_polls_late_still_finds_its_worker(make_client, volume):
    """A panel that was busy for longer than a worker is waited for, and a silent stranger who was there first."""
    client = make_client(start_s=1.0)
    client.send_volume(volume)
    client.submit(scripted(volume))
    pid = client.worker_pid
    with socket.create_connection(("127.0.0.1", port_of(client))):
        time.sleep(1.5)
        client.poll()
        assert client.worker_pid == pid
