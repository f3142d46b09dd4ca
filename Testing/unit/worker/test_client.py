import pytest

from FoundationSegLib.catalog.label_sets import label_set_of
from FoundationSegLib.errors import Cancelled, CheckpointError, InferenceError, InputError
from FoundationSegLib.imaging.masks import EMPTY_MASK
from FoundationSegLib.progress import ProgressReport
from FoundationSegLib.prompts.kinds import SegmentPrompts, TextPrompt
from FoundationSegLib.requests.classification import ClassifyRequest
from FoundationSegLib.requests.maintenance import DownloadRequest, InstallPackagesRequest
from FoundationSegLib.requests.segmentation import CheckpointRecord, Prediction, PredictRequest, SegmentPrediction
from FoundationSegLib.worker.client import InlineClient, ask, deliver, finish
from FoundationSegLib.worker.protocol import Answered, Failed, Progressed
from Testing.unit.session.session_cases import make_session, mask_of, point, segment_of


class ThreeSteps:
    """An engine that answers in three steps, or fails after them."""

    def __init__(self, fault=None):
        self.fault = fault
        self.volumes = []
        self.prepared = []
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
            progress.step("steps", done, 3)
            self.steps += 1
        if self.fault:
            raise self.fault
        return answer_to(request)

    classify = download = predict


def answer_to(request):
    if isinstance(request, DownloadRequest):
        return None
    checkpoint = CheckpointRecord("fake", "fake-wheel", "1.0", "ab")
    return Prediction(request.request_id, (SegmentPrediction(EMPTY_MASK, None),), {}, checkpoint, "cpu", "float32")


def request(number=1):
    return PredictRequest(number, "fake", "0", (SegmentPrompts("Liver", (TextPrompt("liver"),)),))


REQUESTS = [request(5), DownloadRequest(5, "fake"), ClassifyRequest(5, "fake", "0", label_set_of(["a", "b"]))]


@pytest.fixture(params=REQUESTS, ids=lambda request: type(request).__name__)
def any_request(request):
    return request.param


def test_a_request_is_reported_at_once_and_answered_in_order(any_request):
    seen = []
    client = InlineClient(ThreeSteps(), lambda report: seen.append(report.done))
    client.submit(any_request)
    assert seen == [1, 2, 3]
    reports = [Progressed(5, ProgressReport("steps", done, 3)) for done in (1, 2, 3)]
    assert client.poll() == (*reports, Answered(5, answer_to(any_request)))
    assert client.poll() == () and not client.is_busy
    assert ask(client, any_request, lambda report: seen.append(report.done)) == answer_to(any_request)
    assert seen[3:] == [1, 2, 3, 1, 2, 3]


def test_a_failure_is_an_event_or_raised(any_request):
    fault = InferenceError("out of memory")
    client = InlineClient(ThreeSteps(fault))
    client.submit(any_request)
    assert client.poll()[-1] == Failed(5, fault)
    with pytest.raises(InferenceError) as caught:
        ask(client, any_request)
    assert caught.value is fault


def test_packages_are_not_changed_in_line():
    with pytest.raises(InputError, match="a process of their own"):
        ask(InlineClient(ThreeSteps()), InstallPackagesRequest(1, ("timm",)))


def test_what_nobody_foresaw_comes_through_and_spoils_nothing():
    engine = ThreeSteps(ZeroDivisionError())
    client = InlineClient(engine)
    with pytest.raises(ZeroDivisionError):
        client.submit(request(5))
    engine.fault = None
    assert ask(client, request(5)) == answer_to(request(5))


def test_volumes_are_handed_over_and_let_go_of(volume):
    client = InlineClient(ThreeSteps())
    with pytest.raises(InputError):
        client.send_volume(None)
    client.send_volume(volume)
    assert client.engine.volumes == [volume]
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
    client.wait(100)
    client.stop()
    assert isinstance(ask(client, request()), Prediction)


def test_a_callback_can_cancel():
    engine = ThreeSteps()
    client = InlineClient(engine, lambda report: client.cancel(6))
    client.cancel(5)
    client.submit(request(5))
    assert isinstance(client.poll()[-1], Answered), "another number, or none that is under way, is left alone"
    client.on_progress, engine.steps = lambda report: client.cancel(5) if report.done == 2 else None, 0
    client.submit(request(5))
    events = client.poll()
    assert [event.report.done for event in events[:-1]] == [1, 2]
    assert isinstance(events[-1].error, Cancelled)
    assert engine.steps == 2
    client.on_progress = None
    assert ask(client, request(5)) == answer_to(request(5)), "the same number can be used again"


def test_a_callback_may_close_the_client():
    """Events after that are of no interest to anybody, and no failure."""
    client = InlineClient(ThreeSteps(), lambda report: client.close() if report.done == 2 else None)
    client.submit(request())
    client.close()
    assert client.poll() == ()
    assert not client.is_busy


def test_ask_waits_for_its_own_answer_and_not_for_a_client_that_was_closed():
    client = InlineClient(ThreeSteps())
    client.submit(request(1))
    assert ask(client, request(2)).request_id == 2
    assert client.poll() == (), "events of others are dropped"

    class Silent(InlineClient):
        def submit(self, request):
            self.close()

    with pytest.raises(Cancelled, match="closed"):
        ask(Silent(ThreeSteps()), request())


# Between a session and a client


class ScriptedClient:
    """A client that has a list of events to tell, one at each poll."""

    def __init__(self, events, closes=False, wait=None):
        self.events, self.waits, self.closes, self.on_wait = list(events), 0, closes, wait

    @property
    def is_busy(self):
        return bool(self.events) or not self.closes

    def poll(self):
        return (self.events.pop(0),) if self.events else ()

    def wait(self, timeout_s):
        self.waits += 1
        if self.on_wait:
            self.on_wait(timeout_s)


@pytest.fixture
def session():
    session, client = make_session()
    client.is_slow = True
    return session


def test_the_session_gets_its_own_answer(session):
    segment = segment_of(session)
    segment.add(point(3))
    answer = session.client.prediction(session.client.requests[0])
    others = [Progressed(1, ProgressReport("decode", 1, 2)), Answered(1), Failed(99, InferenceError("other"))]
    for event in others:
        deliver(session, event)
    assert session.request_id == 1
    client = ScriptedClient([*others, Answered(1, answer)])
    finish(session, client)
    assert mask_of(segment).sum() == 25 and client.waits == 3
    finish(session, ScriptedClient([]))


def interrupt(timeout_s):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("client", "error"),
    [
        (ScriptedClient([Failed(1, InferenceError("killed"))]), InferenceError),
        (ScriptedClient([], closes=True), Cancelled),
        (ScriptedClient([], wait=interrupt), KeyboardInterrupt),
    ],
)
def test_a_request_that_fails_is_discarded(session, client, error):
    segment_of(session).add(point(3))
    with pytest.raises(error):
        finish(session, client)
    assert session.request_id is None and not session.discard()
    assert session.client.cancelled == ([] if error is InferenceError else [1])
