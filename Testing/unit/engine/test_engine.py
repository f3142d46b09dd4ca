import sys
from dataclasses import replace

import numpy as np
import pytest

from FoundationSegLib.core.errors import (
    Cancelled,
    CardError,
    CheckpointError,
    InferenceError,
    InputError,
    PromptError,
    UnknownModelError,
    VolumeMissingError,
)
from FoundationSegLib.core.mask import EMPTY_MASK, pack_mask
from FoundationSegLib.core.progress import CancelToken, Progress
from FoundationSegLib.core.prompts import BoxPrompt, MaskPrompt, PointPrompt, Polarity, ScribblePrompt, SegmentPrompts
from FoundationSegLib.core.requests import MemoryBudget, PredictRequest, Propagation
from FoundationSegLib.engine import engine as engine_module
from FoundationSegLib.engine.cache import EmbeddingCache
from FoundationSegLib.engine.engine import Engine, engine_within
from FoundationSegLib.hub.store import Store
from Testing.unit.fakes import SHA256, FakeModel, fake_card, fill_store, volume_of

SHAPE = (6, 10, 12)
BRIGHT = (slice(1, 5), slice(3, 7), slice(4, 9))
AROUND = BoxPrompt(((3.0, 2.0, 1.0), (9.0, 7.0, 4.0)))


def ct():
    """-1000 with a block of 200 in it, as a scanner would give it."""
    array = np.full(SHAPE, -1000, np.int16)
    array[BRIGHT] = 200
    return volume_of(array)


@pytest.fixture
def model(monkeypatch):
    """The fake model, instead of whatever adapter a card asks for."""
    fake = FakeModel()
    monkeypatch.setattr(engine_module, "load_slice_model", lambda card, files, device: fake)
    monkeypatch.setattr(engine_module, "choose_device", lambda choice: "cpu" if choice == "auto" else choice)
    return fake


@pytest.fixture
def engine(model, tmp_path):
    return new_engine(tmp_path / "store")


def new_engine(folder, **fields):
    card, store = fake_card(), Store(folder)
    return Engine({card.id: card}, fill_store(folder) if store.status(card) == "absent" else store, **fields)


def request(volume, *prompts, **fields):
    segment = SegmentPrompts("Block", prompts or (AROUND,))
    return PredictRequest(7, "fake", volume.key, (segment,), **fields)


def predict(engine, volume, *prompts, **fields):
    engine.add_volume(volume)
    return engine.predict(request(volume, *prompts, **fields), Progress())


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
    assert steps == 2 * engine_module.SLICES_AHEAD
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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_with_holes_is_not_taken_in(engine, value):
    array = np.random.default_rng(1).normal(size=SHAPE)
    array[3, 3, 3] = value
    with pytest.raises(InputError, match="1 values that are not a number or infinite"):
        engine.add_volume(volume_of(array))


def test_a_constant_image_is_not_taken_in(engine):
    with pytest.raises(InputError, match="constant"):
        engine.add_volume(volume_of(np.full(SHAPE, 3, np.int16)))


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
    assert str(caught.value) == message


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
        InferenceError, match='needs the Python package fakelib; install it with: pip install "fakelib"'
    ):
        predict(new_engine(tmp_path), ct())
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InferenceError, match="needs the Python package torch"):
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


EVERYTHING = {"prompts": ["box", "point", "mask"], "negative": ["point"], "translations": {"scribble": "points"}}


@pytest.fixture
def open_engine(model, tmp_path):
    """An engine whose model understands points and masks, too."""
    card = fake_card(**EVERYTHING)
    return Engine({card.id: card}, fill_store(tmp_path, card))


def click(x, y, z, polarity="positive", plane=None):
    return PointPrompt((float(x), float(y), float(z)), Polarity(polarity), plane)


def found(prediction, number=0):
    return prediction.segments[number].mask.expand(SHAPE)


def test_a_click_finds_what_is_under_it_on_its_slice(open_engine, model):
    mask = found(predict(open_engine, ct(), click(5, 4, 2)))
    wanted = np.zeros(SHAPE, np.bool_)
    wanted[2, 3:7, 4:8] = True
    assert np.array_equal(mask, wanted), "two pixels around (5, 4), inside the block"


@pytest.mark.parametrize(("axis", "place"), [("i", (5, 4, 2)), ("j", (5, 4, 2)), ("k", (5, 4, 2))])
def test_a_click_lies_on_the_slice_of_its_plane(open_engine, axis, place):
    mask = found(predict(open_engine, ct(), click(*place, plane=axis)))
    n = {"i": 2, "j": 1, "k": 0}[axis]
    assert set(np.nonzero(mask)[n]) == {place[2 - n]}
    assert mask[2, 4, 5]


def test_a_click_is_carried_on_and_a_negative_one_corrects_on_the_way(open_engine):
    alone = found(predict(open_engine, ct(), click(5, 4, 2)))
    carried = found(predict(open_engine, ct(), click(5, 4, 2), propagation=Propagation()))
    corrected = predict(open_engine, ct(), click(5, 4, 2), click(4, 6, 3, "negative"), propagation=Propagation())
    assert set(np.nonzero(alone)[0]) == {2}
    assert set(np.nonzero(carried)[0]) == {1, 2, 3, 4}
    assert carried[3, 6, 4] and not found(corrected)[3, 6, 4]
    assert np.array_equal(carried[:3], found(corrected)[:3]), "below the correction nothing changes"
    assert corrected.counts["decodes"] < 4, "and is not asked again"


@pytest.mark.parametrize(
    ("fields", "slices"),
    [
        ({"direction": "up"}, {2, 3, 4}),
        ({"direction": "down"}, {1, 2}),
        ({"start": 2, "stop": 4}, {2, 3}),
        ({"start": 3}, {2, 3, 4}),
        ({"start": 4}, {2}),
        ({"stop": 1}, {2}),
        ({"stop": 2}, {1, 2}),
        ({"stop": 100}, {1, 2, 3, 4}),
    ],
)
def test_propagation_keeps_to_its_range_and_direction(open_engine, fields, slices):
    answer = predict(open_engine, ct(), click(5, 4, 2), propagation=Propagation(**fields))
    assert set(np.nonzero(found(answer))[0]) == slices, "and nothing is reached through what may not be"


@pytest.mark.parametrize("way", ["box", "mask", "points"])
def test_a_mask_is_handed_over_as_what_was_asked_for(open_engine, model, way):
    predict(open_engine, ct(), click(5, 4, 2), propagation=Propagation(hand_over=way, direction="up"))
    prompt, _ = model.asked[1]
    assert [prompt.box is not None, prompt.mask is not None, bool(prompt.points)] == [
        way == "box",
        way == "mask",
        way == "points",
    ]


def test_a_way_to_hand_over_that_the_model_lacks_is_refused(engine):
    with pytest.raises(InputError, match="mask"):
        predict(engine, ct(), propagation=Propagation(hand_over="mask"))
    with pytest.raises(PromptError, match="no slice may be reached"):
        flat = BoxPrompt(((3.0, 2.0, 2.0), (9.0, 7.0, 2.0)))
        predict(engine, ct(), flat, propagation=Propagation(start=6))


def test_a_negative_click_alone_is_refused_with_its_place(open_engine):
    with pytest.raises(PromptError, match="negative point alone") as caught:
        predict(open_engine, ct(), click(5, 4, 2), click(5, 4, 3, "negative"))
    assert caught.value.place == "segments[0].prompts[1]"


def test_a_mask_prompt_is_asked_on_each_of_its_slices(open_engine, model):
    seed = np.zeros(SHAPE, np.bool_)
    seed[2:4, 4:6, 5:8] = True
    prompt = MaskPrompt("seed.seg.nrrd", "Block", voxels=pack_mask(seed))
    assert np.array_equal(found(predict(open_engine, ct(), prompt)), seed)
    with pytest.raises(PromptError, match="was not read"):
        predict(open_engine, ct(), replace(prompt, voxels=None))


def test_a_translated_prompt_is_noted(open_engine, model):
    stroke = ScribblePrompt(((4.0, 4.0, 2.0), (8.0, 5.0, 2.0)))
    answer = predict(open_engine, ct(), stroke)
    assert answer.notes == ("segments[0].prompts[0]: the scribble became 5 points, which Fake Model understands",)
    assert len(model.asked) == 5, "as it grew"
    assert found(answer)[2, 3:7, 4:9].all()


def test_segments_are_found_together_and_each_slice_is_encoded_once(open_engine, model):
    volume = ct()
    open_engine.add_volume(volume)
    open_engine.cache = EmbeddingCache(0)
    right, left = SegmentPrompts("Right", (click(4, 4, 2),)), SegmentPrompts("Left", (click(8, 6, 4),))
    asked = PredictRequest(7, "fake", volume.key, (right, left), propagation=Propagation())
    together = open_engine.predict(asked, Progress())
    encodes = list(model.encoded)
    for number, segment in enumerate((right, left)):
        alone = open_engine.predict(replace(asked, segments=(segment,)), Progress())
        assert alone.segments[0] == together.segments[number]
    # The model's memory holds a single slice: each is passed once upwards and once downwards by both.
    assert len(encodes) == together.counts["encodes"] <= 2 * SHAPE[0]
    (note,) = (note for note in together.notes if "encoded again" in note)
    assert note == f"encoded again, for want of memory: {len(encodes) - SHAPE[0]} of {len(encodes)} slices"


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
