"""SAM's prompts that build on an answer or a mask, against SamModel."""

import numpy as np
import pytest
import torch

from FoundationSegLib.errors import PromptError
from FoundationSegLib.models.protocols import SliceAnswer, SliceMask, SlicePrompt
from Testing.models.sam_cases import box_of, disc, image_of, log_odds, prompt_of
from Testing.models.sam_parity import assert_parity


@pytest.mark.parametrize("shape", [(120, 150), (150, 120), (37, 501)])
def test_refining_goes_on_from_the_last_logits(sam_model, sam_reference, shape):
    image, points = image_of(shape), prompt_of("points", shape).points
    previous, known = None, None
    for count in range(1, len(points) + 1):
        previous = assert_parity(sam_model, sam_reference, image, SlicePrompt(points=points[:count]), previous, known)
        known = previous.logits
    assert known.shape == (1, 1, 64, 64)


def test_what_was_said_before_matters(sam_model):
    shape = (120, 150)
    embedding = sam_model.encode(image_of(shape))
    first, second = (SlicePrompt(points=prompt_of("points", shape).points[:n]) for n in (1, 2))
    fresh = sam_model.decode(embedding, second)
    refined = sam_model.decode(embedding, second, sam_model.decode(embedding, first))
    assert not torch.allclose(fresh.logits, refined.logits, atol=0.1)


def test_an_answer_without_logits_is_none_to_refine(sam_model):
    embedding, prompt = sam_model.encode(image_of((120, 150))), prompt_of("point", (120, 150))
    empty = SliceAnswer(np.zeros((120, 150), bool), 0.0)
    assert torch.equal(sam_model.decode(embedding, prompt, empty).logits, sam_model.decode(embedding, prompt).logits)


@pytest.mark.parametrize("shape", [(120, 150), (150, 120), (37, 501), (256, 256)])
def test_a_mask_goes_in_as_log_odds_with_the_box_around_it(sam_model, sam_reference, shape):
    mask = disc(shape)
    prompt = SlicePrompt(mask=SliceMask.pack(mask))
    asked = SlicePrompt(box_of(mask))
    assert_parity(sam_model, sam_reference, image_of(shape), prompt, known=log_odds(mask), asked=asked)


def test_a_mask_goes_in_with_the_prompts_own_box_and_points(sam_model, sam_reference):
    shape = (120, 150)
    mask, with_box, with_point = disc(shape), prompt_of("box", shape), prompt_of("point", shape)
    packed, known = SliceMask.pack(mask), log_odds(mask)
    image = image_of(shape)
    prompt = SlicePrompt(with_box.box, mask=packed)
    assert_parity(sam_model, sam_reference, image, prompt, known=known, asked=with_box)
    prompt = SlicePrompt(points=with_point.points, mask=packed)
    asked = SlicePrompt(box_of(mask), with_point.points)
    assert_parity(sam_model, sam_reference, image, prompt, known=known, asked=asked)


def test_a_corrected_mask_goes_in_as_the_last_logits_and_points_alone(sam_model, sam_reference):
    shape = (120, 150)
    image, points, mask = image_of(shape), prompt_of("points", shape).points, SliceMask.pack(disc(shape))
    previous = sam_model.decode(sam_model.encode(image), SlicePrompt(mask=mask))
    prompt, asked = SlicePrompt(points=points, mask=mask), SlicePrompt(points=points)
    assert_parity(sam_model, sam_reference, image, prompt, previous, previous.logits, asked)


@pytest.mark.parametrize("prompt", [SlicePrompt(), SlicePrompt(mask=SliceMask.pack(np.zeros((120, 150), bool)))])
def test_a_prompt_that_says_nothing_is_refused(sam_model, prompt):
    with pytest.raises(PromptError, match="nothing of where"):
        sam_model.decode(sam_model.encode(image_of((120, 150))), prompt)
