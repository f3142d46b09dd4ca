import socket
import threading

from FoundationSegLib.core.progress import ProgressReport
from FoundationSegLib.worker import main
from FoundationSegLib.worker.documents import request_to_frame, volume_to_frame
from FoundationSegLib.worker.frames import Frame
from Testing.unit.worker.conftest import scripted
from Testing.unit.worker.fake_worker import ScriptedEngine


class Sent:
    """A channel that remembers."""

    def __init__(self):
        self.frames = []

    def send(self, frame):
        self.frames.append(frame.header)


def test_no_more_reports_are_sent_than_can_be_seen():
    channel = Sent()
    reports = main._Reports(channel, 3)
    for done in range(10001):
        reports.send(ProgressReport("slices", done, 10000))
    sent = [frame["done"] for frame in channel.frames]
    assert sent[0] == 0, "the first of a stage"
    assert sent[-1] == 10000, "the last"
    assert len(sent) < 1000
    reports.send(ProgressReport("write", 0, 9))
    assert channel.frames[-1] == {"type": "progress", "ticket": 3, "stage": "write", "done": 0, "total": 9}


def test_the_worker_does_one_thing_after_the_other(volume):
    near, far = socket.socketpair()
    with near, far:
        inbox, engine = main.Inbox(main.Channel(near)), ScriptedEngine()
        for frame in (
            Frame({"type": "prepare", "model": "a"}),
            Frame({"type": "nonsense"}),
            volume_to_frame(volume),
            request_to_frame(scripted(volume), 1),
            Frame({"type": "remove_volume", "key": volume.key}),
            request_to_frame(scripted(volume), 2),
        ):
            inbox._take(frame)
        inbox.frames.put(None)
        worker = main.Worker(main.Channel(near), inbox, lambda: engine, encode_ahead=True)
        thread = threading.Thread(target=worker.run)
        thread.start()
        client, frames = main.Channel(far), []
        while len(frames) < 2:
            frame = client.receive()
            if frame.header["type"] != "alive":
                frames.append(frame.header)
        thread.join(10)
        assert [(frame["type"], frame["ticket"]) for frame in frames] == [("answered", 1), ("failed", 2)]
        assert frames[1]["kind"] == "VolumeMissingError"
        assert not thread.is_alive()
