import pytest

from FoundationSegLib.worker.client import Poller
from FoundationSegLib.worker.protocol import Answered, Failed
from Testing.unit.worker.conftest import scripted, until


class Timer:
    """A QTimer, as far as the poller knows it."""

    def __init__(self):
        self.ticks = 0
        self.runs = True

    def stop(self):
        self.runs = False

    def run(self, poller, until_ticks=10**6):
        while self.runs and self.ticks < until_ticks:
            self.ticks += 1
            poller.tick()
            poller.client.wait(0.01)


def test_a_timer_brings_every_event_and_stops_at_the_end(client, volume):
    """A request made while an event is applied keeps the timer running."""
    timer, answers = Timer(), []

    def apply(event):
        if isinstance(event, Answered):
            answers.append(event.request_id)
            if event.request_id < 3:
                client.submit(scripted(volume, "answer", event.request_id + 1))

    client.send_volume(volume)
    client.submit(scripted(volume, "steps=3"))
    timer.run(Poller(client, apply, timer.stop))
    assert answers == [1, 2, 3]
    assert not client.is_busy


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
    poller = Poller(client, apply, timer.stop)
    for count in (1, 2):
        with pytest.raises(ZeroDivisionError):
            timer.run(poller)
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
        poller.tick()
        done.append(event)

    poller = Poller(ThreeEvents(), apply, lambda: None)
    poller.tick()
    assert begun == done == [1, 2, 3]


def test_the_end_of_the_connection_stops_the_timer(client, volume):
    timer, events = Timer(), []
    poller = Poller(client, events.append, timer.stop)
    client.send_volume(volume)
    client.submit(scripted(volume, "steps=1000"))
    timer.run(poller, until_ticks=3)
    client.close()
    timer.run(poller)
    assert not timer.runs
    assert events == [event for event in events if not isinstance(event, Failed)], "closed means closed"
    until(lambda: client.worker_pid is None)
