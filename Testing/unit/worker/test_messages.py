import pickle
from dataclasses import FrozenInstanceError

import pytest

from FoundationSegLib.core.errors import InputError, PromptError
from FoundationSegLib.core.progress import ProgressReport
from FoundationSegLib.core.requests import CheckpointRecord, Prediction
from FoundationSegLib.worker.messages import Answered, Downloaded, Failed, Progressed

PREDICTION = Prediction(1, (), {}, CheckpointRecord("fake", "fake-wheel", "1.0", "ab"), "cpu", "float32")


@pytest.mark.parametrize(
    "event",
    [
        Progressed(1, ProgressReport("slices", 1, 2)),
        Answered(1, PREDICTION),
        Downloaded(1),
        Failed(1, InputError("no")),
    ],
    ids=lambda event: type(event).__name__,
)
def test_every_event_names_its_request_and_stays_as_it_is(event):
    assert event.request_id == 1
    with pytest.raises(FrozenInstanceError):
        event.request_id = 2


def test_equal_events_are_equal_also_on_the_other_side():
    event = Answered(1, PREDICTION)
    assert pickle.loads(pickle.dumps(event)) == event
    failed = pickle.loads(pickle.dumps(Failed(2, PromptError("no", "segments[0]"))))
    assert (failed.request_id, str(failed.error), failed.error.place) == (2, "segments[0]: no", "segments[0]")
