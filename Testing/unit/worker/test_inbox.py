import socket

import pytest

from FoundationSegLib.worker.frames import Frame
from FoundationSegLib.worker.inbox import Channel, Inbox


def test_a_client_that_is_gone_is_no_error():
    near, far = socket.socketpair()
    channel = Channel(near)
    far.close()
    with near:
        for _ in range(3):
            channel.send(Frame({"type": "alive"}, b"x" * 100000))
        assert channel.receive() is None


@pytest.mark.parametrize("kind", ["predict", "download"])
def test_a_cancel_reaches_the_request_it_names_before_its_turn_comes(kind):
    near, far = socket.socketpair()
    with near, far:
        inbox, client = Inbox(Channel(near)), Channel(far)
        inbox._take(Frame({"type": kind, "ticket": 5}))
        inbox._take(Frame({"type": "cancel", "ticket": 5}))
        inbox._take(Frame({"type": "cancel", "ticket": 6}))
        assert inbox.token(5).cancelled
        assert not inbox.token(6).cancelled, "a number that comes later is not tainted"
        inbox.forget(5)
        assert not inbox.token(5).cancelled
        client.send(Frame({"type": "alive"}))
        assert inbox.channel.receive().header == {"type": "alive"}


def test_whatever_comes_stops_what_nobody_asked_for():
    with socket.socket() as nobody:
        inbox = Inbox(Channel(nobody))
        inbox._take(Frame({"type": "prepare", "model": "fake"}))
    assert inbox.idle_token.cancelled
