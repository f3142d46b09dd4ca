"""SAM's family with small random weights: what is trained is what answers, and a zero difference changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from FoundationSegLib.engine.engine import load_model
from FoundationSegLib.models.adaptation import Sample, Trainer, adapted, plain, trainable
from FoundationSegLib.models.protocols import SlicePoint, SlicePrompt
from FoundationSegLib.models.segmentation.lite_medsam import LiteMedSam, TinyVitEncoder, build_decoder, fold_batch_norms
from Testing.models.small_models import CATALOGUE, WRITERS

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
    answers = {prompt: trainer.answer(embedding, prompt) for prompt in before}
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
