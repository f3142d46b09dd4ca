import numpy as np
import pytest

from FoundationSegLib.engine.volumes import place_in_volume
from FoundationSegLib.errors import PromptError
from FoundationSegLib.imaging.geometry import Box, geometry_from_spacing
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.models.protocols import VolumeBox, VolumePoint, VolumeVoxels, VolumeWords
from FoundationSegLib.progress import Progress
from FoundationSegLib.prompts.kinds import (
    BoxPrompt,
    ClassPrompt,
    LassoPrompt,
    MaskPrompt,
    PointPrompt,
    Polarity,
    ScribblePrompt,
    SegmentPrompts,
    TextPrompt,
)
from FoundationSegLib.requests.segmentation import PredictRequest, Propagation
from Testing.unit.engine.engine_cases import BRIGHT, SHAPE, ct, new_engine, predict
from Testing.unit.fakes import FakeVolumeModel, fake_card, volume_of

CARD = {
    "dimensions": [3],
    "channels": [1],
    "prompts": ["box", "point", "text", "class"],
    "negative": ["point"],
    "translations": {"scribble": "box+points"},
    "intensity": "raw",
}


@pytest.fixture
def model():
    return FakeVolumeModel()


@pytest.fixture
def engine(model, tmp_path):
    return new_engine(tmp_path, model, fake_card(**CARD))


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
    assert engine.views.nbytes == 500
    engine.remove_volume(volume.key)
    assert (engine.views.nbytes, engine.views.volume_key) == (0, "")


def test_the_old_view_is_gone_before_the_new_one_is_made(tmp_path):
    alive = []

    class Watching(FakeVolumeModel):
        def view(self, volume, progress):
            alive.append(engine.views.nbytes)
            return FakeVolumeModel.view(self, volume, progress)

    engine = new_engine(tmp_path, Watching(), fake_card(**CARD))
    predict(engine, ct())
    predict(engine, volume_of(ct().array_kji + 1))
    assert alive == [0, 0]


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


def test_a_negative_prompt_alone_is_refused_before_a_model_is_loaded(tmp_path):
    engine = new_engine(tmp_path, lambda *arguments: pytest.fail("loaded"), fake_card(**CARD))
    with pytest.raises(PromptError, match="negative point alone"):
        predict(engine, ct(), PointPrompt((4.0, 4.0, 2.0), Polarity.NEGATIVE))


GEOMETRY = geometry_from_spacing((6, 10, 12))
NO = Polarity.NEGATIVE


def placed(*prompts):
    places = [f"segments[0].prompts[{n}]" for n in range(len(prompts))]
    return place_in_volume(prompts, places, GEOMETRY)[0].parts


def voxels(*indices):
    mask = np.zeros(GEOMETRY.shape_kji, np.bool_)
    for index in indices:
        mask[index] = True
    return pack_mask(mask)


def test_every_kind_is_put_into_voxels_and_keeps_its_place_and_order():
    seed = voxels((1, 2, 3))
    ring = ((1.0, 1.0, 2.0), (3.0, 1.0, 2.0), (3.0, 3.0, 2.0), (1.0, 3.0, 2.0))
    found = placed(
        MaskPrompt("a", "b", voxels=seed),
        PointPrompt((4.4, 5.0, 2.0)),
        BoxPrompt(((1.0, 2.0, 3.0), (4.0, 5.0, 3.0)), NO),
        BoxPrompt(((1.0, 2.0, 3.0), (4.0, 5.0, 9.0))),
        ScribblePrompt(((2.0, 2.0, 1.0), (4.0, 2.0, 1.0)), polarity=NO),
        LassoPrompt(ring),
        TextPrompt("liver"),
        ClassPrompt("7"),
    )
    assert found[:6] == (
        VolumeVoxels("mask", seed),
        VolumePoint((2, 5, 4)),
        VolumeBox(Box((3, 2, 1), (4, 6, 5)), False),
        VolumeBox(Box((3, 2, 1), (6, 6, 5))),
        VolumeVoxels("scribble", voxels((1, 2, 2), (1, 2, 3), (1, 2, 4)), False),
        found[5],
    )
    assert found[5].kind == "lasso" and found[5].voxels.expand(GEOMETRY.shape_kji)[2, 2, 2]
    assert found[6:] == (VolumeWords("text", "liver"), VolumeWords("class", "7"))
    assert [part.location for part in found] == [f"segments[0].prompts[{n}]" for n in range(8)]


def test_parts_that_say_the_same_are_equal_wherever_they_stand():
    assert placed(PointPrompt((4.4, 5.0, 2.0)))[0] == placed(TextPrompt("a"), PointPrompt((3.6, 5.0, 2.0)))[1]


@pytest.mark.parametrize(
    ("prompts", "message", "place"),
    [
        ((PointPrompt((1.0, 1.0, 1.0), NO),), "negative point alone does not say", "segments[0].prompts[0].polarity"),
        ((TextPrompt("a"), PointPrompt((99.0, 1.0, 1.0))), "wholly outside", "segments[0].prompts[1].position"),
        ((MaskPrompt("a", "b"),), "was not read", "segments[0].prompts[0].file"),
    ],
)
def test_what_says_nothing_is_refused_with_its_place(prompts, message, place):
    with pytest.raises(PromptError, match=message) as caught:
        placed(*prompts)
    assert caught.value.location == place
