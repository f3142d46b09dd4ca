"""Adaptation of a toy decoder: what is learned, kept, refused, and gone on with after a stop."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from FoundationSegLib.api_adaptation import adapt, discard, keep
from FoundationSegLib.catalog.catalogue import CARDS_VARIABLE, DELTA_FILE, read_catalogue
from FoundationSegLib.engine.course import SAVED_EVERY, box_prompt
from FoundationSegLib.errors import Cancelled, CheckpointError, InputError
from FoundationSegLib.evaluation.simulated_prompts import random_box
from FoundationSegLib.hub.exchange import adaptation_folder, export_checkpoint, import_adapted
from FoundationSegLib.hub.plan import plan_removal, remove
from FoundationSegLib.models.adaptation import DeltaOrigin, Sample, Trainer, adapted, plain, read_delta, write_delta
from FoundationSegLib.models.protocols import SlicePrompt
from FoundationSegLib.progress import Progress
from FoundationSegLib.prompts.kinds import PointPrompt, SegmentPrompts
from FoundationSegLib.requests.adaptation import AdaptRequest, Gain, KindScores, LabelScores, Training, curve_point
from FoundationSegLib.requests.segmentation import PredictRequest
from FoundationSegLib.worker.client import InlineClient
from Testing.toy_adaptation import ToyModel, null_request, toy_case, toy_engine, toy_segments

QUICK = Training(steps=200, rate=1e-2, least_pixels=5)


@pytest.fixture(scope="module")
def cases():
    torch.set_num_threads(1)
    return [toy_case(seed, slices=10) for seed in range(9)]


@pytest.fixture
def desk(cases, tmp_path, monkeypatch):
    """Adapts in line; returns the engine and the function that does it."""
    monkeypatch.setenv(CARDS_VARIABLE, str(tmp_path / "cards"))
    (tmp_path / "cards").mkdir()
    engine = toy_engine(tmp_path, cases)

    def run(training=QUICK, name="blobs", patients="ABCDEFGHI", on_progress=None):
        segments = toy_segments(cases, patients)
        client = InlineClient(engine, on_progress)
        client_volumes = [volume for volume, _ in cases]
        return adapt(client_volumes, segments, client, "fake", name, training=training, catalogue=engine.catalogue)

    return engine, run


def delta_bytes(engine, name="blobs"):
    return (adaptation_folder(engine.store.folder, f"fake+{name}") / "delta.safetensors").read_bytes()


def test_a_model_of_boxes_learns_clicks_and_is_a_model_like_any_other(desk, cases, tmp_path):
    engine, run = desk
    points = []
    result = run(on_progress=lambda report: points.append(curve_point(report)))
    scores = {score.kind: score for score in result.kinds}
    assert "point" in result.passed and scores["point"].after > scores["point"].before + 0.1
    assert (result.split, result.cases, result.units, result.base) == ("patients", 6, 3, "fake")
    curve = [point for point in points if point]
    assert curve[-1].held_out < curve[0].held_out and curve[-1].step == QUICK.steps
    assert len(result.examples) == 3 and all(shown.picture.shape == shown.after.shape for shown in result.examples)
    card = keep(result, engine.store, engine.catalogue)
    assert (card.id, card.base, card.license.name) == ("fake+blobs", "fake", engine.catalogue["fake"].license.name)
    catalogue = read_catalogue(tmp_path / "shipped", tmp_path / "cards")
    assert catalogue["fake+blobs"] == card and engine.store.status(card) == "ready"
    engine = toy_engine(tmp_path, cases, tmp_path / "cards")
    volume, mask = cases[0]
    k, j, i = np.argwhere(mask)[len(np.argwhere(mask)) // 2].tolist()
    click = PointPrompt(tuple(volume.geometry.to_ras((i, j, k))), plane="k")
    prediction = engine.predict(PredictRequest(1, card.id, volume.key, (SegmentPrompts("a", (click,)),)), Progress())
    document = prediction.checkpoint.to_document()
    assert document["sha256"] == result.sha256
    assert document["base"] == {"id": "fake", "sha256": result.base_sha256}
    assert prediction.segments[0].mask.voxels
    # To another machine and away again.
    export_checkpoint(engine.store, card, tmp_path / "out.zip", Progress())
    remove(engine.store, card, plan_removal(engine.store, card))
    shipped = read_catalogue(tmp_path / "shipped", tmp_path / "cards")
    assert card.id not in shipped and engine.store.status(card) == "absent"
    assert import_adapted(engine.store, shipped, card.id, tmp_path / "out.zip", Progress()) == card
    with pytest.raises(InputError, match="already"):
        adapt([], (), InlineClient(engine), "fake", "blobs", catalogue={**shipped, card.id: card})


def test_the_same_seed_gives_the_same_bytes_also_after_a_stop(desk):
    engine, run = desk
    run = partial(run, replace(QUICK, steps=80))
    run()
    first = delta_bytes(engine)
    steps = []

    def stop_late(report):
        steps.append(report.done)
        if report.stage == "train" and report.done > SAVED_EVERY + 10:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        run(name="other", on_progress=stop_late)
    steps.clear()
    points = []

    def noted(report):
        points.append(curve_point(report))
        if report.stage == "train" and points[-1] is None:
            steps.append(report.done)

    run(name="other", on_progress=noted)
    assert min(steps) == SAVED_EVERY
    assert [point.step for point in points if point] == [0, 50, 80], "the curve is there again from its beginning"
    # The name is no part of the training.
    assert delta_bytes(engine, "other") == first
    desk[1](replace(QUICK, steps=80, seed=1), name="third")
    assert delta_bytes(engine, "third") != first


def test_a_state_of_another_training_or_a_damaged_one_is_not_gone_on_with(desk):
    engine, run = desk[0], partial(desk[1], replace(QUICK, steps=20))
    run()
    first = delta_bytes(engine)
    state = adaptation_folder(engine.store.folder, "fake+blobs") / "state.pt"
    for content in (b"", b"PK damaged", torch.zeros(1)):
        torch.save(content, state) if isinstance(content, torch.Tensor) else state.write_bytes(content)
        run()
        assert delta_bytes(engine) == first


def _changed(name, value):
    return lambda tensors: {**tensors, name: value}


@pytest.mark.parametrize(
    ("origin", "change", "message"),
    [
        (DeltaOrigin("fake", "1" * 64), None, "another base"),
        (DeltaOrigin("other", "0" * 64), None, "another base"),
        (None, b"", "damaged"),
        (None, b"\xff" * 9, "damaged"),
        (None, lambda tensors: {}, "no weights"),
        (None, _changed("vision_encoder.weight", torch.zeros(1)), "no weights"),
        (None, _changed("prompt_encoder.weight", torch.zeros(1)), "no weights"),
        (None, _changed("prompt_encoder.weight", torch.full((8, 4), torch.nan)), "no weights"),
        (None, _changed("prompt_encoder.weight", torch.zeros(8, 4, dtype=torch.int32)), "no weights"),
    ],
)
def test_a_difference_to_another_base_or_of_another_network_is_refused(tmp_path, desk, origin, change, message):
    model, path = ToyModel(), tmp_path / "delta.safetensors"
    delta = {name: torch.full_like(weight, 0.5) for name, weight in model.decoder.named_parameters()}
    mine = DeltaOrigin("fake", "0" * 64)
    write_delta(path, delta, mine)
    card = desk[0].catalogue["fake"]
    assert read_delta(path, card, mine, model).keys() == delta.keys()
    if isinstance(change, bytes):
        path.write_bytes(change)
    elif change is not None:
        metadata = {"foundationseg": json.dumps({"version": 1, "base": "fake", "base_sha256": "0" * 64})}
        save_file(change(load_file(path)), path, metadata)
    with pytest.raises(CheckpointError, match=message):
        read_delta(path, card, origin or mine, model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Not A Name"}, "no name for a model"),
        ({"model_id": "sam9"}, "no model is called"),
        ({"segments": ()}, "no segment to learn from"),
        ({"training": replace(QUICK, least_pixels=10**4)}, "no segment to learn from"),
    ],
)
def test_what_cannot_be_learned_from_is_said_before_anything_is_encoded(desk, cases, change, message):
    engine, _ = desk
    request = replace(AdaptRequest(1, "fake", "blobs", toy_segments(cases), training=QUICK), **change)
    with pytest.raises(Exception, match=message):
        engine.adapt(request, Progress())


def test_an_image_and_a_part_of_it_are_one_patient(desk, cases, tmp_path):
    engine, _ = desk
    volume, mask = cases[0]
    part = replace(
        volume, array_kji=volume.array_kji[3:].copy(), geometry=replace(volume.geometry, shape_kji=(7, 20, 20))
    )
    pairs = [(volume, mask), (part, mask[3:]), *cases[1:9]]
    engine = toy_engine(tmp_path, pairs)
    request = AdaptRequest(1, "fake", "blobs", toy_segments(pairs, "ABCDEFGHIJ"), training=replace(QUICK, steps=1))
    result = engine.adapt(request, Progress())
    assert result.notes == ("taken for one patient, since their images share slices: B and A",)


def test_labels_of_other_images_are_no_improvement(desk, cases, full, bar):
    engine, _ = desk
    seeds, most = (100, 5) if full else (3, 1)
    requests = [null_request(cases, seed, replace(QUICK, steps=50)) for seed in range(seeds)]
    offered = sum(bool(engine.adapt(request, Progress()).passed) for request in requests)
    bar(f"labels of other images offered, of {seeds} seeds", offered, f"<= {most}")
    assert offered <= most


@pytest.mark.parametrize(
    ("label", "passes"),
    [(Gain(0.2, 0.1, 0.3), True), (Gain(-0.1, -0.2, 0.1), True), (Gain(-0.1, -0.2, -0.05), False)],
)
def test_a_kind_that_loses_a_label_beyond_chance_does_not_pass(label, passes):
    better = Gain(0.2, 0.1, 0.3)
    scores = KindScores("box", 9, 0.6, 0.8, 0.5, better, better, (LabelScores("liver", 9, 0.6, 0.5, label),))
    assert scores.passed is passes and bool(scores.fallen) is (label.mean < 0)


def test_a_training_ends_where_the_held_out_loss_no_longer_falls(desk, cases):
    request = null_request(cases, 0, replace(QUICK, steps=2000, rate=3e-2))
    result = desk[0].adapt(request, Progress())
    losses = [point.held_out for point in result.curve]
    assert result.curve[-1].step < 2000 and len(losses) - 1 - losses.index(min(losses)) == 3
    assert result.steps == result.curve[losses.index(min(losses))].step, "the best weights are taken, not the last"


def test_what_the_base_answers_where_tissue_is_grey_in_another_way_is_held(desk, cases):
    engine, run = desk
    base, rng = ToyModel(), np.random.default_rng(0)
    pictures = [(255 - volume.array_kji[k].clip(0, 255)).astype(np.uint8) for volume, _ in cases[:3] for k in range(5)]
    questions = [(base.encode(picture), SlicePrompt(random_box(picture.shape, rng))) for picture in pictures]

    def change(distillation):
        run(replace(QUICK, distillation=distillation), name=f"held{distillation:.0f}")
        delta = load_file(adaptation_folder(engine.store.folder, f"fake+held{distillation:.0f}") / DELTA_FILE)
        models = (base, adapted(base, delta))
        before, after = ([m.guess(*question, None)[0].sigmoid() for question in questions] for m in models)
        return float(np.mean([(a - b).abs().mean() for a, b in zip(before, after, strict=True)]))

    assert change(2.0) < 0.8 * change(0.0)


def test_a_discarded_result_leaves_nothing(desk):
    engine, run = desk
    result = run(replace(QUICK, steps=1))
    discard(result, engine.store)
    assert not adaptation_folder(engine.store.folder, result.model_id).exists()


def test_a_trainer_leaves_the_base_alone(cases):
    model = ToyModel()
    before = {name: weight.clone() for name, weight in model.decoder.state_dict().items()}
    trainer = Trainer(model, 0.1)
    embedding = plain(model.encode(np.zeros((20, 20), np.uint8)))
    sample = Sample(embedding, box_prompt(cases[0][1][0]), torch.from_numpy(cases[0][1][0].astype(np.float32)))
    trainer.step(trainer.loss(sample))
    assert all(torch.equal(before[name], weight) for name, weight in model.decoder.state_dict().items())
    assert all(map(torch.any, trainer.delta().values()))
