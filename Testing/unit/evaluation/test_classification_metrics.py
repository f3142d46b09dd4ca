import importlib.util
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.core.errors import InputError
from FoundationSegLib.evaluation.classification_metrics import (
    area_under_curve,
    calibration_error,
    curve,
    evaluate,
    what_was_said,
)


@st.composite
def scored(draw, exclusive=False):
    """Truth and scores, with ties, of up to 40 images."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images, labels = draw(st.integers(2, 40)), draw(st.integers(2, 5))
    scores = np.round(rng.random((images, labels)), draw(st.integers(1, 6)))
    if exclusive:
        scores = (scores + 0.01) / (scores + 0.01).sum(axis=1, keepdims=True)
        return np.eye(labels, dtype=bool)[rng.integers(0, labels, images)], scores
    return rng.random((images, labels)) < 0.4, scores


def names(truth):
    return tuple(f"label {n}" for n in range(truth.shape[1]))


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
@given(scored())
def test_it_is_what_scikit_learn_says(case):
    from sklearn import metrics

    truth, scores = case
    for n in range(truth.shape[1]):
        mine = area_under_curve(truth[:, n], scores[:, n])
        if mine is None:
            assert truth[:, n].all() or not truth[:, n].any()
            continue
        assert mine == pytest.approx(metrics.roc_auc_score(truth[:, n], scores[:, n]), abs=1e-12)
        false, true, _ = metrics.roc_curve(truth[:, n], scores[:, n], drop_intermediate=False)
        assert np.allclose(curve(truth[:, n], scores[:, n]), (false, true))
    quality = evaluate(names(truth), truth, scores, False, resamples=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = metrics.multilabel_confusion_matrix(truth, scores >= 0.5)
    assert np.array_equal(quality.confusion, theirs)
    assert quality.accuracy.value == pytest.approx(np.mean(truth == (scores >= 0.5)))


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
@given(scored(exclusive=True))
def test_exclusive_labels_are_what_scikit_learn_says(case):
    from sklearn import metrics

    truth, scores = case
    quality = evaluate(names(truth), truth, scores, True, resamples=0)
    said, right = scores.argmax(axis=1), truth.argmax(axis=1)
    assert np.array_equal(quality.confusion, metrics.confusion_matrix(right, said, labels=range(truth.shape[1])))
    assert quality.accuracy.value == pytest.approx(metrics.accuracy_score(right, said))


@given(scored())
def test_the_area_is_the_chance_to_be_ahead(case):
    truth, scores = case
    positive, negative = scores[truth[:, 0], 0], scores[~truth[:, 0], 0]
    found = area_under_curve(truth[:, 0], scores[:, 0])
    if not positive.size or not negative.size:
        assert found is None
        return
    ahead = positive[:, None] > negative
    ties = positive[:, None] == negative
    assert found == pytest.approx((ahead + 0.5 * ties).mean())
    assert area_under_curve(truth[:, 0], 1 - scores[:, 0]) == pytest.approx(1 - found)
    false, true = curve(truth[:, 0], scores[:, 0])
    assert np.trapezoid(true, false) == pytest.approx(found)


def test_calibration_is_perfect_where_scores_are_frequencies():
    confidence = np.repeat([0.15, 0.55, 0.95], 100)
    correct = np.concatenate([np.arange(100) < share for share in (15, 55, 95)])
    assert calibration_error(correct, confidence) == pytest.approx(0)
    assert calibration_error(np.zeros(10, bool), np.ones(10)) == 1
    assert calibration_error(np.ones(10, bool), np.full(10, 0.75)) == pytest.approx(0.25)


def test_intervals_hold_the_value_and_shrink_with_the_number_of_images():
    rng = np.random.default_rng(0)

    def width(images):
        truth = np.arange(images)[:, None] % 2 == np.arange(2)
        scores = np.clip(truth * 0.3 + rng.random((images, 2)) * 0.7, 0, 1)
        auc = evaluate(("a", "b"), truth, scores, False, resamples=200).auc
        assert auc.low <= auc.value <= auc.high
        return auc.high - auc.low

    assert width(400) < 0.6 * width(40)


def test_the_same_seed_gives_the_same_intervals():
    truth, scores = np.arange(20)[:, None] % 2 == np.arange(2), np.random.default_rng(1).random((20, 2))
    one, other = (evaluate(("a", "b"), truth, scores, True, resamples=50) for _ in range(2))
    assert one.auc == other.auc and one.accuracy == other.accuracy


def test_a_label_without_both_kinds_has_no_area():
    truth = np.array([[True, False], [True, False]])
    quality = evaluate(("a", "b"), truth, np.full((2, 2), 0.5), True, resamples=10)
    assert quality.labels[0].auc.value is None and quality.auc.value is None
    assert (quality.labels[0].positives, quality.labels[1].negatives) == (2, 2)


def test_what_was_said_with_which_score():
    correct, confidence = what_was_said(np.array([[True, False]]), np.array([[0.3, 0.2]]), False)
    assert correct.tolist() == [False, True] and confidence == pytest.approx([0.7, 0.8])


def test_nothing_to_evaluate_is_told():
    with pytest.raises(InputError, match="no image"):
        evaluate(("a", "b"), np.zeros((0, 2), bool), np.zeros((0, 2)), False)
    with pytest.raises(InputError, match="exactly one"):
        evaluate(("a", "b"), np.ones((3, 2), bool), np.zeros((3, 2)), True)
