import pytest

from FoundationSegLib.core.errors import InferenceError
from FoundationSegLib.core.requests import CheckpointRecord
from FoundationSegLib.evaluation.scores import ModelScores, ObjectScores, Origin, Step

ORIGIN = Origin(CheckpointRecord("any", "nowhere", "1", "ab"), "cpu", "float32", {})


def scores(*dices, box=None, **fields):
    steps = [Step("positive click", value, value / 2, 1.0) for value in dices]
    boxes = [] if box is None else [Step("box", box, box / 2, 3.0)]
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
    failed = Step("positive click", 0, 0, None, error=InferenceError("out of memory"))
    model = ModelScores("any", {1: ObjectScores((failed, Step("none", 1, 1)), None), 2: scores(0.5, 0.5)})
    assert model.seconds == 1
    assert model.origin == ORIGIN
    assert model.errors == (failed.error,)


def test_a_model_that_could_not_be_evaluated_has_no_numbers():
    model = ModelScores("any", {}, error=InferenceError("out of memory"))
    assert (model.dice, model.nsd, model.dice_auc, model.nsd_auc, model.seconds) == ((), (), None, None, None)
    assert model.origin is None
