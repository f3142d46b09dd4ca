import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from FoundationSegLib.errors import InputError
from FoundationSegLib.requests.scoring import Aggregation, parse_aggregation

SCORES = st.integers(1, 12).flatmap(lambda n: arrays(np.float64, (n, 3), elements=st.floats(0, 1)))


@given(SCORES, st.integers(1, 20))
def test_each_rule_does_what_it_says(scores, k):
    assert np.allclose(Aggregation("mean")(scores), scores.mean(axis=0))
    assert np.allclose(Aggregation("max")(scores), scores.max(axis=0))
    expected = [np.mean(sorted(column)[-k:]) for column in scores.T]
    assert np.allclose(Aggregation("top-k", k)(scores), expected)


@given(SCORES, st.permutations(range(12)), st.sampled_from(["mean", "max", "top-k"]))
def test_the_order_of_slices_does_not_matter_and_blank_ones_do_not_count(scores, order, rule):
    aggregation = Aggregation(rule, 3)
    shuffled = scores[[n for n in order if n < len(scores)]]
    assert np.allclose(aggregation(shuffled), aggregation(scores))
    blank = np.vstack([np.full((2, 3), np.nan), scores, np.full((1, 3), np.nan)])
    assert np.array_equal(aggregation(blank), aggregation(scores))


def test_no_slice_is_no_score():
    with pytest.raises(InputError, match="no slice"):
        Aggregation()(np.full((3, 2), np.nan))
    with pytest.raises(InputError, match="at least one"):
        Aggregation("top-k", 0)


def test_aggregations_have_names():
    for text in ("mean", "max", "top-7"):
        assert str(parse_aggregation(text)) == text
    for text in ("", "median", "top", "top-", "top-x", "top--1", "top-0", "top-9999999", "top-²"):
        with pytest.raises(InputError):
            parse_aggregation(text)
