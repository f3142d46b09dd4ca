import pytest

from FoundationSegLib.errors import Cancelled, CheckpointError, InferenceError, InputError
from FoundationSegLib.imaging.masks import EMPTY_MASK
from FoundationSegLib.progress import ProgressReport
from FoundationSegLib.prompts.kinds import SegmentPrompts, TextPrompt
from FoundationSegLib.requests.maintenance import DownloadRequest
from FoundationSegLib.requests.segmentation import CheckpointRecord, Prediction, PredictRequest, SegmentPrediction
from FoundationSegLib.worker.client import InlineClient, ask, deliver, finish
from FoundationSegLib.worker.protocol import Answered, Failed, Progressed
from Testing.unit.session.session_cases import make_session, mask_of, point, segment_of


class ThreeSteps:
    """Answers in three steps, unless told to fail; remembers what it was sent."""

    def __init__(self, fault=None):
        self.fault = fault
        self.volumes = []
        self.prepared = []
        self.downloads = []
        self.steps = 0

    def add_volume(self, volume):
        if volume is None:
            raise InputError("nothing in it")
        self.volumes.append(volume)

    def remove_volume(self, volume_key):
        self.volumes = [volume for volume in self.volumes if volume.key != volume_key]

    def prepare(self, model_id, progress):
        if model_id == "missing":
            raise CheckpointError("not here")
        self.prepared.append(model_id)

    def predict(self, request, progress):
        for done in (1, 2, 3):
            progress.step("slices", done, 3)
            self.steps += 1
        if self.fault:
            raise self.fault
        return answer_to(request)

    def download(self, request, progress):
        for done in (1, 2, 3):
            progress.step("download", done, 3)
            self.steps += 1
        if self.fault:
            raise self.fault
        self.downloads.append(request)


def answer_to(request):
    checkpoint = CheckpointRecord("fake", "fake-wheel", "1.0", "ab")
    return Prediction(request.request_id, (SegmentPrediction(EMPTY_MASK, None),), {}, checkpoint, "cpu", "float32")


def request(number=1):
    return PredictRequest(number, "fake", "0", (SegmentPrompts("Liver", (TextPrompt("liver"),)),))


def test_a_request_is_reported_and_answered_in_order():
    client = InlineClient(ThreeSteps())
    client.submit(request(5))
    reports = [Progressed(5, ProgressReport("slices", done, 3)) for done in (1, 2, 3)]
    assert client.poll() == (*reports, Answered(5, answer_to(request(5))))
    assert client.poll() == ()


def test_progress_is_told_at_once():
    seen = []
    client = InlineClient(ThreeSteps(), lambda report: seen.append(report.done))
    client.submit(request())
    assert seen == [1, 2, 3]


def test_a_failure_is_an_event():
    fault = InferenceError("out of memory")
    client = InlineClient(ThreeSteps(fault))
    client.submit(request(5))
    assert client.poll()[-1] == Failed(5, fault)


def test_what_nobody_foresaw_comes_through_and_spoils_nothing():
    engine = ThreeSteps(ZeroDivisionError())
    client = InlineClient(engine)
    with pytest.raises(ZeroDivisionError):
        client.submit(request(5))
    engine.fault = None
    assert ask(client, request(5)) == answer_to(request(5))


def test_volumes_are_handed_over_or_refused_at_once(volume):
    client = InlineClient(ThreeSteps())
    client.send_volume(volume)
    assert client.engine.volumes == [volume]
    with pytest.raises(InputError):
        client.send_volume(None)


def test_a_closed_client_lets_go_of_its_volumes(volume):
    client = InlineClient(ThreeSteps())
    client.send_volume(volume)
    client.remove_volume(volume.key)
    assert client.engine.volumes == []
    client.send_volume(volume)
    client.close()
    client.close()
    assert client.engine.volumes == []


def test_a_model_is_prepared_or_fails_later():
    client = InlineClient(ThreeSteps())
    client.prepare("fake")
    assert client.engine.prepared == ["fake"]
    client.prepare("missing")
    assert isinstance(ask(client, request()), Prediction)


def test_a_callback_can_cancel():
    engine = ThreeSteps()
    client = InlineClient(engine, lambda report: client.cancel(5) if report.done == 2 else None)
    client.submit(request(5))
    events = client.poll()
    assert [event.report.done for event in events[:-1]] == [1, 2]
    assert isinstance(events[-1].error, Cancelled)
    assert engine.steps == 2
    client.on_progress = None
    assert ask(client, request(5)) == answer_to(request(5)), "the same number can be used again"


def test_a_cancel_of_what_is_not_under_way_is_left_alone():
    client = InlineClient(ThreeSteps())
    client.cancel(5)
    client.submit(request(5))
    assert isinstance(client.poll()[-1], Answered)
    client.on_progress = lambda report: client.cancel(6)
    client.submit(request(5))
    assert isinstance(client.poll()[-1], Answered)


def test_a_callback_may_close_the_client():
    """What comes after it is of no interest to anybody, and no failure."""
    client = InlineClient(ThreeSteps(), lambda report: client.close() if report.done == 2 else None)
    client.submit(request())
    client.close()
    client.close()
    assert client.poll() == ()
    assert not client.is_busy


def test_ask_waits_for_its_own_answer():
    client = InlineClient(ThreeSteps())
    client.submit(request(1))
    assert ask(client, request(2)).request_id == 2
    assert client.poll() == (), "events of others are dropped"


def test_ask_raises_what_the_request_failed_with():
    fault = InferenceError("out of memory")
    with pytest.raises(InferenceError) as caught:
        ask(InlineClient(ThreeSteps(fault)), request())
    assert caught.value is fault


def test_ask_does_not_wait_for_a_client_that_was_closed():
    class Silent(InlineClient):
        def submit(self, request):
            self.close()

    with pytest.raises(Cancelled, match="closed"):
        ask(Silent(ThreeSteps()), request())


def test_ask_tells_of_progress():
    seen = []
    ask(InlineClient(ThreeSteps()), request(), seen.append)
    assert [report.done for report in seen] == [1, 2, 3]


def test_a_download_is_reported_and_ends_like_every_request():
    client, request = InlineClient(ThreeSteps()), DownloadRequest(5, "fake", accept_license=True)
    client.submit(request)
    reports = [Progressed(5, ProgressReport("download", done, 3)) for done in (1, 2, 3)]
    assert client.poll() == (*reports, Answered(5))
    assert client.engine.downloads == [request]
    seen = []
    assert ask(client, request, seen.append) is None
    assert [report.done for report in seen] == [1, 2, 3]


def test_a_download_fails_and_is_cancelled_like_every_request():
    fault = CheckpointError("no network")
    client, request = InlineClient(ThreeSteps(fault)), DownloadRequest(5, "fake")
    with pytest.raises(CheckpointError) as caught:
        ask(client, request)
    assert caught.value is fault
    client.on_progress = lambda report: client.cancel(5)
    client.submit(request)
    assert isinstance(client.poll()[-1].error, Cancelled)
    assert client.engine.downloads == []


def test_there_is_nothing_to_wait_for_or_to_stop():
    client = InlineClient(ThreeSteps())
    client.wait(100)
    client.stop()
    assert isinstance(ask(client, request()), Prediction)


# Between a session and a client


class ScriptedClient:
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
    for event in (Progressed(1, ProgressReport("decode", 1, 2)), Answered(1), Failed(99, InferenceError("other"))):
        deliver(session, event)
    assert session.request_id == 1
    deliver(session, Answered(1, answer))
    assert mask_of(segment).sum() == 25


def test_waiting_for_the_answer(session):
    segment = segment_of(session)
    segment.add(point(3))
    answer = session.client.prediction(session.client.requests[0])
    client = ScriptedClient(
        [Progressed(1, ProgressReport("decode", 1, 2)), Failed(7, InferenceError("x")), Answered(1, answer)]
    )
    finish(session, client)
    assert mask_of(segment).sum() == 25 and client.waits == 2
    finish(session, ScriptedClient([]))


def test_a_failure_is_raised_and_nothing_waits_any_more(session):
    segment_of(session).add(point(3))
    with pytest.raises(InferenceError, match="killed"):
        finish(session, ScriptedClient([Failed(1, InferenceError("killed"))]))
    assert session.request_id is None and not session.discard()


def test_an_interrupt_cancels(session):
    segment_of(session).add(point(3))
    client = ScriptedClient([])
    client.wait = lambda timeout_s: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        finish(session, client)
    assert session.client.cancelled == [1]


def test_a_closed_client(session):
    segment_of(session).add(point(3))
    with pytest.raises(Cancelled, match="closed"):
        finish(session, ScriptedClient([], closes=True))
