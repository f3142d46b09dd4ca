from dataclasses import replace

import numpy as np
import pytest

from FoundationSegLib.engine import engine as engine_module
from FoundationSegLib.engine.cache import EmbeddingCache
from FoundationSegLib.engine.engine import Engine, engine_within
from FoundationSegLib.engine.outlook import SLICES_AHEAD
from FoundationSegLib.errors import Cancelled, InputError, UnknownModelError, VolumeMissingError
from FoundationSegLib.hub.store import Store
from FoundationSegLib.imaging.masks import EMPTY_MASK
from FoundationSegLib.progress import CancelToken, Progress
from FoundationSegLib.prompts.kinds import BoxPrompt
from FoundationSegLib.requests.segmentation import Propagation
from FoundationSegLib.requests.worker_settings import MemoryBudget
from Testing.unit.engine.engine_cases import AROUND, BRIGHT, SHAPE, ct, new_engine, predict, request
from Testing.unit.fakes import SHA256, FakeModel, fake_card, fill_store, volume_of


def test_an_answer_says_what_was_found_and_how(engine, model):
    prediction = predict(engine, ct())
    wanted = np.zeros(SHAPE, np.bool_)
    wanted[BRIGHT] = True
    assert np.array_equal(prediction.segments[0].mask.expand(SHAPE), wanted)
    assert prediction.request_id == 7
    assert prediction.segments[0].score == 0.75
    assert prediction.intensity["rule"] == "ct-soft-tissue"
    assert prediction.checkpoint.to_document() == {
        "id": "fake",
        "source": "fake-wheel",
        "revision": "1.0",
        "sha256": SHA256,
    }
    assert (prediction.device, prediction.precision) == ("cpu", "float32")
    assert prediction.counts == {"encodes": 4, "decodes": 4}
    assert set(prediction.timings_s) == {"load", "encode", "decode"}
    assert min(prediction.timings_s.values()) >= 0
    assert prediction.notes == ()


def test_a_second_prompt_on_a_slice_never_encodes_again(engine, model):
    first = predict(engine, ct())
    second = predict(engine, ct(), BoxPrompt(((2.0, 2.0, 2.0), (9.0, 7.0, 3.0))))
    assert (first.counts["encodes"], second.counts["encodes"]) == (4, 0)
    assert second.counts["decodes"] == 2
    assert len(model.encoded) == 4


def test_another_intensity_encodes_again(engine):
    assert predict(engine, ct()).counts["encodes"] == 4
    assert predict(engine, ct(), intensity="ct-lung").counts["encodes"] == 4
    assert predict(engine, ct(), intensity="400,40").counts["encodes"] == 0, "the same window by another name"


def test_a_new_engine_gives_the_same_answer(model, tmp_path):
    prompts = (AROUND, BoxPrompt(((4.0, 3.0, 0.0), (6.0, 6.0, 0.0))))
    answers = [predict(new_engine(tmp_path), ct(), *prompts, propagation=Propagation()) for _ in range(2)]
    warm = new_engine(tmp_path)
    predict(warm, ct(), BoxPrompt(((0.0, 0.0, 0.0), (5.0, 5.0, 5.0))))
    answers += [predict(warm, ct(), *prompts, propagation=Propagation()) for _ in range(2)]
    tight = new_engine(tmp_path, cache=EmbeddingCache(1500))
    answers.append(predict(tight, ct(), *prompts, propagation=Propagation()))
    assert len({answer.segments[0].mask for answer in answers}) == 1
    assert len({answer.segments[0].score for answer in answers}) == 1


def test_a_flat_box_changes_its_slice_and_is_carried_on_when_asked(engine):
    box = BoxPrompt(((3.0, 2.0, 2.0), (9.0, 7.0, 2.0)))
    alone, carried = predict(engine, ct(), box), predict(engine, ct(), box, propagation=Propagation())
    assert (alone.segments[0].mask.box.start_kji[0], alone.segments[0].mask.box.stop_kji[0]) == (2, 3)
    assert (carried.segments[0].mask.box.start_kji[0], carried.segments[0].mask.box.stop_kji[0]) == (1, 5)


def test_a_3d_box_is_not_left_unless_the_official_rule_is_wanted(tmp_path, model):
    array = np.full(SHAPE, -1000, np.int16)
    array[1:5, 3:7, 2:12] = 200
    box = BoxPrompt(((2.0, 3.0, 1.0), (5.0, 6.0, 4.0)))
    stays = predict(new_engine(tmp_path), volume_of(array), box)
    leaves = predict(new_engine(tmp_path, box_rule="official"), volume_of(array), box)
    assert stays.segments[0].mask.box.stop_kji == (5, 7, 6)
    assert leaves.segments[0].mask.box.stop_kji == (5, 7, 8), "one pixel more with every slice away from the middle"


def test_clipping_and_empty_answers_are_noted(engine):
    outside = BoxPrompt(((-5.0, 2.0, 1.0), (9.0, 7.0, 4.0)))
    assert predict(engine, ct(), AROUND, outside).notes == ("segments[0].prompts[1].corners: clipped to the image",)
    empty = predict(engine, ct(), BoxPrompt(((0.0, 0.0, 1.0), (2.0, 2.0, 4.0))))
    assert empty.segments[0].mask == EMPTY_MASK
    assert empty.segments[0].score is None
    assert empty.notes == ("segments[0]: the model found nothing",)


def test_the_modality_decides_what_auto_means_whatever_was_asked_before(engine):
    unknown, mr = ct(), replace(ct(), modality="MR")
    assert unknown.key == mr.key
    assert predict(engine, unknown).intensity["rule"] == "ct-soft-tissue"
    assert predict(engine, mr).intensity["rule"] == "percentile"


def test_the_display_window_may_change_between_requests(engine):
    lows = [
        predict(engine, replace(ct(), window_level=window), intensity="display").intensity["low"]
        for window in ((400.0, 40.0), (200.0, 0.0))
    ]
    assert lows == [-160.0, -100.0]
    with pytest.raises(InputError, match="display window"):
        predict(engine, ct(), intensity="display")


def test_an_engine_keeps_no_more_than_its_budget(model, tmp_path):
    card, store = fake_card(), fill_store(tmp_path)
    first, second = ct(), volume_of(ct().array_kji + 1)
    engine = engine_within(MemoryBudget(first.array_kji.nbytes, 3000, 10), {card.id: card}, store, "cpu", "surest")
    predict(engine, first)
    assert (list(engine.volumes), engine.cache.nbytes) == ([first.key], 3000)
    predict(engine, second)
    assert list(engine.volumes) == [second.key]
    with pytest.raises(VolumeMissingError):
        engine.predict(request(first), Progress())
    assert list(engine.models) == ["fake"], "the newest stays, however large"


def test_slices_around_a_prompt_are_encoded_ahead(engine, model):
    volume = volume_of(np.repeat(ct().array_kji, 4, axis=0))
    box = BoxPrompt(((3.0, 2.0, 10.0), (9.0, 7.0, 10.0)))
    assert not engine.encode_ahead(Progress())
    predict(engine, volume, box)
    steps = 0
    while engine.encode_ahead(Progress()):
        steps += 1
        assert len(model.encoded) == 1 + steps, "one at a time, so that a request need not wait for more"
    assert steps == 2 * SLICES_AHEAD
    assert sorted(key.index for key in engine.cache) == list(range(5, 16))
    for index in (5, 15):
        near = BoxPrompt(((3.0, 2.0, index), (9.0, 7.0, index)))
        assert predict(engine, volume, near).counts["encodes"] == 0


def test_encoding_ahead_ends_at_the_edge_and_stops_when_told(engine, model):
    predict(engine, ct(), BoxPrompt(((3.0, 2.0, 1.0), (9.0, 7.0, 1.0))))
    token = CancelToken()
    assert engine.encode_ahead(Progress(token=token))
    token.cancel()
    with pytest.raises(Cancelled):
        engine.encode_ahead(Progress(token=token))
    while engine.encode_ahead(Progress()):
        pass
    assert sorted(key.index for key in engine.cache) == list(range(SHAPE[0])), "none was left out by the stop"


def test_a_model_is_prepared_but_not_downloaded_for_it(model, tmp_path, monkeypatch):
    loads = []
    monkeypatch.setattr(engine_module, "load_slice_model", lambda *arguments: loads.append(arguments) or model)
    engine = new_engine(tmp_path / "store")
    engine.prepare("fake", Progress())
    engine.prepare("fake", Progress())
    assert [predict(engine, ct()).timings_s["load"] > 0 for _ in range(2)] == [True, False], "told once"
    assert len(loads) == 1
    with pytest.raises(UnknownModelError):
        engine.prepare("other", Progress())
    monkeypatch.setattr(engine_module, "ensure_checkpoint", lambda *arguments: pytest.fail("downloaded"))
    card = fake_card()
    Engine({card.id: card}, Store(tmp_path / "empty")).prepare("fake", Progress())


def test_a_removed_volume_is_gone(engine):
    volume = ct()
    predict(engine, volume)
    engine.remove_volume(volume.key)
    engine.remove_volume(volume.key)
    with pytest.raises(InputError, match="was not sent"):
        engine.predict(request(volume), Progress())
    assert len(engine.cache) == 0, "and what was seen of it"
    assert not engine.encode_ahead(Progress())
    assert predict(engine, volume).counts["encodes"] == 4


def test_the_model_is_loaded_once_with_the_files_and_device(tmp_path, monkeypatch):
    calls, fake = [], FakeModel()

    def load(card, files, device):
        calls.append((card.id, files["fake/fake.pth"].name, device))
        return fake

    monkeypatch.setattr(engine_module, "load_slice_model", load)
    engine = new_engine(tmp_path, device="cpu")
    predict(engine, ct())
    predict(engine, ct())
    assert calls == [("fake", "fake.pth", "cpu")]
