import pytest

from FoundationSegLib.core.errors import Cancelled, InferenceError
from FoundationSegLib.core.progress import ProgressReport
from FoundationSegLib.worker.conversation import deliver, finish
from FoundationSegLib.worker.messages import Answered, Downloaded, Failed, Progressed
from Testing.unit.core.session_cases import make_session, mask_of, point, segment_of


class Scripted:
    """A client that has a list of events to tell, one at each poll."""

    def __init__(self, events, closes=False):
        self.events, self.waits, self.closes = list(events), 0, closes

    @property
    def is_busy(self):
        return bool(self.events) or not self.closes

    def poll(self):
        return (self.events.pop(0),) if self.events else ()

    def wait(self, timeout_s):
        self.waits += 1


@pytest.fixture
def session():
    session, client = make_session()
    client.is_slow = True
    return session


def test_events_of_others_are_left_alone(session):
    segment = segment_of(session)
    segment.add(point(3))
    answer = session.client.prediction(session.client.requests[0])
    for event in (Progressed(1, ProgressReport("decode", 1, 2)), Downloaded(1), Failed(99, InferenceError("other"))):
        deliver(session, event)
    assert session.request_id == 1
    deliver(session, Answered(1, answer))
    assert mask_of(segment).sum() == 25


def test_waiting_for_the_answer(session):
    segment = segment_of(session)
    segment.add(point(3))
    answer = session.client.prediction(session.client.requests[0])
    client = Scripted(
        [Progressed(1, ProgressReport("decode", 1, 2)), Failed(7, InferenceError("x")), Answered(1, answer)]
    )
    finish(session, client)
    assert mask_of(segment).sum() == 25 and client.waits == 2
    finish(session, Scripted([]))


def test_a_failure_is_raised_and_nothing_waits_any_more(session):
    segment_of(session).add(point(3))
    with pytest.raises(InferenceError, match="killed"):
        finish(session, Scripted([Failed(1, InferenceError("killed"))]))
    assert session.request_id is None and not session.discard()


def test_an_interrupt_cancels(session):
    segment_of(session).add(point(3))
    client = Scripted([])
    client.wait = lambda timeout_s: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        finish(session, client)
    assert session.client.cancelled == [1]


def test_a_closed_client(session):
    segment_of(session).add(point(3))
    with pytest.raises(Cancelled, match="closed"):
        finish(session, Scripted([], closes=True))
