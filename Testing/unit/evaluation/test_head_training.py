"""Heads learned from made-up vectors: calibrated, honest about what remains, and no patient on both sides."""

import numpy as np
import pytest

from FoundationSegLib.errors import InputError
from FoundationSegLib.evaluation.classification import calibration_error, evaluate_scores, predictions
from FoundationSegLib.evaluation.head_training import Examples, concept_weights, coverage_of, train_head
from Testing.unit.reader_model import CHECKPOINT

LABELS = ("a", "b", "c")
WIDTH = 32


def made_up(count, generator, centres, kind, overlap=0.45):
    """Unit vectors of classes that overlap, and the truth."""
    if kind == "exclusive":
        truth = np.eye(len(LABELS), dtype=bool)[generator.integers(0, len(LABELS), count)]
    else:
        truth = generator.random((count, len(LABELS))) < 0.4
    vectors = truth @ centres * overlap + generator.normal(size=(count, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), truth


def learn(kind, method, seed, count=200):
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(len(LABELS), WIDTH))
    vectors, truth = made_up(count, generator, centres, kind)
    examples = Examples(vectors, truth, tuple(map(str, range(count))), LABELS, kind, CHECKPOINT)
    head, scores = train_head(examples, "x", method, {})
    return head, scores, truth, made_up(3000, generator, centres, kind)


@pytest.mark.parametrize("kind", ["exclusive", "findings"])
@pytest.mark.parametrize("method", ["logistic", "neighbours"])
def test_scores_are_shares_and_what_remains_keeps_its_promise(kind, method, bar, full):
    errors, coverages, gains = [], [], []
    for seed in range(20 if full else 2):
        head, _, _, (vectors, truth) = learn(kind, method, seed)
        scores = head.scores(vectors)
        correct, confidence = predictions(truth, scores, kind == "exclusive")
        errors.append(calibration_error(correct, confidence))
        coverages.append(coverage_of(head, scores, truth, 0.9)[0])
        chance = max(truth.mean(axis=0).max(), 1 - truth.mean(axis=0).max()) if kind == "exclusive" else 0.62
        gains.append(correct.mean() - chance)
        assert head.is_calibrated and head.fold_scores(vectors[:2]).shape == (5, 2, 3)
    limits = (0.03, 0.02) if full else (0.06, 0.06)  # two seeds scatter
    bar(f"heads, {kind}, {method}: calibration error at 200 examples", np.mean(errors), f"<= {limits[0]}")
    bar(f"heads, {kind}, {method}: coverage off 0.9", abs(np.mean(coverages) - 0.9), f"<= {limits[1]}")
    assert np.mean(errors) <= limits[0] and abs(np.mean(coverages) - 0.9) <= limits[1]
    assert min(gains) > 0.1


def test_planted_concepts_are_found_exactly():
    generator = np.random.default_rng(3)
    concepts = np.linalg.qr(generator.normal(size=(WIDTH, 6)))[0].T.astype(np.float32)
    vectors = generator.normal(size=(300, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = vectors @ concepts.T
    truth = np.stack([similarity[:, 1] > 0, similarity[:, 4] + similarity[:, 5] < 0], axis=1)
    names = tuple(f"concept {n}" for n in range(6))
    patients = tuple(map(str, range(300)))
    examples = Examples(
        vectors, truth, patients, ("p", "q"), "findings", CHECKPOINT, concepts=names, concept_vectors=concepts
    )
    head, scores = train_head(examples, "x", "concepts", {})
    weights = {label: [name for other, name, _ in concept_weights(head) if other == label] for label in ("p", "q")}
    assert weights["p"][0] == "concept 1" and set(weights["q"][:2]) == {"concept 4", "concept 5"}
    signs = {(label, name): weight for label, name, weight in concept_weights(head)}
    assert signs["p", "concept 1"] > 0 > max(signs["q", "concept 4"], signs["q", "concept 5"])
    assert predictions(truth, scores, False)[0].mean() > 0.9


@pytest.mark.parametrize("method", ["logistic", "neighbours"])
def test_a_patients_images_tell_nothing_of_the_patient(method):
    """Labels are drawn by patient, and vectors say who it is and nothing else: held out, that is worth nothing."""
    generator = np.random.default_rng(5)
    patients = np.repeat(np.arange(40), 10)
    of_patient = generator.random(40) < 0.5
    vectors = generator.normal(size=(40, WIDTH))[patients] + 0.1 * generator.normal(size=(400, WIDTH))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    truth = np.stack([of_patient[patients], ~of_patient[patients]], axis=1)
    examples = Examples(vectors, truth, tuple(map(str, patients)), ("p", "q"), "exclusive", CHECKPOINT)
    _, scores = train_head(examples, "x", method, {})
    names = [str(patient) for patient in patients]
    quality = evaluate_scores(("p", "q"), truth, scores, True, 200, patients=names)
    assert quality.auc.value < 0.75 and quality.auc.low < 0.5 < quality.auc.high
    by_image = evaluate_scores(("p", "q"), truth, scores, True, 200)
    assert quality.auc.high - quality.auc.low > 1.5 * (by_image.auc.high - by_image.auc.low)


def test_the_same_examples_give_the_same_head():
    first, second = (learn("exclusive", "logistic", 7, 60)[0] for _ in range(2))
    assert first.to_document() == second.to_document()


def test_too_few_are_refused_and_few_are_not_called_calibrated():
    head, *_ = learn("exclusive", "logistic", 1, 30)
    assert not head.is_calibrated
    vectors, truth = np.eye(6, WIDTH, dtype=np.float32), np.eye(2, dtype=bool)[[0, 0, 0, 0, 1, 1]]
    with pytest.raises(InputError, match="2 patients without the label 'p'"):
        Examples(vectors, truth, tuple("abcdef"), ("p", "q"), "exclusive", CHECKPOINT)
    halves = np.eye(2, dtype=bool)[[0, 0, 0, 1, 1, 1]]
    with pytest.raises(InputError, match="1 patient with"):
        Examples(vectors, halves, tuple("abcddd"), ("p", "q"), "exclusive", CHECKPOINT)
    with pytest.raises(InputError, match="sentences"):
        learn("exclusive", "concepts", 0)


def test_precision_is_held_against_chance():
    truth = np.array([[True], [False], [False], [False]])
    for scores, gain in (([0.9, 0.1, 0.2, 0.3], 1.0), ([0.5, 0.5, 0.5, 0.5], 0.0)):
        quality = evaluate_scores(("a",), truth, np.array(scores)[:, None], False, 0)
        assert quality.labels[0].precision_gain == pytest.approx(gain)
