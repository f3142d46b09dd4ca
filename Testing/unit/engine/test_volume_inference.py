"""Models of volumes behind the engine: what reaches them, what is kept of them, and what comes back."""

from dataclasses import replace

import numpy as np
import pytest

from FoundationSegLib.engine import engine as engine_module
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.errors import Cancelled, InferenceError, PromptError
from FoundationSegLib.models.protocols import VolumeWords
from FoundationSegLib.progress import CancelToken, Progress
from FoundationSegLib.prompts.kinds import BoxPrompt, ClassPrompt, PointPrompt, Polarity, SegmentPrompts, TextPrompt
from FoundationSegLib.requests.segmentation import PredictRequest, Propagation
from Testing.unit.engine.engine_cases import AROUND, BRIGHT, SHAPE, ct, predict, request
from Testing.unit.fakes import FakeView, FakeVolumeModel, fake_card, fill_store, volume_of

CARD = {
    "dimensions": [3],
    "channels": [1],
    "prompts": ["box", "point", "text", "class"],
    "negative": ["point"],
    "translations": {"scribble": "box+points"},
    "intensity": "raw",
}


@pytest.fixture
def model(monkeypatch):
    fake = FakeVolumeModel()
    monkeypatch.setattr(engine_module, "load_volume_model", lambda card, files, device: fake)
    monkeypatch.setattr(engine_module, "load_slice_model", lambda *arguments: pytest.fail("it is none of slices"))
    monkeypatch.setattr(engine_module, "choose_device", lambda choice: "cpu")
    return fake


@pytest.fixture
def engine(model, tmp_path):
    card = fake_card(**CARD)
    return Engine({card.id: card}, fill_store(tmp_path, card))


def test_an_answer_says_what_was_found_and_how(engine, model):
    prediction = predict(engine, ct())
    wanted = np.zeros(SHAPE, np.bool_)
    wanted[BRIGHT] = True
    assert np.array_equal(prediction.segments[0].mask.expand(SHAPE), wanted)
    assert (prediction.request_id, prediction.segments[0].score) == (7, 0.5)
    assert (prediction.device, prediction.precision) == ("cpu", "float32")
    assert prediction.counts == {"encodes": 1, "decodes": 1}
    assert set(prediction.timings_s) == {"load", "encode", "decode"}
    assert (
        prediction.intensity | {"policy": "auto", "rule": "raw", "low": -1000.0, "high": 200.0} == prediction.intensity
    )
    assert prediction.checkpoint.model_id == "fake"
    assert prediction.notes == ()


def test_it_sees_the_voxels_as_they_are_unless_a_window_is_wanted(engine, model):
    volume = ct()
    predict(engine, volume)
    assert model.viewed[-1] is volume.array_kji
    for dtype, limits in ((np.int16, (-50, 50)), (np.int64, (-50, 50)), (np.float32, (-50.5, 49.5))):
        predict(engine, volume_of(volume.array_kji.astype(dtype)), intensity="100,-0.5")
        seen = model.viewed[-1]
        assert (seen.min(), seen.max(), seen.dtype) == (*limits, dtype)


def test_a_view_is_made_once_for_an_image_and_a_window(engine, model):
    volume = ct()
    counts = [predict(engine, volume, **how).counts["encodes"] for how in ({}, {}, {"intensity": "400,40"}, {})]
    assert counts == [1, 0, 1, 1], "the last one alone is kept"
    predict(engine, volume_of(volume.array_kji + 1))
    assert predict(engine, volume).counts["encodes"] == 1
    assert engine.viewing.nbytes == 500
    engine.remove_volume(volume.key)
    assert (engine.viewing.nbytes, engine.viewing.volume_key) == (0, "")


def test_the_old_view_is_gone_before_the_new_one_is_made(engine, model, monkeypatch):
    predict(engine, ct())
    alive = []
    view = FakeVolumeModel.view
    monkeypatch.setattr(
        FakeVolumeModel, "view", lambda *arguments: alive.append(engine.viewing.nbytes) or view(*arguments)
    )
    predict(engine, volume_of(ct().array_kji + 1))
    assert alive == [0]


def test_words_reach_the_model_all_segments_at_once(engine, model):
    volume = ct()
    engine.add_volume(volume)
    named = tuple(
        SegmentPrompts(name, (prompt,))
        for name, prompt in (("A", TextPrompt("the liver")), ("B", ClassPrompt("spleen")), ("C", ClassPrompt("7")))
    )
    answer = engine.predict(PredictRequest(1, "fake", volume.key, named), Progress())
    (asked,) = model.asked
    assert [prompt.parts for prompt in asked] == [
        (VolumeWords("text", "the liver"),),
        (VolumeWords("class", "spleen"),),
        (VolumeWords("class", "7"),),
    ]
    assert [one.mask.voxels for one in answer.segments] == [80, 80, 80]
    assert answer.counts == {"encodes": 1, "decodes": 3}


def test_the_whole_list_comes_again_with_a_correction(engine, model):
    no = PointPrompt((4.0, 4.0, 2.0), Polarity.NEGATIVE)
    first, second = predict(engine, ct()), predict(engine, ct(), AROUND, no)
    assert model.asked[1][0].parts[:1] == model.asked[0][0].parts
    assert second.segments[0].mask.voxels < first.segments[0].mask.voxels


def test_notes_tell_what_was_clipped_translated_and_left_out(engine):
    outside = BoxPrompt(((-5.0, 2.0, 1.0), (9.0, 7.0, 4.0)))
    answer = predict(engine, ct(), outside, propagation=Propagation())
    assert answer.notes == (
        "segments[0].prompts[0].corners: clipped to the image",
        "Fake Model looks at the whole volume: there is nothing to propagate",
    )
    nothing = predict(engine, ct(), BoxPrompt(((0.0, 0.0, 1.0), (2.0, 2.0, 4.0))))
    assert nothing.notes == ("segments[0]: the model found nothing",)
    assert nothing.segments[0].mask.box.is_empty


def test_a_negative_prompt_alone_is_refused_before_a_model_is_loaded(engine, monkeypatch):
    monkeypatch.setattr(engine_module, "load_volume_model", lambda *arguments: pytest.fail("loaded"))
    with pytest.raises(PromptError, match="negative point alone"):
        predict(engine, ct(), PointPrompt((4.0, 4.0, 2.0), Polarity.NEGATIVE))


@pytest.mark.parametrize("step", ["view", "answer"])
def test_a_fault_of_the_framework_is_told_and_the_next_request_works(engine, model, monkeypatch, step):
    def fail(*arguments):
        raise RuntimeError("CUDA error: unspecified launch failure")

    with monkeypatch.context() as patch, pytest.raises(InferenceError, match="unspecified launch failure"):
        patch.setattr(FakeVolumeModel if step == "view" else FakeView, step, fail)
        predict(engine, ct())
    assert predict(engine, ct()).segments[0].mask.voxels == 80


def test_a_request_that_was_stopped_leaves_no_view(engine, model):
    token, volume = CancelToken(), ct()
    engine.add_volume(volume)
    token.cancel()
    with pytest.raises(Cancelled):
        engine.predict(request(volume), Progress(token=token))
    assert model.viewed == []


def test_there_is_nothing_to_encode_ahead(engine):
    predict(engine, ct())
    assert not engine.encode_ahead(Progress())


def test_a_new_engine_gives_the_same_answer(engine, model, tmp_path):
    card = fake_card(**CARD)
    other = Engine({card.id: card}, engine.store)
    first = predict(engine, ct())
    assert replace(predict(other, ct()), timings_s={}) == replace(first, timings_s={})
