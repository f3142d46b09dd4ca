from dataclasses import replace

import numpy as np
import pytest

from FoundationSegLib.engine.cache import EmbeddingCache
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.errors import PromptError
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.progress import Progress
from FoundationSegLib.prompts.kinds import MaskPrompt, PointPrompt, Polarity, ScribblePrompt, SegmentPrompts
from FoundationSegLib.requests.segmentation import PredictRequest, Propagation
from Testing.unit.engine.engine_cases import SHAPE, ct, predict
from Testing.unit.fakes import fake_card, fill_store

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
