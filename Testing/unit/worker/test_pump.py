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


def test_the_timer_runs_on_for_what_is_out_after_an_event_that_fails(client, volume):
    """A session that could not write an answer has asked for the next one by then."""
    timer, answers = Timer(), []

    def apply(event):
        if isinstance(event, Answered):
            answers.append(event.request_id)
            if event.request_id == 1:
                client.submit(scripted(volume, "answer", 2))
            raise ZeroDivisionError

    client.send_volume(volume)
    client.submit(scripted(volume))
    pump = Pump(client, apply, timer.stop)
    for count in (1, 2):
        with pytest.raises(ZeroDivisionError):
            timer.run(pump)
        assert len(answers) == count and timer.runs == (count == 1)


class ThreeEvents:
    """A client with three events, and nothing more to come."""

    def __init__(self):
        self.events = [1, 2, 3]
        self.is_busy = False

    def poll(self):
        events, self.events = self.events, []
        return tuple(events)


def test_a_tick_inside_an_event_waits_for_its_turn():
    """A dialog runs the event loop, and with it the timer."""
    begun, done = [], []

    def apply(event):
        begun.append(event)
        pump.tick()
        done.append(event)

    pump = Pump(ThreeEvents(), apply, lambda: None)
    pump.tick()
    assert begun == done == [1, 2, 3]


def test_no_event_is_lost_by_one_that_fails():
    applied = []

    def apply(event):
        applied.append(event)
        if event == 1:
            raise ZeroDivisionError

    pump = Pump(ThreeEvents(), apply, lambda: None)
    with pytest.raises(ZeroDivisionError):
        pump.tick()
    pump.tick()
    assert applied == [1, 2, 3]


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
