import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from FoundationSegLib.catalog.label_sets import Label, LabelSet
from FoundationSegLib.errors import InputError
from FoundationSegLib.requests.scoring import (
    Aggregation,
    Head,
    LabelVectors,
    Scoring,
    choose_rule,
    contrast,
    joined,
    leads,
    logistic,
    margins,
    parse_aggregation,
    scores,
    wording_scores,
)

HEAD, SIGMOID = Head(100.0), Head(50.0, -12.0, is_sigmoid=True)
RULES = ("softmax", "pairs", "sigmoid", "concepts")


def vectors(rng, *shape):
    made = rng.normal(size=shape)
    return made / np.linalg.norm(made, axis=-1, keepdims=True)


@st.composite
def cases(draw):
    """Pictures and labels of a few texts each."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels, width = draw(st.integers(2, 6)), draw(st.integers(2, 16))
    texts = LabelVectors(
        tuple(vectors(rng, draw(st.integers(1, 4)), width) for _ in range(labels)),
        tuple(vectors(rng, draw(st.integers(1, 4)), width) for _ in range(labels)),
    )
    return vectors(rng, draw(st.integers(1, 5)), width), texts


@given(cases(), st.sampled_from(RULES), st.floats(0.01, 100), st.sampled_from([HEAD, SIGMOID]))
def test_scores_are_finite_within_0_and_1_and_sum_to_one_where_they_should(case, rule, temperature, head):
    images, texts = case
    found = scores(images, texts, rule, head, temperature)
    assert found.shape == (len(images), len(texts.positive))
    assert np.isfinite(found).all() and (found >= 0).all() and (found <= 1).all()
    if rule in ("softmax", "concepts"):
        assert np.allclose(found.sum(axis=1), 1, atol=1e-9)


@given(cases(), st.sampled_from(RULES), st.randoms(use_true_random=False))
def test_permuting_labels_permutes_scores(case, rule, random):
    images, texts = case
    order = list(range(len(texts.positive)))
    random.shuffle(order)
    other = LabelVectors(tuple(texts.positive[n] for n in order), tuple(texts.negative[n] for n in order))
    assert np.allclose(scores(images, other, rule, HEAD), scores(images, texts, rule, HEAD)[:, order], atol=1e-12)
    for n, m in enumerate(order):
        assert np.allclose(contrast(images, other, rule, n), contrast(images, texts, rule, m), atol=1e-12)
        one, two = wording_scores(images, other, rule, HEAD)[n], wording_scores(images, texts, rule, HEAD)[m]
        assert np.allclose(one, two, atol=1e-12)


@given(cases())
def test_the_plain_formulas(case):
    images, texts = case
    positive, negative = (np.stack([joined(one) for one in some]) for some in (texts.positive, texts.negative))
    z = 7 * images @ positive.T
    assert np.allclose(scores(images, texts, "softmax", Head(7.0)), np.exp(z) / np.exp(z).sum(axis=1, keepdims=True))
    y = 7 * images @ negative.T
    assert np.allclose(scores(images, texts, "pairs", Head(7.0)), np.exp(z) / (np.exp(z) + np.exp(y)))
    assert np.allclose(scores(images, texts, "sigmoid", Head(7.0, -2.0, True)), 1 / (1 + np.exp(2 - z)))
    means = np.stack([(7 * images @ one.T).mean(axis=1) for one in texts.positive], axis=1) / 3
    expected = np.exp(means) / np.exp(means).sum(axis=1, keepdims=True)
    assert np.allclose(scores(images, texts, "concepts", Head(7.0), temperature=3.0), expected)


@given(cases(), st.sampled_from(["softmax", "pairs", "sigmoid"]))
def test_one_text_alone_has_no_spread(case, rule):
    images, texts = case
    alone = LabelVectors(tuple(one[:1] for one in texts.positive), texts.negative)
    wording = wording_scores(images, alone, rule, HEAD)
    assert np.allclose(np.concatenate(wording, axis=1), scores(images, alone, rule, HEAD), atol=1e-9)


def test_temperature_evens_and_keeps_the_order():
    rng = np.random.default_rng(0)
    images, texts = vectors(rng, 1, 8), LabelVectors(tuple(vectors(rng, 1, 8) for _ in range(5)))
    cold, usual, hot = (scores(images, texts, "softmax", HEAD, t)[0] for t in (0.5, 1.0, 1000.0))
    assert cold.max() > usual.max() > hot.max() and np.allclose(hot, 0.2, atol=0.05)
    assert list(np.argsort(cold)) == list(np.argsort(usual)) == list(np.argsort(hot))


def test_extreme_logits_do_not_overflow():
    images = np.array([[1.0, 0.0]])
    texts = LabelVectors((np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]]), np.array([[-1.0, 0.0]])))
    with np.errstate(all="raise", under="ignore"):
        found = scores(images, texts, "softmax", Head(1e4), 1e-3)
    assert found.tolist() == [[1, 0, 0]]
    assert logistic(np.array([-1e9, 0, 1e9])).tolist() == [0, 0.5, 1]


def test_texts_that_cancel_out_have_a_direction_none_the_less():
    assert np.allclose(joined(np.array([[1.0, 0], [-1.0, 0]])), [1, 0])


def test_a_lead_is_the_log_odds_of_the_score():
    rng = np.random.default_rng(1)
    images, texts = vectors(rng, 3, 8), LabelVectors(tuple(vectors(rng, 2, 8) for _ in range(4)))
    found = scores(images, texts, "softmax", Head(5.0))
    assert np.allclose(leads(images, texts, "softmax", Head(5.0)), np.log(found / (1 - found)))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_margins_tell_the_distance_to_the_best_rival(values):
    found = margins(np.array(values), "softmax")
    for n, value in enumerate(values):
        rival = max(other for m, other in enumerate(values) if m != n)
        assert found[n] == pytest.approx(value - rival)
    assert np.allclose(margins(np.array(values), "pairs"), [value - (1 - value) for value in values])


def labels(kind="exclusive", count=2, **fields):
    return LabelSet("set", "Set", kind, tuple(Label(f"label {n}") for n in range(count)), **fields)


def test_auto_takes_what_fits():
    negative = {"negative_templates": ("no {}",)}
    assert choose_rule("auto", labels(), True, False) == "softmax"
    assert choose_rule("auto", labels("findings", **negative), False, False) == "pairs"
    assert choose_rule("auto", labels("findings", **negative), True, False) == "sigmoid"
    assert choose_rule("auto", labels("findings", one_in_segment=True, **negative), False, True) == "softmax"
    assert choose_rule("auto", labels("findings", one_in_segment=True, **negative), False, False) == "pairs"
    assert choose_rule("pairs", labels(**negative), True, False) == "pairs"


@pytest.mark.parametrize(
    ("rule", "made", "is_sigmoid", "why"),
    [
        ("sigmoid", labels(), False, "not trained to score by a sigmoid"),
        ("softmax", labels(count=1), False, "give two or more"),
        ("auto", labels(count=1), False, "give two or more"),
        ("pairs", labels(), False, "'label 0' has no negation"),
        ("concepts", labels(), False, "'label 0' has no concepts"),
    ],
)
def test_rules_that_lack_what_they_need_are_refused(rule, made, is_sigmoid, why):
    with pytest.raises(InputError, match=why):
        choose_rule(rule, made, is_sigmoid, False)


@pytest.mark.parametrize("fields", [{"temperature": 0}, {"temperature": float("nan")}, {"margin": -0.1}, {"margin": 2}])
def test_numbers_out_of_range_are_refused(fields):
    with pytest.raises(InputError):
        Scoring(**fields)


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
