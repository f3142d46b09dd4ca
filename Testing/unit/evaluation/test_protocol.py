"""The protocol's settings, the models that understand them, and the means of scores."""

import pytest

from FoundationSegLib.errors import InferenceError, InputError
from FoundationSegLib.evaluation.protocol import (
    ModelScores,
    ObjectScores,
    ProtocolStep,
    area_of_clicks,
    require_protocol,
)
from FoundationSegLib.requests.segmentation import CheckpointRecord, Prediction
from Testing.unit.fakes import fake_card

CLICKABLE = {"prompts": ["point", "box"], "negative": ["point"]}


@pytest.mark.parametrize(
    ("card", "protocol", "told"),
    [
        ({"prompts": ["box"]}, "clicks", "boxes, but no clicks for and against: use --protocol box"),
        ({"prompts": ["box"]}, "box+clicks", "boxes, but no clicks for and against: use --protocol box"),
        ({"prompts": ["box", "point"]}, "clicks", "no clicks for and against"),
        ({"prompts": ["point"], "negative": ["point"]}, "box", "clicks, but no boxes: use --protocol clicks"),
        ({"prompts": ["text"]}, "box", "neither boxes nor clicks for and against, and cannot be evaluated"),
        ({"prompts": ["box"]}, "box", None),
        ({"prompts": ["point"], "negative": ["point"]}, "clicks", None),
        (CLICKABLE, "clicks", None),
        (CLICKABLE, "box+clicks", None),
    ],
)
def test_a_model_must_understand_what_a_protocol_gives(card, protocol, told):
    if told is None:
        require_protocol(fake_card(**card), protocol)
        return
    with pytest.raises(InputError, match=told):
        require_protocol(fake_card(**card), protocol)


ORIGIN = Prediction(1, (), {}, CheckpointRecord("any", "nowhere", "1", "ab"), "cpu", "float32")


def scores(*dices, box=None, **fields):
    steps = [ProtocolStep("positive click", value, value / 2, 1.0) for value in dices]
    boxes = [] if box is None else [ProtocolStep("box", box, box / 2, 3.0)]
    return ObjectScores((*boxes, *steps), fields.pop("origin", ORIGIN), **fields)


def test_the_box_has_no_part_in_the_area():
    assert scores(0.5, 1.0, box=0.1).dice_auc == scores(0.5, 1.0).dice_auc == 0.75
    assert scores(0.5, 1.0, box=0.1).nsd_auc == 0.375
    assert scores(box=0.9).dice_auc is None


def test_a_model_has_the_means_of_its_objects():
    model = ModelScores("any", {1: scores(0.2, 0.4, load_s=2.0), 5: scores(0.4, 0.8, load_s=0.5)}, 100.0)
    assert model.dice == pytest.approx((0.3, 0.6))
    assert model.nsd == pytest.approx((0.15, 0.3))
    assert model.dice_auc == pytest.approx(0.45)
    assert model.nsd_auc == pytest.approx(0.225)
    assert model.seconds == 1
    assert model.load_s == 2.5
    assert model.origin == ORIGIN
    assert model.errors == ()


def test_seconds_are_those_of_answers():
    failed = ProtocolStep("positive click", 0, 0, None, error=InferenceError("out of memory"))
    model = ModelScores("any", {1: ObjectScores((failed, ProtocolStep("none", 1, 1)), None), 2: scores(0.5, 0.5)})
    assert model.seconds == 1
    assert model.origin == ORIGIN
    assert model.errors == (failed.error,)


def test_the_area_of_five_perfect_clicks_is_4_and_of_one_click_unknown():
    assert [area_of_clicks(values) for values in ([1.0] * 5, [0.5, 1.0], [1.0], [])] == [4, 0.75, None, None]
