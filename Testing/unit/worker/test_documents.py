import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.core import errors
from FoundationSegLib.core.errors import FoundationSegError, InferenceError, InputError, PromptError
from FoundationSegLib.core.geometry import Geometry
from FoundationSegLib.core.mask import EMPTY_MASK, pack_mask
from FoundationSegLib.core.progress import ProgressReport
from FoundationSegLib.core.prompts import MaskPrompt, SegmentPrompts
from FoundationSegLib.core.requests import (
    CheckpointRecord,
    DownloadRequest,
    Prediction,
    PredictRequest,
    Propagation,
    SegmentPrediction,
)
from FoundationSegLib.core.volume import Volume
from FoundationSegLib.worker import documents
from FoundationSegLib.worker.frames import Frame, FrameError
from Testing.unit.core.strategies import boxes, geometries, prompts

DTYPES = ("i1", "u1", "<i2", ">i2", "<u4", "<i8", "<f4", ">f8", "<f2")


def crossed(frame):
    """A frame on the other side: its header has been text, its payload is bytes of its own."""
    return Frame(json.loads(json.dumps(frame.header)), bytearray(frame.payload))


@given(geometries(), st.sampled_from(DTYPES), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_volume_arrives_as_it_was(geometry, dtype, is_colour, seed):
    shape = (*geometry.shape_kji, 3) if is_colour else geometry.shape_kji
    voxels = np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)
    volume = Volume(voxels, geometry, "CT", (400.0, 40.0))
    arrived = documents.volume_from_frame(crossed(documents.volume_to_frame(volume)))
    assert arrived.key == volume.key
    assert np.array_equal(arrived.array_kji, voxels)
    assert (arrived.array_kji.dtype, arrived.geometry) == (voxels.dtype, geometry)
    assert (arrived.modality, arrived.window_level) == ("CT", (400.0, 40.0))
    assert not arrived.array_kji.flags.writeable


def test_a_volume_that_lies_together_is_not_copied():
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    frame = documents.volume_to_frame(Volume(voxels, Geometry(np.eye(4), (2, 3, 4))))
    assert np.shares_memory(np.frombuffer(frame.payload, np.uint8), voxels)


@pytest.mark.parametrize("change", [{"shape": [2, 3, 5]}, {"dtype": "<u2"}, {"key": "0" * 32}, {"shape": [3, 2, 4]}])
def test_a_volume_that_is_not_the_one_it_says_is_refused(change):
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    frame = crossed(documents.volume_to_frame(Volume(voxels, Geometry(np.eye(4), (2, 3, 4)))))
    with pytest.raises((FrameError, FoundationSegError)):
        documents.volume_from_frame(Frame({**frame.header, **change}, frame.payload))


@st.composite
def masks(draw):
    mask = np.random.default_rng(draw(st.integers(0, 99))).random((2, 3, 4)) > draw(st.floats(0, 1))
    return MaskPrompt("seed.seg.nrrd", "Leber", voxels=draw(st.none() | st.just(pack_mask(mask, (5, 6, 7)))))


PROPAGATIONS = st.none() | st.builds(
    Propagation, st.none() | st.integers(0, 3), st.none() | st.integers(4, 9), st.sampled_from(["both", "up", "down"])
)


@given(
    st.lists(st.lists(prompts | masks(), min_size=1, max_size=4), min_size=1, max_size=3),
    PROPAGATIONS,
    st.none() | boxes(),
)
def test_a_request_arrives_as_it_was(given_prompts, propagation, region):
    segments = tuple(SegmentPrompts(f"Leber é {n}", tuple(some)) for n, some in enumerate(given_prompts))
    request = PredictRequest(7, "fake", "ab", segments, "400,40", propagation, region)
    frame = documents.request_to_frame(request, 12)
    assert documents.request_from_frame(crossed(frame)) == request
    assert frame.header["ticket"] == 12


def test_every_field_of_a_request_crosses():
    fields = {field.name for field in dataclasses.fields(PredictRequest)}
    assert fields == {"request_id", "model_id", "volume_key", "segments", "intensity", "propagation", "region"}


@pytest.mark.parametrize("accept_license", [False, True])
def test_a_request_to_download_arrives_as_it_was(accept_license):
    request = DownloadRequest(7, "fake", accept_license)
    frame = documents.download_to_frame(request, 12)
    assert documents.download_from_frame(crossed(frame)) == request
    assert frame.header["ticket"] == 12
    assert {field.name for field in dataclasses.fields(request)} == {"request_id", "model_id", "accept_license"}
    assert documents.downloaded_to_frame(12).header == {"type": "downloaded", "ticket": 12}


@given(st.integers(0, 2**32 - 1), st.none() | st.floats(0, 1))
def test_an_answer_arrives_as_it_was(seed, score):
    random = np.random.default_rng(seed)
    found = [pack_mask(random.random((3, 4, 5)) > random.random(), (10, 20, 30)) for _ in range(random.integers(1, 4))]
    checkpoint = CheckpointRecord("fake", "fake-wheel", "1.0", "ab")
    prediction = Prediction(
        7,
        tuple(SegmentPrediction(mask, score) for mask in found),
        {"policy": "auto", "low": -160.0},
        checkpoint,
        "cpu",
        "bfloat16",
        ("note",),
        {"a": 0.1},
        {"b": 2},
    )
    frame = documents.prediction_to_frame(prediction, 3)
    assert documents.prediction_from_frame(crossed(frame)) == prediction
    assert frame.header["ticket"] == 3


EMPTY_ANSWER = Prediction(
    7, (SegmentPrediction(EMPTY_MASK, None),), {}, CheckpointRecord("a", "b", "c", "d"), "cpu", "float32"
)


def test_an_empty_answer_arrives_as_it_was():
    assert documents.prediction_from_frame(crossed(documents.prediction_to_frame(EMPTY_ANSWER, 3))) == EMPTY_ANSWER


def test_an_answer_with_bits_missing_is_refused():
    frame = documents.prediction_to_frame(EMPTY_ANSWER, 3)
    with pytest.raises(FoundationSegError):
        documents.prediction_from_frame(Frame({**frame.header, "boxes": [[[0, 0, 0], [2, 2, 2]]]}, b""))


@pytest.mark.parametrize("item", [(), ("model.safetensors", 1, 5)])
def test_progress_arrives_as_it_was(item):
    report = ProgressReport("slices", 3, 9, *item)
    assert documents.progress_from_frame(crossed(documents.progress_to_frame(report, 3))) == report


OURS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FoundationSegError)]


@pytest.mark.parametrize("kind", OURS)
def test_every_error_of_ours_arrives_as_what_it_was(kind):
    error = documents.error_from_frame(crossed(documents.error_to_frame(kind("what happened"), 3)))
    assert type(error) is kind
    assert str(error) == "what happened"
    assert not hasattr(error, "__notes__")


def test_the_place_of_a_mistake_arrives():
    frame = documents.error_to_frame(PromptError("outside", "segments[1].prompts[0]"), 3, "a traceback")
    error = documents.error_from_frame(crossed(frame))
    assert (str(error), error.place) == ("segments[1].prompts[0]: outside", "segments[1].prompts[0]")
    assert error.__notes__ == ["a traceback"]


@pytest.mark.parametrize("kind", ["NoSuchError", "Exception", "__name__", "annotations"])
def test_an_error_of_another_version_is_an_inference_error(kind):
    frame = documents.error_to_frame(InputError("what happened"), 3)
    error = documents.error_from_frame(Frame({**frame.header, "kind": kind}))
    assert (type(error), str(error)) == (InferenceError, "what happened")
