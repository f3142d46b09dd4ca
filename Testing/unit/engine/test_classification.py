import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.catalog.label_sets import Label, LabelSet, label_set_of
from FoundationSegLib.engine.classification import classify
from FoundationSegLib.engine.encoding import Encoder, VectorCache
from FoundationSegLib.engine.slice_inference import LoadedModel, Weights
from FoundationSegLib.errors import Cancelled, InputError, VolumeMissingError
from FoundationSegLib.imaging.geometry import Box
from FoundationSegLib.imaging.intensity import resolve_intensity_views
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.progress import CancelToken, Progress
from FoundationSegLib.prompts.kinds import SegmentPrompts, TextPrompt
from FoundationSegLib.requests.classification import ClassifyRequest, EvidenceWish, Subject
from FoundationSegLib.requests.scoring import Aggregation, Scoring
from FoundationSegLib.requests.segmentation import CheckpointRecord, PredictRequest
from Testing.unit.engine.engine_cases import new_engine
from Testing.unit.fakes import volume_of
from Testing.unit.reader_model import ReaderModel, reader_card, sigmoid_reader

TWO = label_set_of(["bright", "dark"])


@pytest.fixture
def model():
    return ReaderModel()


@pytest.fixture
def engine(model, tmp_path):
    return new_engine(tmp_path, model, reader_card())


def noise(shape=(5, 20, 20), seed=0, modality="MR"):
    """Slices of different levels; as CT from -130 to 105, which each of the windows tells apart."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(20, 215, shape[0]) - (130 if modality == "CT" else 0)
    slices = [rng.integers(level - 20, level + 20, shape[1:]) for level in levels]
    return volume_of(np.stack(slices).astype(np.int16), modality=modality)


def ask(engine, volume, labels=TWO, progress=None, **fields):
    if volume.key not in engine.volumes:
        engine.add_volume(volume)
    return engine.classify(ClassifyRequest(3, "reader", volume.key, labels, **fields), progress or Progress())


def test_the_answer_ranks_and_says_who_gave_it(engine, model):
    volume = noise()
    found = ask(engine, volume, intensity="256,128")
    assert found.request_id == 3 and found.slices == (0, 1, 2, 3, 4) and found.curves.shape == (5, 2)
    assert sum(one.score for one in found.scores) == pytest.approx(1)
    means = [plane.mean() / 255 for plane in volume.array_kji]
    assert np.array_equal(np.argsort(found.curves[:, 0]), np.argsort(means))
    assert found.scores[0].score == pytest.approx(found.curves[:, 0].mean(), abs=1e-6)
    assert found.checkpoint.model_id == "reader" and found.checkpoint.sha256
    assert (found.device, found.precision, found.rule) == ("cpu", "float32", "softmax")
    assert set(found.timings_s) == {"load", "text", "encode", "evidence"}
    assert found.looks[0]["channels"][0]["low"] == 0


def test_a_hundred_labels_cost_one_text_batch_once_and_no_second_look(engine, model):
    volume = noise((30, 16, 16))
    labels = label_set_of([f"label {n}" for n in range(100)])
    first = ask(engine, volume, labels)
    assert (len(model.read), len(model.read[0])) == (1, 100)
    assert model.shown == 30 and first.counts == {"images": 30, "image_batches": 4, "texts": 100, "text_batches": 1}
    again = ask(engine, volume, labels)
    assert len(model.read) == 1 and model.shown == 30
    assert again.counts == {"images": 0, "image_batches": 0, "texts": 0, "text_batches": 0}
    assert [one.score for one in again.scores] == [one.score for one in first.scores]
    ask(engine, volume, label_set_of([f"label {n}" for n in range(50, 110)]))
    assert [len(batch) for batch in model.read] == [100, 10] and model.shown == 30
    ask(engine, volume, labels, subject=Subject(start=4, stop=9), aggregation=Aggregation("max"))
    assert model.shown == 30


def test_300_slices_are_encoded_in_batches_with_progress(engine, model):
    reports = []
    ask(engine, noise((300, 12, 12)), progress=Progress(reports.append))
    assert max(map(len, model.batches)) == 8 and model.shown == 300
    seen = [report for report in reports if report.stage == "classify"]
    assert [report.done for report in seen] == [*range(0, 300, 8), 300] and {report.total for report in seen} == {300}
    assert [report.done for report in reports if report.stage == "text"] == [0, 2]


def test_a_cancelled_request_keeps_what_it_saw(engine, model):
    volume, token = noise((40, 12, 12)), CancelToken()

    def cancel_late(report):
        if report.stage == "classify" and report.done >= 16:
            token.cancel()

    with pytest.raises(Cancelled):
        ask(engine, volume, progress=Progress(cancel_late, token))
    assert model.shown == 16
    found = ask(engine, volume)
    assert model.shown == 40 and found.counts["images"] == 24


def test_another_question_about_300_slices_is_answered_at_once(engine, model, bar):
    volume = noise((300, 64, 64), modality="CT")
    ask(engine, volume)
    assert model.shown == 900  # through three windows
    best = 1.0
    for n in range(5):
        labels = label_set_of([f"label {n} {m}" for m in range(100)])
        begin = time.perf_counter()
        found = ask(engine, volume, labels)
        best = min(best, time.perf_counter() - begin - found.timings_s["text"])
    assert model.shown == 900
    bar("another question about 300 slices, 100 labels, beside the text tower, ms", best * 1000, "< 50")
    assert best < 0.25  # the bar is 0.05; another program may be at work


def test_windows_are_separate_looks_whose_vectors_are_averaged(engine, model):
    volume = noise((3, 12, 12), modality="CT")
    found = ask(engine, volume)
    assert [look["name"] for look in found.looks] == ["ct-soft-tissue", "ct-lung", "ct-bone"]
    assert model.shown == 9 and any("3 times" in note for note in found.notes)
    single = [ask(engine, volume, intensity=name) for name in ("ct-soft-tissue", "ct-lung", "ct-bone")]
    assert model.shown == 9  # each window has been seen
    for n in range(3):
        alone = [one.curves[n, 0] for one in single]
        assert min(alone) <= found.curves[n, 0] <= max(alone)


def test_windows_are_channels_where_the_card_says_so(model, tmp_path):
    card = reader_card(ct_channels=((-1024, 1024), (-135, 215), (0, 80)))
    engine = new_engine(tmp_path, model, card)
    found = ask(engine, noise((2, 12, 12), modality="CT"))
    assert [look["name"] for look in found.looks] == ["ct-channels"]
    assert model.batches[0][0].shape == (12, 12, 3)


@given(st.permutations(range(6)), st.sampled_from(["softmax", "pairs"]), st.sampled_from(["mean", "max", "top-k"]))
def test_permuting_labels_permutes_the_answer(order, rule, aggregation):
    names = [f"label {n}" for n in range(5)] + ["bright"]
    volume, memory = noise((4, 9, 9)), _Direct()
    fields = {"scoring": Scoring(rule), "aggregation": Aggregation(aggregation, 2)}
    one = memory.ask(volume, label_set_of(names), **fields)
    other = memory.ask(volume, label_set_of([names[n] for n in order]), **fields)
    for n, m in enumerate(order):
        for field in ("name", "stands_out"):
            assert getattr(other.scores[n], field) == getattr(one.scores[m], field)
        for field in ("score", "spread", "low", "high", "margin"):
            assert getattr(other.scores[n], field) == pytest.approx(getattr(one.scores[m], field), abs=1e-9)
    assert np.allclose(other.curves, one.curves[:, list(order)], atol=1e-6)


class _Direct:
    """The answer without an engine, for tests with many examples."""

    def __init__(self):
        weights = Weights(CheckpointRecord("reader", "", "", ""), "cpu", "float32")
        self.loaded, self.cache = LoadedModel(ReaderModel(), weights), VectorCache()

    def ask(self, volume, labels, **fields):
        request = ClassifyRequest(1, "reader", volume.key, labels, **fields)
        encoder = Encoder(self.loaded, self.cache, Progress())
        return classify(request, volume, resolve_intensity_views(request.intensity, volume), encoder)


def test_slices_with_nothing_to_see_are_told_and_do_not_count(engine, model):
    volume = noise((6, 10, 10))
    array = volume.array_kji.copy()
    array[1], array[4] = 7, 0
    blank = volume_of(array, modality="MR")
    found = ask(engine, blank)
    assert np.isnan(found.curves[[1, 4]]).all() and np.isfinite(found.curves[[0, 2, 3, 5]]).all()
    assert any("2 of 6 slices show nothing" in note and "no evidence" in note for note in found.notes)
    assert model.shown == 4
    ask(engine, blank)
    assert model.shown == 4
    with pytest.raises(InputError, match="nothing to see"):
        ask(engine, blank, subject=Subject(start=4, stop=5))
    with pytest.raises(InputError, match="nothing to see"):
        ask(engine, blank, subject=Subject(box=Box((0, 3, 3), (1, 4, 4))))


def test_a_spread_is_what_the_wording_alone_does(engine):
    labels = LabelSet("s", "S", "exclusive", (Label("Bright", ("bright", "the light one")), Label("Dark", ("dark",))))
    found = ask(engine, noise(), labels)
    bright, dark = found.scores
    assert bright.low <= bright.score <= bright.high and bright.spread > 0.01
    assert dark.spread == 0 and dark.low == dark.high == pytest.approx(dark.score)
    alone = ask(
        engine, noise(), LabelSet("s", "S", "exclusive", (Label("Bright", ("the light one",)), labels.labels[1]))
    )
    assert alone.scores[0].score == pytest.approx(bright.low) or alone.scores[0].score == pytest.approx(bright.high)


@pytest.mark.parametrize(("rule", "doubt"), [("softmax", 1), ("pairs", 2)])
def test_what_the_wording_alone_could_have_done_does_not_stand_out(rule, doubt):
    direct, volume, seen = _Direct(), noise((2, 9, 9)), set()
    for n in range(60):
        words = [tuple(f"{name} {n} {m}" for m in range(4)) for name in ("one", "other", "third")]
        labels = LabelSet(
            "s", "S", "exclusive", tuple(Label(text[0], text) for text in words), negative_templates=("no {}",)
        )
        for one in direct.ask(volume, labels, scoring=Scoring(rule, temperature=5.0)).scores:
            assert one.stands_out == (one.margin >= 0.1 and one.margin > doubt * one.spread)
            seen.add((one.margin >= 0.1, one.stands_out))
    assert seen == {(False, False), (True, False), (True, True)}


def test_findings_do_not_meet_and_sigmoids_are_used_where_they_were_trained(tmp_path):
    engine = new_engine(tmp_path, sigmoid_reader(), reader_card())
    findings = replace(TWO, kind="findings")
    found = ask(engine, noise(), findings)
    assert found.rule == "sigmoid" and sum(one.score for one in found.scores) != pytest.approx(1)
    assert found.counts["texts"] == 2
    paired = ask(engine, noise(), findings, scoring=Scoring("pairs"))
    assert paired.rule == "pairs" and paired.counts["texts"] == 2  # "no bright", "no dark"


def test_concepts_are_scored_by_their_mean_and_shown(engine):
    labels = LabelSet(
        "s", "S", "exclusive", (Label("A", concepts=("bright", "shining")), Label("B", concepts=("dark", "black")))
    )
    found = ask(engine, noise(), labels, scoring=Scoring("concepts"))
    assert [(one.label, one.concept) for one in found.concepts] == [
        ("A", "bright"),
        ("A", "shining"),
        ("B", "dark"),
        ("B", "black"),
    ]
    assert all(-1 <= one.similarity <= 1 for one in found.concepts)
    assert sum(one.score for one in found.scores) == pytest.approx(1)


def test_texts_that_are_too_long_are_told(engine):
    found = ask(engine, noise(), label_set_of(["bright " * 20, "dunkel, ночь, 夜"]))
    assert any("longer than the model reads" in note and "bright bright" in note for note in found.notes)
    assert np.isfinite(found.curves).all()


def test_a_segment_is_one_organ(engine, model):
    mask = np.zeros((5, 20, 20), bool)
    mask[1:4, 4:9, 5:11] = True
    labels = LabelSet(
        "s", "S", "findings", (Label("bright"), Label("dark")), negative_templates=("no {}",), one_in_segment=True
    )
    found = ask(engine, noise(), labels, subject=Subject(segment=pack_mask(mask)))
    assert found.rule == "softmax" and found.slices == (1, 2, 3)
    assert ask(engine, noise(), labels).rule == "pairs"


@pytest.mark.parametrize("method", ["similarity", "occlusion"])
def test_evidence_is_on_the_best_slices_of_the_label_that_was_asked_for(engine, model, method):
    array = np.full((6, 32, 32), 20, np.uint8)
    array[:, ::2] += 5  # something to see everywhere
    array[2, 8:16, 16:24] = array[4, 8:12, 16:20] = 250
    volume = volume_of(array)
    wish = EvidenceWish("bright", method, slices=2, parts=8)
    found = ask(engine, volume, intensity="raw", evidence=wish)
    (evidence,) = found.evidence
    assert (evidence.label, evidence.method, evidence.slices) == ("bright", method, (2, 4))
    box, painted = evidence.paint(volume.geometry)
    highest = np.unravel_index(painted.argmax(), painted.shape)
    k, j, i = (int(n) + start for n, start in zip(highest, box.start_kji, strict=True))
    assert 8 <= j < 16 and 16 <= i < 24 and k in (2, 4)
    assert any("not where a disease is" in note for note in found.notes)
    assert max(map(len, model.batches)) <= 8
    everywhere = ask(engine, volume, intensity="raw", evidence=replace(wish, slices=0))
    assert everywhere.evidence[0].slices == tuple(range(6))


def test_evidence_is_for_the_best_label_unless_another_is_named(engine):
    found = ask(engine, noise(), evidence=EvidenceWish(slices=1))
    assert found.evidence[0].label == found.ranked[0].name
    with pytest.raises(InputError, match="no label is called 'none'"):
        ask(engine, noise(), evidence=EvidenceWish("none"))


def test_models_are_asked_what_they_are_for(engine):
    engine.add_volume(noise())
    prompts = (SegmentPrompts("A", (TextPrompt("liver"),)),)
    with pytest.raises(InputError, match="a model to classify with, not to segment with"):
        engine.predict(PredictRequest(1, "reader", noise().key, prompts), Progress())
    with pytest.raises(VolumeMissingError):
        engine.classify(ClassifyRequest(1, "reader", "none", TWO), Progress())


def test_what_was_seen_goes_with_the_image(engine, model):
    volume = noise()
    ask(engine, volume)
    engine.remove_volume(volume.key)
    assert len(engine.vectors.slices) == 0 and len(engine.vectors.texts) == 2
    ask(engine, volume)
    assert model.shown == 10 and len(model.read) == 1
    engine.vectors.drop_model("reader")
    assert len(engine.vectors.slices) == len(engine.vectors.texts) == 0
