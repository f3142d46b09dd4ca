"""Quality of scores: areas, calibration and confusion against plain definitions, and the bootstrap intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.errors import InputError
from FoundationSegLib.evaluation.classification import (
    areas_under_curves,
    calibration_error,
    evaluate_scores,
    predictions,
)


@st.composite
def scored(draw, fewest=1):
    """Truth and scores, with ties, of up to 40 images."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images, labels = draw(st.integers(2, 40)), draw(st.integers(fewest, 5))
    scores = np.round(rng.random((images, labels)), draw(st.integers(1, 6)))
    return rng.random((images, labels)) < 0.4, scores


@given(scored())
def test_the_area_is_the_chance_to_be_ahead(case):
    truth, scores = case
    areas = areas_under_curves(truth, scores)
    for n, area in enumerate(areas):
        positive, negative = scores[truth[:, n], n], scores[~truth[:, n], n]
        if not positive.size or not negative.size:
            assert np.isnan(area)
            continue
        ahead, ties = positive[:, None] > negative, positive[:, None] == negative
        assert area == pytest.approx((ahead + 0.5 * ties).mean())


@given(scored())
def test_findings_are_counted_by_truth_and_prediction(case):
    truth, scores = case
    quality = evaluate_scores(tuple("abcde"[: truth.shape[1]]), truth, scores, False, resamples=0)
    positive = scores >= 0.5
    for n, counts in enumerate(quality.confusion):
        plain = [[np.sum((truth[:, n] == t) & (positive[:, n] == p)) for p in (False, True)] for t in (False, True)]
        assert np.array_equal(counts, plain)
    assert quality.accuracy.value == pytest.approx(np.mean(truth == positive))


@given(scored(fewest=2))
def test_exclusive_labels_are_counted_by_truth_and_prediction(case):
    scores = case[1] + np.arange(case[1].shape[1]) * 1e-9
    right = np.random.default_rng(0).integers(0, scores.shape[1], len(scores))
    truth = np.eye(scores.shape[1], dtype=bool)[right]
    quality = evaluate_scores(tuple("abcde"[: scores.shape[1]]), truth, scores, True, resamples=0)
    plain = np.zeros((scores.shape[1],) * 2, int)
    for row, column in zip(right, scores.argmax(axis=1), strict=True):
        plain[row, column] += 1
    assert np.array_equal(quality.confusion, plain)
    assert quality.accuracy.value == pytest.approx(np.trace(plain) / len(scores))


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
        auc, again = (evaluate_scores(("a", "b"), truth, scores, False, resamples=200).auc for _ in range(2))
        assert auc.low <= auc.value <= auc.high and auc == again
        return auc.high - auc.low

    assert width(400) < 0.6 * width(40)


def test_a_label_without_both_kinds_has_no_area():
    truth = np.array([[True, False], [True, False]])
    quality = evaluate_scores(("a", "b"), truth, np.full((2, 2), 0.5), True, resamples=10)
    assert quality.labels[0].auc.value is None and quality.auc.value is None
    assert (quality.labels[0].positives, quality.labels[1].negatives) == (2, 2)


def test_predictions_and_their_confidence():
    correct, confidence = predictions(np.array([[True, False]]), np.array([[0.3, 0.2]]), False)
    assert correct.tolist() == [False, True] and confidence == pytest.approx([0.7, 0.8])


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(InputError, match="no image"):
        evaluate_scores(("a", "b"), np.zeros((0, 2), bool), np.zeros((0, 2)), False)
    with pytest.raises(InputError, match="exactly one"):
        evaluate_scores(("a", "b"), np.ones((3, 2), bool), np.zeros((3, 2)), True)
