import pytest

from FoundationSegLib.worker.messages import Answered, Failed
from FoundationSegLib.worker.pump import Pump
from Testing.unit.worker.conftest import scripted, until


class Timer:
    """What a QTimer is to the pump."""

    def __init__(self):
        self.ticks = 0
        self.runs = True

    def stop(self):
        self.runs = False

    def run(self, pump, until_ticks=10**6):
        while self.runs and self.ticks < until_ticks:
            self.ticks += 1
            pump.tick()
            pump.client.wait(0.01)


def test_a_timer_brings_every_event_and_stops_at_the_end(client, volume):
    timer, events = Timer(), []
    client.send_volume(volume)
    client.submit(scripted(volume, "steps=3"))
    timer.run(Pump(client, events.append, timer.stop))
    assert isinstance(events[-1], Answered)
    assert not client.is_busy


def test_a_request_out_of_an_event_keeps_the_timer_running(client, volume):
    timer, answers = Timer(), []

    def apply(event):
        if isinstance(event, Answered):
            answers.append(event.request_id)
            if event.request_id < 3:
                client.submit(scripted(volume, "answer", event.request_id + 1))

    client.send_volume(volume)
    client.submit(scripted(volume))
    timer.run(Pump(client, apply, timer.stop))
    assert answers == [1, 2, 3]


def test_what_applies_an_event_and_fails_stops_the_timer(client, volume):
    timer = Timer()

    def apply(event):
        raise ZeroDivisionError

    client.send_volume(volume)
    client.submit(scripted(volume, "steps=3"))
    with pytest.raises(ZeroDivisionError):
        timer.run(Pump(client, apply, timer.stop))
    assert not timer.runs


def test_the_end_of_the_connection_stops_the_timer(client, volume):
    timer, events = Timer(), []
    pump = Pump(client, events.append, timer.stop)
    client.send_volume(volume)
    client.submit(scripted(volume, "steps=1000"))
    timer.run(pump, until_ticks=3)
    client.close()
    timer.run(pump)
    assert not timer.runs
    assert events == [event for event in events if not isinstance(event, Failed)], "closed means closed"
    until(lambda: client.worker_pid is None)
