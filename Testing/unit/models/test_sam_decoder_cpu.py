"""The decoder for the CPU against transformers' modules, with random weights."""

import pytest
import torch
from torch import Tensor
from transformers import SamModel

from FoundationSegLib.models.cpu_kernels.fused_convolution import fast_path_available
from FoundationSegLib.models.cpu_kernels.sam import SamCpuDecoder
from FoundationSegLib.models.segmentation.lite_medsam import build_decoder

pytestmark = pytest.mark.skipif(not fast_path_available("cpu"), reason="torch without oneDNN's fused convolutions")
BOXES = [(20.0, 30.0, 90.0, 70.0), (0.0, 0.0, 256.0, 256.0), (100.0, 3.0, 101.0, 4.0), (250.0, 200.0, 7.0, 10.0)]


@pytest.fixture(scope="module")
def model() -> SamModel:
    torch.manual_seed(0)
    model = build_decoder().eval().requires_grad_(False)
    for name, value in model.named_parameters():
        # Fresh weights hide most terms: biases are zeros, and attention is next to uniform.
        if "norm" in name and name.endswith("weight"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("bias"):
            value.normal_(0, 0.3)
        elif "_proj" in name or "upscale" in name:
            value.normal_(0, 1.5 * value[0].numel() ** -0.5)
        else:
            value.normal_(0, 0.3 if "embed" in name else value[0].numel() ** -0.5)
    return model


@pytest.fixture(scope="module")
def decoder(model: SamModel) -> SamCpuDecoder:
    return SamCpuDecoder(model)


def random_features(seed: int, scale: float = 1.0) -> Tensor:
    features = scale * torch.randn(1, 256, 64, 64, generator=torch.Generator().manual_seed(seed))
    return features.contiguous(memory_format=torch.channels_last)


def tokens(model: SamModel, box: Tensor) -> Tensor:
    """What the prompt encoder makes of one box."""
    sparse, _ = model.prompt_encoder(
        input_points=None, input_labels=None, input_boxes=box[None, None], input_masks=None
    )
    return sparse[0, 0]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("box", BOXES)
def test_logits_and_scores_are_those_of_transformers(model, decoder, box, seed):
    features = random_features(seed, scale=1 + seed)
    with torch.inference_mode():
        box = torch.tensor(box)
        expected = model(image_embeddings=features.contiguous(), input_boxes=box[None, None], multimask_output=False)
        logits, score = decoder(features, tokens(model, box))
    assert (logits.shape, score.shape) == ((1, 256, 256), (1,))
    assert expected.pred_masks.std() > 0.3, "large enough for the tolerance to mean something"
    torch.testing.assert_close(logits, expected.pred_masks[0, 0], rtol=0, atol=1e-4)
    torch.testing.assert_close(score, expected.iou_scores[0, 0], rtol=0, atol=1e-5)


def test_every_layout_of_the_features_gives_the_same(model, decoder):
    features = random_features(5)
    with torch.inference_mode():
        box = tokens(model, torch.tensor(BOXES[0]))
        first, other = decoder(features, box), decoder(features.contiguous(), box)
    torch.testing.assert_close(first, other, rtol=0, atol=1e-5)


def test_the_same_box_gives_the_same_bits_and_leaves_the_features_alone(model, decoder):
    features = random_features(6)
    before = features.clone()
    with torch.inference_mode():
        first, second = (tokens(model, torch.tensor(box)) for box in BOXES[:2])
        one, between, again = (decoder(features, box)[0] for box in (first, second, first))
    assert torch.equal(features, before)
    assert torch.equal(one, again)
    assert not torch.equal(one, between)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["point", "points", "box and point"])
def test_every_prompt_is_what_transformers_says(model, decoder, kind, masked, several):
    features, places = random_features(7), torch.tensor([[[[20.0, 30.0], [200.0, 90.0], [77.5, 3.25]]]])
    count = 1 if kind.endswith("point") else 3
    points, labels = places[:, :, :count], torch.tensor([[[1, 0, 1]]])[:, :, :count]
    boxes = torch.tensor([[BOXES[0]]]) if "box" in kind else None
    masks = 5 * torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(8)) if masked else None
    with torch.inference_mode():
        sparse, dense = model.prompt_encoder(
            input_points=points, input_labels=labels, input_boxes=boxes, input_masks=masks
        )
        said = model(
            image_embeddings=features.contiguous(),
            input_points=points,
            input_labels=labels,
            input_boxes=boxes,
            input_masks=masks,
            multimask_output=several,
        )
        logits, scores = decoder(features, sparse[0, 0], dense if masked else None, several)
    assert (logits.shape, scores.shape) == ((3 if several else 1, 256, 256), (3 if several else 1,))
    torch.testing.assert_close(logits, said.pred_masks[0, 0], rtol=0, atol=1e-4)
    torch.testing.assert_close(scores, said.iou_scores[0, 0], rtol=0, atol=1e-5)
