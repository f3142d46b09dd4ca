"""SAM's family with small random weights: what is trained is what answers, and a zero difference changes nothing."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from FoundationSegLib.catalog.catalogue import DELTA_FILE
from FoundationSegLib.engine.engine import Engine, load_model
from FoundationSegLib.errors import CheckpointError
from FoundationSegLib.hub.exchange import adaptation_folder
from FoundationSegLib.models.adaptation import (
    DeltaOrigin,
    Sample,
    Trainer,
    adapted,
    encoder_rank,
    plain,
    read_delta,
    trainable,
    write_delta,
)
from FoundationSegLib.models.protocols import SlicePoint, SlicePrompt
from FoundationSegLib.models.segmentation.lite_medsam import LiteMedSam, TinyVitEncoder, build_decoder, fold_batch_norms
from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.adaptation import AdaptRequest, Training
from Testing.models.small_models import CATALOGUE, LIGHTEST, WRITERS, load_small, stock
from Testing.toy_adaptation import toy_case, toy_segments

BOX, CLICK = SlicePrompt((20.0, 12.0, 60.0, 50.0)), SlicePrompt(points=(SlicePoint(40.0, 30.0),))


def model_of(family, folder):
    if family == "lite-medsam":
        torch.manual_seed(0)
        encoder = TinyVitEncoder().eval()
        fold_batch_norms(encoder)
        return LiteMedSam(encoder, build_decoder(), "cpu")
    card = next(card for card in CATALOGUE.values() if card.family == family)
    files = WRITERS[family](folder)
    if family == "medsam2":
        from FoundationSegLib.models.segmentation import medsam2
        from Testing.models import small_sam2
        from Testing.models.small_models import MEDSAM2_SIZE

        return medsam2.load(card, files, "cpu", small_sam2.small_network(size=MEDSAM2_SIZE).config)
    return load_model(card, files, "cpu")


@pytest.mark.parametrize("family", ["lite-medsam", "sam", "mobile-sam", "medsam", "sam2", "edgetam", "medsam2"])
def test_what_is_trained_is_what_answers(family, tmp_path):
    model = model_of(family, tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (64, 80), np.uint8)
    embedding = plain(model.encode(image))
    before = {prompt: model.decode(embedding, prompt).mask for prompt in (BOX, CLICK)}
    trainer = Trainer(model, 1e-3)
    assert {name.split(".")[0] for name in trainable(model.decoder)} == {"prompt_encoder", "mask_decoder"}
    answers = {prompt: trainer.answer(Sample(embedding, prompt, torch.zeros(image.shape))) for prompt in before}
    for prompt, mask in before.items():
        answer = answers[prompt]
        assert np.mean(answer.mask != mask) < 0.02  # MedSAM stretches probabilities
        corrected = replace(prompt, points=(*prompt.points, SlicePoint(10.0, 5.0, positive=False)))
        target = torch.zeros(image.shape)
        target[12:50, 20:60] = 1
        trainer.step(trainer.loss(Sample(embedding, corrected, target, answer.logits)))
    assert all(torch.isfinite(weight).all() for weight in trainer.delta().values())
    nothing = {name: torch.zeros_like(weight) for name, weight in trainer.delta().items()}
    changed = adapted(model, trainer.delta())
    for prompt, mask in before.items():
        assert np.array_equal(model.decode(embedding, prompt).mask, mask)
        assert np.array_equal(adapted(model, nothing).decode(embedding, prompt).mask, mask)
        first = changed.decode(embedding, prompt)
        assert changed.decode(embedding, replace(prompt, points=(*prompt.points, SlicePoint(70.0, 60.0))), first)


@pytest.mark.parametrize("family", ["lite-medsam", "sam", "mobile-sam", "medsam"])
def test_the_image_encoder_learns_by_matrices_of_low_rank(family, tmp_path):
    pytest.importorskip("peft")
    model = model_of(family, tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (64, 80), np.uint8)
    before = model.encode(image).grid
    embedding, target = plain(model.encode(image)), torch.zeros(image.shape)
    target[12:50, 20:60] = 1
    trainer = Trainer(model, 1e-2, encoder_rank(model, 2), seed=3)
    runs = []
    trainer.encoder.register_forward_hook(lambda *_: runs.append(1))
    for _ in range(3):
        answer = trainer.answer(Sample(embedding, BOX, target, picture=image))
        trainer.step(trainer.loss(Sample(embedding, BOX, target, answer.logits, image)))
    assert len(runs) == 3, "a slice is encoded once in a step, also for a correction"
    delta = trainer.delta()
    learned = [name for name in delta if name.startswith("image_encoder.")]
    assert learned and all(delta[name].any() for name in learned)
    origin, card = DeltaOrigin("base", "0" * 64), CATALOGUE["lite-medsam"]
    write_delta(tmp_path / "delta.safetensors", delta, origin)
    delta_read = read_delta(tmp_path / "delta.safetensors", card, origin, model)
    after = adapted(model, delta_read).encode(image).grid
    expected = trainer.model.embed(image, trainer.average_encoder).grid
    change, error = ((after - other).abs().mean() for other in (before, expected))  # the file has 16 bits
    assert change > 1e-4 and error < 0.05 * change
    assert torch.equal(model.encode(image).grid, before), "the base is never touched"
    again = Trainer(model, 1e-2, 2, seed=3)
    again.restore(trainer.state())
    assert all(torch.equal(value, delta[name]) for name, value in again.delta().items())
    for spoilt in (delta[learned[0]][:1], delta[learned[0]].repeat(1, 2)):
        write_delta(tmp_path / "delta.safetensors", {**delta, learned[0]: spoilt}, origin)
        with pytest.raises(CheckpointError, match="no weights"):
            read_delta(tmp_path / "delta.safetensors", card, origin, model)


@pytest.mark.parametrize("family", ["sam", "sam2"])
def test_an_adaptation_runs_from_segments_to_scores_and_a_file(family, tmp_path):
    """Of SAM with its encoder where peft is installed, of SAM 2.1 on slices with its decoder alone."""
    card, store = stock(LIGHTEST[family], tmp_path)
    engine = Engine({card.id: card}, store, "cpu", load_model=load_small)
    cases = [toy_case(seed, slices=3) for seed in range(5)]
    for volume, _ in cases:
        engine.add_volume(volume)
    training = Training(steps=2, least_pixels=5, encoder_rank=2)
    request = AdaptRequest(1, card.id, "small", toy_segments(cases, "ABCDE"), training=training)
    first, again = (engine.adapt(request, Progress()) for _ in range(2))
    assert (first.split, first.patients, first.cases) == ("blocks", 3, 3)
    assert first.sha256 == again.sha256, "the same seed gives the same bytes"
    delta = adaptation_folder(store.folder, first.model_id) / DELTA_FILE
    has_encoder = family == "sam" and importlib.util.find_spec("peft") is not None
    assert any(name.startswith("image_encoder.") for name in load_file(delta)) is has_encoder
    assert any("LoRA" in note for note in first.notes) is has_encoder


def test_without_a_graphics_card_the_image_encoder_stays_as_it_is(tmp_path):
    model = model_of("lite-medsam", tmp_path)
    assert encoder_rank(model, None) == 0
