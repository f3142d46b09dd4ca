import sys
from dataclasses import replace

import numpy as np
import pytest

from FoundationSegLib.engine import engine as engine_module
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.errors import (
    Cancelled,
    CardError,
    CheckpointError,
    InferenceError,
    InputError,
    PackageMissingError,
    PromptError,
    UnknownModelError,
)
from FoundationSegLib.progress import CancelToken, Progress
from FoundationSegLib.prompts.kinds import BoxPrompt, PointPrompt, Polarity, SegmentPrompts
from FoundationSegLib.requests.segmentation import PredictRequest, Propagation
from Testing.unit.engine.engine_cases import AROUND, SHAPE, ct, new_engine, predict, request
from Testing.unit.fakes import FakeModel, fake_card, fill_store, volume_of


def test_what_cannot_be_answered_is_refused_before_a_model_is_loaded(engine, monkeypatch):
    monkeypatch.setattr(engine_module, "load_slice_model", lambda *arguments: pytest.fail("loaded"))
    volume = ct()
    engine.add_volume(volume)
    point, negative = PointPrompt((4.0, 4.0, 4.0)), replace(AROUND, polarity=Polarity.NEGATIVE)
    far = BoxPrompt(((100.0, 0.0, 0.0), (110.0, 5.0, 5.0)))
    for asked, error, message in (
        (replace(request(volume), model_id="other"), UnknownModelError, "no model is called 'other'; there are: fake"),
        (replace(request(volume), volume_key="0"), InputError, "an image that was not sent"),
        (request(volume, point), PromptError, r"segments\[0\].prompts\[0\].type: .* does not understand points"),
        (request(volume, negative), PromptError, "negative boxes"),
        (request(volume, AROUND, far), PromptError, r"segments\[0\].prompts\[1\].corners: lies wholly outside"),
        (request(volume, intensity="nonsense"), InputError, "unknown intensity policy"),
        (request(volume, intensity="display"), InputError, "display window"),
    ):
        with pytest.raises(error, match=message):
            engine.predict(asked, Progress())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_with_holes_is_not_taken_in(engine, value):
    array = np.random.default_rng(1).normal(size=SHAPE)
    array[3, 3, 3] = value
    with pytest.raises(InputError, match="1 values that are not a number or infinite"):
        engine.add_volume(volume_of(array))


def test_a_constant_image_is_not_taken_in(engine):
    with pytest.raises(InputError, match="constant"):
        engine.add_volume(volume_of(np.full(SHAPE, 3, np.int16)))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (RuntimeError("CUDA out of memory.\nTried to allocate"), "the model could not answer: CUDA out of memory."),
        (RuntimeError("\n\n"), "the model could not answer: RuntimeError"),
        (MemoryError(), "the model could not answer: MemoryError"),
    ],
)
@pytest.mark.parametrize("step", ["load", "encode", "decode"])
def test_a_fault_of_the_framework_is_an_inference_error(tmp_path, model, monkeypatch, step, fault, message):
    def fail(*arguments):
        raise fault

    if step == "load":
        monkeypatch.setattr(engine_module, "load_slice_model", fail)
    else:
        monkeypatch.setattr(FakeModel, step, fail)
    engine = new_engine(tmp_path)
    with pytest.raises(InferenceError) as caught:
        predict(engine, ct())
    assert str(caught.value).startswith(message)
    assert ("it ran out again: close other programs" in str(caught.value)) == ("emory" in message)


def test_after_a_fault_the_engine_goes_on(engine, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch, pytest.raises(InferenceError):
        patch.setattr(FakeModel, "decode", fail)
        predict(engine, ct())
    assert predict(engine, ct()).segments[0].mask.voxels == 4 * 4 * 5


def test_a_missing_package_is_named(tmp_path, model, monkeypatch):
    def load(*arguments):
        raise ModuleNotFoundError("No module named 'fakelib'", name="fakelib")

    monkeypatch.setattr(engine_module, "load_slice_model", load)
    with pytest.raises(
        PackageMissingError, match='needs the Python package fakelib; install it with: pip install "fakelib"'
    ):
        predict(new_engine(tmp_path), ct())
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(PackageMissingError, match="needs the Python package torch"):
        predict(new_engine(tmp_path), ct())


def test_a_missing_device_is_found_before_a_download(tmp_path, monkeypatch):
    def refuse(choice):
        raise InferenceError(f"no {choice}")

    monkeypatch.setattr(engine_module, "choose_device", refuse)
    monkeypatch.setattr(engine_module, "ensure_checkpoint", lambda *arguments: pytest.fail("downloaded"))
    with pytest.raises(InferenceError, match="no cuda"):
        predict(new_engine(tmp_path, device="cuda"), ct())


def test_a_model_without_an_adapter_is_refused_before_a_download(tmp_path, model, monkeypatch):
    monkeypatch.setattr(engine_module, "ensure_checkpoint", lambda *arguments: pytest.fail("downloaded"))
    engine = new_engine(tmp_path)
    engine.catalogue = {"fake": fake_card(family="not-yet")}
    with pytest.raises(CardError, match="fake: this version cannot run it"):
        predict(engine, ct())


def test_a_damaged_checkpoint_is_refused(tmp_path, model):
    store = fill_store(tmp_path)
    store.file_path(fake_card(), fake_card().source.files[0]).write_bytes(b"x")
    with pytest.raises(CheckpointError, match="damaged"):
        predict(new_engine(tmp_path), ct())


def test_a_request_that_was_stopped_before_it_began_does_nothing(engine, model):
    token, volume = CancelToken(), ct()
    engine.add_volume(volume)
    token.cancel()
    with pytest.raises(Cancelled):
        engine.predict(request(volume), Progress(token=token))
    assert model.encoded == []


def test_colour_is_refused_where_the_model_does_not_understand_it(model, tmp_path):
    card = fake_card(channels=[1])
    engine = Engine({card.id: card}, fill_store(tmp_path, card))
    colour = replace(ct(), array_kji=np.repeat(ct().array_kji[..., None], 3, axis=3))
    engine.add_volume(colour)
    with pytest.raises(InputError, match="colour"):
        engine.predict(request(colour), Progress())


def test_a_way_to_hand_over_that_the_model_lacks_is_refused(engine):
    with pytest.raises(InputError, match="mask"):
        predict(engine, ct(), propagation=Propagation(hand_over="mask"))
    with pytest.raises(PromptError, match="no slice may be reached"):
        flat = BoxPrompt(((3.0, 2.0, 2.0), (9.0, 7.0, 2.0)))
        predict(engine, ct(), flat, propagation=Propagation(start=6))


def test_an_encoding_is_ended_in_its_midst_and_not_kept(engine, monkeypatch):
    token, volume = CancelToken(), ct()
    engine.add_volume(volume)

    def encode(self, image, check):
        token.cancel()
        check()
        pytest.fail("went on")

    with monkeypatch.context() as patch, pytest.raises(Cancelled):
        patch.setattr(FakeModel, "encode", encode)
        engine.predict(request(volume), Progress(token=token))
    assert len(engine.cache) == 0
    assert predict(engine, volume).segments[0].mask.voxels == 4 * 4 * 5


def test_a_request_that_asks_for_nothing_is_refused(engine):
    volume = ct()
    engine.add_volume(volume)
    for segments in ((), (SegmentPrompts("Empty", ()),)):
        with pytest.raises(PromptError, match="without a prompt"):
            engine.predict(PredictRequest(7, "fake", volume.key, segments), Progress())
