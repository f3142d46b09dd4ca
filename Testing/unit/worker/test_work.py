import numpy as np
import pytest

from FoundationSegLib.core.errors import GeometryError
from FoundationSegLib.core.geometry import Box
from FoundationSegLib.core.mask import pack_mask
from FoundationSegLib.core.prompts import SegmentPrompts, TextPrompt
from FoundationSegLib.core.requests import (
    CheckpointRecord,
    DownloadRequest,
    Prediction,
    PredictRequest,
    SegmentPrediction,
)
from FoundationSegLib.worker.documents import downloaded_to_frame, prediction_to_frame
from FoundationSegLib.worker.frames import Frame
from FoundationSegLib.worker.messages import Answered, Downloaded
from FoundationSegLib.worker.work import Work

IMAGE = Box((0, 0, 0), (4, 4, 4))
PREDICTING = Work(PredictRequest(5, "fake", "ab", (SegmentPrompts("Liver", (TextPrompt("liver"),)),)), 9, IMAGE)
DOWNLOADING = Work(DownloadRequest(5, "fake"), 9)


def answered(start, count=1):
    found = (SegmentPrediction(pack_mask(np.ones((1, 2, 2), np.bool_), start), None),) * count
    return Prediction(5, found, {}, CheckpointRecord("fake", "fake-wheel", "1.0", "ab"), "cpu", "float32")


def test_each_kind_of_request_has_its_answer():
    prediction = answered((1, 1, 1))
    assert PREDICTING.answer(prediction_to_frame(prediction, 9)) == Answered(5, prediction)
    assert DOWNLOADING.answer(downloaded_to_frame(9)) == Downloaded(5)


@pytest.mark.parametrize(
    ("work", "frame", "error"),
    [
        (DOWNLOADING, prediction_to_frame(answered((1, 1, 1)), 9), ValueError),
        (PREDICTING, downloaded_to_frame(9), ValueError),
        (PREDICTING, Frame({"type": "novel", "ticket": 9}), ValueError),
        (DOWNLOADING, Frame({"type": "novel", "ticket": 9}), ValueError),
        (PREDICTING, Frame({"type": "answered", "ticket": 9}), KeyError),
        (PREDICTING, prediction_to_frame(answered((1, 1, 3)), 9), GeometryError),
        (PREDICTING, prediction_to_frame(answered((1, 1, 1), 2), 9), ValueError),
        (PREDICTING, prediction_to_frame(answered((1, 1, 1), 0), 9), ValueError),
    ],
)
def test_what_is_no_answer_is_not_taken_for_one(work, frame, error):
    with pytest.raises(error):
        work.answer(frame)
